//! Has the clock gone steadily? A clock that is wrong makes everything old at once, and what retention deletes is gone. The checkpoints
//! tell: one follows the other within a minute while an archiver is at work. Where more lies between two of them, the archiver stood still or
//! the clock was set, and nobody can say which. Within one process a second clock, which nobody sets, tells how far this one has strayed.
//!
//! ```text
//! ||||||||||||||||      ||||||||||||||||||||||||||||||||||    checkpoints
//! 8 h covered     16 h  24 h covered                          believed: a day is covered, and it strayed by less than one
//! ```

use super::checkpoint::files;
use super::lines::{self, LineBroken, Lines};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Instant;

/// So much has to be covered by checkpoints, and so far the clock may have strayed meanwhile.
const DAY_US: i64 = 86_400_000_000;
const HOUR_US: i64 = DAY_US / 24;
/// Between two checkpoints of an archiver that is at work: they come every minute when nothing happens, and later when it is busy or is
/// started again. What lies further apart covers nothing.
const APART_US_MAX: i64 = 300_000_000;
/// A rest of up to a day is a rest, if so much of it was covered right before: else a clock could be set a day ahead every second.
const COVERED_FOR_A_REST: i64 = 24;

/// What the checkpoints cover, up to the last one. Unix microseconds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Steady {
    /// The first checkpoint, as far as was looked.
    first_us: i64,
    last: Option<Last>,
    covered_us: i64,
    /// Of that, since the last rest.
    covered_since_rest_us: i64,
    /// Within the last day that was covered.
    strays: VecDeque<Stray>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Last {
    time_us: i64,
    /// When it was written, where that was in this process.
    at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stray {
    /// What was covered before it.
    covered_us: i64,
    by_us: i64,
    jump: Jump,
}

/// From one checkpoint to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Jump {
    pub from_us: i64,
    pub to_us: i64,
}

/// Why the clock is not believed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// It strayed by more than a day. The farthest of its jumps.
    Jump(Jump),
    /// All checkpoints there are cover less than a day: nobody knows what was before.
    Young { since_us: i64 },
}

impl Steady {
    /// By the checkpoints that are there, looking back to a day that is covered.
    pub fn read(data_dir: &Path) -> io::Result<Self> {
        let mut times = VecDeque::new();
        let mut steady = Self::default();
        for path in files(data_dir)?.into_iter().rev() {
            let mut earlier = Vec::new();
            each_time(&path, &mut |time_us| earlier.push(time_us))?;
            earlier.into_iter().rev().for_each(|time_us| times.push_front(time_us));
            steady = Self::of(times.iter().copied());
            if steady.covered_us >= DAY_US {
                break;
            }
        }
        Ok(steady)
    }

    fn of(times: impl IntoIterator<Item = i64>) -> Self {
        let mut steady = Self::default();
        times.into_iter().for_each(|time_us| steady.note(time_us, None));
        steady
    }

    /// A checkpoint is written. `at`: now, where it is in this process.
    pub fn note(&mut self, time_us: i64, at: Option<Instant>) {
        let Some(last) = self.last.replace(Last { time_us, at }) else {
            self.first_us = time_us;
            return;
        };
        let went_us = time_us.saturating_sub(last.time_us);
        let (covered_us, stray_us) = match last.at.zip(at) {
            Some((then, now)) => {
                let passed_us = now.saturating_duration_since(then).as_micros() as i64;
                (went_us.clamp(0, passed_us), went_us.saturating_sub(passed_us).saturating_abs())
            }
            None if (0..=APART_US_MAX).contains(&went_us) => (went_us, 0),
            None => (0, self.rest(went_us)),
        };
        self.covered_us += covered_us;
        self.covered_since_rest_us += covered_us;
        if stray_us > 0 {
            self.stray(stray_us, Jump { from_us: last.time_us, to_us: time_us });
        }
        while self.strays.front().is_some_and(|stray| self.covered_us - stray.covered_us >= DAY_US) {
            self.strays.pop_front();
        }
    }

    /// Nobody has seen what was between two checkpoints. How far the clock may have strayed there.
    fn rest(&mut self, went_us: i64) -> i64 {
        let believed_us = std::mem::take(&mut self.covered_since_rest_us).saturating_mul(COVERED_FOR_A_REST);
        match (0..=DAY_US).contains(&went_us) {
            true => (went_us - believed_us).max(0),
            false => went_us.saturating_abs(),
        }
    }

    /// Those of an hour are told as one: a clock that is drawn near the right time strays a little every second.
    fn stray(&mut self, by_us: i64, jump: Jump) {
        match self.strays.back_mut().filter(|last| self.covered_us - last.covered_us < HOUR_US) {
            Some(last) => {
                last.by_us = last.by_us.saturating_add(by_us);
                last.jump.to_us = jump.to_us;
            }
            None => self.strays.push_back(Stray { covered_us: self.covered_us, by_us, jump }),
        }
    }

