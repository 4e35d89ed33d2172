//! The archive and the segments answer as one, and the archive's files are anybody's to read: DuckDB finds in them what
//! `lockgate audit search` finds.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::World;
use super::clients::python;
use crate::harness::gateway::Setup;
use crate::harness::process::{built, run};
use crate::harness::wire::{Wire, complaint};
use crate::harness::{Gateway, Report, Settings, audit};

const RULES: &str = "[[rule]]\nname = \"unwanted\"\nwords = [\"nobody_calls_this\"]\naction = \"deny\"\n\
                     [[rule]]\nname = \"careful\"\nwords = [\"ask_first\"]\naction = \"approve\"\napprovers = [\"local\"]\n\
                     expires = \"1s\"\n";

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let setup = Setup { more: RULES.into(), ..Setup::default() };
    let world = World::start(settings, "search", &setup)?;
    world.target.execute("shop", "CREATE TABLE orders (id int, note text); CREATE TABLE other (id int)")?;
    let mut gateway = Gateway::start(&world.folder, &world.target, &world.issuer, &setup)?;
    report.case("a statement that was refused is shown as what it was ruled", || ruled(&world, &gateway));
    report.case("a class or kind that does not exist is an error that lists those that do", || unknown(&gateway));
    statements(&world, &gateway, "first")?;
    let mut before = Vec::new();
    report.case("what was recorded is found again when it is archived, and after a restart", || {
        before = audit::search(&gateway, &[])?;
        ensure!(gateway.terminate()? == Some(0), "TERM did not end it well: {}", gateway.log());
        let after = audit::search(&gateway, &[])?;
        let known = |record: &&Value| after.iter().any(|found| found["id"] == record["id"]);
        ensure!(before.iter().all(|record| known(&record)), "lost by archiving");
        ensure!(archived(&gateway)? > 0, "nothing was archived");
        Ok(())
    });
    report.case("DuckDB finds in the files what search finds", || duckdb(&gateway));
    report.case("evidence proves itself where there is nothing but the verifier", || evidence(&gateway));
    report.case("holds are added, listed and released, each with its reason", || holds(&gateway));
    gateway.start_again()?;
    report.case("a changed policy is replayed on recorded traffic", || replayed(&gateway));
    report.case("the archive and what is new are searched as one", || as_one(&world, &gateway));
    report.case("a damaged archive file is named, and the rest is searched", || damaged(&gateway));
    report.case("while segments turn over under load, a search misses nothing and nobody cries wolf", || {
        under_load(settings, &world)
    });
    Ok(())
}

/// One client numbers its statements; whatever it had an answer to before a search began is found by it.
fn under_load(settings: &Settings, world: &World) -> Result<()> {
    const TURNOVER: &str = "archive_file_mib = 1\narchive_file_age = \"200ms\"\narchive_small_file_age = \"200ms\"\n\
                            segment_mib = 1\nsegments_per_shard = 4\nkeep_segments = false\n";
    let home = settings.run_dir.join("search-load");
    std::fs::create_dir_all(&home)?;
    let setup = Setup { audit: TURNOVER.into(), shards: 1, ..Setup::default() };
    let gateway = Gateway::start(&home, &world.target, &world.issuer, &setup)?;
    let endpoint = gateway.endpoint(&world.issuer.token("ada@example.com", &["engineering"]), false);
    let (answered, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| -> Result<()> {
            let mut wire = Wire::connect(&endpoint)?;
            let weight = "x".repeat(1500);
            for number in 1.. {
                wire.query(&format!("SELECT 'mark-{number}' /* {weight} */"))?;
                answered.store(number, Ordering::Release);
                if done.load(Ordering::Acquire) {
                    break;
                }
            }
            Ok(())
        });
        // Over all of it only at first: it grows fast.
        let looks = (0..8).try_for_each(|look| look_under_load(&gateway, &answered, look < 2));
        done.store(true, Ordering::Release);
        client.join().expect("the client does not panic")?;
        looks
    })
}

