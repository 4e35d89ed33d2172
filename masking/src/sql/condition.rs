//! Is a condition always true? Small expressions are folded; what cannot be folded counts as a real condition.

use super::constant::{Constant, arithmetic, boolean, cast_to, compare, comparison, literal};
use super::kinds::string;
use pg_query::NodeEnum;
use pg_query::protobuf as pg;
use pg_query::protobuf::{AExprKind, BoolExprType, BoolTestType, NullTestType, SubLinkType};
use std::cell::Cell;
use std::cmp::Ordering;

/// Nodes looked at for one condition. One that needs more counts as always true: a rule is never outrun by padding.
const STEPS_MAX: u32 = 1_000_000;

/// Arguments of an OR looked at in pairs; longer ORs are real lists of alternatives.
const OR_PAIRS_MAX: usize = 16;

/// No condition, or one that is always true.
pub(super) fn missing(condition: Option<&pg::Node>, target: Option<&pg::RangeVar>) -> bool {
    let Some(condition) = condition else { return true };
    let alias = target.and_then(|target| target.alias.as_ref()).map(|alias| alias.aliasname.as_str());
    let target = alias.or(target.map(|target| target.relname.as_str()));
    let mut scope = Scope { target, null_equals: false, compares_null: Cell::new(false), steps: Cell::new(0) };
    let holds = |scope: &Scope<'_>| scope.truth(condition) == Some(true) || scope.step().is_none();
    if holds(&scope) {
        return true;
    }
    scope.null_equals = true;
    scope.compares_null.get() && holds(&scope)
}

/// The text of a constant, a number's or boolean's by its spelling: what will be run, or set, exactly. `'a' || 'b'` and `'a'::text` are not
/// followed: whose operator and type these are, the search_path decides.
pub(super) fn text(node: &pg::Node) -> Option<String> {
    match node.node.as_ref()? {
        NodeEnum::AConst(constant) => super::session::spelled(constant),
        NodeEnum::TypeCast(cast) => text(cast.arg.as_deref()?).filter(|_| keeps_texts(cast)),
        _ => None,
    }
}

fn is_null(node: &pg::Node) -> bool {
    matches!(&node.node, Some(NodeEnum::AConst(constant)) if constant.isnull)
}

/// PostgreSQL's own type of texts, of any length.
fn keeps_texts(cast: &pg::TypeCast) -> bool {
    let Some(kind) = &cast.type_name else { return false };
    let named = matches!(names(&kind.names)[..], [Some("pg_catalog"), Some("text" | "varchar")]);
    named && kind.typmods.is_empty() && kind.array_bounds.is_empty()
}

/// The statement whose condition is folded.
struct Scope<'a> {
    /// The alias or name of the table it changes: `t.a` and `a` are then the same column.
    target: Option<&'a str>,
    /// `x = NULL` is `x IS NULL`, as the setting transform_null_equals has it, which anybody can turn on unseen.
    null_equals: bool,
    /// Such a comparison was met.
    compares_null: Cell<bool>,
    steps: Cell<u32>,
}

