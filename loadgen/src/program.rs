//! What one request consists of: statements with variables in them, and the protocol they are sent by.

use crate::lex::{self, Stretch};
use crate::rng::Rng;
use crate::wire;
use anyhow::{Context, Result, bail, ensure};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// One Query message.
    Simple,
    /// Parse, Bind, Describe, Execute, Sync each time.
    Extended,
    /// Parsed once a connection; then Bind, Describe, Execute, Sync.
    Prepared,
}

/// `\set NAME random(LOW, HIGH)`: drawn anew for every request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variable {
    pub name: String,
    pub low: i64,
    pub high: i64,
}

/// Which semicolons end a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// Every one, as in pgbench's scripts.
    Anywhere,
    /// Those at the end of a line: `SELECT 1; SELECT 2` on one line is one request.
    WithLine,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    Variable(usize),
}

/// One statement.
#[derive(Clone, Debug)]
pub struct Step {
    pieces: Vec<Piece>,
    /// Which variables are its parameters, in order of `$n`.
    parameters: Vec<usize>,
    /// The statement with `$n` in place of variables.
    parametrised: String,
    name: String,
    /// The whole request where no variable changes it.
    fixed: Option<Vec<u8>>,
}

impl Step {
    /// The statement, with `$n` in place of variables.
    pub fn sql(&self) -> &str {
        &self.parametrised
    }

    pub fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }
}

/// A request: its statements run one after the other on one connection.
#[derive(Clone, Debug)]
pub struct Program {
    pub protocol: Protocol,
    pub variables: Vec<Variable>,
    pub steps: Vec<Step>,
}

impl Program {
    pub fn new(protocol: Protocol, script: &str, ends: Ends, extra: &[Variable]) -> Result<Program> {
        let (mut variables, statements) = read_script(script, ends)?;
        variables.extend(extra.iter().cloned());
        ensure_named_once(&variables)?;
        ensure!(!statements.is_empty(), "there is no statement to send: give --sql or a script with one");
        let steps: Vec<Step> =
            statements.iter().enumerate().map(|(index, sql)| step(protocol, index, sql, &variables)).collect();
        let first_extra = variables.len() - extra.len();
        for (index, variable) in variables.iter().enumerate().skip(first_extra) {
            let used = steps.iter().any(|step| step.parameters.contains(&index));
            ensure!(used, "no statement uses `:{0}`, which --set {0}=... is for", variable.name);
        }
        Ok(Program { protocol, variables, steps })
    }

    /// What a connection sends once before its first request; empty if nothing.
    pub fn preparation(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.protocol == Protocol::Prepared {
            self.steps.iter().for_each(|step| wire::parse(&mut out, &step.name, &step.parametrised));
            out.extend_from_slice(&wire::SYNC);
        }
        out
    }

    pub fn draw(&self, rng: &mut Rng, values: &mut Vec<i64>) {
        values.clear();
        values.extend(self.variables.iter().map(|variable| rng.between(variable.low, variable.high)));
    }

    /// Appends the messages of one statement.
    pub fn encode(&self, step: usize, values: &[i64], out: &mut Vec<u8>) {
        let step = &self.steps[step];
        match &step.fixed {
            Some(bytes) => out.extend_from_slice(bytes),
            None => encode(self.protocol, step, values, out),
        }
    }
}

/// Of two with one name only the first would count.
fn ensure_named_once(variables: &[Variable]) -> Result<()> {
    for (index, variable) in variables.iter().enumerate() {
        let named_before = variables[..index].iter().any(|other| other.name == variable.name);
        ensure!(!named_before, "`{}` is set twice, by --set or the script's \\set", variable.name);
    }
    Ok(())
}

fn encode(protocol: Protocol, step: &Step, values: &[i64], out: &mut Vec<u8>) {
    if protocol == Protocol::Simple {
        return wire::message(out, b'Q', |out| {
            for piece in &step.pieces {
                match piece {
                    Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                    Piece::Variable(index) => out.extend_from_slice(values[*index].to_string().as_bytes()),
                }
            }
            out.push(0);
        });
    }
    if protocol == Protocol::Extended {
        wire::parse(out, "", &step.parametrised);
    }
    let parameters: Vec<i64> = step.parameters.iter().map(|&index| values[index]).collect();
    wire::bind_execute(out, &step.name, &parameters);
    out.extend_from_slice(&wire::SYNC);
}

