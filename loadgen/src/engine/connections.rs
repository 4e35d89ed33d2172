//! What befalls connections: news from the kernel, loss, and another try.

use super::{Cut, Engine, RECONNECT_NS, Slot, patience_ns};
use crate::conn::{Conn, Fault, News, Plan};
use crate::measure::add_fault;
use crate::sys::{self, now_ns};
use std::sync::Arc;

impl Engine {
    pub(super) fn event(&mut self, plan: &Plan, index: usize, hangup: bool) {
        let mut news = std::mem::take(&mut self.news);
        if !(plan.stamped && self.conns[index].noted) {
            self.look(now_ns());
        }
        let cpu_ns = plan.long_answers.then(sys::thread_cpu_ns);
        let conn = &mut self.conns[index];
        let generation = conn.generation;
        let result = if conn.is_closed() { Ok(()) } else { conn.ready(plan, &self.epoll, hangup, &mut news) };
        cpu_ns.into_iter().for_each(|before| self.watch.worked(sys::thread_cpu_ns() - before));
        self.naps &= self.conns[index].noted;
        if self.conns[index].unread {
            self.unread.push(index);
        }
        for item in news.drain(..) {
            match item {
                News::Ready => self.is_up(plan, index),
                News::Finished { request, at_ns, noted, fault, free } => {
                    self.finish(&request, at_ns, noted, fault.as_deref());
                    if plan.churn {
                        self.conns[index].close();
                    }
                    if free {
                        self.free.push_back(Slot { conn: index, generation, since_ns: at_ns });
                    }
                }
                News::RolledBack { at_ns } => self.free.push_back(Slot { conn: index, generation, since_ns: at_ns }),
            }
        }
        self.news = news;
        if let Err(fault) = result {
            self.lose(index, fault);
        }
    }

    fn is_up(&mut self, plan: &Plan, index: usize) {
        self.up_ns = now_ns();
        if !plan.churn {
            self.free_slots(index, plan.depth, self.up_ns);
        }
    }

    /// A connection is gone, and with it what it carried.
    pub(super) fn lose(&mut self, index: usize, fault: Fault) {
        if self.conns[index].is_closed() && self.conns[index].inflight() == 0 {
            return;
        }
        let now = now_ns();
        let served = self.conns[index].has_served;
        let requests = self.conns[index].close();
        if requests.is_empty() {
            self.note(&fault, now);
        }
        self.fail_all(&requests, now, &fault);
        if self.task.plan.churn && self.task.schedule.is_some() {
            self.free.push_back(Slot { conn: index, generation: 0, since_ns: now });
        } else if served && !self.task.plan.churn {
            // A server may close connections as it likes, and the time until there is a new one is its own, not a pause of ours.
            self.reopen(index, now);
        } else {
            // In a closed loop also with churn: the next request would fail as fast, and nothing else would be done.
            self.reconnect.push_back((now + RECONNECT_NS, index));
        }
    }

    pub(super) fn reopen(&mut self, index: usize, now: u64) {
        let plan = Arc::clone(&self.task.plan);
        if let Err(fault) = self.conns[index].open(&plan, &self.epoll) {
            self.note(&fault, now);
            self.reconnect.push_back((now + RECONNECT_NS, index));
        }
    }

    /// No request was in flight, but somebody should hear of it.
    pub(super) fn note(&mut self, fault: &Fault, now: u64) {
        if now >= self.measure_ns {
            add_fault(&mut self.counts.events, &fault.kind, 1, &fault.detail);
        }
    }

    /// Gives up on requests that took too long; tries lost connections again.
    pub(super) fn sweep(&mut self, now: u64) {
        let timeout = self.task.timeout_ns;
        for index in 0..self.conns.len() {
            if self.conns[index].waiting_since_ns().is_some_and(|since| now.saturating_sub(since) > timeout) {
                self.lose(index, self.timed_out());
            }
        }
        self.reconnect(now);
        if self.conns.iter().any(Conn::is_ready) {
            self.up_ns = now;
        }
        // Without a duration only answers bring the end nearer, and from a server that went away there are none.
        let endless = self.task.schedule.is_none() && self.task.spans.duration_ns.is_none();
        if endless && self.left > 0 && now - self.up_ns > patience_ns(timeout) {
            self.left = 0;
            // The outage is part of what was measured.
            self.load_end_ns = now;
            self.cut = Some(Cut::NoConnection);
        }
    }

    fn reconnect(&mut self, now: u64) {
        while let Some((_, index)) = self.reconnect.pop_front_if(|(at, _)| *at <= now) {
            if self.task.plan.churn {
                self.free.push_back(Slot { conn: index, generation: 0, since_ns: now });
            } else {
                self.reopen(index, now);
            }
        }
    }
}
