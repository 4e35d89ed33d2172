//! One thread of load: sends when it is time, whatever the server does, and takes the time of every answer.
//!
//! ```text
//!   schedule --due--> backlog --free connection--> socket --> response checked, timed, counted
//! ```
//!
//! A request that finds no connection free waits in the backlog with its intended time, so its wait is measured, not hidden.

mod connections;
mod counting;
mod watch;

use crate::alarms::{self, Alarms};
use crate::conn::{Conn, Fault, News, Plan, Request};
use crate::measure::{Counts, NEVER_SENT, add_fault};
use crate::rng::Rng;
use crate::schedule::Schedule;
use crate::spans::Spans;
use crate::sys::{self, Epoll, now_ns};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use watch::Watch;

/// Logins under way at a time, a thread: a server's listen backlog is not what is measured.
const LOGINS_MAX: usize = 32;
/// How often timeouts are looked for.
const SWEEP_NS: u64 = 20_000_000;
/// A connection that could not be made, or was lost before it served, is tried again after that long.
const RECONNECT_NS: u64 = 100_000_000;
/// Answers are left unread until the next send if that is at most so far off: every wake has its price.
const NAP_NS_MAX: u64 = 500_000;
/// What is on its way when a run is interrupted gets that much time to be answered.
const STOP_WAIT_NS: u64 = 1_000_000_000;
/// Requests that may wait for a connection, a thread: 64 MB of them. Those beyond have failed.
const BACKLOG_MAX: usize = 4_000_000;
/// Over less than this CPU is no share of a core: the few wakes around the beginning of measuring are all there is of it.
const BUSY_SPAN_NS_MIN: u64 = 100_000_000;
/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 256;

/// What one thread does.
#[derive(Debug)]
pub struct Task {
    /// Which of the threads this is.
    pub thread: usize,
    pub plan: Arc<Plan>,
    pub connections: usize,
    /// `None`: closed loop.
    pub schedule: Option<Schedule>,
    /// The schedule is in ticks.
    pub ticks: bool,
    /// The load ends after its duration ...
    pub spans: Spans,
    /// ... or after that many requests measured.
    pub count: Option<u64>,
    pub timeout_ns: u64,
    /// Wakes that much before a send is due and polls until it is.
    pub spin_ns: u64,
    /// How long it may stand still and go on as if nothing had been.
    pub lag_limit_ns: u64,
    pub seed: u64,
}

/// What a thread tells.
#[derive(Debug)]
pub enum Report {
    Ready {
        server_version: String,
    },
    Failed(Fault),
    /// `until_ns`: when it ended, since measuring began; the last one may end before its time.
    Interval {
        thread: usize,
        index: i64,
        until_ns: i64,
        counts: Box<Counts>,
    },
    Done(End),
}

#[derive(Clone, Copy, Debug, Default)]
pub struct End {
    pub thread: usize,
    /// CPU this thread used from the start of measuring to its end, and requests it finished in that time.
    pub cpu_ns: u64,
    pub requests: u64,
    /// When the last response came, or it gave up.
    pub last_ns: u64,
    /// When no more requests were due; `u64::MAX` in a closed loop that ended by its count.
    pub load_end_ns: u64,
    /// Of a core, from the start of measuring to the end of the load; `None`: that was too short to tell.
    pub busy: Option<f64>,
    pub cut: Option<Cut>,
}

/// Why a thread ended before it had done what it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// For as long as a request may take, none could be sent.
    NoConnection,
}

/// How long a loop without any connection goes on where nothing else ends it: as long as a request may take, but not so short that
/// nothing was tried.
pub fn patience_ns(timeout_ns: u64) -> u64 {
    timeout_ns.max(10 * RECONNECT_NS)
}

/// Logs in, waits for the start time, generates load until the end, and keeps its connections until nobody can start it any more:
/// somebody may still look at the server's processes, of which each may serve one connection and end with it.
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
    let _ = start.recv();
    engine.conns.iter_mut().for_each(|conn| drop(conn.close()));
}

