//! One thread of load: sends when it is time, whatever the server does, and takes the time of every answer.
//!
//! ```text
//!   schedule --due--> backlog --free connection--> socket --> response checked, timed, counted
//! ```
//!
//! A request that finds no connection free waits in the backlog with its intended time, so its wait is measured, not hidden.

use crate::alarms::{self, Alarms};
use crate::conn::{Conn, Fault, News, Plan, Request};
use crate::measure::{Counts, add_fault};
use crate::rng::Rng;
use crate::schedule::Schedule;
use crate::sys::{self, Epoll, now_ns};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};

/// Logins under way at a time, a thread: a server's listen backlog is not what is measured.
const LOGINS_MAX: usize = 32;
/// How often timeouts are looked for.
const SWEEP_NS: u64 = 20_000_000;
/// A connection that was lost is tried again after that long.
const RECONNECT_NS: u64 = 100_000_000;
/// Answers are left unread until the next send if that is at most so far off: every wake has its price.
const NAP_NS_MAX: u64 = 500_000;
/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 256;

/// What one thread does.
#[derive(Debug)]
pub struct Task {
    pub plan: Arc<Plan>,
    pub connections: usize,
    /// `None`: closed loop.
    pub schedule: Option<Schedule>,
    /// The schedule is in ticks.
    pub ticks: bool,
    pub warmup_ns: u64,
    /// Requests end that long after measuring began ...
    pub duration_ns: Option<u64>,
    /// ... or after that many measured.
    pub count: Option<u64>,
    pub interval_ns: u64,
    pub timeout_ns: u64,
    /// Wakes that much before a send is due and polls until it is.
    pub spin_ns: u64,
    pub seed: u64,
}

/// What a thread tells.
#[derive(Debug)]
pub enum Report {
    Ready { server_version: String },
    Failed(Fault),
    Interval { index: i64, counts: Box<Counts> },
    Done(End),
}

#[derive(Clone, Copy, Debug, Default)]
pub struct End {
    /// CPU this thread used from the start of measuring to its end, and requests it finished in that time.
    pub cpu_ns: u64,
    pub requests: u64,
    /// When the last response came, or it gave up.
    pub last_ns: u64,
}

/// Logs in, waits for the start time, generates load until the end.
pub fn run(task: Task, reports: Sender<Report>, start: Receiver<u64>, stop: Arc<AtomicBool>) {
    sys::precise_timers();
    let mut engine = match Engine::new(task, reports.clone(), stop) {
        Ok(engine) => engine,
        Err(error) => return drop(reports.send(Report::Failed(Fault::new("start", error.to_string())))),
    };
    let ready = if engine.task.plan.churn { Ok(()) } else { engine.log_in() };
    if let Err(fault) = ready {
        return drop(reports.send(Report::Failed(fault)));
    }
    let server_version = engine.conns.first().map_or(String::new(), |conn| conn.server_version.clone());
    let _ = reports.send(Report::Ready { server_version });
    // Nobody starts us when another thread could not log in.
    let Ok(start_ns) = start.recv() else { return };
    match engine.generate(start_ns) {
        Ok(end) => drop(reports.send(Report::Done(end))),
        Err(error) => drop(reports.send(Report::Failed(Fault::new("epoll", error.to_string())))),
    }
}

/// Room for one request on a connection.
#[derive(Clone, Copy, Debug)]
struct Slot {
    conn: usize,
    generation: u32,
    since_ns: u64,
}

struct Engine {
    task: Task,
    reports: Sender<Report>,
    stop: Arc<AtomicBool>,
    epoll: Epoll,
    conns: Vec<Conn>,
    free: VecDeque<Slot>,
    backlog: VecDeque<u64>,
    /// Connections with bytes to send.
    dirty: Vec<usize>,
    reconnect: VecDeque<(u64, usize)>,
    news: Vec<News>,
    rng: Rng,
    counts: Counts,
    measure_ns: u64,
    requests: u64,
    inflight: usize,
    last_ns: u64,
    /// Responses may lie unread, because the kernel has noted every arrival so far.
    naps: bool,
}

impl Engine {
    fn new(task: Task, reports: Sender<Report>, stop: Arc<AtomicBool>) -> std::io::Result<Engine> {
        Ok(Engine {
            epoll: Epoll::new(EVENTS_MAX)?,
            conns: (0..task.connections).map(|token| Conn::new(token as u64)).collect(),
            free: VecDeque::with_capacity(task.connections * task.plan.depth),
            backlog: VecDeque::new(),
            dirty: Vec::new(),
            reconnect: VecDeque::new(),
            news: Vec::new(),
            rng: Rng::new(task.seed ^ 0x5eed),
            counts: Counts::default(),
            measure_ns: u64::MAX,
            requests: 0,
            inflight: 0,
            last_ns: 0,
            naps: task.plan.stamped,
            reports,
            stop,
            task,
        })
    }

