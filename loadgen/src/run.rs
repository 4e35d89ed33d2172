//! One run: threads are started together, their intervals put together, a verdict drawn.

use crate::check::{Expectations, Level, Wrong};
use crate::collector::Collector;
use crate::conn::{Fault, Plan};
use crate::engine::{self, Task};
use crate::measure::{Counts, Point};
use crate::probe;
use crate::program::Program;
use crate::rng;
use crate::schedule::{Arrivals, Profile, Schedule, Share};
use crate::spans::Spans;
use crate::sys::{self, Address};
use crate::target::{Target, TlsMode};
use crate::transport;
use anyhow::{Result, anyhow, ensure};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::SystemTime;

/// Of responses on one connection that are left in the kernel until the next tick: a fraction of any receive buffer.
const UNREAD_BYTES_MAX: u64 = 16 << 10;

#[derive(Clone, Debug)]
pub struct Settings {
    pub target: Target,
    pub program: Program,
    /// `None`: whatever is fixed must stay the same, whatever has variables must keep its number of rows.
    pub level: Option<Level>,
    pub expected: Expectations,
    pub depth: usize,
    pub churn: bool,
    /// `None`: closed loop.
    pub open: Option<(Profile, Arrivals)>,
    pub connections: usize,
    pub threads: usize,
    pub warmup_s: f64,
    pub duration_s: Option<f64>,
    pub count: Option<u64>,
    pub interval_s: f64,
    /// The intervals' histograms are kept for a log.
    pub logged: bool,
    pub timeout_s: f64,
    pub lag_limit_ns: u64,
    pub spin_ns: u64,
    /// 0: every request is sent when it is due.
    pub tick_ns: u64,
    pub seed: u64,
}

impl Settings {
    /// A thread without a connection, or without a request of the count, has nothing to do.
    pub fn threads_used(&self) -> usize {
        let busy = self.count.map_or(usize::MAX, |count| count.try_into().unwrap_or(usize::MAX));
        self.threads.min(busy).clamp(1, self.connections.max(1))
    }

    /// The same load in the round or try of that number: with arrivals and variables of its own, or chance would fall out alike in
    /// all of them and what many say would be no better than what one says.
    pub fn of_round(&self, number: usize) -> Settings {
        Settings { seed: rng::seed_of(self.seed, number as u64), ..self.clone() }
    }

    /// How closely the responses of each statement are looked at.
    pub fn levels(&self) -> Vec<Level> {
        let level = |fixed: bool| self.level.unwrap_or(if fixed { Level::Same } else { Level::Rows });
        self.program.steps.iter().map(|step| level(step.is_fixed())).collect()
    }
}

/// One step of a step profile.
#[derive(Debug)]
pub struct Step {
    pub rate: f64,
    /// Of its intervals while the load lasted.
    pub seconds: f64,
    /// Answers that came in these.
    pub answered: u64,
    /// With the last step, also what was answered after the load had ended.
    pub counts: Counts,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub total: Counts,
    pub points: Vec<Point>,
    pub hlog: Vec<String>,
    /// With a step profile, what each step came to.
    pub steps: Vec<Step>,
    pub began: SystemTime,
    /// Requests a second that were due, and that were answered rightly while the load lasted; where threads ended at times of
    /// their own, each thread's over its own time.
    pub offered: f64,
    pub achieved: f64,
    /// Answers behind `achieved`.
    pub in_time: u64,
    /// The threads ended their load at times of their own: a count of random arrivals, divided among them.
    pub apart: bool,
    /// From the start of measuring to the end of the load, the last thread's ...
    pub load_s: f64,
    /// ... and to that or the last answer, whichever is later.
    pub elapsed_s: f64,
    /// The generator's own CPU, nanoseconds a request.
    pub cpu_ns: f64,
    /// Of a core, that the busiest thread took while the load lasted; `None`: that was too short to tell.
    pub busiest: Option<f64>,
    /// Why percentiles are not to be believed.
    pub late: Option<String>,
    /// Why rate and times are the generator's as much as the server's, in a closed loop.
    pub limited: Option<String>,
    pub server_version: String,
    pub closed: bool,
    pub interrupted: bool,
    /// With a count and a duration, that the duration ended it before the count was reached.
    pub count_missed: Option<String>,
    /// Why it ended before it should have, if it did.
    pub cut_short: Option<String>,
}

impl Outcome {
    /// Whether at least this many answers a second came. One answer is allowed for: which side of the end it falls on is chance.
    pub fn answers_at_least(&self, rate: f64) -> bool {
        self.achieved + 1.0 / self.load_s >= rate
    }
}

/// The target answers, but not as was expected: the answer is no, which is not the same as not having been able to ask.
#[derive(Debug)]
pub struct CheckFailed(pub String);

impl std::error::Error for CheckFailed {}

impl fmt::Display for CheckFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub fn failed(fault: Fault) -> anyhow::Error {
    let text = format!("{}: {}", fault.kind, fault.detail);
    if Wrong::is_kind(&fault.kind) { CheckFailed(text).into() } else { anyhow!(text) }
}

