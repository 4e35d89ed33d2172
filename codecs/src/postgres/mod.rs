//! PostgreSQL, protocol 3.0 and 3.2 (manual, chapter 55 "Frontend/Backend Protocol").

mod auth;
mod binds;
mod book;
mod client;
mod compose;
mod error;
mod event;
mod expect;
mod frame;
mod kept;
mod lazy;
mod login;
mod results;
pub mod scram;
mod session;
mod startup;
mod target;
mod values;
mod work;

pub use binds::{BindValues, fair_share};
pub use error::ProtocolError;
pub use event::*;
pub use kept::Response;
pub use session::{Session, SessionLimits};
