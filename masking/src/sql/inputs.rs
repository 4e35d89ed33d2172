//! Which columns each output of a plain SELECT is made of, where the text alone proves it.
//!
//! Only for a SELECT from named tables and joins of them, without a star, a WITH, a subquery in FROM or a set operation; and
//! only through expressions and functions of PostgreSQL that return what they were given. Everything else may read
//! [`Read::Anything`]: a row named as a whole (`t`, `t.*`, and `t.f`, which is `f(t)` where `t` has no column `f`), a
//! subquery, a function that looks elsewhere.

use super::children::children;
use super::kinds::string;
use super::reader::function_name;
use pg_query::protobuf as pg;
use pg_query::protobuf::{SetOperation, a_const};
use pg_query::{NodeEnum, NodeRef};

/// What a SELECT's outputs are made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inputs {
    pub sources: Vec<Source>,
    /// One for each output column.
    pub outputs: Vec<Read>,
    /// What decides which rows are put together: GROUP BY, HAVING, WINDOW.
    pub grouping: Read,
}

/// A table in FROM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    pub schema: Option<String>,
    pub table: String,
    /// Its alias, else its name.
    pub called: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    Columns(Vec<Name>),
    Anything,
}

/// A column as the text names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// What the table is called, where that is written.
    pub of: Option<String>,
    pub column: String,
    /// It may be the name of an output instead, whose columns are listed too.
    pub or_output: bool,
}

/// Tables of a statement that is looked into, and outputs that its GROUP BY is compared with: more prove nothing.
const SOURCES_MAX: usize = 200;
const GROUPED_MAX: usize = 10_000;
/// Columns that are put together.
const NAMES_MAX: usize = 10_000;

/// `None`: the shape of the statement says nothing.
pub(super) fn of(node: NodeRef<'_>) -> Option<Inputs> {
    let NodeRef::SelectStmt(s) = node else { return None };
    let plain = s.op() == SetOperation::SetopNone
        && s.with_clause.is_none()
        && s.into_clause.is_none()
        && s.values_lists.is_empty();
    if !plain {
        return None;
    }
    let mut from = From::default();
    for item in &s.from_clause {
        from.item(item)?;
    }
    // Each name is looked up in all of these.
    if from.sources.len() > SOURCES_MAX || s.group_clause.len() * s.target_list.len() > GROUPED_MAX {
        return None;
    }
    let targets: Option<Vec<&pg::ResTarget>> = s.target_list.iter().map(target).collect();
    let targets = targets?;
    let outputs: Vec<Read> = targets.iter().map(|target| from.read(target.val.as_deref())).collect();
    let mut grouping = Read::Columns(Vec::new());
    for item in &s.group_clause {
        grouping.join(from.grouped(item, &targets, &outputs));
        if grouping == Read::Anything {
            break;
        }
    }
    let rest = s.having_clause.as_deref().into_iter().chain(&s.window_clause);
    rest.for_each(|item| grouping.join(from.read(Some(item))));
    Some(Inputs { sources: from.sources, outputs, grouping })
}

/// An output that is one column; a star or `(row).*` is any number of them.
fn target(node: &pg::Node) -> Option<&pg::ResTarget> {
    let Some(NodeEnum::ResTarget(target)) = &node.node else { return None };
    match target.val.as_ref()?.node.as_ref()? {
        NodeEnum::ColumnRef(column) => column.fields.iter().all(|field| string(field).is_some()).then_some(target),
        NodeEnum::AIndirection(_) => None,
        _ => Some(target),
    }
}

impl Read {
    fn join(&mut self, other: Read) {
        match (&mut *self, other) {
            (Read::Columns(own), Read::Columns(more)) if own.len() + more.len() <= NAMES_MAX => own.extend(more),
            _ => *self = Read::Anything,
        }
    }
}

#[derive(Default)]
struct From {
    sources: Vec<Source>,
    /// Names that stand for a whole row.
    rows: Vec<String>,
}

impl From {
    fn item(&mut self, node: &pg::Node) -> Option<()> {
        match node.node.as_ref()? {
            NodeEnum::RangeVar(relation) => {
                // `t AS c (a, b)` gives the columns other names.
                let alias = relation.alias.as_ref();
                if alias.is_some_and(|alias| !alias.colnames.is_empty()) {
                    return None;
                }
                let called = alias.map_or(&relation.relname, |alias| &alias.aliasname).clone();
                self.rows.extend([relation.relname.clone(), called.clone()]);
                let schema = (!relation.schemaname.is_empty()).then(|| relation.schemaname.clone());
                self.sources.push(Source { schema, table: relation.relname.clone(), called });
                Some(())
            }
            NodeEnum::JoinExpr(join) if join.alias.is_none() && join.join_using_alias.is_none() => {
                self.item(join.larg.as_ref()?)?;
                self.item(join.rarg.as_ref()?)
            }
            _ => None,
        }
    }

