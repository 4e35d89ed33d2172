//! What one request consists of: statements with variables in them, and the protocol they are sent by.

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
    pub fn new(protocol: Protocol, script: &str, extra: &[Variable]) -> Result<Program> {
        let (mut variables, statements) = read_script(script)?;
        variables.extend(extra.iter().cloned());
        ensure!(!statements.is_empty(), "there is no statement to send: give --sql or a script with one");
        let steps = statements.iter().enumerate().map(|(index, sql)| step(protocol, index, sql, &variables)).collect();
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

/// Finds `:name` of known variables outside quotes; `::type` is left alone.
fn pieces(sql: &str, variables: &[Variable]) -> Vec<Piece> {
    let mut pieces = vec![];
    let mut text = String::new();
    let mut quote = None;
    let mut rest = sql;
    while let Some(character) = rest.chars().next() {
        let name_length = |tail: &str| tail.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tail.len());
        let known = (quote.is_none() && character == ':' && !text.ends_with(':'))
            .then(|| &rest[1..1 + name_length(&rest[1..])]);
        let known = known.and_then(|name| variables.iter().position(|variable| variable.name == name));
        if let Some(index) = known {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            pieces.push(Piece::Variable(index));
            rest = &rest[1 + variables[index].name.len()..];
            continue;
        }
        match quote {
            Some(open) if open == character => quote = None,
            None if character == '\'' || character == '"' => quote = Some(character),
            _ => {}
        }
        text.push(character);
        rest = &rest[character.len_utf8()..];
    }
    pieces.push(Piece::Text(text));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    pieces
}

/// pgbench's script language as far as it makes sense here: `\set NAME random(A, B)`, `--` comments, statements that end with
/// a semicolon at the end of a line.
fn read_script(script: &str) -> Result<(Vec<Variable>, Vec<String>)> {
    let (mut variables, mut statements, mut open) = (Vec::new(), Vec::new(), String::new());
    for (index, line) in script.lines().enumerate() {
        let trimmed = line.trim();
        if open.is_empty() && (trimmed.is_empty() || trimmed.starts_with("--")) {
            continue;
        }
        if let Some(command) = trimmed.strip_prefix('\\').filter(|_| open.is_empty()) {
            let command = command.strip_prefix("set ").and_then(|rest| rest.trim().split_once(char::is_whitespace));
            let Some((name, expression)) = command else {
                bail!("script line {}: only `\\set NAME random(LOW, HIGH)` is known here, not `{trimmed}`", index + 1);
            };
            variables.push(variable(name, expression).with_context(|| format!("script line {}", index + 1))?);
            continue;
        }
        if !open.is_empty() {
            open.push('\n');
        }
        open.push_str(line.trim_end());
        if let Some(statement) = open.strip_suffix(';') {
            statements.push(statement.trim().to_string());
            open.clear();
        }
    }
    if !open.trim().is_empty() {
        statements.push(open.trim().to_string());
    }
    Ok((variables, statements))
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
    fn scripts_become_steps() {
        let program = Program::new(Protocol::Prepared, SCRIPT, &[]).expect("it is well formed");
        assert_eq!(program.steps.len(), 2);
        let sql = "SELECT abalance\nFROM accounts WHERE aid = $1 AND x = ':aid' AND y = $1::int";
        assert_eq!(program.steps[0].parametrised, sql);
        assert!(!program.steps[0].is_fixed() && program.steps[1].is_fixed());
        let simple = Program::new(Protocol::Simple, SCRIPT, &[]).expect("it is well formed");
        let mut values = Vec::new();
        simple.draw(&mut Rng::new(1), &mut values);
        let mut out = Vec::new();
        simple.encode(0, &values, &mut out);
        let sent = b"SELECT abalance\nFROM accounts WHERE aid = 5 AND x = ':aid' AND y = 5::int\0";
        assert_eq!(&out[5..], sent);
    }

    #[test]
    fn scripts_that_would_be_misread_are_refused() {
        for bad in ["\\sleep 1\nSELECT 1;", "\\set x 5\nSELECT 1;", "\\set x random(2, 1)\nSELECT 1;", "-- nothing\n"] {
            assert!(Program::new(Protocol::Simple, bad, &[]).is_err(), "{bad}");
        }
    }
}
