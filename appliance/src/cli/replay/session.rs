//! One session out of the trail: found by its id or the beginning of it, with everything that happened in it.

use crate::audit::search::{Filter, Record, Trouble, search};
use crate::audit::{printable::escape, when};
use crate::cli::audit::readable;
use crate::config::Glob;
use anyhow::Result;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

/// How many sessions an error names.
const NAMED_MAX: usize = 5;
/// Room around a session's own records, for those of other shards' clocks. Microseconds.
const SLACK_US: i64 = 60_000_000;

/// What was recorded of one session, in time order.
#[derive(Debug, Default)]
pub struct Session {
    pub id: String,
    /// Absent where the trail begins later.
    pub opened: Option<Record>,
    /// A ruling on the session's own opening comes before it was opened.
    pub access: Vec<Record>,
    pub turns: Vec<Turn>,
    /// Absent while it lives, and where the gateway was killed.
    pub closed: Option<Record>,
}

/// One statement and the rulings on it.
#[derive(Debug)]
pub struct Turn {
    pub statement: Record,
    pub rulings: Vec<Record>,
}

/// What came of looking for it.
#[derive(Debug)]
pub enum Found {
    One(Box<Session>),
    /// None, or several: what to tell the user.
    No(String),
}

/// Everything that is read of the trail is read here.
fn read(data_dir: &Path, filter: &Filter, payloads: bool, damage: &mut dyn FnMut(Trouble)) -> Result<Vec<Record>> {
    readable(search(data_dir, filter, None, payloads, damage))
}

pub fn find(data_dir: &Path, id: &str, damage: &mut dyn FnMut(Trouble)) -> Result<Found> {
    let wanted = id.trim().to_ascii_lowercase();
    // Ids are hexadecimal: nothing in one can be a wildcard.
    let plausible = !wanted.is_empty() && wanted.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let Some(glob) = Some(format!("{wanted}*")).filter(|_| plausible).and_then(|glob| Glob::new(&glob).ok()) else {
        return unknown(data_dir, &wanted, damage).map(Found::No);
    };
    let filter = Filter { sessions: vec![glob], ..Filter::default() };
    let all = read(data_dir, &filter, false, damage)?;
    let mut ids: Vec<&str> = all.iter().map(|record| record.session.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    match ids[..] {
        [] => unknown(data_dir, &wanted, damage).map(Found::No),
        [only] => {
            let times = all.iter().map(|record| record.time_us);
            let (since, until) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
            let filter = Filter {
                sessions: Glob::new(only).into_iter().collect(),
                since_us: Some(since.saturating_sub(SLACK_US)),
                until_us: Some(until.saturating_add(SLACK_US)),
                ..Filter::default()
            };
            // What is damaged was told of above.
            let records = read(data_dir, &filter, true, &mut |_| {})?;
            Ok(Found::One(Box::new(Session::of(only.to_owned(), records))))
        }
        _ if ids.contains(&wanted.as_str()) => find_exact(data_dir, &wanted).map(Found::One),
        _ => {
            let several = format!("{} sessions begin with {wanted}", ids.len());
            Ok(Found::No(listed(&several, &all, &ids)))
        }
    }
}

/// The id is whole, and the beginning of others as well.
fn find_exact(data_dir: &Path, id: &str) -> Result<Box<Session>> {
    let filter = Filter { sessions: Glob::new(id).into_iter().collect(), ..Filter::default() };
    let records = read(data_dir, &filter, true, &mut |_| {})?;
    Ok(Box::new(Session::of(id.to_owned(), records)))
}

/// Names those that look most like it, or else the latest.
fn unknown(data_dir: &Path, wanted: &str, damage: &mut dyn FnMut(Trouble)) -> Result<String> {
    let filter = Filter { kinds: Glob::new("session").into_iter().collect(), ..Filter::default() };
    let all = read(data_dir, &filter, false, damage)?;
    let mut seen = HashSet::new();
    let latest_first = all.iter().rev().map(|record| record.session.as_str());
    let mut ids: Vec<&str> = latest_first.filter(|id| seen.insert(*id)).collect();
    let shared = |id: &&str| id.bytes().zip(wanted.bytes()).filter(|(a, b)| a == b).count();
    // Stable: among those that are equally near, the latest.
    ids.sort_by_key(|id| std::cmp::Reverse(shared(id)));
    let none = format!("there is no session {} in the trail", escape(wanted));
    if ids.is_empty() {
        return Ok(format!("{none}, nor any other"));
    }
    ids.truncate(NAMED_MAX);
    Ok(listed(&format!("{none}; near it"), &all, &ids))
}

fn listed(what: &str, records: &[Record], ids: &[&str]) -> String {
    let mut text = format!("{what}:");
    for id in ids.iter().take(NAMED_MAX) {
        let Some(first) = records.iter().find(|record| record.session == **id) else { continue };
        let (user, target) = (escape(&first.user), escape(&first.target));
        let _ = write!(text, "\n  {}  {}  {user} on {target}", escape(id), when::short(first.time_us));
    }
    if ids.len() > NAMED_MAX {
        let _ = write!(text, "\n  and {} more: give more of the id", ids.len() - NAMED_MAX);
    }
    text
}

impl Session {
    fn of(id: String, records: Vec<Record>) -> Self {
        let mut session = Self { id, ..Self::default() };
        for record in records {
            match record.kind {
                "statement" => session.turns.push(Turn { statement: record, rulings: Vec::new() }),
                "ruling" => session.rule(record),
                "session" if record.duration_us.is_some() => session.closed = Some(record),
                "session" => session.opened = Some(record),
                _ => {}
            }
        }
        session
    }

    fn rule(&mut self, ruling: Record) {
        let of = self.turns.iter_mut().rev().find(|turn| {
            turn.statement.decision.as_deref() == Some("approve") && turn.statement.ticket == ruling.ticket
        });
        match of {
            Some(turn) => turn.rulings.push(ruling),
            None => self.access.push(ruling),
        }
    }

    /// Any of its records, for who and where.
    pub fn anyone(&self) -> Option<&Record> {
        let first = self.opened.as_ref().or(self.access.first());
        first.or(self.turns.first().map(|turn| &turn.statement)).or(self.closed.as_ref())
    }

    /// The statement that `--from` names, counted from 0: a number from 1, a record's id, or the first at or behind a time.
    pub fn place(&self, from: &From) -> Option<usize> {
        match from {
            From::Number(number) => number.checked_sub(1).filter(|&place| place < self.turns.len()),
            From::Id(id) => self.turns.iter().position(|turn| turn.statement.id == *id),
            From::Time(time_us) => self.turns.iter().position(|turn| turn.statement.time_us >= *time_us),
        }
    }
}

/// Where a replay begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum From {
    Number(usize),
    Id(String),
    Time(i64),
}

impl From {
    /// `12` (the twelfth statement), `0-345` (its record), or a time as everywhere.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return if number == 0 { Err("statements are counted from 1".into()) } else { Ok(Self::Number(number)) };
        }
        let is_id = |(shard, sequence): (&str, &str)| shard.parse::<u32>().is_ok() && sequence.parse::<u64>().is_ok();
        if text.split_once('-').is_some_and(is_id) {
            return Ok(Self::Id(text.to_owned()));
        }
        when::parse_when(text, jiff::Timestamp::now()).map(Self::Time)
    }
}
