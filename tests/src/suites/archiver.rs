//! The archiver as a process: what it archives, that nothing stops it for good, and that it knows no secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parquet::file::reader::SerializedFileReader;
use parquet::record::RowAccessor;
use serde_json::Value;

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::postgres::PASSWORD;
use crate::harness::process::{self, built, eventually};
use crate::harness::wire::Wire;
use crate::harness::{Endpoint, Gateway, Report, Settings};

const PATIENCE: Duration = Duration::from_secs(30);
const KILLS: u32 = 50;
const KILLS_FULL: u32 = 500;
const CLIENTS: usize = 4;
/// Files close as often as they may, so that kills meet publishing.
const EAGER: &str =
    "archive_file_mib = 1\narchive_file_age = \"100ms\"\narchive_small_file_age = \"100ms\"\nsegment_mib = 1\n";

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let setup = Setup { audit: EAGER.into(), ..Setup::default() };
    let mut world = World::start(settings, "archiver", &setup)?;
    report.case("it is started with the gateway and holds no target's credential", || knows_no_secret(&world));
    report.case("a drained gateway leaves everything archived, promised and proved", || drained(&mut world));
    let kills = if settings.full { KILLS_FULL } else { KILLS };
    report.case(&format!("{kills} times kill -9 under load: each record once"), || killed(settings, &world, kills));
    report.case("it ends with a gateway that is killed, and goes on with the next", || killed_with_gateway(&mut world));
    report.case("while it stands still statements block; then they go on", || stalled(settings, &world));
    Ok(())
}

/// The archiver's process, as it tells itself.
fn pid(gateway: &Gateway) -> Option<u32> {
    let status: Value = serde_json::from_slice(&fs::read(data(gateway).join("archiver.json")).ok()?).ok()?;
    let pid = u32::try_from(status["pid"].as_u64()?).ok()?;
    // It may have told that before it was ended.
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    arguments.split(|&byte| byte == 0).any(|argument| argument == b"archiver").then_some(pid)
}

fn data(gateway: &Gateway) -> PathBuf {
    gateway.home().join("data")
}

fn running(gateway: &Gateway) -> Result<u32> {
    eventually("the archiver runs", PATIENCE, || pid(gateway).is_some())?;
    pid(gateway).context("it has ended again")
}

fn signal(pid: u32, name: &str) -> Result<()> {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
    ensure!(sent.success(), "kill -{name} {pid} failed");
    Ok(())
}

fn knows_no_secret(world: &World) -> Result<()> {
    let gateway = world.gateway();
    let pid = running(gateway)?;
    let of_gateway = fs::read(format!("/proc/{}/environ", gateway.pid()?))?;
    ensure!(holds(&of_gateway, PASSWORD), "the gateway itself has it: else this shows nothing");
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    ensure!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));
    let memory = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    ensure!(!memory.contains("credentials.json"));
    // A password file that nobody could read without being noticed: opening it would wait for a writer.
    let fifo = gateway.home().join("password");
    ensure!(Command::new("mkfifo").arg(&fifo).status()?.success());
    let config = fs::read_to_string(gateway.config())?
        .replace("password_env = \"TARGET_PASSWORD\"", &format!("password_file = \"{}\"", fifo.display()))
        .replace(&data(gateway).display().to_string(), &gateway.home().join("elsewhere").display().to_string());
    // Of a gateway that has recorded nothing yet.
    fs::create_dir_all(gateway.home().join("elsewhere/segments"))?;
    let file = gateway.home().join("external.toml");
    fs::write(&file, config)?;
    let mut external = Command::new(built("lockgate")?);
    external.args(["archiver", "--config"]).arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
    let external = External { child: external.spawn()? };
    let status = gateway.home().join("elsewhere/archiver.json");
    let up = eventually("an archiver of its own runs", PATIENCE, || status.exists());
    external.finish()?;
    up?;
    fs::remove_file(fifo)?;
    Ok(())
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// What the Parquet files hold.
#[derive(Default)]
struct Archive {
    /// Sequences by shard, in the order of the files.
    sequences: BTreeMap<i32, Vec<i64>>,
    /// Statements of requests: how often.
    statements: BTreeMap<String, u32>,
}

