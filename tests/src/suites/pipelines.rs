//! Both protocols mixed on one connection, and statements where only copy data may come: the server itself is asked what
//! it answers, and the gateway must answer alike.

use anyhow::{Context, Result, ensure};

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::process::eventually;
use crate::harness::wire::{Message, SYNC, Wire, bind, complaint, copy_data, execute, message, parse, query, tags};
use crate::harness::{Endpoint, Report, Settings, audit};
use std::time::Duration;

const RULES: &str = r#"
[[rule]]
name = "no-drop"
classes = ["drop"]
action = "deny"
"#;

const COPY_DONE: &[u8] = b"c\0\0\0\x04";

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let world = World::start(settings, "pipelines", &Setup { more: RULES.into(), ..Setup::default() })?;
    world
        .target
        .execute("shop", "CREATE TABLE steps (n int); CREATE TABLE keep (n int); GRANT ALL ON steps TO PUBLIC")?;
    for case in MIXED {
        report.case(&format!("a refused Query is answered as a failing one: {}", case.name), || mixed(&world, case));
    }
    report.case("no refused text reached the target", || unseen(&world));
    report.case("a statement behind CopyDone runs", || behind_copy(&world));
    for (name, statement) in
        [("Query", query("SELECT 1")), ("Parse", parse("", "SELECT 1")), ("Execute", execute("", 0))]
    {
        report.case(&format!("{name} among copy data fails the copy, as at the server"), || {
            inside_copy(&world, &statement)
        });
    }
    report.case("a statement sent blindly behind COPY fails the copy", || blindly_behind_copy(&world));
    report.case("a Terminate behind an Execute without Sync ends the session without a word", || {
        terminated_without_sync(&world)
    });
    Ok(())
}

fn terminated_without_sync(world: &World) -> Result<()> {
    let mut wire = Wire::connect(&world.endpoint("terminator@example.com", &[], false))?;
    let sent = [parse("", "SELECT 'unsynced'"), bind("", "", &[], 0), execute("", 0), message(b'X', &[])];
    wire.send(&sent.concat())?;
    let said = wire.read_or_end()?;
    ensure!(said.is_none(), "the server says nothing, the gateway {said:?}");
    let closed = || {
        let records = audit::search(world.gateway(), &["--user", "terminator@example.com"]).unwrap_or_default();
        records.iter().any(|record| record["detail"].as_str().is_some_and(|why| why.contains("the client closed")))
    };
    eventually("the trail tells who ended it", Duration::from_secs(10), closed)
}

/// What is sent, with `None` for the Query that fails at the server and is refused by the gateway; the tags of each
/// answer, up to ReadyForQuery.
struct Mixed {
    name: &'static str,
    sent: &'static [Option<Sent>],
    answers: &'static str,
}

