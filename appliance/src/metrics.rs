//! The counters a shard owns and the control thread scrapes: plain cells, one row per metric.
//!
//! A cell is written by its own shard alone, so an addition is a load and a store, never a locked instruction; the scrape
//! reads it whenever it likes. Nothing is shared between shards: each has its own cache lines.

use crate::audit::SealerTrouble;
use crate::audit::archive::status::{Status as ArchiverStatus, unix_us};
use crate::audit::archive::supervise::ArchiveWatch;
use crate::audit::sinks::{Board, Status};
use crate::config::{Archiver, Audit};
use crate::policy::Action;
use crate::shard::{Counters, mono_us};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One number with one writer.
#[derive(Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Only the owning shard calls this: two writers would lose additions.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn subtract(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).saturating_sub(n), Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The first bucket ends at 2^8 ns: less than that is noise of the clock.
const BUCKET_FIRST_LOG2_NS: u32 = 8;
/// The last bounded bucket ends at 2^36 ns, 69 s: beyond it the number no longer helps anybody.
const BUCKET_LAST_LOG2_NS: u32 = 36;
const BUCKETS: usize = (BUCKET_LAST_LOG2_NS - BUCKET_FIRST_LOG2_NS + 2) as usize;

/// Durations in buckets that double, from 256 ns to 69 s.
#[derive(Default)]
pub struct Durations {
    buckets: [Cell; BUCKETS],
    sum_ns: Cell,
}

impl Durations {
    pub fn observe_ns(&self, ns: u64) {
        self.observe_many_ns(ns, 1);
    }

    /// `count` things that took `ns` each.
    pub fn observe_many_ns(&self, ns: u64, count: u64) {
        self.buckets[bucket_of(ns)].add(count);
        self.sum_ns.add(ns * count);
    }

    /// (upper bound in seconds, count of that bucket alone).
    fn rows(&self) -> Vec<(f64, u64)> {
        self.buckets.iter().enumerate().map(|(i, cell)| (bound_s(i), cell.value())).collect()
    }
}

fn bucket_of(ns: u64) -> usize {
    // Bounds are inclusive ("le"), hence the logarithm of ns - 1, rounded up.
    let log2_ceil = 64 - ns.saturating_sub(1).leading_zeros();
    (log2_ceil.max(BUCKET_FIRST_LOG2_NS) - BUCKET_FIRST_LOG2_NS).min(BUCKETS as u32 - 1) as usize
}

fn bound_s(bucket: usize) -> f64 {
    if bucket == BUCKETS - 1 {
        return f64::INFINITY;
    }
    (1u64 << (bucket as u32 + BUCKET_FIRST_LOG2_NS)) as f64 / 1e9
}

/// Everything one shard counts.
#[repr(align(64))]
#[derive(Default)]
pub struct ShardCounters {
    /// Indexed by [`decision_index`]: use [`ShardCounters::statement`].
    statements: [Cell; DECISIONS.len()],
    pub sessions: Cell,
    pub sessions_total: Cell,
    pub masked_values: Cell,
    pub audit_records: Cell,
    /// Statements that had to wait because the journal was full.
    pub journal_full: Cell,
    /// Texts whose meaning was remembered: the text itself, or one that differs in constants only.
    pub known_texts: Cell,
    pub known_shapes: Cell,
    /// Texts given to PostgreSQL's parser.
    pub parsed_texts: Cell,
    /// How far stable storage is behind the newest record.
    pub audit_lag_us: Cell,
    pub audit_ring_used_bytes: Cell,
    pub audit_ring_bytes: Cell,
    /// Use [`ShardCounters::fault`].
    faults: [Cell; FAULTS.len()],
    /// From the request's decision to its last outcome.
    pub statement_duration: Durations,
    /// Of that, what the gateway itself took.
    pub overhead: Durations,
}

impl fmt::Debug for ShardCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardCounters").finish_non_exhaustive()
    }
}

/// What a gate found wrong, counted by kind. Each has a metric of its own. (Sockets and TLS count in the shard.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A client broke the protocol.
    ClientProtocol,
    /// A target broke the protocol.
    TargetProtocol,
    /// The target did not let us in.
    TargetRefused,
    /// No valid token, or no grant.
    LoginRefused,
    /// As many sessions are open as may be.
    ConnectionLimit,
    /// A deadline passed: login, hold, idle.
    Deadline,
}

