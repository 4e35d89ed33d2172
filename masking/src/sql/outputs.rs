//! Which output columns of a statement are expressions, as far as the statement's own text tells.

use super::kinds::string;
use pg_query::NodeEnum;
use pg_query::NodeRef;
use pg_query::protobuf as pg;
use pg_query::protobuf::SetOperation;

/// Which output columns are something other than a plain column (counted from 0).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Expressions {
    /// None of them; also when there are no output columns.
    #[default]
    None,
    Some(Vec<u16>),
    /// A star, or a result whose shape is decided elsewhere (EXECUTE, FETCH, CALL).
    Unknown,
}

/// The output columns of a whole statement.
pub(super) fn of(node: NodeRef<'_>) -> Expressions {
    match node {
        NodeRef::SelectStmt(s) => select(s),
        NodeRef::InsertStmt(s) => returning(s.returning_clause.as_ref(), &s.relation),
        NodeRef::UpdateStmt(s) => returning(s.returning_clause.as_ref(), &s.relation),
        NodeRef::DeleteStmt(s) => returning(s.returning_clause.as_ref(), &s.relation),
        NodeRef::MergeStmt(s) => returning(s.returning_clause.as_ref(), &s.relation),
        NodeRef::CopyStmt(s) => s.query.as_ref().map_or(Expressions::None, |query| inner(query)),
        NodeRef::PrepareStmt(s) => s.query.as_ref().map_or(Expressions::None, |query| inner(query)),
        NodeRef::DeclareCursorStmt(s) => s.query.as_ref().map_or(Expressions::None, |query| inner(query)),
        // One column of text, which quotes the statement's constants and, with ANALYZE, tells of its data.
        NodeRef::ExplainStmt(_) => Expressions::Some(vec![0]),
        NodeRef::ExecuteStmt(_) | NodeRef::FetchStmt(_) | NodeRef::CallStmt(_) => Expressions::Unknown,
        _ => Expressions::None,
    }
}

fn inner(query: &pg::Node) -> Expressions {
    query.node.as_ref().map_or(Expressions::Unknown, |query| of(query.to_ref()))
}

fn select(s: &pg::SelectStmt) -> Expressions {
    if s.op() != SetOperation::SetopNone {
        return set_operation(s);
    }
    let rows: Vec<&str> = s.from_clause.iter().flat_map(row_name).collect();
    match s.values_lists.first().and_then(|row| row.node.as_ref()) {
        Some(NodeEnum::List(row)) => all(row.items.len()),
        _ => listed(&s.target_list, &rows),
    }
}

/// A set operation's columns belong to no table. There are as many as in its first SELECT.
fn set_operation(s: &pg::SelectStmt) -> Expressions {
    let mut first = s;
    while let Some(left) = &first.larg {
        first = left;
    }
    match select(first) {
        Expressions::Unknown => Expressions::Unknown,
        _ if first.values_lists.is_empty() => all(first.target_list.len()),
        values => values,
    }
}

fn returning(clause: Option<&pg::ReturningClause>, target: &Option<pg::RangeVar>) -> Expressions {
    let rows: Vec<&str> = target.iter().map(range_name).collect();
    clause.map_or(Expressions::None, |clause| listed(&clause.exprs, &rows))
}

/// PostgreSQL refuses longer lists ("target lists can have at most 1664 entries").
const OUTPUTS_MAX: usize = 1664;

/// `rows`: names that stand for a whole row rather than for a column.
fn listed(targets: &[pg::Node], rows: &[&str]) -> Expressions {
    if targets.len() > OUTPUTS_MAX {
        return Expressions::Unknown;
    }
    let mut positions = Vec::new();
    for (at, target) in (0u16..).zip(targets) {
        let Some(NodeEnum::ResTarget(target)) = &target.node else { return Expressions::Unknown };
        match target.val.as_ref().and_then(|val| val.node.as_ref()) {
            Some(NodeEnum::ColumnRef(column)) => {
                let names: Vec<Option<&str>> = column.fields.iter().map(string).collect();
                match names[..] {
                    [.., None] => return Expressions::Unknown,
                    [Some(name)] if rows.contains(&name) => positions.push(at),
                    _ => {}
                }
            }
            // `(row).*` gives as many columns as the row has.
            Some(NodeEnum::AIndirection(indirection)) if indirection.indirection.iter().any(is_star) => {
                return Expressions::Unknown;
            }
            _ => positions.push(at),
        }
    }
    if positions.is_empty() { Expressions::None } else { Expressions::Some(positions) }
}

fn is_star(node: &pg::Node) -> bool {
    matches!(node.node, Some(NodeEnum::AStar(_)))
}

fn all(count: usize) -> Expressions {
    Expressions::Some((0..u16::try_from(count).unwrap_or(u16::MAX)).collect())
}

/// The names in FROM that a bare column reference could mean as a whole row.
fn row_name(item: &pg::Node) -> Vec<&str> {
    match &item.node {
        Some(NodeEnum::RangeVar(relation)) => vec![range_name(relation)],
        Some(NodeEnum::RangeSubselect(query)) => alias_of(&query.alias),
        Some(NodeEnum::RangeFunction(function)) => alias_of(&function.alias),
        Some(NodeEnum::JoinExpr(join)) => {
            let sides = [&join.larg, &join.rarg];
            let mut names: Vec<&str> = sides.into_iter().flatten().flat_map(|side| row_name(side)).collect();
            names.extend(alias_of(&join.alias));
            names
        }
        _ => Vec::new(),
    }
}

fn alias_of(alias: &Option<pg::Alias>) -> Vec<&str> {
    alias.iter().map(|alias| alias.aliasname.as_str()).collect()
}

fn range_name(relation: &pg::RangeVar) -> &str {
    relation.alias.as_ref().map_or(&relation.relname, |alias| &alias.aliasname)
}
