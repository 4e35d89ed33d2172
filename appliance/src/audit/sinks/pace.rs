//! How much to send and when: backoff with jitter, bisection of what a receiver refuses. Pure: randomness comes in.

use std::time::Duration;

const RETRY_FIRST: Duration = Duration::from_millis(500);
/// A receiver may ask for a pause, not for a standstill.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// So many single events refused in a row, and nothing taken: more likely the receiver is set up wrongly. From then on each
/// further one is given up only after a pause, so that a mistake found within hours has cost few events their place.
const REFUSED_IN_A_ROW: u32 = 10;

/// What to do about a refusal.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Send fewer: `limit` says how many.
    Split,
    /// It is this one: put it aside.
    GiveUp,
    /// Try this one again after the pause; then give it up.
    Pause(Duration),
}

#[derive(Debug)]
pub struct Pace {
    retry_max: Duration,
    /// Attempts that failed since the last one that did not.
    failures: u32,
    /// Events of the next batch at most.
    limit: usize,
    limit_max: usize,
    refused_in_a_row: u32,
    paused: bool,
}

impl Pace {
    pub fn new(retry_max: Duration, events_max: usize) -> Self {
        Self { retry_max, failures: 0, limit: events_max, limit_max: events_max, refused_in_a_row: 0, paused: false }
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn delivered(&mut self) {
        (self.failures, self.refused_in_a_row) = (0, 0);
        self.grow();
    }

    /// Back to full batches step by step: what was refused may have neighbours.
    fn grow(&mut self) {
        self.limit = (self.limit * 2).min(self.limit_max);
    }

    /// How long to wait before the next attempt. `random` is anything.
    pub fn failed(&mut self, after: Option<Duration>, random: u64) -> Duration {
        let doubled = RETRY_FIRST.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        let ceiling = doubled.min(self.retry_max);
        // Between half and all of it: many gateways that lost one receiver do not come back in step.
        let half = ceiling / 2;
        let jittered = half + half.mul_f64((random % 1024) as f64 / 1024.0);
        match after {
            Some(after) => after.min(RETRY_AFTER_MAX).max(jittered.min(RETRY_FIRST)),
            None => jittered,
        }
    }

    /// The receiver refused a batch of so many.
    pub fn refused(&mut self, events: usize, random: u64) -> Refusal {
        if events > 1 {
            self.limit = events.div_ceil(2);
            return Refusal::Split;
        }
        if self.refused_in_a_row >= REFUSED_IN_A_ROW && !self.paused {
            self.paused = true;
            return Refusal::Pause(self.failed(None, random));
        }
        self.paused = false;
        self.refused_in_a_row += 1;
        self.grow();
        Refusal::GiveUp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn pauses_double_up_to_the_most_and_begin_anew_after_a_success() {
        let mut pace = Pace::new(MINUTE, 100);
        let most: Vec<_> = (0..9).map(|_| pace.failed(None, 1023).as_millis()).collect();
        assert_eq!(most, [499, 999, 1999, 3998, 7996, 15992, 31984, 59970, 59970]);
        pace.delivered();
        assert_eq!(pace.failed(None, 0), RETRY_FIRST / 2, "at least half");
    }

    #[test]
    fn what_the_receiver_asks_for_wins_within_reason() {
        let mut pace = Pace::new(MINUTE, 100);
        assert_eq!(pace.failed(Some(Duration::from_secs(90)), 0), Duration::from_secs(90));
        assert_eq!(pace.failed(Some(Duration::from_secs(999_999)), 0), RETRY_AFTER_MAX);
        assert!(pace.failed(Some(Duration::ZERO), 0) >= RETRY_FIRST / 2, "never a busy loop");
    }

    /// Delivers `events` to a receiver that refuses any batch with one of `poison` in it: (taken, given up, attempts).
    fn run(events: usize, poison: &[usize]) -> (Vec<usize>, Vec<usize>, usize) {
        let mut pace = Pace::new(MINUTE, 100);
        let (mut at, mut taken, mut given_up, mut attempts) = (0, Vec::new(), Vec::new(), 0);
        while at < events {
            let batch = at..(at + pace.limit()).min(events);
            attempts += 1;
            if !poison.iter().any(|bad| batch.contains(bad)) {
                taken.extend(batch.clone());
                at = batch.end;
                pace.delivered();
                continue;
            }
            match pace.refused(batch.len(), 0) {
                Refusal::Split | Refusal::Pause(_) => {}
                Refusal::GiveUp => {
                    given_up.push(at);
                    at += 1;
                }
            }
        }
        (taken, given_up, attempts)
    }

    #[test]
    fn bisection_gives_up_the_poison_alone_and_keeps_the_order() {
        for poison in [vec![], vec![0], vec![99], vec![42], vec![3, 4, 77], (0..30).collect(), (0..100).collect()] {
            let (taken, given_up, attempts) = run(100, &poison);
            assert_eq!(given_up, poison);
            assert_eq!(taken, (0..100).filter(|at| !poison.contains(at)).collect::<Vec<_>>());
            assert!(attempts <= 1 + 20 * poison.len().max(1), "{attempts} for {poison:?}");
        }
    }

    #[test]
    fn a_receiver_that_refuses_everything_gets_pauses() {
        let mut pace = Pace::new(MINUTE, 1);
        let answers: Vec<_> = (0..14).map(|_| pace.refused(1, 0)).collect();
        assert!(answers[..10].iter().all(|answer| *answer == Refusal::GiveUp));
        assert!(matches!(answers[10], Refusal::Pause(_)) && answers[11] == Refusal::GiveUp);
        assert!(matches!(answers[12], Refusal::Pause(pause) if pause > RETRY_FIRST / 2));
        pace.delivered();
        assert_eq!(pace.refused(1, 0), Refusal::GiveUp);
    }
}
