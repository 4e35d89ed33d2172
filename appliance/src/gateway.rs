//! Putting the parts together: configuration, trail, shards, control thread; and taking them apart in order.
//!
//! ```text
//!   claim data_dir -> keys -> snapshot -> doors -> per shard: trail, listeners, ring, thread -> sinks -> control thread -> wait -> sinks, sealer
//! ```

use crate::audit::archive::supervise::{ArchiveWatch, Program, Restarts, Supervisor};
use crate::audit::sinks::Sinks;
use crate::audit::{
    Entry, Full, Journal, NOBODY, Release, RingOptions, Sealer, SealerOptions, SegmentWriter, Who, origin, segment,
    stage,
};
use crate::config::{self, Config, Durability, Listener};
use crate::control::{self, Certificates, Claim, ControlOptions, Doors, Hangups, Loader, Poster, Prepared};
use crate::gate::{Context, Gate, Origin, Seats};
use crate::limits::RELAYS_MAX;
use crate::metrics::ShardCounters;
use crate::open_files::{self, RAISE};
use crate::shard::mailbox::ToControl;
use crate::shard::{self, Balance, Deadlines, ListenerOptions, Mode, RoundLog, ShardHandle, ShardOptions, Watch};
use crate::snapshot::Snapshot;
use anyhow::{Context as _, Result, anyhow};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::UnboundedSender;

/// A shard's end of the trail, with the durability the configuration asks for.
struct Trail {
    writer: SegmentWriter,
    counters: Arc<ShardCounters>,
}

impl Journal for Trail {
    fn append(&mut self, time_us: i64, who: &Who<'_>, entry: &Entry<'_>) -> Result<(), Full> {
        self.writer.append(time_us, who, entry)
    }
}

impl RoundLog for Trail {
    fn dirty(&self) -> bool {
        self.writer.dirty()
    }

    fn write(&mut self) -> io::Result<()> {
        self.writer.write()
    }

    fn keep(&mut self) -> io::Result<()> {
        self.writer.keep()
    }

    fn sync_fd(&self) -> Option<RawFd> {
        self.writer.sync_fd()
    }

    fn has_room(&self) -> bool {
        self.writer.has_room()
    }

    fn failed(&self) -> Option<&str> {
        self.writer.failed()
    }

    fn look(&mut self) {
        self.writer.look();
        self.counters.audit_ring_used_bytes.set(self.writer.ring_used_bytes().unwrap_or(0));
    }

    fn close(&mut self) -> io::Result<()> {
        self.writer.close()
    }
}

fn mode(durability: Durability) -> Mode {
    match durability {
        Durability::Async => Mode::Async,
        Durability::Group => Mode::Group,
        Durability::Strict => Mode::Strict,
    }
}

/// Segments of so many MiB at the start are worth a line.
const SEGMENTS_MIB_TOLD: u64 = 1024;

/// Runs the gateway until it has drained. `load` reads the configuration again on HUP.
/// `archiver`: how it starts the archiver it watches.
pub fn run(config: Config, hangups: Hangups, load: Loader, archiver: Option<Program>) -> Result<()> {
    let claim = Claim::take(&config.server.data_dir)?;
    let appliance = origin::read_or_make(&config.server.data_dir).context("the appliance's id")?;
    let certificates = Certificates::load(&config)?;
    let Prepared { snapshot, keys, warnings } = control::prepare(&config)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let doors = Doors::open(config.ops.address, &claim)?;
    config.listeners.iter().try_for_each(|listener| shard::must_be_free(listener.address))?;
    let (to_control, inbox) = tokio::sync::mpsc::unbounded_channel();
    let shards = start_shards(&config, &certificates, &snapshot, &to_control)?;
    // Only the shards hold a sender: when all are gone, the control thread notices.
    drop(to_control);
    let restarts = Arc::new(Restarts::default());
    let archive = config.audit.archive && config.audit.archiver != config::Archiver::Off;
    let watched = archive.then(|| ArchiveWatch::new(&config.server.data_dir, restarts.clone()));
    let archiver = archiver.map(|program| Supervisor::start(program, restarts)).transpose();
    let archiver = archiver.context("the archiver's supervisor did not start")?;
    for address in shards.handles.first().into_iter().flat_map(|shard| &shard.addresses) {
        tracing::info!(%address, shards = shards.handles.len(), "listening");
    }
    let sinks = Sinks::start(&config.server.data_dir, &appliance, &config.sinks).context("the sinks did not start")?;
    let sinks = Arc::new(sinks);
    let options = ControlOptions {
        claim,
        config,
        snapshot,
        keys,
        certificates,
        load: Some(load),
        shards: shards.handles.iter().map(|shard| poster(shard.post.clone())).collect(),
        counters: shards.counters.clone(),
        sockets: shards.handles.iter().map(|shard| shard.counters.clone()).collect(),
        inbox,
        archive: watched,
        signals: Some(hangups),
        sinks: sinks.clone(),
        sealer: shards.sealer.trouble.clone(),
    };
    let control = control::start(options, doors)?;
    tracing::info!(ops = %control.ops_address(), "ready");
    let counters = shards.counters.clone();
    let sessions = move || counters.iter().map(|counters| counters.sessions_total.value()).sum();
    let watch = Watch::start(shards.handles.iter().map(|shard| shard.counters.clone()).collect(), sessions);
    let watch = watch.context("the watch over the shards did not start")?;
    let ended = control.wait();
    drop(watch);
    for shard in shards.handles {
        let number = shard.number;
        if shard.join().is_err() {
            tracing::error!(shard = number, "the shard panicked");
        }
    }
    sinks.finish();
    // The archiver reads what the shards wrote, and the sealer lets go what it has read: they end after the last of them.
    if let Some(archiver) = archiver {
        archiver.finish();
    }
    drop(shards.sealer);
    ended.map_err(|fault| anyhow!(fault))
}

