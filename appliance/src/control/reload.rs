//! New configuration, new keys, new addresses: each makes a whole new snapshot, or none.

use super::core::Core;
use super::limits::{KEYS_INTERVAL, REASON_CHARS_MAX, RELOAD_KEYS_TIMEOUT, RESOLVE_INTERVAL, SINKS_INTERVAL};
use super::time::now_us;
use super::{Certificates, Loader, Refused};
use crate::config::{Change, Config, Settled};
use crate::identity::{Asked, Jwks, KeyKeeper};
use crate::snapshot::{self, Built, Snapshot};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What the last reload came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub at_us: i64,
    /// The version now in use; the error is the whole report.
    pub result: Result<u64, String>,
    /// What the file in use says and the process cannot do before its next start.
    pub needs_restart: Vec<Change>,
}

/// The configuration in use and the ways to a new one. Behind an async lock: one change at a time.
pub struct Reloader {
    config: Arc<Config>,
    /// What the process runs with, whatever files have said since.
    running: Settled,
    load: Option<Arc<Loader>>,
    keys: KeyKeeper,
    certificates: Certificates,
}

impl Reloader {
    pub fn new(config: Config, load: Option<Loader>, keys: KeyKeeper, certificates: Certificates) -> Self {
        let running = Settled::of(&config);
        Self { config: Arc::new(config), running, load: load.map(Arc::new), keys, certificates }
    }
}

/// Reads the file again. A file that is wrong changes nothing but the log and the status.
pub async fn reload(core: Arc<Core>) -> Outcome {
    let mut reloader = core.reloader.lock().await;
    let result = load_and_build(&core, &mut reloader).await;
    match &result {
        Ok(version) => {
            core.counters.reloads.fetch_add(1, Relaxed);
            tracing::info!(version, "configuration taken into use");
        }
        Err(refused) => {
            core.counters.reloads_failed.fetch_add(1, Relaxed);
            tracing::error!("configuration refused, the one in use stays:\n{}", refused.report);
            core.state().record_once(&refusal(refused));
        }
    }
    let needs_restart = core.state().needs_restart.clone();
    let outcome = Outcome { at_us: now_us(), result: result.map_err(|refused| refused.report), needs_restart };
    core.state().last_reload = Some(outcome.clone());
    outcome
}

/// What the trail says of a configuration that was not taken into use.
fn refusal(refused: &Refused) -> String {
    let reason = if refused.reason.is_empty() { &refused.report } else { &refused.reason };
    let line = reason.lines().next().unwrap_or_default();
    let reason: String = line.chars().take(REASON_CHARS_MAX).collect();
    match &refused.hash {
        Some(hash) => format!("reload refused: configuration {hash}: {reason}"),
        None => format!("reload refused: {reason}"),
    }
}

/// All or nothing: certificates and keys are taken into use together with the snapshot.
async fn load_and_build(core: &Arc<Core>, reloader: &mut Reloader) -> Result<u64, Refused> {
    let no_file = || "there is no configuration file behind this gateway".to_owned();
    let load = reloader.load.clone().ok_or_else(no_file)?;
    let config = worker(move || load()).await??;
    let (hash, waits) = (config.hash.clone(), reloader.running.changes(&config));
    let config = Arc::new(config.settled_as(&reloader.config));
    take_into_use(core, reloader, config, waits).await.map_err(|report| Refused { hash: Some(hash), ..report.into() })
}

/// `waits`: what the file says besides, and the process cannot do before its next start.
async fn take_into_use(
    core: &Arc<Core>,
    reloader: &mut Reloader,
    config: Arc<Config>,
    waits: Vec<Change>,
) -> Result<u64, String> {
    let certificates = reloader.certificates.prepare(&config).map_err(|error| error.to_string())?;
    // Issuers whose keys are known are asked behind it, with the patience they need.
    let mut keys = reloader.keys.with_issuers(&config.issuers);
    keys.find_missing(RELOAD_KEYS_TIMEOUT).await;
    let version = core.state().snapshot.version + 1;
    let (of, verifier) = (config.clone(), keys.verifier());
    let built = worker(move || snapshot::build(&of, version, verifier)).await?;
    let Built { snapshot, warnings } = built.map_err(|error| error.to_string())?;
    config.warnings.iter().for_each(|warning| tracing::warn!("{}", warning.rendered));
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    for Change { key, running, configured } in &waits {
        tracing::warn!(key, running, configured, "this change takes effect at the next start only");
    }
    for issuer in keys.without_keys() {
        tracing::warn!(issuer, "no key of it is known yet: its tokens are refused until one is");
    }
    certificates.take_into_use();
    reloader.keys = keys;
    reloader.config = config.clone();
    {
        let mut state = core.state();
        // Ahead of the snapshot: in each shard's trail, what is decided by it comes behind this.
        state.record_everywhere(&success(&config, version, &waits));
        core.counters.restart_needed.store(u64::from(!waits.is_empty()), Relaxed);
        state.needs_restart = waits;
        state.replace_snapshot(Arc::new(snapshot), &core.counters);
    }
    let sinks = core.sinks.clone();
    if let Err(error) = worker(move || sinks.replace(&config.sinks)).await? {
        tracing::error!(%error, "not all sinks could be started: they are tried again");
    }
    Ok(version)
}

