//! A file in memory: what is stored there is the file's, whatever becomes of the process.

use crate::audit::stage::{FileMemory, Memory};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// The first `bytes` of `file`, which has them, open for reading and writing. (Where it is cut under us, a store ends the process.)
pub fn map(file: &File, bytes: usize) -> io::Result<Memory> {
    static TOLD: Once = Once::new();
    TOLD.call_once(tell_why_it_ends);
    Ok(Box::new(Mapping::of(file, bytes)?))
}

/// A store that finds no page ends the process, and nothing but this would say why.
fn tell_why_it_ends() {
    const WHY: &str = "lockgate: records could not be kept (SIGBUS): segments/shard-*/stage was cut short, or its disk failed. The next start \
                       says what became of them\n";
    extern "C" fn tell(_: libc::c_int) {
        // SAFETY: write(2) may be called in a handler, and reads a text that is there for ever.
        unsafe { libc::write(libc::STDERR_FILENO, WHY.as_ptr().cast(), WHY.len()) };
    }
    let handler: extern "C" fn(libc::c_int) = tell;
    // SAFETY: all zeros is a `sigaction`: no flags, an empty mask. The handler is taken away before it runs, so that the store, tried
    // again behind it, ends the process as it would have without.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESETHAND;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it owns the memory, and only `&mut self` stores into it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn of(file: &File, bytes: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice; nothing of ours is there.
        let start = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes })
    }
}

impl FileMemory for Mapping {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        assert!(at <= self.bytes && bytes.len() <= self.bytes - at, "inside of the mapping");
        // SAFETY: inside of the mapping, which no reference of ours points into.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(at), bytes.len()) };
    }

    fn publish(&mut self, at: usize, word: u64) {
        assert!(at.is_multiple_of(8) && at + 8 <= self.bytes, "inside of the mapping");
        // SAFETY: inside of the mapping and aligned (it begins at a page); valid for as long as `self` is.
        let place = unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(at).cast()) };
        place.store(word.to_le(), Ordering::Release);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, with that length, and nobody else has it. An error leaves it mapped.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
