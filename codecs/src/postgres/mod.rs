//! PostgreSQL, protocol 3.0 and 3.2 (manual, chapter 55 "Frontend/Backend Protocol").

mod event;
mod session;

pub use event::*;
pub use session::{BindValues, ProtocolError, Session, SessionLimits};