fn step(protocol: Protocol, index: usize, sql: &str, variables: &[Variable]) -> Step {
    let pieces = pieces(sql, variables);
    let mut parameters = Vec::new();
    let mut parametrised = String::new();
    for piece in &pieces {
        match piece {
            Piece::Text(text) => parametrised.push_str(text),
            Piece::Variable(variable) => {
                let position = parameters.iter().position(|known| known == variable).unwrap_or_else(|| {
                    parameters.push(*variable);
                    parameters.len() - 1
                });
                parametrised.push_str(&format!("${}", position + 1));
            }
        }
    }
    let name = if protocol == Protocol::Prepared { format!("lg_{index}") } else { String::new() };
    let mut step = Step { pieces, parameters, parametrised, name, fixed: None };
    if step.parameters.is_empty() {
        let mut bytes = Vec::new();
        encode(protocol, &step, &[], &mut bytes);
        step.fixed = Some(bytes);
    }
    step
}

/// Finds `:name` of known variables outside quotes and comments; `::type` is left alone.
fn pieces(sql: &str, variables: &[Variable]) -> Vec<Piece> {
    let mut pieces = vec![];
    let mut text = String::new();
    for stretch in lex::stretches(sql) {
        match stretch {
            Stretch::Code(code) => variables_in(code, variables, &mut text, &mut pieces),
            Stretch::Quoted(hidden) | Stretch::Comment(hidden) => text.push_str(hidden),
        }
    }
    pieces.push(Piece::Text(text));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    pieces
}

/// `text` is what came since the last variable.
fn variables_in(code: &str, variables: &[Variable], text: &mut String, pieces: &mut Vec<Piece>) {
    let mut rest = code;
    while let Some(character) = rest.chars().next() {
        let name_length = |tail: &str| tail.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tail.len());
        let name = (character == ':' && !text.ends_with(':')).then(|| &rest[1..1 + name_length(&rest[1..])]);
        let known = name.and_then(|name| variables.iter().position(|variable| variable.name == name));
        if let Some(index) = known {
            pieces.push(Piece::Text(std::mem::take(text)));
            pieces.push(Piece::Variable(index));
            rest = &rest[1 + variables[index].name.len()..];
        } else {
            text.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
}

/// pgbench's script language as far as it makes sense here: `\set NAME random(A, B)` on lines of its own between statements, `--`
/// comments, statements that end with a semicolon; `\;` keeps two in one request.
fn read_script(script: &str, ends: Ends) -> Result<(Vec<Variable>, Vec<String>)> {
    let script = script.strip_prefix('\u{feff}').unwrap_or(script);
    ensure!(!script.contains('\0'), "a statement cannot hold a NUL byte");
    let (mut variables, mut statements, mut open) = (Vec::new(), Vec::new(), String::new());
    let mut rest = script;
    while !rest.is_empty() {
        if open.is_empty()
            && let Some(after) = skip_between(rest)
        {
            rest = after;
        } else if open.is_empty() && rest.starts_with('\\') {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            let number = || script[..script.len() - rest.len()].matches('\n').count() + 1;
            variables.push(command(line.trim()).with_context(|| format!("script line {}", number()))?);
            rest = after;
        } else {
            rest = take_statement(rest, ends, &mut open);
            statements.push(std::mem::take(&mut open).trim().to_string());
        }
    }
    statements.retain(|statement| lex::stretches(statement).any(|stretch| !is_blank(stretch)));
    Ok((variables, statements))
}

/// White space and a comment to the end of a line belong to no statement.
fn skip_between(rest: &str) -> Option<&str> {
    let trimmed = rest.trim_start();
    if trimmed.starts_with("--") {
        return Some(trimmed.split_once('\n').map_or("", |(_, after)| after));
    }
    (trimmed.len() < rest.len()).then_some(trimmed)
}

fn is_blank(stretch: Stretch<'_>) -> bool {
    match stretch {
        Stretch::Code(code) => code.trim().is_empty(),
        Stretch::Quoted(_) => false,
        Stretch::Comment(_) => true,
    }
}

/// Appends what comes before the next semicolon that ends a statement; returns what comes behind.
fn take_statement<'a>(rest: &'a str, ends: Ends, open: &mut String) -> &'a str {
    let mut at = 0;
    for stretch in lex::stretches(rest) {
        if let Stretch::Code(code) = stretch {
            let mut from = 0;
            while let Some(end) = code[from..].find(';').map(|end| from + end) {
                let (joined, behind) = (code[..end].ends_with('\\'), &rest[at + end + 1..]);
                if !joined && (ends == Ends::Anywhere || ends_line(behind)) {
                    open.push_str(&code[from..end]);
                    return behind;
                }
                open.push_str(&code[from..end - usize::from(joined)]);
                open.push(';');
                from = end + 1;
            }
            open.push_str(&code[from..]);
        } else {
            open.push_str(stretch.text());
        }
        at += stretch.text().len();
    }
    ""
}

