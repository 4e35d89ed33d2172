//! What a table runs over its rows whichever statement touches or reads them: CHECK and EXCLUDE, the expressions of indexes and
//! statistics, policies. A statement that never names the table makes it run (an ON UPDATE CASCADE), and a function in it can say what it
//! is given.
//!
//! Only a name in `pg_catalog` is surely PostgreSQL's own. Any other can be a user's: one whose types match better wins
//! (`lower(varchar)`, `>` of numeric and int), and so does any where the search_path puts `pg_catalog` last.

use super::children::children;
use super::inputs::is_pure;
use super::kinds::string;
use pg_query::protobuf as pg;
use pg_query::protobuf::{AExprKind, ConstrType};
use pg_query::{NodeEnum, NodeRef};

/// Does it make a table with rows run what may be somebody's own code?
pub(super) fn runs_later(node: NodeRef<'_>) -> bool {
    use NodeRef as N;
    match node {
        N::IndexStmt(_)
        | N::CreateStatsStmt(_)
        | N::AlterTableCmd(_)
        | N::CreatePolicyStmt(_)
        | N::AlterPolicyStmt(_) => runs_unknown(node),
        // Its rows are another table's, too.
        N::CreateStmt(s) => !s.inh_relations.is_empty() && runs_unknown(node),
        _ => false,
    }
}

fn runs_unknown(node: NodeRef<'_>) -> bool {
    use NodeRef as N;
    let expressions = match node {
        N::IndexStmt(s) => [&s.where_clause, &None],
        N::IndexElem(s) => [&s.expr, &None],
        N::StatsElem(s) => [&s.expr, &None],
        N::CreatePolicyStmt(s) => [&s.qual, &s.with_check],
        N::AlterPolicyStmt(s) => [&s.qual, &s.with_check],
        // A default sees no row.
        N::Constraint(s) if s.contype() != ConstrType::ConstrDefault => [&s.raw_expr, &s.where_clause],
        _ => [&None, &None],
    };
    let mut found = expressions.into_iter().flatten().any(|expression| !is_known(expression));
    children(node, &mut |child| found = found || runs_unknown(child));
    found
}

/// All that it runs is PostgreSQL's own, and says nothing of what it is given but between quotes.
fn is_known(expression: &pg::Node) -> bool {
    let Some(node) = &expression.node else { return false };
    match node {
        // `t.f` can be `f(t)`.
        NodeEnum::ColumnRef(s) => matches!(&s.fields[..], [name] if string(name).is_some()),
        NodeEnum::AConst(_) | NodeEnum::SqlvalueFunction(_) => true,
        NodeEnum::TypeCast(s) => s.type_name.as_ref().is_some_and(is_simple) && s.arg.as_deref().is_some_and(is_known),
        NodeEnum::FuncCall(s) => in_catalogue(&s.funcname).is_some_and(is_pure) && s.args.iter().all(is_known),
        NodeEnum::AExpr(s) => {
            let operator = in_catalogue(&s.name).is_some_and(|name| OPERATORS.contains(&name));
            operator
                && s.kind() == AExprKind::AexprOp
                && [&s.lexpr, &s.rexpr].into_iter().flatten().all(|of| is_known(of))
        }
        NodeEnum::BoolExpr(s) => s.args.iter().all(is_known),
        NodeEnum::NullTest(s) => s.arg.as_deref().is_some_and(is_known),
        NodeEnum::BooleanTest(s) => s.arg.as_deref().is_some_and(is_known),
        // COALESCE, CASE and the like take what casts their parts have in common, which may be a user's.
        _ => false,
    }
}

fn in_catalogue(name: &[pg::Node]) -> Option<&str> {
    match name {
        [schema, name] if string(schema) == Some("pg_catalog") => string(name),
        _ => None,
    }
}

fn is_simple(kind: &pg::TypeName) -> bool {
    let plain = !kind.setof && !kind.pct_type && kind.array_bounds.is_empty();
    plain && in_catalogue(&kind.names).is_some_and(|name| TYPES.contains(&name))
}

const OPERATORS: [&str; 20] = [
    "+", "-", "*", "/", "%", "||", "=", "<>", "<", ">", "<=", ">=", "~~", "!~~", "~~*", "!~~*", "~", "~*", "!~", "!~*",
];

/// Their complaints quote a value. (Those of json have it in the context, without quotes.)
#[rustfmt::skip]
const TYPES: [&str; 16] = [
    "bool", "bpchar", "date", "float4", "float8", "int2", "int4", "int8", "interval", "numeric", "text", "time", "timestamp",
    "timestamptz", "timetz", "varchar",
];
