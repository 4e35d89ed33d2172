//! What a statement does to the session: settings, COPY's shape, and whether an assignment moves data between columns.

use super::children::children;
use super::kinds::string;
use super::reader::{Reader, constant_text, def_strings, function_name};
use super::{Class, Copy, CopyFormat, Statement};
use pg_query::protobuf as pg;
use pg_query::protobuf::{DiscardMode, VariableSetKind, a_const};
use pg_query::{NodeEnum, NodeRef};

/// The settings that change how text is read, whom it runs as, or what a name means.
pub(super) const TRACKED: [&str; 6] = [
    "standard_conforming_strings",
    "backslash_quote",
    "client_encoding",
    "search_path",
    "role",
    "session_authorization",
];

/// SET, RESET, SET LOCAL, ALTER SYSTEM and CREATE FUNCTION's own SET come here.
pub(super) fn set(statement: &mut Statement, s: &pg::VariableSetStmt) {
    match s.kind() {
        VariableSetKind::VarResetAll => TRACKED.iter().for_each(|name| push(statement, name, None)),
        VariableSetKind::VarSetValue => push(statement, &s.name, Some(value(&s.args))),
        _ => push(statement, &s.name, None),
    }
}

fn push(statement: &mut Statement, name: &str, value: Option<String>) {
    let name = name.to_ascii_lowercase();
    if TRACKED.contains(&name.as_str()) {
        statement.settings.push((name, value));
    }
}

/// A SET that is part of another statement: of the search_path.
pub(super) fn set_path(statement: &mut Statement, s: &pg::VariableSetStmt) {
    let mut inner = Statement::default();
    set(&mut inner, s);
    statement.settings.extend(inner.settings.into_iter().filter(|(name, _)| name == "search_path"));
}

fn value(args: &[pg::Node]) -> String {
    let values: Vec<String> = args.iter().map(|arg| constant_text(arg).unwrap_or_default()).collect();
    values.join(", ")
}

pub(super) fn discard(statement: &mut Statement, s: &pg::DiscardStmt) {
    if s.target() == DiscardMode::DiscardAll {
        statement.forgets = Some(None);
        TRACKED.iter().for_each(|name| push(statement, name, None));
    }
}

/// Some setting changes and the text does not tell which.
pub(super) fn anything(statement: &mut Statement) {
    statement.classes.insert(Class::Set);
    TRACKED.iter().for_each(|name| push(statement, name, None));
}

/// Functions of PostgreSQL and its extensions that put an argument where a later statement, another session or another
/// host finds it. (What a server has besides, `tests/suites/masks.rs` asks it.)
const KEEPERS: &[&str] = &[
    "set_config",
    "setval",
    "pg_notify",
    "pg_logical_emit_message",
    // Numbers of large objects, what is in them, how long they are, and where in one a descriptor is.
    "lo_create",
    "lo_creat",
    "lo_import",
    "lo_export",
    "lo_from_bytea",
    "lo_put",
    "lowrite",
    "loread",
    "lo_lseek",
    "lo_lseek64",
    "lo_truncate",
    "lo_truncate64",
    // adminpack
    "pg_file_write",
    "pg_file_rename",
    // Names and places that catalogues show.
    "pg_create_physical_replication_slot",
    "pg_create_logical_replication_slot",
    "pg_copy_physical_replication_slot",
    "pg_copy_logical_replication_slot",
    "pg_replication_slot_advance",
    "pg_logical_slot_get_changes",
    "pg_logical_slot_get_binary_changes",
    "pg_replication_origin_create",
    "pg_replication_origin_advance",
    "pg_replication_origin_session_setup",
    "pg_replication_origin_xact_setup",
    "pg_create_restore_point",
    // The label is in the file that pg_backup_stop gives. (The first name is that of 14 and older.)
    "pg_start_backup",
    "pg_backup_start",
    // What the planner is told of a table stands in pg_class and pg_stats; from 18 on.
    "pg_restore_relation_stats",
    "pg_restore_attribute_stats",
    // A cursor's name and place.
    "cursor_to_xml",
    // What random() gives afterwards tells what it was given.
    "setseed",
    // pg_trgm: show_limit() tells.
    "set_limit",
    // Locks show their numbers in pg_locks.
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
    "pg_advisory_unlock",
    "pg_advisory_unlock_shared",
    "dblink",
    "dblink_connect",
    "dblink_connect_u",
    "dblink_exec",
    "dblink_open",
    "dblink_fetch",
    "dblink_send_query",
];

