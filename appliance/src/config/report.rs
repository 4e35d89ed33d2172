//! What is wrong with a configuration, where, and what would be right.

use super::given::Over;
use std::fmt::{self, Write};
use std::ops::Range;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    Error,
    Warning,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub severity: Severity,
    /// Bytes of the text; `None`: it concerns the file as a whole.
    pub span: Option<Range<usize>>,
    pub what: String,
    /// Said beside the caret: what would be right.
    pub right: Option<String>,
}

/// One finding, ready for people and for scripts.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Finding {
    pub severity: &'static str,
    /// Or the flag or variable that is to blame.
    pub file: String,
    /// Counting from 1; absent when the finding concerns the file as a whole, or no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The full text with source line and caret.
    #[serde(skip)]
    pub rendered: String,
}

/// A configuration that was refused. Its `Display` is the whole report, warnings included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// In file order, errors and warnings.
    pub findings: Vec<Finding>,
    /// Of the file's bytes, as [`super::Config::hash`]; `None`: they could not be read.
    pub hash: Option<String>,
    /// The file is valid by itself, and not with the values that were laid over it.
    pub by_given: bool,
}

impl ConfigError {
    /// The first error in one line.
    pub fn reason(&self) -> String {
        match self.findings.iter().find(|finding| finding.severity == "error") {
            Some(Finding { line: Some(line), message, .. }) => format!("line {line}: {message}"),
            // The flag or variable that is to blame.
            Some(Finding { file, message, .. }) if self.by_given => format!("{file}: {message}"),
            Some(finding) => finding.message.clone(),
            None => "not valid".to_owned(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{}", finding.rendered)?;
        }
        let errors = self.findings.iter().filter(|finding| finding.severity == "error").count();
        write!(f, "{errors} error{} in the configuration", if errors == 1 { "" } else { "s" })
    }
}

impl std::error::Error for ConfigError {}

/// Beyond: the line is shown around the caret only.
const LINE_CHARS_MAX: usize = 160;

/// Orders the problems as the file has them and renders each. `file` is the name as the user gave it.
pub fn render(file: &str, text: &str, over: Over<'_>, mut problems: Vec<Problem>) -> Vec<Finding> {
    problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
    problems.dedup();
    problems.into_iter().map(|problem| finding(file, text, over, problem)).collect()
}

fn finding(file: &str, text: &str, over: Over<'_>, problem: Problem) -> Finding {
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut rendered = format!("{severity}: {}\n", problem.what);
    let giver = problem.span.as_ref().and_then(|span| over.name(span));
    let place = problem.span.as_ref().filter(|_| giver.is_none()).map(|span| Place::find(text, span));
    let file = giver.unwrap_or(file);
    match &place {
        Some(place) => place.draw(&mut rendered, file, problem.right.as_deref()),
        None => {
            let _ = writeln!(rendered, " --> {file}");
            if let Some(right) = &problem.right {
                let _ = writeln!(rendered, "  = {right}");
            }
        }
    }
    Finding {
        severity,
        file: file.to_owned(),
        line: place.as_ref().map(|place| place.line),
        column: place.as_ref().map(|place| place.column),
        message: problem.what,
        help: problem.right,
        rendered,
    }
}

/// Where a span begins, with its source line made printable.
struct Place {
    line: usize,
    column: usize,
    source: String,
    /// Characters of `source` before the caret, and under it.
    before: usize,
    under: usize,
}

impl Place {
    fn find(text: &str, span: &Range<usize>) -> Self {
        let start = floor(text, span.start);
        let end = floor(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let before = text[line_start..start].chars().count();
        let under = text[start..end.min(line_end)].chars().count().max(1);
        let line = conceal(text[line_start..line_end].trim_end_matches('\r'));
        let line: Vec<char> = line.chars().map(printable).collect();
        let skipped = if line.len() > LINE_CHARS_MAX { before.saturating_sub(LINE_CHARS_MAX / 2) } else { 0 };
        let source: String = line.iter().skip(skipped).take(LINE_CHARS_MAX).collect();
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: before + 1,
            before: before - skipped,
            under: under.min(LINE_CHARS_MAX.saturating_sub(before - skipped)).max(1),
            source,
        }
    }

