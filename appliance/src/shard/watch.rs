//! Looks after the shards: each makes a round every few milliseconds, if only for its own alarm. One that sleeps through it (a wake-up
//! that the kernel lost, once seen on a virtual machine) is woken by a signal; one that is busy for long is told.

use super::counters::Counters;
use super::mono_us;
use super::ring::Thread;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A shard without a round for longer than this is asleep when it should not be, or busy with one thing.
const SILENT_US: u64 = 1_000_000;

/// The thread that watches. Ends when it is dropped.
pub struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub fn start(shards: Vec<Arc<Counters>>) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let thread = std::thread::Builder::new().name("shard-watch".into()).spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(LOOK_EVERY);
                shards.iter().enumerate().for_each(|(number, shard)| look_after(number, shard, mono_us()));
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

fn look_after(number: usize, shard: &Counters, now_us: u64) {
    let silent_us = shard.silent_us(now_us);
    if silent_us < SILENT_US {
        return;
    }
    let seconds = silent_us as f64 / 1e6;
    if shard.asleep.value() == 0 {
        return tracing::warn!(shard = number, "busy with one thing for {seconds:.1} s: its sessions wait");
    }
    shard.nudges.add(1);
    match Thread(shard.thread.value()).nudge() {
        Ok(()) => tracing::error!(shard = number, "slept for {seconds:.1} s through its own alarm: woken"),
        Err(error) => tracing::error!(shard = number, %error, "sleeps since {seconds:.1} s and cannot be woken"),
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
            look_after(0, &shard, 5_000_000);
            std::thread::sleep(Duration::from_millis(10));
        }
        sleeper.join().expect("it ended well");
        assert!(thread.nudge().is_err(), "the thread has ended");
    }

    #[test]
    fn only_a_shard_that_sleeps_is_woken() {
        let shard = Counters::default();
        shard.round_us.set(1);
        look_after(0, &shard, 5_000_000);
        assert_eq!(shard.nudges.value(), 0, "it is busy");
        shard.asleep.set(1);
        look_after(0, &shard, 500_000);
        assert_eq!(shard.nudges.value(), 0, "it has not slept for long");
        look_after(0, &shard, 5_000_000);
        assert_eq!(shard.nudges.value(), 1);
    }
}
