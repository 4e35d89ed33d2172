//! CPU that a server's processes use, from /proc.

use crate::sys::{self, Address};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

/// A server whose processes end while they are counted is counted again that often.
const READINGS_MAX: usize = 5;

/// A server: one process or several, each with its descendants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    pub roots: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Stat {
    parent: u32,
    /// When it began, clock ticks: tells it from another that has its number later.
    began: u64,
    /// Of children that have ended and were waited for, clock ticks.
    children_ticks: u64,
}

/// Reads what we need of `/proc/PID/stat`. The name in it may hold anything, so counting begins behind its last parenthesis.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat { parent: number(1)? as u32, began: number(19)?, children_ticks: number(13)? + number(14)? })
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

    /// The processes that listen on an address of this machine; of parents and children the parents.
    pub fn listening_on(address: &Address) -> Result<Server> {
        let inodes = match address {
            Address::Inet(address) => tcp_listeners(*address)?,
            Address::Unix(path) => unix_listeners(path),
        };
        ensure!(!inodes.is_empty(), "nothing on this machine listens there");
        let stats = stats();
        let holders: BTreeSet<u32> = stats.keys().copied().filter(|&pid| holds(pid, &inodes)).collect();
        let roots: Vec<u32> = holders.iter().copied().filter(|pid| !holders.contains(&stats[pid].parent)).collect();
        if roots.is_empty() {
            bail!("the process that listens there cannot be seen: run as its user, or name it with --pid");
        }
        Ok(Server { roots })
    }

    /// What all its processes have used so far.
    pub fn reading(&self) -> Result<Reading> {
        // A process that ends between its parent's turn and its own would be in neither's number.
        for _ in 0..READINGS_MAX {
            if let Some(reading) = self.read_once()? {
                return Ok(reading);
            }
        }
        bail!("its processes end faster than they can be counted")
    }

    /// `None`: one of them ended meanwhile.
    fn read_once(&self) -> Result<Option<Reading>> {
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
        let mut reading = Reading { live_ns: BTreeMap::new(), ended_ns: 0 };
        for pid in family {
            let stat = stats[&pid];
            let Ok(live_ns) = sys::process_cpu_ns(pid) else { return Ok(None) };
            reading.live_ns.insert((pid, stat.began), live_ns);
            reading.ended_ns += stat.children_ticks * tick_ns;
        }
        Ok(Some(reading))
    }
}

/// What a server's processes had used at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Live ones, by number and beginning, to the nanosecond.
    live_ns: BTreeMap<(u32, u64), u64>,
    /// Those that have ended and were waited for, to the clock tick.
    ended_ns: u64,
}

impl Reading {
    /// CPU since an earlier reading. `None`: a process that was counted then is gone, and what it used is in nobody's number.
    pub fn since(&self, earlier: &Reading) -> Option<u64> {
        let gone_ns: u64 =
            earlier.live_ns.iter().filter(|(process, _)| !self.live_ns.contains_key(process)).map(|(_, ns)| ns).sum();
        let ended_ns = self.ended_ns.checked_sub(earlier.ended_ns).filter(|&ended_ns| ended_ns >= gone_ns)?;
        let live = |of: &Reading| of.live_ns.values().sum::<u64>();
        (live(self) + ended_ns).checked_sub(live(earlier))
    }
}

/// Inodes of the sockets a connection to this address ends at: those bound to it, else those bound to every address.
fn tcp_listeners(address: SocketAddr) -> Result<BTreeSet<u64>> {
    // Only what is an address of this machine can be bound to.
    ensure!(UdpSocket::bind((address.ip(), 0)).is_ok(), "{} is another machine", address.ip());
    let files = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let lines = files.iter().flat_map(|file| file.lines());
    let found: Vec<(IpAddr, u64)> = lines.filter_map(|line| listener(line, address.port())).collect();
    let of = |fits: &dyn Fn(&IpAddr) -> bool| -> BTreeSet<u64> {
        found.iter().filter(|(ip, _)| fits(ip)).map(|(_, inode)| *inode).collect()
    };
    let exact = of(&|ip| *ip == address.ip());
    Ok(if exact.is_empty() { of(&IpAddr::is_unspecified) } else { exact })
}