const FAULTS: [(Fault, &str, &str); 6] = [
    (Fault::ClientProtocol, "lockgate_client_protocol_errors", "Sessions closed because the client broke the protocol"),
    (Fault::TargetProtocol, "lockgate_target_protocol_errors", "Sessions closed because the target broke the protocol"),
    (Fault::TargetRefused, "lockgate_target_refused", "Logins the target refused"),
    (Fault::LoginRefused, "lockgate_logins_refused", "Logins refused: no valid token or no grant"),
    (Fault::ConnectionLimit, "lockgate_connection_limits", "Logins refused: a connection_limit was reached"),
    (Fault::Deadline, "lockgate_deadlines", "Sessions closed because a deadline passed"),
];

const DECISIONS: [(Action, &str); 4] =
    [(Action::Allow, "allow"), (Action::Deny, "deny"), (Action::Approve, "approve"), (Action::Alert, "alert")];

fn decision_index(action: Action) -> usize {
    match action {
        Action::Allow => 0,
        Action::Deny => 1,
        Action::Approve => 2,
        Action::Alert => 3,
    }
}

impl ShardCounters {
    pub fn statement(&self, decision: Action) {
        self.statements[decision_index(decision)].add(1);
    }

    /// Statements of every decision together.
    pub fn decided(&self) -> u64 {
        self.statements.iter().map(Cell::value).sum()
    }

    pub fn fault(&self, fault: Fault) {
        self.faults[fault as usize].add(1);
    }

    pub fn faults(&self, fault: Fault) -> u64 {
        self.faults[fault as usize].value()
    }
}

/// Plain numbers: name, help, kind, value.
type Row = (&'static str, &'static str, MetricType, fn(&ShardCounters) -> f64);

const ROWS: [Row; 11] = [
    ("lockgate_sessions", "Open sessions", MetricType::Gauge, |c| c.sessions.value() as f64),
    ("lockgate_sessions_opened", "Sessions opened", MetricType::Counter, |c| c.sessions_total.value() as f64),
    ("lockgate_masked_values", "Values masked", MetricType::Counter, |c| c.masked_values.value() as f64),
    ("lockgate_audit_records", "Audit records written", MetricType::Counter, |c| c.audit_records.value() as f64),
    ("lockgate_audit_journal_full", "Statements that waited for room in the journal", MetricType::Counter, |c| {
        c.journal_full.value() as f64
    }),
    ("lockgate_texts_known", "Statement texts whose meaning was remembered", MetricType::Counter, |c| {
        c.known_texts.value() as f64
    }),
    ("lockgate_texts_known_by_shape", "The same for texts known but for their constants", MetricType::Counter, |c| {
        c.known_shapes.value() as f64
    }),
    ("lockgate_texts_parsed", "Statement texts that had to be parsed", MetricType::Counter, |c| {
        c.parsed_texts.value() as f64
    }),
    ("lockgate_audit_unsynced_seconds", "How far stable storage is behind", MetricType::Gauge, |c| {
        c.audit_lag_us.value() as f64 / 1e6
    }),
    ("lockgate_audit_ring_used_ratio", "Share of the segment ring in use", MetricType::Gauge, ring_used_ratio),
    ("lockgate_audit_ring_size_bytes", "Size of the segment ring", MetricType::Gauge, |c| {
        c.audit_ring_bytes.value() as f64
    }),
];

/// Statements that wait for room longer than this are an outage.
const BLOCKED_S: u64 = 5;
/// So is a shard that has made no round for this long.
const SILENT_S: u64 = 2;

/// The same for what the shard itself counts.
type SocketRow = (&'static str, &'static str, MetricType, fn(&Counters) -> u64);