    fn read(&self, node: Option<&pg::Node>) -> Read {
        let mut names = Vec::new();
        match node.and_then(|node| node.node.as_ref()) {
            Some(node) if self.gather(node.to_ref(), &mut names) => Read::Columns(names),
            _ => Read::Anything,
        }
    }

    /// GROUP BY takes an output by its number, and by its name where no column has that name.
    fn grouped(&self, item: &pg::Node, targets: &[&pg::ResTarget], outputs: &[Read]) -> Read {
        match item.node.as_ref() {
            Some(NodeEnum::AConst(constant)) => match constant.val {
                Some(a_const::Val::Ival(pg::Integer { ival })) => {
                    let at = usize::try_from(ival).ok().and_then(|number| number.checked_sub(1));
                    at.and_then(|at| outputs.get(at)).cloned().unwrap_or(Read::Anything)
                }
                _ => Read::Anything,
            },
            Some(NodeEnum::ColumnRef(column)) if column.fields.len() == 1 => {
                let name = string(&column.fields[0]).unwrap_or_default();
                let mut named = targets.iter().zip(outputs).filter(|(target, _)| target.name == name).peekable();
                if named.peek().is_none() {
                    return self.read(Some(item));
                }
                let own = Name { of: None, column: name.to_owned(), or_output: true };
                let mut read = Read::Columns(vec![own]);
                named.for_each(|(_, output)| read.join(output.clone()));
                read
            }
            _ => self.read(Some(item)),
        }
    }

    /// Collects the columns of an expression. `false`: it may read anything.
    fn gather(&self, node: NodeRef<'_>, names: &mut Vec<Name>) -> bool {
        match node {
            NodeRef::ColumnRef(column) => match self.name(column) {
                Some(name) => names.push(name),
                None => return false,
            },
            NodeRef::AConst(_) | NodeRef::ParamRef(_) | NodeRef::SqlvalueFunction(_) | NodeRef::String(_) => {}
            NodeRef::TypeCast(cast) => {
                let inner = cast.arg.as_ref().and_then(|arg| arg.node.as_ref());
                return inner.is_some_and(|inner| self.gather(inner.to_ref(), names));
            }
            NodeRef::FuncCall(call) if !returns_what_it_is_given(call) => return false,
            NodeRef::AExpr(expression) if expression.name.len() > 1 => return false,
            NodeRef::FuncCall(_)
            | NodeRef::AExpr(_)
            | NodeRef::BoolExpr(_)
            | NodeRef::NullTest(_)
            | NodeRef::BooleanTest(_)
            | NodeRef::CaseExpr(_)
            | NodeRef::CaseWhen(_)
            | NodeRef::CoalesceExpr(_)
            | NodeRef::MinMaxExpr(_)
            | NodeRef::List(_)
            | NodeRef::SortBy(_)
            | NodeRef::WindowDef(_) => {
                let mut all = true;
                children(node, &mut |child| all = all && self.gather(child, names));
                return all;
            }
            _ => return false,
        }
        true
    }

    /// `None`: a whole row, or a name of a form that is rarely written.
    fn name(&self, column: &pg::ColumnRef) -> Option<Name> {
        let parts: Option<Vec<&str>> = column.fields.iter().map(string).collect();
        let (of, name) = match parts?[..] {
            [name] => (None, name),
            [table, name] | [_, table, name] => (Some(table.to_owned()), name),
            _ => return None,
        };
        let row = of.is_none() && self.rows.iter().any(|row| row == name);
        (!row).then(|| Name { of, column: name.to_owned(), or_output: false })
    }
}

/// Functions of PostgreSQL whose result is made of their arguments alone (and of the clock).
#[rustfmt::skip]
const PURE: [&str; 60] = [
    "abs", "age", "array_agg", "avg", "bit_length", "bool_and", "bool_or", "btrim", "ceil", "ceiling", "char_length",
    "character_length", "concat", "concat_ws", "count", "cume_dist", "date_part", "date_trunc", "dense_rank", "every",
    "extract", "first_value", "floor", "format", "initcap", "lag", "last_value", "lead", "left", "length", "lower", "lpad",
    "ltrim", "max", "md5", "min", "mod", "nth_value", "ntile", "octet_length", "percent_rank", "position", "power", "rank",
    "regexp_replace", "repeat", "replace", "reverse", "right", "round", "row_number", "rpad", "rtrim", "split_part",
    "string_agg", "substring", "sum", "to_char", "trunc", "upper",
];

/// Is the result of PostgreSQL's function of that name made of its arguments alone?
pub(super) fn is_pure(function: &str) -> bool {
    PURE.binary_search(&function).is_ok()
}

