//! What becomes of a request: in which number it counts, and with which time.

use super::Engine;
use crate::conn::{Fault, Request};
use crate::measure::{NEVER_SENT, add_fault};
use crate::sys::now_ns;
use std::collections::VecDeque;

impl Engine {
    /// `noted`: that time is the kernel's. Else it is when this thread got round to reading.
    pub(super) fn finish(&mut self, request: &Request, at_ns: u64, noted: bool, fault: Option<&Fault>) {
        self.inflight -= 1;
        self.requests += 1;
        // Timeouts are looked for now and then only: an answer that came in between may be too late.
        let too_late = fault.is_none() && at_ns.saturating_sub(request.sent_ns) > self.task.timeout_ns;
        let timeout = too_late.then(|| self.timed_out());
        let fault = fault.or(timeout.as_ref());
        if request.intended_ns < self.measure_ns {
            return self.finish_of_warmup(request, at_ns, fault);
        }
        // Answers are read in another order than they came.
        self.last_ns = self.last_ns.max(at_ns);
        self.counts.bytes += request.bytes;
        match fault {
            Some(fault) => add_fault(&mut self.counts.faults, &fault.kind, 1, &fault.detail),
            None => {
                let response_ns = at_ns.saturating_sub(request.intended_ns).max(1);
                let service_ns = at_ns.saturating_sub(request.sent_ns).max(1);
                self.counts.response.saturating_record(response_ns);
                self.counts.service.saturating_record(service_ns);
                self.note_our_share(request.sent_ns, at_ns, noted);
                self.count_in_time(at_ns, response_ns, request.queued);
            }
        }
    }

    /// Counts an answer that may have waited for this thread, which stood still or was busy with others.
    fn note_our_share(&mut self, sent_ns: u64, at_ns: u64, noted: bool) {
        let took_ns = at_ns.saturating_sub(sent_ns);
        // What the kernel notes has its time whatever we do, unless it is so long that the server could not send on.
        let behind_ns = if noted { None } else { self.watch.behind_work(at_ns, took_ns) };
        self.counts.still_ns = self.counts.still_ns.max(behind_ns.unwrap_or(0));
        let stood_still = !(noted && self.task.plan.stamped) && self.watch.touches(sent_ns, took_ns);
        self.counts.touched += u64::from(stood_still || behind_ns.is_some());
    }

    fn count_in_time(&mut self, at_ns: u64, response_ns: u64, queued: bool) {
        if at_ns < self.load_end_ns {
            self.note_quickest(response_ns);
            self.counts.in_time += 1;
        } else if self.may_be_on_its_way(queued)
            && self.quickest_ns.is_some_and(|quickest_ns| at_ns - self.load_end_ns <= quickest_ns)
        {
            self.counts.just_after += 1;
        }
    }

    /// At the end of the load a schedule leaves requests on their way, however fast they are answered. Those that had to wait for a
    /// connection were left behind; and a closed loop, which has no schedule to fall behind, did what it did in time.
    fn may_be_on_its_way(&self, queued: bool) -> bool {
        self.task.schedule.is_some() && !queued
    }

    fn note_quickest(&mut self, response_ns: u64) {
        self.quickest_ns = Some(self.quickest_ns.map_or(response_ns, |quickest_ns| quickest_ns.min(response_ns)));
    }

    fn finish_of_warmup(&mut self, request: &Request, at_ns: u64, fault: Option<&Fault>) {
        if fault.is_none() && at_ns < self.load_end_ns {
            self.note_quickest(at_ns.saturating_sub(request.intended_ns).max(1));
        }
        match fault {
            Some(fault) => add_fault(&mut self.counts.warmup_faults, &fault.kind, 1, &fault.detail),
            None if (self.measure_ns..self.load_end_ns).contains(&at_ns) => self.counts.carried_in += 1,
            None => {}
        }
    }

    /// Requests whose connection is gone; what went wrong with one before is what is told of it.
    pub(super) fn fail_all(&mut self, requests: &VecDeque<Request>, now: u64, fault: &Fault) {
        requests.iter().for_each(|request| self.finish(request, now, false, Some(request.fault().unwrap_or(fault))));
    }

    pub(super) fn timed_out(&self) -> Fault {
        Fault::new("timeout", format!("no answer within {} s", self.task.timeout_ns as f64 / 1e9))
    }

    /// What is not answered by now counts as failed: silence must not look like success.
    pub(super) fn give_up(&mut self) {
        let now = now_ns();
        let fault = Fault::new("unfinished", "not answered when the run ended");
        for index in 0..self.conns.len() {
            let requests = self.conns[index].close();
            self.fail_all(&requests, now, &fault);
        }
        self.never_sent("no connection was free until the run ended");
        self.last_ns = now;
    }

    pub(super) fn never_sent(&mut self, why: &str) {
        let measured = self.backlog.iter().filter(|waiting| waiting.due_ns >= self.measure_ns).count() as u64;
        if measured > 0 {
            add_fault(&mut self.counts.faults, NEVER_SENT, measured, why);
        }
        self.backlog.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::tests::plan;
    use crate::engine::Task;
    use crate::program::Protocol;
    use crate::schedule::{Arrivals, Profile, Schedule, Share};
    use crate::spans::Spans;
    use std::sync::mpsc;
    use std::sync::{Arc, atomic::AtomicBool};

    /// Measuring from 0 to 1000.
    fn engine(schedule: Option<Schedule>) -> Engine {
        let task = Task {
            thread: 0,
            plan: Arc::new(plan(Protocol::Simple)),
            connections: 1,
            schedule,
            ticks: false,
            spans: Spans { length_ns: 1_000, warmup_ns: 0, duration_ns: Some(1_000) },
            count: None,
            timeout_ns: 1_000_000,
            spin_ns: 0,
            lag_limit_ns: 1_000_000,
            seed: 1,
        };
        let mut engine =
            Engine::new(task, mpsc::channel().0, Arc::new(AtomicBool::new(false))).expect("there is epoll");
        (engine.measure_ns, engine.load_end_ns, engine.inflight) = (0, 1_000, 4);
        engine
    }

    #[test]
    fn what_comes_after_the_load_counts_for_its_rate_only_in_an_open_loop_and_only_where_it_had_not_queued() {
        let alone = Share { thread: 0, threads: 1, connections: 1 };
        let open = Schedule::new(&Profile::Flat(1.0), Arrivals::Constant, 0.0, 1.0, alone, 1);
        for (schedule, answers) in [(None, 1), (Some(open), 2)] {
            let mut engine = engine(schedule);
            let mut answered = |sent_ns, at_ns, queued| {
                engine.finish(&Request::new(sent_ns, sent_ns).queued(queued), at_ns, false, None);
            };
            answered(0, 700, false);
            answered(700, 1_400, false);
            answered(700, 1_400, true);
            answered(900, 1_701, false);
            assert_eq!((engine.counts.in_time, engine.counts.answers_in_time()), (1, answers));
        }
    }
}
