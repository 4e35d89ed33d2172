//! Keeping `billing.*` meaning what it says. A table written without its schema is found through search_path, so a session
//! that a rule keeps off a schema may not put that schema on its path.
//!
//! Tables that a rule names outright (`billing.cards`) need no such care: a bare `cards` meets a rule that refuses anyway.

use super::View;
use super::rule::Rule;
use masking::sql::{Class, Statement};

const SETTING: &str = "search_path";

/// What a setting puts on the path: with a role comes the schema of its name (`"$user"`).
fn path_by(setting: &str, value: &str) -> Option<String> {
    match setting {
        SETTING => Some(value.to_owned()),
        "role" | "session_authorization" => Some(format!("\"{}\"", value.replace('"', "\"\""))),
        _ => None,
    }
}

impl View {
    /// The rule that keeps a statement from changing the path to where it would miss that rule's tables.
    pub(super) fn path_guard(&self, statement: &Statement) -> Option<(usize, &Rule)> {
        statement.settings.iter().find_map(|(name, value)| match value {
            Some(value) => path_by(name, value).and_then(|path| self.guard(Some(&path))),
            None if name != SETTING => None,
            // RESET and DISCARD ALL go back to the target's own default; set_config of a parameter goes anywhere.
            None if statement.classes.contains(Class::Set) && statement.classes.iter().count() > 1 => self.guard(None),
            None => None,
        })
    }

    /// `None`: the value is not known.
    fn guard(&self, value: Option<&str>) -> Option<(usize, &Rule)> {
        let rules = self.rules.iter().map(|rule| &**rule).enumerate();
        // What an earlier rule allows whatever it is, no later one keeps from it.
        let mut ruling = rules.take_while(|(_, rule)| rule.restricts() || !rule.is_unconditional());
        ruling.find(|(_, rule)| match value {
            Some(value) => schemas(value).any(|schema| rule.guards_schema(&schema)),
            None => rule.guards_any_schema(),
        })
    }
}

pub(super) const REASON: &str = "this search_path is not allowed, because a rule names tables by a schema on it: \
                                 write the schema before the table instead";

/// The schemas of a path, as SplitIdentifierString in PostgreSQL's varlena.c reads them.
fn schemas(value: &str) -> impl Iterator<Item = String> {
    value.split(',').map(|schema| {
        let schema = schema.trim();
        match schema.strip_prefix('"').and_then(|schema| schema.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => schema.to_ascii_lowercase(),
        }
    })
}