/// Address and inode of a listening socket (state 0A) on this port, from a line of /proc/net/tcp or tcp6.
fn listener(line: &str, port: u16) -> Option<(IpAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, local) = fields.get(1)?.rsplit_once(':')?;
    let matches = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == "0A";
    matches.then(|| Some((ip(address)?, fields.get(9)?.parse().ok()?))).flatten()
}

/// Words of four bytes, each as a number of this machine.
fn ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    if hex.len() == 8 {
        return Some(IpAddr::from(word(0)?));
    }
    let words = [word(0)?, word(8)?, word(16)?, word(24)?];
    let bytes: [u8; 16] = words.concat().try_into().ok()?;
    Some(IpAddr::from(bytes).to_canonical())
}

/// Inodes of the sockets that listen (flag 10000) on this path, from /proc/net/unix.
fn unix_listeners(path: &Path) -> BTreeSet<u64> {
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = *fields.get(3)? == "00010000" && Path::new(fields.get(7)?) == path;
        listens.then(|| fields.get(6)?.parse().ok()).flatten()
    };
    text.lines().filter_map(inode).collect()
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
        assert_eq!((stat.parent, stat.began, stat.children_ticks), (7, 100, 150));
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let line = "0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1";
        if cfg!(target_endian = "little") {
            assert_eq!(listener(line, 0x1538), Some((IpAddr::from([127, 0, 0, 1]), 4711)));
            let mapped = "0000000000000000FFFF00000100007F";
            assert_eq!(ip(mapped), Some(IpAddr::from([127, 0, 0, 1])), "IPv4 in IPv6");
        }
        assert_eq!(listener(line, 1), None);
        assert_eq!(listener(&line.replace(" 0A ", " 01 "), 0x1538), None, "a connection does not listen");
    }

    #[test]
    fn whoever_listens_on_a_path_is_found() {
        let path = std::env::temp_dir().join(format!("loadgen-listens-{}", std::process::id()));
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("nobody else has it");
        let server = Server::listening_on(&Address::Unix(path.clone())).expect("we listen");
        assert_eq!(server.roots, [std::process::id()]);
        std::fs::remove_file(path).expect("it is ours");
    }

    #[test]
    fn whoever_listens_is_found_and_its_cpu_grows() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let server = Server::listening_on(&Address::Inet(address)).expect("we listen");
        assert_eq!(server.roots, [std::process::id()]);
        // The same port elsewhere: on another address of this machine, and on a machine that is not this one (RFC 5737).
        for other in ["127.0.0.2", "192.0.2.1"] {
            let other = SocketAddr::new(other.parse().expect("it is an address"), address.port());
            assert!(Server::listening_on(&Address::Inet(other)).is_err(), "{other}");
        }
        let before = server.reading().expect("we live");
        let mut sum = 0u64;
        while sys::now_ns() % 10_000_000 < 9_000_000 || sum < 1000 {
            sum = std::hint::black_box(sum + 1);
        }
        let after = server.reading().expect("we live");
        assert!(after.since(&before).is_some_and(|cpu_ns| cpu_ns > 0), "{before:?} {after:?}");
    }

    #[test]
    fn what_a_process_used_that_is_gone_is_known_only_if_somebody_waited_for_it() {
        let reading = |live: &[(u32, u64)], ended_ns| Reading {
            live_ns: live.iter().map(|&(pid, ns)| ((pid, 1), ns)).collect(),
            ended_ns,
        };
        let before = reading(&[(1, 100), (2, 50)], 10);
        assert_eq!(reading(&[(1, 110), (2, 80)], 10).since(&before), Some(40));
        assert_eq!(reading(&[(1, 110), (2, 50), (3, 7)], 10).since(&before), Some(17), "a new one is counted whole");
        assert_eq!(reading(&[(1, 110)], 95).since(&before), Some(45), "waited for: 35 of it were its own");
        assert_eq!(reading(&[(1, 110)], 10).since(&before), None, "it has ended, and its parent has not noticed yet");
        let again = Reading { live_ns: [((1, 1), 110), ((2, 9), 60)].into(), ended_ns: 10 };
        assert_eq!(again.since(&before), None, "another process has its number");
    }
}
