//! The host: kernel, limits, clock. Everything is read from /proc and /sys, or tried.

use super::{Finding, State};
use crate::config::Config;
use crate::limits::CONNECTIONS_MIN;
use crate::open_files::{self, RAISE};
use crate::{shard, threads};
use rustix::process::{Resource, getrlimit};
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// glommio makes no executor where the limit is lower, however many shards there are and whatever the process may lock.
const LOCKED_BYTES_MIN: u64 = 512 << 10;
/// What a shard locks with rings of their default size, where the kernel counts them (6.18 does): its ring and provided buffers 148 KiB,
/// glommio's three rings 48, their buffers 192. glommio does without the last, but takes them first. Counted for a user, not a process.
const LOCKED_BYTES_PER_SHARD: u64 = 388 << 10;
/// What exempts from counting.
const CAP_IPC_LOCK: u32 = 14;
/// A production gateway should have room for as many.
const SESSIONS_WANTED: usize = 1000;

/// `config`: the gateway's, if it is known.
pub fn examine(config: Option<&Config>) -> Vec<Finding> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let shards = config.map_or_else(cores, |config| config.server.shards);
    let mut findings = vec![kernel(read("/proc/sys/kernel/osrelease").trim())];
    findings.extend(of_shards(shards, threads::needed(shards, config)));
    findings.push(clock_set());
    findings.push(clock_source(read("/sys/devices/system/clocksource/clocksource0/current_clocksource").trim()));
    findings
}

/// What a gateway of so many shards and threads needs: `serve` does not start where one of these fails.
pub fn of_shards(shards: usize, threads: usize) -> Vec<Finding> {
    let processes = processes(threads, threads::try_to_start(threads));
    if processes.state == State::Fail {
        // The rest is tried on threads.
        return vec![processes];
    }
    let probed = shard::probe();
    let shard_runs = probed.iter().all(|finding| finding.ok);
    let mut findings: Vec<_> = probed.into_iter().map(finding).collect();
    let status = read("/proc/self/status");
    findings.push(processes);
    findings.push(seccomp(&status, shard_runs));
    findings.push(locked_memory(getrlimit(Resource::Memlock).current, shards, may_lock_any(&status)));
    findings.push(open_files(open_files::limit_raised(), shards));
    findings
}

fn finding(found: shard::Finding) -> Finding {
    match found.ok {
        true => Finding::ok(found.name, found.detail),
        false => Finding::fail(found.name, found.detail, found.mend),
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= (6, 1) => Finding::ok("kernel", format!("Linux {release}")),
        (Some(_), Some(_)) => Finding::fail(
            "kernel",
            format!("Linux {release} is too old"),
            "Linux 6.1 or later (Debian 12 has it) is needed",
        ),
        _ => Finding::warn("kernel", "its version cannot be told", "Linux 6.1 or later is needed"),
    }
}

/// A filter alone is no fault: containers have one. It matters when a shard cannot do what it does.
fn seccomp(status: &str, shard_runs: bool) -> Finding {
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
    match (mode, shard_runs) {
        (Some("0"), _) => Finding::ok("seccomp", "no filter"),
        (Some(_), true) => Finding::ok("seccomp", "a filter is active, and it lets a shard do what it does"),
        (Some(_), false) => Finding::fail(
            "seccomp",
            "a filter is active, and a shard cannot do what it does",
            "run the container with deploy/seccomp.json (docker: --security-opt seccomp=deploy/seccomp.json)",
        ),
        (None, _) => Finding::warn("seccomp", "its state cannot be told: /proc is not readable", "mount /proc"),
    }
}

/// `limit`: `None` is unlimited. `exempt`: only glommio asks for it.
fn locked_memory(limit: Option<u64>, shards: usize, exempt: bool) -> Finding {
    let mend = "LimitMEMLOCK=infinity in the unit, --ulimit memlock=-1 for a container, or `ulimit -l unlimited`";
    let check = "locked memory";
    let Some(limit) = limit else { return Finding::ok(check, "unlimited") };
    let counted = if exempt { 0 } else { shards as u64 * LOCKED_BYTES_PER_SHARD };
    let wanted = LOCKED_BYTES_MIN.max(counted);
    let detail = format!("{} KiB, {} KiB wanted for {}", limit >> 10, wanted >> 10, counted_shards(shards));
    match limit {
        _ if limit < LOCKED_BYTES_MIN => Finding::fail(check, detail, mend),
        _ if limit < wanted => Finding::warn(check, format!("{detail}: the last may not start"), mend),
        _ => Finding::ok(check, detail),
    }
}

/// To the kernel a thread is a process: they count together, for a user (`ulimit -u`) and for a control group.
fn processes(wanted: usize, tried: Result<(), (usize, io::Error)>) -> Finding {
    let check = "processes";
    match tried {
        Ok(()) => Finding::ok(check, format!("the {wanted} threads of the gateway can be started")),
        Err((started, error)) => Finding::fail(
            check,
            format!("{started} of the {wanted} threads of the gateway can be started: {error}"),
            threads::RAISE,
        ),
    }
}

fn counted_shards(shards: usize) -> String {
    format!("{shards} shard{}", if shards == 1 { "" } else { "s" })
}

