//! Values in PostgreSQL's binary format as the text the server would have sent. What is not known here is shown as hex.
//! Formats: the `_send` functions of each type (src/backend/utils/adt).

use super::printable;
use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, ToSpan as _};
use std::fmt::Write as _;

/// `\x` and lower-case digits, as bytea is shown.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A whole value of that type.
pub fn text(type_oid: u32, bytes: &[u8]) -> String {
    known(type_oid, bytes).unwrap_or_else(|| hex(bytes))
}

fn known(type_oid: u32, bytes: &[u8]) -> Option<String> {
    Some(match type_oid {
        16 => match bytes {
            [0] => "f".to_owned(),
            [1] => "t".to_owned(),
            _ => return None,
        },
        21 => i16::from_be_bytes(bytes.try_into().ok()?).to_string(),
        23 => i32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        20 => i64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        26 | 28 | 29 => u32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        700 => {
            let value = f32::from_be_bytes(bytes.try_into().ok()?);
            float(value.into(), 1e6, value.to_string(), &format!("{value:e}"))
        }
        701 => {
            let value = f64::from_be_bytes(bytes.try_into().ok()?);
            float(value, 1e15, value.to_string(), &format!("{value:e}"))
        }
        1700 => numeric(bytes)?,
        // "char", name, text, json, xml, unknown, bpchar, varchar, cstring
        18 | 19 | 25 | 114 | 142 | 705 | 1042 | 1043 | 2275 => printable::bytes(bytes),
        3802 => printable::bytes(bytes.strip_prefix(&[1])?),
        2950 => uuid(bytes.try_into().ok()?),
        1082 => date(i32::from_be_bytes(bytes.try_into().ok()?))?,
        1083 => time(i64::from_be_bytes(bytes.try_into().ok()?))?,
        1114 => timestamp(i64::from_be_bytes(bytes.try_into().ok()?))?,
        // In UTC: the client's own time zone is not in the record.
        1184 => format!("{}+00", timestamp(i64::from_be_bytes(bytes.try_into().ok()?))?),
        _ => return None,
    })
}

/// The shortest digits that read back the same: plain, or with an exponent from `large` on and below 0.0001.
fn float(value: f64, large: f64, plain: String, scientific: &str) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let size = value.abs();
    match scientific.split_once('e') {
        Some((digits, exponent)) if size >= large || size < 1e-4 && size > 0.0 => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        _ => plain,
    }
}

/// Digits of base 10,000, the weight of the first, sign and how many decimals are shown.
pub fn numeric(bytes: &[u8]) -> Option<String> {
    let mut words = bytes.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]]));
    let (count, weight, sign, scale) = (words.next()?, words.next()? as i16, words.next()?, words.next()?);
    let digits: Vec<u16> = words.collect();
    match sign {
        0xc000 => return Some("NaN".to_owned()),
        0xd000 => return Some("Infinity".to_owned()),
        0xf000 => return Some("-Infinity".to_owned()),
        _ => {}
    }
    if digits.len() != usize::from(count) || digits.iter().any(|&digit| digit > 9999) || scale > 16_383 {
        return None;
    }
    let digit = |place: i32| {
        let index = i32::from(weight) - place;
        usize::try_from(index).ok().and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let mut text = String::new();
    if sign == 0x4000 {
        text.push('-');
    }
    let first = i32::from(weight).max(0);
    let _ = write!(text, "{}", digit(first));
    for place in (0..first).rev() {
        let _ = write!(text, "{:04}", digit(place));
    }
    if scale > 0 {
        text.push('.');
        let end = text.len() + usize::from(scale);
        let mut place = -1;
        while text.len() < end {
            let _ = write!(text, "{:04}", digit(place));
            place -= 1;
        }
        text.truncate(end);
    }
    Some(text)
}

fn uuid(bytes: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(bytes));
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

const EPOCH: Date = jiff::civil::date(2000, 1, 1);

fn date(days: i32) -> Option<String> {
    match days {
        i32::MAX => Some("infinity".to_owned()),
        i32::MIN => Some("-infinity".to_owned()),
        days => EPOCH.checked_add(days.days()).ok().filter(|date| date.year() > 0).map(|date| date.to_string()),
    }
}

