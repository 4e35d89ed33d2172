//! Has the clock gone steadily? A clock that jumped ahead makes everything old at once, and what retention deletes is gone. The checkpoints
//! tell: one follows the other within a minute while an archiver is at work, so that two which follow each other by more than a day mean
//! that it stood still or that the clock was set, and from one alone nobody can say which.

use super::checkpoint::files;
use super::lines::{self, LineBroken, Lines};
use std::io;
use std::path::Path;

/// So far the clock may be from the last checkpoint, and so long it has to have gone on behind a jump.
const DAY_US: i64 = 86_400_000_000;

/// The checkpoints that follow each other without a jump, up to the last one. Unix microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Steady {
    run: Option<Run>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    first_us: i64,
    last_us: i64,
    /// What precedes it is more than a day away from it; `None`: as far as was looked, nothing does.
    before_us: Option<i64>,
}

/// Why the clock is not believed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Jump {
    pub from_us: i64,
    pub to_us: i64,
}

impl Steady {
    /// By the checkpoints that are there, looking back a day.
    pub fn read(data_dir: &Path) -> io::Result<Self> {
        let mut steady = Self::default();
        for path in files(data_dir)?.into_iter().rev() {
            let mut earlier = Self::default();
            each_time(&path, &mut |time_us| earlier.note(time_us))?;
            steady = steady.behind(earlier);
            if steady.run.is_some_and(|run| run.before_us.is_some() || run.last_us - run.first_us >= DAY_US) {
                break;
            }
        }
        Ok(steady)
    }

    /// A checkpoint is written.
    pub fn note(&mut self, time_us: i64) {
        self.run = Some(match self.run {
            None => Run { first_us: time_us, last_us: time_us, before_us: None },
            Some(run) if is_near(run.last_us, time_us) => Run { last_us: time_us, ..run },
            Some(run) => Run { first_us: time_us, last_us: time_us, before_us: Some(run.last_us) },
        });
    }

    /// What was signed earlier as well.
    fn behind(self, earlier: Self) -> Self {
        let run = match (earlier.run, self.run) {
            (Some(_), Some(run)) if run.before_us.is_some() => Some(run),
            (Some(earlier), Some(run)) if is_near(earlier.last_us, run.first_us) => {
                Some(Run { last_us: run.last_us, ..earlier })
            }
            (Some(earlier), Some(run)) => Some(Run { before_us: Some(earlier.last_us), ..run }),
            (earlier, run) => run.or(earlier),
        };
        Self { run }
    }

    /// What stands against acting by this time of the clock. `None`: nothing does.
    pub fn doubt(&self, now_us: i64) -> Option<Jump> {
        let run = self.run?;
        if !is_near(run.last_us, now_us) {
            return Some(Jump { from_us: run.last_us, to_us: now_us });
        }
        let from_us = run.before_us.filter(|_| run.last_us.saturating_sub(run.first_us) < DAY_US)?;
        Some(Jump { from_us, to_us: run.first_us })
    }
}

fn is_near(one_us: i64, other_us: i64) -> bool {
    one_us.abs_diff(other_us) <= DAY_US as u64
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

    const HOUR_US: i64 = DAY_US / 24;
    const NOON: i64 = 1_795_000_000_000_000;

    /// Hours of checkpoints, and whether the clock is believed at the last of them.
    fn check(hours: impl IntoIterator<Item = i64>, believed: bool) {
        let times: Vec<i64> = hours.into_iter().map(|hour| NOON + hour * HOUR_US).collect();
        let mut steady = Steady::default();
        times.iter().for_each(|&time_us| steady.note(time_us));
        let last = *times.last().expect("a checkpoint");
        assert_eq!(steady.doubt(last).is_none(), believed, "{times:?}: {steady:?}");
        // Cut into files anywhere, it is the same.
        for cut in 0..times.len() {
            let (mut earlier, mut later) = (Steady::default(), Steady::default());
            times[..cut].iter().for_each(|&time_us| earlier.note(time_us));
            times[cut..].iter().for_each(|&time_us| later.note(time_us));
            assert_eq!(later.behind(earlier), steady, "{times:?} cut at {cut}");
        }
    }

    #[test]
    fn a_clock_is_believed_that_has_gone_on_for_a_day_behind_its_last_jump() {
        check([0], true);
        check([0, 1, 2], true);
        check([0, 23, 47, 30], true);
        check([0, 9600], false);
        check([0, 9600, 9623], false);
        check([0, 9600, 9612, 9624], true);
        // Set right again, which a jump is as well.
        check([0, 9600, 1], false);
        check([0, 9600, 1, 13, 25], true);
        check([0, 9600, 1, 13, 25, 9625], false);
    }

    #[test]
    fn a_clock_that_has_jumped_since_the_last_checkpoint_is_not_believed() {
        let mut steady = Steady::default();
        assert_eq!(steady.doubt(NOON), None, "nothing is known of it");
        steady.note(NOON);
        assert_eq!(steady.doubt(NOON + DAY_US), None);
        let jump = Jump { from_us: NOON, to_us: NOON + 2 * DAY_US };
        assert_eq!(steady.doubt(jump.to_us), Some(jump));
        assert!(steady.doubt(NOON - 2 * DAY_US).is_some());
    }
}
