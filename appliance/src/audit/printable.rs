//! Text from strangers on its way to a terminal or a line: nothing in it can move a cursor, end a line or hide.

use std::fmt::Write as _;

/// Control characters, and those that reorder or hide what stands around them.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Visible escapes for everything unsafe: `\n`, `\t`, `\u{1b}`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !is_unsafe(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => drop(write!(out, "\\u{{{:x}}}", u32::from(c))),
        }
    }
    out
}

/// On several lines as it was written: only line feeds and tabs stay, all else is escaped.
pub fn escape_lines(text: &str) -> String {
    text.split('\n')
        .map(|line| line.split('\t').map(escape).collect::<Vec<_>>().join("    "))
        .collect::<Vec<_>>()
        .join("\n")
}

/// On one line for a table: white space runs become one space, the rest is escaped, and what is too long ends in `…`.
pub fn one_line(text: &str, chars_max: usize) -> String {
    let folded = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let escaped = escape(&folded);
    match escaped.char_indices().nth(chars_max) {
        None => escaped,
        Some(_) => escaped.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// JSON text in which unsafe characters are `\u....` escapes: what `serde_json` leaves raw can only be inside strings.
pub fn json_safe(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// One CSV field. A text that a spreadsheet would take for a formula gets an apostrophe in front, and so does one that begins with an
/// apostrophe: whoever takes the first one off has what was written.
pub fn csv_field(text: &str) -> String {
    csv_quoted(escape(text))
}

/// The same, and what it says can be read back: a backslash is two.
pub fn csv_exact(text: &str) -> String {
    csv_quoted(escape(&text.replace('\\', "\\\\")))
}

/// JSON in a CSV field: what has to be escaped is so in the way of JSON.
pub fn csv_json(json: &str) -> String {
    csv_quoted(json_safe(json))
}

fn csv_quoted(mut text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\'']) && text.parse::<f64>().is_err() {
        text.insert(0, '\'');
    }
    if text.contains(['"', ',', ';']) || text.starts_with(' ') {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

/// Bytes as text: what is not UTF-8 is shown as `\xNN`.
pub fn bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "SELECT 1;\r\n\u{1b}]0;owned\u{7}\u{1b}[2J\t--\u{9b}31m\u{202e}drop\u{200b}\u{7f}\u{0}é漢";

    #[test]
    fn nothing_unsafe_survives_any_form() {
        let raw = |text: &str, kept: &[char]| text.chars().any(|c| is_unsafe(c) && !kept.contains(&c));
        assert!(raw(HOSTILE, &[]));
        assert!(!raw(&escape(HOSTILE), &[]));
        assert!(!raw(&one_line(HOSTILE, 500), &[]));
        assert!(!raw(&escape_lines(HOSTILE), &['\n']));
        assert!(!raw(&csv_field(HOSTILE), &[]) && !raw(&csv_exact(HOSTILE), &[]));
        let json = json_safe(&serde_json::to_string(HOSTILE).expect("a string"));
        assert!(!raw(&json, &[]), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).expect("still JSON"), HOSTILE);
    }

    #[test]
    fn escapes_are_visible_and_plain_text_stays() {
        assert_eq!(escape("a\n\u{1b}[1m é"), "a\\n\\u{1b}[1m é");
        assert_eq!(one_line("SELECT  1,\n\t 2", 80), "SELECT 1, 2");
        assert_eq!(one_line("SELECT abcdef", 8), "SELECT …");
        assert_eq!(csv_field("=1+1"), "'=1+1");
        assert_eq!((csv_field("'=1+1"), csv_field("'tis")), ("''=1+1".to_owned(), "''tis".to_owned()));
        assert_eq!(csv_field("-5"), "-5");
        assert_eq!(csv_field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!((csv_exact("a\\nb"), csv_exact("a\nb")), ("a\\\\nb".to_owned(), "a\\nb".to_owned()));
        assert_eq!(csv_json("[\"a\\nb\",null]"), "\"[\"\"a\\nb\"\",null]\"");
        assert_eq!(bytes(b"caf\xe9"), "caf\\xe9");
    }
}