fn look_under_load(gateway: &Gateway, answered: &AtomicU64, all: bool) -> Result<()> {
    std::thread::sleep(Duration::from_millis(150));
    let from = answered.load(Ordering::Acquire);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let since = lockgate::audit::when::rfc3339(now.as_micros() as i64);
    std::thread::sleep(Duration::from_millis(250));
    let until = answered.load(Ordering::Acquire);
    for since in [Some(&["--since", &since][..]), all.then_some(&[][..])].into_iter().flatten() {
        let words = [&["audit", "search", "--contains", "mark-", "-o", "json"], since].concat();
        let finished = gateway.command(&words)?;
        ensure!(!finished.stderr.contains("damaged"), "a false alarm: {}", finished.stderr);
        let mut found = std::collections::BTreeSet::new();
        for line in finished.succeeded()?.lines() {
            let record: Value = serde_json::from_str(line)?;
            let text = record["statement"].as_str().context("no statement")?;
            let number = text.split("mark-").nth(1).and_then(|rest| rest.split('\'').next());
            ensure!(found.insert(number.context("no mark")?.parse::<u64>()?), "twice: {text}");
        }
        // The clock of the statement that ran just then may say either.
        let first = if since.is_empty() { 1 } else { from + 3 };
        let missing: Vec<u64> = (first..=until).filter(|number| !found.contains(number)).collect();
        ensure!(missing.is_empty(), "{} of {first}..={until} missing from {:?} on", missing.len(), missing.first());
    }
    gateway.command(&["audit", "verify"])?.succeeded()?;
    Ok(())
}

fn statements(world: &World, gateway: &Gateway, word: &str) -> Result<()> {
    for (user, group) in [("ada@example.com", "engineering"), ("eve@example.com", "sales")] {
        let endpoint = gateway.endpoint(&world.issuer.token(user, &[group]), false);
        let mut wire = Wire::connect(&endpoint)?;
        for text in [
            "INSERT INTO orders SELECT n, 'späße' FROM generate_series(1, 12) n",
            "DELETE FROM orders WHERE id = 3",
            "SELECT * FROM other",
            "SELECT 1/0",
            "SELECT nobody_calls_this()",
            "SELECT 1; SELECT 2",
        ] {
            wire.query(&format!("{text} /* {word} \"quoted\" \\ \t */"))?;
        }
        wire.extended(&format!("SELECT $1::text, $2::text /* {word} */"), &["a \u{1}", "ü"], 0)?;
    }
    Ok(())
}

fn ruled(world: &World, gateway: &Gateway) -> Result<()> {
    let mut wire = Wire::connect(&gateway.endpoint(&world.issuer.token("ada@example.com", &[]), false))?;
    let messages = wire.query("SELECT ask_first()")?;
    ensure!(complaint(&messages).is_some_and(|said| said.sqlstate == "57014"), "it did not expire");
    let found = audit::search(gateway, &["--contains", "ask_first", "--kind", "statement"])?;
    ensure!(found.len() == 1 && found[0]["ruling"] == "expired" && found[0]["decision"] == "approve", "{found:?}");
    let table = gateway.command(&["audit", "search", "--contains", "ask_first", "--kind", "statement"])?.succeeded()?;
    ensure!(table.contains("expired (careful)") && !table.contains("open"), "{table}");
    wire.query("DELETE FROM orders WHERE id = ask_first()")?;
    let of = |more: &[&str]| audit::search(gateway, &[&["--class", "delete", "--table", "orders"], more].concat());
    let expired = of(&["--decision", "expired"])?;
    ensure!(expired.len() == 1 && expired[0]["ruling"] == "expired" && expired[0]["rows"].is_null(), "{expired:?}");
    ensure!(of(&["--decision", "approved"])?.is_empty() && of(&["--rule", "careful"])? == expired, "{expired:?}");
    let ticket = expired[0]["ticket"].as_str().context("a ticket")?;
    let held = audit::search(gateway, &["--ticket", ticket])?;
    ensure!(held.len() == 2 && held[0] == expired[0] && held[1]["kind"] == "ruling", "{held:?}");
    Ok(())
}