    fn draw(&self, out: &mut String, file: &str, right: Option<&str>) {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        // A tab before the caret stays a tab, so that the caret stands where the terminal shows the character.
        let indent: String = self
            .source
            .chars()
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .chain(std::iter::repeat(' '))
            .take(self.before)
            .collect();
        let caret = "^".repeat(self.under);
        let _ = writeln!(out, "{margin}--> {file}:{number}:{}", self.column);
        let _ = writeln!(out, "{margin} |");
        let _ = writeln!(out, "{number} | {}", self.source);
        let _ = match right {
            Some(right) => writeln!(out, "{margin} | {indent}{caret} {right}"),
            None => writeln!(out, "{margin} | {indent}{caret}"),
        };
    }
}

/// Somebody may write a secret where none belongs. The report must not carry it into a log.
fn conceal(line: &str) -> &str {
    let end = ["password", "passwd", "secret", "token", "secret_key", "access_key"].iter().flat_map(|word| {
        line.match_indices(word).filter_map(|(at, _)| {
            let rest = line[at + word.len()..].trim_start();
            rest.starts_with('=').then(|| line.len() - rest.len() + 1)
        })
    });
    let end = end.chain(credential_in_url(line));
    &line[..end.min().unwrap_or(line.len())]
}

/// Where a URL that may hold a user and a password shows them. (A password may hold any character.)
fn credential_in_url(line: &str) -> Option<usize> {
    let (at, scheme_end) = line.match_indices("://").next()?;
    let begin = at + scheme_end.len();
    line[begin..].contains('@').then_some(begin)
}

/// A control character must not reach the terminal.
fn printable(c: char) -> char {
    if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
}

fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::super::given::Given;
    use super::*;

    fn drawn(text: &str, span: Range<usize>) -> String {
        let problem =
            Problem { severity: Severity::Error, span: Some(span), what: "wrong".into(), right: Some("right".into()) };
        render("f.toml", text, Given::default().over(text), vec![problem]).remove(0).rendered
    }

    #[test]
    fn the_caret_stands_under_the_span() {
        assert_eq!(drawn("a = 1\nbé = 22\n", 6..9), "error: wrong\n --> f.toml:2:1\n  |\n2 | bé = 22\n  | ^^ right\n");
        assert_eq!(drawn("\ta = 1", 5..6), "error: wrong\n --> f.toml:1:6\n  |\n1 | \ta = 1\n  | \t    ^ right\n");
    }

    #[test]
    fn spans_beyond_the_line_or_the_text_are_cut() {
        assert_eq!(drawn("a = [\n1]", 4..8), "error: wrong\n --> f.toml:1:5\n  |\n1 | a = [\n  |     ^ right\n");
        assert_eq!(drawn("", 5..9), "error: wrong\n --> f.toml:1:1\n  |\n1 | \n  | ^ right\n");
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        let text = "[[sink]]\nurl = \"http://user:p/a\\\"ss@siem.internal/\"";
        let drawn = drawn(text, 15..text.len());
        assert!(drawn.contains("2 | url = \"http://\n") && !drawn.contains("user"), "{drawn}");
        assert_eq!(conceal("url = \"https://siem/x\""), "url = \"https://siem/x\"");
    }

    #[test]
    fn control_characters_never_reach_the_terminal_and_long_lines_are_cut() {
        assert!(!drawn("a = \"\u{1b}[2J\"", 0..1).contains('\u{1b}'));
        let long = "x".repeat(10_000);
        assert!(drawn(&long, 5_000..9_000).lines().all(|line| line.len() < 400));
    }
}
