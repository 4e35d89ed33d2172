//! Puts together what the threads of a run tell, and draws the verdict on this generator: whether it was late itself.

use crate::engine::{self, Cut, End, Report};
use crate::hlog;
use crate::measure::{Counts, Point, at, time};
use crate::run::{Outcome, Settings, Step, failed, spans};
use crate::schedule::{Arrivals, Profile};
use crate::spans::Spans;
use crate::sys::{self, now_ns};
use anyhow::{Result, anyhow};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

/// Between everybody being ready and the first send, so that all threads are there.
const HEAD_START_NS: u64 = 20_000_000;
/// A thread that takes more of a core than this has no moment to spare.
const BUSY_MAX: f64 = 0.95;
/// Of the answers may have waited for this generator as it stood still, before percentiles are refused: what p99.9 leaves out.
const TOUCHED_MAX: f64 = 0.001;

/// An interval not all threads have told of yet.
#[derive(Debug, Default)]
struct Open {
    threads: usize,
    until_ns: i64,
    counts: Counts,
}

/// What one thread came to: with a count, its load may end at a time of its own.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    offered: u64,
    in_time: u64,
    carried_in: u64,
    just_after: u64,
    load_end_ns: u64,
}

impl Own {
    fn add(&mut self, counts: &Counts) {
        self.offered += counts.offered;
        self.in_time += counts.in_time;
        self.carried_in += counts.carried_in;
        self.just_after += counts.just_after;
    }

    /// As [`Counts::answers_in_time`], and no more than there were requests: chance may let more answers in than out at the ends
    /// of the load.
    fn answers(&self) -> u64 {
        (self.in_time + self.carried_in.max(self.just_after)).min(self.offered)
    }
}

/// Of the load as a whole: how long it lasted, what was due and answered a second, and how many answers that were.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Rates {
    load_s: f64,
    offered: f64,
    achieved: f64,
    answers: u64,
}

/// Where each thread's load lasted a time of its own (how long it is, is chance), rates add up thread by thread: divided by the
/// first thread's time the requests of all would look like too many, by the last one's like too few.
fn rates_apart(threads: &[Own], load_s: &dyn Fn(&Own) -> f64) -> Rates {
    let mut rates = Rates { load_s: 0.0, offered: 0.0, achieved: 0.0, answers: 0 };
    for own in threads {
        let own_s = load_s(own);
        rates.load_s = rates.load_s.max(own_s);
        rates.offered += own.offered as f64 / own_s;
        rates.achieved += own.answers() as f64 / own_s;
        rates.answers += own.answers();
    }
    rates
}

/// In open loops too: that requests were sent when they were due says nothing of when their answers were read.
fn stood_still(total: &Counts, settings: &Settings) -> Option<String> {
    let share = total.touched as f64 / total.response.len().max(1) as f64;
    (share > TOUCHED_MAX).then(|| {
        format!(
            "{:.2} % of the requests waited while the generator itself stood still or worked on other answers, for {} at most, \
             above the limit of {} (--lag-limit). Percentiles would blame the server for that, so none are shown. Use a less busy \
             machine, more --threads, a cheaper check, or requests of one statement over TCP without TLS: their answers are timed by \
             the kernel",
            share * 100.0,
            time(total.still_ns),
            time(settings.lag_limit_ns)
        )
    })
}

/// Puts the threads' intervals together.
pub struct Collector {
    threads: usize,
    /// By thread.
    own: Vec<Own>,
    spans: Spans,
    open: BTreeMap<i64, Open>,
    total: Counts,
    points: Vec<Point>,
    logged: bool,
    hlog: Vec<String>,
    steps: Vec<Step>,
    step_s: f64,
    began: SystemTime,
    pub version: String,
    /// The kernel times answers, as [`crate::conn::Plan::stamped`].
    pub stamped: bool,
    start_ns: u64,
    cpu_ns: u64,
    requests: u64,
    last_ns: u64,
    load_end_ns: u64,
    busiest: Option<f64>,
    cut: Option<Cut>,
    interrupted: bool,
}

