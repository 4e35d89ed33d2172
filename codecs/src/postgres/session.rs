//! One PostgreSQL connection, both directions, from the first byte to the last.

use super::{Answer, Column, Refusal, ScramKeys, Startup, Step, TargetLogin};
use crate::{Pipes, Side, Span};

/// What the wire did that no honest peer does. The connection closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    Placeholder,
}

/// Bounds the session enforces, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// A whole client message that must be decided (Query, Parse, Bind, FunctionCall).
    pub request_bytes_max: usize,
    /// A DataRow or CopyData with watched values, which must be whole before it passes.
    pub row_bytes_max: usize,
}

/// The automaton. `T` is the gate's own mark on a statement (kept with prepared names and portals).
pub struct Session<T> {
    _t: std::marker::PhantomData<T>,
}

impl<T: Clone> Session<T> {
    /// A session awaiting a client's first bytes. `encrypted`: TLS is already up (direct TLS).
    pub fn new(limits: SessionLimits, encrypted: bool) -> Self {
        let _ = (limits, encrypted);
        Self { _t: std::marker::PhantomData }
    }
    /// Looks at the undecided bytes of `from`: clears, skips, edits, until something must be said.
    pub fn step(&mut self, from: Side, pipes: &mut Pipes<'_>) -> Result<Step, ProtocolError> {
        let _ = (from, pipes);
        Ok(Step::NeedBytes)
    }
    /// The answer to the last question of `side`.
    pub fn answer(&mut self, side: Side, answer: Answer<T>, pipes: &mut Pipes<'_>) {
        let _ = (side, answer, pipes);
    }
    /// The client's TLS handshake is complete.
    pub fn client_secured(&mut self) {}
    /// The target is connected: queues SSLRequest or the start-up message.
    pub fn connect(&mut self, login: TargetLogin, pipes: &mut Pipes<'_>) {
        let _ = (login, pipes);
    }
    /// The target's TLS handshake is complete. `binding`: tls-server-end-point data (RFC 5929) for SCRAM-SHA-256-PLUS.
    pub fn target_secured(&mut self, binding: Option<Vec<u8>>, pipes: &mut Pipes<'_>) {
        let _ = (binding, pipes);
    }
    /// The target refused TLS and that is acceptable: go on in plaintext.
    pub fn target_plain(&mut self, pipes: &mut Pipes<'_>) {
        let _ = pipes;
    }
    /// Report (`true`) fields of errors, notices and notifications as [`super::Value`]s.
    pub fn watch_texts(&mut self, on: bool) {
        let _ = on;
    }
    /// The start-up message's contents, once `Event::Login` was reported.
    pub fn startup(&self) -> Option<&Startup> {
        None
    }
    /// The target's BackendKeyData, once the session is open: process id and secret.
    pub fn target_key(&self) -> Option<(i32, &[u8])> {
        None
    }
    /// The columns behind the last [`super::Event::Shape`].
    pub fn columns(&self) -> &[Column] {
        &[]
    }
    /// The mark of the statement the last Execute request, Shape or Value is about.
    pub fn executing(&self) -> Option<&T> {
        None
    }
    /// Bind values of the last Execute request: the raw parameter part of its Bind (see [`BindValues`]).
    pub fn binds(&self) -> BindValues<'_> {
        BindValues { raw: &[] }
    }
    /// The mark kept under a prepared statement's name, for SQL-level EXECUTE.
    pub fn prepared(&self, name: &[u8]) -> Option<&T> {
        let _ = name;
        None
    }
    /// SQL-level PREPARE was forwarded: `name` now stands for `tag`. A name that already exists becomes unknown.
    pub fn define(&mut self, name: &[u8], tag: T) {
        let _ = (name, tag);
    }
    /// SQL-level DEALLOCATE or DISCARD was forwarded. `None`: all names.
    pub fn forget(&mut self, name: Option<&[u8]>) {
        let _ = name;
    }
    /// Queues a NoticeResponse for the client at the next message boundary.
    pub fn notice(&mut self, notice: &Refusal, pipes: &mut Pipes<'_>) {
        let _ = (notice, pipes);
    }
    /// Ends the session with a FATAL error for the client, at the next message boundary where one can still be read.
    pub fn fail(&mut self, refusal: &Refusal, pipes: &mut Pipes<'_>) {
        let _ = (refusal, pipes);
    }
    /// No statement is running and no reply is outstanding.
    pub fn is_idle(&self) -> bool {
        true
    }
    /// Keys arrive through `answer(Side::Target, Answer::Keys(..))`; derives them (slow: never on a shard).
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
        let _ = (password, salt, iterations);
        ScramKeys { client_key: [0; 32], server_key: [0; 32] }
    }
}

/// Bind parameter formats and values, read lazily from the wire form.
#[derive(Clone, Copy, Debug)]
pub struct BindValues<'a> {
    pub raw: &'a [u8],
}

impl<'a> BindValues<'a> {
    /// Each value: `None` for NULL; `true` when in binary format.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&'a [u8]>, bool)> + 'a {
        let _ = Span::default();
        std::iter::empty()
    }
}
