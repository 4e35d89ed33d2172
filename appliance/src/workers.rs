//! A runtime for one thread whose workers exist from the start and stay: where a thread cannot be started, tokio panics in the task that
//! asked for a worker, and a login or a statement would wait for an answer that nobody gives.

use crate::threads::try_to_start;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// A hundred years.
const FOR_GOOD: Duration = Duration::from_secs(100 * 365 * 86_400);
/// For all workers to have begun.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// With so many workers, which have begun. One is enough where they only look up names.
pub fn runtime(workers: usize, name: &str) -> io::Result<Runtime> {
    try_to_start(workers).map_err(|(some, error)| io::Error::other(format!("{some} of {workers} threads: {error}")))?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(workers)
        .thread_keep_alive(FOR_GOOD)
        .thread_name(name)
        .build()?;
    match start_all(&runtime, workers) {
        all if all == workers => Ok(runtime),
        some => Err(io::Error::other(format!("{some} of {workers} threads have begun"))),
    }
}

/// One task for each worker, none of which ends before all have begun: so each has a thread of its own.
fn start_all(runtime: &Runtime, workers: usize) -> usize {
    let gate = Arc::new(Gate::default());
    for _ in 0..workers {
        let gate = gate.clone();
        runtime.spawn_blocking(move || gate.pass());
    }
    gate.open_behind(workers)
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: usize,
    open: bool,
}

impl Gate {
    /// Waits until it is open.
    fn pass(&self) {
        let mut state = self.state();
        state.waiting += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.open));
    }

    /// Opens when so many wait, or none has come for too long: how many waited.
    fn open_behind(&self, workers: usize) -> usize {
        let few = |state: &mut State| state.waiting < workers;
        let waited = self.changed.wait_timeout_while(self.state(), START_TIMEOUT, few);
        let (mut state, _) = waited.expect("nobody panics at the gate");
        state.open = true;
        self.changed.notify_all();
        state.waiting
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics at the gate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Barrier;

    fn tasks() -> HashSet<String> {
        let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
        tasks.map(|task| task.expect("a task").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn every_worker_is_there_before_anybody_asks() {
        const WORKERS: usize = 5;
        let runtime = runtime(WORKERS, "worker").expect("threads");
        let at_start = tasks();
        let all_work = Arc::new(Barrier::new(WORKERS));
        let work = |_| {
            let all_work = all_work.clone();
            runtime.spawn_blocking(move || {
                all_work.wait();
                rustix::thread::gettid().as_raw_nonzero().to_string()
            })
        };
        let asked: Vec<_> = (0..WORKERS).map(work).collect();
        let seen: HashSet<_> = asked.into_iter().map(|asked| runtime.block_on(asked).expect("it answers")).collect();
        assert_eq!(seen.len(), WORKERS);
        assert!(seen.is_subset(&at_start), "{seen:?} {at_start:?}");
    }
}