const SOCKET_ROWS: [SocketRow; 20] = [
    ("lockgate_client_connections", "Open client connections", MetricType::Gauge, |c| c.relays.value()),
    ("lockgate_client_connections_accepted", "Client connections accepted", MetricType::Counter, |c| {
        c.accepted.value()
    }),
    (
        "lockgate_client_connections_adopted",
        "Client connections taken over from the shard that accepted them, to even out",
        MetricType::Counter,
        |c| c.adopted.value(),
    ),
    (
        "lockgate_client_connections_turned_away",
        "Connections closed because the shard was full",
        MetricType::Counter,
        |c| c.turned_away.value(),
    ),
    ("lockgate_client_connections_stalled", "Connections closed because nobody read", MetricType::Counter, |c| {
        c.stalled.value()
    }),
    ("lockgate_accept_pauses", "Pauses in accepting for want of descriptors or memory", MetricType::Counter, |c| {
        c.accept_paused.value()
    }),
    ("lockgate_client_received_bytes", "Bytes received from clients", MetricType::Counter, |c| c.client_bytes.value()),
    ("lockgate_target_received_bytes", "Bytes received from targets", MetricType::Counter, |c| c.target_bytes.value()),
    ("lockgate_target_connect_failures", "Connections to targets that could not be made", MetricType::Counter, |c| {
        c.connect_failures.value()
    }),
    ("lockgate_tls_failures", "TLS handshakes that failed, on either side", MetricType::Counter, |c| {
        c.tls_failures.value()
    }),
    ("lockgate_panics", "Sessions closed because of a panic", MetricType::Counter, |c| c.panics.value()),
    (
        "lockgate_buffers_starved",
        "Receives that found no free buffer although the kernel had them all",
        MetricType::Counter,
        |c| c.starved.value(),
    ),
    ("lockgate_receives_deferred", "Receives that waited for a later round", MetricType::Counter, |c| {
        c.deferred.value()
    }),
    ("lockgate_buffers_held", "Receive buffers in use", MetricType::Gauge, |c| c.buffers_held.value()),
    (
        "lockgate_audit_room_awaited_seconds",
        "How long a statement has waited for room in the ring",
        MetricType::Gauge,
        |c| room_awaited_s(c, mono_us()),
    ),
    (
        "lockgate_shard_silent_seconds",
        "How long the shard has made no round: its sessions wait",
        MetricType::Gauge,
        |c| c.silent_us(mono_us()) / 1_000_000,
    ),
    (
        "lockgate_shard_nudges",
        "Signals to a shard that slept through its own alarm for a second",
        MetricType::Counter,
        |c| c.nudges.value(),
    ),
    (
        "lockgate_shard_spun_seconds",
        "What the shard spent on looking for its next message instead of sleeping (--spin-us)",
        MetricType::Counter,
        |c| c.spun_us.value() / 1_000_000,
    ),
    ("lockgate_audit_writes", "Writes to the journal", MetricType::Counter, |c| c.journal_writes.value()),
    ("lockgate_audit_syncs", "Syncs of the journal to stable storage", MetricType::Counter, |c| {
        c.journal_syncs.value()
    }),
];

fn room_awaited_s(counters: &Counters, now_us: u64) -> u64 {
    match counters.room_awaited_since_us.value() {
        0 => 0,
        since_us => now_us.saturating_sub(since_us) / 1_000_000,
    }
}

fn ring_used_ratio(counters: &ShardCounters) -> f64 {
    match counters.audit_ring_bytes.value() {
        0 => 0.0,
        size => counters.audit_ring_used_bytes.value() as f64 / size as f64,
    }
}

/// Numbers of the control thread itself.
#[derive(Debug, Default)]
pub struct ControlCounters {
    pub approvals_pending: AtomicU64,
    pub approvals_total: AtomicU64,
    pub cancels: AtomicU64,
    pub cancels_unknown: AtomicU64,
    pub reloads: AtomicU64,
    pub reloads_failed: AtomicU64,
    pub restart_needed: AtomicU64,
    pub snapshot_version: AtomicU64,
}

type ControlRow = (&'static str, &'static str, MetricType, fn(&ControlCounters) -> &AtomicU64);

