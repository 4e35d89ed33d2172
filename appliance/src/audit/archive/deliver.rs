//! What leaves for a second place: checkpoints to folders, webhooks and object stores, files to an object store. In order,
//! at least once.
//!
//! One thread a destination. How far it has come is in `archive/delivery/`; a destination that does not answer is tried
//! again, and holds up nobody.

use super::checkpoint::{self, Checkpoint, Next};
use super::lines::{self, Appender, Head, Lines};
use super::manifest::invalid;
use super::publish::make_dir;
use super::status::unix_us;
use super::store;
use crate::audit::segment::{self, at};
use crate::workers;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Pauses after failures: doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Bytes handed over at once.
const BATCH_BYTES: usize = 1 << 20;
/// Every batch is an object of its own in a store: not one a second.
const OBJECT_EVERY_US: i64 = 10_000_000;
/// For one attempt, as a rule; and for whatever is under way or begun when a stop waits for it.
const WEBHOOK_PATIENCE: Duration = Duration::from_secs(5);
const WEBHOOK_PATIENCE_AT_STOP: Duration = Duration::from_secs(2);
const NOT_HERE: &str = "is not in this trail: one of the two was put back from an older copy, or replaced. Nothing more is copied \
     there until that is settled (`lockgate audit verify --checkpoints`)";
/// For what is left at the end. Beyond: the next start goes on.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// Numbers of one destination, for the status.
#[derive(Debug, Default)]
pub struct Delivery {
    failures: AtomicU64,
    sent: AtomicU64,
    /// Since when something waits to be delivered; 0: nothing does.
    behind_since_us: AtomicI64,
    /// The number of the last checkpoint, by whoever wrote it.
    written: AtomicU64,
    /// When a stop was asked for: what is not delivered soon waits for the next start.
    stop: OnceLock<Instant>,
}

impl Delivery {
    pub fn sent(&self, count: u64) {
        self.sent.fetch_add(count, Ordering::Relaxed);
    }
}

/// How far a destination has come. What the numbers mean is its own business.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    destination: String,
    /// Name of the file, where there are several, and the byte behind the last line delivered.
    pub file: String,
    pub offset: u64,
}

/// What one thread works off.
pub trait Backlog: Send {
    /// Tells it from all others; its place on disk goes by it.
    fn name(&self) -> String;

    /// For logs: an address may carry a secret behind its host.
    fn shown(&self) -> String;

    /// Where to go on, asked once at the start. `kept`: the place as it was left, in a file that others may have written. An error is
    /// told and asked again.
    fn resume(&mut self, kept: Place) -> io::Result<Place>;

    /// Delivers the next part and moves `place` behind it. `Ok(false)`: there is nothing new.
    fn deliver(&mut self, place: &mut Place) -> io::Result<bool>;
}

/// The threads. Dropping ends them after a last attempt.
#[derive(Default)]
pub struct Deliverers {
    finish: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    deliveries: Vec<Arc<Delivery>>,
}

impl Deliverers {
    pub fn start(&mut self, data_dir: &Path, backlog: Box<dyn Backlog>, delivery: Arc<Delivery>) -> io::Result<()> {
        let worker = Worker::new(data_dir, backlog, delivery.clone())?;
        let finish = Arc::clone(&self.finish);
        let thread = std::thread::Builder::new().name("delivery".into()).spawn(move || worker.run(&finish))?;
        self.threads.push(thread);
        self.deliveries.push(delivery);
        Ok(())
    }

    /// A checkpoint was written: copies that do not find it say so.
    pub fn written(&self, number: u64) {
        self.deliveries.iter().for_each(|delivery| delivery.written.store(number, Ordering::Release));
    }

    pub fn failures(&self) -> u64 {
        self.deliveries.iter().map(|delivery| delivery.failures.load(Ordering::Relaxed)).sum()
    }

    /// Of the destination that is furthest behind.
    pub fn behind_since_us(&self) -> Option<i64> {
        let since = self.deliveries.iter().map(|delivery| delivery.behind_since_us.load(Ordering::Relaxed));
        since.filter(|&since_us| since_us != 0).min()
    }
}