fn unknown(gateway: &Gateway) -> Result<()> {
    for (arguments, says) in [
        (["audit", "search", "--class", "nonsense"], "select insert update delete"),
        (["audit", "tail", "--kind", "nonsense"], "statement session login"),
    ] {
        let refused = gateway.command(&arguments)?;
        ensure!(refused.status == Some(2) && refused.stderr.contains(says), "{}", refused.everything());
    }
    ensure!(gateway.command(&["audit", "search", "--class", "copy_*"])?.status == Some(0));
    let turned = gateway.command(&["audit", "search", "--since", "1h", "--until", "2h"])?;
    ensure!(turned.status == Some(2) && turned.stderr.contains("is later than"), "{}", turned.everything());
    let to_come = gateway.command(&["audit", "search", "--since", "2999-01-01"])?;
    ensure!(to_come.status == Some(0) && to_come.stderr.contains("still to come"), "{}", to_come.everything());
    let over = gateway.command(&["audit", "tail", "--until", "1h"])?;
    ensure!(over.status == Some(0) && over.stdout.is_empty(), "{}", over.everything());
    Ok(())
}

/// Records in the archive's files.
fn archived(gateway: &Gateway) -> Result<u64> {
    let kinds = ask_duckdb(gateway, "kinds")?;
    Ok(kinds.iter().filter_map(|kind| kind["records"].as_u64()).sum())
}

fn ask_duckdb(gateway: &Gateway, question: &str) -> Result<Vec<Value>> {
    let archive = gateway.home().join("data").join("archive");
    let answer = run(python("duckdb_archive.py").arg(archive).arg(question), Duration::from_secs(60))?.succeeded()?;
    answer.lines().map(|line| serde_json::from_str(line).context(line.to_string())).collect()
}

fn duckdb(gateway: &Gateway) -> Result<()> {
    let theirs = ask_duckdb(gateway, "statements")?;
    let ours = audit::search(gateway, &["--kind", "statement"])?;
    ensure!(ours.len() >= 15 && theirs.len() == ours.len(), "{} and {}", ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        for (name, theirs) in theirs.as_object().context("a row")? {
            ensure!(ours[name] == *theirs, "{name}: {} and {theirs} in {ours}", ours[name]);
        }
    }
    // As they are written: `DELETE FROM orders`, without a schema.
    let deletes = audit::search(gateway, &["--class", "delete", "--table", "orders", "--kind", "statement"])?;
    let readme = ask_duckdb(gateway, "readme")?;
    ensure!(deletes.len() == 3 && readme.len() == deletes.len(), "{deletes:?} and {readme:?}");
    for (ours, theirs) in deletes.iter().zip(&readme) {
        for name in ["id", "user", "statement", "decision", "ruling", "error"] {
            ensure!(ours[name] == theirs[name], "{name}: {ours} and {theirs}");
        }
        ensure!(ours["rows"].as_f64() == theirs["rows"].as_f64(), "{ours} and {theirs}");
    }
    let schema = ask_duckdb(gateway, "schema")?;
    let type_of = |name: &str| schema.iter().find(|column| column["name"] == name).map(|column| column["type"].clone());
    for (name, wanted) in [
        ("time", "TIMESTAMP WITH TIME ZONE"),
        ("shard", "INTEGER"),
        ("sequence", "BIGINT"),
        ("groups", "VARCHAR[]"),
        ("binds", "VARCHAR[]"),
        ("payload", "BLOB"),
        ("more", "BOOLEAN"),
    ] {
        ensure!(type_of(name) == Some(wanted.into()), "{name}: {:?}", type_of(name));
    }
    Ok(())
}