/// Room for one request on a connection.
#[derive(Clone, Copy, Debug)]
struct Slot {
    conn: usize,
    generation: u32,
    since_ns: u64,
}

/// A request that is due.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    due_ns: u64,
    /// How long after that it was noticed.
    late_ns: u64,
}

impl Waiting {
    /// How much later than possible it is sent at `now` on a connection that has been free since `free_ns`. After a time in which
    /// this generator stood still, connections were free for the first few requests only; that the others are late shows in
    /// when they were noticed.
    fn lag_ns(self, free_ns: u64, now: u64) -> u64 {
        self.late_ns.max(now.saturating_sub(self.due_ns.max(free_ns)))
    }
}

struct Engine {
    task: Task,
    reports: Sender<Report>,
    stop: Arc<AtomicBool>,
    epoll: Epoll,
    conns: Vec<Conn>,
    free: VecDeque<Slot>,
    backlog: VecDeque<Waiting>,
    /// Connections with bytes to send.
    dirty: Vec<usize>,
    /// Connections with more to read than the others were made to wait for.
    unread: Vec<usize>,
    /// Connections that were lost, and when to go on with them.
    reconnect: VecDeque<(u64, usize)>,
    news: Vec<News>,
    rng: Rng,
    counts: Counts,
    start_ns: u64,
    measure_ns: u64,
    /// No request is due from then on.
    end_ns: u64,
    /// The load ends: `end_ns`, or when the next request would have been due after the last of a count, or when it was stopped.
    /// `u64::MAX` until it is known.
    load_end_ns: u64,
    /// Requests still to be measured.
    left: u64,
    stopped: bool,
    cut: Option<Cut>,
    interval: i64,
    interval_end_ns: u64,
    sweep_ns: u64,
    giving_up_ns: u64,
    /// What it meant to wake for.
    awaited_ns: u64,
    watch: Watch,
    /// When a connection was last known to be up.
    up_ns: u64,
    /// The shortest response time while the load lasts, the warm-up's included; `None`: nothing was answered.
    quickest_ns: Option<u64>,
    /// CPU and requests when measuring began.
    before: Option<(u64, u64)>,
    /// Of a core, while the load lasted, as in [`End::busy`]; `None`: it lasts.
    busy: Option<Option<f64>>,
    requests: u64,
    inflight: usize,
    last_ns: u64,
    /// Responses may lie unread, because the kernel has noted every arrival so far.
    naps: bool,
}

