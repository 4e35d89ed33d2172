//! `respond`: the canned server.

use super::args::RespondArgs;
use super::{Verdict, out};
use crate::respond::{self, Canned};
use anyhow::Result;

pub fn verb(args: &RespondArgs) -> Result<Verdict> {
    let canned = Canned {
        rows: args.rows,
        copy_rows: args.copy_rows,
        values: args.value.clone(),
        password: args.password.clone(),
        delay_ns: (args.delay * 1e9) as u64,
    };
    respond::serve(([127, 0, 0, 1], args.port).into(), &canned, |address| {
        // Whoever does not read it knows the port already.
        let _ = out::print(&format!("listening on {address}\n"));
    })?;
    Ok(Verdict::Yes)
}
