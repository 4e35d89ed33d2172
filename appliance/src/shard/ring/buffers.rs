//! The provided-buffer ring: the kernel picks a buffer for each receive, we give it back once its bytes are neither
//! undecided nor unsent. It has a few at a time, those used last first: they are in the caches, and memory that is never
//! needed is never touched.
//!
//! ```text
//!   | headroom (ours: a cut message's head goes here) | bytes the kernel received                |
//!                                                      ^ Chunk, Chunk, ... disjoint ranges, counted
//! ```

use io_uring::types::BufRingEntry;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

/// Room in front of what the kernel writes: the head of a message cut by the end of the previous buffer is copied
/// there, so that joining costs a copy of the head and not of the whole buffer.
pub const HEADROOM_BYTES: usize = 4096;

/// A range of one buffer, owned: ranges handed out never overlap. Must be released, or its buffer is lost to the ring.
#[derive(Debug)]
pub struct Chunk {
    buffer: u16,
    start: u32,
    end: u32,
}

impl Chunk {
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Forgets the first `count` bytes.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "advanced past the end of a chunk");
        self.start += count as u32;
    }
}

/// Storage, the kernel's list of free buffers, and how many chunks each buffer is split into.
pub struct Buffers {
    entries: Mapping,
    storage: Mapping,
    count: u16,
    buffer_bytes: u32,
    tail: u16,
    /// Chunks alive per buffer; 0: the kernel has it, or nobody.
    chunks: Vec<u32>,
    held: u16,
    /// Nobody has these; the one that was used last is the last.
    spare: Vec<u16>,
    /// How many the kernel has, and how many it is to have when it is asked to receive.
    lent: u16,
    wanted: u16,
    /// It ran out since.
    ran_out: bool,
    /// It got all there were, the last time.
    got_all: bool,
    /// The most it has used between two times, since [`Self::relax`].
    peak: u16,
}

/// What the kernel has at first; twice as many each time it runs out.
const LENT_MIN: u16 = 64;
/// Buffers begin at different places of their pages, so that their first bytes do not share a set of the processor's caches.
const STAGGER_BYTES: usize = 3 * 64;