/// Functions that show what a view shows: statements, whoever sent them.
const SHOWS_STATEMENTS: [(&str, (&str, &str)); 3] = [
    ("pg_stat_get_activity", ("pg_catalog", "pg_stat_activity")),
    ("pg_stat_get_backend_activity", ("pg_catalog", "pg_stat_activity")),
    ("pg_stat_statements", ("", "pg_stat_statements")),
];

/// Is more asked of calls of a function than of others': does it keep, run or read what its arguments say, or show what others sent?
pub fn is_told_apart(function: &str) -> bool {
    let shows_statements = || SHOWS_STATEMENTS.iter().any(|(shows, _)| *shows == function);
    KEEPERS.contains(&function) || shows_statements() || super::body::is_text_runner(function)
}

/// CREATE OPERATOR and CREATE AGGREGATE: does one of its functions keep, read or run what it is given?
pub(super) fn hides_functions(s: &pg::DefineStmt) -> bool {
    let name = |option: &pg::Node| match option.node.as_ref()? {
        NodeEnum::DefElem(def) => match def.arg.as_ref()?.node.as_ref()? {
            NodeEnum::TypeName(named) => named.names.last().and_then(string).map(str::to_owned),
            NodeEnum::String(named) => Some(named.sval.clone()),
            NodeEnum::List(list) => list.items.last().and_then(string).map(str::to_owned),
            _ => None,
        },
        _ => None,
    };
    s.definition.iter().filter_map(name).any(|name| is_told_apart(&name))
}

/// A function that keeps what it is given, by whatever schema it is called; `set_config(name, value, local)` above all.
pub(super) fn call(reader: &mut Reader<'_>, s: &pg::FuncCall) {
    let name = function_name(s);
    if KEEPERS.contains(&name) {
        // Of a body that is part of the grammar, too.
        let inside = reader.is_inside() || reader.is_defining();
        let data = s.args.iter().any(|arg| holds_data(arg, inside));
        reader.statement.stores |= data;
        // The CHECK of a domain, for instance.
        reader.statement.keeps |= data && reader.is_defining();
    }
    if let Some((schema, view)) = SHOWS_STATEMENTS.iter().find_map(|(function, of)| (*function == name).then_some(*of))
    {
        reader.shows(schema, view);
    }
    if name != "set_config" {
        return;
    }
    reader.add(Class::Set);
    match s.args.first().and_then(constant_text) {
        Some(name) => push(&mut reader.statement, &name, s.args.get(1).and_then(constant_text)),
        None => anything(&mut reader.statement),
    }
}

/// Is anything but constants and the client's own parameters: a column, a query, what a function returns, a parameter that the block
/// around the text fills in (`inside`).
fn holds_data(node: &pg::Node, inside: bool) -> bool {
    fn found(node: NodeRef<'_>, inside: bool) -> bool {
        use NodeRef as N;
        let mut any = match node {
            N::ColumnRef(_) | N::SubLink(_) | N::FuncCall(_) => true,
            N::ParamRef(_) => inside,
            _ => false,
        };
        children(node, &mut |child| any = any || found(child, inside));
        any
    }
    node.node.as_ref().is_some_and(|node| found(node.to_ref(), inside))
}

pub(super) fn copy(s: &pg::CopyStmt) -> Copy {
    Copy {
        query: s.query.is_some(),
        columns: s.attlist.iter().filter_map(string).map(str::to_owned).collect(),
        format: s.options.iter().rev().find_map(format).unwrap_or(CopyFormat::Text),
        breaks_values: s.options.iter().any(breaks_values),
    }
}