/// By the effective capabilities in /proc/self/status.
fn may_lock_any(status: &str) -> bool {
    let row = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    row.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1)
}

/// `serve` raises the soft limit to the hard one, which is the `limit`.
fn open_files(limit: u64, shards: usize) -> Finding {
    let check = "open files";
    let sessions = open_files::connections(limit, shards);
    let detail = format!("{limit}: room for about {sessions} sessions");
    match sessions {
        _ if limit == u64::MAX => Finding::ok(check, "unlimited"),
        0..CONNECTIONS_MIN => {
            let needed = open_files::needed(CONNECTIONS_MIN, shards);
            Finding::fail(check, format!("{detail}, and {needed} is the least for {}", counted_shards(shards)), RAISE)
        }
        CONNECTIONS_MIN..SESSIONS_WANTED => Finding::warn(check, detail, RAISE),
        _ => Finding::ok(check, detail),
    }
}

/// Tokens and approvals expire by the wall clock, and the audit is read by it.
fn clock_set() -> Finding {
    /// Unix seconds of 2026-01-01: this program is younger.
    const BORN: u64 = 1_767_225_600;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let mend = "install and start systemd-timesyncd or chrony";
    if now < BORN {
        return Finding::fail("clock", "it shows a time before this program was built: no token can be valid", mend);
    }
    let keepers = [
        ("systemd-timesyncd", "/run/systemd/timesync/synchronized"),
        ("chrony", "/run/chrony/chronyd.pid"),
        ("ntpd", "/run/ntpd.pid"),
        ("ntpsec", "/run/ntpsec/ntpd.pid"),
    ];
    match keepers.iter().find(|(_, sign)| Path::new(sign).exists()) {
        Some((keeper, _)) => Finding::ok("clock", format!("kept by {keeper}")),
        None => Finding::warn(
            "clock",
            "nothing on this host is known to keep it right (a virtual machine's host may)",
            mend,
        ),
    }
}

/// The clock is read on every round of every shard: a slow source shows.
fn clock_source(name: &str) -> Finding {
    match name {
        "hpet" | "acpi_pm" | "jiffies" => Finding::warn(
            "clock source",
            format!("{name} is slow to read"),
            "boot with clocksource=tsc if the machine's is stable",
        ),
        "" => Finding::warn("clock source", "it cannot be told: /sys is not readable", "mount /sys"),
        _ => Finding::ok("clock source", name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_fail_and_odd_names_are_read() {
        for (release, state) in [
            ("6.1.0-18-amd64", State::Ok),
            ("6.18.44-custom", State::Ok),
            ("10.0", State::Ok),
            ("5.15.0-91-generic", State::Fail),
            ("6.0.19", State::Fail),
            ("", State::Warn),
        ] {
            assert_eq!(kernel(release).state, state, "{release}");
        }
    }

    #[test]
    fn each_limit_has_its_threshold() {
        let counted = 4 * LOCKED_BYTES_PER_SHARD;
        for (limit, shards, exempt, state) in [
            (LOCKED_BYTES_MIN - 1, 1, true, State::Fail),
            (LOCKED_BYTES_MIN - 1, 1, false, State::Fail),
            (LOCKED_BYTES_MIN, 1, false, State::Ok),
            (LOCKED_BYTES_MIN, 4, true, State::Ok),
            (counted - 1, 4, false, State::Warn),
            (counted, 4, false, State::Ok),
        ] {
            assert_eq!(locked_memory(Some(limit), shards, exempt).state, state, "{limit} {shards} {exempt}");
        }
        assert_eq!(locked_memory(None, 4, false).detail, "unlimited");
        assert!(may_lock_any("CapPrm:\t0\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_lock_any("CapEff:\t00000000a80425fb\n") && !may_lock_any(""));
        let least = open_files::needed(CONNECTIONS_MIN, 4);
        assert_eq!((open_files(least - 1, 4).state, open_files(least, 4).state), (State::Fail, State::Warn));
        assert!(open_files(60, 4).detail.contains(&format!("{least} is the least for 4 shards")));
        assert_eq!(open_files(1024, 2).detail, "1024: room for about 368 sessions");
        assert_eq!(open_files(4096, 4).state, State::Ok);
        assert_eq!(open_files(u64::MAX, 4).detail, "unlimited");
    }

    #[test]
    fn threads_that_cannot_be_started_are_counted() {
        assert_eq!(processes(20, Ok(())).state, State::Ok);
        let finding = processes(20, Err((7, io::Error::from_raw_os_error(11))));
        assert_eq!((finding.state, finding.mend.as_str()), (State::Fail, threads::RAISE));
        assert!(finding.detail.starts_with("7 of the 20 threads"), "{}", finding.detail);
    }

    #[test]
    fn a_filter_matters_when_a_shard_cannot_run() {
        assert_eq!(seccomp("Name:\tx\nSeccomp:\t2\n", true).state, State::Ok);
        assert_eq!(seccomp("Seccomp:\t2\nSeccomp_filters:\t1\n", false).state, State::Fail);
        assert_eq!(seccomp("Seccomp:\t0\n", false).state, State::Ok);
    }
}
