//! The one batching and retry core: reads the trail, sends batches, moves the position.

use super::dead;
use super::deliver::{Deliver, Delivered, Failure};
use super::join::{Event, Joiner};
use super::pace::{Pace, Refusal};
use super::position::Position;
use super::source::{self, Source, Step, Trail};
use super::status::{Status, Trouble};
use crate::audit::printable::one_line;
use crate::config::{Sink, SinkStart};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often the trail is looked at when there was nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often a position that moved without a delivery is written: records that make no event.
const IDLE_POSITION_EVERY: Duration = Duration::from_secs(10);
/// Of what a receiver says, in a log line or a status.
const ERROR_CHARS_MAX: usize = 400;

/// What is asked of a running courier.
#[derive(Default)]
pub struct Orders {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Deliver what there is, and end by then.
    stop_by: Option<Instant>,
    reopen: bool,
    ended: bool,
}

impl Orders {
    pub fn stop(&self, deadline: Instant) {
        self.change(|state| state.stop_by = Some(deadline));
    }

    pub fn reopen(&self) {
        self.change(|state| state.reopen = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("nobody panics while holding orders"));
        self.changed.notify_all();
    }

    /// Waits for the end of the courier's thread; `false`: not in time.
    pub fn ended_within(&self, patience: Duration) -> bool {
        let state = self.state.lock().expect("nobody panics while holding orders");
        let (state, _) = self
            .changed
            .wait_timeout_while(state, patience, |state| !state.ended)
            .expect("nobody panics while holding");
        state.ended
    }

    fn stop_by(&self) -> Option<Instant> {
        self.state.lock().expect("nobody panics while holding orders").stop_by
    }

    fn take_reopen(&self) -> bool {
        std::mem::take(&mut self.state.lock().expect("nobody panics while holding orders").reopen)
    }

    /// Sleeps until an order comes or the time is over.
    fn wait(&self, patience: Duration) {
        let state = self.state.lock().expect("nobody panics while holding orders");
        let quiet = |state: &mut State| state.stop_by.is_none() && !state.reopen;
        drop(self.changed.wait_timeout_while(state, patience, quiet));
    }
}

/// Tells whoever waits that the thread is over, however it ends.
struct Ending(Arc<Orders>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.change(|state| state.ended = true);
    }
}

/// Makes the receiver's end.
pub type Opener = Box<dyn Fn(&Sink, &str) -> Result<Box<dyn Deliver>, Failure> + Send>;

pub struct Courier {
    sink: Sink,
    open: Opener,
    data_dir: PathBuf,
    appliance: String,
    status: Arc<Status>,
    orders: Arc<Orders>,
    pace: Pace,
    queue: VecDeque<Event>,
    /// When the oldest of the queue was read.
    queued_at: Instant,
    written: Position,
    written_at: Instant,
    /// Positions that were none in the trail: nobody knows how many records they passed over.
    astray: u64,
}

impl Courier {
    pub fn new(
        sink: Sink,
        open: Opener,
        (data_dir, appliance): (PathBuf, String),
        status: Arc<Status>,
        orders: Arc<Orders>,
    ) -> Self {
        let pace = Pace::new(sink.retry_max, sink.batch_events);
        let now = Instant::now();
        Self {
            sink,
            open,
            data_dir,
            appliance,
            status,
            orders,
            pace,
            queue: VecDeque::new(),
            queued_at: now,
            written: Position::default(),
            written_at: now,
            astray: 0,
        }
    }

    /// Until it is told to stop. A fault of this host (a disk that is full, a file that cannot be read) is a failure like any
    /// other: it is told, and tried again.
    pub fn run(mut self) {
        let _ending = Ending(self.orders.clone());
        while let Err(failure) = self.work() {
            let (what, mend) = match failure {
                Failure::Later { what, mend, .. } => (what, mend),
                Failure::Refused { what } => (what, None),
            };
            let pause = self.pace.failed(None, random());
            self.troubled(what, mend, pause);
            // What was read and not delivered is read again from the position.
            self.queue.clear();
            if self.orders.stop_by().is_some() {
                return;
            }
            self.orders.wait(pause);
        }
    }

