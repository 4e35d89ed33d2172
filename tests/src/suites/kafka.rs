//! The sink `kafka`: the whole trail in a topic, keyed by session; outages, refusals, hangs and kills lose nothing. The broker is
//! librdkafka's own, kcat reads back. Needs the cargo feature `kafka`, which run.sh builds with when this suite runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::World;
use super::sinks::{Expected, PACE, ended, expected, file_events, session, uid};
use crate::harness::gateway::Setup;
use crate::harness::process::{Dialogue, client, eventually, run};
use crate::harness::{Gateway, Report, Settings};

const DEADLINE: Duration = Duration::from_secs(30);
const TOPIC: &str = "lockgate-audit";
const PARTITIONS: usize = 3;
/// Longer than anybody waits here.
const HANGS_MS: u32 = 600_000;
/// Codes of the protocol.
const MESSAGE_TOO_LARGE: u32 = 10;
const NOT_ENOUGH_REPLICAS: u32 = 19;

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let mut kafka = Kafka::start(settings)?;
    report.case("each event of the trail is a message, under its id, keyed by its session", || kafka.everything());
    report.case("a session's events stay in one partition, in order; sessions spread", || kafka.in_order());
    report.case("a broker that is down holds nothing up, and gets everything once when it is back", || kafka.outage());
    report.case("a broker that cannot take anything now is asked again, and nothing comes twice", || kafka.busy());
    report.case("what the broker refuses for good is put aside, its neighbours are not", || kafka.refused());
    report.case("kill -9 in the middle of a delivery: everything arrives, only what was sent comes twice", || {
        kafka.killed()
    });
    report.case("kill -9 while the broker is down loses nothing and doubles nothing", || kafka.killed_in_an_outage());
    report.case("a broker that hangs holds up no stop, and gets the rest after the next start", || kafka.hangs());
    report.case("a topic that is not there is told, with what to do", || kafka.no_topic());
    Ok(())
}

/// A broker, a gateway with a sink to it, and a file beside it that sees the same.
struct Kafka {
    world: World,
    cluster: Cluster,
    file: PathBuf,
    setup: Setup,
    /// What the broker has refused.
    put_aside: BTreeSet<String>,
}

struct Cluster {
    address: String,
    broker: Dialogue,
}

impl Cluster {
    fn start() -> Result<Cluster> {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(client("kafka_cluster.py")).args([TOPIC, &PARTITIONS.to_string()]).stderr(Stdio::null());
        let mut broker = Dialogue::start(&mut command)?;
        let address = broker.answer()?.as_str().context("no address")?.to_owned();
        Ok(Cluster { address, broker })
    }

    fn ask(&mut self, command: &str) -> Result<()> {
        let answer = self.broker.ask(command)?;
        ensure!(answer == 0, "{command}: {answer}");
        Ok(())
    }

    /// Everything in the topic, in the order of its partitions.
    fn messages(&self) -> Result<Vec<Message>> {
        let mut kcat = Command::new("kcat");
        kcat.args(["-C", "-q", "-e", "-J", "-o", "beginning", "-b", &self.address, "-t", TOPIC]);
        let printed = run(&mut kcat, DEADLINE)?.succeeded()?;
        let mut messages = Vec::new();
        for line in printed.lines() {
            messages.push(Message::read(line).with_context(|| format!("kcat printed {line}"))?);
        }
        messages.sort_by_key(|message| (message.partition, message.offset));
        Ok(messages)
    }
}

struct Message {
    partition: u64,
    offset: u64,
    key: String,
    id: String,
    time_ms: i64,
    event: Value,
}

impl Message {
    fn read(line: &str) -> Result<Message> {
        let message: Value = serde_json::from_str(line)?;
        let text = |key: &str| message[key].as_str().map(str::to_owned).context("not a text");
        ensure!(message["headers"][0] == "id" && message["headers"].as_array().map(Vec::len) == Some(2), "one header");
        Ok(Message {
            partition: message["partition"].as_u64().context("no partition")?,
            offset: message["offset"].as_u64().context("no offset")?,
            key: text("key")?,
            id: message["headers"][1].as_str().context("no id")?.to_owned(),
            time_ms: message["ts"].as_i64().context("no time")?,
            event: serde_json::from_str(&text("payload")?)?,
        })
    }
}

impl Kafka {
    fn start(settings: &Settings) -> Result<Kafka> {
        let cluster = Cluster::start()?;
        let file = settings.run_dir.join("beside-kafka.ndjson");
        let more = format!(
            "[[sink]]\nkind = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"{TOPIC}\"\ntls = false\ntimeout = \"2s\"\n\
             batch_events = 50\n{PACE}[[sink]]\nkind = \"file\"\npath = \"{}\"\n{PACE}",
            cluster.address,
            file.display()
        );
        let setup = Setup { more, ..Setup::default() };
        let world = World::start(settings, "kafka", &setup)?;
        Ok(Kafka { world, cluster, file, setup, put_aside: BTreeSet::new() })
    }

