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
mod s3;
mod secret;
mod sigv4;
mod source;
mod splunk;
mod status;
mod syslog;
mod webhook;

pub use deliver::{check, said};
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
    running: Mutex<Vec<Running>>,
}

struct Running {
    config: Sink,
    orders: Arc<Orders>,
}

impl Sinks {
    /// Starts a thread for each. A sink that cannot work says so in its status and tries again: nothing waits for it.
    pub fn start(data_dir: &Path, appliance: &str, sinks: &[Sink]) -> io::Result<Self> {
        let started = Self {
            data_dir: data_dir.to_owned(),
            appliance: appliance.to_owned(),
            board: Arc::default(),
            running: Mutex::default(),
        };
        started.replace(sinks)?;
        Ok(started)
    }

    pub fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// After a reload: ends those that are gone or differ, starts the new ones, and has the rest read their secrets again.
    pub fn replace(&self, sinks: &[Sink]) -> io::Result<()> {
        std::fs::create_dir_all(folder(&self.data_dir))?;
        let mut running = self.running();
        let (stay, go): (Vec<_>, Vec<_>) = running.drain(..).partition(|running| sinks.contains(&running.config));
        go.iter().for_each(|running| running.orders.stop(Instant::now()));
        stay.iter().for_each(|running| running.orders.reopen());
        *running = stay;
        for config in sinks {
            if !running.iter().any(|running| running.config == *config) {
                let before = go.iter().find(|running| running.config.name == config.name);
                running.push(self.run(config, before.map(|running| running.orders.clone()))?);
            }
        }
        self.board.keep_only(sinks.iter().map(|sink| sink.name.as_str()));
        Ok(())
    }

    /// Delivers what there is and ends, within [`FINISH_WITHIN`]. A sink that is in the middle of a delivery then is left to it.
    pub fn finish(&self) {
        let running: Vec<_> = self.running().drain(..).collect();
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

    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().expect("nobody panics while holding the sinks")
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.running().drain(..).for_each(|running| running.orders.stop(Instant::now()));
    }
}

#[cfg(test)]
mod tests;
