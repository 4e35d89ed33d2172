//! Grants, rules and masks compiled once; `decide(statement, principal, snapshot) -> Decision`. Pure.
//!
//! ```text
//!   Config --compile--> Policy --view(target, principal)--> View --decide(analysis)--> Decision
//!            at load             at login, conditions on             per statement, no allocation
//!                                people are resolved                 unless it is refused or held
//! ```
//!
//! **How a statement is judged.** For each of its classes on each of its tables, the first rule in file order that matches
//! decides; no match: allow. The strictest of these verdicts (deny over approve over alert over allow) is the statement's,
//! and the strictest of its statements is the text's. So a rule that allows `select`, or one table, never covers what else
//! the same statement does; and `EXPLAIN ANALYZE DELETE` is judged as explain and as delete.
//!
//! **Unknown is not allowed.** A condition that cannot be told counts as met for deny and approve, as not met for allow and
//! alert: a table written without its schema matches `billing.invoices` when that denies, and only `public.invoices` when
//! that allows. (`billing.*` is about written schemas; see `path.rs` for what keeps search_path from going around it.) A statement that may do more than its text shows (a dynamic EXECUTE) meets every condition of a rule that denies
//! its class. A text that does not parse is denied as soon as any rule applies to the session, unless one names `unparsed`.

mod decide;
mod masks;
mod path;
mod refusal;
mod rule;
#[cfg(test)]
mod tests;
mod who;

use crate::config::{self, Config};
use crate::identity::Principal;
use masking::detect::Detectors;
use masking::sql::{Classes, Table};
use masking::style::Style;
use rule::Rule;
use std::sync::Arc;

/// Grants, rules and masks of one configuration.
#[derive(Default)]
pub struct Policy {
    grants: Vec<config::Grant>,
    rules: Vec<(config::Rule, Arc<Rule>)>,
    masks: Vec<config::Mask>,
}

/// What one principal meets on one target. The gate shares it between sessions (`gate/views.rs`).
#[derive(Clone)]
pub struct View {
    /// The grant that opened the door.
    pub grant: String,
    /// Unix seconds the grant allows a session to last; `None`: no bound.
    pub max_session_s: Option<u64>,
    /// The user's sessions at one time by this grant.
    pub connection_limit: Option<u32>,
    /// The grant allows `replication` connections.
    pub replication: bool,
    /// Opening needs a ruling (just-in-time access).
    pub approval: Option<ApprovalTerms>,
    /// At least one rule could match a statement of this session.
    pub has_rules: bool,
    pub column_masks: Vec<ColumnMask>,
    /// Content detectors with their style; `None` when none applies.
    pub detect: Option<(Detectors, Style)>,
    /// In file order; those for other targets and other people are gone.
    rules: Vec<Arc<Rule>>,
    /// Of these rules together: a statement of none of these classes is nobody's.
    ruled: Classes,
    /// Beside `column_masks`, compiled.
    columns: Vec<(config::ColumnPattern, Style)>,
}

/// A mask by name: `[schema.]table.column` with globs, already split.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnMask {
    pub schema: Option<String>,
    pub table: String,
    pub column: String,
    pub style: Style,
}

/// What stands in the place of a rule when a mask refuses a statement.
pub const MASK_RULE: &str = "mask";

/// From lenient to strict.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Action {
    Allow,
    Alert,
    Approve,
    Deny,
}

impl Action {
    /// The name in configuration, audit and explanations.
    pub fn name(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Alert => "alert",
            Action::Approve => "approve",
            Action::Deny => "deny",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApprovalTerms {
    pub approvers: Vec<String>,
    pub count: u32,
    pub expires_s: u64,
    pub own: bool,
}

/// The verdict on one text. Several statements: the strictest of all (deny over approve over alert over allow).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    pub action: Action,
    /// The rule that decided; `None`: no rule matched.
    pub rule: Option<Arc<str>>,
    /// The rule's own text for the user.
    pub message: Option<Arc<str>>,
    /// With [`Action::Approve`] only.
    pub approval: Option<ApprovalTerms>,
    /// For `explain` and refusals: why, in one sentence. Empty for allow and alert, which say it in [`Decision::why`]
    /// instead: the live path does not pay for a text nobody reads.
    pub reason: String,
}

impl Policy {
    pub fn compile(config: &Config) -> Self {
        Self::from_parts(&config.grants, &config.rules, &config.masks)
    }

    /// All three in file order.
    pub fn from_parts(grants: &[config::Grant], rules: &[config::Rule], masks: &[config::Mask]) -> Self {
        Self {
            grants: grants.to_vec(),
            rules: rules.iter().map(|rule| (rule.clone(), Arc::new(Rule::compile(rule)))).collect(),
            masks: masks.to_vec(),
        }
    }

    /// The session's view, or `None` when no grant names this target for this principal.
    pub fn view(&self, target: &str, principal: &Principal) -> Option<View> {
        let grants = || {
            self.grants
                .iter()
                .filter(|grant| who::names(&grant.targets, target) && who::includes(&grant.who, principal))
        };
        // Somebody who may open without asking is not made to ask because another grant stands first in the file.
        let grant = grants().find(|grant| grant.approval.is_none()).or_else(|| grants().next())?;
        let replication = grant.replication || grants().any(|other| other.replication && other.approval.is_none());
        let rules: Vec<Arc<Rule>> = self
            .rules
            .iter()
            .filter(|(rule, _)| who::names(&rule.targets, target) && who::includes(&rule.who, principal))
            .map(|(_, compiled)| compiled.clone())
            .collect();
        let masks: Vec<&config::Mask> = self
            .masks
            .iter()
            .filter(|mask| who::names(&mask.targets, target) && who::includes(&mask.who, principal))
            .collect();
        Some(View {
            grant: grant.name.clone(),
            max_session_s: grant.max_session.map(|longest| longest.as_secs()),
            connection_limit: grant.connection_limit,
            replication,
            approval: grant.approval.clone(),
            has_rules: !rules.is_empty(),
            column_masks: masks::by_name(&masks),
            detect: masks::by_content(&masks),
            columns: masks::compiled(&masks),
            ruled: rules.iter().fold(Classes::default(), |ruled, rule| ruled.union(rule.classes)),
            rules,
        })
    }
}

/// `schema.table` where the schema was written, else `table`: as records and explanations name it.
pub fn table_name(table: &Table) -> String {
    let mut name = String::new();
    push_table_name(table, &mut name);
    name
}

fn push_table_name(table: &Table, text: &mut String) {
    if let Some(schema) = &table.schema {
        *text += schema;
        text.push('.');
    }
    *text += &table.name;
}
