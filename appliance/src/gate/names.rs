//! Names that SQL itself gives and takes: PREPARE, DECLARE, DEALLOCATE, CLOSE, DISCARD. A name whose meaning is not certain is unknown:
//! masked whole where masks apply, refused where rules do.

use super::meaning::{Mark, runs_names};
use super::{Gate, OpenRequest};
use crate::limits;
use masking::sql::{Class, Named, Statement};

impl Gate {
    /// The request is about to be forwarded. What it takes is gone from now on; what it gives counts when it has ended well (prepared
    /// statements: the session sees to that).
    pub(super) fn note_names(&mut self, mark: &Mark) {
        for statement in &mark.meaning.analysis.statements {
            if ends_cursors(statement) {
                self.forget_cursors();
            }
            if runs_what_it_likes(statement) {
                // It can close a portal and open another one under its name.
                self.session.forget_portal(None);
            }
            if runs_names(statement) || statement.classes.contains(Class::Do) && statement.opaque {
                self.session.mistrust_names();
            }
            match &statement.defines {
                Some(Named::Prepared(name)) => self.session.define(name.as_bytes(), mark.clone()),
                Some(Named::Cursor(name)) => {
                    self.session.forget_portal(Some(name.as_bytes()));
                    // One that fails leaves an older cursor of that name: unknown until the target has said which it is.
                    self.cursors.remove(name);
                    self.cursors_touched += 1;
                }
                None => {}
            }
            let Some(name) = &statement.forgets else { continue };
            let name = name.as_deref().map(str::as_bytes);
            if statement.classes.contains(Class::Fetch) {
                // CLOSE: a prepared statement of the same name stays.
                self.session.forget_portal(name);
            } else {
                self.session.forget(name);
            }
        }
    }

    /// What has ended well tells what the names of cursors stand for, unless something has touched them since it was forwarded.
    pub(super) fn learn_cursors(&mut self, ended: &OpenRequest) {
        self.look_at_portals();
        let mut declared = Vec::new();
        for statement in &ended.mark.meaning.analysis.statements {
            if ends_cursors(statement) {
                declared.clear();
            }
            if let Some(Named::Cursor(name)) = &statement.defines
                && name.is_ascii()
            {
                declared.push(name);
            }
        }
        if ended.cursors_touched == self.cursors_touched {
            declared.truncate(limits::CURSORS_MAX.saturating_sub(self.cursors.len()));
            self.cursors.extend(declared.into_iter().map(|name| (name.clone(), ended.mark.clone())));
        }
    }

    /// Portals of the protocol and cursors of SQL share their names: one that is bound or closed may have been the other.
    pub(super) fn look_at_portals(&mut self) {
        let named = self.session.portals_named();
        if std::mem::replace(&mut self.portals_named, named) != named {
            self.forget_cursors();
        }
    }

    fn forget_cursors(&mut self) {
        self.cursors.clear();
        self.cursors_touched += 1;
    }
}

/// Cursors may be gone afterwards, and their names free for others: CLOSE, the end of a transaction or of a savepoint, and
/// blocks that open and close what they like.
fn ends_cursors(statement: &Statement) -> bool {
    let closes = statement.forgets.is_some() && statement.classes.contains(Class::Fetch);
    closes || statement.classes.contains(Class::Transaction) || runs_what_it_likes(statement)
}

fn runs_what_it_likes(statement: &Statement) -> bool {
    statement.classes.contains(Class::Do) || statement.classes.contains(Class::Call)
}
