//! What a session tells the gate and what the gate answers: the one vocabulary between them.

use crate::Span;
use std::rc::Rc;

/// What one call of [`Session::step`](super::Session::step) came to.
#[derive(Debug)]
pub enum Step {
    /// All whole messages of that side are dealt with; more bytes are needed.
    NeedBytes,
    /// News or a question. A question ([`Event::asks`]) is answered before that side is stepped again.
    Event(Event),
    /// This side waits: for an answer, for the target to log in, for a hold to end. Its bytes stay undecided.
    Held,
    /// Nothing more will be said on this connection: send what is queued, then close both ends.
    Closed,
}

/// One thing that happened. Spans point into the undecided part of the window of the side that was stepped.
#[derive(Debug)]
pub enum Event {
    /// The client asks for TLS (SSLRequest). Answer: [`Answer::Secure`]. After `Secure(true)` an `S` is queued and the
    /// caller must run the handshake for all later client bytes, then call `client_secured()`.
    Secure,
    /// The start-up message, complete. Answer: [`Answer::AskCredential`] or [`Answer::Refuse`].
    Login(Box<Startup>),
    /// A CancelRequest instead of a start-up message. No answer; the session is closed afterwards (no reply by protocol).
    Cancel { process: i32, secret: SmallKey },
    /// The token: client window span of the password, or of the bearer token of OAUTHBEARER.
    /// Answer: [`Answer::Admit`] (the client side is then held until the target has logged in), [`Answer::Refuse`], or
    /// [`Answer::Hold`] (the client is told that it is authenticated and reads notices; then, later, Admit or Refuse).
    Credential(Span),
    /// The target answered our SSLRequest. `true`: the caller runs the handshake, then calls `target_secured`.
    /// `false`: the caller decides whether to refuse or to go on (`target_plain()`).
    TargetSecure(bool),
    /// SCRAM towards the target needs keys (PBKDF2, off the shard). Answer: [`Answer::Keys`].
    DeriveKeys { salt: Vec<u8>, iterations: u32 },
    /// The target ended our login with an ErrorResponse. SQLSTATE for the audit. Answer: [`Answer::Refuse`].
    TargetRefused { sqlstate: [u8; 5] },
    /// The first ReadyForQuery is about to go to the client. No answer.
    Opened,
    /// A statement wants to run or to be prepared. Answer: [`Answer::Forward`], [`Answer::Refuse`] or [`Answer::Hold`]
    /// (then, later, Forward or Refuse).
    Request(Request),
    /// The columns of a coming result (or the result of Describe); see `columns()`. Answer: [`Answer::Watch`], or
    /// [`Answer::Hold`] while the catalogue is asked.
    Shape(ShapeKind),
    /// A statement ended; the message that says so is not cleared until the next step. No answer.
    Outcome(Outcome),
    /// A SET reported by ParameterStatus (client_encoding, standard_conforming_strings, ...). No answer.
    Setting { name: Span, value: Span },
    /// ReadyForQuery. No answer.
    Ready { status: TransactionStatus },
}

/// A cancel key: 4 bytes in protocol 3.0, up to 256 in 3.2.
pub type SmallKey = Vec<u8>;

/// ReadyForQuery's status byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TransactionStatus {
    #[default]
    Idle,
    InTransaction,
    Failed,
}

/// The client's start-up message.
#[derive(Clone, Debug, Default)]
pub struct Startup {
    pub minor: u16,
    pub user: String,
    pub database: String,
    pub application_name: String,
    /// `replication` was asked for with any true value.
    pub replication: bool,
    /// The client asked for SASL OAUTHBEARER (start-up option `_pq_.lockgate_auth=oauthbearer` or `options`
    /// containing `-c lockgate.auth=oauthbearer`, which is then removed from what the target sees).
    pub oauth: bool,
    /// Every other parameter, in order, to be forwarded.
    pub parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What the target needs to let us in.
pub struct TargetLogin {
    pub user: String,
    pub database: String,
    /// Password for md5, cleartext (only over TLS) or, through [`Event::DeriveKeys`], SCRAM.
    pub password: Rc<zeroize::Zeroizing<Vec<u8>>>,
    /// The weakest method we accept from the target.
    pub weakest: AuthMethod,
    /// Ask the target for TLS first.
    pub tls: bool,
    /// Client nonce material for SCRAM: random, fresh for this connection.
    pub nonce: [u8; 18],
    /// The key the client gets in BackendKeyData in place of the target's. `client_process` 0: the target's process id
    /// is kept and only the secret is ours, for clients that look their backend up by PQbackendPID (isolationtester).
    pub client_process: i32,
    pub client_secret: SmallKey,
}

/// How the target may authenticate us, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AuthMethod {
    Trust,
    Cleartext,
    Md5,
    ScramSha256,
}

/// SCRAM-SHA-256 keys derived from password, salt and iterations (RFC 5802, section 3).
#[derive(Clone)]
pub struct ScramKeys {
    pub client_key: [u8; 32],
    pub server_key: [u8; 32],
}

