//! The archive in an object store: every file, every entry, every checkpoint, also after the store was away for a while.
//! Needs the cargo feature `object-store`, which run.sh builds with when this suite runs.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::process::{Dialogue, client, eventually, free_port};
use crate::harness::wire::Wire;
use crate::harness::{Gateway, Report, Settings};

const PATIENCE: Duration = Duration::from_secs(60);
const BUCKET: &str = "audit";

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let mut store = Store::start()?;
    let credentials = settings.run_dir.join("store.env");
    fs::write(
        &credentials,
        format!(
            "AWS_ACCESS_KEY_ID=test\nAWS_SECRET_ACCESS_KEY=test\nAWS_REGION=us-east-1\nAWS_ALLOW_HTTP=true\n\
             AWS_ENDPOINT=http://127.0.0.1:{}\n",
            store.port
        ),
    )?;
    let audit = format!(
        "archive_file_age = \"200ms\"\narchive_small_file_age = \"200ms\"\narchive_url = \"s3://{BUCKET}/gw\"\n\
         archive_credentials_file = \"{}\"\ncheckpoint_copies = [\"s3://{BUCKET}/proof\"]\n",
        credentials.display()
    );
    let mut world = World::start(settings, "store", &Setup { audit, ..Setup::default() })?;
    report.case("every published file is in the store, byte for byte, with its entry", || mirrored(&world, &mut store));
    report.case("a store that was away holds up nobody and gets everything afterwards", || {
        outage(&mut world, &mut store)
    });
    Ok(())
}

/// moto, in a process that can refuse connections without forgetting what it has.
struct Store {
    port: u16,
    moto: Dialogue,
}

impl Store {
    fn start() -> Result<Store> {
        let python = std::env::var("LOCKGATE_RECEIVERS_PYTHON").unwrap_or_else(|_| "python3".into());
        let port = free_port()?;
        let mut command = Command::new(python);
        command.arg(client("object_store.py")).args([&port.to_string(), BUCKET]).stderr(Stdio::null());
        let mut moto = Dialogue::start(&mut command)?;
        ensure!(moto.answer()? == "ready", "moto did not start");
        Ok(Store { port, moto })
    }

    fn ask(&mut self, command: &str) -> Result<Value> {
        self.moto.ask(command)
    }

    fn keys(&mut self) -> Result<BTreeSet<String>> {
        let keys = self.ask("keys")?;
        let keys = keys.as_array().context("no list")?;
        Ok(keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect())
    }
}

fn statements(world: &World, prefix: &str) -> Result<()> {
    let mut wire = Wire::connect(&world.endpoint("ada@example.com", &[], false))?;
    for number in 0..50 {
        ensure!(wire.value(&format!("SELECT '{prefix}-{number}'"))? == format!("{prefix}-{number}"));
    }
    Ok(())
}

/// What has been published, by its path below `archive/`, and how many entries there are.
fn published(gateway: &Gateway) -> Result<(Vec<String>, usize)> {
    let manifest = fs::read_to_string(gateway.home().join("data/archive/manifest.jsonl"))?;
    let mut paths = Vec::new();
    for line in manifest.lines() {
        let entry: Value = serde_json::from_str(line)?;
        paths.extend(entry["path"].as_str().map(str::to_owned));
    }
    Ok((paths, manifest.lines().count()))
}

/// Everything that was published is there as it is here.
fn compare(gateway: &Gateway, store: &mut Store) -> Result<()> {
    let (paths, entries) = published(gateway)?;
    ensure!(!paths.is_empty(), "nothing was published");
    let wanted: Vec<String> =
        paths.iter().cloned().chain((1..=entries).map(|number| format!("manifest/{number:010}.json"))).collect();
    let mut missing = Vec::new();
    let arrived = eventually("everything is in the store", PATIENCE, || {
        let keys = store.keys().unwrap_or_default();
        missing = wanted.iter().filter(|name| !keys.contains(&format!("gw/{name}"))).cloned().collect();
        missing.is_empty()
    });
    ensure!(arrived.is_ok(), "{} of {} missing, first: {:?}", missing.len(), wanted.len(), missing.first());
    for path in &paths {
        let here = fs::read(gateway.home().join("data/archive").join(path))?;
        let there = store.ask(&format!("get gw/{path}"))?;
        ensure!(there.as_str() == Some(&*base64(&here)), "{path} is not the same there");
    }
    eventually("checkpoints are in the store", PATIENCE, || {
        store.keys().is_ok_and(|keys| keys.iter().any(|key| key.starts_with("proof/checkpoints/")))
    })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let word = part.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - part.len()));
        for digit in 0..4 {
            let value = word >> (18 - 6 * digit) & 63;
            text.push(if digit <= part.len() { DIGITS[value as usize] as char } else { '=' });
        }
    }
    text
}

fn mirrored(world: &World, store: &mut Store) -> Result<()> {
    statements(world, "mirrored")?;
    eventually("something is published", PATIENCE, || {
        published(world.gateway()).is_ok_and(|(paths, _)| !paths.is_empty())
    })?;
    compare(world.gateway(), store)
}

fn outage(world: &mut World, store: &mut Store) -> Result<()> {
    store.ask("stop")?;
    let before = published(world.gateway())?.1;
    statements(world, "outage")?;
    eventually("publishing goes on", PATIENCE, || published(world.gateway()).is_ok_and(|(_, now)| now > before))?;
    eventually("failures are counted", PATIENCE, || {
        world.gateway().ops("/metrics").is_ok_and(|text| {
            let line = text.lines().find(|line| line.starts_with("lockgate_checkpoint_copy_failures_total"));
            line.is_some_and(|line| !line.ends_with(" 0"))
        })
    })?;
    // A restart in the middle of it: how far the store has come is on disk.
    ensure!(world.gateway_mut().terminate()? == Some(0), "TERM did not end it well: {}", world.gateway().log());
    store.ask("start")?;
    world.gateway_mut().start_again()?;
    statements(world, "after")?;
    ensure!(world.gateway_mut().terminate()? == Some(0), "TERM did not end it well: {}", world.gateway().log());
    world.gateway_mut().start_again()?;
    compare(world.gateway(), store)
}