impl Drop for Deliverers {
    fn drop(&mut self) {
        let now = Instant::now();
        for delivery in &self.deliveries {
            let _ = delivery.stop.set(now);
        }
        self.finish.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("a thread that delivers checkpoints panicked");
            }
        }
    }
}

struct Worker {
    backlog: Box<dyn Backlog>,
    place_file: PathBuf,
    place: Place,
    resumed: bool,
    delivery: Arc<Delivery>,
    reported: bool,
}

impl Worker {
    fn new(data_dir: &Path, backlog: Box<dyn Backlog>, delivery: Arc<Delivery>) -> io::Result<Self> {
        let dir = segment::archive_dir(data_dir).join("delivery");
        make_dir(&dir)?;
        let destination = backlog.name();
        let name = &segment::hex(blake3::hash(destination.as_bytes()).as_bytes())[..16];
        let place_file = dir.join(format!("{name}.json"));
        let place = crate::files::read(&place_file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let place = place.filter(|place: &Place| place.destination == destination);
        let place = place.unwrap_or(Place { destination, ..Place::default() });
        Ok(Self { backlog, place_file, place, resumed: false, delivery, reported: false })
    }

    fn run(mut self, finish: &AtomicBool) {
        let mut pause = BACKOFF.0;
        let mut until: Option<Instant> = None;
        loop {
            if finish.load(Ordering::Acquire) {
                // An attempt that was under way has had its part of it.
                until = Some(*self.delivery.stop.get_or_init(Instant::now) + FINISH_WITHIN);
            }
            let wait = match self.step() {
                Ok(true) => continue,
                Ok(false) if until.is_some() => return,
                Ok(false) => {
                    pause = BACKOFF.0;
                    LOOK_EVERY
                }
                Err(error) => {
                    self.failed(&error);
                    let wait = pause;
                    pause = (pause * 2).min(BACKOFF.1);
                    wait
                }
            };
            if until.is_some_and(|until| Instant::now() + LOOK_EVERY >= until) {
                return;
            }
            let wake = Instant::now() + if until.is_some() { LOOK_EVERY } else { wait };
            while Instant::now() < wake && (until.is_some() || !finish.load(Ordering::Acquire)) {
                std::thread::park_timeout(wake.saturating_duration_since(Instant::now()));
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.delivery.failures.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.reported, true) {
            tracing::error!("nothing can be delivered to {}: {error}", self.backlog.shown());
        }
    }

    /// `Ok(false)`: there is nothing new.
    fn step(&mut self) -> io::Result<bool> {
        // An attempt may hang: what it is to deliver waits from now on.
        if self.delivery.behind_since_us.load(Ordering::Relaxed) == 0 {
            self.delivery.behind_since_us.store(unix_us(), Ordering::Relaxed);
        }
        if !self.resumed {
            let destination = self.place.destination.clone();
            self.place = Place { destination, ..self.backlog.resume(self.place.clone())? };
            self.resumed = true;
        }
        let more = self.backlog.deliver(&mut self.place)?;
        if more {
            self.keep_place()?;
        }
        self.delivery.behind_since_us.store(0, Ordering::Relaxed);
        if std::mem::take(&mut self.reported) {
            tracing::info!("{} takes what is delivered again", self.backlog.shown());
        }
        Ok(more)
    }

    fn keep_place(&self) -> io::Result<()> {
        let tmp = self.place_file.with_extension("tmp");
        let keep = || -> io::Result<()> {
            crate::files::write(&tmp, &serde_json::to_vec(&self.place)?)?;
            fs::rename(&tmp, &self.place_file)
        };
        keep().map_err(|error| at(&self.place_file, error))
    }
}

/// Where checkpoints are copied to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Files of the same names and bytes.
    Folder(PathBuf),
    /// POST of `application/x-ndjson`; any status of 200 to 299 takes the lines over.
    Webhook(String),
    /// Objects `checkpoints/FIRST-LAST.jsonl`.
    Store { address: String, credentials: Option<PathBuf> },
}

impl Destination {
    /// A path, or an address that begins with `https://`, `http://` or the scheme of an object store.
    pub fn parse(text: &str, credentials: Option<&Path>) -> Self {
        if store::is_address(text) {
            Self::Store { address: text.to_owned(), credentials: credentials.map(Path::to_owned) }
        } else if text.starts_with("https://") || text.starts_with("http://") {
            Self::Webhook(text.to_owned())
        } else {
            Self::Folder(PathBuf::from(text))
        }
    }
}

/// Checkpoints on their way to one destination.
pub struct Copies {
    data_dir: PathBuf,
    destination: Destination,
    delivery: Arc<Delivery>,
    runtime: tokio::runtime::Runtime,
    sent_us: i64,
    /// How the next line has to begin, and who has to sign it: nothing else is ever handed on.
    next: Next,
}

/// Lines that go together: of one file.
struct Batch {
    name: String,
    bytes: Vec<u8>,
    /// Number of the first line.
    first: u64,
    /// Behind them.
    next: Next,
    next_offset: u64,
}

impl Copies {
    pub fn new(data_dir: &Path, destination: Destination, delivery: Arc<Delivery>) -> io::Result<Self> {
        let runtime = workers::runtime(1, "delivery-names")?;
        Ok(Self { data_dir: data_dir.to_owned(), destination, delivery, runtime, sent_us: 0, next: Next::FIRST })
    }

