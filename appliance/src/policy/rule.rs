//! One rule, compiled: what a statement must do for the rule to match.

use super::{Action, ApprovalTerms};
use crate::config::{self, Glob, RuleAction, TablePattern};
use masking::sql::{Class, Classes, Reach, Statement, Table};
use std::sync::Arc;

pub(super) struct Rule {
    pub name: Arc<str>,
    pub action: Action,
    pub message: Option<Arc<str>>,
    pub approval: Option<ApprovalTerms>,
    /// Every class when the rule names none.
    pub classes: Classes,
    names_classes: bool,
    tables: Vec<TablePattern>,
    missing_where: bool,
    /// Sorted.
    words: Vec<String>,
    /// Of which words could be among them: most words of most texts are not, and are not looked up.
    likely: u64,
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

/// One of 64 bits, by length and first byte: equal words have the same.
fn bit(word: &str) -> u64 {
    let first = word.as_bytes().first().map_or(0, |first| usize::from(*first));
    1 << ((word.len() * 5 + first) % 64)
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
                [] => Class::ALL.into_iter().collect(),
                several => several.iter().copied().collect(),
            },
            names_classes: !rule.classes.is_empty(),
            tables: rule.tables.clone(),
            missing_where: rule.missing_where,
            likely: words.iter().fold(0, |bits, word| bits | bit(word)),
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
        self.names_classes && self.classes.contains(class)
    }

    /// Do all conditions but the one on classes hold?
    pub fn holds(&self, unit: Unit<'_>) -> bool {
        self.seen(unit) || self.restricts() && unit.statement.opaque && self.may_hide(unit.statement)
    }

    /// Do they hold for what the text shows?
    pub fn seen(&self, unit: Unit<'_>) -> bool {
        (!self.missing_where || unit.statement.missing_where)
            && (self.tables.is_empty() || self.meets_tables(unit))
            && (self.words.is_empty() || self.finds_word(unit).is_some())
    }

    /// Could what an opaque statement hides meet the conditions? Any table and word could be in there; an UPDATE or
    /// DELETE only where its classes say so.
    fn may_hide(&self, statement: &Statement) -> bool {
        let changes = statement.classes.contains(Class::Update) || statement.classes.contains(Class::Delete);
        !self.missing_where || changes
    }

    /// The first of the rule's words in the text. Words are not told apart by statement, so an allowing rule trusts them
    /// only in a text of one statement.
    pub fn finds_word(&self, unit: Unit<'_>) -> Option<&str> {
        if !self.restricts() && !unit.alone {
            return None;
        }
        // Both are sorted, so the first one found is the rule's first.
        let mut likely = unit.words.iter().filter(|word| self.likely & bit(word) != 0);
        likely.find_map(|word| self.words.binary_search(word).ok()).map(|at| self.words[at].as_str())
    }

    pub fn wants_missing_where(&self) -> bool {
        self.missing_where
    }

    fn meets_tables(&self, unit: Unit<'_>) -> bool {
        match unit.table {
            Some(table) => self.names_table(table),
            None => self.restricts() && self.is_reached(&unit.statement.reach),
        }
    }

    /// Could one of the rule's tables be among those that a statement touches without naming them?
    fn is_reached(&self, reach: &Reach) -> bool {
        let inside = |pattern: &TablePattern| {
            let schemas = reach.schemas.iter();
            pattern
                .schema
                .as_ref()
                .map_or(!reach.schemas.is_empty(), |wanted| schemas.clone().any(|one| wanted.matches(one)))
        };
        reach.everything || self.tables.iter().any(inside)
    }

    fn names_table(&self, table: &Table) -> bool {
        self.tables.iter().any(|pattern| {
            let schema = match (&pattern.schema, &table.schema) {
                (None, _) => true,
                (Some(wanted), Some(written)) => wanted.matches(written),
                // search_path decides at the target, and the session can change it.
                (Some(wanted), None) => wanted.matches("public") || self.restricts() && pattern.table.is_literal(),
            };
            schema && pattern.table.matches(&table.name)
        })
    }

    /// The rule refuses tables of that schema without naming them outright.
    pub fn guards_schema(&self, schema: &str) -> bool {
        self.guarded().any(|wanted| wanted.matches(schema))
    }

    pub fn guards_any_schema(&self) -> bool {
        self.guarded().next().is_some()
    }

    fn guarded(&self) -> impl Iterator<Item = &Glob> {
        let patterns = self.tables.iter().filter(|pattern| self.restricts() && !pattern.table.is_literal());
        patterns.filter_map(|pattern| pattern.schema.as_ref()).filter(|schema| !schema.matches("public"))
    }
}
