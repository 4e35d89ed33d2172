//! What is under way between the two ends. An idle session has none of it, and no room for it.

use super::Outcome;
use super::book::{Portal, Shape};
use super::compose::Edit;
use super::expect::{Counts, Definitions};
use super::lazy::Lent;
use super::session::{Columns, Stream};
use super::target::Told;
use std::collections::VecDeque;
use std::rc::Rc;

/// See the module's text. As it is made, nothing is under way.
pub(super) struct Work<T> {
    /// What an unanswered Execute asks to run.
    pub requested: Option<Rc<Portal<T>>>,
    /// Names given or taken by the SQL of the request that is being asked about.
    pub defining: Definitions<T>,
    pub client_stream: Stream,
    /// Outcomes to report before the message behind them moves.
    pub news: VecDeque<Outcome>,
    /// The target's message at the front was reported; what becomes of it at the next step.
    pub told: Option<Told>,
    /// Of the message at the front.
    pub edits: Vec<Edit>,
    /// Rows and copy data of the statement at the front.
    pub counts: Counts,
    /// Copy data from the client since the last outcome.
    pub copied: Counts,
    /// Shape of the simple query whose rows are passing.
    pub query_shape: Option<Box<Shape>>,
    /// Of the last description that was asked about.
    pub columns: Option<Box<Columns>>,
}

impl<T> Work<T> {
    const fn new() -> Self {
        Self {
            requested: None,
            defining: Definitions::new(),
            client_stream: Stream { left: 0, drop: false, keep: false },
            news: VecDeque::new(),
            told: None,
            edits: Vec::new(),
            counts: Counts::NONE,
            copied: Counts::NONE,
            query_shape: None,
            columns: None,
        }
    }
}

impl<T: 'static> Lent for Work<T> {
    const NOTHING: &'static Self = &Self::new();

    fn nothing() -> Self {
        Self::new()
    }

    /// It is as it was made, but for what only remembers.
    fn rest(&mut self) -> bool {
        let Self { requested, defining, client_stream, news, told, edits, counts, copied, query_shape: _, columns: _ } =
            self;
        requested.is_none()
            && defining.is_empty()
            && client_stream.left == 0
            && news.is_empty()
            && told.is_none()
            && edits.is_empty()
            && *counts == Counts::NONE
            && *copied == Counts::NONE
    }
}
