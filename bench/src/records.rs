//! The two records of a statement as pgbench makes them, for benches that write the trail without a gate.

use lockgate::audit::{Outcome, Request, Who};
use std::sync::LazyLock;

pub const TEXT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 90449;";

/// As the live path has them: by the names that the text has.
static TABLES: LazyLock<Vec<String>> = LazyLock::new(|| vec!["pgbench_accounts".into()]);
/// A description of one column and a row, as the client saw them.
const RESPONSE: [u8; 60] = [b'r'; 60];

pub const WHO: Who<'static> = Who {
    session: "0505050505050505",
    user: "bench@example.com",
    groups: &[],
    actor: &[],
    target: "postgres",
    client: "127.0.0.1:50000",
    application: "pgbench",
    claimed_user: "bench",
    packed: None,
};

pub fn request(request: u64) -> Request<'static> {
    Request {
        request,
        statement: TEXT.as_bytes(),
        statement_bytes: TEXT.len() as u64,
        binds: &[Some("90449")],
        classes: 1,
        tables: &TABLES,
        decision: "allow",
        rule: "",
        ticket: "",
    }
}

/// With its response.
pub fn outcome(request: u64) -> Outcome<'static> {
    Outcome {
        request,
        rows: 1,
        bytes: 60,
        duration_us: 120,
        error: "",
        masked: 0,
        more: false,
        payload: &RESPONSE,
        payload_cut: false,
    }
}
