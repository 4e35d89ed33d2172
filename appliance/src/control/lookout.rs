//! Tells an operator, unasked, what does not end by itself: statements that wait for room in the trail, and sessions that a drain waits for.

use super::core::{Core, Draining};
use crate::shard::mono_us;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is still so is said again.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Looks for as long as the control thread runs.
pub async fn keep(core: Arc<Core>) {
    let (mut blocked, mut draining) = (false, None);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        blocked = tell_blocked(&core, blocked);
        draining = tell_draining(&core, draining);
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