impl Engine {
    fn new(task: Task, reports: Sender<Report>, stop: Arc<AtomicBool>) -> io::Result<Engine> {
        Ok(Engine {
            epoll: Epoll::new(EVENTS_MAX)?,
            conns: (0..task.connections).map(|token| Conn::new(token as u64)).collect(),
            free: VecDeque::with_capacity(task.connections * task.plan.depth),
            backlog: VecDeque::new(),
            dirty: Vec::new(),
            unread: Vec::new(),
            reconnect: VecDeque::new(),
            news: Vec::new(),
            rng: Rng::new(task.seed ^ 0x5eed),
            counts: Counts::default(),
            start_ns: u64::MAX,
            measure_ns: u64::MAX,
            end_ns: u64::MAX,
            load_end_ns: u64::MAX,
            left: task.count.unwrap_or(u64::MAX),
            stopped: false,
            cut: None,
            interval: task.spans.first(),
            interval_end_ns: u64::MAX,
            sweep_ns: u64::MAX,
            giving_up_ns: u64::MAX,
            awaited_ns: u64::MAX,
            watch: Watch::new(task.lag_limit_ns),
            up_ns: 0,
            quickest_ns: None,
            before: None,
            busy: None,
            requests: 0,
            inflight: 0,
            last_ns: 0,
            // Answers read together would all have come when the last of them did. In a closed loop an answer is what the next
            // request waits for.
            naps: task.plan.stamped && task.plan.depth == 1 && task.schedule.is_some(),
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

    fn generate(&mut self, start_ns: u64) -> io::Result<End> {
        let plan = Arc::clone(&self.task.plan);
        let mut alarms = self.begin(start_ns)?;
        loop {
            let now = now_ns();
            self.keep_time(now);
            if now >= start_ns {
                self.send_what_is_due(&plan, &mut alarms, now);
            }
            let generating = self.left > 0 && alarms.next().unwrap_or(now) < self.end_ns;
            if !generating && self.busy.is_none() {
                self.busy = Some(self.busy_until(now));
            }
            if !generating && self.is_over(now) {
                return Ok(self.end());
            }
            let due = alarms.next().filter(|_| generating).map_or(u64::MAX, |due| due - self.task.spin_ns.min(due));
            self.wait(&plan, &mut alarms, due)?;
        }
    }

    fn begin(&mut self, start_ns: u64) -> io::Result<Alarms> {
        self.start_ns = start_ns;
        self.measure_ns = start_ns + self.task.spans.warmup_ns;
        self.end_ns = self.task.spans.duration_ns.map_or(u64::MAX, |duration| self.measure_ns + duration);
        self.load_end_ns = self.end_ns;
        self.interval_end_ns = self.interval_end();
        self.sweep_ns = start_ns + SWEEP_NS;
        self.up_ns = start_ns;
        for conn in 0..self.conns.len() {
            self.free_slots(conn, self.task.plan.depth, start_ns);
        }
        let mut alarms = Alarms::new(&self.epoll, self.task.spin_ns)?;
        self.look_ahead(&mut alarms);
        Ok(alarms)
    }

    fn interval_end(&self) -> u64 {
        self.measure_ns.saturating_add_signed(self.task.spans.end_ns(self.interval))
    }

    /// What has to be done at its time, whatever the load does.
    fn keep_time(&mut self, now: u64) {
        self.look(now);
        if now >= self.measure_ns {
            self.counts.pause_ns = self.counts.pause_ns.max(now.saturating_sub(self.awaited_ns));
            if self.before.is_none() {
                self.begin_measuring();
            }
        }
        if now >= self.interval_end_ns {
            self.end_interval();
        }
        if now >= self.sweep_ns {
            self.sweep(now);
            self.sweep_ns = now + SWEEP_NS;
            if self.stop.load(Ordering::Relaxed) && !self.stopped {
                self.stop_now(now);
            }
        }
    }

    /// To be called wherever the clock is read.
    fn look(&mut self, now: u64) {
        if let Some(still_ns) = self.watch.look(now)
            && now >= self.measure_ns
        {
            self.counts.pause_ns = self.counts.pause_ns.max(still_ns);
            self.counts.still_ns = self.counts.still_ns.max(still_ns);
        }
    }

    /// What the warm-up left waiting is dropped: a server that cannot keep up would answer nothing else while it is measured.
    fn begin_measuring(&mut self) {
        self.before = Some((sys::thread_cpu_ns(), self.requests));
        let waiting = self.backlog.len();
        self.backlog.retain(|waiting| waiting.due_ns >= self.measure_ns);
        self.counts.warmup_dropped += (waiting - self.backlog.len()) as u64;
    }

    fn end_interval(&mut self) {
        self.report_interval(self.interval_end_ns);
        self.interval += 1;
        self.interval_end_ns = self.interval_end();
    }

    fn report_interval(&mut self, until_ns: u64) {
        let until_ns = until_ns as i64 - self.measure_ns as i64;
        let counts = Box::new(std::mem::take(&mut self.counts));
        let (thread, index) = (self.task.thread, self.interval);
        let _ = self.reports.send(Report::Interval { thread, index, until_ns, counts });
    }

    /// Somebody wants an end now: nothing more is sent, and what is on its way has little time left.
    fn stop_now(&mut self, now: u64) {
        self.stopped = true;
        self.left = 0;
        self.load_end_ns = self.load_end_ns.min(now);
        self.giving_up_ns = now + self.task.timeout_ns.min(STOP_WAIT_NS);
        self.never_sent("the run was interrupted");
    }

    fn send_what_is_due(&mut self, plan: &Plan, alarms: &mut Alarms, now: u64) {
        if self.task.schedule.is_none() {
            return self.dispatch_closed(plan);
        }
        while self.left > 0
            && let Some(due) = alarms.take_due(now.min(self.end_ns - 1))
        {
            self.take_up(due, now);
            self.look_ahead(alarms);
        }
        if self.left == 0 && !self.stopped {
            self.load_end_ns = alarms.next().unwrap_or(now).min(self.end_ns);
        }
        self.dispatch(plan);
    }

    fn take_up(&mut self, due_ns: u64, now: u64) {
        let measured = due_ns >= self.measure_ns;
        if measured {
            self.counts.offered += 1;
            self.left -= 1;
        }
        if self.backlog.len() < BACKLOG_MAX {
            self.backlog.push_back(Waiting { due_ns, late_ns: now - due_ns });
        } else if measured {
            let detail = format!("{BACKLOG_MAX} requests were waiting for a connection already");
            add_fault(&mut self.counts.faults, NEVER_SENT, 1, &detail);
        }
    }

    /// Everything is answered, or was waited for long enough.
    fn is_over(&mut self, now: u64) -> bool {
        if self.inflight == 0 && self.backlog.is_empty() {
            return true;
        }
        self.giving_up_ns = self.giving_up_ns.min(now + self.task.timeout_ns);
        if now < self.giving_up_ns {
            return false;
        }
        self.give_up();
        true
    }

    /// Waits for answers, but not beyond the next send, and takes in what has come.
    fn wait(&mut self, plan: &Plan, alarms: &mut Alarms, due: u64) -> io::Result<()> {
        let now = now_ns();
        let other = if now < self.start_ns { self.start_ns } else { self.interval_end_ns.min(self.sweep_ns) };
        self.awaited_ns = due.min(other).max(now);
        // Below 2 us a wait costs more than it waits for.
        let left_ns = self.awaited_ns - now;
        let wait = match left_ns {
            0..2_000 => Some(0),
            _ if !self.unread.is_empty() => Some(0),
            _ if due <= other => None,
            _ => Some(left_ns),
        };
        if wait.is_none() {
            alarms.set(now)?;
        }
        // The kernel notes when answers arrive: unless somebody waits for a connection they may lie until the next send.
        let nap_ns_max = if self.task.ticks { u64::MAX } else { NAP_NS_MAX };
        self.look(now);
        self.watch.sleep_until(self.awaited_ns);
        let nap = self.naps && self.backlog.is_empty() && wait.is_none() && left_ns <= nap_ns_max;
        let asked = now_ns();
        let events = self.epoll.wait(if nap { Some(0) } else { wait })?;
        // Before anything is read: whatever lies there has lain there while this thread stood still, if it did.
        let told = now_ns();
        self.look(told);
        self.watch.asked(asked, told);
        for index in 0..events {
            let event = self.epoll.event(index);
            if event.token != alarms::TOKEN {
                self.event(plan, event.token as usize, event.hangup);
            }
        }
        for index in std::mem::take(&mut self.unread) {
            if self.conns[index].unread {
                self.event(plan, index, false);
            }
        }
        if nap && self.unread.is_empty() && now_ns() < due {
            self.watch.sleep_until(self.awaited_ns);
            alarms.sleep()?;
        }
        Ok(())
    }

    fn end(&mut self) -> End {
        let now = now_ns();
        let (cpu, requests) = self.before.unwrap_or((sys::thread_cpu_ns(), self.requests));
        // Load that was meant to go on a little longer, had anything been due then, belongs to the last interval.
        let load_end_ns = if self.load_end_ns == u64::MAX { now } else { self.load_end_ns };
        // Nobody waits for the end of a duration in which nothing more is due: time in which nothing happened all the same.
        while self.task.count.is_none() && self.interval_end_ns < load_end_ns {
            self.end_interval();
        }
        // An answer in a sliver of time would look like a rate beyond all others.
        let length_ns = self.task.spans.length_ns;
        let sliver_ns = self.interval_end_ns.saturating_sub(length_ns - length_ns / 10);
        self.report_interval(now.max(load_end_ns).max(sliver_ns).min(self.interval_end_ns));
        End {
            thread: self.task.thread,
            cpu_ns: sys::thread_cpu_ns() - cpu,
            requests: self.requests - requests,
            last_ns: self.last_ns,
            load_end_ns: self.load_end_ns,
            busy: self.busy.unwrap_or_else(|| self.busy_until(now)),
            cut: self.cut,
        }
    }

    fn busy_until(&self, now: u64) -> Option<f64> {
        let (cpu_ns, _) = self.before?;
        let span_ns = now.saturating_sub(self.measure_ns);
        (span_ns >= BUSY_SPAN_NS_MIN).then(|| (sys::thread_cpu_ns() - cpu_ns) as f64 / span_ns as f64)
    }

    /// Draws the next times to send.
    fn look_ahead(&mut self, alarms: &mut Alarms) {
        let Some(schedule) = self.task.schedule.as_mut() else { return };
        while !alarms.is_full() {
            alarms.add(self.start_ns.saturating_add(schedule.next_ns()));
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

    /// Sends what is due as far as connections are free.
    fn dispatch(&mut self, plan: &Plan) {
        while let Some(&waiting) = self.backlog.front() {
            let Some(slot) = self.take_slot(plan.churn) else { break };
            self.backlog.pop_front();
            let now = now_ns();
            self.look(now);
            if waiting.due_ns >= self.measure_ns {
                self.counts.lag.saturating_record(waiting.lag_ns(slot.since_ns, now).max(1));
            }
            let queued = slot.since_ns > waiting.due_ns;
            self.send(plan, slot.conn, Request::new(waiting.due_ns, now).queued(queued));
        }
        self.flush_dirty();
    }

    fn dispatch_closed(&mut self, plan: &Plan) {
        while self.left > 0 {
            let now = now_ns();
            self.look(now);
            if now >= self.end_ns {
                break;
            }
            let Some(slot) = self.take_slot(plan.churn) else { break };
            if now >= self.measure_ns {
                self.counts.offered += 1;
                self.left -= 1;
            }
            if self.left == 0 {
                // Nor does a duration end it any more.
                self.load_end_ns = u64::MAX;
            }
            self.send(plan, slot.conn, Request::new(now, now));
        }
        self.flush_dirty();
    }

    fn send(&mut self, plan: &Plan, index: usize, request: Request) {
        let conn = &mut self.conns[index];
        plan.program.draw(&mut self.rng, &mut conn.values);
        conn.begin(plan, request);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_due_while_the_generator_stood_still_is_late_by_its_own_fault() {
        let lag = |due_ns, noticed_ns, free_ns, sent_ns| {
            Waiting { due_ns, late_ns: noticed_ns - due_ns }.lag_ns(free_ns, sent_ns)
        };
        assert_eq!(lag(100, 101, 50, 103), 3, "the connection was free");
        assert_eq!(lag(100, 101, 200, 202), 2, "it waited for a connection, which is the server's");
        assert_eq!(lag(100, 300, 50, 301), 201, "the first after 200 of standing still");
        assert_eq!(lag(110, 300, 305, 306), 190, "the next, on a connection that came free after that");
    }
}
