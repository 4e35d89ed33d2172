//! The control thread's clock, and how times are written for people and programs.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix microseconds.
pub fn now_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    }
}

/// RFC 3339 in UTC with microseconds.
pub fn rfc3339(unix_us: i64) -> String {
    match jiff::Timestamp::from_microsecond(unix_us) {
        Ok(time) => format!("{time:.6}"),
        Err(_) => unix_us.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_written_in_utc_with_microseconds() {
        assert_eq!(super::rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(super::rfc3339(1_800_000_000_123_456), "2027-01-15T08:00:00.123456Z");
    }
}