/// Values with the sign in them come out with something before it: `219\\-09\\-9999`.
fn breaks_values(option: &pg::Node) -> bool {
    const HARMLESS: &[u8] = b"\t,;|:~^#\"'\\";
    let Some(NodeEnum::DefElem(def)) = option.node.as_ref() else { return false };
    let is_sign = matches!(def.defname.as_str(), "delimiter" | "quote" | "escape");
    let sign =
        def.arg.as_deref().and_then(constant_text).or_else(|| def_strings(def).first().map(|sign| (*sign).to_owned()));
    is_sign && !sign.is_some_and(|sign| sign.bytes().all(|byte| HARMLESS.contains(&byte) || byte.is_ascii_control()))
}

fn format(option: &pg::Node) -> Option<CopyFormat> {
    let NodeEnum::DefElem(def) = option.node.as_ref()? else { return None };
    if def.defname != "format" {
        return None;
    }
    match def_strings(def).first()?.to_ascii_lowercase().as_str() {
        "binary" => Some(CopyFormat::Binary),
        "csv" => Some(CopyFormat::Csv),
        _ => Some(CopyFormat::Text),
    }
}

/// Does a SET list put another column's content into a column? `n = n + 1` does not, `name = ssn` does; so does anything
/// that is not told apart by a plain column name. Columns qualified with one of `own` are the client's own values.
pub(super) fn moves_columns(targets: &[pg::Node], own: &[&str]) -> bool {
    targets.iter().filter_map(|target| target.node.as_ref()).any(|target| match target {
        NodeEnum::ResTarget(set) => set
            .val
            .as_ref()
            .and_then(|val| val.node.as_ref())
            .is_some_and(|val| reads_other(val.to_ref(), &set.name, own)),
        _ => false,
    })
}

fn reads_other(node: NodeRef<'_>, column: &str, own: &[&str]) -> bool {
    if let NodeRef::ColumnRef(reference) = node {
        let parts: Vec<Option<&str>> = reference.fields.iter().map(string).collect();
        let is_own = matches!(parts[..], [Some(first), _] if own.contains(&first));
        return !is_own && parts.last() != Some(&Some(column));
    }
    let mut found = false;
    children(node, &mut |child| found = found || reads_other(child, column, own));
    found
}

/// Does ALTER TABLE make a column or a parent out of what another column or table holds? (GENERATED, TYPE ... USING,
/// INHERIT, ATTACH PARTITION.)
pub(super) fn derives(s: &pg::AlterTableCmd) -> bool {
    use pg::AlterTableType as A;
    match s.subtype() {
        A::AtAddInherit | A::AtAttachPartition | A::AtAddOf => true,
        A::AtAddColumn | A::AtAlterColumnType | A::AtSetExpression => {
            s.def.as_ref().and_then(|def| def.node.as_ref()).is_some_and(|def| computed(def.to_ref()))
        }
        _ => false,
    }
}

/// Does ALTER TABLE change what a foreign table or its column stands for on the other server?
pub(super) fn points_elsewhere(s: &pg::AlterTableCmd) -> bool {
    use pg::AlterTableType as A;
    match s.def.as_ref().and_then(|def| def.node.as_ref()) {
        Some(NodeEnum::ColumnDef(column)) if !column.fdwoptions.is_empty() => true,
        _ => matches!(s.subtype(), A::AtGenericOptions | A::AtAlterColumnGenericOptions),
    }
}

fn computed(node: NodeRef<'_>) -> bool {
    match node {
        NodeRef::ColumnRef(_) => true,
        NodeRef::Constraint(constraint) if constraint.contype() != pg::ConstrType::ConstrGenerated => false,
        _ => {
            let mut found = false;
            children(node, &mut |child| found = found || computed(child));
            found
        }
    }
}

/// The text of a constant as SET takes it: numbers and booleans by their spelling.
pub(super) fn spelled(constant: &pg::AConst) -> Option<String> {
    match constant.val.as_ref()? {
        a_const::Val::Sval(text) => Some(text.sval.clone()),
        a_const::Val::Ival(number) => Some(number.ival.to_string()),
        a_const::Val::Fval(number) => Some(number.fval.clone()),
        a_const::Val::Boolval(value) => Some(value.boolval.to_string()),
        a_const::Val::Bsval(_) => None,
    }
}