    /// Behind the last line that the folder has, which must be one of ours.
    fn behind_folder(&self, dir: &Path) -> io::Result<(Place, Next)> {
        let Some((path, head)) = last_in_folder(dir)? else { return Ok((Place::default(), Next::FIRST)) };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let unknown = || at(&path, invalid(&format!("its last checkpoint, {}, {NOT_HERE}", head.number)));
        let ours = checkpoint::dir(&self.data_dir).join(&name);
        let mut lines = Lines::open(&ours).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => unknown(),
            _ => error,
        })?;
        while let Some(Ok(line)) = lines.next_line()? {
            if lines::split(line, true).is_ok_and(|line| line.head == head) {
                let next = Next::behind(&parse(&ours, line)?);
                return Ok((Place { file: name, offset: lines.next_offset, ..Place::default() }, next));
            }
        }
        Err(unknown())
    }

    /// Does the folder end with the line that the next one continues? Somebody may have cut it, or put other lines behind ours.
    fn continues_folder(&self, dir: &Path) -> io::Result<bool> {
        let last = last_in_folder(dir)?.map_or(Head::START, |(_, head)| head);
        Ok((last.number + 1, last.hash) == (self.next.number, self.next.previous))
    }

    /// Once more with the last line that was delivered: whoever gets it sees whether the next one continues it.
    fn with_last_line(&self, kept: Place) -> io::Result<(Place, Next)> {
        if kept.offset == 0 {
            return Ok((Place::default(), Next::FIRST));
        }
        let path = checkpoint::files(&self.data_dir)?.into_iter().find(|path| path.ends_with(&kept.file));
        if let Some(path) = path {
            let tail = lines::tail_until(&path, kept.offset)?;
            if tail.whole_bytes == kept.offset && !tail.line.is_empty() {
                let line = parse(&path, &tail.line)?;
                let next = Next { number: line.head.number, previous: line.previous, key: Some(line.key) };
                return Ok((Place { offset: tail.line_offset(), ..kept }, next));
            }
        }
        let (to, Place { file, offset, .. }) = (self.shown(), kept);
        tracing::error!(
            "all checkpoints go to {to} again: byte {offset} of {file}, where it was left, is no end of a line"
        );
        Ok((Place::default(), Next::FIRST))
    }

    /// The lines up to `written`, which are on stable storage, each of which continues the one before.
    fn next_batch(&self, place: &Place, written: u64) -> io::Result<Option<Batch>> {
        let mut next = self.next;
        for path in checkpoint::files(&self.data_dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name < place.file {
                continue;
            }
            let offset = if name == place.file { place.offset } else { 0 };
            let mut lines = Lines::open_at(&path, offset)?;
            let mut batch = Batch { name, bytes: Vec::new(), first: next.number, next, next_offset: offset };
            while batch.bytes.len() < BATCH_BYTES
                && next.number <= written
                && let Some(line) = lines.next_line()?
            {
                let line = line.map_err(|error| not_written(&path, next.number, &error.to_string()))?;
                let checkpoint = parse(&path, line)?;
                if !checkpoint.signature_holds || !next.is(&checkpoint) {
                    return Err(not_written(&path, next.number, "another line stands in its place"));
                }
                next = Next::behind(&checkpoint);
                batch.bytes.extend_from_slice(line);
                batch.bytes.push(b'\n');
                (batch.next, batch.next_offset) = (next, lines.next_offset);
            }
            if !batch.bytes.is_empty() {
                return Ok(Some(batch));
            }
        }
        match next.number <= written {
            false => Ok(None),
            true => Err(not_written(&checkpoint::dir(&self.data_dir), next.number, "it is not there")),
        }
    }
}

