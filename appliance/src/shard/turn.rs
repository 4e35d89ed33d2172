//! glommio's turns. The pump sleeps in the socket ring; glommio, which runs the shard, visits its own rings only when it is given a turn,
//! on a schedule.
//!
//! In a turn the executor runs dry, and it must not go to sleep then: what it sleeps in is a ring that polls another for a timer of a
//! microsecond, and on one machine in a few hundred starts nobody was ever woken from that. So it looks for the timer with its eyes open
//! ([`SPIN`]), which also spares a turn its system calls.

use glommio::LocalExecutorBuilder;
use std::time::Duration;

/// Between turns.
pub const PERIOD_US: u64 = 10_000;
/// The timer that a turn waits for.
const TIMER: Duration = Duration::from_micros(1);
/// How long a dry executor looks before it sleeps. Whenever it is dry there is a turn's timer, so it never looks for much longer than that
/// one takes.
const SPIN: Duration = Duration::from_secs(1);

/// An executor that turns can be taken of.
pub fn patient(builder: LocalExecutorBuilder) -> LocalExecutorBuilder {
    builder.spin_before_park(SPIN)
}

/// One turn: run the executor dry so that it visits its reactor, then once more for what that woke. With one round
/// only, opening a file never finishes.
pub async fn take() {
    for _ in 0..2 {
        glommio::timer::sleep(TIMER).await;
        glommio::executor().yield_task_queue_now().await;
    }
}
