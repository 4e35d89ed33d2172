//! kill -9 under load: nothing reached the target that was not recorded, nobody has a result whose end was not recorded.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::random::Random;
use crate::harness::wire::{SYNC, Wire, bind, describe_portal, execute, parse, query};
use crate::harness::{Endpoint, Report, Settings, audit};

const CLIENTS: usize = 8;
const ROUNDS: u32 = 20;
const ROUNDS_FULL: u32 = 1_000;
/// Between two looks at the books: `--full` has many, and each reads the target's whole log.
const ROUNDS_PER_JOIN: u32 = 10;
const ROUNDS_PER_JOIN_FULL: u32 = 50;
/// A kill comes within this, counted from before the first login.
const KILL_WITHIN_US: usize = 400_000;
const KILL_WITHIN_US_FULL: usize = 150_000;
const SEED: u64 = 42;

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let (rounds, per_join, within_us) = match settings.full {
        true => (ROUNDS_FULL, ROUNDS_PER_JOIN_FULL, KILL_WITHIN_US_FULL),
        false => (ROUNDS, ROUNDS_PER_JOIN, KILL_WITHIN_US),
    };
    for durability in ["group", "strict"] {
        let setup = Setup { durability, ..Setup::default() };
        let mut world = World::start(settings, &format!("crash-{durability}"), &setup)?;
        world.target.execute("shop", "CREATE TABLE crashed (id text)")?;
        report.case(
            &format!("{durability}: {rounds} times kill -9 during load (seed {SEED}), every statement accounted for"),
            || {
                let (mut books, mut random) = (Books::default(), Random::new(SEED));
                for round in 0..rounds {
                    let delay = Duration::from_micros(random.below(within_us) as u64);
                    crash(&mut world, durability, round, delay, &mut books)
                        .with_context(|| format!("round {round}, killed after {delay:?}"))?;
                    if (round + 1) % per_join == 0 || round + 1 == rounds {
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
    /// Statements whose CommandComplete a client has read since the last look.
    completed: BTreeSet<String>,
    /// The first round since then, and its time.
    first_round: u32,
    since: Option<Instant>,
    next_round: u32,
    restarts: Vec<Duration>,
    joined: usize,
    all_completed: usize,
}

fn crash(world: &mut World, durability: &str, round: u32, delay: Duration, books: &mut Books) -> Result<()> {
    (books.since, books.next_round) = (books.since.or(Some(Instant::now())), round + 1);
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
        thread::sleep(delay);
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

/// The round whose load a statement is: `...'crash-group-17-...`.
fn round_of(statement: &str) -> Option<u32> {
    statement.split_once("'crash-")?.1.split('-').nth(1)?.parse().ok()
}

fn extended(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[], 0), describe_portal(""), execute("", 0)].concat()
}

impl Books {
    /// Joins what the target ran, what the clients have and what was recorded since the last look.
    fn balance(&mut self, world: &World) -> Result<()> {
        let ran: BTreeSet<String> = world
            .target
            .log()?
            .iter()
            .filter_map(|line| line.statement())
            .filter(|statement| round_of(statement).is_some_and(|round| round >= self.first_round))
            .map(str::to_string)
            .collect();
        let minutes = self.since.map_or(0, |since| since.elapsed().as_secs() / 60) + 2;
        let since = format!("{minutes}m");
        let recorded = audit::forwarded(&audit::search(world.gateway(), &["--contains", "crash-", "--since", &since])?);
        let unrecorded: Vec<_> = ran.iter().filter(|statement| !recorded.contains_key(*statement)).collect();
        ensure!(unrecorded.is_empty(), "{} ran unrecorded, first: {}", unrecorded.len(), unrecorded[0]);
        let open = |statement: &&String| recorded.get(*statement).is_none_or(|recorded| recorded.outcomes == 0);
        let unended: Vec<_> = self.completed.iter().filter(open).collect();
        ensure!(unended.is_empty(), "{} completed without an outcome, first: {}", unended.len(), unended[0]);
        let never_ran = self.completed.iter().find(|statement| !ran.contains(*statement));
        ensure!(never_ran.is_none(), "a client has the result of a statement the target never logged: {never_ran:?}");
        self.joined += ran.len();
        self.all_completed += self.completed.len();
        (self.completed, self.first_round, self.since) = (BTreeSet::new(), self.next_round, None);
        Ok(())
    }

    /// That the rounds were worth something. How quick restarts were is told, not judged: the machine may be busy.
    fn summary(&mut self, durability: &str) -> Result<()> {
        self.restarts.sort();
        let median = self.restarts[self.restarts.len() / 2];
        println!(
            "        {durability}: {} statements ran, {} completed at clients, median restart {} ms",
            self.joined,
            self.all_completed,
            median.as_millis()
        );
        ensure!(self.all_completed > 100, "only {} statements completed: the load was no load", self.all_completed);
        ensure!(self.joined > self.all_completed, "no kill ever hit a running statement");
        Ok(())
    }
}