/// A statement that wants to pass.
#[derive(Debug)]
pub struct Request {
    pub kind: RequestKind,
    /// Query, Parse: the statement's text without its terminating NUL, in the client window. Execute: the portal's name. FunctionCall: its
    /// values, as [`BindValues`] reads them.
    pub text: Span,
    /// An Execute before it in the same pipeline may have changed settings on which it hangs how the text is read, and the target will
    /// not tell before the next Sync.
    pub settings_in_doubt: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestKind {
    /// Simple protocol: runs now.
    Query,
    /// Extended protocol: only prepared. What the gate answers in `Forward { tag }` is found again at Execute.
    Parse,
    /// Extended protocol: the portal's statement runs. `session.requested()` and `session.binds()` tell of it.
    /// `resumed`: this portal was suspended by a row limit and continues (not a new statement).
    Execute { resumed: bool },
    /// A FunctionCall message (deprecated fast path). `function` is its OID.
    FunctionCall { function: u32 },
}

/// What the columns belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShapeKind {
    /// RowDescription of a simple query, or of a described portal or statement. The plan is kept with the statement.
    Rows,
    /// CopyOutResponse: each CopyData payload becomes a Value with column `u16::MAX`.
    CopyOut { binary: bool },
}

/// One column of a RowDescription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Vec<u8>,
    /// 0 when the column is not a plain column of a table.
    pub table_oid: u32,
    /// 0 likewise.
    pub attribute: i16,
    pub type_oid: u32,
}

/// One byte a column: 0 passes, anything else is watched and comes back in [`ValueSource`].
pub type ColumnPlan = Rc<[u8]>;

/// Looks at watched values before the message they stand in moves.
pub trait Watch<T> {
    /// One value of `message`, which is there as a whole; the value may be edited in place, at its length. `mark`: of the
    /// statement that the message answers.
    fn value(&mut self, value: Value, message: &mut [u8], mark: Option<&T>) -> ValueAnswer;
}

/// A watched value: a cell of a watched column, a CopyData payload of a watched COPY, or a field of a watched text. NULLs are
/// not shown. The span counts from the message's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Value {
    pub source: ValueSource,
    pub span: Span,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueSource {
    /// A cell: the plan's code, the column's number and type, and whether it is in binary format.
    Cell { code: u8, column: u16, type_oid: u32, binary: bool },
    /// A CopyData payload of a watched COPY.
    Copy { code: u8, binary: bool },
    /// A field of ErrorResponse or NoticeResponse (its code: `M`, `D`, `H`, ...), or a NotificationResponse payload (`A`).
    Text { field: u8 },
}

/// What becomes of a watched value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ValueAnswer {
    /// As it now stands in the window (untouched, or overwritten in place).
    Keep,
    /// SQL NULL instead (cells only; a Text or Copy value is emptied).
    Null,
    /// Other bytes instead.
    Replace(Vec<u8>),
}

/// How a statement ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The id given in [`Answer::Forward`].
    pub id: u64,
    pub end: End,
    /// DataRow and CopyData messages passed for this statement, and their payload bytes, in either direction.
    pub messages: u64,
    pub bytes: u64,
    /// Of these messages, those that were sent to the client.
    pub sent: u64,
    /// No further outcome will carry this id (a simple Query may hold several statements).
    pub last: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// CommandComplete; rows from its tag (`INSERT 0 5` -> 5), `None` where the tag has no count.
    Complete { rows: Option<u64> },
    /// EmptyQueryResponse.
    Empty,
    /// PortalSuspended.
    Suspended,
    /// ErrorResponse.
    Error { sqlstate: [u8; 5] },
    /// Never ran: an error before it in the pipeline, or the connection ended first.
    Skipped,
}

/// The gate's word on the last question of a side.
pub enum Answer<T> {
    /// To [`Event::Secure`].
    Secure(bool),
    /// To [`Event::Login`].
    AskCredential,
    /// To [`Event::Credential`]. The target is being connected; `connect` comes next.
    Admit,
    /// To [`Event::DeriveKeys`].
    Keys(ScramKeys),
    /// To [`Event::Request`].
    Forward {
        /// Comes back in the [`Outcome`]. Unused for Parse.
        id: u64,
        /// Parse: kept with the statement's name. Query: given back by `executing()` while its results pass.
        tag: T,
        /// Parse: ask the target for the statement's shape (an inserted Describe whose reply the client never sees),
        /// so that rows are masked although the client never describes.
        /// Execute: the same for its portal, for what can return other columns each time it runs (FETCH, EXECUTE, CALL)
        /// and for portals nobody saw bound.
        describe: bool,
    },
    /// To Login, Credential, TargetRefused: the connection ends with this FATAL error. To Request: this ERROR, in order.
    Refuse(Refusal),
    /// To Request or Shape: decided later. The bytes stay. To Credential: the token is believed and wiped, the rest is
    /// decided later.
    Hold,
    /// To [`Event::Shape`]: which columns to show to the [`Watch`]. `None`: none.
    Watch(Option<ColumnPlan>),
}

/// What the user reads when something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub sqlstate: [u8; 5],
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}