    /// Opens every connection. The first failure ends it: a run with fewer connections is another run.
    fn log_in(&mut self) -> Result<(), Fault> {
        let plan = Arc::clone(&self.task.plan);
        let (mut opened, mut ready) = (0, 0);
        while ready < self.conns.len() {
            while opened < self.conns.len() && opened - ready < LOGINS_MAX {
                self.conns[opened].open(&plan, &self.epoll)?;
                opened += 1;
            }
            let events = self.epoll.wait(Some(SWEEP_NS)).map_err(|error| Fault::new("epoll", error.to_string()))?;
            for index in 0..events {
                let event = self.epoll.event(index);
                let conn = &mut self.conns[event.token as usize];
                conn.ready(&plan, &self.epoll, event.hangup, &mut self.news)?;
            }
            ready += self.news.drain(..).filter(|news| matches!(news, News::Ready)).count();
            let now = now_ns();
            let late = |conn: &Conn| conn.waiting_since_ns().is_some_and(|since| now - since > self.task.timeout_ns);
            if self.conns[..opened].iter().any(late) {
                let seconds = self.task.timeout_ns as f64 / 1e9;
                return Err(Fault::new("login", format!("the server did not finish a login within {seconds} s")));
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(Fault::new("interrupted", "interrupted while logging in"));
            }
        }
        Ok(())
    }

    fn generate(&mut self, start_ns: u64) -> std::io::Result<End> {
        let plan = Arc::clone(&self.task.plan);
        self.measure_ns = start_ns + self.task.warmup_ns;
        let end_ns = self.task.duration_ns.map_or(u64::MAX, |duration| self.measure_ns + duration);
        let mut left = self.task.count.unwrap_or(u64::MAX);
        for conn in 0..self.conns.len() {
            self.free_slots(conn, plan.depth, start_ns);
        }
        let mut alarms = Alarms::new(&self.epoll, self.task.spin_ns)?;
        self.look_ahead(&mut alarms, start_ns);
        let mut interval_end = start_ns + self.task.interval_ns;
        let mut interval = -((self.task.warmup_ns / self.task.interval_ns) as i64);
        if self.task.warmup_ns > 0 {
            // The first interval of warm-up takes what does not divide evenly, so that measuring begins with an interval.
            interval_end += self.task.warmup_ns % self.task.interval_ns;
        }
        let mut cpu_before = None;
        let mut sweep = start_ns + SWEEP_NS;
        let mut giving_up = u64::MAX;
        loop {
            let mut now = now_ns();
            if cpu_before.is_none() && now >= self.measure_ns {
                cpu_before = Some((sys::thread_cpu_ns(), self.requests));
            }
            if now >= interval_end {
                let counts = Box::new(std::mem::take(&mut self.counts));
                let _ = self.reports.send(Report::Interval { index: interval, counts });
                interval += 1;
                interval_end += self.task.interval_ns;
            }
            if now >= sweep {
                self.sweep(now);
                sweep = now + SWEEP_NS;
                if self.stop.load(Ordering::Relaxed) {
                    left = 0;
                }
            }
            if now >= start_ns {
                if self.task.schedule.is_some() {
                    while left > 0
                        && let Some(due) = alarms.take_due(now.min(end_ns - 1))
                    {
                        self.backlog.push_back(due);
                        if due >= self.measure_ns {
                            self.counts.offered += 1;
                            left -= 1;
                        }
                        self.look_ahead(&mut alarms, start_ns);
                    }
                    now = self.dispatch(&plan, now);
                } else {
                    self.dispatch_closed(&plan, now, end_ns, &mut left);
                }
            }
            let generating = left > 0 && alarms.next().unwrap_or(now) < end_ns;
            if !generating {
                if self.inflight == 0 && self.backlog.is_empty() {
                    break;
                }
                giving_up = giving_up.min(now + self.task.timeout_ns);
                if now >= giving_up {
                    self.give_up();
                    break;
                }
            }
            let due = alarms.next().filter(|_| generating).map_or(u64::MAX, |due| due - self.task.spin_ns.min(due));
            let other = if now < start_ns { start_ns } else { interval_end.min(sweep) };
            // Below 2 us a wait costs more than it waits for.
            let now = now_ns();
            let left_ns = due.min(other).saturating_sub(now);
            let wait = match left_ns {
                0..2_000 => Some(0),
                _ if due <= other => None,
                _ => Some(left_ns),
            };
            if wait.is_none() {
                alarms.set(now)?;
            }
            // The kernel notes when answers arrive: unless somebody waits for a connection they may lie until the next send.
            let nap_ns_max = if self.task.ticks { u64::MAX } else { NAP_NS_MAX };
            let nap = self.naps && self.backlog.is_empty() && wait.is_none() && left_ns <= nap_ns_max;
            let events = self.epoll.wait(if nap { Some(0) } else { wait })?;
            for index in 0..events {
                let event = self.epoll.event(index);
                if event.token != alarms::TOKEN {
                    self.event(&plan, event);
                }
            }
            if nap && now_ns() < due {
                alarms.sleep()?;
            }
        }
        let (cpu, requests) = cpu_before.unwrap_or((sys::thread_cpu_ns(), self.requests));
        let end = End { cpu_ns: sys::thread_cpu_ns() - cpu, requests: self.requests - requests, last_ns: self.last_ns };
        let counts = Box::new(std::mem::take(&mut self.counts));
        let _ = self.reports.send(Report::Interval { index: interval, counts });
        self.conns.iter_mut().for_each(|conn| drop(conn.close()));
        Ok(end)
    }

