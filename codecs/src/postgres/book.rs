//! What the names mean: prepared statements and portals, as the target will see them when the next message arrives.
//!
//! The book runs ahead of the target: it is written when a message is forwarded. What the target then refuses or skips is
//! taken back in reverse order (see [`super::expect`]), so that a refused re-Parse leaves the old meaning in force.
//!
//! Running ahead is right within one segment, up to the next Sync: behind what the target refuses it skips the rest. Behind a Sync it does
//! not, so there a name counts only once the target has answered for it: until then it is in doubt, and whoever uses it
//! waits ([`super::expect::Queue::is_in_doubt`]).

use super::binds::{self, Bind, BindValues, Formats};
use super::lazy::Lent;
use super::{Column, ColumnPlan, ProtocolError};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// Prepared statements, and portals, that one session may name. Beyond: the connection closes.
const NAMES_MAX: usize = 65_536 - FEW_NAMES;
/// Names up to this many are compared one by one, which beats hashing; those beyond are hashed.
const FEW_NAMES: usize = 8;
/// Portals kept for reuse after their last Execute, so that a pipeline allocates nothing in its steady state.
const SPARE_PORTALS_MAX: usize = 64;

/// A name of a statement or portal. The empty one (unnamed) does not allocate.
pub(super) type Name = Box<[u8]>;

/// What is known of a result's columns.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// Described as returning rows. Others would be ones no mask was made for.
    pub has_rows: bool,
    /// Only where a column is watched.
    pub plan: Option<ColumnPlan>,
    pub types: Vec<u32>,
    pub formats: Formats,
    /// The RowDescription all this comes from; empty: nobody needs it, or it is too long to be worth keeping.
    pub description: Vec<u8>,
    /// Which [`super::Session::plans_hold`] the plan was made under; 0: it holds for this once.
    pub epoch: u64,
}

impl Shape {
    /// Nothing is known (again). Keeps the capacity.
    pub fn clear(&mut self) {
        self.has_rows = false;
        self.plan = None;
        self.types.clear();
        self.formats.clear();
        self.description.clear();
        self.epoch = 0;
    }

    /// This description has been planned for under `epoch` already.
    #[inline]
    pub fn is_known(&self, description: &[u8], epoch: u64) -> bool {
        epoch != 0 && self.epoch == epoch && *self.description == *description
    }

    pub fn set(
        &mut self,
        columns: &[Column],
        formats: &Formats,
        description: &[u8],
        plan: Option<ColumnPlan>,
        epoch: u64,
    ) {
        self.has_rows = true;
        self.epoch = epoch;
        self.plan = plan.filter(|plan| plan.iter().any(|&code| code != 0));
        self.types.clear();
        self.types.extend(columns.iter().map(|column| column.type_oid));
        self.formats.clone_from(formats);
        self.description.clear();
        self.description.extend_from_slice(description);
    }
}

/// A prepared statement. Portals and outstanding replies keep it alive when its name is gone.
#[derive(Debug)]
pub(super) struct Statement<T> {
    /// The gate's mark; `None`: prepared in a way nobody saw.
    pub tag: Option<T>,
    /// Its rows must not pass without a description (the gate asked for one).
    pub guarded: bool,
    /// The segment in which it was named.
    pub since: u64,
    /// The target refused or skipped what named it: the name never stood for it.
    refused: Cell<bool>,
    pub shape: RefCell<Shape>,
}

impl<T> Statement<T> {
    pub fn new(tag: Option<T>, guarded: bool, since: u64) -> Rc<Self> {
        Rc::new(Self { tag, guarded, since, refused: Cell::new(false), shape: RefCell::default() })
    }

    pub fn refuse(&self) {
        self.refused.set(true);
    }
}

/// A statement with its values bound.
#[derive(Debug)]
pub(super) struct Portal<T> {
    pub statement: Rc<Statement<T>>,
    /// Of the result, from Bind; from RowDescription once the portal was described.
    pub formats: RefCell<Formats>,
    parameters: Vec<u8>,
    cut: Option<usize>,
    /// An Execute was forwarded: another one continues it.
    pub executed: Cell<bool>,
    /// As of a statement.
    pub since: u64,
    refused: Cell<bool>,
}

impl<T> Portal<T> {
    fn new(statement: Rc<Statement<T>>) -> Self {
        Self {
            statement,
            formats: RefCell::default(),
            parameters: Vec::new(),
            cut: None,
            executed: Cell::new(false),
            since: 0,
            refused: Cell::new(false),
        }
    }

    pub fn refuse(&self) {
        self.refused.set(true);
    }

    fn set(&mut self, statement: Rc<Statement<T>>, bind: &Bind<'_>, since: u64) {
        self.statement = statement;
        self.formats.get_mut().set(bind.results);
        self.cut = binds::keep(bind.parameters, &mut self.parameters);
        self.executed.set(false);
        self.since = since;
        self.refused.set(false);
    }

