//! Files a run's results go to: opened before the run, so that one that cannot be written costs no run.

use anyhow::{Context, Result};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: File,
    /// It was not there before, and holds nothing yet.
    is_new: bool,
}

impl Output {
    /// What the file holds stays until there is something better.
    pub fn open(path: &Path) -> Result<Output> {
        let (file, is_new) = open(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Output { path: path.into(), file, is_new })
    }

    /// Whether what is written to one would be lost in the other. A terminal, a pipe or /dev/null takes both.
    pub fn is_same_file(&self, other: &Output) -> bool {
        let identity = |output: &Output| {
            let of = output.file.metadata().ok().filter(Metadata::is_file)?;
            Some((of.dev(), of.ino()))
        };
        identity(self).is_some_and(|own| Some(own) == identity(other))
    }

    pub fn write(mut self, text: &str) -> Result<()> {
        self.is_new = false;
        // A terminal or a pipe has no length.
        let _ = self.file.set_len(0);
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.flush());
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn open(path: &Path) -> io::Result<(File, bool)> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            OpenOptions::new().write(true).open(path).map(|file| (file, false))
        }
        opened => opened.map(|file| (file, true)),
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_new {
            // A run that told nothing leaves no empty file; nothing more can be done about an error here.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_any_of_its_names() {
        let directory = std::env::temp_dir();
        let names = ["a", "b", "c"].map(|name| directory.join(format!("loadgen-{name}-{}", std::process::id())));
        let [first, second, other] = names.each_ref().map(|path| Output::open(path).expect("there is room"));
        drop(second);
        fs::hard_link(&names[0], &names[1]).expect("it is there");
        let second = Output::open(&names[1]).expect("it is there");
        assert!(first.is_same_file(&second) && !first.is_same_file(&other));
        let null = || Output::open(Path::new("/dev/null")).expect("it is there");
        assert!(!null().is_same_file(&null()));
        drop((first, second, other));
        let _ = fs::remove_file(&names[1]);
    }

    #[test]
    fn a_run_that_came_to_nothing_leaves_files_as_they_were() {
        let path = std::env::temp_dir().join(format!("loadgen-output-{}", std::process::id()));
        drop(Output::open(&path).expect("there is room"));
        assert!(!path.exists());
        Output::open(&path).and_then(|file| file.write("longer than it was")).expect("there is room");
        drop(Output::open(&path).expect("it is there"));
        Output::open(&path).and_then(|file| file.write("short")).expect("there is room");
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), Some("short"));
        fs::remove_file(path).expect("it is ours");
    }
}