    /// Draws the next times to send.
    fn look_ahead(&mut self, alarms: &mut Alarms, start_ns: u64) {
        let Some(schedule) = self.task.schedule.as_mut() else { return };
        while !alarms.is_full() {
            alarms.add(start_ns + schedule.next_ns());
        }
    }

    fn free_slots(&mut self, conn: usize, count: usize, since_ns: u64) {
        let generation = self.conns[conn].generation;
        self.free.extend(std::iter::repeat_n(Slot { conn, generation, since_ns }, count));
    }

    /// A slot on a connection that is still the one it was.
    fn take_slot(&mut self, churn: bool) -> Option<Slot> {
        loop {
            let slot = self.free.pop_front()?;
            let conn = &self.conns[slot.conn];
            if churn || (conn.generation == slot.generation && conn.is_ready()) {
                return Some(slot);
            }
        }
    }

    /// Sends what is due as far as connections are free. Returns the time it was done.
    fn dispatch(&mut self, plan: &Plan, mut now: u64) -> u64 {
        while let Some(&intended) = self.backlog.front() {
            let Some(slot) = self.take_slot(plan.churn) else { break };
            self.backlog.pop_front();
            now = now_ns();
            if intended >= self.measure_ns {
                // Late only as far as it could have been sent earlier: it was due and a connection was free.
                self.counts.lag.saturating_record(now.saturating_sub(intended.max(slot.since_ns)).max(1));
            }
            self.send(plan, slot.conn, intended, now);
        }
        self.flush_dirty();
        now
    }

    fn dispatch_closed(&mut self, plan: &Plan, now: u64, end_ns: u64, left: &mut u64) {
        while *left > 0 && now < end_ns {
            let Some(slot) = self.take_slot(plan.churn) else { break };
            let now = now_ns();
            if now >= self.measure_ns {
                self.counts.offered += 1;
                *left -= 1;
            }
            self.send(plan, slot.conn, now, now);
        }
        self.flush_dirty();
    }

    fn send(&mut self, plan: &Plan, index: usize, intended: u64, now: u64) {
        let conn = &mut self.conns[index];
        plan.program.draw(&mut self.rng, &mut conn.values);
        conn.begin(plan, intended, now);
        self.inflight += 1;
        let result = if plan.churn { conn.open(plan, &self.epoll) } else { Ok(()) };
        match result {
            Err(fault) => self.lose(index, fault),
            // One request a connection: nothing is gained by waiting for another.
            Ok(()) if plan.depth == 1 => self.flush(index),
            Ok(()) => {
                if self.dirty.last() != Some(&index) {
                    self.dirty.push(index);
                }
            }
        }
    }

    fn flush_dirty(&mut self) {
        while let Some(index) = self.dirty.pop() {
            self.flush(index);
        }
    }

    fn flush(&mut self, index: usize) {
        if let Err(fault) = self.conns[index].flush(&self.epoll) {
            self.lose(index, fault);
        }
    }

    fn event(&mut self, plan: &Plan, event: sys::Readiness) {
        let index = event.token as usize;
        let mut news = std::mem::take(&mut self.news);
        let conn = &mut self.conns[index];
        let generation = conn.generation;
        let result = if conn.is_closed() { Ok(()) } else { conn.ready(plan, &self.epoll, event.hangup, &mut news) };
        self.counts.bytes += std::mem::take(&mut self.conns[index].bytes);
        self.naps &= self.conns[index].stamped;
        for item in news.drain(..) {
            match item {
                News::Ready if !plan.churn => self.free_slots(index, plan.depth, now_ns()),
                News::Ready => {}
                News::Finished { request, at_ns, fault } => {
                    self.finish(&request, at_ns, fault.as_deref());
                    if plan.churn {
                        self.conns[index].close();
                    }
                    self.free.push_back(Slot { conn: index, generation, since_ns: at_ns });
                }
            }
        }
        self.news = news;
        if let Err(fault) = result {
            self.lose(index, fault);
        }
    }

