//! The names of statement classes and tables, as configuration, audit and explanations write them.

use masking::sql::{Class, Classes, Table};

const ALL: [Class; 32] = [
    Class::Select,
    Class::Insert,
    Class::Update,
    Class::Delete,
    Class::Merge,
    Class::Truncate,
    Class::Create,
    Class::Alter,
    Class::Drop,
    Class::Grant,
    Class::Revoke,
    Class::CopyIn,
    Class::CopyOut,
    Class::CopyProgram,
    Class::Call,
    Class::Do,
    Class::Execute,
    Class::Prepare,
    Class::Declare,
    Class::Fetch,
    Class::Explain,
    Class::Set,
    Class::Show,
    Class::Transaction,
    Class::Lock,
    Class::Listen,
    Class::Vacuum,
    Class::Comment,
    Class::Replication,
    Class::FunctionCall,
    Class::Other,
    Class::Unparsed,
];

/// The class's bit in [`Classes`].
pub(super) fn bit(class: Class) -> u64 {
    1 << class as u8
}

/// The class of a bit's number.
pub(super) fn from_bit(number: u32) -> Option<Class> {
    ALL.get(number as usize).copied()
}

pub fn class_name(class: Class) -> &'static str {
    match class {
        Class::Select => "select",
        Class::Insert => "insert",
        Class::Update => "update",
        Class::Delete => "delete",
        Class::Merge => "merge",
        Class::Truncate => "truncate",
        Class::Create => "create",
        Class::Alter => "alter",
        Class::Drop => "drop",
        Class::Grant => "grant",
        Class::Revoke => "revoke",
        Class::CopyIn => "copy_in",
        Class::CopyOut => "copy_out",
        Class::CopyProgram => "copy_program",
        Class::Call => "call",
        Class::Do => "do",
        Class::Execute => "execute",
        Class::Prepare => "prepare",
        Class::Declare => "declare",
        Class::Fetch => "fetch",
        Class::Explain => "explain",
        Class::Set => "set",
        Class::Show => "show",
        Class::Transaction => "transaction",
        Class::Lock => "lock",
        Class::Listen => "listen",
        Class::Vacuum => "vacuum",
        Class::Comment => "comment",
        Class::Replication => "replication",
        Class::FunctionCall => "function_call",
        Class::Other => "other",
        Class::Unparsed => "unparsed",
    }
}

/// In the order of the contract with users.
pub fn class_names(classes: Classes) -> impl Iterator<Item = &'static str> {
    ALL.into_iter().filter(move |&class| classes.0 & bit(class) != 0).map(class_name)
}

/// `schema.table` where the schema was written, else `table`.
pub fn table_name(table: &Table) -> String {
    match &table.schema {
        Some(schema) => format!("{schema}.{}", table.name),
        None => table.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_listed_at_its_bit() {
        for (place, class) in ALL.into_iter().enumerate() {
            assert_eq!(bit(class), 1 << place);
        }
        assert_eq!(class_names(Classes(u64::MAX)).count(), ALL.len());
    }
}
