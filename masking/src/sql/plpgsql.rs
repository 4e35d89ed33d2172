//! The SQL inside a PL/pgSQL body, as PL/pgSQL's own parser finds it.

use pg_query::protobuf::{self as pg, ScanToken, Token};
use pg_query::{NodeEnum, ParserOptions};
use serde_json::Value;

/// One piece of SQL in a body.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub text: String,
    pub mode: ParserOptions,
    /// The piece is an expression whose value is run as a statement (EXECUTE, OPEN ... FOR EXECUTE, RETURN QUERY EXECUTE).
    pub dynamic: bool,
}

/// The functions and blocks of `source` (a whole CREATE FUNCTION or DO statement), as the parser hands them out.
pub(super) fn tree(source: &str) -> Option<Value> {
    std::panic::catch_unwind(|| pg_query::parse_plpgsql(source)).ok()?.ok()
}

/// Their pieces; `None` when it cannot be told for sure what they are.
pub(super) fn parts(tree: &Value) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    walk(tree, false, &mut parts)?;
    (!parts.is_empty() || tree.as_array().is_some_and(|functions| !functions.is_empty())).then_some(parts)
}

/// Does a body open, read or close cursors? Their names are values of variables.
pub(super) fn handles_cursors(tree: &Value) -> bool {
    const STATEMENTS: [&str; 4] = [OPEN, FETCH, "PLpgSQL_stmt_close", "PLpgSQL_stmt_forc"];
    any_field(tree, &|key, _| STATEMENTS.contains(&key))
}

/// Does it open a cursor, whose name is a variable's value, or move one by an expression? (The cursor of a loop is gone behind it.)
pub(super) fn tells_by_cursors(tree: &Value) -> bool {
    any_field(tree, &|key, field| key == OPEN || key == FETCH && field.get("expr").is_some())
}

const OPEN: &str = "PLpgSQL_stmt_open";
/// MOVE as well.
const FETCH: &str = "PLpgSQL_stmt_fetch";

fn any_field(tree: &Value, is: &impl Fn(&str, &Value) -> bool) -> bool {
    match tree {
        Value::Array(items) => items.iter().any(|item| any_field(item, is)),
        Value::Object(fields) => fields.iter().any(|(key, field)| is(key, field) || any_field(field, is)),
        _ => false,
    }
}

/// The variables that PL/pgSQL gives a trigger function.
const TRIGGER_VARIABLES: &str = "new record, old record, tg_name name, tg_when text, tg_level text, tg_op text, tg_relid oid, \
    tg_relname name, tg_table_name name, tg_table_schema name, tg_nargs int4, tg_argv text[], tg_event text, tg_tag text";

/// A trigger function's body as that of an ordinary function: the parser's tree of a trigger function cannot be read (its
/// special variables come out as malformed JSON).
pub(super) fn trigger_source(body: &str) -> String {
    let quoted = body.replace('\'', "''");
    let quoted = quoted.replace('\\', "\\\\");
    format!("CREATE FUNCTION trigger_body({TRIGGER_VARIABLES}) RETURNS record LANGUAGE plpgsql AS E'{quoted}'")
}

/// Statements whose `query` is an expression for the text to run.
const RUNS_A_TEXT: [&str; 2] = ["PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_dynfors"];

fn walk(value: &Value, dynamic: bool, parts: &mut Vec<Part>) -> Option<()> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| walk(item, false, parts)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, field)| match key.as_str() {
            "PLpgSQL_expr" => {
                parts.push(part(field, dynamic)?);
                Some(())
            }
            "dynquery" => walk(field, true, parts),
            runner if RUNS_A_TEXT.contains(&runner) => {
                field.as_object()?.iter().try_for_each(|(key, inner)| walk(inner, key == "query", parts))
            }
            _ => walk(field, false, parts),
        }),
        _ => Some(()),
    }
}

