//! The program's own code in memory: what a start alone has use for need not stay there.

use rustix::mm::{Advice, madvise};
use std::fs;

/// Takes the pages of our code and constants out of this process. Those that are needed again come back from the page cache, each (with
/// its neighbours) for a fault of a microsecond or two. A start and logins (configuration, certificates, schemas, tokens) touch most of
/// the program, statements little of it, and what was touched once would count as this process's memory for ever. Where `/proc` is not
/// there, nothing is done.
pub fn let_go_of_code() {
    let (Ok(mappings), Ok(program)) = (fs::read_to_string("/proc/self/smaps"), fs::read_link("/proc/self/exe")) else {
        return;
    };
    for (start, end) in program.to_str().map(|program| as_in_file(&mappings, program)).unwrap_or_default() {
        // SAFETY: a private mapping of our own file that nobody may write to, and none of its pages differs from the file: whoever reads
        // or runs what is there next finds what was there.
        let _ = unsafe { madvise(start as *mut _, end - start, Advice::LinuxDontNeed) };
    }
}

/// Where the mappings of `program` lie that nobody may write to and that are as they are in the file. (What the loader has relocated is
/// read-only as well, and differs.)
fn as_in_file(smaps: &str, program: &str) -> Vec<(usize, usize)> {
    let (mut found, mut here) = (Vec::new(), None);
    for line in smaps.lines() {
        if let Some(mapping) = mapping(line) {
            let (range, rights, path) = mapping;
            here = (path == program && matches!(rights, "r-xp" | "r--p")).then_some(range);
        } else if let Some(differs) = line.strip_prefix("Anonymous:") {
            found.extend(here.take().filter(|_| differs.trim() == "0 kB"));
        }
    }
    found
}

/// The first line of a mapping, `start-end rights offset device inode path` (proc_pid_maps(5)): its range, rights and path.
fn mapping(line: &str) -> Option<((usize, usize), &str, &str)> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(((address(start)?, address(end)?), fields.next()?, fields.nth(3).unwrap_or_default().trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0c0000000-55d0c05d3000 r--p 00000000 fe:00 1012                     /opt/lock gate
Size:               5964 kB
Rss:                2648 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
55d0c05d3000-55d0c1547000 r-xp 005d2000 fe:00 1012                     /opt/lock gate
Anonymous:             0 kB
55d0c1547000-55d0c15cf000 r--p 01545000 fe:00 1012                     /opt/lock gate
Anonymous:           544 kB
55d0c15cf000-55d0c15d5000 rw-p 015cc000 fe:00 1012                     /opt/lock gate
Anonymous:             0 kB
7f1000000000-7f1000100000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
7f2000000000-7f2000100000 r-xp 00000000 fe:00 77                       /usr/lib/libc.so.6
Anonymous:             0 kB
7f3000000000-7f3000001000 r--s 00000000 fe:00 1012                     /opt/lock gate
Anonymous:             0 kB
";

    #[test]
    fn only_what_is_as_in_the_file_is_let_go() {
        let found = as_in_file(SMAPS, "/opt/lock gate");
        assert_eq!(found, [(0x55d0_c000_0000, 0x55d0_c05d_3000), (0x55d0_c05d_3000, 0x55d0_c154_7000)]);
        assert_eq!(as_in_file(SMAPS, "/opt/lock"), []);
    }

    #[test]
    fn code_that_was_let_go_is_out_of_memory_and_comes_back() {
        let resident_kib = || {
            let statm = fs::read_to_string("/proc/self/status").expect("/proc is there");
            let line = statm.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("a line of that name");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB")
        };
        let before = resident_kib();
        let_go_of_code();
        let after = resident_kib();
        assert!(after < before, "{after} KiB of {before} are left");
        // What was read and run before reads and runs as it did.
        assert_eq!(as_in_file(SMAPS, "/opt/lock gate").len(), 2);
    }
}
