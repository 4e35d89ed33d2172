//! How old is what an entry of the manifest published? Its records say when the clock said they were made, and the clock may have been
//! wrong. What retention deletes is gone, so the youngest that it may be counts:
//!
//! - no record is older than the entry that published it, nor than the chain of checkpoints that vouches for it;
//! - where the clock went on by more than a day from one checkpoint to the next, it may have been behind by so much before that. (Or the
//!   archiver stood still, and nobody can say which: a day without a checkpoint makes nothing older.)

use super::checkpoint::{self, Checkpoint, Statement};
use super::lines::{self, Lines};
use super::manifest::invalid;
use super::publish::day;
use crate::audit::segment::at;
use std::io;
use std::path::Path;

const DAY_US: i64 = 86_400_000_000;

/// One file of checkpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Signed {
    /// As its name says, counted from 1970.
    day: i64,
    first_us: i64,
    last_us: i64,
}

/// By the numbers of entries: when at the latest they were made, by a clock that is right now.
#[derive(Debug)]
pub struct Ages {
    made_by_us: Vec<i64>,
    /// By how much the clock may have been behind by then.
    behind_us: Vec<i64>,
}

impl Ages {
    /// `entered_us`: times of all entries up to the last one that is signed, in their order.
    pub fn read(data_dir: &Path, entered_us: &[i64], now_us: i64) -> io::Result<Self> {
        Ok(Self::of(entered_us, &signed(data_dir)?, begun(data_dir)?, now_us))
    }

    /// `begun`: the entry that the first checkpoint of all names, and when it was written.
    fn of(entered_us: &[i64], signed: &[Signed], begun: (u64, i64), now_us: i64) -> Self {
        let files = files_of(entered_us, signed);
        let jumps_us = jumps_from(signed, &files, entered_us);
        let jumps_from = |file: usize| jumps_us.get(file).copied().unwrap_or(0);
        // Of a clock that is behind the day of its file, only the entries tell when it went on.
        let is_behind = |index: usize| {
            index as u64 >= begun.0
                && signed.get(files[index]).is_some_and(|file| day(entered_us[index]) + 1 < file.day)
        };
        let (mut behind_us, mut sum_us) = (vec![0; entered_us.len()], 0_i64);
        for index in (0..entered_us.len()).rev() {
            let next = index + 1;
            let went_us = entered_us.get(next).unwrap_or(&now_us).saturating_sub(entered_us[index]);
            let jump_us = if went_us < -DAY_US || (is_behind(index) && went_us > DAY_US) {
                went_us
            } else if is_behind(index) {
                0
            } else {
                jumps_from(files[index]) - files.get(next).map_or(0, |&file| jumps_from(file))
            };
            sum_us = sum_us.saturating_add(jump_us);
            behind_us[index] = sum_us.max(0);
        }
        let vouched = |(index, time_us): (usize, &i64)| match (index as u64) < begun.0 {
            true => (*time_us).max(begun.1),
            false => *time_us,
        };
        Self { made_by_us: entered_us.iter().enumerate().map(vouched).collect(), behind_us }
    }

    /// The latest moment at which records of this entry can have been made whose own time is this.
    pub fn made_by_us(&self, entry: u64, own_us: i64) -> i64 {
        let index = entry.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        let known = index.and_then(|index| Some((self.made_by_us.get(index)?, self.behind_us.get(index)?)));
        // Of an entry that is not there nothing is known, and nothing of it goes.
        known.map_or(i64::MAX, |(made_by_us, behind_us)| own_us.max(*made_by_us).saturating_add(*behind_us))
    }
}

/// By entry: the file in which it was signed. Days never go back, whatever the clock does: it is that of the latest day so far, or a
/// later one.
fn files_of(entered_us: &[i64], signed: &[Signed]) -> Vec<usize> {
    let mut latest = i64::MIN;
    let file = |time_us: &i64| {
        latest = latest.max(day(*time_us));
        signed.partition_point(|file| file.day < latest).min(signed.len().saturating_sub(1))
    };
    entered_us.iter().map(file).collect()
}

/// By file: how far the clock went on in jumps from it on, less what it was set back by.
fn jumps_from(signed: &[Signed], files: &[usize], entered_us: &[i64]) -> Vec<i64> {
    // Where the clock was set back within a file, its entries tell to when. (If the first of them is from before that, the step from it
    // to the next one tells of it as well, and counts.)
    let is_set_back = |file: &Signed| file.last_us < file.first_us - DAY_US;
    let begins = |file: &Signed| if is_set_back(file) { file.last_us } else { file.first_us };
    let mut from_us: Vec<i64> = signed.iter().map(begins).collect();
    let mut counted = vec![false; signed.len()];
    for (&index, &time_us) in files.iter().zip(entered_us) {
        let Some(file) = signed.get(index).filter(|file| is_set_back(file) && !counted[index]) else { continue };
        counted[index] = day(time_us) + 1 >= file.day;
        from_us[index] = if counted[index] { file.first_us } else { from_us[index].min(time_us) };
    }
    let mut jumps_us = vec![0_i64; signed.len()];
    for index in (0..signed.len().saturating_sub(1)).rev() {
        let went_us = from_us[index + 1].saturating_sub(signed[index].last_us);
        let jump_us = if went_us.saturating_abs() > DAY_US { went_us } else { 0 };
        jumps_us[index] = jumps_us[index + 1].saturating_add(jump_us);
    }
    jumps_us
}

