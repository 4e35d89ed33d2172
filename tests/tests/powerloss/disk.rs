//! A disk that can lose its power. What is read is a real folder, as the page cache would show it; beside it stands what is
//! on stable storage, and what is on its way there.
//!
//! - Bytes written and not synced: at a power cut any subset of their sectors is there, in any order, one perhaps torn.
//! - Names created, renamed, removed and whose folder was not synced: any subset that makes sense is there.
//! - Any call may fail: a write after a part of it, a sync after some of it (and what it did not write, no later sync writes).

use lockgate::audit::disk::Disk;
use lockgate::audit::segment;
use lockgate_tests::harness::random::Random;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Which errors come, and when the power goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of a thousand calls.
    pub errors: usize,
    /// The power goes at this call from now on.
    pub power_cut_at: Option<u64>,
    /// Canary: syncs say they are done and do nothing.
    pub lying_syncs: bool,
}

#[derive(Clone)]
pub struct Simulated(Rc<RefCell<State>>);

struct State {
    root: PathBuf,
    random: Random,
    faults: Faults,
    calls: u64,
    power: bool,
    files: HashMap<u64, Inode>,
    /// On stable storage.
    names: BTreeMap<PathBuf, u64>,
    dirs: BTreeSet<PathBuf>,
    /// On their way there, in order.
    changes: Vec<Change>,
    writes: u64,
    /// A sync has failed since the power was last cut.
    sync_failed: bool,
}

#[derive(Default)]
struct Inode {
    stable: Vec<u8>,
    pending: Vec<Write>,
}

struct Write {
    number: u64,
    offset: usize,
    bytes: Vec<u8>,
}

enum Change {
    Create(PathBuf, u64),
    /// It is this file that gets the name, whatever else is called so by then.
    Rename(PathBuf, PathBuf, u64),
    Remove(PathBuf),
    MakeDir(PathBuf),
}

impl Change {
    fn paths(&self) -> Vec<&PathBuf> {
        match self {
            Change::Create(path, _) | Change::Remove(path) | Change::MakeDir(path) => vec![path],
            Change::Rename(from, to, _) => vec![from, to],
        }
    }
}

impl Inode {
    fn settle(&mut self, write: &Write) {
        let end = write.offset + write.bytes.len();
        if self.stable.len() < end {
            self.stable.resize(end, 0);
        }
        self.stable[write.offset..end].copy_from_slice(&write.bytes);
    }
}

impl Simulated {
    pub fn new(root: &Path, seed: u64) -> Self {
        let state = State {
            root: root.to_owned(),
            random: Random::new(seed),
            faults: Faults::default(),
            calls: 0,
            power: true,
            files: HashMap::new(),
            names: BTreeMap::new(),
            dirs: BTreeSet::from([root.to_owned()]),
            changes: Vec::new(),
            writes: 0,
            sync_failed: false,
        };
        Simulated(Rc::new(RefCell::new(state)))
    }

    pub fn set(&self, faults: Faults) {
        let mut state = self.0.borrow_mut();
        (state.faults, state.calls) = (faults, 0);
    }

    pub fn has_power(&self) -> bool {
        self.0.borrow().power
    }

    /// Has a sync failed since the power was last cut?
    pub fn sync_failed(&self) -> bool {
        self.0.borrow().sync_failed
    }

    /// What the kernel has been given so far: a sync that begins now covers it.
    pub fn written(&self) -> u64 {
        self.0.borrow().writes
    }

    /// The shard's own sync, which goes through the ring: covers what was written by the time it began.
    pub fn sync_fd(&self, fd: &File, up_to: u64) -> io::Result<()> {
        self.0.borrow_mut().sync(fd, up_to)
    }

    /// What somebody has brought to stable storage who was not asked to do it through here.
    pub fn settle_writes(&self) {
        for inode in self.0.borrow_mut().files.values_mut() {
            for write in std::mem::take(&mut inode.pending) {
                inode.settle(&write);
            }
        }
    }

    /// Everything that was not stable may be lost. The folder is then what a machine finds that is started again.
    pub fn power_cut(&self) {
        let mut state = self.0.borrow_mut();
        state.lose();
        state.restart();
    }
}

/// The file behind a descriptor that somebody else owns.
pub fn duplicate(fd: RawFd) -> File {
    // /proc gives the same inode, opened anew.
    File::open(format!("/proc/self/fd/{fd}")).expect("an open descriptor")
}

