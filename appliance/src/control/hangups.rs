//! HUP, from the first moment on: whoever starts a gateway may ask for a reload before it is ready, and a process that does not
//! catch HUP is ended by it.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// HUP is caught for the rest of the process. What comes before anybody asks for the [`next`](Self::next) one waits, and is one.
pub struct Hangups(Signal);

impl Hangups {
    pub fn catch() -> io::Result<Self> {
        // For its registration alone: the handler is the process's, and the driver of whatever runtime runs passes on what it caught.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let _entered = runtime.enter();
        signal(SignalKind::hangup()).map(Self)
    }

    /// `None`: there will be no more.
    pub async fn next(&mut self) -> Option<()> {
        self.0.recv().await
    }
}
