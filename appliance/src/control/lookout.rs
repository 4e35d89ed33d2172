//! Tells an operator, unasked, what does not end by itself: statements that wait for room in the trail, sessions that a drain waits for,
//! connections that find no room.

use super::core::{Core, Draining};
use crate::shard::mono_us;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is still so is said again.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Looks for as long as the control thread runs.
pub async fn keep(core: Arc<Core>) {
    let (mut blocked, mut draining, mut turned_away) = (false, None, TurnedAway::default());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        blocked = tell_blocked(&core, blocked);
        draining = tell_draining(&core, draining);
        if draining.is_none() {
            turned_away.tell(&core);
        }
    }
}

/// Connections that were closed because a shard has as many as it may.
#[derive(Default)]
struct TurnedAway {
    /// How many were told of, and when.
    told: u64,
    at: Option<Instant>,
}

impl TurnedAway {
    fn tell(&mut self, core: &Core) {
        let count = core.scrape.sockets.iter().map(|shard| shard.turned_away.value()).sum::<u64>();
        let recently = self.at.is_some_and(|at| at.elapsed() < SAY_EVERY);
        if count == self.told || recently {
            return;
        }
        let open = core.scrape.sockets.iter().map(|shard| shard.relays.value()).sum::<u64>();
        let more = count - self.told;
        tracing::warn!(
            connections = more,
            open,
            "connections are turned away: there are as many as the limit on open files allows (LimitNOFILE, ulimit -n)"
        );
        (self.told, self.at) = (count, Some(Instant::now()));
    }
}

fn tell_blocked(core: &Core, told: bool) -> bool {
    let blocked = core.scrape.blocked(mono_us());
    match (&blocked, told) {
        (Some(text), false) => tracing::error!("{text}"),
        (None, true) => tracing::info!("statements have room in the audit trail again"),
        _ => {}
    }
    blocked.is_some()
}

/// `told`: when that was.
fn tell_draining(core: &Core, told: Option<Instant>) -> Option<Instant> {
    let (draining, sessions) = {
        let state = core.state();
        (state.draining, state.sessions.len())
    };
    let now = Instant::now();
    let told = match (draining, told) {
        (Draining::No, _) => return None,
        (_, None) => return Some(now),
        (_, Some(told)) => told,
    };
    if now.duration_since(told) < SAY_EVERY {
        return Some(told);
    }
    let blocked = core.scrape.blocked(mono_us()).map(|text| format!("; {text}")).unwrap_or_default();
    match draining {
        Draining::WhenIdle => tracing::info!(sessions, "still draining: a second TERM ends them now{blocked}"),
        _ => tracing::info!(sessions, "still stopping: what was recorded last is not on disk yet{blocked}"),
    }
    Some(now)
}