fn parse(path: &Path, line: &[u8]) -> io::Result<Checkpoint> {
    Checkpoint::parse(line).map_err(|broken| at(path, invalid(&format!("a checkpoint: {broken}"))))
}

fn not_written(path: &Path, number: u64, what: &str) -> io::Error {
    at(
        path,
        invalid(&format!("checkpoint {number} is not as it was written: {what}. `lockgate audit verify` tells more")),
    )
}

impl Backlog for Copies {
    fn name(&self) -> String {
        match &self.destination {
            Destination::Folder(dir) => dir.display().to_string(),
            Destination::Webhook(address) | Destination::Store { address, .. } => address.clone(),
        }
    }

    fn shown(&self) -> String {
        match &self.destination {
            Destination::Webhook(address) => address.split('/').take(3).collect::<Vec<_>>().join("/"),
            Destination::Folder(_) | Destination::Store { .. } => self.name(),
        }
    }

    fn resume(&mut self, kept: Place) -> io::Result<Place> {
        let (place, next) = match &self.destination {
            Destination::Folder(dir) => self.behind_folder(dir)?,
            Destination::Webhook(_) | Destination::Store { .. } => self.with_last_line(kept)?,
        };
        self.next = next;
        Ok(place)
    }

    fn deliver(&mut self, place: &mut Place) -> io::Result<bool> {
        let written = self.delivery.written.load(Ordering::Acquire);
        let Some(batch) = self.next_batch(place, written)? else { return Ok(false) };
        match &self.destination {
            Destination::Folder(dir) if !self.continues_folder(dir)? => {
                let (there, next) = self.behind_folder(dir)?;
                if next.number > self.next.number {
                    let more = "it has checkpoints that were not copied there: is it a link to the trail's own, or written by another gateway?";
                    return Err(at(dir, invalid(more)));
                }
                tracing::warn!(
                    "{}: somebody has cut its checkpoints; copied again from {} on",
                    dir.display(),
                    next.number
                );
                (*place, self.next) = (Place { destination: place.destination.clone(), ..there }, next);
                return Ok(true);
            }
            Destination::Folder(dir) => deliver_to_folder(dir, &batch)?,
            Destination::Webhook(address) => {
                self.runtime.block_on(deliver_to_webhook(address, &batch, &self.delivery))?;
            }
            Destination::Store { address, credentials } => {
                let waits = self.delivery.stop.get().is_none();
                if waits && (0..OBJECT_EVERY_US).contains(&(unix_us() - self.sent_us)) {
                    return Ok(false);
                }
                let name = format!("checkpoints/{:012}-{:012}.jsonl", batch.first, batch.next.number - 1);
                store::open(address, credentials.as_deref())?.put(&name, batch.bytes)?;
            }
        }
        (self.sent_us, self.next) = (unix_us(), batch.next);
        self.delivery.sent(batch.next.number - batch.first);
        (place.file, place.offset) = (batch.name, batch.next_offset);
        Ok(true)
    }
}

