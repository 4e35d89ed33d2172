//! Copies of the trail for other systems: `[[sink]]`.
//!
//! ```text
//!   segments --Source--> Joiner --events--> queue --batch--> file | syslog | splunk | ...
//!                                             |                  | acknowledged
//!                                             `--- position <----'   data_dir/sinks/NAME.position
//! ```
//! One thread a sink, each with its own place in the trail: none waits for another, and no statement waits for any. Delivery is
//! at least once and in the order of the trail (per shard: in the order records were completed): the position moves only
//! when the receiver has acknowledged, and what was not acknowledged is read again. Event ids never change, so a receiver can
//! drop what it has already; it is sent something twice only after a kill or when an acknowledgement got lost.

mod archived;
mod certificate;
mod cloudwatch;
mod courier;
mod dead;
mod deliver;
mod file;
mod gzip;
mod hidden;
mod http;
mod instance;
mod join;
#[cfg(feature = "kafka")]
mod kafka;
mod otlp;
mod pace;
mod position;
mod resolve;
mod s3;
mod secret;
mod sigv4;
mod source;
mod splunk;
mod status;
mod syslog;
mod webhook;

pub use deliver::{check, said, try_out};
pub use position::Position;
pub use status::{Board, Status, position_json};

use crate::config::Sink;
use courier::{Courier, Orders};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a stop waits for a sink: what it has not delivered by then is delivered after the next start.
pub const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Where a sink keeps its position and what its receiver refused.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("sinks")
}

/// The running sinks.
pub struct Sinks {
    data_dir: PathBuf,
    appliance: String,
    board: Arc<Board>,
    crew: Mutex<Crew>,
}

#[derive(Default)]
struct Crew {
    running: Vec<Running>,
    /// Told to end: who comes after one of them waits for it.
    leaving: Vec<Running>,
}

impl Crew {
    fn runs(&self, config: &Sink) -> bool {
        self.running.iter().any(|running| running.is(config))
    }
}

struct Running {
    config: Sink,
    orders: Arc<Orders>,
}

impl Running {
    /// One that has ended without being told to has panicked, and is none any more.
    fn is(&self, config: &Sink) -> bool {
        self.config == *config && !self.orders.ended_within(Duration::ZERO)
    }
}

impl Sinks {
    /// Starts a thread for each. A sink that cannot work says so in its status and tries again: nothing waits for it.
    pub fn start(data_dir: &Path, appliance: &str, sinks: &[Sink]) -> io::Result<Self> {
        let started = Self {
            data_dir: data_dir.to_owned(),
            appliance: appliance.to_owned(),
            board: Arc::default(),
            crew: Mutex::default(),
        };
        started.replace(sinks)?;
        Ok(started)
    }

    pub fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// Some of these could not be started, or panicked: [`Self::replace`] tries again.
    pub fn lacks(&self, sinks: &[Sink]) -> bool {
        let crew = self.crew();
        sinks.iter().any(|config| !crew.runs(config))
    }

    /// After a reload: ends those that are gone or differ, starts the new ones, and has the rest read their secrets again.
    pub fn replace(&self, sinks: &[Sink]) -> io::Result<()> {
        std::fs::create_dir_all(folder(&self.data_dir))?;
        let mut crew = self.crew();
        let (stay, go): (Vec<_>, Vec<_>) =
            crew.running.drain(..).partition(|running| sinks.iter().any(|config| running.is(config)));
        go.iter().for_each(|running| running.orders.stop(Instant::now()));
        stay.iter().for_each(|running| running.orders.reopen());
        crew.running = stay;
        crew.leaving.retain(|leaving| !leaving.orders.ended_within(Duration::ZERO));
        crew.leaving.extend(go);
        for config in sinks {
            if !crew.runs(config) {
                let before = crew.leaving.iter().rev().find(|leaving| leaving.config.name == config.name);
                let begun = self.run(config, before.map(|leaving| leaving.orders.clone()))?;
                crew.running.push(begun);
            }
        }
        self.board.keep_only(sinks.iter().map(|sink| sink.name.as_str()));
        Ok(())
    }

    /// Delivers what there is and ends, within [`FINISH_WITHIN`]. A sink that is in the middle of a delivery then is left to it.
    pub fn finish(&self) {
        let running: Vec<_> = self.crew().running.drain(..).collect();
        let deadline = Instant::now() + FINISH_WITHIN;
        running.iter().for_each(|running| running.orders.stop(deadline));
        for running in running {
            if !running.orders.ended_within(deadline.saturating_duration_since(Instant::now())) {
                tracing::warn!(
                    sink = running.config.name,
                    "not everything is delivered: the rest follows after the next start"
                );
            }
        }
    }

    /// `before`: one of the same name, whose position must be written before it is read.
    fn run(&self, config: &Sink, before: Option<Arc<Orders>>) -> io::Result<Running> {
        let orders = Arc::new(Orders::default());
        let status = self.board.add(config);
        let place = (self.data_dir.clone(), self.appliance.clone());
        let courier = Courier::new(config.clone(), Box::new(deliver::open), place, status, orders.clone());
        let run = move || {
            if let Some(before) = before {
                while !before.ended_within(Duration::from_secs(60)) {}
            }
            courier.run();
        };
        std::thread::Builder::new().name(format!("sink-{}", config.name)).spawn(run)?;
        Ok(Running { config: config.clone(), orders })
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().expect("nobody panics while holding the sinks")
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.crew().running.drain(..).for_each(|running| running.orders.stop(Instant::now()));
    }
}

#[cfg(test)]
mod tests;
