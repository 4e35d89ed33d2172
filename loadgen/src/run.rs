//! One run: threads are started together, their intervals put together, a verdict drawn.

use crate::check::{Expectations, Level, Wrong};
use crate::conn::{Fault, Plan};
use crate::engine::{self, Report, Task};
use crate::hlog;
use crate::measure::{Counts, Point, time};
use crate::program::Program;
use crate::schedule::{Arrivals, Profile, Schedule};
use crate::sys::{self, Address, now_ns};
use crate::target::{Target, TlsMode};
use crate::transport;
use anyhow::{Result, anyhow, ensure};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

/// Between everybody being ready and the first send, so that all threads are there.
const HEAD_START_NS: u64 = 20_000_000;

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
    pub timeout_s: f64,
    pub lag_limit_ns: u64,
    pub spin_ns: u64,
    /// 0: every request is sent when it is due.
    pub tick_ns: u64,
    pub seed: u64,
}

/// One step of a step profile.
#[derive(Debug)]
pub struct Step {
    pub rate: f64,
    /// Of the intervals that lie in it whole; answers count when they came.
    pub seconds: f64,
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
    /// Requests a second that were due, and that were answered rightly.
    pub offered: f64,
    pub achieved: f64,
    /// From the start of measuring to the end of the load or the last answer, whichever is later.
    pub elapsed_s: f64,
    /// The generator's own CPU, nanoseconds a request.
    pub cpu_ns: f64,
    /// Why percentiles are not to be believed.
    pub late: Option<String>,
    pub server_version: String,
    pub closed: bool,
    pub interrupted: bool,
}

/// The target answers, but not as was expected: the answer is no, which is not the same as not having been able to ask.
#[derive(Debug)]
pub struct CheckFailed(String);

impl std::error::Error for CheckFailed {}

impl fmt::Display for CheckFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn failed(fault: Fault) -> anyhow::Error {
    let text = format!("{}: {}", fault.kind, fault.detail);
    if Wrong::is_kind(&fault.kind) { CheckFailed(text).into() } else { anyhow!(text) }
}

/// Logs in once, runs the program once, and so learns what right answers look like.
pub fn prepare(settings: &Settings) -> Result<(Plan, String)> {
    let levels = settings.program.steps.iter();
    let levels = levels.map(|step| settings.level.unwrap_or(if step.is_fixed() { Level::Same } else { Level::Rows }));
    let mut plan = Plan {
        tls: transport::tls_config(&settings.target)?,
        target: settings.target.clone(),
        levels: levels.collect(),
        program: settings.program.clone(),
        expected: settings.expected.clone(),
        first: Vec::new(),
        depth: settings.depth,
        churn: settings.churn,
        stamped: false,
    };
    let (first, version) = engine::probe(&plan, (settings.timeout_s * 1e9) as u64).map_err(failed)?;
    plan.first = first;
    // Only what is answered in one piece and never holds up the server may lie unread until the next send.
    let bytes: u64 = plan.first.iter().map(|tally| tally.bytes).sum::<u64>() * settings.depth as u64;
    plan.stamped = matches!(settings.target.address, Address::Inet(_))
        && settings.open.is_some()
        && settings.target.tls == TlsMode::Disable
        && plan.program.steps.len() == 1
        && !settings.churn
        && bytes <= UNREAD_BYTES_MAX;
    Ok((plan, version))
}

/// Runs it. `progress` hears of every interval.
pub fn run(settings: &Settings, progress: &mut dyn FnMut(&Point, bool)) -> Result<Outcome> {
    ensure!(settings.connections >= 1, "at least one connection is needed");
    ensure!(settings.duration_s.is_some() || settings.count.is_some(), "a run needs a duration or a count");
    sys::raise_open_files();
    let (plan, version) = prepare(settings)?;
    let plan = Arc::new(plan);
    let threads = settings.threads.clamp(1, settings.connections);
    let (to_us, reports) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let mut starts = Vec::new();
    for thread in 0..threads {
        let task = task(settings, &plan, thread, threads);
        let (start, started) = mpsc::channel();
        starts.push(start);
        let (to_us, stop) = (to_us.clone(), Arc::clone(&stop));
        std::thread::Builder::new()
            .name(format!("load-{thread}"))
            .spawn(move || engine::run(task, to_us, started, stop))?;
    }
    drop(to_us);
    let mut collector = Collector::new(settings, threads);
    collector.version = version;
    let result = collector.collect(&reports, &starts, &stop, progress);
    stop.store(true, Ordering::Relaxed);
    result?;
    Ok(collector.outcome(settings))
}