/// The last whole line of a folder of checkpoints, and its file. `None`: there is none.
fn last_in_folder(dir: &Path) -> io::Result<Option<(PathBuf, Head)>> {
    is_there(dir)?;
    let mut files = super::publish::listed(dir)?;
    files.retain(|path| checkpoint::is_day(path));
    for path in files.into_iter().rev() {
        let tail = lines::tail(&path)?;
        if !tail.line.is_empty() {
            let head = parse(&path, &tail.line)?.head;
            return Ok(Some((path, head)));
        }
    }
    Ok(None)
}

fn deliver_to_folder(dir: &Path, batch: &Batch) -> io::Result<()> {
    let path = dir.join(&batch.name);
    let tail = lines::tail(&path)?;
    let text = std::str::from_utf8(&batch.bytes).map_err(io::Error::other)?;
    Appender::open(&path, &tail)?.append(text)
}

/// A mount that is missing must not be written under.
fn is_there(dir: &Path) -> io::Result<()> {
    match dir.is_dir() {
        true => Ok(()),
        false => Err(at(dir, io::Error::new(io::ErrorKind::NotFound, "is not there"))),
    }
}

/// Until an attempt that begins now has had its time.
async fn patience_ends(delivery: &Delivery) {
    let begun = Instant::now();
    let stopped = |delivery: &Delivery| delivery.stop.get().is_some_and(|at| at.elapsed() >= WEBHOOK_PATIENCE_AT_STOP);
    while begun.elapsed() < WEBHOOK_PATIENCE && !stopped(delivery) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What failed, and why: only the last cause says that. The address itself may be a secret: it is left out.
fn failure(error: reqwest::Error) -> io::Error {
    use std::error::Error as _;
    let error = error.without_url();
    let cause = std::iter::successors(error.source(), |cause| (**cause).source()).last();
    io::Error::other(cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")))
}

async fn deliver_to_webhook(address: &str, batch: &Batch, delivery: &Delivery) -> io::Result<()> {
    // Lines go where the configuration says, not where somebody points.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().map_err(failure)?;
    let request = client.post(address).header("content-type", "application/x-ndjson").body(batch.bytes.clone());
    let answer = tokio::select! {
        answer = request.send() => answer.map_err(failure)?,
        () = patience_ends(delivery) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer in time")),
    };
    match answer.status() {
        status if status.is_success() => Ok(()),
        status if status.is_redirection() => Err(io::Error::other(format!(
            "it answers {status}: redirections are not followed, write the final address into the configuration"
        ))),
        status => Err(io::Error::other(format!("it answers {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::archive::checkpoint::Checkpoints;
    use crate::audit::archive::key::KeySource;
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    fn checkpoints(dir: &Path, count: i64) {
        let mut checkpoints = Checkpoints::open(dir, &KeySource::File(dir.join("checkpoint.key"))).unwrap();
        for second in 0..count {
            checkpoints.write(1_795_000_000_000_000 + second * 1_000_000, Head::START, &[]).unwrap();
        }
    }

    fn all(dir: &Path) -> Vec<u8> {
        checkpoint::files(dir).unwrap().iter().flat_map(|file| fs::read(file).unwrap()).collect()
    }

    /// One that has been told of all checkpoints.
    fn worker(dir: &Path, destination: &Destination) -> Worker {
        let written = all(dir).iter().filter(|&&byte| byte == b'\n').count() as u64;
        let delivery = Arc::new(Delivery { written: written.into(), ..Delivery::default() });
        let copies = Copies::new(dir, destination.clone(), delivery.clone()).unwrap();
        Worker::new(dir, Box::new(copies), delivery).unwrap()
    }

    fn trail() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("archive")).unwrap();
        dir
    }

    #[test]
    fn a_folder_gets_the_same_bytes_once_and_a_missing_one_is_not_made() {
        let (dir, other) = (trail(), tempfile::tempdir().unwrap());
        let mount = other.path().join("mount");
        let destination = Destination::parse(mount.to_str().unwrap(), None);
        checkpoints(dir.path(), 3);
        assert!(worker(dir.path(), &destination).step().is_err());
        fs::create_dir(&mount).unwrap();
        assert!(worker(dir.path(), &destination).step().unwrap());
        checkpoints(dir.path(), 2);
        let mut second = worker(dir.path(), &destination);
        // What is kept beside the trail says nothing: the folder is asked.
        second.place = Place { file: "9999-12-31.jsonl".to_owned(), offset: 0, ..second.place };
        assert!(second.step().unwrap() && !second.step().unwrap());
        let copied = fs::read(super::super::publish::listed(&mount).unwrap().pop().unwrap()).unwrap();
        assert_eq!(copied, all(dir.path()));
        assert_eq!(copied.iter().filter(|&&byte| byte == b'\n').count(), 5);
    }

    #[test]
    fn a_trail_that_was_rolled_back_is_told_and_not_copied_over() {
        let (dir, mount) = (trail(), tempfile::tempdir().unwrap());
        let destination = Destination::parse(mount.path().to_str().unwrap(), None);
        checkpoints(dir.path(), 3);
        let file = checkpoint::files(dir.path()).unwrap().pop().unwrap();
        let before = fs::read(&file).unwrap();
        checkpoints(dir.path(), 2);
        assert!(worker(dir.path(), &destination).step().unwrap());
        fs::write(&file, before).unwrap();
        checkpoints(dir.path(), 1);
        let mut again = worker(dir.path(), &destination);
        let error = again.step().unwrap_err().to_string();
        assert!(error.contains("its last checkpoint, 5, is not in this trail") && again.step().is_err(), "{error}");
        let copied = fs::read(super::super::publish::listed(mount.path()).unwrap().pop().unwrap()).unwrap();
        assert_eq!(copied.iter().filter(|&&byte| byte == b'\n').count(), 5);
    }

    #[test]
    fn a_folder_that_is_changed_meanwhile_is_made_whole_again_or_told() {
        let (dir, mount) = (trail(), tempfile::tempdir().unwrap());
        let destination = Destination::parse(mount.path().to_str().unwrap(), None);
        checkpoints(dir.path(), 4);
        let mut worker = worker(dir.path(), &destination);
        assert!(worker.step().unwrap() && !worker.step().unwrap());
        let copy = super::super::publish::listed(mount.path()).unwrap().pop().unwrap();
        let whole = fs::read(&copy).unwrap();
        let second = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0;
        for cut in [second + 1, second + 9, 0] {
            fs::write(&copy, &whole[..cut]).unwrap();
            checkpoints(dir.path(), 1);
            worker.delivery.written.fetch_add(1, Ordering::Release);
            while worker.step().unwrap() {}
            assert_eq!(fs::read(&copy).unwrap(), all(dir.path()), "cut at {cut}");
        }
        let forged = lines::seal(&format!("{{\"number\":5000,\"previous\":\"{}\"", "0".repeat(64)), Some(&[0; 64]));
        fs::write(&copy, [&all(dir.path())[..], forged.as_bytes()].concat()).unwrap();
        checkpoints(dir.path(), 1);
        worker.delivery.written.fetch_add(1, Ordering::Release);
        assert!(worker.step().is_err() && worker.step().is_err());
    }

    #[test]
    fn only_what_was_written_is_handed_on() {
        let (dir, mount) = (trail(), tempfile::tempdir().unwrap());
        let destination = Destination::parse(mount.path().to_str().unwrap(), None);
        checkpoints(dir.path(), 3);
        let mut worker = worker(dir.path(), &destination);
        assert!(worker.step().unwrap() && !worker.step().unwrap());
        let copied = || super::super::publish::listed(mount.path()).unwrap();
        let count = || fs::read(&copied()[0]).unwrap().iter().filter(|&&byte| byte == b'\n').count();
        // What is not on stable storage yet may still be taken back.
        checkpoints(dir.path(), 1);
        assert!(!worker.step().unwrap() && count() == 3);
        worker.delivery.written.store(4, Ordering::Release);
        assert!(worker.step().unwrap() && !worker.step().unwrap() && count() == 4);
        // A line that somebody else put there, in a file of its own or behind the last one.
        let ours = checkpoint::files(dir.path()).unwrap().pop().unwrap();
        let good = fs::read(&ours).unwrap();
        let line = lines::seal("{\"number\":5,\"previous\":\"x\"", Some(&[0; 64]));
        worker.delivery.written.store(5, Ordering::Release);
        for file in [ours.with_file_name("9999-12-31.jsonl"), ours.clone()] {
            let before = fs::read(&file).unwrap_or_default();
            fs::write(&file, [&before[..], line.as_bytes()].concat()).unwrap();
            assert!(worker.step().is_err() && worker.step().is_err());
            fs::write(&file, before).unwrap();
        }
        assert!(
            worker.step().unwrap_err().to_string().contains("checkpoint 5 is not as it was written: it is not there")
        );
        fs::remove_file(ours.with_file_name("9999-12-31.jsonl")).unwrap();
        assert_eq!((fs::read(&ours).unwrap(), copied().len(), count()), (good, 1, 4));
        checkpoints(dir.path(), 1);
        assert!(worker.step().unwrap() && !worker.step().unwrap() && count() == 5);
    }

    #[test]
    fn a_stop_waits_for_a_webhook_that_hangs_no_longer_than_is_said() {
        let dir = trail();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let destination = Destination::parse(&format!("http://{}/hook", listener.local_addr().unwrap()), None);
        checkpoints(dir.path(), 1);
        let delivery = Arc::<Delivery>::default();
        let copies = Copies::new(dir.path(), destination.clone(), delivery.clone()).unwrap();
        let mut deliverers = Deliverers::default();
        deliverers.start(dir.path(), Box::new(copies), delivery.clone()).unwrap();
        deliverers.written(1);
        // It takes the connection, and never says a word.
        let taken = listener.accept().unwrap();
        let since = Instant::now();
        drop(deliverers);
        assert!(since.elapsed() < FINISH_WITHIN + Duration::from_secs(1), "{:?}", since.elapsed());
        assert!(delivery.failures.load(Ordering::Relaxed) > 0);
        drop((taken, listener));
        let nobody = worker(dir.path(), &destination).step().unwrap_err().to_string();
        assert!(nobody.contains("refused"), "{nobody}");
    }

    #[test]
    fn a_webhook_gets_every_line_and_is_asked_again_when_it_refuses() {
        let dir = trail();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/hook?secret", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut bodies = Vec::new();
            for status in ["503 Busy", "302 Found\r\nlocation: http://127.0.0.1:1/", "204 Taken", "200 OK"] {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                bodies.push(body);
                write!(reader.get_mut(), "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .unwrap();
            }
            bodies
        });
        let destination = Destination::parse(&address, None);
        let copies = Copies::new(dir.path(), destination.clone(), Arc::default()).unwrap();
        assert!(!copies.shown().contains("secret"));
        checkpoints(dir.path(), 3);
        let mut first = worker(dir.path(), &destination);
        let refused = first.step().unwrap_err();
        assert!(refused.to_string().contains("503") && !refused.to_string().contains("secret"), "{refused}");
        let moved = first.step().unwrap_err().to_string();
        assert!(moved.contains("302") && moved.contains("redirections are not followed"), "{moved}");
        assert!(first.step().unwrap() && !first.step().unwrap());
        checkpoints(dir.path(), 1);
        assert!(worker(dir.path(), &destination).step().unwrap());
        let mut bodies = server.join().unwrap();
        assert!(bodies[0] == bodies[1] && bodies[1] == bodies[2]);
        bodies.remove(0);
        // The last line is sent again after a start.
        let (last, all) = (bodies[1].split_inclusive(|&byte| byte == b'\n').next_back().unwrap(), all(dir.path()));
        assert_eq!([&bodies[1][..], &bodies[2][last.len()..]].concat(), all);
        assert!(bodies[2].starts_with(last));
    }
}