fn ends_line(behind: &str) -> bool {
    let rest = behind.trim_start_matches(|c: char| c.is_whitespace() && c != '\n');
    rest.is_empty() || rest.starts_with('\n') || rest.starts_with("--")
}

/// A line that begins with a backslash.
fn command(line: &str) -> Result<Variable> {
    let set = line.strip_prefix("\\set").filter(|rest| rest.starts_with(char::is_whitespace));
    let set = set.and_then(|rest| rest.trim().split_once(char::is_whitespace));
    let Some((name, expression)) = set else {
        bail!("only `\\set NAME random(LOW, HIGH)` is known here, not `{line}`");
    };
    variable(name, expression)
}

/// `random(LOW, HIGH)`.
pub fn variable(name: &str, expression: &str) -> Result<Variable> {
    let bounds = expression.trim().strip_prefix("random(").and_then(|rest| rest.strip_suffix(')'));
    let bounds = bounds.and_then(|bounds| bounds.split_once(','));
    let Some((low, high)) = bounds else { bail!("`{name}` must be `random(LOW, HIGH)`, not `{expression}`") };
    let bound =
        |text: &str| text.trim().parse::<i64>().with_context(|| format!("`{}` is no whole number", text.trim()));
    let (low, high) = (bound(low)?, bound(high)?);
    ensure!(low <= high, "`{name}`: {low} is above {high}");
    Ok(Variable { name: name.to_string(), low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "-- a comment\n\\set aid random(5, 5)\nSELECT abalance\nFROM accounts WHERE aid = :aid AND x = ':aid' AND y = :aid::int;\n\nCOMMIT;\n";

    #[test]
    fn a_command_may_be_written_with_tabs() {
        let set = command("\\set\ta\trandom(1, 2)").expect("a variable");
        assert_eq!((set.name.as_str(), set.low, set.high), ("a", 1, 2));
        assert!(command("\\setx a random(1, 2)").is_err() && command("\\set").is_err());
    }

    #[test]
    fn scripts_become_steps() {
        let program = Program::new(Protocol::Prepared, SCRIPT, Ends::Anywhere, &[]).expect("it is well formed");
        assert_eq!(program.steps.len(), 2);
        let sql = "SELECT abalance\nFROM accounts WHERE aid = $1 AND x = ':aid' AND y = $1::int";
        assert_eq!(program.steps[0].parametrised, sql);
        assert!(!program.steps[0].is_fixed() && program.steps[1].is_fixed());
        let simple = Program::new(Protocol::Simple, SCRIPT, Ends::Anywhere, &[]).expect("it is well formed");
        let mut values = Vec::new();
        simple.draw(&mut Rng::new(1), &mut values);
        let mut out = Vec::new();
        simple.encode(0, &values, &mut out);
        let sent = b"SELECT abalance\nFROM accounts WHERE aid = 5 AND x = ':aid' AND y = 5::int\0";
        assert_eq!(&out[5..], sent);
    }

    #[test]
    fn statements_end_where_pgbench_ends_them() {
        let check = |script: &str, statements: &[&str]| {
            let program = Program::new(Protocol::Simple, script, Ends::Anywhere, &[]).expect("it is well formed");
            assert_eq!(program.steps.iter().map(Step::sql).collect::<Vec<_>>(), statements, "{script}");
        };
        check("SELECT 1; SELECT 2;", &["SELECT 1", "SELECT 2"]);
        check("SELECT 1; -- it's one\nSELECT 2; -- two", &["SELECT 1", "SELECT 2"]);
        check("SELECT ';' /* ; */;\r\nSELECT $$;$$", &["SELECT ';' /* ; */", "SELECT $$;$$"]);
        check("SELECT 1\\; SELECT 2;", &["SELECT 1; SELECT 2"]);
        check("\u{feff}SELECT 1;;\n/* none */;", &["SELECT 1"]);
        check("/*+ a hint */ SELECT 1\n-- more\n+ 1;", &["/*+ a hint */ SELECT 1\n-- more\n+ 1"]);
        let lines = "SELECT 1; SELECT 2; -- and\nSELECT 3;";
        let lines = Program::new(Protocol::Simple, lines, Ends::WithLine, &[]).expect("it is well formed");
        assert_eq!(lines.steps.iter().map(Step::sql).collect::<Vec<_>>(), ["SELECT 1; SELECT 2", "SELECT 3"]);
    }

    #[test]
    fn each_statement_is_read_once() {
        // Read to its end for each statement, this would take minutes.
        let check = |statement: &str, ends, steps| {
            let script = statement.repeat(200_000);
            let program = Program::new(Protocol::Simple, &script, ends, &[]).expect("it is well formed");
            assert_eq!(program.steps.len(), steps, "{statement}");
        };
        check("SELECT 1;\n", Ends::Anywhere, 200_000);
        check("SELECT 1;\n", Ends::WithLine, 200_000);
        check("SELECT 1; ", Ends::WithLine, 1);
    }

    #[test]
    fn variables_are_found_behind_a_comment_with_an_apostrophe() {
        let script = "\\set x random(1, 1)\nSELECT 1 -- it's :x\n, :x;";
        let program = Program::new(Protocol::Prepared, script, Ends::Anywhere, &[]).expect("it is well formed");
        assert_eq!(program.steps[0].sql(), "SELECT 1 -- it's :x\n, $1");
    }

    #[test]
    fn variables_that_would_be_dropped_are_refused() {
        let check = |script: &str, names: &[&str], message: &str| {
            let extra: Vec<Variable> = names.iter().filter_map(|name| variable(name, "random(1, 2)").ok()).collect();
            let result = Program::new(Protocol::Prepared, script, Ends::Anywhere, &extra);
            let found = result.map_or_else(|error| error.to_string(), |_| String::new());
            assert!(found.contains(message) && found.is_empty() == message.is_empty(), "{script} {names:?}: {found}");
        };
        check("SELECT :x;", &["x"], "");
        check("\\set y random(1, 2)\nSELECT :x;", &["x"], "");
        check("SELECT :x;", &["x", "x"], "`x` is set twice");
        check("\\set x random(1, 2)\nSELECT :x;", &["x"], "`x` is set twice");
        check("SELECT :x, ':y';", &["x", "y"], "no statement uses `:y`");
    }

    #[test]
    fn scripts_that_would_be_misread_are_refused() {
        for bad in [
            "\\sleep 1\nSELECT 1;",
            "\\set x 5\nSELECT 1;",
            "\\set x random(2, 1)\nSELECT 1;",
            "-- nothing\n",
            "SELECT '\0';",
        ] {
            assert!(Program::new(Protocol::Simple, bad, Ends::Anywhere, &[]).is_err(), "{bad}");
        }
    }
}
