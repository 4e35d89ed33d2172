//! What the names that SQL gives (PREPARE, DECLARE) stand for, as far as the trail tells.

use crate::audit::search::Record;
use crate::policy::table_name;
use masking::sql::{Class, Named, Reading, Statement};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Of all sessions. Beyond: all are forgotten, and what uses them is not judged.
const NAMES_MAX: usize = 100_000;

#[derive(Default)]
pub struct Names {
    sessions: HashMap<String, HashMap<Named, Rc<Reading>>>,
    /// How many were given since all were forgotten.
    count: usize,
}

/// The texts that gave the names a statement uses.
#[derive(Default)]
pub struct Used {
    pub prepared: Vec<Rc<Reading>>,
    pub cursors: Vec<Rc<Reading>>,
}

impl Names {
    /// `None`: one of the names is not known, or what was recorded tells that it stood for something else.
    pub fn used(&self, record: &Record, reading: &Rc<Reading>) -> Option<Used> {
        let mut used = Used::default();
        let mut given_here = HashSet::new();
        for statement in &reading.analysis.statements {
            if let Some(name) = &statement.uses
                && !given_here.contains(name)
            {
                let known = self.sessions.get(&record.session)?.get(name)?.clone();
                match name {
                    Named::Prepared(_) => used.prepared.push(known),
                    Named::Cursor(_) => used.cursors.push(known),
                }
            }
            given_here.extend(&statement.defines);
        }
        let all = || used.prepared.iter().chain(&used.cursors).chain([reading]);
        let by_name = !used.prepared.is_empty() || !used.cursors.is_empty();
        (!by_name || tells_all(&all().flat_map(|reading| statements(reading)).collect::<Vec<_>>(), record))
            .then_some(used)
    }

    /// It ran: its names count from now on.
    pub fn note(&mut self, record: &Record, reading: &Rc<Reading>) {
        if self.count >= NAMES_MAX {
            (self.sessions, self.count) = Default::default();
        }
        for statement in &reading.analysis.statements {
            if let Some(forgotten) = &statement.forgets {
                self.forget(&record.session, statement, forgotten.as_deref());
            }
            let Some(name) = &statement.defines else { continue };
            if !ran(record) {
                continue;
            }
            let session = self.sessions.entry(record.session.clone()).or_default();
            if record.error.is_none() {
                session.insert(name.clone(), reading.clone());
                self.count += 1;
            } else {
                // It may have come to the name before it failed, or not.
                session.remove(name);
            }
        }
    }

    pub fn forget_session(&mut self, session: &str) {
        self.sessions.remove(session);
    }

    /// DEALLOCATE, CLOSE, DISCARD.
    fn forget(&mut self, session: &str, statement: &Statement, name: Option<&str>) {
        let Some(names) = self.sessions.get_mut(session) else { return };
        let of_cursors = statement.classes.contains(Class::Fetch);
        match name {
            Some(name) if of_cursors => drop(names.remove(&Named::Cursor(name.to_owned()))),
            Some(name) => drop(names.remove(&Named::Prepared(name.to_owned()))),
            // Of one kind or of both: what is forgotten needlessly is not judged.
            None => names.clear(),
        }
    }
}

/// The gateway forwarded it.
fn ran(record: &Record) -> bool {
    match record.decision.as_deref() {
        Some("deny") => false,
        Some("approve") => record.ruling.as_deref() == Some("approved"),
        _ => true,
    }
}

fn statements(reading: &Reading) -> impl Iterator<Item = &Statement> {
    reading.analysis.statements.iter().chain(reading.otherwise.iter().flat_map(|other| &other.statements))
}

/// Is everything in these statements that was recorded of them and of what their names stood for?
fn tells_all(statements: &[&Statement], record: &Record) -> bool {
    let classes: HashSet<_> =
        statements.iter().flat_map(|statement| statement.classes.iter()).map(Class::name).collect();
    let tables: HashSet<_> = statements.iter().flat_map(|statement| &statement.tables).map(table_name).collect();
    record.classes.iter().all(|class| classes.contains(class))
        && record.tables.iter().all(|table| tables.contains(table))
}