fn evidence(gateway: &Gateway) -> Result<()> {
    let elsewhere = gateway.home().join("elsewhere");
    std::fs::create_dir_all(&elsewhere)?;
    let package = elsewhere.join("eve.tar");
    let path = package.to_str().context("a path")?;
    let made = gateway.command(&["audit", "export", "--user", "eve@example.com", "--sign", "-o", path])?;
    ensure!(made.status == Some(0), "{}", made.everything());
    let keys = elsewhere.join("keys");
    std::fs::copy(gateway.home().join("data/archive/checkpoint.pub"), &keys)?;
    let verify = || {
        let arguments = ["audit", "verify", "--package", "eve.tar", "--key", "keys", "-o", "json"];
        run(Command::new(built("lockgate")?).args(arguments).current_dir(&elsewhere), Duration::from_secs(30))
    };
    let told: Value = serde_json::from_str(&verify()?.succeeded()?)?;
    let recorded = audit::search(gateway, &["--user", "eve@example.com"])?.len();
    ensure!(told["breaks"] == serde_json::json!([]) && told["records"] == recorded, "{told} of {recorded}");
    ensure!(told["signed"] == true && told["key_is_known"] == true && told["sealed"].is_string(), "{told}");
    let mut listed = Command::new("tar");
    let listed = run(listed.arg("-tf").arg(&package), Duration::from_secs(30))?.succeeded()?;
    ensure!(listed.starts_with("index.json\nindex.sig\nsummary.txt\nrecords.ndjson\n"), "{listed}");
    let mut bytes = std::fs::read(&package)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&package, bytes)?;
    let broken = verify()?;
    ensure!(broken.status == Some(1) && !broken.stdout.contains("\"breaks\":[]"), "{}", broken.everything());
    let taken = gateway.command(&["audit", "export", "--user", "eve@example.com", "-o", path])?;
    ensure!(taken.status == Some(3) && taken.stderr.contains("choose another name"), "{}", taken.everything());
    let path = elsewhere.join("nobody.tar");
    let path = path.to_str().context("a path")?;
    let nobody = gateway.command(&["audit", "export", "--user", "nobody", "-o", path])?;
    ensure!(nobody.status == Some(1), "{}", nobody.everything());
    Ok(())
}

fn holds(gateway: &Gateway) -> Result<()> {
    let unreasoned = gateway.command(&["audit", "hold", "add", "--user", "eve@*"])?;
    ensure!(unreasoned.status == Some(2), "{}", unreasoned.everything());
    let added = gateway.command(&["audit", "hold", "add", "--user", "eve@*", "--reason", "case 7"])?;
    ensure!(added.stderr.contains("it covers "), "{}", added.everything());
    let id = added.succeeded()?;
    let listed = gateway.json(&["audit", "hold", "ls"])?;
    ensure!(listed.len() == 1 && listed[0]["id"] == id.trim().parse::<u64>()?, "{listed:?}");
    ensure!(listed[0]["users"] == serde_json::json!(["eve@*"]) && listed[0]["reason"] == "case 7", "{listed:?}");
    let silent = gateway.command(&["audit", "hold", "rm", id.trim(), "--reason", " "])?;
    ensure!(silent.status == Some(2) && gateway.json(&["audit", "hold", "ls"])?.len() == 1, "{}", silent.everything());
    let elsewhere = gateway.home().join("elsewhere");
    let mut mistyped = Command::new(built("lockgate")?);
    mistyped.args(["audit", "hold", "add", "--reason", "case 7", "--dir"]).arg(&elsewhere);
    let mistyped = run(&mut mistyped, Duration::from_secs(30))?;
    ensure!(mistyped.status == Some(3) && !elsewhere.join("archive").exists(), "{}", mistyped.everything());
    let release = || gateway.command(&["audit", "hold", "rm", id.trim(), "--reason", "settled"]);
    ensure!(release()?.status == Some(0) && gateway.json(&["audit", "hold", "ls"])?.is_empty());
    ensure!(release()?.status == Some(1), "released twice");
    Ok(())
}