fn time(us: i64) -> Option<String> {
    let seconds = us / 1_000_000;
    (0..=86_400_000_000).contains(&us).then(|| {
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        with_fraction(clock, us % 1_000_000)
    })
}

fn timestamp(us: i64) -> Option<String> {
    match us {
        i64::MAX => return Some("infinity".to_owned()),
        i64::MIN => return Some("-infinity".to_owned()),
        _ => {}
    }
    let start: DateTime = EPOCH.at(0, 0, 0, 0);
    let time = start.checked_add(SignedDuration::from_micros(us)).ok().filter(|time| time.year() > 0)?;
    Some(with_fraction(time.strftime("%Y-%m-%d %H:%M:%S").to_string(), us.rem_euclid(1_000_000)))
}

fn with_fraction(text: String, us: i64) -> String {
    match us {
        0 => text,
        us => format!("{text}.{}", format!("{us:06}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_the_server_writes_them() {
        assert_eq!(text(16, &[1]), "t");
        assert_eq!(text(23, &(-7i32).to_be_bytes()), "-7");
        assert_eq!(text(701, &0.1f64.to_be_bytes()), "0.1");
        assert_eq!(text(700, &0.1f32.to_be_bytes()), "0.1");
        assert_eq!(text(701, &1e20f64.to_be_bytes()), "1e+20");
        assert_eq!(text(701, &1.5e-7f64.to_be_bytes()), "1.5e-07");
        assert_eq!(text(701, &123_456_789_012_345f64.to_be_bytes()), "123456789012345");
        assert_eq!(text(700, &1e6f32.to_be_bytes()), "1e+06");
        assert_eq!(text(701, &f64::NEG_INFINITY.to_be_bytes()), "-Infinity");
        assert_eq!(text(25, "é".as_bytes()), "é");
        assert_eq!(text(17, &[0xde, 0xad]), "\\xdead");
        assert_eq!(text(3802, b"\x01{\"a\": 1}"), "{\"a\": 1}");
        assert_eq!(text(2950, &[0x11; 16]), "11111111-1111-1111-1111-111111111111");
        assert_eq!(text(1082, &8035i32.to_be_bytes()), "2021-12-31");
        assert_eq!(text(1082, &(-1i32).to_be_bytes()), "1999-12-31");
        assert_eq!(text(1114, &1_500_000i64.to_be_bytes()), "2000-01-01 00:00:01.5");
        assert_eq!(text(1184, &(-1i64).to_be_bytes()), "1999-12-31 23:59:59.999999+00");
        assert_eq!(text(1083, &45_296_000_000i64.to_be_bytes()), "12:34:56");
    }

    /// As PostgreSQL 15's numeric_send gives them.
    #[test]
    fn numerics_have_their_scale() {
        let numeric = |words: &[u16]| text(1700, &words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>());
        assert_eq!(numeric(&[0, 0, 0, 0]), "0");
        assert_eq!(numeric(&[2, 1, 0, 0, 1, 2345]), "12345");
        assert_eq!(numeric(&[1, 1, 0, 0, 1]), "10000");
        assert_eq!(numeric(&[2, 0, 0x4000, 2, 12, 5000]), "-12.50");
        assert_eq!(numeric(&[1, 0xffff, 0, 4, 5]), "0.0005");
        assert_eq!(numeric(&[1, 0xfffe, 0, 8, 1]), "0.00000001");
        assert_eq!(numeric(&[0, 0, 0xc000, 0]), "NaN");
    }

    #[test]
    fn what_does_not_fit_its_type_is_hex() {
        for type_oid in [16, 20, 23, 701, 1700, 2950, 1082, 1083, 1114, 3802, 999_999] {
            assert_eq!(text(type_oid, &[0xff, 0xfe, 0xfd]), "\\xfffefd", "{type_oid}");
        }
        assert_eq!(text(1082, &i32::MAX.to_be_bytes()), "infinity");
        assert!(text(1114, &(i64::MAX - 1).to_be_bytes()).starts_with("\\x"));
    }
}
