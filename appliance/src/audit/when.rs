//! Points in time as people write them. All in UTC.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Accepts RFC 3339, `2026-11-20 03:12[:05]`, `2026-11-20`, `03:12[:05]` (today), and `90s 15m 2h 1d 1w` (ago).
/// Returns Unix microseconds.
pub fn parse_when(text: &str, now: Timestamp) -> Result<i64, String> {
    let text = text.trim();
    if let Some((time, zone)) = text.split_once('[') {
        let offset = "write the offset from UTC, as 2026-11-20T03:12:00+01:00";
        return Err(format!("`{time}` in the zone `{}` is not understood: {offset}", zone.trim_end_matches(']')));
    }
    // A leap second would be taken for the second before it.
    if text.contains(":60") {
        return Err(format!("`{text}` is not a time: minutes and seconds end with 59"));
    }
    if let Some(ago) = parse_ago(text) {
        return now.checked_sub(ago).map(|time| time.as_microsecond()).map_err(|_| format!("`{text}` is too long ago"));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_microsecond());
    }
    let time = clock_time(text).map(|time| now.to_zoned(TimeZone::UTC).date().to_datetime(time));
    let day = || text.parse::<Date>().ok().filter(|_| text.len() <= 10).map(|date| date.to_datetime(Time::midnight()));
    let both = || text.parse::<DateTime>().ok();
    time.or_else(day).or_else(both).and_then(|time| time.to_zoned(TimeZone::UTC).ok()).map_or_else(
        || {
            Err(format!(
                "`{text}` is not a time: write 2026-11-20T03:12:00Z, \"2026-11-20 03:12\", 03:12 (today, UTC), or 15m, 2h, \
                 1d (ago)"
            ))
        },
        |time| Ok(time.timestamp().as_microsecond()),
    )
}

fn parse_ago(text: &str) -> Option<SignedDuration> {
    let text = text.strip_suffix("ago").unwrap_or(text).trim();
    let unit = text.chars().last()?;
    let count: i64 = text[..text.len() - unit.len_utf8()].trim().parse().ok().filter(|count| *count >= 0)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    Some(SignedDuration::from_secs(count.checked_mul(seconds)?))
}

/// `03:12` or `03:12:05`.
fn clock_time(text: &str) -> Option<Time> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':' || byte == b'.');
    (digits && text.contains(':')).then(|| text.parse().ok()).flatten()
}

/// `2026-11-20T03:12:00.123456Z`.
pub fn rfc3339(unix_us: i64) -> String {
    timestamp(unix_us).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// `2026-11-20 03:12:00.123`, for tables.
pub fn short(unix_us: i64) -> String {
    timestamp(unix_us).strftime("%Y-%m-%d %H:%M:%S.%3f").to_string()
}

/// 0000-01-01T00:00:00Z, and where jiff's calendar ends: 9999-12-30T22:00:00Z.
const FIRST_US: i64 = -62_167_219_200_000_000;
const LAST_US: i64 = 253_402_207_200_000_000;

/// The nearest time that can be written so that it can be read again. A forged record may claim any; the ends of the calendar are
/// visibly wrong.
pub fn writable(unix_us: i64) -> i64 {
    unix_us.clamp(FIRST_US, LAST_US)
}

fn timestamp(unix_us: i64) -> Timestamp {
    Timestamp::from_microsecond(writable(unix_us)).expect("in the calendar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: Timestamp = "2026-11-20T12:34:56Z".parse().expect("a time");
        let cases = [
            ("2026-11-20T03:12:00Z", "2026-11-20T03:12:00.000000Z"),
            ("2026-11-20T03:12:00.5+01:00", "2026-11-20T02:12:00.500000Z"),
            ("2026-11-20 03:12", "2026-11-20T03:12:00.000000Z"),
            ("2026-11-20 03:12:07", "2026-11-20T03:12:07.000000Z"),
            ("2026-11-20T03:12", "2026-11-20T03:12:00.000000Z"),
            ("2026-11-19", "2026-11-19T00:00:00.000000Z"),
            ("03:12", "2026-11-20T03:12:00.000000Z"),
            ("03:12:07", "2026-11-20T03:12:07.000000Z"),
            ("90s", "2026-11-20T12:33:26.000000Z"),
            ("15m", "2026-11-20T12:19:56.000000Z"),
            ("2h", "2026-11-20T10:34:56.000000Z"),
            ("2h ago", "2026-11-20T10:34:56.000000Z"),
            ("1d", "2026-11-19T12:34:56.000000Z"),
            (" 1w ", "2026-11-13T12:34:56.000000Z"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_when(text, now).map(rfc3339), Ok(expected.to_owned()), "{text}");
        }
        for text in ["", "yesterday", "25:00", "2026-13-01", "15x", "-5m", "99999999999999999d", "m", "03"] {
            assert!(parse_when(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn what_would_be_read_as_another_time_is_refused() {
        let now: Timestamp = "2026-11-20T12:34:56Z".parse().expect("a time");
        for (text, why) in [
            ("2026-11-30T23:53[Europe/Berlin]", "write the offset from UTC"),
            ("2026-11-30T23:53:00+01:00[Europe/Berlin]", "write the offset from UTC"),
            ("2026-11-30T23:53:00Z[UTC]", "write the offset from UTC"),
            ("23:53:60", "end with 59"),
            ("2026-12-31T23:59:60Z", "end with 59"),
        ] {
            let error = parse_when(text, now).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn impossible_times_are_printed_all_the_same() {
        assert!(rfc3339(i64::MAX).ends_with('Z') && rfc3339(i64::MIN).ends_with('Z'));
        assert_eq!(short(1_795_142_000_123_456), "2026-11-20 02:33:20.123");
    }
}