    /// What stands against acting by this time of the clock. `None`: nothing does.
    pub fn doubt(&self, now_us: i64, at: Option<Instant>) -> Option<Doubt> {
        let mut now = self.clone();
        now.note(now_us, at);
        let strayed_us = now.strays.iter().fold(0_i64, |sum, stray| sum.saturating_add(stray.by_us));
        if strayed_us > DAY_US {
            return now.strays.iter().max_by_key(|stray| stray.by_us).map(|stray| Doubt::Jump(stray.jump));
        }
        (now.covered_us < DAY_US).then_some(Doubt::Young { since_us: now.first_us })
    }
}

/// The times of all lines of a file, in its order. Whoever asks has followed the chain to its end: these lines are its own.
fn each_time(path: &Path, visit: &mut dyn FnMut(i64)) -> io::Result<()> {
    let mut lines = Lines::open(path)?;
    while let Some(line) = lines.next_line()? {
        match line {
            Err(LineBroken::Unfinished) => break,
            line => {
                line.ok().and_then(|line| lines::member_time(line, b",\"time\":\"")).into_iter().for_each(&mut *visit)
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOON: i64 = 1_795_000_000_000_000;
    const MINUTE_US: i64 = 60_000_000;

    /// Hours from and to, in which there is a checkpoint a minute; and whether the clock is believed at the last one.
    fn check(covered: &[(i64, i64)], believed: bool) {
        let minutes = covered.iter().flat_map(|(from, to)| from * 60..=to * 60);
        let times: Vec<i64> = minutes.map(|minute| NOON + minute * MINUTE_US).collect();
        let steady = Steady::of(times.iter().copied());
        let last = *times.last().expect("a checkpoint");
        assert_eq!(steady.doubt(last, None).is_none(), believed, "{covered:?}: {:?}", steady.doubt(last, None));
    }

    #[test]
    fn a_clock_is_believed_that_has_gone_on_for_a_day_behind_its_last_jump() {
        check(&[(0, 0)], false);
        check(&[(0, 23)], false);
        check(&[(0, 24)], true);
        check(&[(0, 24), (9600, 9600)], false);
        check(&[(0, 24), (9600, 9623)], false);
        check(&[(0, 24), (9600, 9624)], true);
        // Set right again, which is a jump as well.
        check(&[(0, 24), (9600, 9600), (25, 48)], false);
        check(&[(0, 24), (9600, 9600), (25, 49)], true);
        check(&[(0, 24), (9600, 9600), (25, 49), (9625, 9625)], false);
        // Three checkpoints within a day are no day of checkpoints.
        check(&[(0, 0), (9600, 9600), (9612, 9612), (9624, 9624)], false);
    }

    #[test]
    fn a_rest_is_none_of_the_clock_and_steps_of_less_than_a_day_add_up() {
        // At work for eight hours a day, and for one.
        check(&[(0, 8), (24, 32), (48, 56)], true);
        check(&(0..25).map(|day| (day * 24, day * 24 + 1)).collect::<Vec<_>>(), true);
        check(&[(0, 24), (40, 40)], true);
        // A step of 23 hours as soon as the last one is signed.
        check(&[(0, 24), (47, 47), (70, 70)], true);
        check(&[(0, 24), (47, 47), (70, 70), (93, 93)], false);
        check(&[(0, 24), (47, 47), (70, 70), (93, 93), (116, 139)], false);
        check(&[(0, 24), (47, 47), (70, 70), (93, 93), (116, 140)], true);
    }

    #[test]
    fn within_a_process_every_step_is_seen_however_small() {
        let (begun, mut steady) = (Instant::now(), Steady::of((0..=1440).map(|minute| NOON + minute * MINUTE_US)));
        let now_us = NOON + DAY_US;
        assert_eq!(steady.doubt(now_us, Some(begun)), None);
        // A minute every second: from outside it looks like an archiver at rest.
        for second in 0..3600_i64 {
            steady.note(now_us + second * MINUTE_US, Some(begun + Duration::from_secs(second as u64)));
        }
        assert!(matches!(steady.doubt(now_us + 3600 * MINUTE_US, None), Some(Doubt::Jump(_))));
        assert!(steady.covered_us < DAY_US + HOUR_US + MINUTE_US && steady.strays.len() < 3, "{steady:?}");
        // One that was only kept from running has not strayed.
        let mut steady = Steady::of((0..=1440).map(|minute| NOON + minute * MINUTE_US));
        steady.note(now_us, Some(begun));
        assert_eq!(steady.doubt(now_us + 3 * DAY_US, Some(begun + Duration::from_secs(3 * 86_400))), None);
    }

    #[test]
    fn what_is_not_believed_is_named() {
        let mut steady = Steady::default();
        assert_eq!(steady.doubt(NOON, None), Some(Doubt::Young { since_us: NOON }), "nothing is known of it");
        for minute in 0..=1440 {
            steady.note(NOON + minute * MINUTE_US, None);
        }
        let last = NOON + DAY_US;
        assert_eq!(steady.doubt(last + DAY_US, None), None);
        let jump = Jump { from_us: last, to_us: last + 2 * DAY_US };
        assert_eq!(steady.doubt(jump.to_us, None), Some(Doubt::Jump(jump)));
        assert!(steady.doubt(NOON - DAY_US, None).is_some());
    }
}
