//! Interval log files (`.hlog`), as HdrHistogram's tools read them.
//!
//! A line holds start, length, maximum and a histogram: V2 encoding (zig-zag LEB128, runs of zeroes as a negative count), in
//! a zlib stream, in base64. The zlib stream only stores: lines of mostly empty histograms are short as they are.

use hdrhistogram::Histogram;
use std::time::{SystemTime, UNIX_EPOCH};

const V2_COOKIE: u32 = 0x1c84_9303 | 0x10;
const V2_COMPRESSED_COOKIE: u32 = 0x1c84_9304 | 0x10;
/// What a histogram says of itself.
const LOWEST: u64 = 1;
const DIGITS: u32 = 3;
/// The log's maximum is shown in milliseconds; recorded values are nanoseconds.
const NS_PER_MS: f64 = 1e6;
/// Most a stored block of deflate can hold.
const STORED_BYTES_MAX: usize = 65_535;

/// The lines before the first interval. `since`: when measuring began, which interval times count from.
pub fn head(since: SystemTime) -> String {
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    format!(
        "#[Logged with lockgate-loadgen {}]\n#[Histogram log format version 1.3]\n#[StartTime: {since:.3} (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        env!("CARGO_PKG_VERSION")
    )
}

pub fn line(start_s: f64, seconds: f64, histogram: &Histogram<u64>) -> String {
    let max = histogram.max() as f64 / NS_PER_MS;
    format!("{start_s:.3},{seconds:.3},{max:.3},{}\n", base64(&compressed(&encode(histogram))))
}

fn encode(histogram: &Histogram<u64>) -> Vec<u8> {
    let mut counts = Vec::new();
    let mut zeroes = 0i64;
    let max = histogram.max();
    for bucket in histogram.iter_all() {
        let count = bucket.count_at_value();
        if count == 0 {
            zeroes += 1;
            continue;
        }
        if zeroes > 0 {
            zig_zag(-zeroes, &mut counts);
            zeroes = 0;
        }
        zig_zag(count as i64, &mut counts);
        if bucket.value_iterated_to() >= max {
            break;
        }
    }
    if counts.is_empty() {
        // As the reference implementation writes a histogram without values: one count, of zero.
        zig_zag(0, &mut counts);
    }
    let mut out = Vec::with_capacity(40 + counts.len());
    for word in [V2_COOKIE, counts.len() as u32, 0, DIGITS] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for word in [LOWEST, histogram.high(), 1f64.to_bits()] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&counts);
    out
}

/// LEB128 in at most nine bytes; the ninth holds eight bits.
fn zig_zag(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    for _ in 0..8 {
        if rest < 0x80 {
            return out.push(rest as u8);
        }
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn compressed(payload: &[u8]) -> Vec<u8> {
    let zlib = stored_zlib(payload);
    let mut out = V2_COMPRESSED_COOKIE.to_be_bytes().to_vec();
    out.extend_from_slice(&(zlib.len() as u32).to_be_bytes());
    out.extend_from_slice(&zlib);
    out
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = ALPHABET[(group >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// RFC 1950 and 1951: stored blocks and the Adler-32 of it all.
fn stored_zlib(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let blocks = payload.chunks(STORED_BYTES_MAX);
    let last = blocks.len().saturating_sub(1);
    for (index, block) in blocks.enumerate() {
        out.push(u8::from(index == last));
        out.extend_from_slice(&(block.len() as u16).to_le_bytes());
        out.extend_from_slice(&(!(block.len() as u16)).to_le_bytes());
        out.extend_from_slice(block);
    }
    let (a, b) = payload.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    out.extend_from_slice(&(b << 16 | a).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure;

    #[test]
    fn zig_zag_agrees_with_the_format() {
        let coded = |value| {
            let mut out = Vec::new();
            zig_zag(value, &mut out);
            out
        };
        assert_eq!(coded(0), [0]);
        assert_eq!(coded(-1), [1]);
        assert_eq!(coded(1), [2]);
        assert_eq!(coded(-300), [0xd7, 0x04]);
        assert_eq!(coded(i64::MIN), [0xff; 9]);
    }

    #[test]
    fn counts_come_back_from_the_encoding() {
        let mut histogram = measure::histogram();
        for value in [5, 5, 5_000, 123_456_789] {
            histogram.record(value).expect("it is in bounds");
        }
        let bytes = encode(&histogram);
        let (mut at, mut index, mut found) = (40, 0i64, Vec::new());
        while at < bytes.len() {
            let (mut value, mut shift) = (0u64, 0);
            loop {
                let byte = bytes[at];
                at += 1;
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let value = (value >> 1) as i64 ^ -((value & 1) as i64);
            if value < 0 {
                index -= value;
            } else {
                found.push((index, value));
                index += 1;
            }
        }
        let indices: Vec<(i64, i64)> = histogram
            .iter_all()
            .enumerate()
            .filter(|(_, bucket)| bucket.count_at_value() > 0)
            .map(|(index, bucket)| (index as i64, bucket.count_at_value() as i64))
            .collect();
        assert_eq!(found, indices);
        assert_eq!(found.iter().map(|(_, count)| count).sum::<i64>(), 4);
    }

    #[test]
    fn an_interval_without_answers_is_a_line_too() {
        assert_eq!(encode(&measure::histogram())[40..], [0]);
        assert!(line(1.0, 1.0, &measure::histogram()).starts_with("1.000,1.000,0.000,HISTFAAA"));
    }

    #[test]
    fn base64_agrees_with_rfc_4648() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn the_stored_stream_is_what_zlib_makes_at_level_zero() {
        // zlib.compress(b"abc", 0) of another implementation.
        let expected = [0x78, 0x01, 0x01, 3, 0, 0xfc, 0xff, b'a', b'b', b'c', 0x02, 0x4d, 0x01, 0x27];
        assert_eq!(stored_zlib(b"abc"), expected);
    }
}
