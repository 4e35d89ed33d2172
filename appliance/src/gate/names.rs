//! Names that SQL itself gives and takes: PREPARE, DECLARE, DEALLOCATE, CLOSE, DISCARD. A name whose meaning is not certain is unknown:
//! masked whole where masks apply, refused where rules do. (What cursors stand for: `cursors.rs`.)

use super::Gate;
use super::meaning::{Mark, runs_names};
use masking::sql::{Class, Named, Statement};

impl Gate {
    /// The request is about to be forwarded. What it takes is gone from now on; what it gives counts when it has ended well (prepared
    /// statements: the session sees to that).
    pub(super) fn note_names(&mut self, mark: &Mark) {
        for statement in &mark.meaning.analysis.statements {
            if runs_what_it_likes(statement) {
                // It can close a portal and open another one under its name.
                self.forget_portals();
            }
            if runs_names(statement) || statement.classes.contains(Class::Do) && statement.opaque {
                self.session.mistrust_names();
            }
            match &statement.defines {
                Some(Named::Prepared(name)) => self.session.define(name.as_bytes(), mark.clone()),
                Some(Named::Cursor(name)) => self.forget_portal(name),
                None => {}
            }
            match &statement.forgets {
                // CLOSE: a prepared statement of the same name stays.
                Some(Some(name)) if statement.classes.contains(Class::Fetch) => self.forget_portal(name),
                Some(None) if statement.classes.contains(Class::Fetch) => self.forget_portals(),
                Some(name) => self.session.forget(name.as_deref().map(str::as_bytes)),
                None => {}
            }
        }
        self.cursors.note(mark, self.rules);
        if mark.meaning.may_exchange_names() {
            self.session.mistrust_names();
            self.forget_portals();
            self.cursors.loosen();
        }
    }

    /// Portals of the protocol and cursors of SQL share their names: one that is bound or closed may have been the other.
    pub(super) fn look_at_portals(&mut self) {
        let named = self.session.portals_named();
        if std::mem::replace(&mut self.portals_named, named) != named {
            self.cursors.loosen();
        }
    }

    /// A portal of that name may be gone, or still be there: a name for what it may run.
    fn forget_portal(&mut self, name: &str) {
        if let Some(mark) = self.session.bound(name.as_bytes()) {
            self.cursors.may_be(name, mark, self.rules);
        }
        self.session.forget_portal(Some(name.as_bytes()));
    }

    fn forget_portals(&mut self) {
        for (name, mark) in self.session.named_portals() {
            if let (Ok(name), Some(mark)) = (std::str::from_utf8(name), mark) {
                self.cursors.may_be(name, mark, self.rules);
            }
        }
        self.session.forget_portal(None);
    }
}

fn runs_what_it_likes(statement: &Statement) -> bool {
    statement.classes.contains(Class::Do) || statement.classes.contains(Class::Call)
}
