//! Sinks: every kind of receiver gets the whole trail, once and in order; outages, refusals and kills lose nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::World;
use crate::harness::authority::Authority;
use crate::harness::gateway::Setup;
use crate::harness::process::{built, eventually, run};
use crate::harness::receivers::{Aws, Rsyslog, Scripted};
use crate::harness::wire::{Wire, complaint};
use crate::harness::{Gateway, Report, Settings};

const DEADLINE: Duration = Duration::from_secs(30);
const RULES: &str = "[[rule]]\nname = \"no-drops\"\nclasses = [\"drop\"]\naction = \"deny\"\n";
/// What is recorded is archived at once.
const EAGER: &str =
    "archive_file_mib = 1\narchive_file_age = \"100ms\"\narchive_small_file_age = \"100ms\"\npayloads = \"none\"\n";
/// Fast enough for a test.
pub(super) const PACE: &str = "flush = \"20ms\"\nretry_max = \"100ms\"\n";

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    everywhere(settings, report)?;
    troubles(settings, report)
}

/// For what sinks read and write on this host.
fn folder(settings: &Settings) -> Result<PathBuf> {
    let folder = settings.run_dir.join("sink-files");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// One gateway with a sink of every kind.
struct All {
    world: World,
    file: PathBuf,
    rsyslog: Rsyslog,
    splunk: Scripted,
    otlp: Scripted,
    webhook: Scripted,
    aws: Aws,
}

fn everywhere(settings: &Settings, report: &mut Report) -> Result<()> {
    let all = All::start(settings)?;
    workload(&all.world)?;
    let expected = expected(all.world.gateway())?;
    report.case("a file holds each event of the trail once, as search prints it", || all.in_the_file(&expected));
    report.case("rsyslogd gets each event over TLS, framed by RFC 5425", || all.at_rsyslog(&expected));
    report
        .case("Splunk's collector gets each event, and the indexer's word is waited for", || all.at_splunk(&expected));
    report.case("an OTLP collector gets each event as a log record", || all.at_the_collector(&expected));
    report.case("a webhook gets each event in signed requests", || all.at_the_webhook(&expected));
    report.case("CloudWatch Logs gets each event, in group and stream made for it", || {
        arrived(&expected, || all.aws.events("cloudwatch"))
    });
    report.case("S3 gets each event, in objects named by their first", || arrived(&expected, || all.aws.events("s3")));
    report.case("metrics and `audit sinks` tell how far each is", || all.observed(&expected));
    report.case("an answer of 200 that is not Splunk's own counts as nothing taken", || all.answered_by_others());
    Ok(())
}

impl All {
    fn start(settings: &Settings) -> Result<All> {
        let (run_dir, folder) = (&settings.run_dir, folder(settings)?);
        let authority = Authority::new(&folder, "authority")?;
        let rsyslog = Rsyslog::start(run_dir, &authority)?;
        let splunk = Scripted::start(run_dir, "splunk", "splunk")?;
        let otlp = Scripted::start(run_dir, "otlp", "otlp")?;
        let webhook = Scripted::start(run_dir, "webhook", "webhook")?;
        let aws = Aws::start(run_dir)?;
        fs::write(folder.join("token"), "receiver-t0ken\n")?;
        fs::write(folder.join("secret"), "webhook-s3cret\n")?;
        let (file, at) = (folder.join("audit.ndjson"), folder.display());
        let key = format!(
            "region = \"eu-central-1\"\nendpoint = \"http://127.0.0.1:{}\"\naccess_key_id = \"AKIATEST\"\nsecret_key_file = \"{at}/secret\"\n",
            aws.port
        );
        let sinks = [
            format!("kind = \"file\"\npath = \"{}\"", file.display()),
            format!(
                "kind = \"syslog\"\naddress = \"localhost:{}\"\ntls_ca = \"{}\"",
                rsyslog.port,
                authority.certificate().display()
            ),
            format!(
                "kind = \"splunk\"\nurl = \"http://127.0.0.1:{}\"\ntoken_file = \"{at}/token\"\nindex = \"audit\"",
                splunk.port
            ),
            format!("kind = \"otlp\"\nurl = \"http://127.0.0.1:{}/v1/logs\"\ntoken_file = \"{at}/token\"", otlp.port),
            format!(
                "kind = \"webhook\"\nurl = \"http://127.0.0.1:{}/x\"\ntoken_file = \"{at}/token\"\nsecret_file = \"{at}/secret\"",
                webhook.port
            ),
            format!("kind = \"cloudwatch\"\nlog_group = \"/lockgate/audit\"\n{key}"),
            format!("kind = \"s3\"\nbucket = \"corp-audit\"\nprefix = \"lockgate/\"\n{key}"),
        ];
        let more = sinks.iter().map(|sink| format!("[[sink]]\n{sink}\n{PACE}")).collect::<String>();
        let world = World::start(settings, "sinks", &Setup { more: RULES.to_owned() + &more, ..Setup::default() })?;
        Ok(All { world, file, rsyslog, splunk, otlp, webhook, aws })
    }

    fn in_the_file(&self, expected: &Expected) -> Result<()> {
        arrived(expected, || file_events(&self.file))?;
        let raw = fs::read(&self.file)?;
        let controls = raw.iter().filter(|byte| byte.is_ascii_control() && **byte != b'\n').count();
        ensure!(controls == 0, "{controls} control characters reached the file raw");
        let hostile = expected
            .values()
            .find(|event| event["query_info"]["query_string"].as_str().is_some_and(|text| text.contains('\u{1b}')));
        ensure!(hostile.is_some(), "the statement with control characters is among the events, escaped");
        Ok(())
    }

    fn at_rsyslog(&self, expected: &Expected) -> Result<()> {
        let events = || {
            let event = |line: String| Ok(serde_json::from_str(line.splitn(5, ' ').nth(4).context("five parts")?)?);
            self.rsyslog.lines().into_iter().map(event).collect()
        };
        arrived(expected, events)?;
        for line in self.rsyslog.lines() {
            let parts: Vec<_> = line.splitn(5, ' ').collect();
            let event: Value = serde_json::from_str(parts[4])?;
            // Facility 13; RFC 5424 keeps six digits of the second.
            let severity = if event["severity_id"].as_u64() >= Some(3) { "108" } else { "110" };
            ensure!(parts[0] == severity && parts[2] == "lockgate", "{line}");
            ensure!(event["metadata"]["original_time"] == parts[1], "{line}");
            ensure!(parts[3] == "datastore_activity" || event["class_uid"] != 6005, "{line}");
        }
        same_order(&events()?, &file_events(&self.file)?)
    }

    fn at_splunk(&self, expected: &Expected) -> Result<()> {
        arrived(expected, || self.splunk.accepted())?;
        // Every batch is asked about, the last one perhaps a moment after it was taken.
        eventually("every batch has been asked about", DEADLINE, || {
            self.splunk.requests().is_ok_and(|requests| {
                let is_of = |request: &&Value, path: &str| request["path"] == path && request["status"] == 200;
                let count = |path: &str| requests.iter().filter(|request| is_of(request, path)).count();
                let (batches, acks) = (count("/services/collector/event"), count("/services/collector/ack"));
                batches > 0 && acks >= batches
            })
        })?;
        same_order(&self.splunk.accepted()?, &file_events(&self.file)?)
    }

    fn at_the_collector(&self, expected: &Expected) -> Result<()> {
        arrived(expected, || self.otlp.accepted())?;
        same_order(&self.otlp.accepted()?, &file_events(&self.file)?)
    }

    fn at_the_webhook(&self, expected: &Expected) -> Result<()> {
        arrived(expected, || self.webhook.accepted())?;
        let requests = self.webhook.requests()?;
        ensure!(requests.iter().all(|request| request["signed"] == true), "{requests:?}");
        same_order(&self.webhook.accepted()?, &file_events(&self.file)?)
    }

    /// A login page, say.
    fn answered_by_others(&self) -> Result<()> {
        let gateway = self.world.gateway();
        self.splunk.behave(&json!({ "status": 200, "body": { "page": "sign in" } }))?;
        session(&self.world)?.query("SELECT 'once more'")?;
        ended(gateway)?;
        eventually("the sink tells of it", DEADLINE, || {
            let printed = gateway.command(&["audit", "sinks", "-o", "json"]).map(|told| told.stdout);
            printed.is_ok_and(|told| told.lines().any(|line| line.contains("splunk") && line.contains("sign in")))
        })?;
        self.splunk.recover()?;
        arrived(&expected(gateway)?, || self.splunk.accepted())
    }

    fn observed(&self, expected: &Expected) -> Result<()> {
        let gateway = self.world.gateway();
        let sinks = gateway.json(&["audit", "sinks"])?;
        let names: Vec<_> = sinks.iter().map(|sink| sink["name"].as_str().unwrap_or_default()).collect();
        ensure!(names == ["file", "syslog", "splunk", "otlp", "webhook", "cloudwatch", "s3"], "{names:?}");
        for sink in &sinks {
            let numbers = ["events", "waiting", "dropped", "missed"].map(|key| sink[key].as_u64());
            ensure!(numbers == [Some(expected.len() as u64), Some(0), Some(0), Some(0)], "{sink}");
            ensure!(sink["state"] == "delivering" && sink["lag_seconds"] == 0.0, "{sink}");
        }
        let metrics = gateway.ops("/metrics")?;
        for sink in ["file", "s3"] {
            let line = format!("lockgate_sink_events_total{{sink=\"{sink}\"}} {}", expected.len());
            ensure!(metrics.contains(&line), "{line} is not in the metrics");
        }
        let config = gateway.log();
        ensure!(!config.contains("t0ken") && !config.contains("s3cret"), "a secret is in the log");
        Ok(())
    }
}

/// By id.
pub(super) type Expected = BTreeMap<String, Value>;

pub(super) fn uid(event: &Value) -> String {
    event["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

pub(super) fn session(world: &World) -> Result<Wire> {
    Wire::connect(&world.endpoint("ada@example.com", &["engineering"], false))
}

/// One of everything, by several sessions; all of it has ended when this returns.
fn workload(world: &World) -> Result<()> {
    world.target.execute("shop", "CREATE TABLE IF NOT EXISTS sent (id int, note text)")?;
    for number in 0..4 {
        let mut wire = session(world)?;
        for statement in [
            format!("INSERT INTO sent VALUES ({number}, 'x')"),
            "SELECT 'two\r\nlines', '\u{1b}[2J\u{202e}' FROM sent".into(),
            "DROP TABLE sent".into(),
            "SELECT no_such_column FROM sent".into(),
            format!("SELECT '{}'", "long ".repeat(4000)),
        ] {
            wire.query(&statement)?;
        }
    }
    ensure!(Wire::connect(&world.gateway().endpoint("no token", false)).is_err(), "a login without a token");
    ended(world.gateway())
}

pub(super) fn ended(gateway: &Gateway) -> Result<()> {
    eventually("every session has ended", DEADLINE, || {
        gateway.json(&["sessions", "ls"]).is_ok_and(|sessions| sessions.is_empty())
    })
}

/// What `audit search -o ocsf` says: the same events under the same ids.
pub(super) fn expected(gateway: &Gateway) -> Result<Expected> {
    let read = || -> Result<Expected> {
        let printed = gateway.command(&["audit", "search", "-o", "ocsf"])?.succeeded()?;
        let events: Result<Vec<Value>, _> = printed.lines().map(serde_json::from_str).collect();
        Ok(events?.into_iter().map(|event| (uid(&event), event)).collect())
    };
    // The last words of a session may still be on their way to the trail.
    let count = |events: &Expected, of: u64| {
        events.values().filter(|event| event["type_uid"] == of && event["status_id"] == 1).count()
    };
    let whole = |events: &Expected| events.len() > 3 && count(events, 300_201) == count(events, 300_202);
    eventually("every session is recorded to its end", DEADLINE, || read().is_ok_and(|events| whole(&events)))?;
    read()
}

pub(super) fn file_events(path: &PathBuf) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let events: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    Ok(events?)
}

/// Waits until so many events have arrived; then each must be there once, and say what it should.
fn arrived(expected: &Expected, read: impl Fn() -> Result<Vec<Value>>) -> Result<()> {
    let all = || read().is_ok_and(|events| events.len() >= expected.len());
    let waited = eventually("everything has arrived", DEADLINE, all);
    let events = read()?;
    let uids: BTreeSet<_> = events.iter().map(uid).collect();
    let missing: Vec<_> = expected.keys().filter(|uid| !uids.contains(*uid)).collect();
    ensure!(missing.is_empty(), "not there: {missing:?}");
    waited?;
    ensure!(uids.len() == events.len(), "{} events, {} of them different", events.len(), uids.len());
    for event in &events {
        let wanted = expected.get(&uid(event)).with_context(|| format!("nobody expected {event}"))?;
        ensure!(event == wanted, "sent: {event}\nsearch: {wanted}");
    }
    Ok(())
}

/// Per shard, what was read from one trail comes in one order.
fn same_order(events: &[Value], others: &[Value]) -> Result<()> {
    let of = |events: &[Value], shard: u64| {
        events.iter().filter(|event| event["unmapped"]["shard"] == shard).map(uid).collect::<Vec<_>>()
    };
    for shard in 0..2 {
        ensure!(of(events, shard) == of(others, shard), "another order in shard {shard}");
    }
    Ok(())
}

/// One gateway with one webhook that fails in every way, and a file beside it that does not.
struct Troubled {
    world: World,
    webhook: Scripted,
    file: PathBuf,
    token: PathBuf,
    setup: Setup,
}

fn troubles(settings: &Settings, report: &mut Report) -> Result<()> {
    let mut troubled = Troubled::start(settings)?;
    report.case("a missing secret is found by the check, told in the status, and mended without a restart", || {
        troubled.missing_secret()
    });
    report.case("a receiver that is down holds nothing up, and gets everything once when it is back", || {
        troubled.outage()
    });
    report.case("a receiver's Retry-After is respected", || troubled.retry_after());
    report.case("what a receiver refuses for good is put aside, its neighbours are not", || troubled.poison());
    report.case("a sink that was down while its segments left the ring catches up from the archive", || {
        troubled.catches_up()
    });
    report.case("kill -9 in the middle of a delivery: everything arrives, only that batch twice", || troubled.killed());
    report.case("kill -9 during an outage loses nothing and doubles nothing", || troubled.killed_in_an_outage());
    report.case("a reload adds, changes and removes sinks", || troubled.reloaded());
    report.case("a clean stop delivers what there is", || troubled.stopped());
    report.case("a sink that was down while its segments were removed catches up from the Parquet files", || {
        departed(settings, &troubled.world)
    });
    Ok(())
}

/// Names of the segments in a folder.
fn segments(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Result<BTreeSet<String>> = entries.collect();
    Ok(names?.into_iter().filter(|name| name.ends_with(".seg")).collect())
}

/// A webhook that is away from the beginning, and a file beside it that sees everything while it happens.
fn departed(settings: &Settings, world: &World) -> Result<()> {
    let webhook = Scripted::start(&settings.run_dir, "webhook", "late")?;
    webhook.behave(&json!({ "status": 503 }))?;
    let (file, token) = (folder(settings)?.join("live.ndjson"), folder(settings)?.join("token"));
    let sinks = format!(
        "[[sink]]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}/x\"\ntoken_file = \"{}\"\n{PACE}\
         batch_events = 5\n[[sink]]\nkind = \"file\"\npath = \"{}\"\n{PACE}",
        webhook.port,
        token.display(),
        file.display()
    );
    let audit = format!("{EAGER}segment_mib = 1\nsegments_per_shard = 2\nkeep_segments = false\n");
    let setup = Setup { shards: 1, audit, more: sinks, ..Setup::default() };
    let gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &setup)?;
    let mut wire = Wire::connect(&gateway.endpoint(&world.issuer.token("ada@example.com", &[]), false))?;
    let long = "x".repeat(150_000);
    for number in 0..40 {
        wire.query(&format!("SELECT {number}, '{long}'"))?;
    }
    drop(wire);
    ended(&gateway)?;
    let data = gateway.home().join("data");
    eventually("the first segments are gone", DEADLINE, || {
        let ring = segments(&data.join("segments/shard-0")).unwrap_or_default();
        ring.first().is_some_and(|first| first.as_str() > "0000000003.seg")
    })?;
    ensure!(segments(&data.join("archive"))?.is_empty(), "no segment is kept");
    webhook.recover()?;
    let statements = |events: &[Value]| events.iter().filter(|event| event["class_uid"] == 6005).count();
    eventually("the file has every statement", DEADLINE, || {
        file_events(&file).is_ok_and(|events| statements(&events) == 40)
    })?;
    eventually("the webhook has as many events", DEADLINE, || {
        let (late, live) = (webhook.accepted().unwrap_or_default(), file_events(&file).unwrap_or_default());
        late.len() >= live.len() && statements(&late) == 40
    })?;
    ensure!(webhook.accepted()? == file_events(&file)?, "the same events in the same order");
    Ok(())
}

impl Troubled {
    fn start(settings: &Settings) -> Result<Troubled> {
        let webhook = Scripted::start(&settings.run_dir, "webhook", "troubled")?;
        let (file, token) = (folder(settings)?.join("beside.ndjson"), folder(settings)?.join("late-token"));
        let sinks = format!(
            "[[sink]]\nkind = \"webhook\"\nname = \"siem\"\nurl = \"http://127.0.0.1:{}/x\"\ntoken_file = \"{}\"\n{PACE}\
             batch_events = 50\n[[sink]]\nkind = \"file\"\npath = \"{}\"\n{PACE}",
            webhook.port,
            token.display(),
            file.display()
        );
        let audit = format!("{EAGER}segment_mib = 2\nsegments_per_shard = 2\nkeep_segments = true\n");
        let setup = Setup { shards: 1, audit, more: RULES.to_owned() + &sinks, ..Setup::default() };
        let world = World::start(settings, "sinks-troubled", &setup)?;
        Ok(Troubled { world, webhook, file, token, setup })
    }

    fn gateway(&self) -> &Gateway {
        self.world.gateway()
    }

    fn status(&self, name: &str) -> Result<Value> {
        let printed = self.gateway().command(&["audit", "sinks", "-o", "json"])?.stdout;
        let sinks: Result<Vec<Value>, _> = printed.lines().map(serde_json::from_str).collect();
        sinks?.into_iter().find(|sink| sink["name"] == name).with_context(|| format!("no sink {name} in {printed}"))
    }

    fn run(&self, statements: &[String]) -> Result<()> {
        let mut wire = session(&self.world)?;
        for statement in statements {
            ensure!(complaint(&wire.query(statement)?).is_none(), "{statement} was refused");
        }
        drop(wire);
        ended(self.gateway())
    }

    /// The trail's events are at the webhook, each once and in the order of the file beside it.
    fn whole(&self) -> Result<()> {
        let expected = expected(self.gateway())?;
        arrived(&expected, || file_events(&self.file))?;
        arrived(&expected, || self.webhook.accepted())?;
        same_order(&self.webhook.accepted()?, &file_events(&self.file)?)
    }

    fn missing_secret(&self) -> Result<()> {
        let mut check = Command::new(built("lockgate")?);
        let check = run(check.args(["config", "check"]).arg(self.gateway().config()), DEADLINE)?;
        ensure!(
            check.status == Some(1) && check.stderr.contains("late-token cannot be read"),
            "{}",
            check.everything()
        );
        eventually("the status says what is wrong", DEADLINE, || {
            self.status("siem").is_ok_and(|sink| sink["error"].as_str().is_some_and(|what| what.contains("late-token")))
        })?;
        let sink = self.status("siem")?;
        ensure!(sink["mend"].as_str().is_some_and(|mend| mend.contains("put the secret there")), "{sink}");
        ensure!(sink["lag_seconds"].as_f64() > Some(0.0) && sink["waiting"].as_u64() > Some(0), "{sink}");
        fs::write(&self.token, "receiver-t0ken\n")?;
        self.run(&["SELECT 'the first'".into()])?;
        self.whole()
    }

    fn outage(&self) -> Result<()> {
        self.webhook.behave(&json!({ "status": 503 }))?;
        let statements: Vec<_> = (0..300).map(|number| format!("SELECT {number} AS outage")).collect();
        self.run(&statements)?;
        self.gateway().ops("/readyz")?;
        arrived(&expected(self.gateway())?, || file_events(&self.file))?;
        eventually("the status tells of the outage", DEADLINE, || {
            self.status("siem").is_ok_and(|sink| sink["state"] == "retrying" && sink["waiting"].as_u64() >= Some(50))
        })?;
        ensure!(
            self.gateway().command(&["audit", "sinks"])?.status == Some(1),
            "exit status 1 while one cannot deliver"
        );
        let metrics = self.gateway().ops("/metrics")?;
        ensure!(!metrics.contains("lockgate_sink_failures_total{sink=\"siem\"} 0\n"), "failures are counted");
        self.webhook.recover()?;
        self.whole()
    }

    fn retry_after(&self) -> Result<()> {
        self.webhook.behave(&json!({ "status": 429, "retry_after": "2" }))?;
        self.run(&["SELECT 'after a while'".into()])?;
        // Pauses of its own would be 100 ms at most.
        eventually("it waits for as long as it was told", DEADLINE, || {
            self.status("siem").is_ok_and(|sink| sink["pause_seconds"] == 2.0)
        })?;
        self.webhook.recover()?;
        self.whole()
    }

    fn poison(&self) -> Result<()> {
        let before = self.status("siem")?["dropped"].as_u64().context("a count")?;
        self.webhook.behave(&json!({ "poison": "poisonous" }))?;
        let text = |number| format!("SELECT '{}' AS n{number}", if number == 17 { "poisonous" } else { "harmless" });
        self.run(&(0..40).map(text).collect::<Vec<_>>())?;
        let mut expected = expected(self.gateway())?;
        let poison =
            expected.values().find(|event| event.to_string().contains("poisonous")).context("recorded")?.clone();
        expected.remove(&uid(&poison));
        arrived(&expected, || self.webhook.accepted())?;
        let sink = self.status("siem")?;
        ensure!(sink["dropped"].as_u64() == Some(before + 1), "{sink}");
        let dead = fs::read_to_string(self.gateway().home().join("data/sinks/siem.dead.ndjson"))?;
        let dead: Value = serde_json::from_str(dead.trim())?;
        ensure!(dead["event"] == poison && dead["error"].as_str().is_some_and(|why| why.contains("400")), "{dead}");
        self.webhook.recover()?;
        // From here on the whole trail is expected everywhere: what was put aside is sent by hand, as an operator would.
        self.resend(&dead["event"])
    }

    fn resend(&self, event: &Value) -> Result<()> {
        use std::io::{Read, Write};
        let body = format!("[{event}]");
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.webhook.port))?;
        write!(
            stream,
            "POST /x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer receiver-t0ken\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(())
    }

    /// Three rings' worth of statements.
    fn catches_up(&self) -> Result<()> {
        self.webhook.behave(&json!({ "status": 503 }))?;
        let long = "x".repeat(150_000);
        self.run(&(0..80).map(|number| format!("SELECT {number}, '{long}'")).collect::<Vec<_>>())?;
        let archived = segments(&self.gateway().home().join("data/archive"))?.len();
        ensure!(archived >= 3, "{archived} segments have left the ring");
        self.webhook.recover()?;
        let expected = expected(self.gateway())?;
        arrived(&expected, || file_events(&self.file))?;
        arrived(&expected, || self.webhook.accepted())
    }

    fn killed(&mut self) -> Result<()> {
        let before: BTreeSet<_> = self.webhook.accepted()?.iter().map(uid).collect();
        self.webhook.behave(&json!({ "hold": true }))?;
        self.run(&(0..120).map(|number| format!("SELECT {number} AS held")).collect::<Vec<_>>())?;
        eventually("the receiver has a batch it does not answer", DEADLINE, || {
            self.webhook.accepted().is_ok_and(|events| events.len() > before.len())
        })?;
        self.world.gateway_mut().kill()?;
        self.webhook.recover()?;
        self.world.gateway_mut().start_again()?;
        let expected = expected(self.gateway())?;
        let complete = || {
            self.webhook
                .accepted()
                .is_ok_and(|events| events.iter().map(uid).collect::<BTreeSet<_>>().len() >= expected.len())
        };
        eventually("everything has arrived", DEADLINE, complete)?;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for event in self.webhook.accepted()? {
            ensure!(expected.get(&uid(&event)) == Some(&event), "another event under a known id: {event}");
            *counts.entry(uid(&event)).or_default() += 1;
        }
        let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
        ensure!(
            !twice.is_empty() && twice.len() <= 50,
            "{} events came twice, of one batch of at most 50",
            twice.len()
        );
        ensure!(twice.iter().all(|(uid, count)| **count == 2 && !before.contains(*uid)), "{twice:?}");
        Ok(())
    }

    fn killed_in_an_outage(&mut self) -> Result<()> {
        let before = self.webhook.accepted()?.len();
        self.webhook.behave(&json!({ "status": 500 }))?;
        self.run(&(0..60).map(|number| format!("SELECT {number} AS away")).collect::<Vec<_>>())?;
        eventually("it has tried", DEADLINE, || self.status("siem").is_ok_and(|sink| sink["state"] == "retrying"))?;
        self.world.gateway_mut().kill()?;
        self.world.gateway_mut().start_again()?;
        self.webhook.recover()?;
        let expected = expected(self.gateway())?;
        let arrived =
            || self.webhook.accepted().map_or(0, |events| events.iter().map(uid).collect::<BTreeSet<_>>().len());
        eventually("everything has arrived", DEADLINE, || arrived() >= expected.len())?;
        let later: Vec<_> = self.webhook.accepted()?.iter().skip(before).map(uid).collect();
        ensure!(
            later.iter().collect::<BTreeSet<_>>().len() == later.len(),
            "nothing came twice: nothing had been taken"
        );
        Ok(())
    }

    fn reloaded(&self) -> Result<()> {
        let (first, second) = (self.file.with_file_name("first.ndjson"), self.file.with_file_name("second.ndjson"));
        let added = |path: &Path| {
            let place = format!("[[sink]]\nkind = \"file\"\nname = \"added\"\npath = \"{}\"\n", path.display());
            format!("{}{place}start = \"now\"\n{PACE}", self.setup.more)
        };
        let has = |path: &PathBuf, text: &str| {
            file_events(path).is_ok_and(|events| events.iter().any(|event| event.to_string().contains(text)))
        };
        self.configure(added(&first))?;
        eventually("the new sink runs", DEADLINE, || self.status("added").is_ok())?;
        self.run(&["SELECT 'for the new sink'".into()])?;
        eventually("it has the statement", DEADLINE, || has(&first, "for the new sink"))?;
        ensure!(!has(&first, " AS away"), "nothing of before it began");
        self.configure(added(&second))?;
        self.run(&["SELECT 'for the changed sink'".into()])?;
        eventually("it goes on elsewhere", DEADLINE, || has(&second, "for the changed sink"))?;
        ensure!(!has(&second, "for the new sink"), "from its position on");
        self.configure(self.setup.more.clone())?;
        eventually("it is gone", DEADLINE, || self.status("added").is_err())?;
        ensure!(!self.gateway().ops("/metrics")?.contains("sink=\"added\""), "it is gone from the metrics too");
        self.run(&["SELECT 'after the new sink'".into()])?;
        eventually("the file that stayed has it", DEADLINE, || has(&self.file, "after the new sink"))?;
        ensure!(
            !has(&first, "after the new sink") && !has(&second, "after the new sink"),
            "nobody writes there any more"
        );
        Ok(())
    }

    /// Writes another configuration and waits until it is in use.
    fn configure(&self, more: String) -> Result<()> {
        let reloads = || {
            let metrics = self.gateway().ops("/metrics").unwrap_or_default();
            let line = metrics.lines().find_map(|line| line.strip_prefix("lockgate_reloads_total "));
            line.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
        };
        let before = reloads();
        self.gateway().configure(&self.world.target, &self.world.issuer, &Setup { more, ..self.setup.clone() })?;
        self.gateway().reload()?;
        eventually("the configuration is in use", DEADLINE, || reloads() > before)
    }

    fn stopped(&mut self) -> Result<()> {
        self.run(&(0..40).map(|number| format!("SELECT {number} AS last")).collect::<Vec<_>>())?;
        ensure!(self.world.gateway_mut().terminate()? == Some(0), "it ends well");
        let ended = |events: Vec<Value>| {
            let last = events.last().map(|event| event["status_detail"].clone());
            ensure!(last == Some(json!("stopped: drained")), "the last event is {last:?}");
            Ok(())
        };
        ended(self.webhook.accepted()?)?;
        ended(file_events(&self.file)?)?;
        let told = self.gateway().command(&["audit", "sinks", "-o", "json"])?;
        ensure!(told.status == Some(1), "none of them delivers: {}", told.everything());
        let left = told.stdout.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        ensure!(left.len() == 2 && left.iter().all(|sink| sink["state"] == "stopped"), "{left:?}");
        Ok(())
    }
}