impl Buffers {
    /// `count` buffers (a power of two) of `buffer_bytes` each.
    pub fn new(count: u16, buffer_bytes: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "the kernel takes a power of two, at most 32768");
        let bytes = count as usize * stride(buffer_bytes);
        let storage = Mapping::new(bytes).map_err(|error| {
            let all = format!("{count} receive buffers of {} KiB, {} MiB in all", buffer_bytes >> 10, bytes >> 20);
            io::Error::new(error.kind(), format!("no memory for {all} (lower --buffers or --buffer-kib): {error}"))
        })?;
        let mut buffers = Self {
            entries: Mapping::new(count as usize * size_of::<BufRingEntry>())?,
            storage,
            count,
            buffer_bytes,
            tail: 0,
            chunks: vec![0; count as usize],
            held: 0,
            spare: (0..count).rev().collect(),
            lent: 0,
            wanted: LENT_MIN.min(count),
            ran_out: false,
            got_all: false,
            peak: 0,
        };
        buffers.top_up();
        Ok(buffers)
    }

    pub(super) fn entries_address(&self) -> u64 {
        self.entries.start as u64
    }

    /// Leaks the memory: the kernel may still write to it.
    pub(super) fn keep_for_ever(&mut self) {
        self.entries.leaked = true;
        self.storage.leaked = true;
    }

    /// Buffers with bytes that are undecided or unsent.
    pub fn held(&self) -> usize {
        self.held as usize
    }

    /// There is at least one to receive into.
    pub fn any_free(&self) -> bool {
        self.held < self.count
    }

    /// So few are left that bytes which stay should be copied out.
    pub fn scarce(&self) -> bool {
        self.held > self.count / 2
    }

    fn at(&self, buffer: u16, offset: u32) -> *mut u8 {
        let offset = buffer as usize * stride(self.buffer_bytes) + offset as usize;
        assert!(offset <= self.storage.len, "a chunk of these buffers");
        // SAFETY: within the mapping, by the line above.
        unsafe { self.storage.start.add(offset) }
    }

    /// Before the kernel is asked to receive: it gets as many as it is to have.
    #[inline]
    pub(super) fn top_up(&mut self) {
        if std::mem::take(&mut self.ran_out) {
            self.wanted = self.wanted.saturating_mul(2).min(self.count);
        }
        self.peak = self.peak.max(self.wanted.saturating_sub(self.lent));
        while self.lent < self.wanted
            && let Some(buffer) = self.spare.pop()
        {
            self.give(buffer);
        }
        self.got_all = self.spare.is_empty();
    }

    /// Now and then: it is to have half as many, if that would have been enough lately.
    pub fn relax(&mut self) {
        if self.peak < self.wanted / 2 {
            self.wanted = (self.wanted / 2).max(LENT_MIN.min(self.count));
        }
        self.peak = 0;
    }

    /// The kernel found none. `true`: though it had got all that were free.
    pub(super) fn ran_out(&mut self) -> bool {
        self.ran_out = true;
        self.got_all
    }

    /// Gives a buffer to the kernel.
    fn give(&mut self, buffer: u16) {
        let address = self.at(buffer, HEADROOM_BYTES as u32) as u64;
        let entries = self.entries.start as *mut BufRingEntry;
        // SAFETY: the entry at `tail` is ours until the release store below publishes it; the mapping holds `count`.
        unsafe {
            let entry = &mut *entries.add((self.tail & (self.count - 1)) as usize);
            entry.set_addr(address);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            self.lent += 1;
            (*(BufRingEntry::tail(entries) as *const AtomicU16)).store(self.tail, Ordering::Release);
        }
    }

    /// The kernel has put `len` bytes into `buffer`.
    pub(super) fn taken(&mut self, buffer: u16, len: u32) -> Chunk {
        assert!(self.chunks[buffer as usize] == 0 && len <= self.buffer_bytes, "the kernel had this buffer");
        self.chunks[buffer as usize] = 1;
        self.held += 1;
        self.lent -= 1;
        Chunk { buffer, start: HEADROOM_BYTES as u32, end: HEADROOM_BYTES as u32 + len }
    }

    /// As if the kernel had received `bytes`.
    #[cfg(test)]
    pub fn receive(&mut self, buffer: u16, bytes: &[u8]) -> Chunk {
        let mut chunk = self.taken(buffer, bytes.len() as u32);
        self.bytes_mut(&mut chunk).copy_from_slice(bytes);
        chunk
    }

    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        // SAFETY: chunks are disjoint ranges of initialised storage, this one is borrowed, and the kernel writes to a
        // buffer only when it has no chunks.
        unsafe { std::slice::from_raw_parts(self.at(chunk.buffer, chunk.start), chunk.len()) }
    }

    pub fn bytes_mut<'a>(&'a self, chunk: &'a mut Chunk) -> &'a mut [u8] {
        // SAFETY: as in `bytes`; the range is borrowed exclusively through its only chunk.
        unsafe { std::slice::from_raw_parts_mut(self.at(chunk.buffer, chunk.start), chunk.len()) }
    }

    /// Cuts the first `len` bytes off into a chunk of their own.
    pub fn split(&mut self, chunk: &mut Chunk, len: usize) -> Chunk {
        assert!(len <= chunk.len(), "split past the end of a chunk");
        let front = Chunk { buffer: chunk.buffer, start: chunk.start, end: chunk.start + len as u32 };
        chunk.start = front.end;
        self.chunks[chunk.buffer as usize] += 1;
        front
    }

    /// Puts `head` in front of a chunk's bytes, if its buffer has the room and nobody else has a part of it.
    pub fn prepend(&self, chunk: &mut Chunk, head: &[u8]) -> bool {
        if head.len() > chunk.start as usize || self.chunks[chunk.buffer as usize] != 1 {
            return false;
        }
        chunk.start -= head.len() as u32;
        self.bytes_mut(chunk)[..head.len()].copy_from_slice(head);
        true
    }

    /// The chunk's bytes are no longer needed; with the last chunk of a buffer it is free.
    pub fn release(&mut self, chunk: Chunk) {
        let chunks = &mut self.chunks[chunk.buffer as usize];
        *chunks -= 1;
        if *chunks == 0 {
            self.held -= 1;
            self.spare.push(chunk.buffer);
        }
    }
}

fn stride(buffer_bytes: u32) -> usize {
    HEADROOM_BYTES + buffer_bytes as usize + STAGGER_BYTES
}

/// Anonymous private pages, zeroed, touched only when used.
struct Mapping {
    start: *mut u8,
    len: usize,
    leaked: bool,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        let len = len.next_multiple_of(4096);
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_ANONYMOUS | libc::MAP_PRIVATE);
        // SAFETY: a fresh private mapping; nothing is assumed of its address.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start as *mut u8, len, leaked: false })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: mapped by `new` with this length; chunks cannot be read without the `Buffers` that owns this.
            unsafe { libc::munmap(self.start as *mut libc::c_void, self.len) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "Cannot allocate memory" alone left everybody to guess of what.
    #[test]
    fn too_little_memory_names_what_wanted_it() {
        // 128 TiB: more than a process has addresses.
        let error = Buffers::new(1 << 15, u32::MAX - (8 << 10)).err().expect("no such memory");
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        let text = error.to_string();
        assert!(text.contains("32768 receive buffers of 4194295 KiB"), "{text}");
        assert!(text.contains("--buffers or --buffer-kib"), "{text}");
    }
}
