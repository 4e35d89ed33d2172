//! One rule, compiled: what a statement must do for the rule to match.

use super::names::bit;
use super::{Action, ApprovalTerms};
use crate::config::{self, RuleAction, TablePattern};
use masking::sql::{Class, Statement, Table};
use std::sync::Arc;

pub(super) struct Rule {
    pub name: Arc<str>,
    pub action: Action,
    pub message: Option<Arc<str>>,
    pub approval: Option<ApprovalTerms>,
    /// Every bit when the rule names no class.
    pub classes: u64,
    names_classes: bool,
    tables: Vec<TablePattern>,
    missing_where: bool,
    /// Sorted.
    words: Vec<String>,
}

/// What is judged at a time: one table of one statement of a text.
#[derive(Clone, Copy)]
pub(super) struct Unit<'a> {
    pub statement: &'a Statement,
    pub table: Option<&'a Table>,
    /// Of the whole text, sorted.
    pub words: &'a [String],
    /// The text holds no other statement.
    pub alone: bool,
}

impl Rule {
    pub fn compile(rule: &config::Rule) -> Self {
        let (action, approval) = match &rule.action {
            RuleAction::Allow => (Action::Allow, None),
            RuleAction::Deny => (Action::Deny, None),
            RuleAction::Alert => (Action::Alert, None),
            RuleAction::Approve(terms) => (Action::Approve, Some(terms.clone())),
        };
        let mut words: Vec<String> = rule.words.iter().map(|word| word.to_lowercase()).collect();
        words.sort();
        Self {
            name: rule.name.as_str().into(),
            action,
            message: rule.message.as_deref().map(Arc::from),
            approval,
            classes: match rule.classes.as_slice() {
                [] => u64::MAX,
                several => several.iter().fold(0, |bits, &class| bits | bit(class)),
            },
            names_classes: !rule.classes.is_empty(),
            tables: rule.tables.clone(),
            missing_where: rule.missing_where,
            words,
        }
    }

    /// Deny and approve: where something cannot be told, they match.
    pub fn restricts(&self) -> bool {
        match self.action {
            Action::Deny | Action::Approve => true,
            Action::Allow | Action::Alert => false,
        }
    }

    /// The rule says nothing about statements: it matches whatever runs.
    pub fn is_unconditional(&self) -> bool {
        !self.names_classes && !self.looks_inside()
    }

    /// The rule has a condition on more than the class.
    pub fn looks_inside(&self) -> bool {
        !self.tables.is_empty() || self.missing_where || !self.words.is_empty()
    }

    pub fn names(&self, class: Class) -> bool {
        self.names_classes && self.classes & bit(class) != 0
    }

    /// Do all conditions but the one on classes hold?
    pub fn holds(&self, unit: Unit<'_>) -> bool {
        (!self.missing_where || unit.statement.missing_where)
            && (self.tables.is_empty() || unit.table.is_some_and(|table| self.names_table(table)))
            && (self.words.is_empty() || self.finds_word(unit).is_some())
    }

    /// The first of the rule's words in the text. Words are not told apart by statement, so an allowing rule trusts them
    /// only in a text of one statement.
    pub fn finds_word(&self, unit: Unit<'_>) -> Option<&str> {
        if !self.restricts() && !unit.alone {
            return None;
        }
        let word = self.words.iter().find(|word| unit.words.binary_search(word).is_ok());
        word.map(String::as_str)
    }

    pub fn wants_missing_where(&self) -> bool {
        self.missing_where
    }

    fn names_table(&self, table: &Table) -> bool {
        self.tables.iter().any(|pattern| {
            let schema = match (&pattern.schema, &table.schema) {
                (None, _) => true,
                (Some(wanted), Some(written)) => wanted.matches(written),
                // search_path decides at the target, and the session can change it.
                (Some(wanted), None) => self.restricts() || wanted.matches("public"),
            };
            schema && pattern.table.matches(&table.name)
        })
    }
}