/// Logs in once, runs the program once, and so learns what right answers look like.
pub fn prepare(settings: &Settings) -> Result<(Plan, String)> {
    let mut plan = Plan {
        tls: transport::tls_config(&settings.target)?,
        target: settings.target.clone(),
        levels: settings.levels(),
        program: settings.program.clone(),
        expected: settings.expected.clone(),
        first: Vec::new(),
        depth: settings.depth,
        churn: settings.churn,
        stamped: false,
        long_answers: false,
    };
    let (first, version) = probe::probe(&plan, (settings.timeout_s * 1e9) as u64).map_err(failed)?;
    plan.first = first;
    // Only what is answered in one piece and never holds up the server may lie unread until the next send, or while this generator
    // stands still, and still be timed rightly.
    let bytes: u64 = plan.first.iter().map(|tally| tally.bytes).sum::<u64>() * settings.depth as u64;
    plan.stamped = matches!(settings.target.address, Address::Inet(_))
        && settings.target.tls == TlsMode::Disable
        && plan.program.steps.len() == 1
        && !settings.churn
        && bytes <= UNREAD_BYTES_MAX;
    plan.long_answers = bytes > UNREAD_BYTES_MAX;
    Ok((plan, version))
}

/// Runs it. `progress` hears of every interval, of the last one while all connections are still there.
pub fn run(settings: &Settings, progress: &mut dyn FnMut(&Point, bool)) -> Result<Outcome> {
    ensure!(settings.connections >= 1, "at least one connection is needed");
    ensure!(settings.duration_s.is_some() || settings.count.is_some(), "a run needs a duration or a count");
    sys::raise_open_files();
    let (plan, version) = prepare(settings)?;
    let stamped = plan.stamped;
    let plan = Arc::new(plan);
    let threads = settings.threads_used();
    let (to_us, reports) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let (mut starts, mut running) = (Vec::new(), Vec::new());
    for thread in 0..threads {
        let task = task(settings, &plan, thread, threads);
        let (start, started) = mpsc::channel();
        starts.push(start);
        let (to_us, stop) = (to_us.clone(), Arc::clone(&stop));
        let named = std::thread::Builder::new().name(format!("load-{thread}"));
        running.push(named.spawn(move || engine::run(task, to_us, started, stop))?);
    }
    drop(to_us);
    let mut collector = Collector::new(settings, threads);
    collector.version = version;
    collector.stamped = stamped;
    let result = collector.collect(&reports, &starts, &stop, progress);
    stop.store(true, Ordering::Relaxed);
    result?;
    // Now they close their connections: before anybody else begins on the same server.
    drop(starts);
    running.into_iter().for_each(|thread| drop(thread.join()));
    Ok(collector.outcome(settings))
}

fn task(settings: &Settings, plan: &Arc<Plan>, thread: usize, threads: usize) -> Task {
    let share = Share { thread, threads, connections: settings.connections };
    let duration_s = settings.duration_s.unwrap_or(f64::INFINITY);
    let schedule = settings.open.as_ref().map(|(profile, arrivals)| {
        Schedule::new(profile, *arrivals, settings.warmup_s, duration_s, share, settings.seed)
            .in_ticks(settings.tick_ns)
    });
    Task {
        thread,
        plan: Arc::clone(plan),
        connections: share.connections(),
        schedule,
        ticks: settings.tick_ns > 0,
        spans: spans(settings),
        count: settings.count.map(|count| share.of_first(count)),
        timeout_ns: (settings.timeout_s * 1e9) as u64,
        spin_ns: settings.spin_ns,
        lag_limit_ns: settings.lag_limit_ns,
        seed: settings.seed.wrapping_add(thread as u64),
    }
}

pub fn spans(settings: &Settings) -> Spans {
    let ns = |seconds: f64| (seconds * 1e9).round() as u64;
    Spans {
        length_ns: ns(settings.interval_s).max(1),
        warmup_ns: ns(settings.warmup_s),
        duration_ns: settings.duration_s.map(ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_has_arrivals_of_its_own_and_within_a_round_all_have_the_same() {
        let settings = |url| Settings {
            open: Some((Profile::Flat(1000.0), Arrivals::Poisson)),
            seed: 7,
            ..crate::cli::plain_settings(url, None).expect("it is well formed")
        };
        let (one, other) = (settings("postgres://u@127.0.0.1:1/a"), settings("postgres://u@127.0.0.1:2/b"));
        let arrivals = |settings: &Settings| {
            let (profile, arrivals) = settings.open.as_ref().expect("it is an open loop");
            let alone = Share { thread: 0, threads: 1, connections: 1 };
            let mut schedule = Schedule::new(profile, *arrivals, 0.0, 1.0, alone, settings.seed);
            (0..20).map(|_| schedule.next_ns()).collect::<Vec<_>>()
        };
        assert_eq!(arrivals(&one.of_round(1)), arrivals(&other.of_round(1)));
        assert_ne!(arrivals(&one.of_round(1)), arrivals(&one.of_round(2)));
    }
}