/// What the trail says of a configuration that is in use from here on.
fn success(config: &Config, version: u64, waits: &[Change]) -> String {
    let waits: Vec<_> = waits.iter().map(|change| change.key).collect();
    let waits = if waits.is_empty() { String::new() } else { format!("; needs a restart: {}", waits.join(", ")) };
    format!("reloaded: {}, version {version}{waits}", config.origin())
}

/// Asks issuers for their keys when it is time to, or when a token came with a key nobody knows. The reloader is held while there is
/// something to note, never while an issuer is waited for.
pub async fn keep_keys(core: Arc<Core>) {
    let mut ticks = ticks(KEYS_INTERVAL);
    let mut asked = Asked::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let mut reloader = core.reloader.lock().await;
                let changed = reloader.keys.news(&mut asked);
                publish_keys(&core, &reloader, &changed);
            }
            Some(answer) = asked.join_next() => {
                let mut reloader = core.reloader.lock().await;
                let changed = reloader.keys.take(answer);
                publish_keys(&core, &reloader, changed.as_slice());
            }
        }
    }
}

fn publish_keys(core: &Core, reloader: &Reloader, changed: &[(String, Arc<Jwks>)]) {
    if changed.is_empty() {
        return;
    }
    let issuers: Vec<_> = changed.iter().map(|(issuer, _)| issuer.as_str()).collect();
    tracing::info!(?issuers, "keys changed");
    let verifier = reloader.keys.verifier();
    renew(core, |snapshot, version| snapshot.with_keys(&reloader.config, version, verifier));
}

/// Looks the targets' host names up again and again.
pub async fn keep_addresses(core: Arc<Core>) {
    let mut ticks = ticks(RESOLVE_INTERVAL);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let targets = core.state().snapshot.targets.clone();
        let changed = worker(move || targets.iter().any(|target| snapshot::addresses_changed(target))).await;
        if changed != Ok(true) {
            continue;
        }
        let reloader = core.reloader.lock().await;
        let (old, config) = (core.state().snapshot.clone(), reloader.config.clone());
        let version = old.version + 1;
        if let Ok(fresh) = worker(move || old.with_addresses(&config, version)).await {
            tracing::info!("addresses of targets changed");
            renew(&core, |_, _| fresh);
        }
    }
}

/// Starts sinks that a reload could not start, for want of a thread or of their folder, and those that panicked.
pub async fn keep_sinks(core: Arc<Core>) {
    let mut ticks = ticks(SINKS_INTERVAL);
    loop {
        ticks.tick().await;
        let reloader = core.reloader.lock().await;
        let (sinks, config) = (core.sinks.clone(), reloader.config.clone());
        if !sinks.lacks(&config.sinks) {
            continue;
        }
        match worker(move || sinks.replace(&config.sinks)).await {
            Ok(Ok(())) => tracing::info!("all sinks run"),
            Ok(Err(error)) => tracing::error!(%error, "sinks could not be started: they are tried again"),
            Err(error) => tracing::error!(error, "sinks could not be started: they are tried again"),
        }
    }
}

/// Replaces the snapshot; only while the reloader is locked, so that versions never cross.
fn renew(core: &Core, make: impl FnOnce(&Snapshot, u64) -> Snapshot) {
    let mut state = core.state();
    let old = state.snapshot.clone();
    let fresh = make(&old, old.version + 1);
    state.replace_snapshot(Arc::new(fresh), &core.counters);
}

/// After a standstill, one tick and not all that were missed.
fn ticks(interval: std::time::Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// Files and name servers may take their time: not on the control thread.
async fn worker<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|_| "a worker panicked".to_string())
}
