//! The verdict on a recorded statement, from the functions the live path uses.

use super::names::Names;
use crate::audit::search::Record;
use crate::identity::Principal;
use crate::policy::{Action, Decision, Policy, View};
use masking::sql::{Class, Reading, Statement, read};
use std::collections::HashMap;
use std::rc::Rc;

/// Texts whose reading is kept: most traffic repeats itself.
const READINGS_MAX: usize = 100_000;

/// Who asks which target.
type Asker = (String, Vec<String>, Vec<String>, String);

pub struct Judge {
    policy: Policy,
    views: HashMap<Asker, Option<View>>,
    readings: HashMap<String, Rc<Reading>>,
    names: Names,
}

/// What the changed policy says of a statement.
pub enum Ruled {
    By(Decision),
    NoGrant,
    /// A name in it stands for what was not recorded, and the rules do not let just anything run.
    UnknownName,
}

impl Judge {
    pub fn new(policy: Policy) -> Self {
        Self { policy, views: HashMap::new(), readings: HashMap::new(), names: Names::default() }
    }

    /// To be asked in the order of time: what a name stands for was said before it is used.
    pub fn decide(&mut self, record: &Record, statement: &str) -> Ruled {
        let reading = self.reading(statement);
        let used = self.names.used(record, &reading);
        self.names.note(record, &reading);
        let Some(view) = self.view(record) else { return Ruled::NoGrant };
        // What the trail tells of a FunctionCall is no SQL.
        if record.classes == [Class::FunctionCall.name()] {
            return Ruled::By(view.decide_function_call());
        }
        let own = by_text(view, &reading);
        let Some(used) = used else { return with_unknown_name(view, own) };
        let prepared = used.prepared.iter().map(|used| by_text(view, used));
        // Who may read a cursor was asked when it was declared.
        let declared = used.cursors.iter().map(|used| by_text(view, used)).filter(is_deny);
        Ruled::By(prepared.chain(declared).fold(own, Decision::stricter))
    }

    /// A statement whose text is not known as a whole may have given any name.
    pub fn pass(&mut self, record: &Record) {
        self.names.forget_session(&record.session);
    }

    fn reading(&mut self, statement: &str) -> Rc<Reading> {
        if self.readings.len() >= READINGS_MAX {
            self.readings.clear();
        }
        if let Some(known) = self.readings.get(statement) {
            return known.clone();
        }
        let reading = Rc::new(read(statement.as_bytes()));
        self.readings.insert(statement.to_owned(), reading.clone());
        reading
    }

    fn view(&mut self, record: &Record) -> Option<&View> {
        let asker = (record.user.clone(), record.groups.clone(), record.actor.clone(), record.target.clone());
        let view = self.views.entry(asker).or_insert_with(|| {
            let principal = Principal {
                user: record.user.clone(),
                subject: record.user.clone(),
                issuer: String::new(),
                groups: record.groups.clone(),
                actor: record.actor.clone(),
            };
            self.policy.view(&record.target, &principal)
        });
        view.as_ref()
    }
}

fn is_deny(decision: &Decision) -> bool {
    decision.action == Action::Deny
}

/// Where the rules let anything run, or refuse the text for itself, it does not matter what the name stands for.
fn with_unknown_name(view: &View, own: Decision) -> Ruled {
    let unknown = view.decide_unknown();
    if is_deny(&unknown) && !is_deny(&own) { Ruled::UnknownName } else { Ruled::By(own.stricter(unknown)) }
}

/// Under either value of `standard_conforming_strings`, the stricter verdict; what a body does with names is nobody's guess, nor
/// what a name stands for in the other reading.
fn by_text(view: &View, reading: &Reading) -> Decision {
    let mut decision = view.decide(&reading.analysis);
    let mut unsure = reading.analysis.statements.iter().any(|statement| statement.names_inside);
    if let Some(other) = &reading.otherwise {
        decision = decision.stricter(view.decide(other));
        let by_name = |statement: &Statement| statement.names_inside || statement.uses.is_some();
        unsure = unsure || other.statements.iter().any(by_name);
    }
    if unsure { decision.stricter(view.decide_unknown()) } else { decision }
}