fn archive(gateway: &Gateway) -> Result<Archive> {
    let mut archive = Archive::default();
    let mut files = Vec::new();
    let root = data(gateway).join("archive/parquet");
    for folder in fs::read_dir(&root).with_context(|| format!("{}", root.display()))? {
        files.extend(
            fs::read_dir(folder?.path())?.map(|file| file.map(|file| file.path())).collect::<Result<Vec<_>, _>>()?,
        );
    }
    // By number, as they were published.
    files.sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.rsplit('-').next().map(str::to_owned)));
    for path in files {
        let reader =
            SerializedFileReader::new(fs::File::open(&path)?).with_context(|| format!("{}", path.display()))?;
        for row in reader {
            let row = row?;
            archive.sequences.entry(row.get_int(2)?).or_default().push(row.get_long(3)?);
            if row.get_string(1)? == "request"
                && let Ok(statement) = row.get_string(13)
            {
                *archive.statements.entry(statement.clone()).or_default() += 1;
            }
        }
    }
    Ok(archive)
}

/// Every record of every shard, once; and what the target ran is there.
fn check(world: &World, gateway: &Gateway, prefix: &str) -> Result<Archive> {
    let archive = archive(gateway)?;
    for (shard, sequences) in &archive.sequences {
        let wrong = sequences.iter().zip(1..).find(|(found, due)| **found != *due);
        ensure!(wrong.is_none(), "shard {shard}: (found, due) {wrong:?}");
    }
    for object in gateway.json(&["audit", "verify"])? {
        if let (Some(shard), Some(records)) = (object["shard"].as_i64(), object["records"].as_u64()) {
            let archived = archive.sequences.get(&(shard as i32)).map_or(0, Vec::len);
            // Others have left the ring.
            ensure!(archived as u64 >= records, "shard {shard}: {records} in segments, {archived} archived");
        }
    }
    let ran: BTreeSet<String> = world
        .target
        .log()?
        .iter()
        .filter_map(|line| line.statement().map(str::to_owned))
        .filter(|text| text.contains(prefix))
        .collect();
    let missing: Vec<_> = ran.iter().filter(|text| archive.statements.get(*text) != Some(&1)).collect();
    ensure!(missing.is_empty(), "{} of {} not archived once, first: {}", missing.len(), ran.len(), missing[0]);
    Ok(archive)
}

fn drained(world: &mut World) -> Result<()> {
    let mut wire = Wire::connect(&world.endpoint("ada@example.com", &[], false))?;
    for number in 0..200 {
        ensure!(wire.value(&format!("SELECT 'drained-{number}'"))? == format!("drained-{number}"));
    }
    drop(wire);
    ensure!(world.gateway_mut().terminate()? == Some(0), "TERM did not end it well: {}", world.gateway().log());
    let archive = check(world, world.gateway(), "'drained-")?;
    let found = archive.statements.keys().filter(|text| text.contains("'drained-")).count();
    ensure!(found == 200, "{found} of 200 archived");
    let verified = world.gateway().command(&["audit", "verify"])?;
    ensure!(verified.status == Some(0), "{}", verified.everything());
    ensure!(verified.everything().contains("signed by"), "{}", verified.everything());
    world.gateway_mut().start_again()
}

/// An archiver of its own, which this test starts and kills as it likes.
struct External {
    child: Child,
}

impl External {
    fn start(gateway: &Gateway) -> Result<External> {
        let log = fs::OpenOptions::new().create(true).append(true).open(gateway.home().join("archiver.log"))?;
        let mut command = Command::new(built("lockgate")?);
        command.arg("archiver").arg("--config").arg(gateway.config()).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(External { child: command.stderr(log).spawn()? })
    }

    /// Waits until it has told of itself: then it heeds TERM.
    fn running(self, gateway: &Gateway) -> Result<External> {
        let id = self.child.id();
        eventually("an archiver of its own runs", PATIENCE, || pid(gateway) == Some(id))?;
        Ok(self)
    }

    fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// TERM: everything recorded is archived.
    fn finish(mut self) -> Result<()> {
        process::signal(&self.child, "TERM")?;
        let ended = process::wait(&mut self.child, PATIENCE);
        if ended.is_err() {
            self.child.kill()?;
        }
        ensure!(ended? == Some(0), "TERM does not end it well");
        Ok(())
    }
}

