//! What a session has only while it is needed: an idle session is small.

use std::ops::{Deref, DerefMut};

pub(super) trait Lent: Sized + 'static {
    const NOTHING: &'static Self;

    /// The same, to be changed.
    fn nothing() -> Self;

    /// Gives back the room that only work needs. Is nothing else of it needed any more?
    fn rest(&mut self) -> bool;
}

/// Made when it is first changed: who only looks finds that there is nothing.
#[derive(Debug)]
pub(super) struct Lazy<L>(Option<Box<L>>);

impl<L> Lazy<L> {
    pub const fn new() -> Self {
        Self(None)
    }
}

impl<L: Lent> Lazy<L> {
    /// To be changed where there is something: nothing is made for whoever only takes away.
    #[inline]
    pub fn made(&mut self) -> Option<&mut L> {
        self.0.as_deref_mut()
    }

    /// Nothing is under way.
    pub fn rest(&mut self) {
        self.0.take_if(|lent| lent.rest());
    }
}

impl<L: Lent> Deref for Lazy<L> {
    type Target = L;

    #[inline]
    fn deref(&self) -> &L {
        self.0.as_deref().unwrap_or(L::NOTHING)
    }
}

impl<L: Lent> DerefMut for Lazy<L> {
    #[inline]
    fn deref_mut(&mut self) -> &mut L {
        self.0.get_or_insert_with(|| Box::new(L::nothing()))
    }
}
