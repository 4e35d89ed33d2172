//! The gateway's side of its archiver: started, watched, started again, and asked to finish at the end.
//!
//! The archiver's standard input is a pipe that we hold. It ends when we do, however we end, and the archiver with it.

use super::key::Given;
use super::status::{Status, unix_us};
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// What the archiver reads when it has to finish.
pub const DRAIN: &str = "drain";
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The same at an archiver that works and was asked for nothing.
const LOOK_EVERY_WELL: Duration = Duration::from_millis(250);
/// Pauses before it is started again: doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// After running for so long it starts with the first pause again.
const PROVED: Duration = Duration::from_secs(30);
/// To archive what is recorded at the end. Beyond: the next start goes on.
const FINISH_WITHIN: Duration = Duration::from_secs(15);

/// An archiver that does not work for so long is everybody's trouble: the ring will fill. Microseconds.
const TROUBLE_US: i64 = 60_000_000;

/// This very program, with other arguments.
#[derive(Clone, Debug)]
pub struct Program {
    pub arguments: Vec<OsString>,
    /// The keys that sign checkpoints, where they come from the encrypted store: its first line of standard input.
    pub keys: Option<Given>,
}

impl Program {
    fn spawn(&self) -> std::io::Result<Child> {
        // The file that runs, be it replaced by an upgrade meanwhile. Nothing of our environment: it may hold credentials.
        Command::new("/proc/self/exe")
            .arg0("lockgate")
            .args(&self.arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C at a terminal is for us: we ask it to finish when our last record is written.
            .process_group(0)
            .spawn()
            .and_then(|child| self.hand_over(child))
    }

    fn hand_over(&self, mut child: Child) -> std::io::Result<Child> {
        if let (Some(Given(keys)), Some(stdin)) = (&self.keys, &mut child.stdin) {
            let line = Zeroizing::new(keys.iter().map(|key| key.trim()).collect::<Vec<_>>().join(" ") + "\n");
            stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush())?;
        }
        Ok(child)
    }
}

/// What the gateway knows of its archiver, supervised or not.
#[derive(Clone, Debug)]
pub struct ArchiveWatch {
    data_dir: PathBuf,
    restarts: Arc<Restarts>,
    started_us: i64,
}

impl ArchiveWatch {
    pub fn new(data_dir: &Path, restarts: Arc<Restarts>) -> Self {
        Self { data_dir: data_dir.to_owned(), restarts, started_us: unix_us() }
    }

    /// What it told last, if it ever did, and how often it was started again.
    pub fn status(&self) -> (Option<Status>, u64) {
        (Status::read(&self.data_dir), self.restarts.count())
    }

    /// Why nothing has been archived for too long. `None`: all is well, or may still be.
    pub fn trouble(&self) -> Option<String> {
        let (status, now_us) = (Status::read(&self.data_dir), unix_us());
        let well_us = status.as_ref().map_or(0, |status| status.well_us).max(self.started_us);
        let silent_us = now_us - well_us;
        if silent_us < TROUBLE_US {
            return None;
        }
        let why = match status {
            Some(Status { error: Some(error), .. }) => error,
            _ => "it does not run".to_owned(),
        };
        Some(format!("nothing has been archived for {} s: {why}", silent_us / 1_000_000))
    }
}

/// How often the archiver had to be started again.
#[derive(Debug, Default)]
pub struct Restarts(AtomicU64);

impl Restarts {
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The watcher's thread.
pub struct Supervisor {
    finish: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Supervisor {
    pub fn start(program: Program, restarts: Arc<Restarts>) -> std::io::Result<Self> {
        let finish = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&finish);
        let thread =
            std::thread::Builder::new().name("archiver".into()).spawn(move || watch(&program, &restarts, &asked))?;
        Ok(Self { finish, thread })
    }

    /// Everything is recorded: waits until it is archived as well, or for [`FINISH_WITHIN`].
    pub fn finish(self) {
        self.finish.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the archiver's supervisor panicked");
        }
    }
}

fn watch(program: &Program, restarts: &Restarts, finish: &AtomicBool) {
    let mut pause = BACKOFF.0;
    loop {
        let started = Instant::now();
        match program.spawn() {
            Ok(mut child) => match run(&mut child, finish) {
                Some(status) => tracing::error!("the archiver ended ({status}): it is started again"),
                None => return,
            },
            Err(error) => tracing::error!("the archiver cannot be started: {error}"),
        }
        restarts.0.fetch_add(1, Ordering::Relaxed);
        if started.elapsed() >= PROVED {
            pause = BACKOFF.0;
        }
        let until = Instant::now() + pause;
        pause = (pause * 2).min(BACKOFF.1);
        while Instant::now() < until && !finish.load(Ordering::Acquire) {
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}

/// Until it ends. `None`: it was asked to.
fn run(child: &mut Child, finish: &AtomicBool) -> Option<ExitStatus> {
    let mut asked: Option<Instant> = None;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if asked.is_none() => return Some(status),
            Ok(Some(status)) => {
                if !status.success() {
                    tracing::error!("the archiver could not finish ({status}): the next start goes on");
                }
                return None;
            }
            Ok(None) => {}
            Err(error) => tracing::error!("the archiver cannot be watched: {error}"),
        }
        match asked {
            None if finish.load(Ordering::Acquire) => {
                asked = Some(Instant::now());
                // One that is dead does not read: the next look sees that.
                let _ = child.stdin.as_mut().map(|stdin| writeln!(stdin, "{DRAIN}").and_then(|()| stdin.flush()));
            }
            Some(since) if since.elapsed() >= FINISH_WITHIN => {
                tracing::error!("the archiver takes too long to finish: the next start goes on");
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            _ => {}
        }
        // Whoever asks wakes us.
        std::thread::park_timeout(if asked.is_some() { LOOK_EVERY } else { LOOK_EVERY_WELL });
    }
}
