//! Whether a shard looks for its next message with its eyes open before it sleeps. To be woken costs more than a small query does, on a
//! virtual machine by far; to look costs the core, and where the core is the target's too it may cost the very answer that is awaited. So it
//! is tried: while very few sessions talk (many keep a shard awake by themselves) and their messages come soon, it sleeps for some waits,
//! looks for as many, and keeps to what was shorter until the next trial.

/// Sessions that may talk at one time.
const TALKERS_MAX: usize = 2;
/// Waits of one side of a trial.
const TRIAL: u32 = 256;
/// Waits between two trials, the first time. Twice as many behind each trial that ended as the one before, at most [`KEPT_MAX`].
const KEPT: u32 = 2048;
const KEPT_MAX: u32 = 16 * KEPT;
/// A wait counts as no longer than so many that would have been worth a look: a pause says nothing of either.
const COUNTED_MAX: u64 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Sleeping, to know how long that takes.
    TrySleep,
    TryLook,
    Sleep,
    Look,
}

pub struct Spin {
    /// Microseconds: looking for longer would not be worth it. 0: never.
    longest_us: u64,
    talkers: [u32; TALKERS_MAX],
    phase: Phase,
    /// Waits of this phase, and how long they were together.
    waits: u32,
    sum_us: u64,
    /// As many waits asleep as a trial has, together.
    asleep_us: u64,
    /// How many waits the outcome of the next trial is kept to, if it is that of the last one.
    kept: u32,
    looked_last: bool,
}

impl Spin {
    pub fn new(longest_us: u64) -> Self {
        let (waits, sum_us, asleep_us) = (0, 0, 0);
        let talkers = [u32::MAX; TALKERS_MAX];
        Self { longest_us, talkers, phase: Phase::TrySleep, waits, sum_us, asleep_us, kept: KEPT, looked_last: false }
    }

    /// For how long to look now, before sleeping.
    pub fn for_us(&self) -> u64 {
        match self.phase {
            Phase::TryLook | Phase::Look => self.longest_us,
            Phase::TrySleep | Phase::Sleep => 0,
        }
    }

    /// A message came, from or for the relay in this slot.
    pub fn heard(&mut self, slot: u32) {
        if !self.talkers.contains(&slot) {
            self.talkers.rotate_right(1);
            self.talkers[0] = slot;
            self.kept = KEPT;
            self.enter(Phase::TrySleep);
        }
    }

    /// The shard has waited so long, looking or asleep.
    pub fn waited(&mut self, us: u64) {
        self.waits += 1;
        self.sum_us += us.min(COUNTED_MAX * self.longest_us);
        match self.phase {
            Phase::TrySleep if self.waits == TRIAL => {
                self.asleep_us = self.sum_us;
                let soon = self.longest_us > 0 && self.sum_us <= u64::from(TRIAL) * self.longest_us;
                self.enter(if soon { Phase::TryLook } else { Phase::TrySleep });
            }
            // One in twenty shorter at least: it costs the core.
            Phase::TryLook if self.sum_us > self.asleep_us - self.asleep_us / 20 => self.decide(false),
            Phase::TryLook if self.waits == TRIAL => self.decide(true),
            Phase::Sleep if self.waits == self.kept => self.enter(Phase::TrySleep),
            // Times have changed where it takes longer than sleeping did.
            Phase::Look if self.waits.is_multiple_of(TRIAL) => {
                let longer = self.sum_us > self.asleep_us;
                self.sum_us = 0;
                if longer || self.waits >= self.kept {
                    self.enter(Phase::TrySleep);
                }
            }
            _ => {}
        }
    }

    fn decide(&mut self, look: bool) {
        self.kept = if look == self.looked_last { (2 * self.kept).min(KEPT_MAX) } else { KEPT };
        self.looked_last = look;
        self.enter(if look { Phase::Look } else { Phase::Sleep });
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.waits, self.sum_us) = (phase, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of so many waits of one session, asleep or looking as `waits` has it: during how many it looked.
    fn looks(spin: &mut Spin, count: u32, waits: impl Fn(u32, bool) -> u64) -> u32 {
        spin.heard(7);
        (0..count)
            .map(|wait| {
                let looks = spin.for_us() > 0;
                spin.waited(waits(wait, looks));
                spin.heard(7);
                u32::from(looks)
            })
            .sum()
    }

    #[test]
    fn it_looks_where_that_makes_waits_shorter() {
        let mut spin = Spin::new(100);
        assert_eq!(looks(&mut spin, TRIAL, |_, looks| if looks { 35 } else { 45 }), 0);
        assert!(looks(&mut spin, 100_000, |_, looks| if looks { 35 } else { 45 }) > 95_000);
    }

    #[test]
    fn it_looks_where_a_pause_comes_now_and_then() {
        let pauses = |wait: u32, looks: bool| {
            if wait.is_multiple_of(100) {
                1_000
            } else if looks {
                35
            } else {
                45
            }
        };
        assert!(looks(&mut Spin::new(100), 100_000, pauses) > 90_000);
    }

    #[test]
    fn it_hardly_looks_where_that_makes_them_longer() {
        let mut spin = Spin::new(100);
        assert!(
            looks(&mut spin, 100_000, |wait, looks| if looks && wait.is_multiple_of(4) { 150 } else { 45 }) < 2_000
        );
        let mut spin = Spin::new(100);
        assert!(
            looks(&mut spin, 100_000, |wait, looks| if looks && wait.is_multiple_of(100) {
                3_000
            } else if looks {
                40
            } else {
                45
            }) < 3_000
        );
    }

    #[test]
    fn it_does_not_look_for_the_little_that_noise_would_make() {
        assert!(looks(&mut Spin::new(100), 100_000, |_, looks| if looks { 44 } else { 45 }) < 5_000);
    }

    #[test]
    fn it_never_looks_for_what_comes_late() {
        assert_eq!(looks(&mut Spin::new(100), 10_000, |_, _| 101), 0);
        assert_eq!(looks(&mut Spin::new(100), 10_000, |wait, _| if wait.is_multiple_of(10) { 1_000 } else { 20 }), 0);
    }

    #[test]
    fn it_stops_when_times_change() {
        let mut spin = Spin::new(100);
        assert!(looks(&mut spin, 10_000, |_, looks| if looks { 35 } else { 45 }) > 9_000);
        assert!(looks(&mut spin, 10_000, |_, _| 2_000) <= TRIAL);
    }

    #[test]
    fn it_looks_for_two_sessions_and_not_for_three() {
        let (mut two, mut three) = (Spin::new(100), Spin::new(100));
        for wait in 0..5 * TRIAL {
            for (spin, sessions) in [(&mut two, 2), (&mut three, 3)] {
                spin.waited(if spin.for_us() > 0 { 10 } else { 20 });
                spin.heard(wait % sessions);
                assert!(sessions == 2 || spin.for_us() == 0);
            }
        }
        assert_eq!(two.for_us(), 100);
    }

    #[test]
    fn at_zero_it_never_looks() {
        assert_eq!(looks(&mut Spin::new(0), 10_000, |_, _| 0), 0);
        assert_eq!(looks(&mut Spin::new(0), 10_000, |_, _| 5), 0);
    }
}
