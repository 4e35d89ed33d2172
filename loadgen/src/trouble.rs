//! What went wrong with requests that count, with the warm-up's, and with connections that carried none.

use crate::check::Wrong;
use crate::measure::{Counts, Faults, add_faults, total};
use crate::output;
use serde_json::Value;

#[derive(Clone, Default, Debug)]
pub struct Trouble {
    requests: Faults,
    warmup: Faults,
    connections: Faults,
}

impl Trouble {
    pub fn of(counts: &Counts) -> Trouble {
        Trouble {
            requests: counts.faults.clone(),
            warmup: counts.warmup_faults.clone(),
            connections: counts.events.clone(),
        }
    }

    pub fn add(&mut self, other: &Trouble) {
        for (to, from) in self.all_mut().into_iter().zip(other.all()) {
            add_faults(to, from.0);
        }
    }

    fn all_mut(&mut self) -> [&mut Faults; 3] {
        [&mut self.requests, &mut self.warmup, &mut self.connections]
    }

    /// With words for where it was.
    fn all(&self) -> [(&Faults, &'static str); 3] {
        [
            (&self.requests, ""),
            (&self.warmup, " (in the warm-up)"),
            (&self.connections, " (on a connection that carried no request)"),
        ]
    }

    /// Requests that failed, of those that count.
    pub fn failed(&self) -> u64 {
        total(&self.requests)
    }

    /// A wrong answer is never fine, not even in the warm-up; a server's error may be.
    pub fn wrong_answers(&self) -> Vec<String> {
        let wrong = |(faults, place): (&Faults, &str)| -> Vec<String> {
            let wrong = faults.iter().filter(|(kind, _)| Wrong::is_kind(kind));
            wrong.map(|(kind, (count, _))| format!("{count} responses: {kind}{place}")).collect()
        };
        self.all().into_iter().flat_map(wrong).collect()
    }

    /// A line for each kind, with an example.
    pub fn lines(&self) -> Vec<String> {
        let lines = |(faults, place): (&Faults, &str)| -> Vec<String> {
            faults.iter().map(|(kind, (count, example))| format!("{count} x {kind}{place}: {example}")).collect()
        };
        self.all().into_iter().flat_map(lines).collect()
    }

    /// Into what is told of a run, an endpoint or a try.
    pub fn tell(&self, value: &mut Value) {
        value["errors"] = self.failed().into();
        value["errors_by_kind"] = output::faults(&self.requests);
        value["warmup_errors"] = output::faults(&self.warmup);
        value["connection_events"] = output::faults(&self.connections);
    }
}