    fn work(&mut self) -> Result<(), Failure> {
        self.written = self.begin().map_err(local)?;
        self.status.stands_at(&self.written);
        let mut source = Trail::open(&self.data_dir, &self.written).map_err(local)?;
        let mut joiner = Joiner::new(self.appliance.clone(), &self.written);
        // Made when there is something to send: what is wrong with its secrets must not keep us from knowing what waits.
        let mut receiver = None;
        loop {
            if self.orders.take_reopen() {
                receiver = None;
            }
            let at_end = self.fill(&mut source, &mut joiner).map_err(local)?;
            let stop_by = self.orders.stop_by();
            if stop_by.is_some_and(|deadline| (at_end && self.queue.is_empty()) || Instant::now() >= deadline) {
                return self.keep(&joiner).map_err(local);
            }
            let since = self.queued_at.elapsed();
            if self.queue.is_empty() {
                self.keep_sometimes(&joiner).map_err(local)?;
                self.orders.wait(LOOK_EVERY);
            } else if at_end && since < self.sink.flush && stop_by.is_none() {
                self.orders.wait(LOOK_EVERY.min(self.sink.flush - since));
            } else if let Some(pause) = self.send(&mut receiver, &joiner)? {
                self.orders.wait(pause);
                // A receiver that is away is not waited for once more.
                if self.orders.stop_by().is_some() {
                    return self.keep(&joiner).map_err(local);
                }
            }
        }
    }

    /// The position to begin at; a new sink's is written at once, so that its beginning stays where it is.
    fn begin(&mut self) -> io::Result<Position> {
        let name = &self.sink.name;
        match Position::read(&self.data_dir, name)? {
            // Where we left it ourselves it was judged: to find the end of the trail, segments are read.
            Some(position) if position.appliance == self.appliance && position == self.written => return Ok(position),
            Some(position) if position.appliance == self.appliance => return self.within(position),
            Some(_) => tracing::warn!(sink = name, "its position is one in another trail: it begins anew"),
            None => {}
        }
        let shards = match self.sink.start {
            SinkStart::Beginning => Default::default(),
            SinkStart::Now => source::end_of(&self.data_dir)?,
        };
        let position = Position { appliance: self.appliance.clone(), shards };
        position.write(&self.data_dir, name)?;
        Ok(position)
    }

    /// A place behind the end of the trail is none in it: what comes next would be passed over in silence.
    fn within(&mut self, mut position: Position) -> io::Result<Position> {
        let ends = source::end_of(&self.data_dir)?;
        for (shard, place) in &mut position.shards {
            let end = ends.get(shard).cloned().unwrap_or_default();
            if place.next > end.next.max(1) {
                let (sink, file) = (&self.sink.name, super::position::path(&self.data_dir, &self.sink.name));
                tracing::error!(
                    sink,
                    "its position in shard {shard}, {}, lies behind the last record, {}: a power cut took records that were sent, or \
                     somebody changed {}. It goes on at the end; remove that file to send the whole trail again",
                    place.next,
                    end.next.saturating_sub(1),
                    file.display()
                );
                self.astray += 1;
                *place = end;
            }
        }
        Ok(position)
    }

    /// Reads until a batch is full. `true`: there is nothing more to read now.
    fn fill(&mut self, source: &mut dyn Source, joiner: &mut Joiner) -> io::Result<bool> {
        let mut at_end = false;
        while !at_end && self.queue.len() < self.sink.batch_events {
            let before = self.queue.len();
            let queue = &mut self.queue;
            match source.step(&mut |shard, sequence, view| {
                joiner.take(shard, sequence, view, &mut |event| queue.push_back(event));
            })? {
                Step::Frame => {}
                Step::Damage(damage) => {
                    tracing::warn!(
                        sink = self.sink.name,
                        "the trail is damaged: {}",
                        one_line(&damage.to_string(), 400)
                    );
                }
                Step::End => at_end = true,
            }
            if before == 0 && !self.queue.is_empty() {
                self.queued_at = Instant::now();
            }
        }
        self.status.missed.store(self.astray + joiner.missed, Relaxed);
        if at_end || !self.queue.is_empty() {
            self.status.waits(self.queue.front().map(|event| event.time_us), self.queue.len());
        }
        Ok(at_end)
    }

