//! One trail, several lives: written, stopped at any call by a kill, an error or a power cut, and opened again by the same code.

use super::disk::{Faults, Simulated, duplicate};
use lockgate::audit::archive::archiver::{self, ArchiverOptions, Finish};
use lockgate::audit::archive::key::KeySource;
use lockgate::audit::archive::manifest::{self, Position};
use lockgate::audit::record::{Kind, View};
use lockgate::audit::seal::SealerOptions;
use lockgate::audit::segment::{self, SEGMENT_BYTES_MIN};
use lockgate::audit::trail::{Advance, ChainReader};
use lockgate::audit::{Entry, Journal as _, Keeper, Release, Request, RingOptions, SegmentWriter, Who};
use lockgate_tests::harness::random::Random;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

const NOW_US: i64 = 1_795_142_000_000_000;
const SEGMENTS: u32 = 3;
const LIVES: usize = 3;

/// What a run does besides writing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub power_cuts: bool,
    pub errors: bool,
    /// `group`: synced now and then, later than written. Else `strict`: each round before it counts.
    pub group: bool,
    /// An archiver publishes now and then; what it has leaves the ring, and its files are the next segments.
    pub archives: bool,
    /// Canaries.
    pub lying_syncs: bool,
    pub counts_unsynced: bool,
}

/// A law that did not hold.
#[derive(Debug)]
#[allow(dead_code)] // read by whoever reads the panic
pub enum Breach {
    /// Reported durable, and gone.
    Lost { number: u64 },
    /// Written before a mere kill, and gone.
    LostByKill { number: u64 },
    /// Nobody wrote it, or it comes twice or out of order.
    Invented { number: u64 },
    /// Two records have one sequence, or a later one a lower.
    Sequence { found: u64, after: u64 },
    /// A break where nothing was lost, or one that was there before has changed.
    Break(String),
    /// The same damage is told of again.
    ToldTwice { notes: usize, before: usize },
    /// It does not open, or does not go on.
    Stuck(String),
}

/// Everything readable at one moment.
#[derive(Default, Clone)]
struct Read {
    numbers: Vec<u64>,
    notes: usize,
    /// By segment, not by file: a damaged segment moves to the archive.
    breaks: BTreeSet<(u64, String)>,
}

pub struct World {
    random: Random,
    weather: Weather,
    dir: PathBuf,
    disk: Simulated,
    next: u64,
    /// With the kernel, in order.
    written: Vec<u64>,
    /// Reported durable.
    durable: BTreeSet<u64>,
    /// Under a sync that failed: shown by the page cache, perhaps never written, until a power cut shows what is there.
    doubtful: BTreeSet<u64>,
    /// What was readable after the last recovery, and its breaks.
    known: Read,
    /// What the archiver has published, up to where.
    archived: Read,
    position: Position,
}

impl World {
    pub fn new(seed: u64, weather: Weather, dir: &Path) -> Self {
        World {
            random: Random::new(seed),
            weather,
            dir: dir.to_owned(),
            disk: Simulated::new(dir, seed ^ 0x5eed),
            next: 1,
            written: Vec::new(),
            durable: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            known: Read::default(),
            archived: Read::default(),
            position: Position::start(0),
        }
    }

    pub fn run(mut self) -> Result<(), Breach> {
        for _ in 0..LIVES {
            let faults = self.faults();
            self.disk.set(faults);
            if let Some(writer) = self.open() {
                self.live(writer)?;
            }
            self.stop()?;
        }
        Ok(())
    }

    fn faults(&mut self) -> Faults {
        Faults {
            errors: if self.weather.errors { *self.random.pick(&[0, 2, 10, 50]) } else { 0 },
            power_cut_at: self.weather.power_cuts.then(|| 1 + self.random.below(120) as u64),
            lying_syncs: self.weather.lying_syncs,
        }
    }

    fn options(&self) -> RingOptions {
        RingOptions {
            data_dir: self.dir.clone(),
            shard: 0,
            segment_bytes: SEGMENT_BYTES_MIN,
            segments_per_shard: SEGMENTS,
        }
    }

    fn open(&mut self) -> Option<SegmentWriter<Simulated>> {
        SegmentWriter::open_on(self.disk.clone(), &self.options(), NOW_US).ok().map(|(writer, _)| writer)
    }

    fn keeper(&self) -> Keeper<Simulated> {
        Keeper::on(
            self.disk.clone(),
            SealerOptions {
                data_dir: self.dir.clone(),
                shards: 1,
                segment_bytes: SEGMENT_BYTES_MIN,
                segments_per_shard: SEGMENTS,
                release: if self.weather.archives { Release::Published { keep: false } } else { Release::Sealed },
            },
        )
    }

