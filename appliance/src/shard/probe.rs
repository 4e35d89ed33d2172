//! Can this host run a shard: for `lockgate doctor`.

use super::ring::{Ring, RingSizes, socket};

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
    let sizes = RingSizes { entries: 8, buffers: 8, buffer_bytes: 4096 };
    // On a thread of its own: a ring belongs to the thread that made it.
    let ring = std::thread::spawn(move || Ring::new(sizes).map(|ring| ring.missing_operations())).join();
    match ring {
        Ok(Ok(missing)) => vec![
            finding("io_uring", true, "SINGLE_ISSUER, DEFER_TASKRUN and provided buffers work".into(), ""),
            finding(
                "io_uring operations",
                missing.is_empty(),
                if missing.is_empty() { "all supported".into() } else { format!("missing: {}", missing.join(", ")) },
                "Linux 6.1 or later is needed",
            ),
            cores(),
        ],
        Ok(Err(error)) => {
            let mend = "Linux 6.1 or later, kernel.io_uring_disabled=0, and in a container deploy/seccomp.json";
            vec![finding("io_uring", false, error.to_string(), mend), cores()]
        }
        Err(_) => vec![finding("io_uring", false, "the probe ended abnormally".into(), "report this"), cores()],
    }
}

fn cores() -> Finding {
    match socket::cores() {
        Ok(cores) => finding("cores", true, format!("{} usable", cores.len()), ""),
        Err(error) => finding("cores", false, error.to_string(), "sched_getaffinity must be permitted"),
    }
}

fn finding(name: &'static str, ok: bool, detail: String, mend: &'static str) -> Finding {
    Finding { name, ok, detail, mend: if ok { "" } else { mend } }
}