    fn gateway(&self) -> &Gateway {
        self.world.gateway()
    }

    fn status(&self, name: &str) -> Result<Value> {
        let printed = self.gateway().command(&["audit", "sinks", "-o", "json"])?.stdout;
        let sinks: Result<Vec<Value>, _> = printed.lines().map(serde_json::from_str).collect();
        sinks?.into_iter().find(|sink| sink["name"] == name).with_context(|| format!("no sink {name} in {printed}"))
    }

    /// A dozen sessions, at the same time, one after the other in each.
    fn statements(&self, word: &str) -> Result<()> {
        let mut sessions = (0..12).map(|_| session(&self.world)).collect::<Result<Vec<_>>>()?;
        for number in 0..5 {
            for wire in &mut sessions {
                wire.query(&format!("SELECT {number} AS {word}"))?;
            }
        }
        drop(sessions);
        ended(self.gateway())
    }

    /// What `audit search -o ocsf` says, but for what was put aside.
    fn expected(&self) -> Result<Expected> {
        let mut events = expected(self.gateway())?;
        events.retain(|uid, _| !self.put_aside.contains(uid));
        Ok(events)
    }

    /// Waits until all of it is in the topic; how often each has come.
    fn arrived(&self) -> Result<BTreeMap<String, usize>> {
        let wanted = self.expected()?;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let whole = eventually("everything is in the topic", DEADLINE, || {
            counts.clear();
            for message in self.cluster.messages().unwrap_or_default() {
                *counts.entry(message.id).or_default() += 1;
            }
            wanted.keys().all(|uid| counts.contains_key(uid))
        });
        let missing: Vec<_> = wanted.keys().filter(|uid| !counts.contains_key(*uid)).collect();
        ensure!(missing.is_empty(), "{} of {} are not there: {missing:?}", missing.len(), wanted.len());
        whole?;
        for message in self.cluster.messages()? {
            let event = wanted.get(&message.id).with_context(|| format!("nobody expected {}", message.event))?;
            ensure!(message.event == *event, "sent: {}\nsearch: {event}", message.event);
        }
        Ok(counts)
    }

    /// Ids that have come more than once.
    fn doubled(counts: &BTreeMap<String, usize>) -> BTreeSet<String> {
        counts.iter().filter(|(_, count)| **count > 1).map(|(uid, _)| uid.clone()).collect()
    }

    fn retrying(&self) -> Result<()> {
        eventually("the status tells that it is tried again", DEADLINE, || {
            self.status("kafka").is_ok_and(|sink| sink["state"] == "retrying" && sink["waiting"].as_u64() > Some(0))
        })
    }

    fn everything(&self) -> Result<()> {
        self.statements("plain")?;
        let doubled = Self::doubled(&self.arrived()?);
        ensure!(doubled.is_empty(), "came twice: {doubled:?}");
        for message in self.cluster.messages()? {
            ensure!(message.id == uid(&message.event), "the header is not the id of {}", message.event);
            let own = message.event["metadata"]["correlation_uid"].as_str().filter(|session| !session.is_empty());
            let appliance = message.id.split('-').next().unwrap_or_default();
            ensure!(message.key == own.unwrap_or(appliance), "{} is the key of {}", message.key, message.event);
            ensure!(Some(message.time_ms) == message.event["time"].as_i64(), "another time than {}", message.event);
        }
        let sink = self.status("kafka")?;
        ensure!(sink["state"] == "delivering" && sink["waiting"] == 0 && sink["dropped"] == 0, "{sink}");
        Ok(())
    }

    fn in_order(&self) -> Result<()> {
        let (mut sent, mut partitions) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
        for message in self.cluster.messages()? {
            partitions.entry(message.key.clone()).or_default().insert(message.partition);
            sent.entry(message.key).or_default().push(message.id);
        }
        ensure!(partitions.values().all(|of| of.len() == 1), "a session is in more than one partition: {partitions:?}");
        let used: BTreeSet<_> = partitions.values().flatten().collect();
        ensure!(used.len() == PARTITIONS, "only {used:?} are used by {} keys", partitions.len());
        let keys: BTreeMap<_, _> =
            sent.iter().flat_map(|(key, ids)| ids.iter().map(move |id| (id.clone(), key.clone()))).collect();
        let mut filed = BTreeMap::<_, Vec<_>>::new();
        for event in file_events(&self.file)? {
            let key = keys.get(&uid(&event)).with_context(|| format!("not in the topic: {event}"))?;
            filed.entry(key.clone()).or_default().push(uid(&event));
        }
        // What belongs to no session comes from all shards: that has no order between them.
        let of_sessions = |key: &String| !sent[key].iter().any(|id| id.starts_with(key.as_str()));
        for (key, ids) in sent.iter().filter(|(key, _)| of_sessions(key)) {
            ensure!(filed.get(key) == Some(ids), "another order in session {key}");
        }
        Ok(())
    }

