//! What real clients and a real PostgreSQL 15 said to each other, recorded between them, passes unchanged.
//!
//! A recording is a sequence of `side:u8 (0 client, 1 target) length:u32le bytes`. The login is cut: it is ours to speak.

use crate::rig::*;
use lockgate_codecs::Side;

const RECORDINGS: [(&str, &[u8]); 8] = [
    ("psql", include_bytes!("transcripts/psql.rec")),
    ("pgbench-simple", include_bytes!("transcripts/pgbench-simple.rec")),
    ("pgbench-extended", include_bytes!("transcripts/pgbench-extended.rec")),
    ("pgbench-prepared", include_bytes!("transcripts/pgbench-prepared.rec")),
    ("pgbench-pipeline", include_bytes!("transcripts/pgbench-pipeline.rec")),
    ("psycopg", include_bytes!("transcripts/psycopg.rec")),
    ("asyncpg", include_bytes!("transcripts/asyncpg.rec")),
    ("recvlogical", include_bytes!("transcripts/recvlogical.rec")),
];

/// The recording's pieces behind the first ReadyForQuery.
pub fn statements(mut recording: &[u8]) -> Vec<(Side, Vec<u8>)> {
    let mut pieces = Vec::new();
    while let [side, a, b, c, d, rest @ ..] = recording {
        let (bytes, rest) = rest.split_at(u32::from_le_bytes([*a, *b, *c, *d]) as usize);
        pieces.push((if *side == 0 { Side::Client } else { Side::Target }, bytes.to_vec()));
        recording = rest;
    }
    let opened = pieces.iter().position(|(side, bytes)| *side == Side::Target && bytes.ends_with(b"Z\0\0\0\x05I"));
    pieces.split_off(opened.expect("the login ended") + 1)
}

pub fn recordings() -> impl Iterator<Item = (&'static str, Vec<(Side, Vec<u8>)>)> {
    RECORDINGS.iter().map(|(name, bytes)| (*name, statements(bytes)))
}

fn turns(pieces: &[(Side, Vec<u8>)]) -> Vec<Turn> {
    let turn = |(side, bytes): &(Side, Vec<u8>)| match side {
        Side::Client => Turn::Client(bytes.clone()),
        Side::Target => Turn::Target(bytes.clone()),
    };
    pieces.iter().map(turn).collect()
}

fn spoken(pieces: &[(Side, Vec<u8>)], by: Side) -> Vec<u8> {
    pieces.iter().filter(|(side, _)| *side == by).flat_map(|(_, bytes)| bytes.clone()).collect()
}

fn replication_opening() -> Vec<Turn> {
    let mut turns = opening();
    turns[0] = c(&[crate::wire::startup(0, &[("user", "ann"), ("database", "orders"), ("replication", "database")])]);
    turns
}

#[test]
fn real_sessions_pass_unchanged() {
    for (name, pieces) in recordings() {
        let manner = Manner { describe: false, ..Manner::default() };
        let opening = if name == "recvlogical" { replication_opening() } else { opening() };
        let before = check(&manner, &opening);
        let came = check(&manner, &[&opening[..], &turns(&pieces)].concat());
        assert_eq!(came.error, None, "{name}");
        assert!(came.closed, "{name}: Terminate ends it");
        assert!(came.abandoned.is_empty(), "{name}: {:?} had no last outcome", came.abandoned);
        assert!(
            came.to_target[before.to_target.len()..] == spoken(&pieces, Side::Client),
            "{name}: towards the target"
        );
        assert!(
            came.to_client[before.to_client.len()..] == spoken(&pieces, Side::Target),
            "{name}: towards the client"
        );
    }
}

#[test]
fn every_request_of_a_real_session_ends_exactly_once() {
    for (name, pieces) in recordings().filter(|(name, _)| *name != "recvlogical") {
        let came = check(&Manner { describe: false, ..Manner::default() }, &[&opening()[..], &turns(&pieces)].concat());
        let mut last: Vec<u64> = Vec::new();
        for line in came.outcomes().iter().filter(|line| !line.ends_with("more")) {
            last.push(line.split(' ').nth(1).expect("an id").parse().expect("a number"));
        }
        let runs = |line: &&str| line.starts_with("request") && !line.starts_with("request Parse");
        let requests = came.client_log.lines().filter(runs).count();
        assert_eq!(last.len(), requests, "{name}");
        last.dedup();
        assert_eq!(last.len(), requests, "{name}: an id ended twice");
    }
}
