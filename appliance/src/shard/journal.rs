//! First the record, then the bytes: what a round has recorded is kept or written before its sends are released, and the syncs come behind it.

use super::io::Io;
use super::log::Mode;
use super::timers::NEVER;
use codecs::Side;
use std::io;

/// The last round whose records are as safe as the mode promises, for what each side is to get: a statement may ask for more
/// than the message that ends its response.
#[derive(Clone, Copy, Debug)]
pub struct Safe {
    pub client: u64,
    pub target: u64,
}

impl Safe {
    pub fn of(self, side: Side) -> u64 {
        match side {
            Side::Client => self.client,
            Side::Target => self.target,
        }
    }

    fn both(round: u64) -> Self {
        Self { client: round, target: round }
    }
}

/// Since when something waits for stable storage. Monotonic microseconds.
#[derive(Default)]
struct Behind {
    since_us: Option<u64>,
    /// The same of what the sync that is under way does not cover.
    uncovered_us: Option<u64>,
}

impl Behind {
    fn kept(&mut self, now_us: u64) {
        self.since_us.get_or_insert(now_us);
        self.uncovered_us.get_or_insert(now_us);
    }

    /// It covers everything until now.
    fn sync_begins(&mut self) {
        self.uncovered_us = None;
    }

    /// `all`: what came while it was under way is on stable storage as well.
    fn synced(&mut self, all: bool) {
        self.since_us = if all { None } else { self.uncovered_us };
    }

    fn lag_us(&self, now_us: u64) -> u64 {
        self.since_us.map_or(0, |since_us| now_us.saturating_sub(since_us))
    }
}

/// How far the shard's record has come.
pub struct Ledger {
    mode: Mode,
    commit_interval_us: u64,
    /// The last round that outlives the process, the last written to the trail, and the last known to be on stable storage.
    kept: u64,
    written: u64,
    synced: u64,
    syncing: bool,
    /// When the next interval ends, while there is something to write or to sync.
    due_us: u64,
    behind: Behind,
}

impl Ledger {
    pub fn new(mode: Mode, commit_interval_us: u64) -> Self {
        let (kept, written, synced) = (0, 0, 0);
        let (syncing, due_us, behind) = (false, NEVER, Behind::default());
        Self { mode, commit_interval_us, kept, written, synced, syncing, due_us, behind }
    }

    /// What is safe before anything is recorded; `async` never makes anybody wait.
    pub fn safe_at_start(&self) -> Safe {
        match self.mode {
            Mode::Group | Mode::Strict => Safe::both(0),
            Mode::Async => Safe::both(u64::MAX),
        }
    }

    /// Nothing is left to write or to bring to stable storage.
    pub fn is_settled<D>(&self, io: &Io<D>) -> bool {
        !io.log.dirty() && self.kept == self.synced && !self.syncing
    }

    pub fn next_us(&self) -> u64 {
        self.due_us
    }

    /// Nobody will record anything more: the interval ends now.
    pub fn hurry(&mut self, now_us: u64) {
        if self.due_us != NEVER {
            self.due_us = now_us;
        }
    }

    /// Ends a round: makes its record as safe as the mode promises (or begins to) and releases what may go. `alone`: nobody but
    /// the session whose record it is would wait for the disk.
    pub fn commit<D>(&mut self, alone: bool, io: &mut Io<D>) -> Result<(), String> {
        let dirty = io.log.dirty();
        if !dirty && self.due_us == NEVER && self.kept == self.synced {
            return Ok(());
        }
        match self.mode {
            Mode::Group => {
                if dirty {
                    io.log.keep().map_err(unwritten)?;
                    self.kept(io);
                    io.safe = Safe::both(self.kept);
                    io.ring.release(io.safe);
                }
                self.sync_when_due(io)?;
            }
            // What goes to a target waits for stable storage; what goes to a client, for the kernel. With nothing waiting, the
            // disk is left free for the next statement.
            Mode::Strict => {
                if dirty {
                    self.write(io)?;
                    io.safe.client = self.written;
                    io.ring.release(io.safe);
                }
                if io.ring.holds_for_target() {
                    self.sync_for_target(alone, io)?;
                } else {
                    self.sync_when_due(io)?;
                }
            }
            Mode::Async => {
                // Also where a sync that was under way did not cover the last write.
                if self.due_us == NEVER {
                    self.due_us = io.now.mono_us + self.commit_interval_us;
                }
                if self.due_us <= io.now.mono_us {
                    if dirty {
                        self.write(io)?;
                    }
                    self.sync_when_due(io)?;
                }
            }
        }
        // Also while a sync hangs and nobody records.
        self.tell_lag(io);
        Ok(())
    }