    fn outage(&mut self) -> Result<()> {
        self.cluster.ask("down")?;
        self.statements("outage")?;
        self.gateway().ops("/readyz")?;
        self.retrying()?;
        let sink = self.status("kafka")?;
        ensure!(sink["error"].as_str().is_some_and(|what| what.contains("no broker can be used")), "{sink}");
        ensure!(sink["lag_seconds"].as_f64() > Some(0.0), "{sink}");
        self.cluster.ask("up")?;
        let doubled = Self::doubled(&self.arrived()?);
        ensure!(doubled.is_empty(), "came twice: {doubled:?}");
        Ok(())
    }

    fn busy(&mut self) -> Result<()> {
        let failures = || self.status("kafka").map(|sink| sink["failures"].as_u64().unwrap_or(0));
        let before = failures()?;
        self.cluster.ask(&format!("refuse {NOT_ENOUGH_REPLICAS} 6"))?;
        self.statements("busy")?;
        let doubled = Self::doubled(&self.arrived()?);
        ensure!(doubled.is_empty(), "came twice: {doubled:?}");
        let after = self.status("kafka")?;
        ensure!(after["failures"].as_u64() > Some(before) && after["dropped"] == 0, "{after}");
        Ok(())
    }

    fn refused(&mut self) -> Result<()> {
        self.cluster.ask(&format!("refuse {MESSAGE_TOO_LARGE} 8"))?;
        let mut wire = session(&self.world)?;
        wire.query("SELECT 'too large'")?;
        drop(wire);
        ended(self.gateway())?;
        let dead = self.gateway().home().join("data/sinks/kafka.dead.ndjson");
        let read = || fs::read_to_string(&dead).unwrap_or_default();
        eventually("something is put aside", DEADLINE, || !read().is_empty())?;
        eventually("the queue is empty", DEADLINE, || {
            self.status("kafka").is_ok_and(|sink| sink["waiting"] == 0 && sink["state"] == "delivering")
        })?;
        for line in read().lines() {
            let line: Value = serde_json::from_str(line)?;
            ensure!(line["error"].as_str().is_some_and(|why| why.contains("MessageTooLarge")), "{line}");
            ensure!(self.put_aside.insert(uid(&line["event"])), "put aside twice: {line}");
        }
        let dropped = self.status("kafka")?["dropped"].as_u64();
        ensure!(dropped == Some(self.put_aside.len() as u64), "{dropped:?} of {:?}", self.put_aside);
        // Nothing of it is in the topic as well: `arrived` expects the others alone.
        self.statements("neighbours")?;
        self.arrived().map(drop)
    }

    fn killed(&mut self) -> Result<()> {
        let before = self.arrived()?;
        self.cluster.ask(&format!("slow {HANGS_MS}"))?;
        self.statements("held")?;
        // It had a connection: the broker has the first batch and does not say so.
        self.retrying()?;
        self.world.gateway_mut().kill()?;
        self.cluster.ask("slow 0")?;
        self.world.gateway_mut().start_again()?;
        let twice = Self::doubled(&self.arrived()?);
        ensure!(!twice.is_empty() && twice.len() <= 50, "{} came twice, of one batch of at most 50", twice.len());
        ensure!(twice.iter().all(|uid| !before.contains_key(uid)), "what was acknowledged came again: {twice:?}");
        Ok(())
    }

    fn killed_in_an_outage(&mut self) -> Result<()> {
        let before = Self::doubled(&self.arrived()?);
        self.cluster.ask("down")?;
        self.statements("away")?;
        self.retrying()?;
        self.world.gateway_mut().kill()?;
        self.world.gateway_mut().start_again()?;
        self.cluster.ask("up")?;
        let after = Self::doubled(&self.arrived()?);
        ensure!(after == before, "came twice, and nothing had been taken: {:?}", after.difference(&before));
        Ok(())
    }

    fn hangs(&mut self) -> Result<()> {
        self.cluster.ask(&format!("slow {HANGS_MS}"))?;
        self.statements("hangs")?;
        let began = Instant::now();
        ensure!(self.world.gateway_mut().terminate()? == Some(0), "TERM did not end it well: {}", self.gateway().log());
        let took = began.elapsed();
        ensure!(took < Duration::from_secs(10), "the stop took {took:?}");
        self.cluster.ask("slow 0")?;
        self.world.gateway_mut().start_again()?;
        self.arrived().map(drop)
    }

    fn no_topic(&mut self) -> Result<()> {
        let lost = format!(
            "[[sink]]\nname = \"lost\"\nkind = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"nowhere\"\ntls = false\n{PACE}",
            self.cluster.address
        );
        let setup = Setup { more: format!("{}{lost}", self.setup.more), ..self.setup.clone() };
        self.gateway().configure(&self.world.target, &self.world.issuer, &setup)?;
        self.gateway().reload()?;
        eventually("the status says what is wrong", DEADLINE, || {
            self.status("lost").is_ok_and(|sink| {
                let says = |key: &str, text: &str| sink[key].as_str().is_some_and(|what| what.contains(text));
                says("error", "no topic `nowhere`") && says("mend", "make the topic")
            })
        })
    }
}