    /// One attempt. `Some`: it failed, and how long to wait.
    fn send(&mut self, receiver: &mut Option<Box<dyn Deliver>>, joiner: &Joiner) -> Result<Option<Duration>, Failure> {
        let count = self.batch();
        let batch = &self.queue.make_contiguous()[..count];
        let attempt = match receiver {
            Some(receiver) => receiver.deliver(batch),
            None => (self.open)(&self.sink, &self.appliance).and_then(|made| receiver.insert(made).deliver(batch)),
        };
        match attempt {
            Ok(delivered) => {
                self.pace.delivered();
                self.acknowledged(&delivered, joiner)?;
                Ok(None)
            }
            Err(Failure::Later { what, mend, after }) => {
                if mend.is_some() {
                    // Whoever mends it may do so in a file: it is read again.
                    *receiver = None;
                }
                let pause = self.pace.failed(after, random());
                self.troubled(what, mend, pause);
                Ok(Some(pause))
            }
            Err(Failure::Refused { what }) => self.refused(count, what, joiner),
        }
    }

    /// How many events go into the next batch: always one, whatever its size.
    fn batch(&self) -> usize {
        let mut bytes = 0;
        let fits = |event: &&Event| {
            bytes += event.json.len();
            bytes <= self.sink.batch_bytes
        };
        self.queue.iter().take(self.pace.limit()).take_while(fits).count().max(1)
    }

    fn refused(&mut self, count: usize, what: String, joiner: &Joiner) -> Result<Option<Duration>, Failure> {
        match self.pace.refused(count, random()) {
            Refusal::Split => {
                self.status.failures.fetch_add(1, Relaxed);
                Ok(None)
            }
            Refusal::GiveUp => {
                self.acknowledged(&Delivered { events: 1, refused: vec![(0, what)] }, joiner)?;
                Ok(None)
            }
            Refusal::Pause(pause) => {
                let mend = "the receiver refuses one event after the other: look at its settings".to_owned();
                self.troubled(what, Some(mend), pause);
                Ok(Some(pause))
            }
        }
    }

    /// The receiver has them: the position moves behind them.
    fn acknowledged(&mut self, delivered: &Delivered, joiner: &Joiner) -> Result<(), Failure> {
        for (index, why) in &delivered.refused {
            let Some(event) = self.queue.get(*index) else { continue };
            let why = one_line(why, ERROR_CHARS_MAX);
            dead::bury(&self.data_dir, &self.sink.name, event, &why, now_us()).map_err(local)?;
            tracing::warn!(sink = self.sink.name, uid = event.uid, why, "the receiver refused an event: put aside");
        }
        self.queue.drain(..delivered.events.min(self.queue.len()));
        self.queued_at = Instant::now();
        let refused = delivered.refused.len() as u64;
        self.status.dropped.fetch_add(refused, Relaxed);
        self.keep(joiner).map_err(local)?;
        self.status.delivered(delivered.events as u64 - refused, now_us());
        self.status.waits(self.queue.front().map(|event| event.time_us), self.queue.len());
        Ok(())
    }

    fn keep(&mut self, joiner: &Joiner) -> io::Result<()> {
        let position = joiner.position(self.queue.iter());
        if position != self.written {
            position.write(&self.data_dir, &self.sink.name)?;
            self.status.stands_at(&position);
            self.written = position;
        }
        self.written_at = Instant::now();
        Ok(())
    }

    fn keep_sometimes(&mut self, joiner: &Joiner) -> io::Result<()> {
        if self.written_at.elapsed() < IDLE_POSITION_EVERY { Ok(()) } else { self.keep(joiner) }
    }

    fn troubled(&self, what: String, mend: Option<String>, pause: Duration) {
        let what = one_line(&what, ERROR_CHARS_MAX);
        let (now, pause_us) = (now_us(), i64::try_from(pause.as_micros()).unwrap_or(i64::MAX));
        tracing::warn!(sink = self.sink.name, mend, retry_s = pause.as_secs(), "not delivered: {what}");
        self.status.troubled(Trouble { at_us: now, what, mend, retry_at_us: now.saturating_add(pause_us) });
    }
}

fn local(error: io::Error) -> Failure {
    Failure::mend(error.to_string(), "mend this on the gateway's host")
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness the pause is merely not spread.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
