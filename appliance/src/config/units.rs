//! Durations and addresses as people write them.

use crate::limits::*;
use std::net::SocketAddr;
use std::time::Duration;

/// Least and most.
pub type Bounds = (Duration, Duration);
pub const TIMEOUT_BOUNDS: Bounds = (Duration::from_millis(10), Duration::from_secs(TIMEOUT_S_MAX));
pub const COMMIT_INTERVAL_BOUNDS: Bounds = (Duration::from_millis(1), Duration::from_millis(COMMIT_INTERVAL_MS_MAX));
pub const ARCHIVE_AGE_BOUNDS: Bounds = (Duration::from_millis(100), Duration::from_secs(ARCHIVE_AGE_S_MAX));
pub const DRAIN_BOUNDS: Bounds = (Duration::from_secs(1), Duration::from_secs(DRAIN_S_MAX));
pub const RETENTION_BOUNDS: Bounds = (Duration::from_secs(60), Duration::MAX);

/// By key, of the tables that tune the gateway.
pub const DURATIONS: [(&str, Bounds); 7] = [
    ("login_timeout", TIMEOUT_BOUNDS),
    ("connect_timeout", TIMEOUT_BOUNDS),
    ("drain_timeout", DRAIN_BOUNDS),
    ("commit_interval", COMMIT_INTERVAL_BOUNDS),
    ("retention", RETENTION_BOUNDS),
    ("archive_file_age", ARCHIVE_AGE_BOUNDS),
    ("archive_small_file_age", ARCHIVE_AGE_BOUNDS),
];

const UNITS: [(&str, u64); 7] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60 * 1_000_000),
    ("h", 3_600 * 1_000_000),
    ("d", 86_400 * 1_000_000),
    ("w", 7 * 86_400 * 1_000_000),
];

/// For editors. (JSON Schema's own `duration` format is ISO 8601, `PT15S`: not what people write here.)
pub const DURATION_PATTERN: &str = "^([0-9]+(us|ms|s|m|h|d|w))+$";
pub const DURATION_FORM: &str =
    "a duration is a number and a unit (us, ms, s, m, h, d, w): `15s`, `10m`, `8h`, `1h30m`";

/// `15s`, `10m`, `1h30m`; units us ms s m h d w. The error says what is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut total_us: u64 = 0;
    if rest.is_empty() {
        return Err("the duration is empty".into());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, next) = tail.split_at(letters);
        if number.is_empty() {
            return Err(format!("`{text}` is not a duration"));
        }
        if unit.is_empty() {
            return Err(if next.is_empty() {
                format!("`{text}` has no unit")
            } else {
                format!("`{text}` is not a duration")
            });
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("`{unit}` is not a unit of time"));
        };
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*scale));
        total_us = part.and_then(|part| total_us.checked_add(part)).ok_or_else(|| format!("`{text}` is too long"))?;
        rest = next;
    }
    Ok(Duration::from_micros(total_us))
}

/// For flags: the error is what is wrong and what would be right, in one.
pub fn bounded_duration(text: &str, (min, max): Bounds) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|what| format!("{what}: {DURATION_FORM}"))?;
    if duration < min {
        return Err(format!("at least {}", show_duration(min)));
    }
    if duration > max {
        return Err(format!("at most {}", show_duration(max)));
    }
    Ok(duration)
}

/// As [`parse_duration`] reads it: the largest units that come out even.
pub fn show_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, scale) in UNITS.iter().rev().filter(|(unit, _)| *unit != "w") {
        if left >= *scale {
            text += &format!("{}{unit}", left / scale);
            left %= scale;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// An IP address and a port. The error is what is wrong and what would be right.
pub fn parse_socket(text: &str) -> Result<SocketAddr, (String, String)> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let what = format!("`{text}` is not an IP address and a port");
    let right = |example: &str| format!("for example `{example}`");
    if text.parse::<std::net::IpAddr>().is_ok() {
        let example = if text.contains(':') { format!("[{text}]:6432") } else { format!("{text}:6432") };
        return Err((format!("`{text}` has no port"), right(&example)));
    }
    Err((
        what,
        match text.rsplit_once(':') {
            Some(("localhost", port)) => format!("write `127.0.0.1:{port}`; names are not resolved here"),
            Some(("" | "*", port)) => {
                format!("`0.0.0.0:{port}` is every IPv4 address of this host, `[::]:{port}` every address")
            }
            _ => right("127.0.0.1:6432"),
        },
    ))
}

/// Splits `host:port`, `[ipv6]:port`. The error is what is wrong and what would be right.
pub fn parse_host_port(text: &str) -> Result<(String, u16), (String, String)> {
    let right = |example: &str| format!("a target is `host:port`, for example `{example}`");
    if text.starts_with('/') {
        return Err(("Unix sockets of targets are not supported".into(), right("127.0.0.1:5432")));
    }
    if text.contains("://") {
        return Err((format!("`{text}` is a URL"), right("db.internal:5432")));
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err((format!("`{text}` has no port"), right(&format!("[{text}]:5432"))));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err((format!("`{text}` has no port"), right(&format!("{text}:5432"))));
    };
    let port: u16 = match port.parse() {
        Ok(port) if port != 0 => port,
        _ => return Err((format!("`{port}` is not a port"), "ports go from 1 to 65535".into())),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    if !valid {
        return Err((format!("`{host}` is not a host name or address"), right("db.internal:5432")));
    }
    Ok((bare.unwrap_or(host).to_owned(), port))
}

fn is_host_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'))
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit_once_or_more() {
        for (text, us) in
            [("15s", 15_000_000), ("5ms", 5_000), ("1h30m", 5_400_000_000), ("400d", 34_560_000_000_000), ("0s", 0)]
        {
            let parsed = parse_duration(text).unwrap();
            assert_eq!(parsed, Duration::from_micros(us), "{text}");
            assert_eq!(show_duration(parsed), text);
        }
        for (text, error) in [
            ("", "the duration is empty"),
            ("10", "`10` has no unit"),
            ("m", "`m` is not a duration"),
            ("10 m", "`10 m` is not a duration"),
            ("1.5h", "`1.5h` is not a duration"),
            ("-1s", "`-1s` is not a duration"),
            ("10min", "`min` is not a unit of time"),
            ("99999999999999999d", "`99999999999999999d` is too long"),
        ] {
            assert_eq!(parse_duration(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn target_addresses_keep_host_and_port_apart() {
        assert_eq!(parse_host_port("db.internal:5432").unwrap(), ("db.internal".into(), 5432));
        assert_eq!(parse_host_port("[::1]:5432").unwrap(), ("::1".into(), 5432));
        for text in
            ["", "db", ":5432", "db:0", "db:99999", "::1", "[::1]", "a b:1", "postgres://db:5432", "-a:1", "/run/x"]
        {
            assert!(parse_host_port(text).is_err(), "{text}");
        }
    }
}
