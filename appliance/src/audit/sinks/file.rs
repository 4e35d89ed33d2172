//! A file: one event a line (NDJSON), rotated by size and age.
//!
//! ```text
//! audit.ndjson                       being written
//! audit.ndjson.20261128T201500Z      rotated; -1, -2 where a second has several
//! ```

use super::deliver::{Deliver, Delivered, Failure};
use super::join::Event;
use crate::audit::ocsf;
use crate::audit::segment::{at, sync_dir};
use crate::config::FileSink as Config;
use crate::files::{folder_of, try_folder};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// So much of a file is read to tell by its first line whether it is ours.
const FIRST_LINE_BYTES_MAX: usize = 1 << 20;

pub struct FileSink {
    config: Config,
    file: File,
    bytes: u64,
    /// When the file was made: a restart does not make it young again.
    since: SystemTime,
}

fn local(path: &Path, error: io::Error) -> Failure {
    Failure::mend(at(path, error).to_string(), "mend this on the gateway's host")
}

/// Could it be opened? Nothing is made.
pub fn check(config: &Config) -> Result<(), Failure> {
    let folder = folder_of(&config.path);
    match fs::metadata(&config.path) {
        Ok(file) if !file.is_file() => Err(local(&config.path, io::Error::other("is not a file"))),
        Ok(_) => match File::open(&config.path).map(|file| is_ours(&file)) {
            // Who checks may not be who writes: what cannot be read here shows there.
            Ok(Ok(true)) | Ok(Err(_)) | Err(_) => Ok(()),
            Ok(Ok(false)) => Err(local(&config.path, foreign())),
        },
        Err(_) if folder.is_dir() => Ok(()),
        Err(_) => Err(local(folder, io::Error::other("there is no such folder"))),
    }
}

/// Could this user write it? A rotation makes files beside it. Nothing is made that stays.
pub fn try_out(config: &Config) -> Result<(), Failure> {
    let unwritable = |path: &Path, error| {
        let mend = "a file in a folder that the gateway's user may write to; with deploy/lockgate.service also ReadWritePaths= in the unit";
        Failure::mend(at(path, error).to_string(), mend)
    };
    let folder = folder_of(&config.path);
    try_folder(folder).map_err(|error| unwritable(folder, error))?;
    match OpenOptions::new().append(true).open(&config.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritable(&config.path, error)),
        _ => Ok(()),
    }
}

impl FileSink {
    pub fn open(config: &Config) -> Result<Self, Failure> {
        let (file, bytes, since) = open(&config.path).map_err(|error| local(&config.path, error))?;
        Ok(Self { config: config.clone(), file, bytes, since })
    }

    fn write(&mut self, batch: &[Event]) -> io::Result<()> {
        self.follow_rotation()?;
        let mut text = Vec::with_capacity(batch.iter().map(|event| event.json.len() + 1).sum());
        for event in batch {
            text.extend_from_slice(event.json.as_bytes());
            text.push(b'\n');
        }
        if self.due(text.len() as u64) {
            self.rotate()?;
        }
        let written =
            self.file.write_all(&text).and_then(|()| if self.config.sync { self.file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            self.take_back()?;
            return Err(error);
        }
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// The batch comes again as a whole: half of it must not stay. The file never grows by this: who emptied it meanwhile would find it
    /// full of NUL bytes.
    fn take_back(&mut self) -> io::Result<()> {
        let whole = whole_lines(&self.file, self.bytes.min(self.file.metadata()?.len()))?;
        self.file.set_len(whole)?;
        self.bytes = whole;
        Ok(())
    }

    /// Somebody else (logrotate) may have moved the file away, or copied and emptied it.
    fn follow_rotation(&mut self) -> io::Result<()> {
        let (ours, named) = (self.file.metadata()?, fs::metadata(&self.config.path));
        let is_named = named.is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino()));
        if !is_named || ours.len() < self.bytes {
            (self.file, self.bytes, self.since) = open(&self.config.path)?;
        } else {
            self.bytes = ours.len();
        }
        Ok(())
    }