fn returns_what_it_is_given(call: &pg::FuncCall) -> bool {
    let own = match &call.funcname[..] {
        [_] => true,
        [schema, _] => string(schema) == Some("pg_catalog"),
        _ => false,
    };
    own && is_pure(function_name(call))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::analyse;

    fn inputs(text: &str) -> Option<Inputs> {
        analyse(text.as_bytes(), true).statements.swap_remove(0).inputs
    }

    fn shown(read: &Read) -> String {
        let one = |name: &Name| match &name.of {
            Some(of) => format!("{of}.{}", name.column),
            None => name.column.clone(),
        };
        match read {
            Read::Columns(names) => names.iter().map(one).collect::<Vec<_>>().join("+"),
            Read::Anything => "*".into(),
        }
    }

    #[test]
    fn the_list_of_functions_can_be_searched() {
        assert!(PURE.is_sorted());
    }

    #[test]
    fn outputs_name_the_columns_they_are_made_of() {
        for (text, outputs, grouping) in [
            ("SELECT count(*), upper(name) FROM t", " name", ""),
            ("SELECT c.name || ' ' || c.id::text, 1 FROM public.t AS c", "c.name+c.id ", ""),
            ("SELECT CASE WHEN a > 1 THEN b ELSE coalesce(c, $1) END FROM t JOIN u USING (id)", "a+b+c", ""),
            ("SELECT sum(a) FILTER (WHERE b > 0) OVER (PARTITION BY c ORDER BY d) FROM t", "a+b+c+d", ""),
            ("SELECT string_agg(a, ',' ORDER BY b) FROM t", "a+b", ""),
            ("SELECT public.t.a FROM public.t", "t.a", ""),
            ("SELECT name, count(*) FROM t GROUP BY name HAVING max(x) > 1", "name ", "name+x"),
            ("SELECT lower(a), count(*) FROM t GROUP BY 1", "a ", "a"),
            ("SELECT lower(a) AS b, count(*) FROM t GROUP BY b", "a ", "b+a"),
            ("SELECT rank() OVER w FROM t WINDOW w AS (ORDER BY s)", "", "s"),
            // Conditions and order choose rows, as they do for columns that are shown as they are.
            ("SELECT count(*) FROM t WHERE s = 1 ORDER BY s", "", ""),
        ] {
            let found = inputs(text).unwrap_or_else(|| panic!("{text}"));
            let all: Vec<String> = found.outputs.iter().map(shown).collect();
            assert_eq!((all.join(" ").as_str(), shown(&found.grouping).as_str()), (outputs, grouping), "{text}");
        }
    }

    #[test]
    fn what_may_read_more_than_it_names_reads_anything() {
        for expression in [
            "t",
            "count(t)",
            "count(t.*)",
            "row_to_json(t)",
            "to_jsonb(t)",
            "t::text",
            "ROW(t.*)::text",
            "(SELECT max(s) FROM t)",
            "EXISTS (SELECT 1 FROM t WHERE s = '1')",
            "ARRAY(SELECT s FROM t)",
            "table_to_xml('t', true, false, '')",
            "my.upper(a)",
            "leak(a)",
            "a OPERATOR(my.+) b",
            "a IN (SELECT s FROM t)",
            "(t).s || ''",
            "max(x)",
            "GROUPING(a)",
        ] {
            let found = inputs(&format!("SELECT {expression}, count(*) FROM t AS x"));
            let read = found.map(|found| found.outputs[0].clone());
            assert_eq!(read, Some(Read::Anything), "{expression}");
        }
        for text in [
            "SELECT *, count(*) OVER () FROM t",
            "SELECT t.*, 1 FROM t",
            "SELECT (t).*, 1 FROM t",
            "SELECT upper(a) FROM t AS x (b, a)",
            "SELECT upper(a) FROM (SELECT s AS a FROM t) q",
            "SELECT upper(a) FROM (t CROSS JOIN u) AS j (b, a)",
            "SELECT upper(a) FROM t JOIN u USING (id) AS j",
            "WITH t AS (SELECT s AS a FROM u) SELECT upper(a) FROM t",
            "SELECT upper(a) FROM f() AS f (a)",
            "SELECT upper(a) FROM t, LATERAL (SELECT t.s AS a) q",
            "SELECT upper(a) FROM t UNION SELECT s FROM t",
            "VALUES (upper('a'))",
            "INSERT INTO t VALUES (1) RETURNING upper(a)",
            "DECLARE c CURSOR FOR SELECT count(*) FROM t",
            "SELECT upper(a) FROM t TABLESAMPLE SYSTEM (1)",
        ] {
            assert_eq!(inputs(text), None, "{text}");
        }
        for text in ["SELECT count(*) FROM t GROUP BY t", "SELECT count(*) FROM t GROUP BY ROLLUP (a)"] {
            assert_eq!(inputs(text).map(|found| found.grouping), Some(Read::Anything), "{text}");
        }
    }
}
