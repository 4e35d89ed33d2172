//! Does what a text does hang on its constants? Only texts where it cannot are remembered by their shape.
//!
//! Anything not listed here counts as hanging on its constants: a constant must be found, by its place in the text, as a
//! plain value in a query, an INSERT, UPDATE or DELETE. So the ones that the grammar uses up (`float(25)`, `int[3]`,
//! `ORDER BY 1`) and those that may name something (`'t'::regclass`, `nextval('s')`, `dblink('...')`) disqualify the text.

use super::children::children;
use super::kinds::string;
use super::lexer::{self, Kind, Token};
use super::{Analysis, Class, shape};
use pg_query::protobuf as pg;
use pg_query::protobuf::{AExprKind, BoolExprType};
use pg_query::{NodeEnum, NodeRef};

/// Would the analysis be the same with any other constants of the same kinds in the places of these?
pub(super) fn plain(tree: &pg::ParseResult, text: &str, analysis: &Analysis) -> bool {
    if analysis.statements.iter().any(|statement| statement.opaque || statement.classes.contains(Class::Unparsed)) {
        return false;
    }
    let mut values = Values { places: Vec::new(), sound: true };
    for statement in &tree.stmts {
        match statement.stmt.as_ref().and_then(|node| node.node.as_ref()).map(NodeEnum::to_ref) {
            Some(
                node @ (NodeRef::SelectStmt(_)
                | NodeRef::InsertStmt(_)
                | NodeRef::UpdateStmt(_)
                | NodeRef::DeleteStmt(_)),
            ) => values.visit(node),
            _ => return false,
        }
    }
    values.places.sort_unstable();
    values.sound && all_constants(text, |places| places.iter().any(|place| values.places.binary_search(place).is_ok()))
}

/// Does `found` hold for each constant of the text? It is given where the constant could stand in the tree: its own place, or
/// that of a minus before it, which the grammar makes part of the number.
fn all_constants(text: &str, mut found: impl FnMut(&[i32]) -> bool) -> bool {
    let mut minuses: Vec<i32> = Vec::new();
    let mut all = shape::readable(text.as_bytes());
    let lexed = lexer::tokens(text.as_bytes(), |Token { kind, start, end }| {
        match kind {
            Kind::Operator if &text[start..end] == "-" => minuses.push(start as i32),
            Kind::Text | Kind::Integer | Kind::Number | Kind::Bits | Kind::Hex => {
                minuses.push(start as i32);
                all &= found(&minuses);
                minuses.clear();
            }
            Kind::Word | Kind::Quoted | Kind::Param | Kind::Operator | Kind::Punctuation => minuses.clear(),
        }
        Ok(())
    });
    all && lexed.is_ok()
}

/// The constants that stand as plain values.
struct Values {
    /// Byte offsets in the text.
    places: Vec<i32>,
    /// No condition was met whose truth may hang on a constant.
    sound: bool,
}

impl Values {
    /// Constants below a node that is not listed are not found, and so disqualify the text.
    fn visit(&mut self, node: NodeRef<'_>) {
        match node {
            NodeRef::AConst(constant) => self.places.push(constant.location),
            NodeRef::TypeCast(cast) if cast.type_name.as_ref().is_some_and(is_value_type) => {
                cast.arg.iter().for_each(|arg| self.visit_node(arg));
            }
            NodeRef::FuncCall(call) if is_value_function(call) => self.children(node),
            NodeRef::SelectStmt(s) => self.select(s),
            NodeRef::UpdateStmt(s) => self.changing(node, s.where_clause.as_deref()),
            NodeRef::DeleteStmt(s) => self.changing(node, s.where_clause.as_deref()),
            NodeRef::InsertStmt(_)
            | NodeRef::OnConflictClause(_)
            | NodeRef::ReturningClause(_)
            | NodeRef::WithClause(_)
            | NodeRef::CommonTableExpr(_)
            | NodeRef::JoinExpr(_)
            | NodeRef::RangeSubselect(_)
            | NodeRef::RangeFunction(_)
            | NodeRef::ResTarget(_)
            | NodeRef::MultiAssignRef(_)
            | NodeRef::List(_)
            | NodeRef::AExpr(_)
            | NodeRef::BoolExpr(_)
            | NodeRef::NullTest(_)
            | NodeRef::BooleanTest(_)
            | NodeRef::SubLink(_)
            | NodeRef::CaseExpr(_)
            | NodeRef::CaseWhen(_)
            | NodeRef::CoalesceExpr(_)
            | NodeRef::MinMaxExpr(_)
            | NodeRef::AArrayExpr(_)
            | NodeRef::RowExpr(_)
            | NodeRef::AIndirection(_)
            | NodeRef::AIndices(_)
            | NodeRef::CollateClause(_) => self.children(node),
            _ => {}
        }
    }

    fn visit_node(&mut self, node: &pg::Node) {
        node.node.iter().for_each(|node| self.visit(node.to_ref()));
    }

    fn children(&mut self, node: NodeRef<'_>) {
        children(node, &mut |child| self.visit(child));
    }

