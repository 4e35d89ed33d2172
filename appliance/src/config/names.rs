//! Names of the configuration for the closed sets of `masking`.

use masking::sql::Class;
use masking::style::Style;

pub const CLASSES: [(&str, Class); 32] = [
    ("select", Class::Select),
    ("insert", Class::Insert),
    ("update", Class::Update),
    ("delete", Class::Delete),
    ("merge", Class::Merge),
    ("truncate", Class::Truncate),
    ("create", Class::Create),
    ("alter", Class::Alter),
    ("drop", Class::Drop),
    ("grant", Class::Grant),
    ("revoke", Class::Revoke),
    ("copy_in", Class::CopyIn),
    ("copy_out", Class::CopyOut),
    ("copy_program", Class::CopyProgram),
    ("call", Class::Call),
    ("do", Class::Do),
    ("execute", Class::Execute),
    ("prepare", Class::Prepare),
    ("declare", Class::Declare),
    ("fetch", Class::Fetch),
    ("explain", Class::Explain),
    ("set", Class::Set),
    ("show", Class::Show),
    ("transaction", Class::Transaction),
    ("lock", Class::Lock),
    ("listen", Class::Listen),
    ("vacuum", Class::Vacuum),
    ("comment", Class::Comment),
    ("replication", Class::Replication),
    ("function_call", Class::FunctionCall),
    ("other", Class::Other),
    ("unparsed", Class::Unparsed),
];

pub const STYLES: [(&str, Style); 4] =
    [("last4", Style::Last4), ("fill", Style::Fill), ("null", Style::Null), ("token", Style::Token)];

pub fn meaning<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, meaning)| *meaning)
}
