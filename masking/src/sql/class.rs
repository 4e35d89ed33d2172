//! The statement classes of the contract with users, and sets of them.

/// Statement classes of the contract with users.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
#[rustfmt::skip]
pub enum Class {
    Select, Insert, Update, Delete, Merge, Truncate, Create, Alter, Drop, Grant, Revoke, CopyIn, CopyOut, CopyProgram,
    Call, Do, Execute, Prepare, Declare, Fetch, Explain, Set, Show, Transaction, Lock, Listen, Vacuum, Comment,
    Replication, FunctionCall, Other, Unparsed,
}

/// Class and its name in configuration and audit, in the order of the enum.
#[rustfmt::skip]
const NAMES: [(Class, &str); 32] = {
    use Class::*;
    [
        (Select, "select"), (Insert, "insert"), (Update, "update"), (Delete, "delete"), (Merge, "merge"),
        (Truncate, "truncate"), (Create, "create"), (Alter, "alter"), (Drop, "drop"), (Grant, "grant"),
        (Revoke, "revoke"), (CopyIn, "copy_in"), (CopyOut, "copy_out"), (CopyProgram, "copy_program"), (Call, "call"),
        (Do, "do"), (Execute, "execute"), (Prepare, "prepare"), (Declare, "declare"), (Fetch, "fetch"),
        (Explain, "explain"), (Set, "set"), (Show, "show"), (Transaction, "transaction"), (Lock, "lock"),
        (Listen, "listen"), (Vacuum, "vacuum"), (Comment, "comment"), (Replication, "replication"),
        (FunctionCall, "function_call"), (Other, "other"), (Unparsed, "unparsed"),
    ]
};

/// Every class, in the order of the enum.
const ALL: [Class; 32] = {
    let mut all = [Class::Select; 32];
    let mut i = 0;
    while i < all.len() {
        assert!(NAMES[i].0 as usize == i, "NAMES follows the order of the enum");
        all[i] = NAMES[i].0;
        i += 1;
    }
    all
};

impl Class {
    pub const ALL: [Class; 32] = ALL;

    /// The name in configuration and audit.
    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    pub fn from_name(name: &str) -> Option<Class> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(class, _)| *class)
    }

    fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// A set of classes: one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Classes(pub u64);

impl Classes {
    pub fn insert(&mut self, class: Class) {
        self.0 |= class.bit();
    }

    pub fn contains(self, class: Class) -> bool {
        self.0 & class.bit() != 0
    }

    pub fn intersects(self, other: Classes) -> bool {
        self.0 & other.0 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn union(self, other: Classes) -> Classes {
        Classes(self.0 | other.0)
    }

    /// The classes of the set, in the order of the enum.
    pub fn iter(self) -> impl Iterator<Item = Class> {
        Class::ALL.into_iter().filter(move |class| self.contains(*class))
    }

    /// The set of the one class of that name.
    pub fn from_name(name: &str) -> Option<Classes> {
        Class::from_name(name).map(Classes::from)
    }
}

impl From<Class> for Classes {
    fn from(class: Class) -> Self {
        Classes(class.bit())
    }
}

impl FromIterator<Class> for Classes {
    fn from_iter<I: IntoIterator<Item = Class>>(classes: I) -> Self {
        let mut set = Classes::default();
        classes.into_iter().for_each(|class| set.insert(class));
        set
    }
}

impl Extend<Class> for Classes {
    fn extend<I: IntoIterator<Item = Class>>(&mut self, classes: I) {
        classes.into_iter().for_each(|class| self.insert(class));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract_and_lead_back() {
        let contract = "select insert update delete merge truncate create alter drop grant revoke copy_in copy_out \
            copy_program call do execute prepare declare fetch explain set show transaction lock listen vacuum comment \
            replication function_call other unparsed";
        let names: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
        assert_eq!(names, contract.split_whitespace().collect::<Vec<_>>());
        for class in Class::ALL {
            assert_eq!(Class::from_name(class.name()), Some(class));
        }
        assert_eq!(Class::from_name("Select"), None);
    }

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let set: Classes = [Class::Explain, Class::Delete].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Class::Delete, Class::Explain]);
        assert!(set.intersects(Class::Delete.into()) && !set.intersects(Class::Drop.into()));
        assert!(Classes::default().is_empty() && !set.is_empty());
        assert_eq!(set.union(Class::Unparsed.into()).iter().count(), 3);
    }
}
