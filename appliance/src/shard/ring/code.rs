//! The program's own code in memory: what a start alone has use for need not stay there.

use rustix::mm::{Advice, madvise};
use std::fs;

/// Takes the pages of our code and constants out of this process. Those that are needed again come back from the page cache, each (with
/// its neighbours) for a fault of a microsecond or two. A start and logins (configuration, certificates, schemas, tokens) touch most of
/// the program, statements little of it, and what was touched once would count as this process's memory for ever. Where `/proc` is not
/// there, nothing is done.
pub fn let_go_of_code() {
    let (Ok(mappings), Ok(program)) = (fs::read("/proc/self/smaps"), fs::read_link("/proc/self/exe")) else { return };
    for (start, end) in as_in_file(&String::from_utf8_lossy(&mappings), &program.to_string_lossy()) {
        // SAFETY: a private mapping of our own file that nobody may write to, and none of its pages differs from the file: whoever reads
        // or runs what is there next finds what was there.
        let _ = unsafe { madvise(start as *mut _, end - start, Advice::LinuxDontNeed) };
    }
}

/// Where the constants and the code of `program` lie, if they are as they are in the file. What the loader has relocated lies behind the
/// code, is read-only as well, and differs: it is left alone.
fn as_in_file(smaps: &str, program: &str) -> Vec<(usize, usize)> {
    let (mut found, mut here, mut is_code) = (Vec::new(), None, false);
    for line in smaps.lines() {
        if let Some((range, rights, path)) = mapping(line) {
            if is_code {
                break;
            }
            let is_ours = path == program && matches!(rights, "r-xp" | "r--p");
            (here, is_code) = (is_ours.then_some(range), is_ours && rights == "r-xp");
        } else if let Some(differs) = line.strip_prefix("Anonymous:") {
            here.take_if(|_| differs.trim() != "0 kB");
        } else if let Some(differs) = line.strip_prefix("Swap:") {
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

    /// Of a mapping: its first line, KiB that differ, KiB of those that were swapped out.
    fn smaps(mappings: &[(&str, u32, u32)]) -> String {
        let entry = |(first, differ, swapped): &(&str, u32, u32)| {
            format!(
                "{first}\nRss: 4 kB\nAnonymous: {differ:>8} kB\nSwap: {swapped:>8} kB\nSwapPss: 0 kB\nVmFlags: rd mr me\n"
            )
        };
        mappings.iter().map(entry).collect()
    }

    const CONSTANTS: &str = "55d0c0000000-55d0c05d3000 r--p 00000000 fe:00 1012        /opt/lock gate";
    const CODE: &str = "55d0c05d3000-55d0c1547000 r-xp 005d2000 fe:00 1012        /opt/lock gate";
    const RELOCATED: &str = "55d0c1547000-55d0c15cf000 r--p 01545000 fe:00 1012        /opt/lock gate";
    const DATA: &str = "55d0c15cf000-55d0c15d5000 rw-p 015cc000 fe:00 1012        /opt/lock gate";
    const LIBRARY: &str = "7f2000000000-7f2000100000 r-xp 00000000 fe:00 77        /usr/lib/libc.so.6";

    #[test]
    fn only_what_is_as_in_the_file_is_let_go() {
        let let_go = |mappings: &[(&str, u32, u32)]| as_in_file(&smaps(mappings), "/opt/lock gate");
        let (constants, code) = ((0x55d0_c000_0000, 0x55d0_c05d_3000), (0x55d0_c05d_3000, 0x55d0_c154_7000));
        // What was relocated may be swapped out, all of it, and show nowhere else.
        let all = [(CONSTANTS, 0, 0), (CODE, 0, 0), (RELOCATED, 0, 0), (DATA, 0, 0), (LIBRARY, 0, 0)];
        assert_eq!(let_go(&all), [constants, code]);
        // A debugger's breakpoint.
        assert_eq!(let_go(&[(CONSTANTS, 0, 0), (CODE, 4, 0), (RELOCATED, 0, 544)]), [constants]);
        assert_eq!(let_go(&[(CONSTANTS, 0, 4), (CODE, 0, 0)]), [code]);
        assert_eq!(as_in_file(&smaps(&all), "/opt/lock"), []);
    }

    #[test]
    fn code_that_was_let_go_is_out_of_memory_and_comes_back() {
        let resident_kib = || {
            let status = fs::read_to_string("/proc/self/status").expect("/proc is there");
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("a line of that name");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB")
        };
        let before = resident_kib();
        let_go_of_code();
        let after = resident_kib();
        assert!(after < before, "{after} KiB of {before} are left");
        // What was read and run before reads and runs as it did.
        assert_eq!(as_in_file(&smaps(&[(CODE, 0, 0)]), "/opt/lock gate").len(), 1);
    }
}
