//! Can this host run a shard: for `lockgate doctor`, and for `serve` before it starts one.

use super::ring::{Ring, RingSizes, socket};
use super::turn;
use crate::threads::run_apart;
use std::io;

/// One thing a shard needs of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub name: &'static str,
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty when all is well.
    pub mend: &'static str,
}

/// Tries what a shard does at its start and the operations it submits.
pub fn probe() -> Vec<Finding> {
    // On a thread of its own: a ring belongs to the thread that made it.
    match run_apart(try_ring) {
        Ok(missing) => vec![
            finding("io_uring", true, "SINGLE_ISSUER, DEFER_TASKRUN and provided buffers work".into(), ""),
            finding(
                "io_uring operations",
                missing.is_empty(),
                if missing.is_empty() { "all supported".into() } else { format!("missing: {}", missing.join(", ")) },
                "Linux 6.1 or later is needed",
            ),
            cores(),
        ],
        Err(error) => {
            let mend = "Linux 6.1 or later, kernel.io_uring_disabled=0, and in a container deploy/seccomp.json";
            vec![finding("io_uring", false, error.to_string(), mend), cores()]
        }
    }
}

/// The operations that are missing.
fn try_ring() -> io::Result<Vec<&'static str>> {
    let mut ring = Ring::new(RingSizes { entries: 8, buffers: 8, buffer_bytes: 4096 })?;
    ring.try_enter()?;
    Ok(ring.missing_operations())
}

fn cores() -> Finding {
    match run_apart(try_cores) {
        Ok(cores) => finding("cores", true, format!("{cores} usable"), ""),
        Err(error) => {
            let mend = "sched_getaffinity and sched_setaffinity must be permitted: in a container, deploy/seccomp.json";
            finding("cores", false, error.to_string(), mend)
        }
    }
}

/// How many there are. A shard is bound to one when it starts, whether it is to stay there or not.
fn try_cores() -> io::Result<usize> {
    let cores = socket::cores()?;
    turn::bind(&cores[..1])
        .map_err(|error| io::Error::other(format!("a thread cannot be bound to a core: {error}")))?;
    Ok(cores.len())
}

fn finding(name: &'static str, ok: bool, detail: String, mend: &'static str) -> Finding {
    Finding { name, ok, detail, mend: if ok { "" } else { mend } }
}