fn poster(post: shard::Post) -> Poster {
    Box::new(move |message| post.send(message))
}

/// The running shards and what the control thread needs of them.
struct Shards {
    handles: Vec<ShardHandle>,
    counters: Vec<Arc<ShardCounters>>,
    /// Ends after the last shard: it files what they wrote.
    sealer: Sealer,
}

/// What all shards share.
struct Common {
    balance: Arc<Balance>,
    seats: Arc<Seats>,
}

/// Opens the trail and starts every shard. Every problem is named before the first connection is accepted.
fn start_shards(
    config: &Config,
    certificates: &Certificates,
    snapshot: &Arc<Snapshot>,
    to_control: &UnboundedSender<ToControl>,
) -> Result<Shards> {
    let listeners: Vec<_> = config.listeners.iter().map(|one| listener(one, certificates)).collect();
    let segment_bytes = u64::from(config.audit.segment_mib) << 20;
    let mut trails = Vec::new();
    tell_segments(config);
    take_up_others(config, segment_bytes)?;
    for number in 0..config.server.shards {
        trails.push(open_trail(config, number, segment_bytes)?);
    }
    let sealer = Sealer::start(SealerOptions {
        data_dir: config.server.data_dir.clone(),
        shards: config.server.shards as u32,
        segment_bytes,
        segments_per_shard: config.audit.segments_per_shard,
        release: release(&config.audit),
    })
    .context("the sealer of audit segments did not start")?;
    tell_room(config.server.shards);
    let mut handles = Vec::new();
    let mut counters = Vec::new();
    let evens_out = config.server.balance && config.server.shards > 1;
    let balance = if evens_out { Balance::of(config.server.shards) } else { Arc::default() };
    let common = Common { balance, seats: Arc::default() };
    for (number, trail) in trails.into_iter().enumerate() {
        counters.push(trail.counters.clone());
        handles.push(start_shard(config, number, &listeners, trail, snapshot, &common, to_control)?);
    }
    if evens_out {
        common.balance.begin(handles.iter().map(|shard: &ShardHandle| shard.post.clone()).collect());
    }
    Ok(Shards { handles, counters, sealer })
}

fn release(audit: &config::Audit) -> Release {
    match audit.archiver {
        _ if !audit.archive => Release::Never,
        config::Archiver::Off => Release::Sealed,
        config::Archiver::Supervised | config::Archiver::External => Release::Published { keep: audit.keep_segments },
    }
}

/// What shards had kept and not written that the gateway before had besides these, when it was killed.
fn take_up_others(config: &Config, segment_bytes: u64) -> Result<()> {
    let shards = segment::list_shards(&config.server.data_dir)?;
    for &number in shards.range(config.server.shards as u32..) {
        if stage::exists(&segment::ring_dir(&config.server.data_dir, number)) {
            open_writer(config, number, segment_bytes)?.write().context("the audit trail takes no record")?;
        }
    }
    Ok(())
}

