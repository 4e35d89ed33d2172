//! `respond`: the canned server.

use super::args::RespondArgs;
use super::{Verdict, demand, out};
use crate::respond::{self, Canned};
use anyhow::Result;

/// Every session that asks gets a copy.
const ANSWER_BYTES_MAX: u128 = 256_000_000;

pub fn verb(args: &RespondArgs) -> Result<Verdict> {
    let canned = Canned {
        rows: args.rows,
        copy_rows: args.copy_rows,
        values: args.value.clone(),
        password: args.password.clone(),
        delay_ns: (args.delay * 1e9) as u64,
    };
    let bytes = canned.answer_bytes();
    let small = bytes <= ANSWER_BYTES_MAX;
    demand(small, &format!("an answer of {bytes} bytes is too large; at most {ANSWER_BYTES_MAX} are allowed"))?;
    respond::serve(([127, 0, 0, 1], args.port).into(), &canned, |address| {
        // Whoever does not read it knows the port already.
        let _ = out::print(&format!("listening on {address}\n"));
    })?;
    Ok(Verdict::Yes)
}