    fn finish(&mut self, request: &Request, at_ns: u64, fault: Option<&Fault>) {
        self.inflight -= 1;
        self.requests += 1;
        if request.intended_ns < self.measure_ns {
            return;
        }
        self.last_ns = at_ns;
        match fault {
            Some(fault) => add_fault(&mut self.counts.faults, &fault.kind, 1, &fault.detail),
            None => {
                self.counts.response.saturating_record(at_ns.saturating_sub(request.intended_ns).max(1));
                self.counts.service.saturating_record(at_ns.saturating_sub(request.sent_ns).max(1));
            }
        }
    }

    /// A connection is gone, and with it what it carried.
    fn lose(&mut self, index: usize, fault: Fault) {
        if self.conns[index].is_closed() && self.conns[index].inflight() == 0 {
            return;
        }
        let now = now_ns();
        let requests = self.conns[index].close();
        if requests.is_empty() {
            // Even where no request was in flight, somebody should hear of it.
            add_fault(&mut self.counts.faults, &fault.kind, 1, &fault.detail);
        }
        requests.iter().for_each(|request| self.finish(request, now, Some(&fault)));
        if self.task.plan.churn {
            self.free.push_back(Slot { conn: index, generation: 0, since_ns: now });
        } else {
            self.reconnect.push_back((now + RECONNECT_NS, index));
        }
    }

    /// Gives up on requests that took too long; tries lost connections again.
    fn sweep(&mut self, now: u64) {
        let timeout = self.task.timeout_ns;
        for index in 0..self.conns.len() {
            if self.conns[index].waiting_since_ns().is_some_and(|since| now.saturating_sub(since) > timeout) {
                let detail = format!("no answer within {} s", timeout as f64 / 1e9);
                self.lose(index, Fault::new("timeout", detail));
            }
        }
        while let Some(&(at, index)) = self.reconnect.front().filter(|(at, _)| *at <= now) {
            debug_assert!(at <= now);
            self.reconnect.pop_front();
            let plan = Arc::clone(&self.task.plan);
            if let Err(fault) = self.conns[index].open(&plan, &self.epoll) {
                add_fault(&mut self.counts.faults, &fault.kind, 1, &fault.detail);
                self.reconnect.push_back((now + RECONNECT_NS, index));
            }
        }
    }

    /// What is not answered by now counts as failed: silence must not look like success.
    fn give_up(&mut self) {
        let now = now_ns();
        let fault = Fault::new("unfinished", "not answered when the run ended");
        for index in 0..self.conns.len() {
            let requests = self.conns[index].close();
            requests.iter().for_each(|request| self.finish(request, now, Some(&fault)));
        }
        let measured = self.backlog.iter().filter(|&&intended| intended >= self.measure_ns).count() as u64;
        if measured > 0 {
            add_fault(&mut self.counts.faults, "never sent", measured, "no connection was free until the run ended");
        }
        self.backlog.clear();
        self.last_ns = now;
    }
}

/// Runs the program once on one connection and returns what each statement answered, with the server's version.
pub fn probe(plan: &Plan, timeout_ns: u64) -> Result<(Vec<crate::check::Tally>, String), Fault> {
    let epoll_fault = |error: std::io::Error| Fault::new("epoll", error.to_string());
    let mut epoll = Epoll::new(8).map_err(epoll_fault)?;
    let mut conn = Conn::new(0);
    let mut news = Vec::new();
    conn.open(plan, &epoll)?;
    let begun = now_ns();
    loop {
        for index in 0..epoll.wait(Some(SWEEP_NS)).map_err(epoll_fault)? {
            let event = epoll.event(index);
            conn.ready(plan, &epoll, event.hangup, &mut news)?;
        }
        for item in std::mem::take(&mut news) {
            match item {
                News::Ready => {
                    plan.program.draw(&mut Rng::new(1), &mut conn.values);
                    let now = now_ns();
                    conn.begin(plan, now, now);
                    conn.flush(&epoll)?;
                }
                News::Finished { fault: Some(fault), .. } => return Err(*fault),
                News::Finished { .. } => {
                    conn.close();
                    return Ok((std::mem::take(&mut conn.tallies), conn.server_version));
                }
            }
        }
        if now_ns() - begun > timeout_ns {
            return Err(Fault::new(
                "login",
                format!("no answer to a first request within {} s", timeout_ns as f64 / 1e9),
            ));
        }
    }
}