    fn due(&self, more: u64) -> bool {
        let old = |age| self.since.elapsed().is_ok_and(|elapsed| elapsed >= age);
        self.bytes > 0 && (self.bytes + more > self.config.rotate_bytes || self.config.rotate_every.is_some_and(old))
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.config.path, self.rotated_name()?)?;
        (self.file, self.bytes, self.since) = open(&self.config.path)?;
        sync_dir(folder_of(&self.config.path))?;
        if let Some(keep) = self.config.keep {
            let rotated = rotated(&self.config.path)?;
            for old in &rotated[..rotated.len().saturating_sub(keep)] {
                fs::remove_file(&old.path)?;
            }
        }
        Ok(())
    }

    /// Never one that is older than another's: the order of names is the order of their events.
    fn rotated_name(&self) -> io::Result<PathBuf> {
        let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let of_this_second = rotated(&self.config.path)?.into_iter().filter(|file| file.date == stamp);
        let tail =
            of_this_second.map(|file| file.number + 1).max().map_or(String::new(), |number| format!("-{number}"));
        let mut name = self.config.path.clone().into_os_string();
        name.push(format!(".{stamp}{tail}"));
        Ok(PathBuf::from(name))
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rotated {
    date: String,
    /// 0 where the name has none.
    number: u32,
    path: PathBuf,
}

/// The rotated files, oldest first.
fn rotated(path: &Path) -> io::Result<Vec<Rotated>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder_of(path))? {
        let entry = entry?;
        let other = entry.file_name().into_string().unwrap_or_default();
        let Some(stamp) = other.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) else { continue };
        let (date, number) = stamp.split_once('-').unwrap_or((stamp, "0"));
        let is_date = date.len() == 16 && date.ends_with('Z') && date.as_bytes()[..8].iter().all(u8::is_ascii_digit);
        if let (true, Ok(number)) = (is_date, number.parse::<u32>()) {
            found.push(Rotated { date: date.to_owned(), number, path: entry.path() });
        }
    }
    found.sort();
    Ok(found)
}

/// For appending, to a file of our own. A last line that is not whole was never acknowledged: it is cut off and comes again.
fn open(path: &Path) -> io::Result<(File, u64, SystemTime)> {
    let file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    if !is_ours(&file)? {
        return Err(foreign());
    }
    let (bytes, whole) = (metadata.len(), whole_lines(&file, metadata.len())?);
    if whole < bytes {
        file.set_len(whole)?;
    }
    let since = if whole == 0 { SystemTime::now() } else { metadata.created().unwrap_or(SystemTime::now()) };
    Ok((file, whole, since))
}

fn foreign() -> io::Error {
    io::Error::other("holds something else than events of this gateway: name another file, or move this one away")
}

/// Nothing, or events from the first line on. Whatever else it is, nothing is added to it, and nothing cut off.
fn is_ours(file: &File) -> io::Result<bool> {
    let mut start = vec![0; FIRST_LINE_BYTES_MAX.min(usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX))];
    file.read_exact_at(&mut start, 0)?;
    Ok(match memchr::memchr(b'\n', &start) {
        Some(end) => ocsf::is_event(&start[..end]),
        // A crash left the beginning of the first one.
        None => ocsf::may_become_event(&start),
    })
}

