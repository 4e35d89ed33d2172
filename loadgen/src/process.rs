//! CPU that a server's processes use, from /proc.

use crate::sys;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeSet, HashMap};
use std::fs;

/// A server: one process or several, each with its descendants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    pub roots: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Stat {
    parent: u32,
    /// Of children that have ended and were waited for, clock ticks.
    children_ticks: u64,
}

/// Reads what we need of `/proc/PID/stat`. The name in it may hold anything, so counting begins behind its last parenthesis.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat { parent: number(1)? as u32, children_ticks: number(13)? + number(14)? })
}

fn stats() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

impl Server {
    pub fn of_pid(pid: u32) -> Result<Server> {
        sys::process_cpu_ns(pid).with_context(|| format!("there is no process {pid} whose CPU time we may read"))?;
        Ok(Server { roots: vec![pid] })
    }

    /// The processes that listen on a TCP port of this machine; of parents and children the parents.
    pub fn listening_on(port: u16) -> Result<Server> {
        let mut inodes = BTreeSet::new();
        for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
            inodes.extend(
                fs::read_to_string(file).unwrap_or_default().lines().filter_map(|line| listening_inode(line, port)),
            );
        }
        ensure!(!inodes.is_empty(), "nothing listens on port {port} of this machine");
        let stats = stats();
        let holders: BTreeSet<u32> = stats.keys().copied().filter(|&pid| holds(pid, &inodes)).collect();
        let roots: Vec<u32> = holders.iter().copied().filter(|pid| !holders.contains(&stats[pid].parent)).collect();
        if roots.is_empty() {
            bail!("the process listening on port {port} cannot be seen: run as its user, or name it with --pid");
        }
        Ok(Server { roots })
    }

    /// CPU used so far by all its processes, those that have ended included. Live ones count to the nanosecond.
    pub fn cpu_ns(&self) -> Result<u64> {
        let stats = stats();
        let mut family: BTreeSet<u32> = self.roots.iter().copied().collect();
        // Children may have lower numbers than their parents: repeat until nothing is added.
        loop {
            let more: Vec<u32> = stats
                .iter()
                .filter(|(pid, stat)| !family.contains(pid) && family.contains(&stat.parent))
                .map(|(&pid, _)| pid)
                .collect();
            if more.is_empty() {
                break;
            }
            family.extend(more);
        }
        for root in &self.roots {
            ensure!(stats.contains_key(root), "process {root} has ended");
        }
        let tick_ns = 1_000_000_000 / sys::ticks_per_second();
        let of = |pid: &u32| {
            let live = sys::process_cpu_ns(*pid).unwrap_or(0);
            live + stats.get(pid).map_or(0, |stat| stat.children_ticks * tick_ns)
        };
        Ok(family.iter().map(of).sum())
    }
}

/// The inode of a listening socket (state 0A) on this port, from a line of /proc/net/tcp.
fn listening_inode(line: &str, port: u16) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local) = fields.get(1)?.rsplit_once(':')?;
    let matches = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == "0A";
    matches.then(|| fields.get(9)?.parse().ok()).flatten()
}

fn holds(pid: u32, inodes: &BTreeSet<u64>) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| {
        let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inode.is_some_and(|inode| inodes.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let line = "12 (a) (b) S 7 1 1 0 -1 4194560 1 2 3 4 50 60 70 80 20 0 1 0 100";
        let stat = parse_stat(line).expect("it is well formed");
        assert_eq!((stat.parent, stat.children_ticks), (7, 150));
    }

    #[test]
    fn whoever_listens_is_found_and_its_cpu_grows() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let server = Server::listening_on(listener.local_addr().expect("it is bound").port()).expect("we listen");
        assert_eq!(server.roots, [std::process::id()]);
        let before = server.cpu_ns().expect("we live");
        let mut sum = 0u64;
        while sys::now_ns() % 10_000_000 < 9_000_000 || sum < 1000 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(server.cpu_ns().expect("we live") > before);
    }
}