const CONTROL_ROWS: [ControlRow; 8] = [
    ("lockgate_approvals_pending", "Statements that wait for a ruling", MetricType::Gauge, |c| &c.approvals_pending),
    ("lockgate_approvals_asked", "Approvals asked for", MetricType::Counter, |c| &c.approvals_total),
    ("lockgate_cancels", "Cancel requests passed on to a target", MetricType::Counter, |c| &c.cancels),
    ("lockgate_cancels_unknown", "Cancel requests with a key nobody holds", MetricType::Counter, |c| {
        &c.cancels_unknown
    }),
    ("lockgate_reloads", "Configurations taken into use", MetricType::Counter, |c| &c.reloads),
    ("lockgate_reloads_failed", "Configurations refused on reload", MetricType::Counter, |c| &c.reloads_failed),
    ("lockgate_restart_needed", "1: the file says what takes effect at the next start only", MetricType::Gauge, |c| {
        &c.restart_needed
    }),
    ("lockgate_snapshot_version", "Version of the snapshot the shards work from", MetricType::Gauge, |c| {
        &c.snapshot_version
    }),
];

/// By sink, under the label `sink`: name, help, kind, value at a time.
type SinkRow = (&'static str, &'static str, MetricType, fn(&Status, i64) -> f64);

const SINK_ROWS: [SinkRow; 5] = [
    ("lockgate_sink_events", "Events the receiver has acknowledged", MetricType::Counter, |s, _| {
        s.events.load(Relaxed) as f64
    }),
    ("lockgate_sink_failures", "Attempts to deliver that failed", MetricType::Counter, |s, _| {
        s.failures.load(Relaxed) as f64
    }),
    ("lockgate_sink_dropped", "Events the receiver refused for good, kept in a file", MetricType::Counter, |s, _| {
        s.dropped.load(Relaxed) as f64
    }),
    ("lockgate_sink_missed_records", "Records the trail no longer had", MetricType::Counter, |s, _| {
        s.missed.load(Relaxed) as f64
    }),
    ("lockgate_sink_lag_seconds", "Age of the oldest event not yet acknowledged", MetricType::Gauge, |s, now_us| {
        s.lag_seconds(now_us)
    }),
];

/// Turns the cells into text at each scrape.
pub struct Scrape {
    /// By shard: what the gates count, and what the shard itself counts.
    pub shards: Vec<Arc<ShardCounters>>,
    pub sockets: Vec<Arc<Counters>>,
    pub control: Arc<ControlCounters>,
    /// `None`: nobody archives.
    pub archive: Option<ArchiveWatch>,
    pub sinks: Arc<Board>,
    pub sealer: SealerTrouble,
    pub ring: TrailRing,
}

/// What of the configuration says when segments leave a shard's ring.
#[derive(Clone, Copy, Debug)]
pub struct TrailRing {
    pub segments: u32,
    pub segment_mib: u32,
    pub archive: bool,
    pub archiver: Archiver,
}

impl TrailRing {
    pub fn of(audit: &Audit) -> Self {
        let Audit { segments_per_shard: segments, segment_mib, archive, archiver, .. } = *audit;
        Self { segments, segment_mib, archive, archiver }
    }

    /// Why it may be full, where nobody else says so, and what to do.
    fn why_full(&self) -> &'static str {
        match self.archiver {
            _ if !self.archive => {
                "nothing ever leaves it, since audit.archive is false: set it to true and start the gateway again"
            }
            Archiver::External => "audit.archiver is external: is `lockgate archiver` at work on this data_dir?",
            Archiver::Off | Archiver::Supervised => {
                "records come faster than they can be archived: is the disk slow or full? A larger ring takes longer bursts"
            }
        }
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Scrape {
    /// What blocks statements, whatever the reason: those of some shard have waited for room in the trail for a while.
    pub fn blocked(&self, now_us: u64) -> Option<String> {
        let seconds = |(shard, counters): (usize, &Arc<Counters>)| (room_awaited_s(counters, now_us), shard);
        let (seconds, shard) = self.sockets.iter().enumerate().map(seconds).max()?;
        (seconds >= BLOCKED_S).then(|| {
            let TrailRing { segments, segment_mib, .. } = self.ring;
            let trouble = self.sealer.get().or_else(|| self.archive.as_ref().and_then(ArchiveWatch::trouble));
            let why = trouble.as_deref().unwrap_or_else(|| self.ring.why_full());
            format!(
                "statements of shard {shard} have waited for {seconds} s for room in the audit trail, whose ring of {segments} segments of \
                 {segment_mib} MiB is full: {why}"
            )
        })
    }

    /// A shard that serves nobody at the moment.
    pub fn silent(&self, now_us: u64) -> Option<String> {
        let seconds = |(shard, counters): (usize, &Arc<Counters>)| (counters.silent_us(now_us) / 1_000_000, shard);
        let (seconds, shard) = self.sockets.iter().enumerate().map(seconds).max()?;
        (seconds >= SILENT_S).then(|| format!("shard {shard} has done nothing for {seconds} s: the log says why"))
    }

    /// All metrics in the OpenMetrics text format, version 1.0.0.
    pub fn text(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }

    /// One sample per shard under one descriptor.
    fn family(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, kind): (&str, &str, MetricType),
        each: impl Fn(&ShardCounters, MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for (shard, counters) in self.shards.iter().enumerate() {
            each(counters, metric.encode_family(&[("shard", shard.to_string())])?)?;
        }
        Ok(())
    }

    fn sinks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let now_us = unix_us();
        let sinks = self.sinks.all();
        for (name, help, kind, value) in SINK_ROWS.into_iter().filter(|_| !sinks.is_empty()) {
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for status in &sinks {
                let labels = [("sink", status.name.as_str())];
                encode_number(metric.encode_family(&labels)?, kind, value(status, now_us))?;
            }
        }
        Ok(())
    }