enum Sent {
    /// Parse, Bind and Execute, with no Sync.
    Step(&'static str),
    Parse(&'static str),
    Query(&'static str),
    Sync,
}

const MIXED: &[Mixed] = &[
    Mixed {
        name: "behind an INSERT, which is rolled back; what follows is another transaction",
        sent: &[
            Some(Sent::Step("INSERT INTO steps VALUES (1)")),
            None,
            Some(Sent::Step("INSERT INTO steps VALUES (2)")),
            Some(Sent::Sync),
        ],
        answers: "12CEZ.12CZ",
    },
    Mixed {
        name: "behind a Parse alone",
        sent: &[Some(Sent::Parse("SELECT 1")), None, Some(Sent::Sync)],
        answers: "1EZ.Z",
    },
    Mixed {
        name: "behind an error, which skips it and all up to Sync",
        sent: &[
            Some(Sent::Step("SELECT 1/0")),
            None,
            Some(Sent::Query("INSERT INTO steps VALUES (3)")),
            Some(Sent::Sync),
        ],
        answers: "1EZ",
    },
    Mixed {
        name: "in a transaction, which is failed then",
        sent: &[
            Some(Sent::Query("BEGIN")),
            Some(Sent::Step("INSERT INTO steps VALUES (4)")),
            None,
            Some(Sent::Sync),
            Some(Sent::Query("COMMIT")),
        ],
        answers: "CZ.12CEZ.Z.CZ",
    },
    Mixed {
        name: "in a transaction that the pipeline began",
        sent: &[
            Some(Sent::Step("BEGIN")),
            Some(Sent::Step("INSERT INTO steps VALUES (5)")),
            None,
            Some(Sent::Sync),
            Some(Sent::Query("COMMIT")),
        ],
        answers: "12C12CEZ.Z.CZ",
    },
    Mixed {
        name: "behind a Query that ended the pipeline's transaction",
        sent: &[
            Some(Sent::Step("INSERT INTO steps VALUES (6)")),
            Some(Sent::Query("INSERT INTO steps VALUES (7)")),
            None,
            Some(Sent::Sync),
        ],
        answers: "12CCZ.EZ.Z",
    },
];

impl Mixed {
    fn bytes(&self, failing: &str) -> Vec<u8> {
        let step = |sql: &str| [parse("", sql), bind("", "", &[], 0), execute("", 0)].concat();
        let one = |sent: &Option<Sent>| match sent {
            Some(Sent::Step(sql)) => step(sql),
            Some(Sent::Parse(sql)) => parse("", sql),
            Some(Sent::Query(sql)) => query(sql),
            Some(Sent::Sync) => SYNC.to_vec(),
            None => query(failing),
        };
        self.sent.iter().flat_map(one).collect()
    }

    /// The answers with their transaction states, then the rows that are there afterwards.
    fn ask(&self, wire: &mut Wire, failing: &str) -> Result<String> {
        wire.send(&self.bytes(failing))?;
        let mut all = String::new();
        for expected in self.answers.split('.') {
            let messages = wire.read_until_ready()?;
            ensure!(tags(&messages) == expected, "{} instead of {expected}", tags(&messages));
            all += &format!("{expected} {} ", state(&messages));
        }
        all += &wire.value("SELECT coalesce(string_agg(n::text, ','), 'nothing') FROM steps")?;
        wire.query("DELETE FROM steps WHERE n > 0")?;
        Ok(all)
    }
}

fn state(messages: &[Message]) -> String {
    String::from_utf8_lossy(&messages.last().map(|ready| ready.body.clone()).unwrap_or_default()).into_owned()
}

fn session(world: &World) -> Result<Wire> {
    Wire::connect(&world.endpoint("ada@example.com", &["engineering"], false))
}

fn direct(world: &World) -> Result<Wire> {
    Wire::connect(&Endpoint { dbname: "shop".into(), ..world.target.endpoint(false) })
}

fn mixed(world: &World, case: &Mixed) -> Result<()> {
    let server = case.ask(&mut direct(world)?, "SELECT 1/0").context("the server")?;
    let gateway = case.ask(&mut session(world)?, "DROP TABLE keep /* mixed */").context("the gateway")?;
    ensure!(server == gateway, "the server: {server}; the gateway: {gateway}");
    Ok(())
}

fn unseen(world: &World) -> Result<()> {
    let seen = world.target.log()?.iter().any(|line| line.statement().is_some_and(|text| text.contains("/* mixed */")));
    ensure!(!seen, "a refused text is in the target's log");
    Ok(())
}

fn behind_copy(world: &World) -> Result<()> {
    let mut answers = Vec::new();
    for mut wire in [direct(world)?, session(world)?] {
        wire.send(&query("COPY steps FROM STDIN"))?;
        ensure!(wire.read()?.tag == b'G');
        let rest = [copy_data(b"1\n"), SYNC.to_vec(), COPY_DONE.to_vec(), query("DELETE FROM steps WHERE n = 1")];
        wire.send(&rest.concat())?;
        let (copied, deleted) = (wire.read_until_ready()?, wire.read_until_ready()?);
        answers.push(format!("{copied:?} {deleted:?}"));
    }
    ensure!(answers[0] == answers[1], "{answers:?}");
    Ok(())
}

/// The server fails the COPY with an ERROR and ends the connection with a FATAL one; the gateway says the ERROR's words
/// in the FATAL one.
fn inside_copy(world: &World, statement: &[u8]) -> Result<()> {
    let mut words = Vec::new();
    for mut wire in [direct(world)?, session(world)?] {
        wire.send(&query("COPY steps FROM STDIN /* inside */"))?;
        ensure!(wire.read()?.tag == b'G');
        wire.send(&[&copy_data(b"1\n"), statement].concat())?;
        words.push(last_words(&mut wire)?);
    }
    ensure!(words[0] == words[1], "{words:?}");
    ensure!(words[0].contains("during COPY"), "{words:?}");
    ensure!(world.target.execute("shop", "SELECT count(*) FROM steps")?.trim() == "0", "the copy was kept");
    ends_with(world, "/* inside */", "08P01")
}

/// The first error, with its SQLSTATE, before the connection ends.
fn last_words(wire: &mut Wire) -> Result<String> {
    let mut messages = Vec::new();
    while let Some(message) = wire.read_or_end()? {
        messages.push(message);
    }
    let said = complaint(&messages).with_context(|| format!("no error among {}", tags(&messages)))?;
    Ok(format!("{} {}", said.sqlstate, said.message))
}

fn blindly_behind_copy(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.send(&[query("COPY steps FROM STDIN /* blind */"), query("SELECT 1"), message(b'H', &[])].concat())?;
    ensure!(last_words(&mut wire)?.starts_with("08P01"), "not a protocol violation");
    ends_with(world, "/* blind */", "08P01")
}

/// The trail says how the statement with this text ended.
fn ends_with(world: &World, text: &str, error: &str) -> Result<()> {
    let recorded = || {
        let records = audit::search(world.gateway(), &["--contains", text]).unwrap_or_default();
        !records.is_empty() && records.iter().all(|record| record["error"] == error)
    };
    eventually(&format!("the trail says {error} for {text}"), Duration::from_secs(10), recorded)
}
