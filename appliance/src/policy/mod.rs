//! Rules compiled once; `decide(statement, principal, snapshot) -> Decision`. Pure.

use crate::identity::Principal;
use masking::detect::Detectors;
use masking::sql::Analysis;
use masking::style::Style;
use std::sync::Arc;

/// Grants, rules and masks of one configuration.
#[derive(Default)]
pub struct Policy {}

/// What one principal meets on one target: computed once at login.
pub struct View {
    /// The grant that opened the door.
    pub grant: String,
    /// Unix seconds the grant allows a session to last; `None`: no bound.
    pub max_session_s: Option<u64>,
    /// The grant allows `replication` connections.
    pub replication: bool,
    /// Opening needs a ruling (just-in-time access).
    pub approval: Option<ApprovalTerms>,
    /// At least one rule could match a statement of this session.
    pub has_rules: bool,
    pub column_masks: Vec<ColumnMask>,
    /// Content detectors with their style; `None` when none applies.
    pub detect: Option<(Detectors, Style)>,
}

/// A mask by name: `[schema.]table.column` with globs, already split.
#[derive(Clone, Debug)]
pub struct ColumnMask {
    pub schema: Option<String>,
    pub table: String,
    pub column: String,
    pub style: Style,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Allow,
    Deny,
    Approve,
    Alert,
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
    pub approval: Option<ApprovalTerms>,
    /// For `explain` and refusals: why, in one sentence.
    pub reason: String,
}

impl Policy {
    /// The session's view, or `None` when no grant names this target for this principal.
    pub fn view(&self, target: &str, principal: &Principal) -> Option<View> {
        let _ = (target, principal);
        None
    }
}

impl View {
    /// The one function behind the live path and `explain`.
    pub fn decide(&self, analysis: &Analysis) -> Decision {
        let _ = analysis;
        unreachable!("no view exists yet")
    }

    /// The style for a column of a known table, if any mask names it.
    pub fn column_style(&self, schema: &str, table: &str, column: &str) -> Option<Style> {
        let _ = (schema, table, column);
        None
    }

    /// Could any column mask concern this table as a statement names it (schema unknown: any)?
    pub fn masks_table(&self, schema: Option<&str>, table: &str) -> bool {
        let _ = (schema, table);
        false
    }
}