fn killed(settings: &Settings, world: &World, kills: u32) -> Result<()> {
    let setup = Setup { audit: format!("{EAGER}archiver = \"external\"\n"), ..Setup::default() };
    let mut gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &setup)?;
    let endpoint = gateway.endpoint(&world.issuer.token("ada@example.com", &[]), false);
    let stop = AtomicBool::new(false);
    let (mut survived, mut last) = (0, None);
    thread::scope(|scope| -> Result<()> {
        let (endpoint, stop) = (&endpoint, &stop);
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || load(endpoint, client, stop))).collect();
        let mut killed = Ok(());
        for round in 0..kills {
            killed = External::start(&gateway).and_then(|archiver| {
                // Another moment each time, from its first breath to well into its work.
                thread::sleep(Duration::from_millis(u64::from(round * 37 % 290)));
                archiver.kill()
            });
            if killed.is_err() {
                break;
            }
        }
        // Whoever waits for room in the ring needs one that lives.
        last = Some(External::start(&gateway)?);
        stop.store(true, Ordering::Release);
        for client in clients {
            survived += client.join().expect("no client panics")?;
        }
        killed
    })?;
    ensure!(survived > 500, "{survived} statements: the load was no load");
    ensure!(gateway.terminate()? == Some(0), "TERM did not end it well: {}", gateway.log());
    last.context("no archiver")?.running(&gateway)?.finish()?;
    let archive = check(world, &gateway, "'killed-")?;
    let files = fs::read_to_string(data(&gateway).join("archive/manifest.jsonl"))?.lines().count();
    let left = fs::read_dir(data(&gateway).join("archive/tmp"))?.count();
    ensure!(left == 0, "{left} files left unfinished");
    ensure!(files > 10, "{files} files: hardly a kill met publishing");
    let verified = gateway.command(&["audit", "verify"])?;
    ensure!(verified.status == Some(0), "{}", verified.everything());
    let records: usize = archive.sequences.values().map(Vec::len).sum();
    println!("        {survived} statements, {records} records in {files} files, none lost, none doubled");
    Ok(())
}

fn load(endpoint: &Endpoint, client: usize, stop: &AtomicBool) -> Result<usize> {
    let mut wire = Wire::connect(endpoint)?;
    // On a busy machine an archiver may be killed many times before one has made room.
    wire.stream.set_read_timeout(Some(2 * PATIENCE))?;
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        let filler = "x".repeat(number * 97 % 3000);
        wire.query(&format!("SELECT 'killed-{client}-{number}' /* {filler} */"))?;
        number += 1;
    }
    Ok(number)
}

fn killed_with_gateway(world: &mut World) -> Result<()> {
    let pid = running(world.gateway())?;
    world.gateway_mut().kill()?;
    eventually("the archiver ends with its gateway", PATIENCE, || !Path::new(&format!("/proc/{pid}")).exists())?;
    world.gateway_mut().start_again()?;
    ensure!(running(world.gateway())? != pid);
    Ok(())
}

fn stalled(settings: &Settings, world: &World) -> Result<()> {
    let audit = format!("{EAGER}segments_per_shard = 2\n");
    let setup = Setup { shards: 1, audit, ..Setup::default() };
    let mut gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &setup)?;
    eventually("it is at work", PATIENCE, || {
        gateway.ops("/metrics").is_ok_and(|metrics| metrics.contains("lockgate_archive_up 1"))
    })?;
    let pid = running(&gateway)?;
    signal(pid, "STOP")?;
    let endpoint = gateway.endpoint(&world.issuer.token("ada@example.com", &[]), false);
    let mut wire = Wire::connect(&endpoint)?;
    wire.stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let filler = "x".repeat(8_000);
    let statement = |number: u32| format!("SELECT 'stalled-{number}' /* {filler} */");
    let mut answered = 0;
    while answered < 2_000
        && wire.query(&statement(answered)).is_ok_and(|messages| crate::harness::wire::complaint(&messages).is_none())
    {
        answered += 1;
    }
    ensure!(
        answered > 50 && answered < 2_000,
        "2 MiB held {answered} records of 8 KB; {pid} was stopped, {:?} archives: {}",
        self::pid(&gateway),
        gateway.log()
    );
    eventually("a silent archiver is not up", PATIENCE, || {
        gateway.ops("/metrics").is_ok_and(|metrics| metrics.contains("lockgate_archive_up 0"))
    })?;
    signal(pid, "CONT")?;
    drop(wire);
    eventually("statements go on", PATIENCE, || {
        Wire::connect(&endpoint).is_ok_and(|mut wire| wire.query("SELECT 'goes on'").is_ok())
    })?;
    let mut wire = Wire::connect(&endpoint)?;
    for number in 0..1_000 {
        wire.query(&statement(100_000 + number))?;
    }
    let ring = fs::read_dir(data(&gateway).join("segments/shard-0"))?.count();
    ensure!(ring <= 4, "{ring} files in a ring of two segments");
    ensure!(gateway.terminate()? == Some(0), "TERM did not end it well: {}", gateway.log());
    let archive = archive(&gateway)?;
    let sequences = &archive.sequences[&0];
    ensure!(sequences.iter().zip(1..).all(|(found, due)| *found == due), "a gap, or a record twice");
    let stalled = archive.statements.keys().filter(|text| text.contains("'stalled-1")).count();
    ensure!(stalled >= 1_000, "{stalled} archived");
    let verified = gateway.command(&["audit", "verify"])?;
    ensure!(verified.status == Some(0), "{}", verified.everything());
    Ok(())
}