fn task(settings: &Settings, plan: &Arc<Plan>, thread: usize, threads: usize) -> Task {
    let share = |total: u64| total / threads as u64 + u64::from((thread as u64) < total % threads as u64);
    let duration_s = settings.duration_s.unwrap_or(f64::INFINITY);
    let schedule = settings.open.as_ref().map(|(profile, arrivals)| {
        let share = (thread, threads);
        Schedule::new(profile, *arrivals, settings.warmup_s, duration_s, share, settings.seed)
            .in_ticks(settings.tick_ns)
    });
    Task {
        plan: Arc::clone(plan),
        connections: share(settings.connections as u64) as usize,
        schedule,
        ticks: settings.tick_ns > 0,
        warmup_ns: (settings.warmup_s * 1e9) as u64,
        duration_ns: settings.duration_s.map(|seconds| (seconds * 1e9) as u64),
        count: settings.count.map(share),
        interval_ns: (settings.interval_s * 1e9) as u64,
        timeout_ns: (settings.timeout_s * 1e9) as u64,
        spin_ns: settings.spin_ns,
        seed: settings.seed.wrapping_add(thread as u64),
    }
}

/// Puts the threads' intervals together.
struct Collector {
    threads: usize,
    interval_s: f64,
    warmup_s: f64,
    /// Intervals not all threads have told of yet.
    open: BTreeMap<i64, (usize, Counts)>,
    total: Counts,
    points: Vec<Point>,
    hlog: Vec<String>,
    steps: Vec<Step>,
    step_s: f64,
    began: SystemTime,
    version: String,
    start_ns: u64,
    cpu_ns: u64,
    requests: u64,
    last_ns: u64,
    interrupted: bool,
}

impl Collector {
    fn new(settings: &Settings, threads: usize) -> Collector {
        let rates = match &settings.open {
            Some((Profile::Steps(rates), _)) => rates.as_slice(),
            Some((Profile::Flat(_) | Profile::Ramp(..), _)) | None => &[],
        };
        let step = |&rate| Step { rate, seconds: 0.0, counts: Counts::default() };
        Collector {
            steps: rates.iter().map(step).collect(),
            step_s: settings.duration_s.unwrap_or(f64::INFINITY) / rates.len() as f64,
            began: SystemTime::now(),
            threads,
            interval_s: settings.interval_s,
            warmup_s: settings.warmup_s,
            open: BTreeMap::new(),
            total: Counts::default(),
            points: Vec::new(),
            hlog: Vec::new(),
            version: String::new(),
            start_ns: 0,
            cpu_ns: 0,
            requests: 0,
            last_ns: 0,
            interrupted: false,
        }
    }

