//! The trail is tampered with in every way there is, thousands of times. The product's verifier and an independent one, written in
//! Python from FORMAT.md alone, must name the same breaks each time, and none in a trail that is whole.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockgate::audit::verify::{Break as Found, Options, Progress, verify, verify_all};

use crate::harness::archived;
use crate::harness::process::{Dialogue, Finished, built, run};
use crate::harness::random::Random;
use crate::harness::trail::{self, Files, Tampered, Tampering};
use crate::harness::{Report, Settings};

const DEADLINE: Duration = Duration::from_secs(60);

/// How often each way is tried: by default, and under `--full`.
const FLIPS: (u64, u64) = (3_000, 100_000);
const OTHERS: (u64, u64) = (200, 2_000);
const ARCHIVED_FLIPS: (u64, u64) = (800, 20_000);
const ARCHIVED_OTHERS: (u64, u64) = (150, 1_000);
/// Trails of different shapes over which the attempts are spread.
const TRAILS: u64 = 8;

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let count = |(default, full): (u64, u64)| if settings.full { full } else { default };
    report.case("whole trails are whole for both verifiers", whole);
    for (how, name, count) in [
        (Tampering::Flip, "one bit flipped", count(FLIPS)),
        (Tampering::Delete, "files and frames deleted", count(OTHERS)),
        (Tampering::Swap, "files and frames swapped", count(OTHERS)),
        (Tampering::Truncate, "files and frames truncated", count(OTHERS)),
        (Tampering::Replay, "files and frames replayed", count(OTHERS)),
        (Tampering::RollBack, "files rolled back or replaced by another history", count(OTHERS)),
    ] {
        report.case(&format!("{name}, {count} times: named, and by both alike"), || campaign(how, count));
    }
    for (how, name, count) in [
        (Tampering::Flip, "one bit flipped", count(ARCHIVED_FLIPS)),
        (Tampering::Delete, "files and lines deleted", count(ARCHIVED_OTHERS)),
        (Tampering::Swap, "files and lines swapped", count(ARCHIVED_OTHERS)),
        (Tampering::Truncate, "files truncated", count(ARCHIVED_OTHERS)),
        (Tampering::Replay, "files and lines replayed", count(ARCHIVED_OTHERS)),
        (Tampering::RollBack, "files or all of it rolled back", count(ARCHIVED_OTHERS)),
    ] {
        report.case(&format!("archived: {name}, {count} times: named, and by both alike"), || {
            archived_campaign(how, count)
        });
    }
    report.case("archived: what nobody signed proves nothing, by both alike", forged);
    report.case("archived: a cut tail is named by what a checkpoint promises", archived_tails);
    report.case("a tail cut to a whole frame is all that a chain alone cannot see", cut_tails);
    report.case("what is no file, and what has no place, is named and waited for by nobody", strangers);
    report.case("a trail that is being written is whole at every moment", live);
    report.case("both programs print the breaks and exit alike", programs);
    Ok(())
}

/// File below the data directory, frame, kind.
type Break = (String, Option<u64>, String);

/// In memory where there is such a place.
fn scratch() -> Result<tempfile::TempDir> {
    Ok(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?)
}

/// Sorted: shards and files are read in any order.
fn rust(dir: &Path, elsewhere: &[PathBuf]) -> Result<Vec<Break>> {
    let mut breaks = Vec::new();
    let options =
        Options { data_dir: dir.to_owned(), elsewhere: elsewhere.to_vec(), still: true, ..Options::default() };
    verify_all(&options, &Progress::default(), &mut |found| {
        let (file, place, word) = match found {
            Found::Segment(damage) => (&damage.file, damage.frame, damage.kind.word()),
            Found::Archive(broken) => (&broken.file, broken.line, broken.kind.word()),
        };
        let file = file.strip_prefix(dir).unwrap_or(file);
        breaks.push((file.to_string_lossy().into_owned(), place, word.to_string()));
    })?;
    breaks.sort();
    Ok(breaks)
}

/// The independent verifier, asked folder by folder.
struct Python(Dialogue);

/// A folder a line, behind tabs the checkpoints that were kept elsewhere; each is answered by a line of JSON.
const ANSWERS: &str = r#"
import json, sys
sys.path.insert(0, sys.argv[1])
from verify import trail_breaks
for line in sys.stdin:
    folder, *elsewhere = line.rstrip("\n").split("\t")
    try:
        answer = {"breaks": trail_breaks(folder, elsewhere=elsewhere)}
    except OSError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
"#;

fn verifier() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("verifier")
}

fn python() -> Command {
    let mut command = Command::new(std::env::var("LOCKGATE_PYTHON").unwrap_or_else(|_| "python3".into()));
    command.arg("-B");
    command
}

fn verify_py(arguments: &[&str]) -> Command {
    let mut command = python();
    command.arg(verifier().join("verify.py")).args(arguments);
    command
}