impl Scope<'_> {
    /// Counts a step; `None` when there have been too many.
    fn step(&self) -> Option<()> {
        self.steps.set(self.steps.get() + 1);
        (self.steps.get() <= STEPS_MAX).then_some(())
    }

    /// True or false for every row, or `None`: neither, or not told. A column compared with itself counts as true, although
    /// it is NULL for rows where the column is.
    fn truth(&self, node: &pg::Node) -> Option<bool> {
        self.fold(node).and_then(|constant| boolean(&constant))
    }

    fn fold(&self, node: &pg::Node) -> Option<Constant> {
        self.step()?;
        match node.node.as_ref()? {
            NodeEnum::AConst(constant) => literal(constant),
            NodeEnum::TypeCast(cast) => cast_to(self.fold(cast.arg.as_deref()?)?, cast.type_name.as_ref()?),
            NodeEnum::CollateClause(collate) => self.fold(collate.arg.as_deref()?),
            NodeEnum::BoolExpr(expression) => self.logic(expression),
            NodeEnum::AExpr(expression) => self.operator(expression),
            NodeEnum::NullTest(test) => self.null_test(test),
            NodeEnum::BooleanTest(test) => self.boolean_test(test),
            NodeEnum::CoalesceExpr(coalesce) => self.first_not_null(&coalesce.args),
            NodeEnum::CaseExpr(case) => self.choice(case),
            NodeEnum::SubLink(link) => self.sublink(link),
            _ => None,
        }
    }

    /// Each argument is folded once, however deep it stands: twice would be 2^depth.
    fn logic(&self, expression: &pg::BoolExpr) -> Option<Constant> {
        let (mut any_true, mut any_false, mut any_open) = (false, false, false);
        for arg in &expression.args {
            match self.truth(arg) {
                Some(true) => any_true = true,
                Some(false) => any_false = true,
                None => any_open = true,
            }
        }
        let value = match expression.boolop() {
            BoolExprType::NotExpr if any_open => None,
            BoolExprType::NotExpr => Some(any_false),
            BoolExprType::OrExpr if any_true || self.covers_all(&expression.args) => Some(true),
            BoolExprType::OrExpr => (!any_open).then_some(false),
            BoolExprType::AndExpr if any_false => Some(false),
            BoolExprType::AndExpr => (!any_open).then_some(true),
            BoolExprType::Undefined => None,
        };
        value.map(Constant::Bool)
    }

    /// `x OR NOT x`, `x IS NULL OR x IS NOT NULL`.
    fn covers_all(&self, args: &[pg::Node]) -> bool {
        args.len() <= OR_PAIRS_MAX && args.iter().any(|a| args.iter().any(|b| self.negates(a, b)))
    }

    fn negates(&self, a: &pg::Node, b: &pg::Node) -> bool {
        match (&a.node, &b.node) {
            (Some(NodeEnum::BoolExpr(not)), _) if not.boolop() == BoolExprType::NotExpr => {
                let alike = |inner| {
                    self.same(inner, b) || self.same_optional(self.tested_for_null(inner), self.tested_for_null(b))
                };
                not.args.first().is_some_and(alike)
            }
            (_, Some(NodeEnum::NullTest(b))) if b.nulltesttype() == NullTestType::IsNotNull => {
                self.same_optional(self.tested_for_null(a), b.arg.as_deref())
            }
            _ => false,
        }
    }

    fn tested_for_null<'n>(&self, node: &'n pg::Node) -> Option<&'n pg::Node> {
        match node.node.as_ref()? {
            NodeEnum::NullTest(test) if test.nulltesttype() == NullTestType::IsNull => test.arg.as_deref(),
            NodeEnum::AExpr(expression) => self.compared_with_null(expression),
            _ => None,
        }
    }

    /// What the server takes for `x IS NULL` under transform_null_equals: the other side of `x = NULL`.
    fn compared_with_null<'n>(&self, expression: &'n pg::AExpr) -> Option<&'n pg::Node> {
        let [operator] = &expression.name[..] else { return None };
        let (left, right) = (expression.lexpr.as_deref()?, expression.rexpr.as_deref()?);
        if expression.kind() != AExprKind::AexprOp || string(operator) != Some("=") {
            return None;
        }
        let other = if is_null(right) { Some(left) } else { is_null(left).then_some(right) };
        self.compares_null.set(self.compares_null.get() || other.is_some());
        other.filter(|_| self.null_equals)
    }

    fn operator(&self, expression: &pg::AExpr) -> Option<Constant> {
        let name = expression.name.last().and_then(string)?;
        let (left, right) = (expression.lexpr.as_deref(), expression.rexpr.as_deref()?);
        if let Some(tested) = self.compared_with_null(expression) {
            return self.is_null(tested).map(Constant::Bool);
        }
        match expression.kind() {
            AExprKind::AexprOp => match left {
                Some(left) => self.binary(name, left, right),
                None => self.unary(name, right),
            },
            AExprKind::AexprNotDistinct | AExprKind::AexprDistinct => {
                let distinct = expression.kind() == AExprKind::AexprDistinct;
                let (left, equal) = (left?, self.same(left?, right));
                if equal {
                    return Some(Constant::Bool(!distinct));
                }
                let ordering = match (self.fold(left)?, self.fold(right)?) {
                    (Constant::Null, Constant::Null) => Ordering::Equal,
                    (Constant::Null, _) | (_, Constant::Null) => Ordering::Less,
                    (left, right) => compare(&left, &right)?,
                };
                Some(Constant::Bool((ordering == Ordering::Equal) != distinct))
            }
            AExprKind::AexprIn => self.membership(name, left?, right),
            AExprKind::AexprLike | AExprKind::AexprIlike => self.like(name, left?, right),
            AExprKind::AexprBetween => self.between(left?, right),
            AExprKind::AexprOpAny | AExprKind::AexprOpAll => self.array(name, left?, right),
            _ => None,
        }
    }

    fn binary(&self, name: &str, left: &pg::Node, right: &pg::Node) -> Option<Constant> {
        if matches!(name, "=" | ">=" | "<=") && self.same(left, right) {
            return Some(Constant::Bool(true));
        }
        if let (Some(NodeEnum::RowExpr(left)), Some(NodeEnum::RowExpr(right))) = (&left.node, &right.node) {
            let mut pairs = left.args.iter().zip(&right.args);
            let equal = pairs.all(|(left, right)| self.binary("=", left, right) == Some(Constant::Bool(true)));
            return (name == "=" && equal && left.args.len() == right.args.len()).then_some(Constant::Bool(true));
        }
        let (left, right) = (self.fold(left)?, self.fold(right)?);
        if left == Constant::Null || right == Constant::Null {
            return Some(Constant::Null);
        }
        arithmetic(name, &left, &right).or_else(|| comparison(name, compare(&left, &right)?).map(Constant::Bool))
    }

    fn unary(&self, name: &str, right: &pg::Node) -> Option<Constant> {
        match (name, self.fold(right)?) {
            ("-", Constant::Number(number)) => number.checked_neg().map(Constant::Number),
            ("+", Constant::Number(number)) => Some(Constant::Number(number)),
            _ => None,
        }
    }

    /// `x IN (a, b)`: true when x is one of them; false when it is none and all are known.
    fn membership(&self, name: &str, left: &pg::Node, right: &pg::Node) -> Option<Constant> {
        let Some(NodeEnum::List(list)) = &right.node else { return None };
        let names = |value| list.items.iter().any(|item| self.truth(item) == Some(value));
        let every = || self.never_null(left) && names(true) && names(false);
        let mut found = list.items.iter().any(|item| self.same(left, item)) || every();
        let mut none = !found;
        if let (false, Some(left)) = (found, self.fold(left)) {
            for item in &list.items {
                let equal = self.fold(item).and_then(|item| compare(&left, &item)).map(Ordering::is_eq);
                found |= equal == Some(true);
                none &= equal == Some(false);
            }
        } else {
            none = false;
        }
        match (name, found, none) {
            ("=", true, _) | ("<>", _, true) => Some(Constant::Bool(true)),
            ("=", _, true) | ("<>", true, _) => Some(Constant::Bool(false)),
            _ => None,
        }
    }

    /// `x LIKE '%'` holds for every x that is not NULL.
    fn like(&self, name: &str, left: &pg::Node, right: &pg::Node) -> Option<Constant> {
        let Constant::Text(pattern) = self.fold(right)? else { return None };
        let everything = !pattern.is_empty() && pattern.bytes().all(|byte| byte == b'%');
        let equal = self.fold(left) == Some(Constant::Text(pattern.clone())) && !pattern.contains(['_', '\\']);
        (everything || equal).then_some(Constant::Bool(matches!(name, "~~" | "~~*")))
    }

    fn between(&self, left: &pg::Node, right: &pg::Node) -> Option<Constant> {
        let Some(NodeEnum::List(bounds)) = &right.node else { return None };
        let [low, high] = &bounds.items[..] else { return None };
        if self.same(left, low) && self.same(left, high) {
            return Some(Constant::Bool(true));
        }
        let left = self.fold(left)?;
        let (low, high) = (compare(&left, &self.fold(low)?)?, compare(&left, &self.fold(high)?)?);
        Some(Constant::Bool(low.is_ge() && high.is_le()))
    }

    /// `x = ANY (ARRAY[x, ...])`, `x = ALL (ARRAY[x])`.
    fn array(&self, name: &str, left: &pg::Node, right: &pg::Node) -> Option<Constant> {
        let Some(NodeEnum::AArrayExpr(array)) = &right.node else { return None };
        if name == "=" && array.elements.iter().any(|item| self.same(left, item)) {
            return Some(Constant::Bool(true));
        }
        let left = self.fold(left)?;
        let holds = |item| self.fold(item).and_then(|item| comparison(name, compare(&left, &item)?)) == Some(true);
        array.elements.iter().any(holds).then_some(Constant::Bool(true))
    }

    fn null_test(&self, test: &pg::NullTest) -> Option<Constant> {
        let null = self.is_null(test.arg.as_deref()?)?;
        Some(Constant::Bool(null == (test.nulltesttype() == NullTestType::IsNull)))
    }

    /// NULL for every row, or for none; `None`: not told.
    fn is_null(&self, node: &pg::Node) -> Option<bool> {
        let folded = self.fold(node).map(|constant| constant == Constant::Null);
        folded.or_else(|| self.never_null(node).then_some(false))
    }

    /// True or false for every row, whichever.
    fn never_null(&self, node: &pg::Node) -> bool {
        if self.step().is_none() {
            return false;
        }
        match &node.node {
            Some(NodeEnum::NullTest(_) | NodeEnum::BooleanTest(_)) => true,
            Some(NodeEnum::AExpr(expression)) => {
                let distinct = matches!(expression.kind(), AExprKind::AexprDistinct | AExprKind::AexprNotDistinct);
                distinct || self.compared_with_null(expression).is_some()
            }
            Some(NodeEnum::BoolExpr(logic)) => logic.args.iter().all(|arg| self.never_null(arg)),
            Some(NodeEnum::SubLink(link)) => link.sub_link_type() == SubLinkType::ExistsSublink,
            _ => false,
        }
    }

    fn boolean_test(&self, test: &pg::BooleanTest) -> Option<Constant> {
        let arg = test.arg.as_deref()?;
        let Some(folded) = self.fold(arg) else {
            let known = self.never_null(arg);
            return match test.booltesttype() {
                BoolTestType::IsNotUnknown if known => Some(Constant::Bool(true)),
                BoolTestType::IsUnknown if known => Some(Constant::Bool(false)),
                _ => None,
            };
        };
        let value = boolean(&folded);
        if value.is_none() && folded != Constant::Null {
            return None;
        }
        Some(Constant::Bool(match test.booltesttype() {
            BoolTestType::IsTrue => value == Some(true),
            BoolTestType::IsNotTrue => value != Some(true),
            BoolTestType::IsFalse => value == Some(false),
            BoolTestType::IsNotFalse => value != Some(false),
            BoolTestType::IsUnknown => value.is_none(),
            BoolTestType::IsNotUnknown => value.is_some(),
            BoolTestType::Undefined => return None,
        }))
    }

    fn first_not_null(&self, args: &[pg::Node]) -> Option<Constant> {
        for arg in args {
            match self.fold(arg)? {
                Constant::Null => {}
                value => return Some(value),
            }
        }
        Some(Constant::Null)
    }

    fn choice(&self, case: &pg::CaseExpr) -> Option<Constant> {
        for arm in &case.args {
            let Some(NodeEnum::CaseWhen(when)) = &arm.node else { return None };
            let taken = match case.arg.as_deref() {
                Some(subject) => boolean(&self.binary("=", subject, when.expr.as_deref()?)?),
                None => self.truth(when.expr.as_deref()?),
            };
            if taken? {
                return self.fold(when.result.as_deref()?);
            }
        }
        case.defresult.as_deref().map_or(Some(Constant::Null), |other| self.fold(other))
    }

    /// `EXISTS (SELECT 1)`, `(SELECT true)`, `1 IN (SELECT 1)`: one row, made of constants.
    fn sublink(&self, link: &pg::SubLink) -> Option<Constant> {
        let NodeEnum::SelectStmt(select) = link.subselect.as_deref()?.node.as_ref()? else { return None };
        if !self.one_row(select) {
            return None;
        }
        match link.sub_link_type() {
            SubLinkType::ExistsSublink => Some(Constant::Bool(true)),
            SubLinkType::ExprSublink => self.fold(only_column(select)?),
            SubLinkType::AnySublink => {
                let name = link.oper_name.last().and_then(string).unwrap_or("=");
                self.binary(name, link.testexpr.as_deref()?, only_column(select)?)
            }
            _ => None,
        }
    }

    /// A SELECT without FROM, conditions, limits or set operations, or a VALUES: it has rows whatever the tables hold.
    fn one_row(&self, select: &pg::SelectStmt) -> bool {
        select.from_clause.is_empty()
            && select.where_clause.as_deref().is_none_or(|condition| self.truth(condition) == Some(true))
            && select.having_clause.is_none()
            && select.group_clause.is_empty()
            && select.limit_count.is_none()
            && select.limit_offset.is_none()
            && select.larg.is_none()
    }

    fn same_optional(&self, a: Option<&pg::Node>, b: Option<&pg::Node>) -> bool {
        a.zip(b).is_some_and(|(a, b)| self.same(a, b))
    }

    /// The same column, constant or simple expression on both sides, wherever it stands in the text. A column written once
    /// with its table and once without is the same column.
    fn same(&self, a: &pg::Node, b: &pg::Node) -> bool {
        let (Some(a), Some(b)) = (&a.node, &b.node) else { return false };
        match (a, b) {
            (NodeEnum::ColumnRef(a), NodeEnum::ColumnRef(b)) => {
                same_column(&names(&a.fields), &names(&b.fields), self.target)
            }
            (NodeEnum::AConst(a), NodeEnum::AConst(b)) => !a.isnull && a.val == b.val,
            (NodeEnum::ParamRef(a), NodeEnum::ParamRef(b)) => a.number == b.number,
            (NodeEnum::TypeCast(a), NodeEnum::TypeCast(b)) => {
                type_name(a) == type_name(b) && self.same_optional(a.arg.as_deref(), b.arg.as_deref())
            }
            (NodeEnum::FuncCall(a), NodeEnum::FuncCall(b)) => {
                names(&a.funcname) == names(&b.funcname) && !volatile(a) && self.all_same(&a.args, &b.args)
            }
            (NodeEnum::AExpr(a), NodeEnum::AExpr(b)) => {
                a.kind == b.kind
                    && names(&a.name) == names(&b.name)
                    && self.same_optional(a.rexpr.as_deref(), b.rexpr.as_deref())
                    && (a.lexpr.is_none() && b.lexpr.is_none()
                        || self.same_optional(a.lexpr.as_deref(), b.lexpr.as_deref()))
            }
            (NodeEnum::BoolExpr(a), NodeEnum::BoolExpr(b)) => a.boolop == b.boolop && self.all_same(&a.args, &b.args),
            (NodeEnum::CoalesceExpr(a), NodeEnum::CoalesceExpr(b)) => self.all_same(&a.args, &b.args),
            (NodeEnum::RowExpr(a), NodeEnum::RowExpr(b)) => self.all_same(&a.args, &b.args),
            (NodeEnum::NullTest(a), NodeEnum::NullTest(b)) => {
                a.nulltesttype == b.nulltesttype && self.same_optional(a.arg.as_deref(), b.arg.as_deref())
            }
            _ => false,
        }
    }

    fn all_same(&self, a: &[pg::Node], b: &[pg::Node]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.same(a, b))
    }
}

