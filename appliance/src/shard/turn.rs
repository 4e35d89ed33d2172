//! glommio's turns. The pump sleeps in the socket ring; glommio, which runs the shard, visits its own rings only when it is given a turn,
//! on a schedule.
//!
//! In a turn the executor runs dry, and it must not go to sleep then: what it sleeps in is a ring that polls another for a timer of a
//! microsecond, and on one machine in a few hundred starts nobody was ever woken from that. So it looks for the timer with its eyes open
//! ([`SPIN`]), which also spares a turn its system calls.

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::io;
use std::time::Duration;

/// Between turns. Nothing of ours waits for one: glommio has no files and no sockets here, and whoever looks at something now and then has an
/// alarm of its own. A tenth of this cost an idle shard a hundredth of its core.
pub const PERIOD_US: u64 = 250_000;
/// The timer that a turn waits for.
const TIMER: Duration = Duration::from_micros(1);
/// How long a dry executor looks before it sleeps. Whenever it is dry there is a turn's timer, so it never looks for much longer than that
/// one takes.
const SPIN: Duration = Duration::from_secs(1);
/// glommio's own buffers, which nothing uses: the least it takes.
const MEMORY_BYTES: usize = 64 << 10;

/// An executor on this thread that turns can be taken of, bound to a core. `free`: the cores the thread may move between instead.
pub fn executor(core: usize, free: Option<&[usize]>) -> io::Result<LocalExecutor> {
    // One that is bound to no core does not look before it sleeps, whatever it is told: it is bound first.
    let builder = LocalExecutorBuilder::new(Placement::Fixed(core)).io_memory(MEMORY_BYTES).spin_before_park(SPIN);
    let executor = builder.make().map_err(|error| io::Error::other(format!("glommio: {error}")))?;
    if let Some(cores) = free {
        bind(cores)?;
    }
    Ok(executor)
}

/// This thread runs on these cores alone.
pub fn bind(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().filter(|core| **core < CpuSet::MAX_CPU).for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

/// One turn: run the executor dry so that it visits its reactor, then once more for what that woke. With one round
/// only, opening a file never finishes.
pub async fn take() {
    for _ in 0..2 {
        glommio::timer::sleep(TIMER).await;
        glommio::executor().yield_task_queue_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::socket::cores;
    use super::*;

    fn times_this_thread_slept() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse().ok()).expect("the kernel counts them")
    }

    #[track_caller]
    fn check(free: bool) {
        let allowed = cores().expect("this thread runs somewhere");
        std::thread::spawn(move || {
            let executor = executor(allowed[0], free.then_some(&allowed[..])).expect("an executor");
            let bound = if free { allowed } else { allowed[..1].to_vec() };
            assert_eq!(cores().expect("cores"), bound);
            executor.run(async {
                take().await;
                let before = times_this_thread_slept();
                for _ in 0..500 {
                    take().await;
                }
                let slept = times_this_thread_slept() - before;
                assert!(slept < 50, "{slept} of 1,000 times");
            });
        })
        .join()
        .expect("it ran");
    }

    #[test]
    fn an_executor_does_not_sleep_in_its_turns() {
        check(false);
    }

    #[test]
    fn one_that_is_not_pinned_does_not_either() {
        check(true);
    }
}
