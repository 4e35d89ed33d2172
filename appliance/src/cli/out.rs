//! What a verb says, and to whom. The answer goes to standard output and into the exit status: a reader who hangs up (`| head`) has
//! seen enough, which changes the status in nothing; an answer that could not be written is a failure. Progress and prose go to
//! standard error, and that nobody can be told is no reason to end otherwise. Nothing here panics, as the macros of the standard library do.

use anyhow::Context as _;
use std::io::{self, Write};
use std::process::ExitCode;

/// Writes until nobody reads any more, and nothing from then on.
pub struct UntilHungUp<W> {
    out: W,
    hung_up: bool,
}

impl<W> UntilHungUp<W> {
    pub fn new(out: W) -> Self {
        Self { out, hung_up: false }
    }

    #[cfg(test)]
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// Whoever read it has had enough.
    pub fn is_over(&self) -> bool {
        self.hung_up
    }

    fn after<T>(&mut self, error: io::Error, as_if: T) -> io::Result<T> {
        unless_hung_up(error)?;
        self.hung_up = true;
        Ok(as_if)
    }
}

/// The error, unless it says that nobody reads any more.
pub fn unless_hung_up(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

impl<W: Write> Write for UntilHungUp<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.hung_up {
            return Ok(bytes.len());
        }
        self.out.write(bytes).or_else(|error| self.after(error, bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.hung_up {
            return Ok(());
        }
        self.out.flush().or_else(|error| self.after(error, ()))
    }
}

/// For a verb whose exit status says more than that it has written.
pub fn stdout() -> UntilHungUp<io::Stdout> {
    UntilHungUp::new(io::stdout())
}

/// Writes to standard output.
pub fn print(text: &str) -> anyhow::Result<ExitCode> {
    let mut out = stdout();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))?;
    Ok(ExitCode::SUCCESS)
}

/// The error of a write, told as every verb tells it.
pub fn written<T, E>(result: Result<T, E>) -> anyhow::Result<T>
where
    Result<T, E>: anyhow::Context<T, E>,
{
    result.context("could not write to standard output")
}

/// A line for people, on standard error.
macro_rules! note {
    ($($what:tt)*) => {{
        use std::io::Write as _;
        // Who does not listen is told nothing.
        let _ = writeln!(std::io::stderr(), $($what)*);
    }};
}

/// A pipe whose reader has gone.
#[cfg(test)]
pub struct NobodyReads;

#[cfg(test)]
impl Write for NobodyReads {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then the reader is gone; or, without one, the disk is full.
    struct Takes(usize, io::ErrorKind);

    impl Write for Takes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(self.1.into());
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.write(b"x").map(drop)
        }
    }

    #[test]
    fn who_hangs_up_has_seen_enough_and_a_full_disk_is_an_error() {
        let mut out = UntilHungUp::new(Takes(5, io::ErrorKind::BrokenPipe));
        assert!(writeln!(out, "abc").is_ok() && !out.is_over());
        for _ in 0..3 {
            assert!(writeln!(out, "and on").is_ok() && out.flush().is_ok() && out.is_over());
        }
        let mut flushed = UntilHungUp::new(Takes(0, io::ErrorKind::BrokenPipe));
        assert!(flushed.flush().is_ok() && flushed.is_over());
        let mut full = UntilHungUp::new(Takes(5, io::ErrorKind::StorageFull));
        assert!(writeln!(full, "abc").is_ok() && writeln!(full, "and on").is_err() && full.flush().is_err());
        assert!(!full.is_over());
    }

    #[test]
    fn no_verb_prints_with_a_macro_that_panics() {
        let mut found = Vec::new();
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli")];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).expect("sources").map(|entry| entry.expect("listable").path()) {
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).expect("readable");
                // Put together, or this line would be one.
                let macros = ["print", "println"].map(|name| format!("{name}!("));
                let prints = |line: &&str| macros.iter().any(|name| line.contains(name));
                found.extend(text.lines().filter(prints).map(|line| format!("{}: {line}", path.display())));
            }
        }
        assert!(found.is_empty(), "write with `print`, `stdout` or `note!` of cli/out.rs:\n{}", found.join("\n"));
    }
}