fn part(expression: &Value, dynamic: bool) -> Option<Part> {
    let text = expression.get("query")?.as_str()?.to_owned();
    let mode = match expression.get("parseMode").and_then(Value::as_i64) {
        None | Some(0) => ParserOptions::DEFAULT,
        Some(2) => ParserOptions::PLPGSQL_EXPR,
        Some(3) => ParserOptions::PLPGSQL_ASSIGN1,
        Some(4) => ParserOptions::PLPGSQL_ASSIGN2,
        Some(5) => ParserOptions::PLPGSQL_ASSIGN3,
        Some(_) => return None,
    };
    Some(Part { text, mode, dynamic })
}

/// The expressions that variables are declared with: the parser hands out some of them only (none of a record, a domain, an enum).
pub(super) fn defaults<'t>(body: &'t str, tokens: &[ScanToken]) -> Vec<&'t str> {
    let comment = |token: &&ScanToken| matches!(kind(token), Token::SqlComment | Token::CComment);
    let tokens: Vec<&ScanToken> = tokens.iter().filter(|token| !comment(token)).collect();
    let mut found = Vec::new();
    let mut declaring = false;
    for statement in tokens.split(|token| kind(token) == Token::Ascii59) {
        // A section ends where BEGIN begins a declaration (elsewhere it is a name), and the next one may begin in the same breath.
        let begins = statement
            .iter()
            .find(|token| kind(token) != Token::Declare)
            .is_some_and(|token| kind(token) == Token::BeginP);
        let declare = statement.iter().rposition(|token| kind(token) == Token::Declare);
        declaring = (declaring && !begins) || declare.is_some();
        if declaring {
            let first = declare.map_or(0, |at| at + 1);
            found.extend(default(&statement[first..]).and_then(|(from, to)| body.get(from..to)));
        }
    }
    found
}

/// Where the default of one declaration stands.
fn default(declaration: &[&ScanToken]) -> Option<(usize, usize)> {
    let (_name, rest) = declaration.split_first()?;
    // A cursor's query is a part of its own.
    let is_cursor = rest.iter().find(|token| !matches!(kind(token), Token::No | Token::Scroll));
    if is_cursor.is_some_and(|token| kind(token) == Token::Cursor) {
        return None;
    }
    let gives = |token: &&ScanToken| matches!(kind(token), Token::ColonEquals | Token::Ascii61 | Token::Default);
    let sign = rest.iter().find(|token| gives(token))?;
    Some((sign.end as usize, rest.last()?.end as usize))
}

fn kind(token: &ScanToken) -> Token {
    Token::try_from(token.token).unwrap_or(Token::Nul)
}

/// Are there queries in the body that are in none of its parts? The parser does not hand out the default of a variable of
/// type record; such an expression cannot write, but it can read.
pub(super) fn hides_queries(body: &str, parts: &[Part]) -> bool {
    let shown: usize = parts.iter().map(|part| count(&part.text, is_query)).sum();
    // PERFORM becomes a SELECT in its part.
    let performed = count(body, |token, text| token == Token::Ident && text.eq_ignore_ascii_case("perform"));
    count(body, is_query) + performed > shown
}

fn is_query(token: Token, _: &str) -> bool {
    matches!(token, Token::Select | Token::Table)
}

fn count(text: &str, is: impl Fn(Token, &str) -> bool) -> usize {
    let tokens = super::tokens::scan(text).unwrap_or_default();
    // RAISE ... USING TABLE = 'name' is no query.
    let is_option = |at: usize| {
        let next = tokens.get(at + 1).map(kind);
        kind(&tokens[at]) == Token::Table && matches!(next, Some(Token::Ascii61 | Token::ColonEquals))
    };
    let counts = |(at, token): &(usize, &ScanToken)| {
        let source = text.get(token.start as usize..token.end as usize).unwrap_or_default();
        is(kind(token), source) && !is_option(*at)
    };
    tokens.iter().enumerate().filter(counts).count()
}

/// The constant text that a bare expression is, if it is one.
pub(super) fn constant(tree: &pg::ParseResult) -> Option<String> {
    let NodeEnum::SelectStmt(select) = tree.stmts.first()?.stmt.as_ref()?.node.as_ref()? else { return None };
    let [target] = &select.target_list[..] else { return None };
    let NodeEnum::ResTarget(target) = target.node.as_ref()? else { return None };
    super::condition::text(target.val.as_deref()?)
}