    fn statements(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric =
            encoder.encode_descriptor("lockgate_statements", "Statements decided", None, MetricType::Counter)?;
        for (shard, counters) in self.shards.iter().enumerate() {
            for (action, decision) in DECISIONS {
                let labels =
                    [("shard", shard.to_string()), ("protocol", "postgres".into()), ("decision", decision.into())];
                let value = counters.statements[decision_index(action)].value();
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }
}

/// Of the archiver's own status: name, help, kind, value.
type ArchiveRow = (&'static str, &'static str, MetricType, fn(&ArchiverStatus) -> u64);

const ARCHIVE_ROWS: [ArchiveRow; 7] = [
    ("lockgate_archive_files", "Parquet files published", MetricType::Counter, |s| s.files),
    ("lockgate_archive_written_bytes", "Their size", MetricType::Counter, |s| s.bytes),
    ("lockgate_archive_records", "Records in them", MetricType::Counter, |s| s.records),
    ("lockgate_archive_failures", "Errors after which the archiver tried again", MetricType::Counter, |s| s.failures),
    ("lockgate_archive_damages", "Places where segments were found damaged", MetricType::Counter, |s| s.damages),
    ("lockgate_archive_checkpoints", "Checkpoints signed", MetricType::Counter, |s| s.checkpoints),
    ("lockgate_checkpoint_copy_failures", "Failed attempts to copy checkpoints elsewhere", MetricType::Counter, |s| {
        s.copy_failures
    }),
];

impl Scrape {
    /// How far the archiver has come. All there is without one is a lag of zero.
    fn archive(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (status, restarts) = self.archive.as_ref().map_or((None, 0), ArchiveWatch::status);
        let now_us = unix_us();
        let help = "Age of the oldest record the archiver has not taken";
        let mut metric = encoder.encode_descriptor("lockgate_audit_lag_seconds", help, None, MetricType::Gauge)?;
        for shard in 0..self.shards.len() {
            let lag_us = status.as_ref().map_or(0, |status| status.lag_us(shard as u32, now_us));
            metric.encode_family(&[("shard", shard.to_string())])?.encode_gauge(&(lag_us as f64 / 1e6))?;
        }
        if self.archive.is_none() {
            return Ok(());
        }
        let up = u64::from(status.as_ref().is_some_and(|status| !status.is_stale(now_us) && status.error.is_none()));
        let (counter, gauge) = (MetricType::Counter, MetricType::Gauge);
        plain(encoder, ("lockgate_archive_up", "1: the archiver works", gauge), up)?;
        plain(encoder, ("lockgate_archive_restarts", "Times the archiver had to be started again", counter), restarts)?;
        let status = status.unwrap_or_default();
        let behind_us = status.copies_behind_since_us.map_or(0, |since_us| (now_us - since_us).max(0));
        let help = "Age of the oldest checkpoint that is not copied elsewhere";
        let lag = encoder.encode_descriptor("lockgate_checkpoint_copy_lag_seconds", help, None, gauge)?;
        encode_number(lag, gauge, behind_us as f64 / 1e6)?;
        ARCHIVE_ROWS
            .iter()
            .try_for_each(|(name, help, kind, value)| plain(encoder, (name, help, *kind), value(&status)))
    }
}

fn plain(encoder: &mut DescriptorEncoder<'_>, (name, help, kind): (&str, &str, MetricType), value: u64) -> fmt::Result {
    encode_number(encoder.encode_descriptor(name, help, None, kind)?, kind, value as f64)
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encoder
            .encode_descriptor("lockgate_build", "The version that runs", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        self.statements(&mut encoder)?;
        let help =
            "1: segments are released and prepared; 0: they are not (disk full?), statements block when the ring is";
        let works = u64::from(self.sealer.get().is_none());
        plain(&mut encoder, ("lockgate_audit_sealer_up", help, MetricType::Gauge), works)?;
        for (name, help, kind, value) in ROWS {
            self.family(&mut encoder, (name, help, kind), |counters, metric| {
                encode_number(metric, kind, value(counters))
            })?;
        }
        for (name, help, kind, value) in SOCKET_ROWS {
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (shard, counters) in self.sockets.iter().enumerate() {
                let labels = [("shard", shard.to_string())];
                encode_number(metric.encode_family(&labels)?, kind, value(counters) as f64)?;
            }
        }
        for (fault, name, help) in FAULTS {
            self.family(&mut encoder, (name, help, MetricType::Counter), |counters, mut metric| {
                metric.encode_counter::<NoLabelSet, _, u64>(&counters.faults(fault), None)
            })?;
        }
        type Pick = fn(&ShardCounters) -> &Durations;
        let durations: [(&str, &str, Pick); 2] = [
            ("lockgate_statement_duration_seconds", "From decision to last outcome", |c| &c.statement_duration),
            ("lockgate_overhead_seconds", "The gateway's own share of it", |c| &c.overhead),
        ];
        for (name, help, pick) in durations {
            self.family(&mut encoder, (name, help, MetricType::Histogram), |counters, metric| {
                encode_durations(metric, pick(counters))
            })?;
        }
        for (name, help, kind, cell) in CONTROL_ROWS {
            let metric = encoder.encode_descriptor(name, help, None, kind)?;
            encode_number(metric, kind, cell(&self.control).load(Relaxed) as f64)?;
        }
        self.sinks(&mut encoder)?;
        self.archive(&mut encoder)
    }
}

fn encode_number(mut metric: MetricEncoder<'_>, kind: MetricType, value: f64) -> fmt::Result {
    match kind {
        MetricType::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&(value as u64), None),
        _ => metric.encode_gauge(&value),
    }
}

fn encode_durations(mut metric: MetricEncoder<'_>, durations: &Durations) -> fmt::Result {
    let rows = durations.rows();
    let count = rows.iter().map(|(_, n)| n).sum();
    metric.encode_histogram::<NoLabelSet>(durations.sum_ns.value() as f64 / 1e9, count, &rows, None)
}

const _: () = {
    let mut i = 0;
    while i < FAULTS.len() {
        assert!(FAULTS[i].0 as usize == i, "the table is in the order of the enum, which indexes the cells");
        i += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_counts_under_its_name() {
        let config = crate::config::parse(
            "[[sink]]\nkind = \"file\"\nname = \"siem\"\npath = \"x\"",
            std::path::Path::new("gw.toml"),
        );
        let scrape = scrape();
        let status = scrape.sinks.add(&config.unwrap().sinks[0]);
        status.events.store(7, Relaxed);
        let text = scrape.text().unwrap();
        for line in ["lockgate_sink_events_total{sink=\"siem\"} 7", "lockgate_sink_lag_seconds{sink=\"siem\"} 0"] {
            assert!(text.contains(&format!("\n{line}")), "{line} is missing in:\n{text}");
        }
    }

    fn scrape() -> Arc<Scrape> {
        Arc::new(Scrape {
            shards: vec![Arc::default(), Arc::default()],
            sockets: vec![Arc::default(), Arc::default()],
            control: Arc::default(),
            archive: None,
            sinks: Arc::default(),
            sealer: SealerTrouble::default(),
            ring: TrailRing { segments: 8, segment_mib: 64, archive: false, archiver: Archiver::Supervised },
        })
    }

    #[test]
    fn statements_that_wait_for_room_for_long_are_an_outage() {
        let scrape = scrape();
        assert_eq!(scrape.blocked(u64::MAX), None);
        scrape.sockets[1].room_awaited_since_us.set(1_000_000);
        assert_eq!(scrape.blocked(5_999_999), None);
        let text = scrape.blocked(6_000_000).expect("for 5 s");
        assert!(text.contains("shard 1") && text.contains("for 5 s"), "{text}");
        assert!(text.contains("8 segments of 64 MiB") && text.contains("audit.archive is false"), "{text}");
        scrape.sealer.set(Some("the disk is full".into()));
        let text = scrape.blocked(6_000_000).expect("as before");
        assert!(text.ends_with("is full: the disk is full"), "who knows better says why: {text}");
    }

    #[test]
    fn a_shard_without_a_round_is_an_outage() {
        let scrape = scrape();
        assert_eq!(scrape.silent(u64::MAX), None);
        scrape.sockets[1].round_us.set(1_000_000);
        assert_eq!(scrape.silent(2_999_999), None);
        let text = scrape.silent(3_000_000).expect("for 2 s");
        assert!(text.contains("shard 1") && text.contains("for 2 s"), "{text}");
    }

    #[test]
    fn the_text_names_every_promised_metric() {
        let text = scrape().text().unwrap();
        for name in [
            "lockgate_statements_total{",
            "lockgate_statement_duration_seconds_bucket{",
            "lockgate_overhead_seconds_count{",
            "lockgate_client_connections{",
            "lockgate_approvals_pending ",
            "lockgate_masked_values_total{",
            "lockgate_audit_records_total{",
            "lockgate_audit_lag_seconds{",
            "lockgate_audit_ring_used_ratio{",
            "lockgate_build_info{version=",
        ] {
            assert!(text.contains(&format!("\n{name}")), "{name} is missing in:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn each_shard_counts_for_itself() {
        let scrape = scrape();
        scrape.shards[1].statement(Action::Deny);
        scrape.shards[1].statement(Action::Deny);
        scrape.shards[0].fault(Fault::TargetRefused);
        scrape.shards[1].sessions.add(3);
        scrape.shards[1].sessions.subtract(1);
        scrape.sockets[0].accepted.add(7);
        let text = scrape.text().unwrap();
        for line in [
            r#"lockgate_statements_total{shard="1",protocol="postgres",decision="deny"} 2"#,
            r#"lockgate_statements_total{shard="0",protocol="postgres",decision="deny"} 0"#,
            r#"lockgate_target_refused_total{shard="0"} 1"#,
            r#"lockgate_sessions{shard="1"} 2.0"#,
            r#"lockgate_client_connections_accepted_total{shard="0"} 7"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn durations_fall_into_the_bucket_that_ends_at_or_above_them() {
        for (ns, bound) in [(0, 256), (256, 256), (257, 512), (1_000, 1_024), (1_024, 1_024), (1_025, 2_048)] {
            assert_eq!(bound_s(bucket_of(ns)), bound as f64 / 1e9, "{ns} ns");
        }
        assert_eq!(bound_s(bucket_of(1 << 36)), (1u64 << 36) as f64 / 1e9);
        assert_eq!(bound_s(bucket_of((1 << 36) + 1)), f64::INFINITY);
        assert_eq!(bound_s(bucket_of(u64::MAX)), f64::INFINITY);
    }

    #[test]
    fn a_histogram_counts_what_was_observed() {
        let scrape = scrape();
        scrape.shards[0].overhead.observe_ns(300);
        scrape.shards[0].overhead.observe_ns(2_000_000_000);
        let text = scrape.text().unwrap();
        for line in [
            r#"lockgate_overhead_seconds_count{shard="0"} 2"#,
            r#"lockgate_overhead_seconds_bucket{le="5.12e-7",shard="0"} 1"#,
            r#"lockgate_overhead_seconds_bucket{le="+Inf",shard="0"} 2"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in:\n{text}");
        }
    }
}
