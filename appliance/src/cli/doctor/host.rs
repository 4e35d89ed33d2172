//! The host: kernel, limits, clock. Everything is read from /proc and /sys, or tried.

use super::Finding;
use crate::shard;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Locked memory that one shard's executor wants.
const LOCKED_BYTES_PER_SHARD: u64 = 512 << 10;
/// A client and a target; the rest of the process needs a few more.
const FILES_PER_SESSION: u64 = 2;
const FILES_RESERVED: u64 = 256;
/// A production gateway should have room for as many.
const SESSIONS_WANTED: u64 = 1000;

pub fn examine(shards: Option<usize>) -> Vec<Finding> {
    let shards = shards.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let limits = read("/proc/self/limits");
    let probed = shard::probe();
    let ring_works = probed.iter().all(|finding| finding.ok || !finding.name.starts_with("io_uring"));
    let mut findings = vec![kernel(read("/proc/sys/kernel/osrelease").trim())];
    findings.extend(probed.into_iter().map(|found| match found.ok {
        true => Finding::ok(found.name, found.detail),
        false => Finding::fail(found.name, found.detail, found.mend),
    }));
    findings.push(seccomp(&read("/proc/self/status"), ring_works));
    findings.push(locked_memory(limit(&limits, "Max locked memory"), shards as u64));
    findings.push(open_files(limit(&limits, "Max open files")));
    findings.push(clock_set());
    findings.push(clock_source(read("/sys/devices/system/clocksource/clocksource0/current_clocksource").trim()));
    findings
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

/// A filter alone is no fault: containers have one. It matters when the ring does not work.
fn seccomp(status: &str, ring_works: bool) -> Finding {
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
    match (mode, ring_works) {
        (Some("0"), _) => Finding::ok("seccomp", "no filter"),
        (Some(_), true) => Finding::ok("seccomp", "a filter is active, and it lets io_uring pass"),
        (Some(_), false) => Finding::fail(
            "seccomp",
            "a filter is active, and io_uring does not work",
            "run the container with deploy/seccomp.json (docker: --security-opt seccomp=deploy/seccomp.json)",
        ),
        (None, _) => Finding::warn("seccomp", "its state cannot be told: /proc is not readable", "mount /proc"),
    }
}

/// The soft limit of a row in /proc/self/limits; `None`: not there. Unlimited is the largest number.
fn limit(limits: &str, name: &str) -> Option<u64> {
    let row = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let soft = row.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

fn locked_memory(limit: Option<u64>, shards: u64) -> Finding {
    let wanted = shards * LOCKED_BYTES_PER_SHARD;
    let mend = "LimitMEMLOCK=infinity in the unit, --ulimit memlock=-1 for a container, or `ulimit -l unlimited`";
    match limit {
        None => Finding::warn("locked memory", "the limit cannot be told", mend),
        Some(u64::MAX) => Finding::ok("locked memory", "unlimited"),
        Some(limit) if limit >= wanted => Finding::ok(
            "locked memory",
            format!("{} KiB, {} KiB wanted for {shards} shards", limit >> 10, wanted >> 10),
        ),
        Some(limit) => Finding::fail(
            "locked memory",
            format!("{} KiB, but {} KiB wanted for {shards} shards", limit >> 10, wanted >> 10),
            mend,
        ),
    }
}

fn open_files(limit: Option<u64>) -> Finding {
    let mend = "LimitNOFILE=1048576 in the unit, --ulimit nofile=1048576 for a container, or `ulimit -n 1048576`";
    let Some(limit) = limit else { return Finding::warn("open files", "the limit cannot be told", mend) };
    let sessions = limit.saturating_sub(FILES_RESERVED) / FILES_PER_SESSION;
    let detail = format!("{limit}: room for about {sessions} sessions");
    match sessions {
        0..10 => Finding::fail("open files", detail, mend),
        10..SESSIONS_WANTED => Finding::warn("open files", detail, mend),
        _ if limit == u64::MAX => Finding::ok("open files", "unlimited"),
        _ => Finding::ok("open files", detail),
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
    use super::super::State;
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
    fn limits_are_read_from_their_row() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n\
                      Max locked memory         unlimited            unlimited            bytes     \n";
        assert_eq!(limit(limits, "Max open files"), Some(1024));
        assert_eq!(limit(limits, "Max locked memory"), Some(u64::MAX));
        assert_eq!(limit(limits, "Max nothing"), None);
        assert_eq!(open_files(Some(1024)).detail, "1024: room for about 384 sessions");
    }

    #[test]
    fn each_limit_has_its_threshold() {
        assert_eq!(locked_memory(Some(2 * LOCKED_BYTES_PER_SHARD), 2).state, State::Ok);
        assert_eq!(locked_memory(Some(2 * LOCKED_BYTES_PER_SHARD - 1), 2).state, State::Fail);
        assert_eq!(open_files(Some(FILES_RESERVED + 10)).state, State::Fail);
        assert_eq!(open_files(Some(4096)).state, State::Ok);
        assert_eq!(open_files(Some(u64::MAX)).detail, "unlimited");
    }

    #[test]
    fn a_filter_matters_when_the_ring_does_not_work() {
        assert_eq!(seccomp("Name:\tx\nSeccomp:\t2\n", true).state, State::Ok);
        assert_eq!(seccomp("Seccomp:\t2\nSeccomp_filters:\t1\n", false).state, State::Fail);
        assert_eq!(seccomp("Seccomp:\t0\n", false).state, State::Ok);
    }
}
