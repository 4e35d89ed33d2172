//! A small random generator with a seed that can be printed and given again (xoshiro256++, seeded by splitmix64).

#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        };
        Rng([next(), next(), next(), next()])
    }

    pub fn bits(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `low..=high`; the bias of the multiplication is below 2^-32 for any range used here.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = (high as i128 - low as i128 + 1) as u128;
        (low as i128 + ((u128::from(self.bits()) * span) >> 64) as i128) as i64
    }

    /// Exponential with mean 1: the gap between arrivals of a Poisson process of rate 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.between(0, last as i64) as usize);
        }
    }
}

/// The seed of the run with that number among several that were given one seed: each draws numbers of its own, and the same ones
/// whenever all is repeated.
pub fn seed_of(seed: u64, number: u64) -> u64 {
    Rng::new(seed ^ Rng::new(number).bits()).bits()
}

/// A seed nobody chose, for those who give none.
pub fn fresh_seed() -> u64 {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Rng::new(clock.as_nanos() as u64 ^ u64::from(std::process::id()) << 40).bits() >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut one, mut two, mut other) = (Rng::new(7), Rng::new(7), Rng::new(8));
        assert!((0..100).all(|_| one.bits() == two.bits()));
        assert_ne!(one.bits(), other.bits());
    }

    #[test]
    fn each_of_several_runs_has_a_seed_of_its_own() {
        let mut seeds: Vec<u64> = (0..4).flat_map(|seed| (0..100).map(move |number| seed_of(seed, number))).collect();
        assert_eq!(seeds[7], seed_of(0, 7));
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 400);
    }

    #[test]
    fn ranges_are_kept_and_means_are_right() {
        let mut rng = Rng::new(1);
        let draws: Vec<i64> = (0..10_000).map(|_| rng.between(-3, 3)).collect();
        assert!(draws.iter().all(|draw| (-3..=3).contains(draw)));
        assert!((-3..=3).all(|value| draws.contains(&value)));
        let mean = (0..100_000).map(|_| rng.exponential()).sum::<f64>() / 100_000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
    }
}