    pub fn binds(&self) -> BindValues<'_> {
        BindValues { raw: &self.parameters, cut: self.cut }
    }
}

/// Named things, the unnamed one among them but kept apart. A name is in `few` or in `many`, never in both.
#[derive(Debug)]
struct Names<V> {
    unnamed: Option<V>,
    few: Vec<(Name, V)>,
    /// Made when it is needed, which it seldom is: the map itself would be five words of each session, twice.
    #[expect(clippy::box_collection)]
    many: Option<Box<HashMap<Name, V>>>,
}

/// What the server knows a name by: it cuts longer ones, from the protocol and from SQL (NAMEDATALEN; manual, 4.1.1).
fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(63)]
}

/// The same name for the server whatever the session's encoding is.
pub(super) fn is_certain(name: &[u8]) -> bool {
    name.is_ascii()
}

impl<V> Names<V> {
    const fn new() -> Self {
        Self { unnamed: None, few: Vec::new(), many: None }
    }

    fn is_empty(&self) -> bool {
        self.unnamed.is_none() && self.few.is_empty() && self.many.as_ref().is_none_or(|many| many.is_empty())
    }

    fn look(&self, name: &[u8]) -> Option<&V> {
        let name = cut(name);
        if name.is_empty() {
            return self.unnamed.as_ref();
        }
        let found = self.few.iter().find(|(known, _)| **known == *name).map(|(_, value)| value);
        found.or_else(|| self.many.as_ref()?.get(name))
    }

    fn put(&mut self, name: &[u8], value: Option<V>) -> Option<V> {
        let name = cut(name);
        if name.is_empty() {
            return std::mem::replace(&mut self.unnamed, value);
        }
        let place = self.few.iter().position(|(known, _)| **known == *name);
        match (value, place) {
            (Some(value), Some(place)) => Some(std::mem::replace(&mut self.few[place].1, value)),
            (None, Some(place)) => Some(self.few.swap_remove(place).1),
            (None, None) => self.many.as_mut()?.remove(name),
            (Some(value), None) if self.few.len() < FEW_NAMES && !self.is_among_many(name) => {
                self.few.push((name.into(), value));
                None
            }
            (Some(value), None) => self.many.get_or_insert_default().insert(name.into(), value),
        }
    }

    fn is_among_many(&self, name: &[u8]) -> bool {
        self.many.as_ref().is_some_and(|many| many.contains_key(name))
    }

    fn named(&self) -> impl Iterator<Item = (&Name, &V)> {
        self.few.iter().map(|(name, value)| (name, value)).chain(self.many.iter().flat_map(|many| many.iter()))
    }

    fn named_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.few.iter_mut().map(|(_, value)| value).chain(self.many.iter_mut().flat_map(|many| many.values_mut()))
    }

    fn clear_named(&mut self) {
        self.few.clear();
        self.many = None;
    }

    fn check_room(&self) -> Result<(), ProtocolError> {
        if self.many.as_ref().is_none_or(|many| many.len() < NAMES_MAX) {
            Ok(())
        } else {
            Err(ProtocolError::TooManyNames)
        }
    }
}

/// A portal, and the one whose name it has taken.
pub(super) type Bound<T> = (Rc<Portal<T>>, Option<Rc<Portal<T>>>);

/// Statements and portals by name.
#[derive(Debug)]
pub(super) struct Book<T> {
    statements: Names<Rc<Statement<T>>>,
    portals: Names<Rc<Portal<T>>>,
    spare: Vec<Rc<Portal<T>>>,
    /// The segment in which a statement was last given a name that SQL may use, or a portal bound that nobody knows.
    pub named_since: u64,
    /// What a spare portal holds in place of a statement.
    nothing: Option<Rc<Statement<T>>>,
}

impl<T> Book<T> {
    const fn new() -> Self {
        Self { statements: Names::new(), portals: Names::new(), spare: Vec::new(), named_since: 0, nothing: None }
    }
}

impl<T: 'static> Lent for Book<T> {
    const NOTHING: &'static Self = &Self::new();

    fn nothing() -> Self {
        Self::new()
    }

    /// Names that stand for something are needed. (When the last of them was given matters only to those that are under way.)
    fn rest(&mut self) -> bool {
        (self.spare, self.nothing) = (Vec::new(), None);
        self.statements.is_empty() && self.portals.is_empty()
    }
}

impl<T> Book<T> {
    pub fn statement(&self, name: &[u8]) -> Option<&Rc<Statement<T>>> {
        self.statements.look(name)
    }

    pub fn portal(&self, name: &[u8]) -> Option<&Rc<Portal<T>>> {
        self.portals.look(name)
    }

    /// `name` now stands for `statement`. The meaning it had is returned, to be put back if the target refuses.
    pub fn define(
        &mut self,
        name: &[u8],
        statement: Rc<Statement<T>>,
    ) -> Result<Option<Rc<Statement<T>>>, ProtocolError> {
        self.statements.check_room()?;
        if !name.is_empty() {
            self.named_since = statement.since;
        }
        Ok(self.statements.put(name, Some(statement)))
    }

