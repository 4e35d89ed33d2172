//! Does a condition on people, or on a target's name, hold?

use crate::config::{Glob, Who};
use crate::identity::Principal;

/// (A group or a user is named, or neither list is given) and (an actor is named, or that list is empty) and no group is
/// exempt.
pub fn includes(who: &Who, principal: &Principal) -> bool {
    let in_any = |groups: &[String]| groups.iter().any(|group| principal.groups.contains(group));
    let everyone = who.groups.is_empty() && who.users.is_empty();
    let named = everyone || in_any(&who.groups) || names(&who.users, &principal.user);
    let acting = who.actors.is_empty() || principal.actor.iter().any(|actor| names(&who.actors, actor));
    named && acting && !in_any(&who.except_groups)
}

pub fn names(globs: &[Glob], name: &str) -> bool {
    globs.iter().any(|glob| glob.matches(name))
}