fn open_writer(config: &Config, shard: u32, segment_bytes: u64) -> Result<SegmentWriter> {
    let (data_dir, segments_per_shard) = (config.server.data_dir.clone(), config.audit.segments_per_shard);
    let options = RingOptions { data_dir, shard, segment_bytes, segments_per_shard };
    let (writer, notes) = SegmentWriter::open(&options, unix_us())
        .with_context(|| format!("the audit trail of shard {shard} in {}", config.server.data_dir.display()))?;
    for note in notes {
        tracing::warn!(shard, "audit: {note}");
    }
    Ok(writer)
}

fn open_trail(config: &Config, number: usize, segment_bytes: u64) -> Result<Trail> {
    let mut writer = open_writer(config, number as u32, segment_bytes)?;
    let detail = format!(
        "started: lockgate {}, durability {:?}, {}",
        env!("CARGO_PKG_VERSION"),
        config.audit.durability,
        config.origin()
    );
    // A ring that is full at start takes its record when there is room: statements wait for the same.
    let _ = writer.append(unix_us(), &NOBODY, &Entry::Gateway { detail: &detail });
    writer.write().context("the audit trail takes no record")?;
    if config.audit.durability == Durability::Group {
        match writer.use_stage(shard::map) {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(
                    shard = number,
                    "audit: each round's records are written, this file system allows no stage"
                );
            }
            Err(error) => {
                tracing::error!(shard = number, "audit: each round's records are written, there is no stage: {error}");
            }
        }
    }
    let counters = Arc::new(ShardCounters::default());
    counters.audit_ring_bytes.set(segment_bytes * u64::from(config.audit.segments_per_shard));
    Ok(Trail { writer, counters })
}

fn start_shard(
    config: &Config,
    number: usize,
    listeners: &[ListenerOptions],
    trail: Trail,
    snapshot: &Arc<Snapshot>,
    common: &Common,
    to_control: &UnboundedSender<ToControl>,
) -> Result<ShardHandle> {
    let server = &config.server;
    let login_timeout_us = micros(server.login_timeout);
    let options = ShardOptions {
        number,
        balance: common.balance.clone(),
        pin: server.pin,
        spin_us: u64::from(server.spin_us),
        listeners: listeners.to_vec(),
        buffers: server.buffers,
        buffer_bytes: server.buffer_kib << 10,
        ring_entries: server.ring_entries,
        durability: mode(config.audit.durability),
        commit_interval: config.audit.commit_interval,
        deadlines: Deadlines {
            login_us: login_timeout_us,
            connect_us: micros(server.connect_timeout),
            ..Deadlines::default()
        },
        relays_max: RELAYS_MAX.min(open_files::connections(open_files::limit(), server.shards) / server.shards),
    };
    let counters = trail.counters.clone();
    let payload_bytes_max = config.audit.payload_bytes();
    let seats = common.seats.clone();
    let factory = move |origin: Origin, cx: &mut Context<'_>| {
        cx.shared.counters = counters.clone();
        cx.shared.payload_bytes_max = payload_bytes_max;
        cx.shared.login_timeout_us = login_timeout_us;
        cx.shared.seats = seats.clone();
        Gate::new(origin, cx)
    };
    shard::start(options, snapshot.clone(), Box::new(trail), to_control.clone(), factory)
        .with_context(|| format!("shard {number} did not start"))
}

/// What a first start writes before it is ready takes its time.
fn tell_segments(config: &Config) {
    let (shards, mib) = (config.server.shards as u64, u64::from(config.audit.segment_mib));
    if shards * mib >= SEGMENTS_MIB_TOLD {
        tracing::info!(
            shards,
            mib,
            "a first start writes one audit segment for each shard before it is ready, and another behind it"
        );
    }
}

/// Whoever meets this bound has to know what to raise.
fn tell_room(shards: usize) {
    let files = open_files::limit();
    let connections = open_files::connections(files, shards);
    if connections < shards * RELAYS_MAX {
        tracing::info!(files, connections, "the limit on open files bounds the connections: for more, {RAISE}");
    }
}

fn listener(listener: &Listener, certificates: &Certificates) -> ListenerOptions {
    let tls = certificates.of(listener.address);
    ListenerOptions { address: listener.address, tls, allow_plaintext: listener.allow_plaintext }
}

/// The configuration bounds durations far below what would not fit.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Unix microseconds.
fn unix_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