impl Python {
    fn start() -> Result<Python> {
        Ok(Python(Dialogue::start(python().args(["-c", ANSWERS]).arg(verifier()))?))
    }

    fn ask(&mut self, dir: &Path, elsewhere: &[PathBuf]) -> Result<()> {
        let words: Vec<_> = [dir].into_iter().chain(elsewhere.iter().map(PathBuf::as_path)).collect();
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        self.0.tell(&words.join("\t"))
    }

    fn answer(&mut self) -> Result<Vec<Break>> {
        let value = self.0.answer().context("verify.py died")?;
        ensure!(value["error"].is_null(), "verify.py: {}", value["error"]);
        let breaks = value["breaks"].as_array().context("no breaks")?;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
        let mut breaks: Vec<Break> = breaks.iter().map(|one| (text(&one[0]), one[1].as_u64(), text(&one[2]))).collect();
        breaks.sort();
        Ok(breaks)
    }
}

/// One folder that is tampered with and mended again and again.
struct Bench {
    dir: tempfile::TempDir,
    whole: Files,
    /// The same shape, another history.
    other: Files,
    python: Python,
    /// Files of checkpoints kept elsewhere.
    elsewhere: Vec<PathBuf>,
}

impl Bench {
    fn new(seed: u64) -> Result<Bench> {
        let (dir, twin) = (scratch()?, scratch()?);
        trail::write(dir.path(), seed)?;
        trail::write(twin.path(), seed + 1_000)?;
        let (whole, other) = (Files::read(dir.path())?, Files::read(twin.path())?);
        Ok(Bench { dir, whole, other, python: Python::start()?, elsewhere: Vec::new() })
    }

    /// What both say of these files; the folder is as it was afterwards.
    fn judge(&mut self, files: &Files) -> Result<Vec<Break>> {
        files.put(self.dir.path(), &self.whole)?;
        self.python.ask(self.dir.path(), &self.elsewhere)?;
        let found = rust(self.dir.path(), &self.elsewhere)?;
        let others = self.python.answer()?;
        self.whole.put(self.dir.path(), files)?;
        ensure!(found == others, "they differ\n  lockgate:  {found:?}\n  verify.py: {others:?}");
        Ok(found)
    }

    fn attempt(&mut self, how: Tampering, seed: u64) -> Result<()> {
        let tampered = trail::tamper(&self.whole, &self.other, how, &mut Random::new(seed));
        let found = self.judge(&tampered.files).with_context(|| tampered.what.clone())?;
        check(&tampered, &found).with_context(|| format!("{}: {found:?}", tampered.what))
    }
}

/// Found, and the first break names what was touched.
fn check(tampered: &Tampered, found: &[Break]) -> Result<()> {
    let (file, frame, kind) = found.first().context("nothing was found")?;
    let mut digits = file.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok());
    let (shard, number) = (digits.next().context("no shard")? as u32, digits.next().context("no number")?);
    ensure!(tampered.named.contains(&(shard, number)), "another file is named than {:?}", tampered.named);
    if let Some((wanted, kinds)) = &tampered.exactly {
        ensure!(
            found.len() == 1 && frame == wanted && kinds.contains(&kind.as_str()),
            "should be {wanted:?} {kinds:?}"
        );
    }
    Ok(())
}

/// Spreads the attempts over trails and cores; the first that goes wrong ends it, with its seed.
fn campaign(how: Tampering, count: u64) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || work(how, count, thread, threads))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })
}

fn work(how: Tampering, count: u64, thread: u64, threads: u64) -> Result<()> {
    for trail in 0..TRAILS {
        let mut bench = Bench::new(trail)?;
        for seed in (trail..count).step_by(TRAILS as usize).skip(thread as usize).step_by(threads as usize) {
            bench.attempt(how, seed).with_context(|| format!("{how:?}, trail {trail}, seed {seed}"))?;
        }
    }
    Ok(())
}

/// An archived trail, as it was a little earlier, and another; the last checkpoints are also kept elsewhere.
struct Archived {
    bench: Bench,
    earlier: Files,
    _kept: tempfile::TempDir,
}

impl Archived {
    fn new(seed: u64) -> Result<Archived> {
        let (dir, twin, kept) = (scratch()?, scratch()?, scratch()?);
        let earlier = archived::write(dir.path(), seed)?;
        archived::write(twin.path(), seed + 1_000)?;
        let (whole, other) = (Files::read(dir.path())?, Files::read(twin.path())?);
        let mut elsewhere = Vec::new();
        for (name, bytes) in whole.0.iter().filter(|(name, _)| name.to_string_lossy().contains("checkpoints")) {
            let path = kept.path().join(format!("elsewhere-{}", name.file_name().context("a name")?.to_string_lossy()));
            std::fs::write(&path, bytes)?;
            elsewhere.push(path);
        }
        ensure!(!elsewhere.is_empty(), "no checkpoints");
        let bench = Bench { dir, whole, other, python: Python::start()?, elsewhere };
        Ok(Archived { bench, earlier, _kept: kept })
    }