fn replayed(gateway: &Gateway) -> Result<()> {
    let changed = gateway.home().join("changed.toml");
    let rule = "[[rule]]\nname = \"no-deletes\"\nclasses = [\"delete\"]\naction = \"deny\"\nmessage = \"no\"\n";
    std::fs::write(&changed, std::fs::read_to_string(gateway.config())? + rule)?;
    let replay = |more: &[&str]| {
        let mut command = Command::new(built("lockgate")?);
        command.args(["policy", "replay", "--archive"]).arg(gateway.home().join("data")).arg("--config").arg(&changed);
        run(command.args(more), Duration::from_secs(30))
    };
    let told = replay(&["-o", "json"])?.succeeded()?;
    let changes: Vec<Value> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(changes.len() == 2, "{told}");
    for change in &changes {
        ensure!(change["was"]["action"] == "allow" && change["now"]["rule"] == "no-deletes", "{change}");
        ensure!(change["statement"].as_str().is_some_and(|text| text.starts_with("DELETE FROM orders")), "{change}");
    }
    let table = replay(&["--fail-on-deny"])?;
    ensure!(table.status == Some(1) && table.stdout.contains("allow -> deny (no-deletes)"), "{}", table.everything());
    ensure!(table.stderr.contains("2 would be decided otherwise"), "{}", table.stderr);
    Ok(())
}

fn as_one(world: &World, gateway: &Gateway) -> Result<()> {
    statements(world, gateway, "second")?;
    let both = audit::search(gateway, &["--class", "delete", "--table", "orders", "--decision", "allow"])?;
    let texts: Vec<_> = both.iter().filter_map(|record| record["statement"].as_str()).collect();
    ensure!(texts.len() == 4, "{texts:?}");
    ensure!(
        texts[..2].iter().all(|text| text.contains("first")) && texts[2..].iter().all(|text| text.contains("second"))
    );
    let ids: Vec<_> = both.iter().filter_map(|record| record["id"].as_str()).collect();
    for id in ids {
        let shown = gateway.json(&["audit", "show", id])?;
        ensure!(shown.len() == 1 && shown[0]["id"] == id && shown[0]["rows"].is_u64(), "{shown:?}");
    }
    let newest = gateway.json(&["audit", "tail", "--no-follow", "-n", "500"])?;
    ensure!(newest.iter().any(|record| record["statement"].as_str().is_some_and(|text| text.contains("first"))));
    Ok(())
}

fn damaged(gateway: &Gateway) -> Result<()> {
    let mut files = Vec::new();
    parquet_files(&gateway.home().join("data").join("archive/parquet"), &mut files)?;
    let file = files.first().context("no file")?;
    let good = std::fs::read(file)?;
    let mut bad = good.clone();
    // In the first column, which every search reads: what nobody reads is `verify`'s to notice.
    bad[12] ^= 0x55;
    std::fs::write(file, bad)?;
    let searched = gateway.command(&["audit", "search", "-o", "json"])?;
    std::fs::write(file, &good)?;
    ensure!(searched.status == Some(3), "{}", searched.everything());
    ensure!(searched.stderr.contains("the answer may be incomplete"), "{}", searched.stderr);
    let name = file.file_name().and_then(|name| name.to_str()).context("a name")?;
    ensure!(searched.stderr.matches(name).count() == 1, "{}", searched.stderr);
    ensure!(searched.stdout.lines().any(|line| line.contains("second")), "what is live is found all the same");
    let all = audit::search(gateway, &[])?;
    std::fs::remove_file(file)?;
    let lost =
        |record: &&Value| record["id"].as_str().is_some_and(|id| !searched.stdout.contains(&format!("\"{id}\"")));
    let lost = all.iter().find(lost).and_then(|record| record["id"].as_str()).context("nothing is lost")?;
    let answers =
        [&["audit", "show", lost][..], &["audit", "tail", "--no-follow", "-n", "500"]].map(|w| gateway.command(w));
    let whole = gateway.command(&["audit", "show", "0-999999999"]);
    std::fs::write(file, good)?;
    for answer in answers {
        let answer = answer?;
        ensure!(answer.status == Some(3) && answer.stderr.contains(name), "{}", answer.everything());
    }
    ensure!(whole?.status == Some(1), "there is none, whatever is missing elsewhere");
    gateway.command(&["audit", "show", lost])?.succeeded()?;
    Ok(())
}

fn parquet_files(folder: &Path, files: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            parquet_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
