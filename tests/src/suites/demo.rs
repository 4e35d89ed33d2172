//! `lockgate demo --tour`: what people judge the product by, played from beginning to end.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::process::{built, free_port, run};
use crate::harness::{Report, Settings};

const TOUR_DEADLINE: Duration = Duration::from_secs(120);

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    report.case("it has help, and wrong usage exits with 2", || {
        let demo = |argument: &str| run(Command::new(built("lockgate")?).args(["demo", argument]), TOUR_DEADLINE);
        ensure!(demo("--help")?.succeeded()?.contains("--tour"));
        ensure!(demo("--no-such-option")?.status == Some(2));
        Ok(())
    });
    report.case("the tour shows a denied DROP, a DELETE that waits, masked cards, and who did it", || tour(settings));
    Ok(())
}

fn tour(settings: &Settings) -> Result<()> {
    let home = settings.run_dir.join("demo");
    fs::create_dir_all(&home)?;
    let before = processes()?;
    let mut demo = Command::new(built("lockgate")?);
    demo.args(["demo", "--tour", "--port", &free_port()?.to_string(), "--web-port", &free_port()?.to_string()]);
    demo.arg("--dir").arg(&home).env("NO_COLOR", "1");
    let shown = run(&mut demo, TOUR_DEADLINE)?.succeeded()?;
    for wanted in [
        "***1111",                               // a masked card
        "4111 1111 1111 1111",                   // and the analyst who sees it
        "Schema changes go through a migration", // the denied DROP
        "ticket 0-",                             // the DELETE that waits
        "is not among the approvers",            // and not for its own requester
        "DELETE 1",                              // until somebody else approves
        "approve (deletes-need-a-reviewer)",     // as the audit tells
        "the trail is whole",
        "The tour is over: every scene showed what it should.", // its own judgement of every scene
    ] {
        ensure!(shown.contains(wanted), "the tour does not show {wanted:?}:\n{shown}");
    }
    let left: Vec<_> = processes()?.difference(&before).cloned().collect();
    let ours: Vec<_> = left.iter().filter(|line| line.contains(&home.display().to_string())).collect();
    ensure!(ours.is_empty(), "left running: {ours:?}");
    Ok(())
}

/// Command lines of everything that runs, with their process ids.
fn processes() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if id.chars().all(|character| character.is_ascii_digit()) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.insert(format!("{id} {}", String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found.iter().next().context("no process at all")?;
    Ok(found)
}
