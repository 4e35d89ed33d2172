//! A signal for a thread that sleeps in `io_uring_enter`: its handler does nothing, and the call returns with EINTR.

use std::io;
use std::ptr;
use std::sync::OnceLock;

/// Ignored by default, and nobody else's: what it was made for, urgent data of sockets, is not used here.
const SIGNAL: libc::c_int = libc::SIGURG;

/// A thread of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thread(pub u64);

impl Thread {
    pub fn current() -> Self {
        // SAFETY: takes nothing and cannot fail.
        Self(unsafe { libc::gettid() } as u64)
    }

    /// Fails when the thread has ended.
    pub fn nudge(self) -> io::Result<()> {
        static HANDLER: OnceLock<bool> = OnceLock::new();
        if !*HANDLER.get_or_init(|| install().is_ok()) {
            return Err(io::Error::other("the signal has no handler"));
        }
        // SAFETY: no pointer is passed; a number that is not a thread of this process is refused by the kernel.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0 as libc::pid_t, SIGNAL) };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn install() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the action is whole, and its handler touches nothing; without SA_RESTART the call it meets returns.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::sigaction(SIGNAL, &action, ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