    /// The archiver itself, on a disk of its own that keeps what it is given. What it publishes it has synced.
    fn archive(&mut self) -> Result<(), Breach> {
        let stuck = |error: std::io::Error| Breach::Stuck(format!("the archiver: {error}"));
        self.disk.settle_writes();
        let finish = Finish::default();
        finish.ask();
        archiver::run(&archiver_options(&self.dir), &finish).map_err(stuck)?;
        if let Some(&position) = manifest::positions(&self.dir).map_err(stuck)?.get(&0) {
            self.archived = Read { breaks: BTreeSet::new(), ..self.read_up_to(position.frame)? };
            self.position = position;
        }
        Ok(())
    }

    /// Room for more, if the ring is full of what may leave it.
    fn make_room(&mut self) -> Result<(), Breach> {
        if self.weather.archives {
            self.archive()?;
        }
        self.keeper().look().map(drop).map_err(|error| Breach::Stuck(error.to_string()))
    }

    /// Rounds as a shard has them, until something fails or chance ends it.
    fn live(&mut self, mut writer: SegmentWriter<Simulated>) -> Result<(), Breach> {
        let mut keeper = self.keeper();
        let mut gathered: Vec<u64> = Vec::new();
        // A sync under way: its descriptor, what the kernel had when it began, and which records those were.
        let mut syncing: Option<(File, u64, usize)> = None;
        for _ in 0..10 + self.random.below(40) {
            for _ in 0..1 + self.random.below(3) {
                let size = *self.random.pick(&[10, 300, 1500, 3500]);
                if append(&mut writer, self.next, size) {
                    gathered.push(self.next);
                    self.next += 1;
                }
            }
            if self.random.chance(60) {
                let _ = keeper.look();
            }
            if writer.write().is_err() || !self.disk.has_power() {
                return Ok(());
            }
            self.written.append(&mut gathered);
            if self.weather.archives && self.random.chance(20) {
                self.archive()?;
            }
            if self.weather.counts_unsynced {
                self.reported(self.written.len());
            }
            let due = !self.weather.group || self.random.chance(30);
            if syncing.is_none()
                && due
                && let Some(fd) = writer.sync_fd()
            {
                syncing = Some((duplicate(fd), self.disk.written(), self.written.len()));
            }
            // In `strict` nothing counts before the sync is over; in `group` more rounds may pass meanwhile.
            if (!self.weather.group || self.random.chance(50))
                && let Some((file, up_to, records)) = syncing.take()
            {
                if self.disk.sync_fd(&file, up_to).is_err() {
                    return Ok(());
                }
                self.reported(records);
            }
        }
        Ok(())
    }

    /// The first so many of what was written have been reported durable.
    fn reported(&mut self, records: usize) {
        self.durable.extend(self.written[..records].iter().filter(|number| !self.doubtful.contains(number)));
    }

    /// The end of a life, and what is found afterwards.
    fn stop(&mut self) -> Result<(), Breach> {
        let power_cut = !self.disk.has_power() || (self.weather.power_cuts && self.random.chance(50));
        if power_cut {
            self.disk.power_cut();
            self.doubtful.clear();
        }
        // The first attempts to open may fail or be cut short as well.
        for _ in 0..self.random.below(3) {
            let faults = self.faults();
            self.disk.set(Faults { power_cut_at: faults.power_cut_at.map(|at| 1 + at % 12), ..faults });
            drop(self.open());
            if !self.disk.has_power() {
                self.disk.power_cut();
            }
        }
        self.disk.set(Faults { lying_syncs: self.weather.lying_syncs, ..Faults::default() });
        let mut writer = self.open_well()?;
        if writer.sync_fd().is_none() {
            // A ring that is full takes not even the note of what was found: once the keeper has made room.
            drop(writer);
            self.make_room()?;
            writer = self.open_well()?;
        }
        if let Err(error) = writer.write() {
            return Err(Breach::Stuck(error.to_string()));
        }
        drop(writer);
        let read = self.read()?;
        self.judge(&read, power_cut)?;
        if self.disk.sync_failed() {
            self.doubtful.extend(read.numbers.iter().filter(|number| !self.durable.contains(number)));
        }
        self.known = read.clone();
        self.written = read.numbers;
        self.goes_on()
    }

    fn open_well(&mut self) -> Result<SegmentWriter<Simulated>, Breach> {
        let opened = SegmentWriter::open_on(self.disk.clone(), &self.options(), NOW_US);
        opened.map(|(writer, _)| writer).map_err(|error| Breach::Stuck(error.to_string()))
    }

