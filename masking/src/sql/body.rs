//! SQL inside constants: function bodies, DO blocks, EXECUTE, and functions that run the text they are given.

use super::otherwise::{Otherwise, with_setting_off};
use super::plpgsql;
use super::reader::{Reader, constant_text, def_strings, function_name};
use pg_query::protobuf as pg;
use pg_query::{NodeEnum, ParserOptions};
use std::collections::HashSet;

/// CREATE FUNCTION and CREATE PROCEDURE with a body as text. (A body in the grammar itself is part of the tree.)
pub(super) fn function(reader: &mut Reader<'_>, s: &pg::CreateFunctionStmt) {
    let language = option(&s.options, "language").first().map(|name| name.to_ascii_lowercase());
    let bodies = option(&s.options, "as");
    let Some(text) = bodies.first() else { return };
    match language.as_deref() {
        Some("sql") | None => reader.embedded(text, ParserOptions::DEFAULT),
        Some("plpgsql") if returns_trigger(s) => block_text(reader, text, &plpgsql::trigger_source(text)),
        Some("plpgsql") => block_text(reader, text, reader.source),
        // These name a symbol of a library or of the server; there is no text to run.
        Some("c" | "internal") => reader.opaque(),
        Some(_) => other_language(reader, text),
    }
}

/// DO: PL/pgSQL unless another language is named.
pub(super) fn block(reader: &mut Reader<'_>, s: &pg::DoStmt) {
    let language = option(&s.args, "language").first().map(|name| name.to_ascii_lowercase());
    let bodies = option(&s.args, "as");
    let text = bodies.first().copied().unwrap_or_default();
    match language.as_deref() {
        Some("plpgsql") | None => block_text(reader, text, reader.source),
        Some(_) => other_language(reader, text),
    }
}

fn option<'a>(options: &'a [pg::Node], name: &str) -> Vec<&'a str> {
    options
        .iter()
        .find_map(|option| match option.node.as_ref()? {
            NodeEnum::DefElem(def) if def.defname == name => Some(def_strings(def)),
            _ => None,
        })
        .unwrap_or_default()
}

fn other_language(reader: &mut Reader<'_>, text: &str) {
    super::words::collect(text, &mut reader.words);
    reader.dynamic();
}

pub(super) fn returns_trigger(s: &pg::CreateFunctionStmt) -> bool {
    let name = s.return_type.as_ref().and_then(|kind| kind.names.last()).and_then(super::kinds::string);
    matches!(name, Some("trigger" | "event_trigger"))
}

/// `source`: the statement whose body `text` is.
fn block_text(reader: &mut Reader<'_>, text: &str, source: &str) {
    let Ok(tokens) = super::tokens::scan(text) else { return reader.dynamic() };
    super::words::collect_from(text, &tokens, &mut reader.words);
    if super::alike::turns_quotes(text.as_bytes()) {
        return reader.dynamic();
    }
    let tree = plpgsql::tree(source);
    reader.statement.cursors_inside |= tree.as_ref().is_none_or(plpgsql::handles_cursors);
    reader.statement.cursors_tell |= tree.as_ref().is_some_and(plpgsql::tells_by_cursors);
    let Some(parts) = tree.as_ref().and_then(plpgsql::parts) else { return reader.dynamic() };
    if plpgsql::hides_queries(text, &parts) {
        reader.opaque();
    }
    // Those that the parser hands out are read as parts.
    let handed_out: HashSet<&str> =
        parts.iter().filter(|part| part.mode == ParserOptions::PLPGSQL_EXPR).map(|part| part.text.as_str()).collect();
    for default in plpgsql::defaults(text, &tokens) {
        if !handed_out.contains(default.trim()) {
            reader.embedded(default, ParserOptions::PLPGSQL_EXPR);
        }
    }
    for part in parts {
        if part.dynamic {
            runs_value(reader, &part);
        }
        reader.embedded(&part.text, part.mode);
    }
}

/// A text is run that is the value of an expression: what it says hangs on the settings of that moment, too.
fn runs_value(reader: &mut Reader<'_>, part: &plpgsql::Part) {
    let constant = |text: &str| super::parse(text, part.mode, |tree, _, _| plpgsql::constant(tree)).flatten();
    run(reader, constant(&part.text).as_deref());
    match with_setting_off(&part.text) {
        Otherwise::Alike | Otherwise::Refused => {}
        Otherwise::Unsure => reader.dynamic(),
        Otherwise::Text(other) => run(reader, constant(&other).as_deref()),
    }
}

/// A text is run: followed when it is a constant, dynamic when it is not.
fn run(reader: &mut Reader<'_>, text: Option<&str>) {
    match text {
        Some(text) => reader.embedded(text, ParserOptions::DEFAULT),
        None => reader.dynamic(),
    }
}

