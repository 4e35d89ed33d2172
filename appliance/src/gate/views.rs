//! What principals meet on targets: worked out once a shard, and shared by the sessions that have it in common.

use crate::identity::Principal;
use crate::policy::View;
use crate::snapshot::Snapshot;
use std::collections::HashMap;
use std::ops::Deref;
use std::rc::{Rc, Weak};

/// All that a view hangs on, within one snapshot.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    target: String,
    principal: Rc<Principal>,
}

/// What one principal meets on one target.
pub struct Met {
    /// The snapshot that it was made from.
    pub version: u64,
    pub principal: Rc<Principal>,
    view: View,
}

impl Met {
    pub fn view(&self) -> &View {
        &self.view
    }
}

impl Deref for Met {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

/// Views that a session holds: nobody else's are kept.
#[derive(Default)]
pub struct Views {
    version: u64,
    held: HashMap<Key, Weak<Met>>,
    /// How many there may be before those that nobody holds any more are cleared out.
    enough: usize,
}

impl Views {
    /// `None`: no grant names this target for this principal.
    pub fn of(&mut self, snapshot: &Snapshot, target: &str, principal: &Rc<Principal>) -> Option<Rc<Met>> {
        if self.version != snapshot.version {
            *self = Self { version: snapshot.version, ..Self::default() };
        }
        let key = Key { target: target.to_owned(), principal: principal.clone() };
        if let Some(met) = self.held.get(&key).and_then(Weak::upgrade) {
            return Some(met);
        }
        let view = snapshot.policy.view(target, principal)?;
        let met = Rc::new(Met { version: snapshot.version, principal: principal.clone(), view });
        if self.held.len() >= self.enough {
            self.held.retain(|_, met| met.strong_count() > 0);
            self.enough = ENOUGH_MIN.max(2 * self.held.len());
        }
        self.held.insert(key, Rc::downgrade(&met));
        Some(met)
    }
}

const ENOUGH_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::policy::Policy;
    use std::path::Path;

    const CONFIG: &str = r#"
        listener = [{ protocol = "postgres", address = "127.0.0.1:6432" }]
        issuer = [{ name = "i", issuer = "https://i", audience = "a", algorithms = ["ES256"], jwks_file = "k" }]
        target = [{ name = "shop", protocol = "postgres", address = "127.0.0.1:5432", database = "d", user = "u", password_env = "P", tls = "disable" }]
        grant = [{ targets = ["shop"], groups = ["staff"] }]
        rule = [{ name = "no-drop", targets = ["shop"], users = ["ann"], classes = ["drop"], action = "deny" }]
    "#;

    fn snapshot(version: u64) -> Snapshot {
        let config = config::parse(CONFIG, Path::new("test.toml")).expect("a configuration");
        Snapshot { version, policy: Policy::compile(&config), ..Snapshot::empty() }
    }

    fn principal(user: &str, groups: &[&str]) -> Rc<Principal> {
        let groups = groups.iter().map(|group| group.to_string()).collect();
        let (subject, issuer) = (user.to_owned(), "https://i".to_owned());
        Rc::new(Principal { user: user.into(), subject, issuer, groups, actor: Vec::new() })
    }

    #[test]
    fn sessions_of_one_principal_share_a_view_and_nobody_gets_anothers() {
        let (mut views, snapshot) = (Views::default(), snapshot(1));
        let ann = views.of(&snapshot, "shop", &principal("ann", &["staff"])).expect("granted");
        let again = views.of(&snapshot, "shop", &principal("ann", &["staff"])).expect("granted");
        let ben = views.of(&snapshot, "shop", &principal("ben", &["staff"])).expect("granted");
        assert!(Rc::ptr_eq(&ann, &again) && !Rc::ptr_eq(&ann, &ben));
        let other = Principal { subject: "another".into(), ..(*ann.principal).clone() };
        let other = views.of(&snapshot, "shop", &Rc::new(other)).expect("granted");
        assert_eq!(
            (&*ann.principal.subject, &*other.principal.subject),
            ("ann", "another"),
            "each has its own subject"
        );
        assert_eq!((ann.has_rules, ben.has_rules), (true, false));
        assert!(views.of(&snapshot, "shop", &principal("ann", &["guests"])).is_none(), "another group");
        assert!(views.of(&snapshot, "books", &principal("ann", &["staff"])).is_none(), "another target");
    }

    #[test]
    fn a_new_snapshot_makes_new_views() {
        let mut views = Views::default();
        let ann = principal("ann", &["staff"]);
        let before = views.of(&snapshot(1), "shop", &ann).expect("granted");
        let after = views.of(&snapshot(2), "shop", &ann).expect("granted");
        assert!(!Rc::ptr_eq(&before, &after));
        let none = Snapshot { version: 3, ..Snapshot::empty() };
        assert!(views.of(&none, "shop", &ann).is_none(), "the grant is gone");
    }

    #[test]
    fn views_that_nobody_holds_are_cleared_out() {
        let (mut views, snapshot) = (Views::default(), snapshot(1));
        let held = views.of(&snapshot, "shop", &principal("held", &["staff"])).expect("granted");
        for user in 0..1_000 {
            views.of(&snapshot, "shop", &principal(&user.to_string(), &["staff"])).expect("granted");
        }
        assert!(views.held.len() <= ENOUGH_MIN, "{}", views.held.len());
        assert!(Rc::ptr_eq(&held, &views.of(&snapshot, "shop", &principal("held", &["staff"])).expect("granted")));
    }
}
