//! Whether a shard looks for its next message with its eyes open before it sleeps. To be woken costs more than a small query does, on a
//! virtual machine by far; to look costs the core. So it looks only while that pays: while very few sessions talk (many keep it awake by
//! themselves), the last messages came soon, and looking has not been in vain lately.

/// Sessions that may talk at one time.
const TALKERS_MAX: usize = 2;
/// Short waits in a row before the first look.
const SURE: u32 = 8;
/// The same at most, after looks that were in vain: where that is the rule, one in so many is tried.
const SURE_MAX: u32 = 4096;
/// Short waits in a row after which half as many are enough again.
const MADE_UP: u32 = 16;

pub struct Spin {
    /// Microseconds: a wait that was no longer would have been worth it. 0: never.
    longest_us: u64,
    talkers: [u32; TALKERS_MAX],
    /// Waits in a row that were short.
    short: u32,
    /// So many of them are enough.
    sure: u32,
    looked: bool,
}

impl Spin {
    pub fn new(longest_us: u64) -> Self {
        Self { longest_us, talkers: [u32::MAX; TALKERS_MAX], short: 0, sure: SURE, looked: false }
    }

    /// For how long to look now, before sleeping.
    pub fn begin(&mut self) -> u64 {
        self.looked = self.longest_us > 0 && self.short >= self.sure;
        if self.looked { self.longest_us } else { 0 }
    }

    /// A message came, from or for the relay in this slot.
    pub fn heard(&mut self, slot: u32) {
        if !self.talkers.contains(&slot) {
            self.talkers.rotate_right(1);
            self.talkers[0] = slot;
            self.short = 0;
        }
    }

    /// The shard has waited so long, looking or asleep.
    pub fn waited(&mut self, us: u64) {
        let looked = std::mem::take(&mut self.looked);
        if us <= self.longest_us {
            self.short = self.short.saturating_add(1);
            if self.short > self.sure && self.short.is_multiple_of(MADE_UP) {
                self.sure = (self.sure / 2).max(SURE);
            }
            return;
        }
        self.short = 0;
        if looked {
            // Whoever gives its core away while it looks gets it back when that other one's time is over, long after it would have been
            // woken: the longer that took, the longer it is not tried again.
            let times = (us / self.longest_us).min(u64::from(SURE_MAX)) as u32;
            self.sure = self.sure.saturating_mul(1 + times.saturating_mul(times)).min(SURE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it would do after waits of one session.
    fn after(spin: &mut Spin, waits: &[u64]) -> u64 {
        for wait in waits {
            spin.begin();
            spin.waited(*wait);
            spin.heard(7);
        }
        spin.begin()
    }

    #[test]
    fn it_looks_while_answers_come_soon_and_stops_when_they_do_not() {
        let mut spin = Spin::new(100);
        assert_eq!(after(&mut spin, &[100; 8]), 0, "the first was before anybody had spoken");
        assert_eq!(after(&mut spin, &[100]), 100);
        assert_eq!(after(&mut spin, &[100; 1000]), 100);
        assert_eq!(after(&mut spin, &[101]), 0);
        assert_eq!(after(&mut spin, &[100; 15]), 0, "it was in vain: twice as many");
        assert_eq!(after(&mut spin, &[100]), 100);
        assert_eq!(after(&mut spin, &[100; 16]), 100);
        assert_eq!(after(&mut spin, &[101]), 0);
        assert_eq!(after(&mut spin, &[100; 16]), 100, "and made up for");
    }

    #[test]
    fn what_cost_much_is_not_tried_again_soon() {
        let mut spin = Spin::new(100);
        assert_eq!(after(&mut spin, &[20; 100]), 100);
        assert_eq!(after(&mut spin, &[1_000]), 0);
        assert_eq!(after(&mut spin, &[20; 8 * 101 - 1]), 0);
        assert_eq!(after(&mut spin, &[20]), 100);
        assert_eq!(after(&mut spin, &[u64::MAX]), 0);
        assert_eq!(after(&mut spin, &[20; 4_095]), 0);
        assert_eq!(after(&mut spin, &[20]), 100);
    }

    /// How many of `rounds` times `waits` it looked.
    fn looks(rounds: u32, waits: &[u64]) -> u32 {
        let mut spin = Spin::new(100);
        let mut looks = 0;
        for _ in 0..rounds {
            for wait in waits {
                looks += u32::from(spin.begin() > 0);
                spin.waited(*wait);
                spin.heard(7);
            }
        }
        looks
    }

    #[test]
    fn where_looking_is_often_in_vain_it_hardly_looks() {
        assert_eq!(looks(1_000, &[20, 5_000]), 0);
        assert!(looks(1_000, &[20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 5_000]) < 5);
        let (many, one) = ([20; 49], [150]);
        assert!(looks(1_000, &[&many[..], &one].concat()) > 30_000, "one in fifty is no matter");
    }

    #[test]
    fn it_looks_for_two_sessions_and_not_for_three() {
        let (mut two, mut three) = (Spin::new(100), Spin::new(100));
        for round in 0..30 {
            two.waited(10);
            two.heard(round % 2);
            three.waited(10);
            three.heard(round % 3);
            assert_eq!(three.begin(), 0);
        }
        assert_eq!(two.begin(), 100);
    }

    #[test]
    fn at_zero_it_never_looks() {
        let mut spin = Spin::new(0);
        assert_eq!(after(&mut spin, &[0; 100]), 0);
        assert_eq!(after(&mut spin, &[5; 100]), 0);
    }
}