/// Functions of PostgreSQL that run a query given as text, and which argument it is. They run it read-only (SPI), so a
/// text that cannot be seen makes the statement opaque and no more.
const QUERY_ARGUMENT: [(&str, usize); 10] = [
    ("query_to_xml", 0),
    ("query_to_xmlschema", 0),
    ("query_to_xml_and_xmlschema", 0),
    ("ts_stat", 0),
    ("ts_rewrite", 1),
    // The tablefunc extension, which comes with the server.
    ("crosstab", 0),
    ("crosstab", 1),
    ("crosstab2", 0),
    ("crosstab3", 0),
    ("crosstab4", 0),
];

/// Functions of the dblink extension: a text runs on another connection, which may lead back here.
const ELSEWHERE: [&str; 4] = ["dblink", "dblink_exec", "dblink_open", "dblink_send_query"];

/// Functions of PostgreSQL and its extensions that look into a table, cursor, schema or database given by name.
const NAME_ARGUMENT: [&str; 30] = [
    "table_to_xml",
    "table_to_xmlschema",
    "table_to_xml_and_xmlschema",
    "currtid2",
    // pgrowlocks, pgstattuple, pg_freespacemap, pg_visibility, pg_prewarm, dblink
    "pgrowlocks",
    "pgstattuple",
    "pgstattuple_approx",
    "pgstatindex",
    "pgstatginindex",
    "pgstathashindex",
    "pg_relpages",
    "pg_freespace",
    "pg_visibility",
    "pg_visibility_map",
    "pg_visibility_map_summary",
    "pg_check_frozen",
    "pg_check_visible",
    "pg_truncate_visibility_map",
    "pg_prewarm",
    "dblink_get_pkey",
    // pageinspect, where it does not show a page
    "bt_metap",
    "bt_page_stats",
    "bt_multi_page_stats",
    "hash_bitmap_info",
    // amcheck, pg_surgery
    "bt_index_check",
    "bt_index_parent_check",
    "gin_index_check",
    "verify_heapam",
    "heap_force_freeze",
    "heap_force_kill",
];
const READS_WIDELY: [&str; 29] = [
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "schema_to_xml",
    "schema_to_xmlschema",
    "schema_to_xml_and_xmlschema",
    "database_to_xml",
    "database_to_xmlschema",
    "database_to_xml_and_xmlschema",
    // Queries put together from names: tablefunc, xml2.
    "connectby",
    "xpath_table",
    // They write down the row they are given the key of.
    "dblink_build_sql_insert",
    "dblink_build_sql_update",
    "dblink_build_sql_delete",
    // What was written, as the log and the files hold it: logical decoding, pg_walinspect, pageinspect, the server's files.
    "pg_get_wal_block_info",
    "pg_logical_slot_get_changes",
    "pg_logical_slot_get_binary_changes",
    "pg_logical_slot_peek_changes",
    "pg_logical_slot_peek_binary_changes",
    "get_raw_page",
    "bt_page_items",
    "hash_page_items",
    "gin_leafpage_items",
    "gist_page_items",
    "brin_page_items",
    "heap_page_items",
    "heap_page_item_attrs",
    "pg_read_file",
    "pg_read_file_old",
    "pg_read_binary_file",
];

/// A call of a function that runs or reads what its arguments say.
pub(super) fn text_runner(reader: &mut Reader<'_>, s: &pg::FuncCall) {
    let name = function_name(s);
    if ELSEWHERE.contains(&name) {
        return reader.dynamic();
    }
    for (_, at) in QUERY_ARGUMENT.iter().filter(|(runner, _)| *runner == name) {
        query_argument(reader, name, &s.args, *at);
    }
    if READS_WIDELY.contains(&name) {
        reader.opaque();
    } else if NAME_ARGUMENT.contains(&name) {
        match s.args.first().and_then(constant_text) {
            Some(table) => reader.embedded(&format!("TABLE {table}"), ParserOptions::DEFAULT),
            None => reader.opaque(),
        }
    }
}

/// Does a function run or read what its arguments say, whoever calls it?
pub(super) fn is_text_runner(name: &str) -> bool {
    QUERY_ARGUMENT.iter().any(|(runner, _)| *runner == name)
        || [&ELSEWHERE[..], &NAME_ARGUMENT, &READS_WIDELY].iter().any(|names| names.contains(&name))
}

fn query_argument(reader: &mut Reader<'_>, function: &str, args: &[pg::Node], at: usize) {
    match args.get(at) {
        // A form without a query: ts_rewrite of three arguments; crosstab of one, or of a number besides.
        _ if function == "ts_rewrite" && args.len() != 2 => {}
        None if at > 0 => {}
        Some(number) if is_integer(number) => {}
        text => match text.and_then(constant_text) {
            Some(text) => reader.embedded(&text, ParserOptions::DEFAULT),
            None => reader.opaque(),
        },
    }
}

fn is_integer(node: &pg::Node) -> bool {
    use pg::a_const::Val;
    matches!(&node.node, Some(NodeEnum::AConst(pg::AConst { val: Some(Val::Ival(_)), .. })))
}