    /// A number in DISTINCT ON, GROUP BY or ORDER BY is a column's position, so nothing is looked for in these.
    fn select(&mut self, s: &pg::SelectStmt) {
        for part in [&s.target_list, &s.from_clause, &s.values_lists] {
            part.iter().for_each(|node| self.visit_node(node));
        }
        for part in [&s.where_clause, &s.having_clause, &s.limit_count, &s.limit_offset] {
            part.iter().for_each(|node| self.visit_node(node));
        }
        for side in [&s.larg, &s.rarg] {
            side.iter().for_each(|side| self.select(side));
        }
        s.with_clause.iter().for_each(|with| self.visit(NodeRef::WithClause(with)));
    }

    /// UPDATE and DELETE: whether the condition is always true must not hang on a constant.
    fn changing(&mut self, node: NodeRef<'_>, condition: Option<&pg::Node>) {
        if let Some(condition) = condition {
            let before = self.places.len();
            self.visit_node(condition);
            self.sound &= self.places.len() == before || never_always_true(condition);
        }
        self.children(node);
    }
}

/// A condition that [`super::condition`] cannot fold to true, whatever its constants are: a column compared with a value
/// that is no column, alone or joined by AND with anything, or all sides of an OR.
fn never_always_true(node: &pg::Node) -> bool {
    match &node.node {
        Some(NodeEnum::BoolExpr(logic)) => match logic.boolop() {
            BoolExprType::AndExpr => logic.args.iter().any(never_always_true),
            // Comparisons only: `NOT x` and `x IS NULL` are paired with their opposites.
            BoolExprType::OrExpr => logic.args.iter().all(compares_column),
            BoolExprType::NotExpr | BoolExprType::Undefined => false,
        },
        _ => compares_column(node),
    }
}

fn compares_column(node: &pg::Node) -> bool {
    let Some(NodeEnum::AExpr(comparison)) = &node.node else { return false };
    let (Some(left), Some(right)) = (&comparison.lexpr, &comparison.rexpr) else { return false };
    let sided = is_column(left) && is_value(right) || is_value(left) && is_column(right);
    match comparison.kind() {
        AExprKind::AexprOp => sided,
        AExprKind::AexprIn | AExprKind::AexprBetween => is_column(left) && are_values(right),
        _ => false,
    }
}

fn is_column(node: &pg::Node) -> bool {
    matches!(node.node, Some(NodeEnum::ColumnRef(_)))
}

fn is_value(node: &pg::Node) -> bool {
    match &node.node {
        Some(NodeEnum::AConst(_) | NodeEnum::ParamRef(_)) => true,
        Some(NodeEnum::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_value),
        _ => false,
    }
}

fn are_values(node: &pg::Node) -> bool {
    matches!(&node.node, Some(NodeEnum::List(list)) if list.items.iter().all(is_value))
}

/// Types whose input is a value and names nothing. As the grammar spells them.
#[rustfmt::skip]
const VALUE_TYPES: [&str; 25] = [
    "bool", "bpchar", "bytea", "char", "cidr", "date", "float4", "float8", "inet", "int2", "int4", "int8", "interval", "json",
    "jsonb", "macaddr", "money", "numeric", "text", "time", "timestamp", "timestamptz", "timetz", "uuid", "varchar",
];

fn is_value_type(kind: &pg::TypeName) -> bool {
    is_builtin(&kind.names, &VALUE_TYPES) && !kind.setof && !kind.pct_type
}

/// Functions of PostgreSQL that take constants as values: none runs, reads or names anything that its arguments say.
#[rustfmt::skip]
const VALUE_FUNCTIONS: [&str; 92] = [
    "abs", "age", "array_agg", "array_append", "array_length", "array_position", "array_remove", "array_to_string", "avg",
    "bool_and", "bool_or", "btrim", "cardinality", "ceil", "ceiling", "char_length", "character_length", "concat", "concat_ws",
    "count", "date_bin", "date_part", "date_trunc", "decode", "dense_rank", "encode", "every", "extract", "first_value",
    "floor", "generate_series", "initcap", "json_agg", "json_array_length", "json_build_array", "json_build_object",
    "jsonb_agg", "jsonb_array_length", "jsonb_build_array", "jsonb_build_object", "jsonb_set", "lag", "last_value", "lead",
    "left", "length", "like_escape", "lower", "lpad", "ltrim", "make_date", "make_interval", "make_time", "make_timestamp",
    "make_timestamptz", "max", "md5", "min", "mod", "now", "nth_value", "ntile", "nullif", "octet_length", "overlay",
    "percentile_cont", "percentile_disc", "position", "power", "rank", "regexp_replace", "repeat", "replace", "reverse",
    "right", "round", "row_number", "rpad", "rtrim", "sign", "split_part", "sqrt", "starts_with", "string_agg",
    "string_to_array", "strpos", "substring", "sum", "timezone", "to_char", "trunc", "unnest",
];

fn is_value_function(call: &pg::FuncCall) -> bool {
    is_builtin(&call.funcname, &VALUE_FUNCTIONS)
}

/// `names` is one of the listed, alone or in pg_catalog.
fn is_builtin(names: &[pg::Node], listed: &[&str]) -> bool {
    let names: [Option<&str>; 2] = match names {
        [name] => [Some("pg_catalog"), string(name)],
        [schema, name] => [string(schema), string(name)],
        _ => return false,
    };
    matches!(names, [Some("pg_catalog"), Some(name)] if listed.contains(&name))
}
