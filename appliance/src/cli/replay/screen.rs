//! The terminal while a replay has it: raw, with keys read on a thread of their own, and given back whatever happens.

use crossterm::terminal;
use std::io::{self, Read as _, Write as _};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

/// What somebody pressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    Pause,
    Next,
    Previous,
    Faster,
    Slower,
    Quit,
}

/// What came of waiting for a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waited {
    Key(Key),
    TimeIsUp,
    /// Nobody can press anything any more.
    Closed,
}

/// Holds the terminal; dropped, it is as it was.
pub struct Screen {
    keys: Receiver<Key>,
    /// A status line stands on the line of the cursor.
    status: bool,
}

impl Screen {
    pub fn take() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let (sender, keys) = mpsc::channel();
        let screen = Self { keys, status: false };
        restore_on_panic();
        restore_on_signals()?;
        std::thread::Builder::new().name("keys".into()).spawn(move || {
            let mut bytes = [0; 64];
            // Ends with the process: a read of a terminal cannot be called off.
            while let Ok(count) = io::stdin().read(&mut bytes) {
                let sent = keys_in(&bytes[..count]).into_iter().try_for_each(|key| sender.send(key));
                if count == 0 || sent.is_err() {
                    return;
                }
            }
        })?;
        Ok(screen)
    }

    /// `None`: as long as it takes.
    pub fn wait(&self, time: Option<Duration>) -> Waited {
        let Some(time) = time else { return self.keys.recv().map_or(Waited::Closed, Waited::Key) };
        match self.keys.recv_timeout(time) {
            Ok(key) => Waited::Key(key),
            Err(RecvTimeoutError::Timeout) => Waited::TimeIsUp,
            Err(RecvTimeoutError::Disconnected) => Waited::Closed,
        }
    }

    /// Text whose lines end in line feeds.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        let clear = if std::mem::take(&mut self.status) { "\r\u{1b}[2K" } else { "" };
        let mut out = io::stdout().lock();
        write!(out, "{clear}{}", text.replace('\n', "\r\n"))?;
        out.flush()
    }

    pub fn clear(&mut self) -> io::Result<()> {
        self.status = false;
        let mut out = io::stdout().lock();
        // The screen and what was scrolled off it.
        write!(out, "\u{1b}[H\u{1b}[2J\u{1b}[3J")?;
        out.flush()
    }

    /// One line below everything, replaced by whatever comes next.
    pub fn status(&mut self, text: &str) -> io::Result<()> {
        // A terminal that does not know its width says 0.
        let columns = terminal::size().map_or(0, |(columns, _)| columns);
        let width = if columns == 0 { 80 } else { usize::from(columns) };
        let text: String = text.chars().take(width.saturating_sub(1)).collect();
        let mut out = io::stdout().lock();
        write!(out, "\r\u{1b}[2K\u{1b}[7m{text}\u{1b}[0m")?;
        out.flush()?;
        self.status = true;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back(self.status);
    }
}

/// Fails only where there is no terminal any more.
fn give_back(status: bool) {
    let mut out = io::stdout();
    let _ = write!(out, "{}\u{1b}[0m", if status { "\r\u{1b}[2K" } else { "\r" });
    let _ = out.flush();
    let _ = terminal::disable_raw_mode();
}

/// Before the message, which would otherwise be written down like stairs.
fn restore_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        give_back(true);
        before(info);
    }));
}

/// A signal ends the program as ever, with the terminal given back first.
fn restore_on_signals() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let mut signals = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()]
        .map(|kind| (kind, signal(kind)));
    drop(guard);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let number = runtime.block_on(std::future::poll_fn(|context| {
            let mut came = signals.iter_mut().filter_map(|(kind, signal)| {
                let signal = signal.as_mut().ok()?;
                signal.poll_recv(context).is_ready().then(|| kind.as_raw_value())
            });
            came.next().map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        }));
        give_back(true);
        std::process::exit(128 + number);
    })?;
    Ok(())
}

/// Keys in what a terminal sent at once; what means nothing here is passed over.
fn keys_in(mut bytes: &[u8]) -> Vec<Key> {
    const SEQUENCES: [(&[u8], Key); 4] =
        [(b"\x1b[C", Key::Next), (b"\x1bOC", Key::Next), (b"\x1b[D", Key::Previous), (b"\x1bOD", Key::Previous)];
    let mut keys = Vec::new();
    while let Some((&first, rest)) = bytes.split_first() {
        if let Some((sequence, key)) = SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence)) {
            keys.push(*key);
            bytes = &bytes[sequence.len()..];
            continue;
        }
        bytes = rest;
        match first {
            b' ' => keys.push(Key::Pause),
            b'n' | b'l' => keys.push(Key::Next),
            b'p' | b'h' => keys.push(Key::Previous),
            b'+' | b'=' => keys.push(Key::Faster),
            b'-' => keys.push(Key::Slower),
            // q, Ctrl-C, Ctrl-D
            b'q' | 3 | 4 => keys.push(Key::Quit),
            // Another key's sequence: its letters are not keys.
            0x1b => bytes = after_sequence(bytes),
            _ => {}
        }
    }
    keys
}

/// What follows `[...` up to its final byte.
fn after_sequence(bytes: &[u8]) -> &[u8] {
    match bytes.split_first() {
        Some((b'[', rest)) => {
            let end = rest.iter().position(|byte| (0x40..=0x7e).contains(byte));
            end.map_or(&[], |end| &rest[end + 1..])
        }
        Some((b'O', rest)) => rest.get(1..).unwrap_or(&[]),
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_other_sequences_passed_over() {
        assert_eq!(keys_in(b" \x1b[C\x1b[Dnp+=-q\x03"), {
            use Key::*;
            [Pause, Next, Previous, Next, Previous, Faster, Faster, Slower, Quit, Quit]
        });
        assert_eq!(keys_in(b"\x1b[15~ \x1bOPx\x1b"), [Key::Pause]);
        assert_eq!(keys_in(b""), []);
    }
}