impl Collector {
    pub fn new(settings: &Settings, threads: usize) -> Collector {
        let rates = match &settings.open {
            Some((Profile::Steps(rates), _)) => rates.as_slice(),
            Some((Profile::Flat(_) | Profile::Ramp(..), _)) | None => &[],
        };
        let step = |&rate| Step { rate, seconds: 0.0, answered: 0, counts: Counts::default() };
        Collector {
            steps: rates.iter().map(step).collect(),
            step_s: settings.duration_s.unwrap_or(f64::INFINITY) / rates.len() as f64,
            began: SystemTime::now(),
            threads,
            own: vec![Own::default(); threads],
            spans: spans(settings),
            open: BTreeMap::new(),
            total: Counts::default(),
            points: Vec::new(),
            logged: settings.logged,
            hlog: Vec::new(),
            version: String::new(),
            stamped: false,
            start_ns: 0,
            cpu_ns: 0,
            requests: 0,
            last_ns: 0,
            load_end_ns: u64::MAX,
            busiest: None,
            cut: None,
            interrupted: false,
        }
    }

    pub fn collect(
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
                        let until_ns = HEAD_START_NS + self.spans.warmup_ns;
                        self.began = SystemTime::now() + Duration::from_nanos(until_ns);
                        for start in starts {
                            let _ = start.send(self.start_ns);
                        }
                    }
                }
                Report::Interval { thread, index, until_ns, counts } => {
                    self.own[thread].add(&counts);
                    self.interval(index, until_ns, &counts, progress);
                }
                Report::Done(end) => {
                    done += 1;
                    self.done(&end);
                }
            }
        }
        for (index, open) in std::mem::take(&mut self.open) {
            self.close(index, &open, progress);
        }
        Ok(())
    }

    fn done(&mut self, end: &End) {
        self.cpu_ns += end.cpu_ns;
        self.requests += end.requests;
        self.last_ns = self.last_ns.max(end.last_ns);
        self.own[end.thread].load_end_ns = end.load_end_ns;
        // By a count each thread ends with its own share: of evenly spaced arrivals the first that was not sent any more ends the
        // load of all.
        self.load_end_ns = self.load_end_ns.min(end.load_end_ns);
        // `None` is below every number.
        self.busiest = if end.busy > self.busiest { end.busy } else { self.busiest };
        self.cut = self.cut.or(end.cut);
    }

    fn interval(&mut self, index: i64, until_ns: i64, counts: &Counts, progress: &mut dyn FnMut(&Point, bool)) {
        self.total.add(counts);
        let open = self.open.entry(index).or_default();
        open.threads += 1;
        open.until_ns = open.until_ns.max(until_ns);
        open.counts.add(counts);
        if open.threads == self.threads {
            let open = self.open.remove(&index).expect("it was just there");
            self.close(index, &open, progress);
        }
    }

    fn close(&mut self, index: i64, open: &Open, progress: &mut dyn FnMut(&Point, bool)) {
        let warmup = index < 0;
        // In the warm-up nobody asks how long an interval was.
        let until_ns = if warmup { self.spans.end_ns(index) } else { open.until_ns };
        let from_s = self.spans.start_ns(index) as f64 / 1e9;
        let until_s = (until_ns as f64 / 1e9).max(from_s);
        let point = Point::of(&open.counts, until_s, until_s - from_s);
        progress(&point, warmup);
        if !warmup {
            if self.logged {
                self.hlog.push(hlog::line(from_s, point.seconds, &open.counts.response));
            }
            self.points.push(point);
            let last = self.steps.len().saturating_sub(1);
            let of = self.step_of(&point).min(last);
            self.steps.get_mut(of).into_iter().for_each(|step| step.counts.add(&open.counts));
        }
    }

    /// Intervals divide steps evenly. Beyond the last: after the load.
    fn step_of(&self, point: &Point) -> usize {
        ((point.begin_s() + point.seconds / 2.0) / self.step_s) as usize
    }

    /// Now that it is known when the load ended: what comes after it, and in which nothing happened, is left out. Before that
    /// such an interval says that the server stood still, or that nothing was due.
    fn end_series(&mut self, load_s: f64) {
        while self.points.pop_if(|point| point.is_empty() && point.begins_after(load_s)).is_some() {
            self.hlog.pop();
        }
        for point in self.points.iter().filter(|point| !point.begins_after(load_s)) {
            let of = self.step_of(point);
            let Some(step) = self.steps.get_mut(of) else { continue };
            step.seconds += point.seconds;
            step.answered += point.done;
        }
    }

    /// Seconds since measuring began.
    fn since_measuring(&self, at_ns: u64) -> f64 {
        at_ns.saturating_sub(self.start_ns + self.spans.warmup_ns) as f64 / 1e9
    }

    fn cut_short(&self, settings: &Settings, load_s: f64) -> Option<String> {
        let of = match (settings.count, settings.duration_s) {
            (Some(count), _) => format!("{} of {count} requests", self.total.offered),
            (None, duration_s) => format!("{load_s:.2} of {} s", duration_s.unwrap_or(0.0)),
        };
        match self.cut {
            _ if self.interrupted => Some(format!("interrupted after {of}")),
            Some(Cut::NoConnection) => {
                let patience_ns = engine::patience_ns((settings.timeout_s * 1e9) as u64);
                Some(format!("ended after {of}: no connection was up for {}", time(patience_ns)))
            }
            None => None,
        }
    }

    fn count_missed(&self, settings: &Settings) -> Option<String> {
        let (count, duration_s) = settings.count.zip(settings.duration_s)?;
        let offered = self.total.offered;
        let missed = offered < count && self.cut.is_none() && !self.interrupted;
        missed.then(|| format!("{duration_s} s were over (--duration) after {offered} of {count} requests (--count)"))
    }

    fn late(&self, settings: &Settings) -> Option<String> {
        self.at_its_limit(settings).or_else(|| self.lagged(settings)).or_else(|| stood_still(&self.total, settings))
    }

    /// A thread without a moment to spare takes answers in when it gets round to it, and its connections look busy meanwhile.
    fn at_its_limit(&self, settings: &Settings) -> Option<String> {
        // A thread that spins is busy by order.
        let judged = settings.open.is_some() && settings.spin_ns == 0;
        self.too_busy().filter(|_| judged).map(|busy| {
            format!(
                "{busy}. Percentiles would blame the server for that, so none are shown. Use more --threads, fewer requests a second, \
                 a cheaper check, or a less busy machine"
            )
        })
    }

    /// A closed loop goes as fast as both sides can. Where the kernel times no answers, this side may be in the times as well.
    fn limited(&self, settings: &Settings) -> Option<String> {
        let judged = settings.open.is_none() && !self.stamped;
        self.too_busy().filter(|_| judged).map(|busy| {
            format!(
                "{busy}. The rate is what the generator could do, and the times hold its own work: the server may be faster. Use more \
                 --threads, fewer --connections, or a cheaper check"
            )
        })
    }

    fn too_busy(&self) -> Option<String> {
        self.busiest.filter(|&busiest| busiest > BUSY_MAX).map(|busiest| {
            format!("the generator itself was at its limit: a thread of it took {:.0} % of a core", busiest * 100.0)
        })
    }

    fn lagged(&self, settings: &Settings) -> Option<String> {
        let lag_ns = at(&self.total.lag, 99.9);
        (settings.open.is_some() && lag_ns > settings.lag_limit_ns).then(|| {
            format!(
                "the generator itself was late: its send lag p99.9 is {}, above the limit of {} (--lag-limit). Percentiles \
                 would blame the server for that, so none are shown. Use fewer requests a second, more --threads, a less \
                 busy machine, or --spin",
                time(lag_ns),
                time(settings.lag_limit_ns)
            )
        })
    }

    /// Threads that have a count of random arrivals each end when theirs have come.
    fn ends_apart(&self, settings: &Settings) -> bool {
        let random = matches!(settings.open, Some((_, Arrivals::Poisson)));
        random && settings.count.is_some() && self.threads > 1
    }

    fn rates(&self, settings: &Settings) -> Rates {
        if self.ends_apart(settings) {
            return rates_apart(&self.own, &|own| self.since_measuring(own.load_end_ns).max(1e-9));
        }
        // A closed loop that ends by count ends with its last answer.
        let ends_by_answer = self.load_end_ns == u64::MAX;
        let load_end_ns = if ends_by_answer { self.last_ns } else { self.load_end_ns };
        let load_s = self.since_measuring(load_end_ns).max(1e-9);
        let total = &self.total;
        let answers = if ends_by_answer { total.response.len() } else { total.answers_in_time() };
        // Chance may let more answers in than out at the ends of the load.
        let answers = if settings.open.is_some() { answers.min(total.offered) } else { answers };
        Rates { load_s, offered: total.offered as f64 / load_s, achieved: answers as f64 / load_s, answers }
    }

    pub fn outcome(mut self, settings: &Settings) -> Outcome {
        let Rates { load_s, offered, achieved, answers } = self.rates(settings);
        self.end_series(load_s);
        Outcome {
            offered,
            achieved,
            in_time: answers,
            apart: self.ends_apart(settings),
            load_s,
            elapsed_s: load_s.max(self.since_measuring(self.last_ns)),
            busiest: self.busiest,
            cpu_ns: if self.requests > 0 { self.cpu_ns as f64 / self.requests as f64 } else { 0.0 },
            late: self.late(settings),
            limited: self.limited(settings),
            count_missed: self.count_missed(settings),
            cut_short: self.cut_short(settings, load_s),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_refused_where_more_than_one_in_a_thousand_answers_waited_for_the_generator() {
        let settings = crate::cli::plain_settings("postgres://u@127.0.0.1:1/a", None).expect("it is well formed");
        let settings = Settings { lag_limit_ns: 1_000_000, ..settings };
        let late = |touched| {
            let mut total = Counts { touched, still_ns: 30_000_000, ..Counts::default() };
            (0..1000).for_each(|_| total.response.saturating_record(1));
            stood_still(&total, &settings)
        };
        assert_eq!((late(0), late(1)), (None, None));
        let why = late(2).expect("that is too many");
        assert!(why.starts_with("0.20 % of the requests waited") && why.contains("for 30.0 ms at most"), "{why}");
    }

    #[test]
    fn a_closed_loop_says_where_the_generator_was_its_limit_and_an_open_one_shows_no_times() {
        let closed = crate::cli::plain_settings("postgres://u@127.0.0.1:1/a", None).expect("it is well formed");
        let open = Settings { open: Some((Profile::Flat(1000.0), Arrivals::Constant)), ..closed.clone() };
        let says = |settings: &Settings, stamped, busiest| {
            let mut collector = Collector::new(settings, 1);
            (collector.stamped, collector.busiest) = (stamped, busiest);
            (collector.late(settings).is_some(), collector.limited(settings).is_some())
        };
        assert_eq!(says(&closed, false, Some(0.99)), (false, true));
        assert_eq!(says(&closed, true, Some(0.99)), (false, false), "its times are the kernel's");
        assert_eq!((says(&closed, false, Some(0.9)), says(&closed, false, None)), ((false, false), (false, false)));
        assert_eq!(says(&open, false, Some(0.99)), (true, false));
    }

    #[test]
    fn each_threads_requests_are_divided_by_its_own_time() {
        let own = |in_time, load_end_ns| Own { offered: 100, in_time, carried_in: 2, just_after: 1, load_end_ns };
        let rates = rates_apart(&[own(99, 400), own(48, 800)], &|own| own.load_end_ns as f64);
        // 100 / 400 + 100 / 800, and no more answers than requests.
        assert_eq!(rates, Rates { load_s: 800.0, offered: 0.375, achieved: 0.3125, answers: 150 });
    }
}