    fn attempt(&mut self, how: Tampering, seed: u64) -> Result<()> {
        let bench = &mut self.bench;
        let tampered = archived::tamper(&bench.whole, &self.earlier, &bench.other, how, &mut Random::new(seed));
        let found = bench.judge(&tampered.files).with_context(|| tampered.what.clone())?;
        let named = found.iter().any(|(file, _, _)| tampered.named.contains(&archived::group(file)));
        ensure!(named, "{}: {:?} not named: {found:?}", tampered.what, tampered.named);
        Ok(())
    }
}

fn archived_campaign(how: Tampering, count: u64) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let work = move |thread: u64| -> Result<()> {
        for trail in 0..TRAILS / 2 {
            let mut archived = Archived::new(trail)?;
            let found = archived.bench.judge(&archived.bench.whole.clone())?;
            ensure!(found.is_empty(), "trail {trail} is whole: {found:?}");
            let seeds = (trail..count).step_by(TRAILS as usize / 2).skip(thread as usize).step_by(threads as usize);
            for seed in seeds {
                archived.attempt(how, seed).with_context(|| format!("archived {how:?}, trail {trail}, seed {seed}"))?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })
}

/// Entries without a signature take nothing away.
fn forged() -> Result<()> {
    use archived::Forgery::{Announced, Claimed, ClaimedAndGone, Deleted, DeletedTwice};
    for trail in 0..TRAILS / 2 {
        let mut archived = Archived::new(trail)?;
        let bench = &mut archived.bench;
        for (seed, how) in [Announced, Deleted, DeletedTwice, Claimed, ClaimedAndGone].into_iter().enumerate() {
            let copy = scratch()?;
            bench.whole.put(copy.path(), &Files::default())?;
            let gone = archived::forge(copy.path(), how, &mut Random::new(trail * 10 + seed as u64))?;
            for path in &gone {
                std::fs::remove_file(copy.path().join(path))?;
            }
            let found = bench.judge(&Files::read(copy.path())?).with_context(|| format!("{how:?}, trail {trail}"))?;
            let missing = found.iter().filter(|(_, _, kind)| kind == "missing_file").count();
            let right = match how {
                Announced | Claimed => found.is_empty(),
                Deleted => missing == gone.len() && missing == found.len(),
                DeletedTwice => missing == gone.len() && missing + 1 == found.len(),
                ClaimedAndGone => !gone.is_empty() && !found.is_empty() && missing == 0,
            };
            ensure!(right, "{how:?}, trail {trail}, without {gone:?}: {found:?}");
        }
    }
    Ok(())
}

/// With a checkpoint here, no copy is needed; without one, all of it can be rolled back unseen.
fn archived_tails() -> Result<()> {
    for trail in 0..TRAILS / 2 {
        let mut archived = Archived::new(trail)?;
        let bench = &mut archived.bench;
        bench.elsewhere.clear();
        let (mut promised, mut tried) = (0, 0);
        for seed in 0..20 {
            let cut = trail::cut_tail(&bench.whole, &mut Random::new(seed));
            let found = bench.judge(&cut)?;
            tried += u32::from(cut != bench.whole);
            promised += u32::from(!found.is_empty());
        }
        ensure!(tried > 0 && promised == tried, "trail {trail}: {promised} of {tried} cut tails were named");
        let found = bench.judge(&archived.earlier)?;
        ensure!(found.is_empty(), "trail {trail}, rolled back as a whole with nothing kept elsewhere: {found:?}");
    }
    Ok(())
}

fn whole() -> Result<()> {
    for trail in 0..TRAILS {
        let mut bench = Bench::new(trail)?;
        let found = bench.judge(&bench.whole.clone())?;
        ensure!(found.is_empty(), "trail {trail}: {found:?}");
        // Nothing of the trail is in a prepared file.
        let mut bare = bench.whole.clone();
        bare.0.retain(|_, bytes| bytes.iter().any(|&byte| byte != 0));
        let found = bench.judge(&bare)?;
        ensure!(found.is_empty(), "trail {trail} without its prepared files: {found:?}");
    }
    Ok(())
}

fn cut_tails() -> Result<()> {
    for trail in 0..TRAILS {
        let mut bench = Bench::new(trail)?;
        for seed in 0..20 {
            let cut = trail::cut_tail(&bench.whole, &mut Random::new(seed));
            ensure!(cut != bench.whole);
            let found = bench.judge(&cut)?;
            ensure!(found.is_empty(), "trail {trail}, seed {seed}: {found:?}");
        }
    }
    Ok(())
}