impl State {
    /// One call: fails when the power is off or goes now, or by chance.
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        if self.faults.power_cut_at.is_some_and(|at| self.calls >= at) {
            self.power = false;
        }
        if !self.power {
            return Err(io::Error::other("the power is off"));
        }
        if self.random.below(1000) < self.faults.errors {
            let kinds = [5 /* EIO */, 28 /* ENOSPC */, 122 /* EDQUOT */];
            return Err(io::Error::from_raw_os_error(*self.random.pick(&kinds)));
        }
        Ok(())
    }

    fn write(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let had_power = self.power;
        let result = self.call();
        // A part of a call that failed, or during which the power went, may have been written.
        let part = match &result {
            Ok(()) => bytes.len(),
            Err(_) if had_power => self.random.below(bytes.len() + 1),
            Err(_) => 0,
        };
        if part > 0 {
            file.write_all_at(&bytes[..part], offset)?;
            self.writes += 1;
            let write = Write { number: self.writes, offset: offset as usize, bytes: bytes[..part].to_vec() };
            self.files.entry(file.metadata()?.ino()).or_default().pending.push(write);
        }
        result
    }

    fn sync(&mut self, file: &File, up_to: u64) -> io::Result<()> {
        let result = self.call();
        if self.faults.lying_syncs || (result.is_err() && !self.power) {
            return result;
        }
        self.sync_failed |= result.is_err();
        let inode = self.files.entry(file.metadata()?.ino()).or_default();
        let (now, later) = std::mem::take(&mut inode.pending).into_iter().partition(|write| write.number <= up_to);
        inode.pending = later;
        for write in now {
            if result.is_ok() || self.random.chance(50) {
                inode.settle(&write);
            }
        }
        result
    }

    fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.call()?;
        if self.faults.lying_syncs {
            return Ok(());
        }
        let mut needed = BTreeSet::new();
        let (mut settled, mut left) = (Vec::new(), Vec::new());
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            let touched = change.paths().iter().any(|path| path.parent() == Some(dir) || needed.contains(*path));
            if touched {
                needed.extend(change.paths().into_iter().cloned());
                settled.push(change);
            } else {
                left.push(change);
            }
        }
        self.changes = left.into_iter().rev().collect();
        settled.into_iter().rev().for_each(|change| self.settle(change));
        Ok(())
    }

    fn settle(&mut self, change: Change) {
        match change {
            Change::Create(path, inode) => drop(self.names.insert(path, inode)),
            Change::MakeDir(path) => drop(self.dirs.insert(path)),
            Change::Remove(path) => drop(self.names.remove(&path)),
            Change::Rename(from, to, inode) => {
                if self.names.get(&from) == Some(&inode) {
                    self.names.remove(&from);
                    self.names.insert(to, inode);
                }
            }
        }
    }

    fn lose(&mut self) {
        let likely = *self.random.pick(&[0, 10, 50, 90, 100]);
        for change in std::mem::take(&mut self.changes) {
            if self.random.chance(likely) {
                self.settle(change);
            }
        }
        let dirs = self.dirs.clone();
        let stands = |path: &Path| {
            path.ancestors().skip(1).take_while(|up| up.starts_with(&self.root)).all(|up| dirs.contains(up))
        };
        self.names.retain(|path, _| stands(path));
        let unit = *self.random.pick(&[512, 4096]);
        let likely = *self.random.pick(&[0, 10, 50, 90, 100]);
        let tears = self.random.chance(30);
        for inode in self.files.values_mut() {
            for write in std::mem::take(&mut inode.pending) {
                let mut at = write.offset;
                let end = write.offset + write.bytes.len();
                while at < end {
                    let sector_end = ((at / unit + 1) * unit).min(end);
                    if self.random.chance(likely) {
                        // A torn sector keeps a part of what was there.
                        let torn = tears && self.random.chance(20);
                        let until = if torn { at + self.random.below(sector_end - at) } else { sector_end };
                        let bytes = write.bytes[at - write.offset..until - write.offset].to_vec();
                        inode.settle(&Write { number: 0, offset: at, bytes });
                    }
                    at = sector_end;
                }
            }
        }
    }

    fn restart(&mut self) {
        let archive = segment::archive_dir(&self.root);
        for entry in fs::read_dir(&self.root).expect("the root stays").flatten() {
            let of_the_archiver = entry.path() == archive && self.dirs.contains(&archive) || !entry.path().is_dir();
            if !of_the_archiver {
                fs::remove_dir_all(entry.path()).expect("removable");
            }
        }
        // What the archiver has made is on a disk of its own; only segments come there from here.
        for entry in fs::read_dir(&archive).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "seg") {
                fs::remove_file(entry.path()).expect("removable");
            }
        }
        let (root, dirs) = (self.root.clone(), self.dirs.clone());
        for dir in dirs.iter().filter(|dir| **dir != root) {
            fs::create_dir_all(dir).expect("created");
        }
        let mut files = HashMap::new();
        for (path, inode) in &mut self.names {
            let stable = self.files.remove(inode).unwrap_or_default().stable;
            fs::write(path, &stable).expect("written");
            *inode = path.metadata().expect("there").ino();
            files.insert(*inode, Inode { stable, pending: Vec::new() });
        }
        (self.files, self.power, self.sync_failed) = (files, true, false);
        self.faults = Faults { power_cut_at: None, errors: 0, ..self.faults };
    }
}

impl Disk for Simulated {
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.borrow_mut().write(file, bytes, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.0.borrow_mut().sync(file, u64::MAX)
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        self.0.borrow_mut().sync(file, u64::MAX)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        let mut state = self.0.borrow_mut();
        state.call()?;
        // A new inode each time: truncating one is another way to lose what it held.
        if path.exists() {
            fs::remove_file(path)?;
            state.changes.push(Change::Remove(path.to_owned()));
        }
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        let inode = file.metadata()?.ino();
        state.files.insert(inode, Inode::default());
        state.changes.push(Change::Create(path.to_owned(), inode));
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.call()?;
        fs::rename(from, to)?;
        let inode = to.metadata()?.ino();
        state.changes.push(Change::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.call()?;
        fs::remove_file(path)?;
        state.changes.push(Change::Remove(path.to_owned()));
        Ok(())
    }

    fn make_dir(&self, dir: &Path) -> io::Result<bool> {
        let mut state = self.0.borrow_mut();
        state.call()?;
        match fs::create_dir(dir) {
            Ok(()) => {
                state.changes.push(Change::MakeDir(dir.to_owned()));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.borrow_mut().sync_dir(dir)
    }
}