fn only_column(select: &pg::SelectStmt) -> Option<&pg::Node> {
    let columns = match &select.values_lists[..] {
        [] => &select.target_list,
        [row] => match row.node.as_ref()? {
            NodeEnum::List(row) => &row.items,
            _ => return None,
        },
        _ => return None,
    };
    let [column] = &columns[..] else { return None };
    match column.node.as_ref()? {
        NodeEnum::ResTarget(target) => target.val.as_deref(),
        _ => Some(column),
    }
}

/// The same name on both sides, or once with the table that is changed and once without.
fn same_column(a: &[Option<&str>], b: &[Option<&str>], target: Option<&str>) -> bool {
    match (a, b) {
        ([table, name], [other]) | ([other], [table, name]) => name == other && name.is_some() && *table == target,
        _ => a == b && a.iter().all(Option::is_some),
    }
}

fn names(parts: &[pg::Node]) -> Vec<Option<&str>> {
    parts.iter().map(string).collect()
}

fn type_name(cast: &pg::TypeCast) -> Vec<Option<&str>> {
    cast.type_name.as_ref().map(|kind| names(&kind.names)).unwrap_or_default()
}

/// Calls that differ each time they are made.
fn volatile(call: &pg::FuncCall) -> bool {
    matches!(
        call.funcname.last().and_then(string),
        Some("random" | "nextval" | "clock_timestamp" | "gen_random_uuid" | "random_normal")
    )
}