fn strangers() -> Result<()> {
    let mut bench = Bench::new(0)?;
    let dir = bench.dir.path().to_owned();
    let archived = bench.whole.names(|file| file.archived);
    let name = archived.first().context("an archived segment")?.to_string_lossy().into_owned();
    let later = name.replacen("-000000000", "-000000009", 1);
    for (make, path) in [
        ("fifo", "archive/shard-0-0000000077-damaged.seg"),
        ("fifo", "segments/shard-0/0000000002.seg"),
        ("link", later.as_str()),
    ] {
        let full = dir.join(path);
        match make {
            "fifo" => run(Command::new("mkfifo").arg(&full), DEADLINE)?.succeeded().map(drop)?,
            _ => std::os::unix::fs::symlink(dir.join(&name), &full)?,
        }
        let found = bench.judge(&bench.whole.clone())?;
        std::fs::remove_file(&full)?;
        ensure!(found == [(path.to_string(), None, "surplus".to_string())], "{make}: {found:?}");
    }
    Ok(())
}

/// A writer and a sealer at work while the product's verifier reads; the independent one reads what they leave behind.
fn live() -> Result<()> {
    let dir = scratch()?;
    trail::write(dir.path(), 99)?;
    thread::scope(|scope| {
        let writing = scope.spawn(|| -> Result<()> {
            let (mut writer, mut random) = (trail::writer(dir.path(), 0)?, Random::new(5));
            let mut keeper = trail::keeper(dir.path(), true);
            // A bounded archive: reading all of it again and again is what takes the time.
            for number in 10_000..20_000 {
                while !trail::append(&mut writer, number, &mut random) {
                    keeper.look()?;
                }
                if random.chance(30) {
                    writer.write()?;
                }
                keeper.look()?;
                thread::yield_now();
            }
            Ok(writer.write()?)
        });
        let mut looks = 0;
        while !writing.is_finished() {
            let mut breaks = Vec::new();
            verify(dir.path(), &mut |damage| breaks.push(damage.to_string()))?;
            ensure!(breaks.is_empty(), "{breaks:?}");
            looks += 1;
        }
        writing.join().expect("the writer does not panic")?;
        ensure!(looks >= 10, "it was read {looks} times only while it was written");
        Ok(())
    })?;
    run(&mut verify_py(&[&dir.path().to_string_lossy()]), DEADLINE)?.succeeded().map(drop)
}

/// The command line of both, on a few trails of every kind.
fn programs() -> Result<()> {
    let lockgate = built("lockgate")?;
    let both = |dir: &Path| -> Result<(Finished, Finished)> {
        let dir = dir.to_string_lossy().into_owned();
        let ours = run(Command::new(&lockgate).args(["audit", "verify", "-o", "json", "--dir", &dir]), DEADLINE)?;
        Ok((ours, run(&mut verify_py(&[&dir]), DEADLINE)?))
    };
    let bench = Bench::new(3)?;
    for how in [
        Tampering::Flip,
        Tampering::Delete,
        Tampering::Swap,
        Tampering::Truncate,
        Tampering::Replay,
        Tampering::RollBack,
    ] {
        let tampered = trail::tamper(&bench.whole, &bench.other, how, &mut Random::new(7));
        let dir = scratch()?;
        tampered.files.put(dir.path(), &Files::default())?;
        let (ours, theirs) = both(dir.path())?;
        let context = format!("{}\n{}\n{}", tampered.what, ours.everything(), theirs.everything());
        ensure!((ours.status, theirs.status) == (Some(1), Some(1)), "{context}");
        let lines = ours.stdout.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let printed: String = lines
            .filter(|line| line["kind"].is_string())
            .map(|line| {
                let file = Path::new(line["file"].as_str().unwrap_or_default());
                let file = file.strip_prefix(dir.path()).unwrap_or(file).display();
                let frame = line["frame"].as_u64().map_or("-".into(), |frame| frame.to_string());
                format!("{file}\t{frame}\t{}\n", line["kind"].as_str().unwrap_or_default())
            })
            .collect();
        ensure!(printed == theirs.stdout, "{context}");
    }
    let (ours, theirs) = both(bench.dir.path())?;
    ensure!((ours.status, theirs.status) == (Some(0), Some(0)), "{}{}", ours.everything(), theirs.everything());
    let empty = scratch()?;
    for nowhere in [empty.path().to_owned(), empty.path().join("missing")] {
        let (ours, theirs) = both(&nowhere)?;
        ensure!((ours.status, theirs.status) == (Some(3), Some(3)), "{}{}", ours.everything(), theirs.everything());
    }
    let usage = run(&mut verify_py(&[]), DEADLINE)?;
    ensure!(usage.status == Some(2), "{}", usage.everything());
    Ok(())
}
