//! kill -9 under load: nothing reached the target that was not recorded, nobody has a result whose end was not recorded.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::wire::{SYNC, Wire, bind, describe_portal, execute, parse, query};
use crate::harness::{Endpoint, Report, Settings, audit};

const CLIENTS: usize = 8;
const ROUNDS: u32 = 20;
const ROUNDS_FULL: u32 = 200;
/// Between two looks at the books.
const ROUNDS_PER_JOIN: u32 = 10;

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let rounds = if settings.full { ROUNDS_FULL } else { ROUNDS };
    for durability in ["group", "strict"] {
        let setup = Setup { durability, ..Setup::default() };
        let mut world = World::start(settings, &format!("crash-{durability}"), &setup)?;
        world.target.execute("shop", "CREATE TABLE crashed (id text)")?;
        report.case(
            &format!("{durability}: {rounds} times kill -9 during load, every statement accounted for"),
            || {
                let mut books = Books::default();
                for round in 0..rounds {
                    crash(&mut world, durability, round, &mut books).with_context(|| format!("round {round}"))?;
                    if (round + 1) % ROUNDS_PER_JOIN == 0 || round + 1 == rounds {
                        books.balance(&world).with_context(|| format!("after round {round}"))?;
                    }
                }
                books.summary(durability)
            },
        );
        report.case(&format!("{durability}: the trail is whole after all of it"), || {
            let verified = world.gateway().command(&["audit", "verify"])?;
            ensure!(verified.status == Some(0), "{}", verified.everything());
            Ok(())
        });
    }
    Ok(())
}

/// What the clients saw and how long restarts took, over all rounds.
#[derive(Debug, Default)]
struct Books {
    /// Statements whose CommandComplete a client has read.
    completed: BTreeSet<String>,
    restarts: Vec<Duration>,
    joined: usize,
}

fn crash(world: &mut World, durability: &str, round: u32, books: &mut Books) -> Result<()> {
    let endpoint = world.endpoint("ada@example.com", &["engineering"], false);
    let completed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (endpoint, completed) = (&endpoint, &completed);
            let prefix = format!("crash-{durability}-{round}-{client}");
            // It ends with an error when the gateway dies: that is the point.
            scope.spawn(move || load(endpoint, &prefix, client, completed));
        }
        // Another moment each round, from before the first statement to well into the load.
        thread::sleep(Duration::from_millis(u64::from(round * 37 % 400)));
        world.gateway_mut().kill()
    })?;
    books.completed.extend(completed.into_inner().expect("no client panicked"));
    let began = Instant::now();
    world.gateway_mut().start_again()?;
    books.restarts.push(began.elapsed());
    Ok(())
}

/// One client: statements of every shape, each with its own name in its text, until the connection breaks.
fn load(endpoint: &Endpoint, prefix: &str, client: usize, completed: &Mutex<Vec<String>>) -> Result<()> {
    let mut wire = Wire::connect(endpoint)?;
    for number in client.. {
        let id = format!("{prefix}-{number}");
        let statements = match number % 4 {
            0 => vec![format!("SELECT '{id}'")],
            1 => vec![format!("INSERT INTO crashed VALUES ('{id}')")],
            2 => vec![format!("SELECT '{id}', repeat('x', 2000) FROM generate_series(1, 20)")],
            _ => (0..5).map(|part| format!("SELECT '{id}-{part}'")).collect(),
        };
        wire.send(&match number % 4 {
            0 | 1 => query(&statements[0]),
            _ => statements.iter().flat_map(|sql| extended(sql)).chain(SYNC.iter().copied()).collect(),
        })?;
        let mut waiting = statements.into_iter();
        loop {
            match wire.read()?.tag {
                b'C' => {
                    let done = waiting.next().context("more results than statements")?;
                    completed.lock().expect("no client panicked").push(done);
                }
                b'Z' => break,
                _ => {}
            }
        }
    }
    Ok(())
}

fn extended(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[], 0), describe_portal(""), execute("", 0)].concat()
}

impl Books {
    /// Joins what the target ran, what the clients have and what was recorded.
    fn balance(&mut self, world: &World) -> Result<()> {
        let ran: BTreeSet<String> = world
            .target
            .log()?
            .iter()
            .filter_map(|line| line.statement())
            .filter(|statement| statement.contains("'crash-"))
            .map(str::to_string)
            .collect();
        let recorded = audit::forwarded(&audit::search(world.gateway(), &["--contains", "crash-"])?);
        let unrecorded: Vec<_> = ran.iter().filter(|statement| !recorded.contains_key(*statement)).collect();
        ensure!(unrecorded.is_empty(), "{} ran unrecorded, first: {}", unrecorded.len(), unrecorded[0]);
        let open = |statement: &&String| recorded.get(*statement).is_none_or(|recorded| recorded.outcomes == 0);
        let unended: Vec<_> = self.completed.iter().filter(open).collect();
        ensure!(unended.is_empty(), "{} completed without an outcome, first: {}", unended.len(), unended[0]);
        let never_ran = self.completed.iter().find(|statement| !ran.contains(*statement));
        ensure!(never_ran.is_none(), "a client has the result of a statement the target never logged: {never_ran:?}");
        self.joined = ran.len();
        Ok(())
    }

    /// That the rounds were worth something. How quick restarts were is told, not judged: the machine may be busy.
    fn summary(&mut self, durability: &str) -> Result<()> {
        self.restarts.sort();
        let median = self.restarts[self.restarts.len() / 2];
        println!(
            "        {durability}: {} statements ran, {} completed at clients, median restart {} ms",
            self.joined,
            self.completed.len(),
            median.as_millis()
        );
        ensure!(self.completed.len() > 100, "only {} statements completed: the load was no load", self.completed.len());
        ensure!(self.joined > self.completed.len(), "no kill ever hit a running statement");
        Ok(())
    }
}
