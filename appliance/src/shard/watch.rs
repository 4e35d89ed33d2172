//! Looks after the shards: each makes a round several times a second, if only for its own alarm. One that sleeps through it (a wake-up
//! that was lost) is woken by a signal; one that is busy for long is told. When no session has been opened for a while, code that only a start and
//! logins need is let go.

use super::counters::Counters;
use super::mono_us;
use super::ring::{Thread, let_go_of_code};
use crate::lull::Lull;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A shard without a round for longer than this is asleep when it should not be, or busy with one thing.
const SILENT_US: u64 = 1_000_000;

/// The thread that watches. Ends when it is dropped.
pub struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// `sessions`: how many have been opened so far. (A connection that asks for nothing, as a probe's, needs nothing of a login.)
    pub fn start(shards: Vec<Arc<Counters>>, sessions: impl Fn() -> u64 + Send + 'static) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let thread = std::thread::Builder::new().name("shard-watch".into()).spawn(move || {
            let mut looks = vec![Look::default(); shards.len()];
            let mut lull = Lull::after_start(Instant::now());
            while !is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(LOOK_EVERY);
                for (number, (shard, look)) in shards.iter().zip(&mut looks).enumerate() {
                    look.after(number, shard, mono_us());
                }
                if lull.has_come(sessions(), Instant::now()) {
                    let_go_of_code();
                }
            }
        })?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// What the watch knows of one shard.
#[derive(Clone, Copy, Default)]
struct Look {
    /// How long it must have been silent to be told of again: twice as long each time.
    tell_us: u64,
}

impl Look {
    fn after(&mut self, number: usize, shard: &Counters, now_us: u64) {
        let silent_us = shard.silent_us(now_us);
        if silent_us < SILENT_US {
            self.tell_us = SILENT_US;
            return;
        }
        let asleep = shard.asleep.value() != 0;
        let nudged = match asleep {
            true => Thread(shard.thread.value()).nudge(),
            false => Ok(()),
        };
        shard.nudges.add(u64::from(asleep));
        if silent_us < self.tell_us {
            return;
        }
        self.tell_us = silent_us * 2;
        let seconds = silent_us as f64 / 1e6;
        match (asleep, nudged) {
            (true, Ok(())) => tracing::error!(shard = number, "slept for {seconds:.1} s through its own alarm: woken"),
            (false, Ok(())) => {
                tracing::warn!(shard = number, "busy with one thing for {seconds:.1} s: its sessions wait")
            }
            (_, Err(error)) => {
                tracing::error!(shard = number, %error, "no sign of it for {seconds:.1} s, and it cannot be woken")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::ring::{Ring, RingSizes};
    use std::sync::mpsc;

    #[test]
    fn a_shard_is_silent_once_it_has_begun_and_until_it_has_ended() {
        let shard = Counters::default();
        assert_eq!(shard.silent_us(9_000_000), 0);
        shard.round_us.set(1_000_000);
        assert_eq!(shard.silent_us(9_000_000), 8_000_000);
        shard.round_us.set(Counters::ENDED);
        assert_eq!(shard.silent_us(9_000_000), 0);
    }

    #[test]
    fn a_ring_that_waits_for_nothing_is_woken() {
        let (ready, is_ready) = mpsc::channel();
        let sleeper = std::thread::spawn(move || {
            let mut ring = Ring::new(RingSizes { entries: 8, buffers: 8, buffer_bytes: 4096 }).expect("a ring");
            ready.send(Thread::current()).expect("the test listens");
            // Nothing will complete.
            ring.wait().expect("woken without an error");
        });
        let thread = is_ready.recv().expect("the thread has a ring");
        let shard = Counters::default();
        shard.thread.set(thread.0);
        shard.round_us.set(1);
        shard.asleep.set(1);
        // A nudge that comes before the ring waits is lost: the watch comes again.
        while !sleeper.is_finished() {
            Look::default().after(0, &shard, 5_000_000);
            std::thread::sleep(Duration::from_millis(10));
        }
        sleeper.join().expect("it ended well");
        assert!(thread.nudge().is_err(), "the thread has ended");
    }

    #[test]
    fn a_sleeper_is_nudged_at_each_look_and_told_of_ever_more_rarely() {
        let (shard, mut look) = (Counters::default(), Look::default());
        shard.thread.set(Thread::current().0);
        shard.round_us.set(1);
        look.after(0, &shard, 1_400_001);
        assert_eq!((shard.nudges.value(), look.tell_us), (0, 2_800_000), "busy, not asleep");
        shard.asleep.set(1);
        look.after(0, &shard, 500_000);
        assert_eq!((shard.nudges.value(), look.tell_us), (0, SILENT_US), "it has not been silent for long");
        look.after(0, &shard, 1_500_001);
        assert_eq!((shard.nudges.value(), look.tell_us), (1, 3_000_000));
        look.after(0, &shard, 2_000_001);
        assert_eq!((shard.nudges.value(), look.tell_us), (2, 3_000_000));
        look.after(0, &shard, 3_500_001);
        assert_eq!((shard.nudges.value(), look.tell_us), (3, 7_000_000));
        shard.round_us.set(3_600_000);
        look.after(0, &shard, 3_700_000);
        assert_eq!((shard.nudges.value(), look.tell_us), (3, SILENT_US), "it is back");
    }

    #[test]
    fn an_executor_takes_its_turns_while_it_is_nudged() {
        let (ready, is_ready) = mpsc::channel();
        let shard = std::thread::spawn(move || {
            ready.send(Thread::current()).expect("the test listens");
            let core = crate::shard::ring::socket::cores().expect("cores")[0];
            crate::shard::turn::executor(core, None).expect("an executor").run(async {
                for _ in 0..5_000 {
                    crate::shard::turn::take().await;
                }
            });
        });
        let thread = is_ready.recv().expect("the thread has begun");
        while !shard.is_finished() {
            let _ = thread.nudge();
            std::thread::sleep(Duration::from_micros(100));
        }
        shard.join().expect("it ended well");
    }
}