    /// Writes what the round has recorded.
    fn write<D>(&mut self, io: &mut Io<D>) -> Result<(), String> {
        self.kept(io);
        self.write_kept(io)
    }

    /// The round is recorded.
    fn kept<D>(&mut self, io: &mut Io<D>) {
        self.kept = io.round;
        io.round += 1;
        self.behind.kept(io.now.mono_us);
    }

    fn write_kept<D>(&mut self, io: &mut Io<D>) -> Result<(), String> {
        io.log.write().map_err(unwritten)?;
        io.counters.journal_writes.add(1);
        self.written = self.kept;
        Ok(())
    }

    fn sync_when_due<D>(&mut self, io: &mut Io<D>) -> Result<(), String> {
        if self.kept == self.synced {
            self.due_us = NEVER;
        } else if self.due_us == NEVER {
            self.due_us = io.now.mono_us + self.commit_interval_us;
        } else if self.due_us <= io.now.mono_us {
            self.due_us = NEVER;
            if self.written < self.kept {
                self.write_kept(io)?;
            }
            self.sync(io);
        }
        Ok(())
    }

    /// A kernel worker syncs while the shard goes on; handing it over and back costs a lone session more than it gains.
    fn sync_for_target<D>(&mut self, alone: bool, io: &mut Io<D>) -> Result<(), String> {
        // Whatever the interval would have begun is under way then, or begins now.
        self.due_us = NEVER;
        match io.log.sync_fd().filter(|_| alone && !self.syncing) {
            Some(fd) => {
                let result = io.ring.sync_now(fd);
                self.synced(self.written, result, io)
            }
            None => {
                self.sync(io);
                Ok(())
            }
        }
    }

    /// Begins to sync what is written, unless a sync is under way: then the next one covers it.
    fn sync<D>(&mut self, io: &mut Io<D>) {
        if self.syncing || self.written == self.synced {
            return;
        }
        match io.log.sync_fd() {
            Some(fd) => {
                self.syncing = true;
                self.behind.sync_begins();
                io.ring.sync(fd, self.written);
            }
            None => self.reached(self.written, io),
        }
    }

    /// A sync is over.
    pub fn synced<D>(&mut self, round: u64, result: io::Result<()>, io: &mut Io<D>) -> Result<(), String> {
        self.syncing = false;
        let (round, result) = match (result, io.log.sync_fd()) {
            // Again, and by the shard itself: this one needs no kernel worker, and it covers all that is written by now.
            (Err(error), Some(fd)) if was_not_tried(&error) => (self.written, io.ring.sync_now(fd)),
            (result, _) => (round, result),
        };
        result.map_err(|e| format!("the audit record could not be brought to stable storage: {e}"))?;
        io.counters.journal_syncs.add(1);
        self.reached(round, io);
        Ok(())
    }

    fn reached<D>(&mut self, round: u64, io: &mut Io<D>) {
        self.synced = self.synced.max(round);
        self.behind.synced(self.synced == self.kept);
        self.tell_lag(io);
        if self.mode == Mode::Strict {
            io.safe.target = self.synced;
            io.ring.release(io.safe);
        }
    }

    fn tell_lag<D>(&self, io: &Io<D>) {
        io.shared.counters.audit_lag_us.set(self.behind.lag_us(io.now.mono_us));
    }
}

/// Nothing was learnt of the disk: the kernel had no worker for the sync (a limit on threads ends it with ECANCELED), or was interrupted.
fn was_not_tried(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::EAGAIN | libc::EINTR))
}

fn unwritten(error: io::Error) -> String {
    format!("the audit record could not be written: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_without_a_kernel_worker_tells_nothing_of_the_disk() {
        let check = |code, expected| assert_eq!(was_not_tried(&io::Error::from_raw_os_error(code)), expected, "{code}");
        [libc::ECANCELED, libc::EAGAIN, libc::EINTR].into_iter().for_each(|code| check(code, true));
        [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EBADF, libc::EROFS]
            .into_iter()
            .for_each(|code| check(code, false));
        assert!(!was_not_tried(&io::Error::other("not the system's")));
    }

    #[test]
    fn how_far_stable_storage_is_behind_counts_from_the_first_record_that_no_sync_has_covered() {
        let mut behind = Behind::default();
        assert_eq!(behind.lag_us(5), 0);
        behind.kept(10);
        behind.kept(20);
        behind.sync_begins();
        assert_eq!(behind.lag_us(25), 15);
        behind.kept(30);
        behind.kept(40);
        behind.synced(false);
        assert_eq!(behind.lag_us(50), 20, "the sync took 20, and what came meanwhile waits since 30");
        behind.sync_begins();
        behind.synced(true);
        assert_eq!(behind.lag_us(60), 0);
        behind.kept(70);
        assert_eq!(behind.lag_us(75), 5);
    }
}