    /// Restores what `define` or `close_statement` replaced, unless somebody else changed the name meanwhile.
    pub fn restore_statement(&mut self, name: &[u8], now: Option<&Rc<Statement<T>>>, before: Option<Rc<Statement<T>>>) {
        if same(self.statements.look(name), now) {
            // What stood there before may have been refused as well: then nobody knows what the name means.
            let before = before.map(|before| if before.refused.get() { Self::unseen() } else { before });
            self.statements.put(name, before);
        }
    }

    pub fn close_statement(&mut self, name: &[u8]) -> Option<Rc<Statement<T>>> {
        self.statements.put(name, None)
    }

    /// Every name is free again. Returns what they meant.
    pub fn forget_statements(&mut self) -> Vec<(Name, Rc<Statement<T>>)> {
        let before = self.statements.named().map(|(name, statement)| (name.clone(), statement.clone())).collect();
        self.statements.clear_named();
        self.statements.unnamed = None;
        before
    }

    pub fn named_portals(&self) -> impl Iterator<Item = (&Name, &Rc<Portal<T>>)> {
        self.portals.named()
    }

    /// Every name that SQL may use stands for nobody knows what.
    pub fn mistrust_statements(&mut self) {
        self.statements.named_mut().for_each(|statement| *statement = Self::unseen());
    }

    /// A statement to hang a description on, for one nobody saw prepared.
    pub fn unseen() -> Rc<Statement<T>> {
        Statement::new(None, false, 0)
    }

    /// Binds a portal. Returns it, and the named portal it replaces, if any: the target refuses that, and it must be put back.
    pub fn bind(&mut self, bind: &Bind<'_>, since: u64) -> Result<Bound<T>, ProtocolError> {
        let known = self.statements.look(bind.statement).filter(|_| is_certain(bind.portal));
        if known.is_none() {
            // Most often the target has no such statement either, and there will be no portal.
            self.named_since = since;
        }
        let statement = known.cloned().unwrap_or_else(Self::unseen);
        if bind.portal.is_empty() {
            // The portal of the last round is free again once its replies have passed: its buffers are used again.
            if let Some(portal) = self.portals.unnamed.as_mut().and_then(Rc::get_mut) {
                portal.set(statement, bind, since);
                return Ok((self.portals.unnamed.clone().expect("it was just looked at"), None));
            }
        } else {
            self.portals.check_room()?;
        }
        let mut portal = self.spare.pop().unwrap_or_else(|| Rc::new(Portal::new(statement.clone())));
        Rc::get_mut(&mut portal).expect("a spare portal has no other owner").set(statement, bind, since);
        let before = self.portals.put(bind.portal, Some(portal.clone()));
        if bind.portal.is_empty() {
            before.into_iter().for_each(|portal| self.reuse(portal));
            return Ok((portal, None));
        }
        Ok((portal, before))
    }

    /// A portal that was made where nobody saw it (DECLARE): something to hang a description on.
    pub fn adopt_portal(&mut self, name: &[u8]) -> Result<Rc<Portal<T>>, ProtocolError> {
        if let Some(portal) = self.portals.look(name) {
            return Ok(portal.clone());
        }
        self.portals.check_room()?;
        let portal = Rc::new(Portal::new(Self::unseen()));
        self.portals.put(name, Some(portal.clone()));
        Ok(portal)
    }

    /// As [`Self::restore_statement`].
    pub fn restore_portal(&mut self, name: &[u8], now: Option<&Rc<Portal<T>>>, before: Option<Rc<Portal<T>>>) {
        if same(self.portals.look(name), now) {
            let unseen = || Rc::new(Portal::new(Self::unseen()));
            self.portals.put(name, before.map(|before| if before.refused.get() { unseen() } else { before }));
        }
    }

    pub fn close_portal(&mut self, name: &[u8]) -> Option<Rc<Portal<T>>> {
        self.portals.put(name, None)
    }

    /// The transaction has ended, and portals live no longer than that.
    pub fn drop_named_portals(&mut self) {
        self.portals.clear_named();
    }

    /// A simple Query destroys the unnamed statement and the unnamed portal. Returns the statement, to be put back.
    pub fn drop_unnamed(&mut self) -> Option<Rc<Statement<T>>> {
        if let Some(portal) = self.portals.unnamed.take() {
            self.reuse(portal);
        }
        self.statements.unnamed.take()
    }

    /// Keeps a portal's buffers for the next Bind if nobody else holds it.
    pub fn reuse(&mut self, mut portal: Rc<Portal<T>>) {
        if self.spare.len() < SPARE_PORTALS_MAX
            && let Some(free) = Rc::get_mut(&mut portal)
        {
            free.statement = self.nothing.get_or_insert_with(|| Statement::new(None, false, 0)).clone();
            self.spare.push(portal);
        }
    }
}

fn same<V>(a: Option<&Rc<V>>, b: Option<&Rc<V>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Rc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}