/// Bytes up to and including the last line end.
fn whole_lines(file: &File, bytes: u64) -> io::Result<u64> {
    let mut chunk = vec![0; 64 << 10];
    let mut end = bytes;
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let part = &mut chunk[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(index) = memchr::memrchr(b'\n', part) {
            return Ok(start + index as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

impl Deliver for FileSink {
    fn deliver(&mut self, batch: &[Event]) -> Result<Delivered, Failure> {
        self.write(batch).map_err(|error| local(&self.config.path, error))?;
        Ok(Delivered::all(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;

    fn config(dir: &Path) -> Config {
        Config { path: dir.join("audit.ndjson"), rotate_bytes: 1 << 20, rotate_every: None, keep: None, sync: true }
    }

    fn of_ours(number: u64) -> Event {
        let json = format!("{{\"activity_id\":1,\"metadata\":{{\"log_name\":\"lockgate.audit\"}},\"n\":{number}}}");
        Event { json, ..event(number) }
    }

    #[test]
    fn a_file_of_somebody_else_is_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = config(dir.path());
        for text in ["[server]\ndata_dir = \"data\"", "{\"n\":1}\n", "x", "\n"] {
            fs::write(&config.path, text).expect("written");
            for failure in [check(&config).expect_err("foreign"), FileSink::open(&config).err().expect("foreign")] {
                assert!(matches!(failure, Failure::Later { mend: Some(_), .. }), "{failure:?}");
            }
            assert_eq!(fs::read_to_string(&config.path).expect("readable"), text);
        }
        for torn in ["", "{", "{\"activity_id\":1,\"meta"] {
            fs::write(&config.path, torn).expect("written");
            check(&config).expect("ours");
            deliver(&mut FileSink::open(&config).expect("ours"), 1..2);
            assert_eq!(numbers(&config.path), [1]);
        }
    }

    fn deliver(sink: &mut FileSink, numbers: std::ops::Range<u64>) {
        let batch: Vec<_> = numbers.map(of_ours).collect();
        assert_eq!(sink.deliver(&batch).expect("delivered"), Delivered::all(&batch));
    }

    fn numbers(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).expect("readable");
        let number = |line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["n"].as_u64().expect("n");
        text.lines().map(number).collect()
    }

    #[test]
    fn a_line_that_is_not_whole_is_cut_off_and_written_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = config(dir.path());
        deliver(&mut FileSink::open(&config).expect("opens"), 1..3);
        let mut file = OpenOptions::new().append(true).open(&config.path).expect("opens");
        file.write_all(b"{\"n\":3").expect("written");
        deliver(&mut FileSink::open(&config).expect("opens"), 3..5);
        assert_eq!(numbers(&config.path), [1, 2, 3, 4]);
        assert_eq!(fs::metadata(&config.path).expect("there").mode() & 0o777, 0o600);
    }

    #[test]
    fn files_are_rotated_by_size_and_only_so_many_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config { rotate_bytes: 200, keep: Some(3), ..config(dir.path()) };
        let mut sink = FileSink::open(&config).expect("opens");
        (0..12).for_each(|number| deliver(&mut sink, number * 2..number * 2 + 2));
        let kept = rotated(&config.path).expect("listable");
        assert_eq!(kept.len(), 3);
        let paths = kept.iter().map(|file| &file.path).chain([&config.path]);
        let all: Vec<_> = paths.flat_map(|path| numbers(path)).collect();
        assert_eq!(all, (16..24).collect::<Vec<_>>(), "{kept:?}");
        fs::write(dir.path().join("audit.ndjson.notes"), "mine").expect("written");
        assert_eq!(rotated(&config.path).expect("listable").len(), 3);
    }

    #[test]
    fn files_are_rotated_by_age() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config { rotate_every: Some(std::time::Duration::ZERO), ..config(dir.path()) };
        let mut sink = FileSink::open(&config).expect("opens");
        (1..4).for_each(|number| deliver(&mut sink, number..number + 1));
        assert_eq!((rotated(&config.path).expect("listable").len(), numbers(&config.path)), (2, vec![3]));
    }

    #[test]
    fn a_file_that_somebody_moved_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = config(dir.path());
        let mut sink = FileSink::open(&config).expect("opens");
        deliver(&mut sink, 1..2);
        fs::rename(&config.path, dir.path().join("moved")).expect("moved");
        deliver(&mut sink, 2..3);
        assert_eq!((numbers(&dir.path().join("moved")), numbers(&config.path)), (vec![1], vec![2]));
    }

    #[test]
    fn a_file_that_somebody_emptied_is_begun_anew_and_never_filled_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config { rotate_bytes: 200, ..config(dir.path()) };
        let mut sink = FileSink::open(&config).expect("opens");
        let empty = || OpenOptions::new().write(true).truncate(true).open(&config.path).expect("emptied");
        deliver(&mut sink, 1..3);
        empty();
        deliver(&mut sink, 3..5);
        assert_eq!(rotated(&config.path).expect("listable"), [], "what was there does not count");
        assert_eq!(numbers(&config.path), [3, 4]);
        // Emptied between a look and a write that failed in the middle of its second line.
        let mut emptied = empty();
        emptied.write_all(format!("{}\n{{", of_ours(5).json).as_bytes()).expect("written");
        sink.take_back().expect("cut");
        deliver(&mut sink, 6..7);
        assert_eq!(numbers(&config.path), [5, 6]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_and_nothing_is_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config { path: dir.path().join("no/audit.ndjson"), ..config(dir.path()) };
        for failure in [check(&config).expect_err("no folder"), FileSink::open(&config).err().expect("no folder")] {
            assert!(matches!(failure, Failure::Later { mend: Some(_), .. }), "{failure:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).expect("listable").count(), 0);
    }

    #[test]
    fn a_trial_leaves_everything_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = config(dir.path());
        try_out(&config).expect("writable");
        assert_eq!(fs::read_dir(dir.path()).expect("listable").count(), 0);
        fs::write(&config.path, "{").expect("written");
        try_out(&config).expect("writable");
        assert_eq!(fs::read_to_string(&config.path).expect("readable"), "{");
        // Nobody, not even root, makes files there.
        let elsewhere = Config { path: "/proc/self/audit.ndjson".into(), ..config };
        assert!(matches!(try_out(&elsewhere), Err(Failure::Later { mend: Some(_), .. })));
    }
}