    /// Nothing is told of twice, and the trail takes records again.
    fn goes_on(&mut self) -> Result<(), Breach> {
        let mut writer = self.open_well()?;
        self.make_room()?;
        let number = self.next;
        self.next += 1;
        if !append(&mut writer, number, 100) || writer.write().is_err() {
            return Err(Breach::Stuck(writer.failed().unwrap_or("no room").to_owned()));
        }
        self.written.push(number);
        if let Some(fd) = writer.sync_fd()
            && self.disk.sync_fd(&duplicate(fd), u64::MAX).is_ok()
        {
            self.reported(self.written.len());
        }
        drop(writer);
        let again = self.read()?;
        if again.notes != self.known.notes {
            return Err(Breach::ToldTwice { notes: again.notes, before: self.known.notes });
        }
        let still_there = |(segment, _): &&(u64, String)| *segment >= self.position.segment;
        match again.breaks.symmetric_difference(&self.known.breaks).find(still_there) {
            Some((_, other)) => Err(Breach::Break(format!("after the second start: {other}"))),
            None => Ok(()),
        }
    }

    fn judge(&self, read: &Read, power_cut: bool) -> Result<(), Breach> {
        let there: BTreeSet<u64> = read.numbers.iter().copied().collect();
        if let Some(&number) = self.durable.iter().find(|number| !there.contains(number)) {
            return Err(Breach::Lost { number });
        }
        let uncertain = power_cut || self.weather.power_cuts;
        if !uncertain && let Some(&number) = self.written.iter().find(|number| !there.contains(number)) {
            return Err(Breach::LostByKill { number });
        }
        let mut last = 0;
        for &number in &read.numbers {
            if number <= last || number >= self.next {
                return Err(Breach::Invented { number });
            }
            last = number;
        }
        let still_there = |(segment, _): &&(u64, String)| *segment >= self.position.segment;
        if let Some((_, gone)) = self.known.breaks.difference(&read.breaks).find(still_there) {
            return Err(Breach::Break(format!("no longer named: {gone}")));
        }
        let news: Vec<_> = read.breaks.difference(&self.known.breaks).collect();
        if !uncertain && !self.weather.errors && !news.is_empty() {
            return Err(Breach::Break(format!("{news:?}")));
        }
        Ok(())
    }

    /// What is archived, and then the ring, also what is still in it of what is archived.
    fn read(&self) -> Result<Read, Breach> {
        self.read_up_to(u64::MAX)
    }

    fn read_up_to(&self, last_frame: u64) -> Result<Read, Breach> {
        let mut read = self.archived.clone();
        let stuck = |error: std::io::Error| Breach::Stuck(error.to_string());
        let oldest = segment::list(&self.dir).map_err(stuck)?.remove(&0).and_then(|files| files.keys().next().copied());
        let mut chain = match oldest {
            Some(oldest) if self.position.frame > 0 => {
                ChainReader::from_segment(self.dir.clone(), 0, oldest).with_gaps_below(self.position.segment)
            }
            _ => ChainReader::whole(self.dir.clone(), 0),
        }
        .thorough();
        let mut last = self.position.record;
        loop {
            match chain.advance().map_err(stuck)? {
                Advance::Frame(header) if header.frame <= self.position.frame || header.frame > last_frame => {}
                Advance::Frame(_) => {
                    for record in chain.records() {
                        let (sequence, view) = record.map_err(|damage| Breach::Break(damage.to_string()))?;
                        if sequence <= last {
                            return Err(Breach::Sequence { found: sequence, after: last });
                        }
                        last = sequence;
                        match view {
                            View::Request(row) => read.numbers.push(row.statement_bytes()),
                            View::Event(Kind::Gateway, _) => read.notes += 1,
                            _ => {}
                        }
                    }
                }
                Advance::Damage(damage) => drop(read.breaks.insert(named(&damage))),
                Advance::End => break,
            }
        }
        read.breaks.extend(chain.take_unfinished().iter().map(named));
        let behind = chain.behind().map_err(stuck)?;
        read.breaks.extend(behind.unwrap_or_default().iter().map(named));
        Ok(read)
    }
}

/// Which frame was due is known for as long as what precedes it is there.
fn named(damage: &lockgate::audit::reader::Damage) -> (u64, String) {
    (damage.segment, format!("segment {} byte {}: {:?}", damage.segment, damage.offset, damage.kind))
}

fn archiver_options(dir: &Path) -> ArchiverOptions {
    ArchiverOptions {
        segments_per_shard: SEGMENTS,
        checkpoint_key: KeySource::File(segment::archive_dir(dir).join("checkpoint.key")),
        ..ArchiverOptions::by_size(dir, 1 << 20)
    }
}

/// A request whose `statement_bytes` is its number, so that it is known by itself.
fn append(writer: &mut SegmentWriter<Simulated>, number: u64, size: usize) -> bool {
    let statement = vec![b'a' + (number % 26) as u8; size];
    let request = Request {
        request: number,
        statement: &statement,
        statement_bytes: number,
        binds: &[],
        classes: 1,
        tables: &[],
        decision: "allow",
        rule: "",
        ticket: "",
    };
    let who = Who {
        session: "s",
        user: "u",
        groups: &[],
        actor: &[],
        target: "t",
        client: "c",
        application: "a",
        claimed_user: "",
        packed: None,
    };
    writer.append(NOW_US + number as i64, &who, &Entry::Request(request)).is_ok()
}
