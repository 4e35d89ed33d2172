//! glommio's turns. The pump sleeps in the socket ring; glommio, which runs the shard's timers and files, visits its own
//! rings only when it is given a turn, on a schedule: rarely when it has nothing to do, often while it has file work.

use std::cell::Cell;
use std::time::Duration;

/// Between turns while glommio has nothing in flight, and while it has.
const IDLE_US: u64 = 10_000;
const BUSY_US: u64 = 200;

thread_local! {
    static FILE_WORK: Cell<u32> = const { Cell::new(0) };
}

/// While one of these lives on a shard's thread, glommio gets its turns often.
pub struct FileWork(());

impl FileWork {
    pub fn begin() -> Self {
        FILE_WORK.set(FILE_WORK.get() + 1);
        Self(())
    }
}

impl Drop for FileWork {
    fn drop(&mut self) {
        FILE_WORK.set(FILE_WORK.get() - 1);
    }
}

/// How long glommio may wait for its next turn. Read after a turn: the turn itself may have begun file work.
pub fn period_us() -> u64 {
    if FILE_WORK.get() > 0 { BUSY_US } else { IDLE_US }
}

/// One turn: run the executor dry so that it visits its reactor, then once more for what that woke. With one round
/// only, opening a file never finishes.
pub async fn take() {
    for _ in 0..2 {
        glommio::timer::sleep(Duration::from_micros(1)).await;
        glommio::executor().yield_task_queue_now().await;
    }
}
