//! Client programs and servers as child processes: always with a deadline, always ended by who started them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Finished {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// What it printed, if it ended well.
    pub fn succeeded(self) -> Result<String> {
        if self.status == Some(0) {
            return Ok(self.stdout);
        }
        bail!("exit status {:?}\n{}{}", self.status, tail(&self.stdout), tail(&self.stderr))
    }

    /// Standard output and standard error together, for cases that look for a text anywhere.
    pub fn everything(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The end of a text, so that a failure with megabytes of output stays readable.
pub fn tail(text: &str) -> &str {
    const SHOWN_BYTES_MAX: usize = 4_000;
    let mut start = text.len().saturating_sub(SHOWN_BYTES_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// A program that is told a line at a time and answers each with a line of JSON; killed when it is dropped.
pub struct Dialogue {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Dialogue {
    pub fn start(command: &mut Command) -> Result<Dialogue> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let to = child.stdin.take().context("no pipe")?;
        let from = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Dialogue { child, to, from })
    }

    pub fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.to, "{line}")?;
        Ok(self.to.flush()?)
    }

    pub fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the program said {line:?}"))
    }

    pub fn ask(&mut self, line: &str) -> Result<Value> {
        self.tell(line)?;
        self.answer()
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end; past the deadline it is killed and that is an error.
pub fn run(command: &mut Command, deadline: Duration) -> Result<Finished> {
    finish(spawn(command)?, deadline)
}

/// Starts a program whose output is collected by [`finish`].
pub fn spawn(command: &mut Command) -> Result<Child> {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {name}"))
}

/// Waits for a started program, collecting what it says.
pub fn finish(mut child: Child, deadline: Duration) -> Result<Finished> {
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let ended = wait(&mut child, deadline);
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let finished = |status| Finished {
        status,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    };
    match ended {
        Ok(status) => Ok(finished(status)),
        Err(error) => {
            let finished = finished(None);
            bail!("{error}\n{}{}", tail(&finished.stdout), tail(&finished.stderr))
        }
    }
}

/// The exit status, or an error when the deadline passes first.
pub fn wait(child: &mut Child, deadline: Duration) -> Result<Option<i32>> {
    let until = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() > until {
            bail!("still running after {} s", deadline.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks again until the answer is yes; an error naming `what` when the deadline passes first.
pub fn eventually(what: &str, deadline: Duration, mut question: impl FnMut() -> bool) -> Result<()> {
    let until = Instant::now() + deadline;
    while !question() {
        if Instant::now() > until {
            bail!("{what}: not within {} ms", deadline.as_millis());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Sends a signal by the system's own `kill`.
pub fn signal(child: &Child, name: &str) -> Result<()> {
    Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status()?;
    Ok(())
}

/// A loopback port nobody listens on right now.
pub fn free_port() -> Result<u16> {
    // The kernel may give out again what nobody has taken yet.
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().map_err(|_| anyhow!("a test that asked for a port panicked"))?;
    loop {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        if given.insert(port) {
            return Ok(port);
        }
    }
}

/// Where run.sh built to: `CARGO_TARGET_DIR/release/NAME`, else the neighbour of this program.
pub fn built(name: &str) -> Result<PathBuf> {
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        return Ok(PathBuf::from(target).join("release").join(name));
    }
    let own = std::env::current_exe()?;
    Ok(own.parent().context("this program lives in no folder")?.join(name))
}

/// A file of tests/clients.
pub fn client(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A broken pipe only ends the text early.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