    fn collect(
        &mut self,
        reports: &mpsc::Receiver<Report>,
        starts: &[mpsc::Sender<u64>],
        stop: &AtomicBool,
        progress: &mut dyn FnMut(&Point, bool),
    ) -> Result<()> {
        let (mut ready, mut done) = (0, 0);
        while done < self.threads {
            if sys::interrupted() && !self.interrupted {
                self.interrupted = true;
                stop.store(true, Ordering::Relaxed);
            }
            let report = match reports.recv_timeout(Duration::from_millis(100)) {
                Ok(report) => report,
                Err(mpsc::RecvTimeoutError::Timeout) => continue,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(anyhow!("a load thread ended unexpectedly")),
            };
            match report {
                Report::Failed(fault) => return Err(failed(fault)),
                Report::Ready { server_version } => {
                    ready += 1;
                    if !server_version.is_empty() {
                        self.version = server_version;
                    }
                    if ready == self.threads {
                        self.start_ns = now_ns() + HEAD_START_NS;
                        let until = Duration::from_nanos(HEAD_START_NS) + Duration::from_secs_f64(self.warmup_s);
                        self.began = SystemTime::now() + until;
                        for start in starts {
                            let _ = start.send(self.start_ns);
                        }
                    }
                }
                Report::Interval { index, counts } => self.interval(index, &counts, progress),
                Report::Done(end) => {
                    done += 1;
                    self.cpu_ns += end.cpu_ns;
                    self.requests += end.requests;
                    self.last_ns = self.last_ns.max(end.last_ns);
                }
            }
        }
        for (index, (_, counts)) in std::mem::take(&mut self.open) {
            self.close(index, &counts, progress);
        }
        Ok(())
    }

    fn interval(&mut self, index: i64, counts: &Counts, progress: &mut dyn FnMut(&Point, bool)) {
        self.total.add(counts);
        let entry = self.open.entry(index).or_default();
        entry.0 += 1;
        entry.1.add(counts);
        if entry.0 == self.threads {
            let (_, counts) = self.open.remove(&index).expect("it was just there");
            self.close(index, &counts, progress);
        }
    }

    fn close(&mut self, index: i64, counts: &Counts, progress: &mut dyn FnMut(&Point, bool)) {
        let point = Point::of(counts, (index + 1) as f64 * self.interval_s, self.interval_s);
        progress(&point, index < 0);
        // The last interval is cut short; without requests there is nothing to plot.
        if index >= 0 && (point.done > 0 || point.faults > 0 || point.offered > 0) {
            self.hlog.push(hlog::line(index as f64 * self.interval_s, self.interval_s, &counts.response));
            self.points.push(point);
            self.count_in_step(index, counts);
        }
    }

    /// An interval that reaches into two steps counts in neither.
    fn count_in_step(&mut self, index: i64, counts: &Counts) {
        let (from, to) = (index as f64 * self.interval_s, (index + 1) as f64 * self.interval_s);
        let (first, last) = ((from / self.step_s + 1e-6) as usize, (to / self.step_s - 1e-6) as usize);
        let steps = self.steps.len();
        if first >= steps {
            // What was sent or answered after the end was due in the last step.
            self.steps.last_mut().into_iter().for_each(|step| step.counts.add(counts));
        } else if first == last {
            self.steps[first].seconds += self.interval_s;
            self.steps[first].counts.add(counts);
        }
    }

    fn outcome(self, settings: &Settings) -> Outcome {
        let measured_ns = self.last_ns.saturating_sub(self.start_ns + (self.warmup_s * 1e9) as u64);
        let last_s = measured_ns as f64 / 1e9;
        let planned_s =
            if self.interrupted || settings.count.is_some() { last_s } else { settings.duration_s.unwrap_or(last_s) };
        let elapsed_s = planned_s.max(last_s).max(1e-9);
        let lag_ns = self.total.lag.value_at_quantile(0.999);
        let late = (settings.open.is_some() && lag_ns > settings.lag_limit_ns).then(|| {
            format!(
                "the generator itself was late: its send lag p99.9 is {}, above the limit of {} (--lag-limit). Percentiles \
                 would blame the server for that, so none are shown. Use fewer requests a second, more --threads, a less \
                 busy machine, or --spin",
                time(lag_ns),
                time(settings.lag_limit_ns)
            )
        });
        Outcome {
            offered: self.total.offered as f64 / planned_s.max(1e-9),
            achieved: self.total.response.len() as f64 / elapsed_s,
            elapsed_s,
            cpu_ns: if self.requests > 0 { self.cpu_ns as f64 / self.requests as f64 } else { 0.0 },
            late,
            server_version: self.version,
            closed: settings.open.is_none(),
            interrupted: self.interrupted,
            points: self.points,
            hlog: self.hlog,
            steps: self.steps,
            began: self.began,
            total: self.total,
        }
    }
}
