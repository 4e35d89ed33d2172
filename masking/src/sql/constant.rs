//! Constants that a small expression comes to, and what PostgreSQL's operators make of two of them.

use super::kinds::string;
use pg_query::protobuf as pg;
use pg_query::protobuf::a_const;
use std::cmp::Ordering;

/// What a small expression comes to.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Constant {
    Null,
    Bool(bool),
    Number(i128),
    Text(String),
}

pub(super) fn boolean(constant: &Constant) -> Option<bool> {
    match constant {
        Constant::Bool(value) => Some(*value),
        Constant::Text(text) => boolean_text(text),
        // An int4 is no boolean in a condition; a cast makes it one: see `cast`.
        Constant::Number(_) | Constant::Null => None,
    }
}

/// PostgreSQL's input of type boolean: unique prefixes of true, false, yes, no, on, off; 1 and 0.
pub(super) fn boolean_text(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    match text.as_str() {
        "1" | "on" => Some(true),
        "0" | "of" | "off" => Some(false),
        "" | "o" => None,
        word if "true".starts_with(word) || "yes".starts_with(word) => Some(true),
        word if "false".starts_with(word) || "no".starts_with(word) => Some(false),
        _ => None,
    }
}

pub(super) fn literal(constant: &pg::AConst) -> Option<Constant> {
    if constant.isnull {
        return Some(Constant::Null);
    }
    match constant.val.as_ref()? {
        a_const::Val::Boolval(value) => Some(Constant::Bool(value.boolval)),
        a_const::Val::Ival(number) => Some(Constant::Number(number.ival.into())),
        a_const::Val::Fval(number) => number.fval.parse().ok().map(Constant::Number),
        a_const::Val::Sval(text) => Some(Constant::Text(text.sval.clone())),
        a_const::Val::Bsval(_) => None,
    }
}

pub(super) fn cast_to(value: Constant, kind: &pg::TypeName) -> Option<Constant> {
    if value == Constant::Null {
        return Some(value);
    }
    match kind.names.last().and_then(string)? {
        "bool" => match value {
            Constant::Number(number) => Some(Constant::Bool(number != 0)),
            other => boolean(&other).map(Constant::Bool),
        },
        "int2" | "int4" | "int8" | "numeric" => match value {
            Constant::Text(text) => text.trim().parse().ok().map(Constant::Number),
            Constant::Bool(value) => Some(Constant::Number(value.into())),
            number => Some(number),
        },
        "text" | "varchar" | "bpchar" | "unknown" if kind.typmods.is_empty() => match value {
            Constant::Number(number) => Some(Constant::Text(number.to_string())),
            Constant::Bool(value) => Some(Constant::Text(value.to_string())),
            text => Some(text),
        },
        _ => None,
    }
}

pub(super) fn comparison(name: &str, ordering: Ordering) -> Option<bool> {
    Some(match name {
        "=" => ordering.is_eq(),
        "<>" | "!=" => ordering.is_ne(),
        "<" => ordering.is_lt(),
        "<=" => ordering.is_le(),
        ">" => ordering.is_gt(),
        ">=" => ordering.is_ge(),
        _ => return None,
    })
}

/// Constants of one kind, or a number with a string that is one (an untyped constant takes the other side's type).
/// Texts are only told equal or not, except that they order like their bytes: which collation it is cannot be known.
pub(super) fn compare(left: &Constant, right: &Constant) -> Option<Ordering> {
    use Constant as C;
    match (left, right) {
        (C::Bool(left), C::Bool(right)) => Some(left.cmp(right)),
        (C::Number(left), C::Number(right)) => Some(left.cmp(right)),
        (C::Text(left), C::Text(right)) => Some(left.cmp(right)),
        (C::Number(left), C::Text(right)) => right.trim().parse().ok().map(|right| left.cmp(&right)),
        (C::Text(left), C::Number(right)) => left.trim().parse::<i128>().ok().map(|left| left.cmp(right)),
        (C::Bool(left), C::Text(right)) => boolean_text(right).map(|right| left.cmp(&right)),
        (C::Text(left), C::Bool(right)) => boolean_text(left).map(|left| left.cmp(right)),
        _ => None,
    }
}

pub(super) fn arithmetic(name: &str, left: &Constant, right: &Constant) -> Option<Constant> {
    if name == "||" {
        let (Constant::Text(left), Constant::Text(right)) = (left, right) else { return None };
        return Some(Constant::Text(format!("{left}{right}")));
    }
    let (Constant::Number(left), Constant::Number(right)) = (left, right) else { return None };
    let number = match name {
        "+" => left.checked_add(*right),
        "-" => left.checked_sub(*right),
        "*" => left.checked_mul(*right),
        "/" => left.checked_div(*right),
        "%" => left.checked_rem(*right),
        _ => None,
    };
    number.map(Constant::Number)
}