fn signed(data_dir: &Path) -> io::Result<Vec<Signed>> {
    let mut signed = Vec::new();
    for path in checkpoint::files(data_dir)? {
        let holds = |line: &[u8]| {
            let line = Checkpoint::parse(line).ok().filter(|line| line.signature_holds);
            line.map(|line| line.time_us).ok_or_else(|| at(&path, invalid("its first or last line does not hold")))
        };
        let last = lines::tail(&path)?.line;
        let mut lines = Lines::open(&path)?;
        if let (Some(Ok(first)), false) = (lines.next_line()?, last.is_empty()) {
            signed.push(Signed { day: checkpoint::days_of(&path), first_us: holds(first)?, last_us: holds(&last)? });
        }
    }
    Ok(signed)
}

/// The entry that the first checkpoint names, and when.
fn begun(data_dir: &Path) -> io::Result<(u64, i64)> {
    for path in checkpoint::files(data_dir)? {
        let mut lines = Lines::open(&path)?;
        while let Some(Ok(line)) = lines.next_line()? {
            let line = Checkpoint::parse(line).map_err(|broken| at(&path, invalid(&broken.to_string())))?;
            if let Statement::Checkpoint { manifest, .. } = line.statement {
                return Ok((manifest.number, line.time_us));
            }
        }
    }
    Ok((0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_0: i64 = 20_000;

    /// Days, as fractions of them, counted from some midnight.
    fn time(days: f64) -> i64 {
        DAY_0 * DAY_US + (days * DAY_US as f64) as i64
    }

    /// Files by day, first and last line; entries; the first checkpoint; now. Then how many days later than it says each entry may
    /// have been made.
    fn check(files: &[(i64, f64, f64)], entries: &[f64], begun: (u64, f64), now: f64, later: &[f64]) {
        let signed: Vec<Signed> = files
            .iter()
            .map(|&(day, first, last)| Signed { day: DAY_0 + day, first_us: time(first), last_us: time(last) })
            .collect();
        let entered: Vec<i64> = entries.iter().map(|&days| time(days)).collect();
        let ages = Ages::of(&entered, &signed, (begun.0, time(begun.1)), time(now));
        let found: Vec<f64> = (1..)
            .zip(&entered)
            .map(|(number, &own_us)| {
                ((ages.made_by_us(number, own_us) - own_us) as f64 / DAY_US as f64 * 100.0).round() / 100.0
            })
            .collect();
        assert_eq!(found, later, "{files:?} {entries:?}");
    }

    fn daily(days: std::ops::Range<i64>) -> Vec<(i64, f64, f64)> {
        days.map(|day| (day, day as f64, day as f64 + 0.99)).collect()
    }

    #[test]
    fn a_clock_that_went_steadily_is_believed_and_so_is_a_quiet_trail() {
        check(&daily(0..10), &[0.5, 1.5, 9.5], (0, 0.0), 9.99, &[0.0; 3]);
    }

    #[test]
    fn days_without_a_checkpoint_make_nothing_older() {
        let files = [daily(0..3), daily(40..43)].concat();
        check(&files, &[0.5, 2.5, 40.5], (0, 0.0), 42.99, &[37.01, 37.01, 0.0]);
    }

    #[test]
    fn what_was_recorded_while_the_clock_was_behind_is_as_young_as_it_may_be() {
        // From its first start on, and within a day that had begun.
        check(&[(0, 0.5, 0.6), (2000, 2000.0, 2000.9)], &[0.55, 2000.5], (0, 0.5), 2000.9, &[1999.4, 0.0]);
        let files = [daily(2000..2003)].concat();
        check(&files, &[2001.1, 3.5, 2001.6, 2002.5], (0, 2000.0), 2002.9, &[0.5, 1998.1, 0.0, 0.0]);
        // In a trail that had been quiet for days.
        check(&daily(1990..2003), &[1991.1, 3.5, 2001.6], (0, 1990.0), 2002.9, &[10.5, 1998.1, 0.0]);
        // It was behind at the end of that day.
        let files = [(2000, 2000.0, 3.5), (2001, 2001.0, 2001.9)];
        check(&files, &[3.4, 2001.5], (0, 2000.0), 2001.9, &[1998.1, 0.0]);
    }

    #[test]
    fn a_clock_that_was_ahead_and_set_right_keeps_nothing_for_ever() {
        // All that follows stands in the file of that day.
        let files = [(0, 0.0, 0.9), (9000, 9000.0, 5.5)];
        check(&files, &[0.5, 1.5, 2.4, 5.2], (0, 0.0), 5.6, &[2.8, 2.8, 2.8, 0.0]);
    }

    #[test]
    fn what_was_recorded_while_the_clock_was_ahead_hides_no_later_jump() {
        let files = [(0, 0.0, 0.9), (9000, 9000.0, 45.6)];
        check(&files, &[0.5, 9000.2, 1.5, 45.2], (0, 0.0), 45.6, &[44.1, 0.0, 43.7, 0.0]);
    }

    #[test]
    fn entries_that_a_young_chain_vouches_for_are_no_older_than_it_is() {
        check(&daily(100..103), &[0.5, 1.5, 101.5], (2, 100.0), 102.9, &[99.5, 98.5, 0.0]);
        let none = Ages::of(&[], &[], (0, 0), 0);
        assert_eq!(none.made_by_us(1, 0), i64::MAX, "of what is not there nothing is known");
    }
}
