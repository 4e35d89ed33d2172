//! COPY in both directions, in both protocols, and what the server's ignored Sync does to the books.

use crate::rig::*;
use crate::wire::*;
use lockgate_codecs::Side;
use lockgate_codecs::postgres::ProtocolError;

/// PQsendQueryParams: Sync goes behind Execute before anybody knows that it is a COPY.
fn libpq(sql: &str) -> Turn {
    c(&[parse("", sql), bind("", "", &[], &[]), describe(b'P', ""), execute("", 0), sync()])
}

fn begun() -> Turn {
    t(&[done(b'1'), done(b'n'), done(b'2'), done(b'n'), copy_start(b'G', false)])
}

fn one(sql: &str, row_name: &str) -> [Turn; 2] {
    [c(&[query(sql)]), t(&[columns(&[row_name], 0), row(&[Some("v")]), complete("SELECT 1"), ready(b'I')])]
}

#[test]
fn copy_in_by_simple_query() {
    let came = settled(&[
        c(&[query("copy t from stdin")]),
        t(&[copy_start(b'G', false)]),
        c(&[copy_data("1\n"), copy_data("22\n"), flush(), sync(), copy_done()]),
        t(&[complete("COPY 2"), ready(b'I')]),
    ]);
    assert_eq!(came.outcomes(), ["outcome 1 complete 2 2/5"]);
    assert_eq!(came.target_said(), "Q(copy t from stdin) d(1\n) d(22\n) H S c");
}

#[test]
fn two_copies_in_one_query_sent_blindly() {
    let came = settled(&[
        c(&[query("copy a; copy b"), copy_data("1"), copy_done(), copy_data("2"), copy_done()]),
        t(&[copy_start(b'G', false), complete("COPY 1"), copy_start(b'G', false), complete("COPY 1"), ready(b'I')]),
    ]);
    assert_eq!(came.outcomes(), ["outcome 1 complete 1 2/2 more", "outcome 1 complete 1 0/0"]);
}

#[test]
fn copy_in_by_libpq_ignores_the_first_sync() {
    let mut turns = vec![
        libpq("copy t from stdin"),
        begun(),
        c(&[copy_data("1\n"), copy_done(), sync()]),
        t(&[complete("COPY 1"), ready(b'I')]),
    ];
    turns.extend(one("select mask", "mask"));
    let came = settled(&turns);
    assert!(came.client_said().ends_with("T D[***] C(SELECT 1) ZI"));
    assert_eq!(came.outcomes(), ["outcome 2 complete 1 1/2", "outcome 3 complete 1 1/7"]);
}

#[test]
fn copy_in_that_fails_leaves_the_books_straight_whichever_sync_counted() {
    for readies in [1, 2] {
        let mut turns = vec![
            libpq("copy t from stdin"),
            begun(),
            c(&[copy_data("bad\n")]),
            t(&[error("22P02", "bad")]),
            c(&[copy_data("dropped"), copy_done(), sync()]),
        ];
        turns.extend((0..readies).map(|_| t(&[ready(b'I')])));
        turns.extend(one("select mask", "mask"));
        let came = settled(&turns);
        assert!(came.client_said().ends_with("T D[***] C(SELECT 1) ZI"), "{readies}: {}", came.client_said());
        assert_eq!(came.outcomes(), ["outcome 2 error 22P02 1/4", "outcome 3 complete 1 1/7"], "{readies}");
    }
}

#[test]
fn copy_fail_by_libpq() {
    let mut turns = vec![
        libpq("copy t from stdin"),
        begun(),
        c(&[copy_fail("no more"), sync()]),
        t(&[error("57014", "COPY from stdin failed"), ready(b'I')]),
    ];
    turns.extend(one("select mask", "mask"));
    assert!(settled(&turns).client_said().ends_with("T D[***] C(SELECT 1) ZI"));
}

#[test]
fn an_extended_statement_behind_a_failed_copy_is_never_taken_for_another() {
    // Whether the target skips this or runs it depends on which Sync it counted: the connection closes.
    let came = check_open(
        &Manner::default(),
        &[libpq("copy t from stdin"), begun(), t(&[error("P0001", "trigger")]), c(&[parse("", "x")])],
    );
    assert_eq!(came.error, Some(ProtocolError::PipelinedBehindCopy));
    // Once ReadyForQuery is there it is certain.
    let came = check_open(
        &Manner::default(),
        &[libpq("copy t from stdin"), begun(), t(&[error("P0001", "trigger"), ready(b'I')]), c(&[query("x")])],
    );
    assert_eq!(came.error, None);
    assert!(came.target_said().ends_with("Q(x)"));
}

#[test]
fn statements_pipelined_behind_a_copy_close_the_connection() {
    let pipelined = c(&[parse("", "x"), bind("", "", &[], &[]), execute("", 0), sync(), query("next")]);
    let came = check_open(
        &Manner { describe: false, ..Manner::default() },
        &[pipelined, t(&[done(b'1'), done(b'2'), copy_start(b'G', false)])],
    );
    assert_eq!(came.error, Some(ProtocolError::PipelinedBehindCopy));
    // What became of the COPY is told before the connection ends; what was behind it is nobody's to tell.
    assert_eq!(came.outcomes(), ["outcome 2 error 08P01 0/0"]);
    assert_eq!(came.abandoned, [3]);
}

#[test]
fn a_statement_inside_copy_data_fails_the_copy_and_ends_the_connection_as_the_server_does() {
    // PostgreSQL 15: ERROR 08P01 "unexpected message type 0x51 during COPY from stdin", then FATAL, for each of these.
    let statements = [
        query("next"),
        parse("", "next"),
        bind("", "", &[], &[]),
        describe(b'S', ""),
        execute("", 0),
        close(b'S', ""),
        message(b'F', &[0; 12]),
    ];
    for statement in statements {
        let kind = statement[0];
        let turns = [
            c(&[query("copy")]),
            t(&[copy_start(b'G', false)]),
            c(&[copy_data("1\n"), flush(), sync(), statement, copy_done()]),
        ];
        let came = check_open(&Manner::default(), &turns);
        assert_eq!(came.error, Some(ProtocolError::StatementDuringCopy { kind }));
        assert_eq!(came.error.map(ProtocolError::side), Some(Side::Client));
        assert_eq!(came.target_said(), "Q(copy) d(1\n) H S", "the copy is not ended: it must not be kept");
        assert_eq!(came.outcomes(), ["outcome 1 error 08P01 1/2"]);
        assert!(came.abandoned.is_empty());
        assert!(!came.client_log.contains("next"), "it is not decided either");
    }
}

#[test]
fn a_statement_held_while_the_one_before_turns_out_to_be_copy_fails_the_copy() {
    for release in [true, false] {
        let turns = [c(&[query("copy"), query("HOLD")]), t(&[copy_start(b'G', false)]), Turn::Release(release)];
        let came = check_open(&Manner::default(), &turns);
        assert_eq!(came.error, Some(ProtocolError::StatementDuringCopy { kind: b'Q' }));
        assert_eq!(came.target_said(), "Q(copy)");
        assert_eq!(came.outcomes(), ["outcome 1 error 08P01 0/0"]);
    }
}

#[test]
fn a_statement_behind_the_end_of_the_data_is_decided_as_ever() {
    let came = settled(&[
        c(&[query("copy")]),
        t(&[copy_start(b'G', false)]),
        c(&[copy_data("1\n"), copy_done(), query("next"), query("DENY")]),
        t(&[complete("COPY 1"), ready(b'I'), complete("NEXT"), ready(b'I'), error("42601", "x"), ready(b'I')]),
    ]);
    assert_eq!(came.target_said(), "Q(copy) d(1\n) c Q(next) Q() lockgate refused a statement)");
    assert_eq!(came.client_said(), "G C(COPY 1) ZI C(NEXT) ZI E(ERROR 42501 denied) ZI");
    assert_eq!(came.outcomes(), ["outcome 1 complete 1 1/2", "outcome 2 complete 0/0"]);
    // The copy fails: the server drops the rest of its data, then goes on with what is behind.
    let mut turns =
        vec![libpq("copy t from stdin"), begun(), c(&[copy_data("bad"), copy_done(), sync(), query("select mask")])];
    turns.extend([t(&[error("22P02", "bad"), ready(b'I')])]);
    turns.extend([t(&[columns(&["mask"], 0), row(&[Some("v")]), complete("SELECT 1"), ready(b'I')])]);
    let came = settled(&turns);
    assert!(came.client_said().ends_with("E(ERROR 22P02 bad) ZI T D[***] C(SELECT 1) ZI"), "{}", came.client_said());
    let blind = settled(&[
        c(&[query("copy"), copy_data("1\n"), copy_done(), query("next")]),
        t(&[copy_start(b'G', false), complete("COPY 1"), ready(b'I'), complete("NEXT"), ready(b'I')]),
    ]);
    assert_eq!(blind.client_said(), "G C(COPY 1) ZI C(NEXT) ZI");
}

#[test]
fn copy_messages_nobody_reads_are_dropped_by_the_target_and_by_the_books() {
    let mut turns = vec![c(&[copy_data("stray"), copy_done(), copy_fail("stray")])];
    turns.extend(one("select mask", "mask"));
    let came = settled(&turns);
    assert_eq!(came.outcomes(), ["outcome 1 complete 1 1/7"]);
}

#[test]
fn copy_out_passes_unwatched_and_is_shown_when_watched() {
    let reply =
        [copy_start(b'H', false), copy_data("a\t4111\n"), copy_data("b"), done(b'c'), complete("COPY 2"), ready(b'I')];
    let came = settled(&[c(&[query("copy t to stdout")]), t(&reply)]);
    assert_eq!(came.to_client, reply.concat());
    assert_eq!(
        came.target_log,
        "shape CopyOut { binary: false }  of copy t to stdout\noutcome 1 complete 2 2/8\nready Idle\n"
    );
    let came = settled(&[c(&[query("copy MASK to stdout")]), t(&reply)]);
    assert_eq!(came.client_said(), "H d(***) d(***) c C(COPY 2) ZI");
    assert!(came.target_log.contains("value Copy { code: 109, binary: false } b\n"));
}

#[test]
fn copy_out_by_libpq_and_in_binary() {
    let reply = [
        done(b'1'),
        done(b'n'),
        done(b'2'),
        done(b'n'),
        copy_start(b'H', true),
        copy_data("PG"),
        done(b'c'),
        complete("COPY 0"),
        ready(b'I'),
    ];
    let came = settled(&[libpq("copy t to stdout"), t(&reply)]);
    assert!(came.target_log.contains("shape CopyOut { binary: true }"));
    assert_eq!(came.outcomes(), ["outcome 2 complete 0 1/2"]);
}

#[test]
fn copy_data_larger_than_any_limit_streams() {
    let big = copy_data(&"x".repeat(3 << 20));
    let mut rig = Rig::new(Manner::default());
    let turns = [
        c(&[query("copy")]),
        t(&[copy_start(b'G', false)]),
        c(&[big, copy_done()]),
        t(&[complete("COPY 1"), ready(b'I')]),
    ];
    for turn in opening().iter().chain(&turns) {
        rig.take(turn, &mut |len| len.min(16_384));
    }
    assert_eq!(rig.came.error, None);
    assert!(rig.session.is_idle());
}

#[test]
fn copy_both_is_for_replication_only() {
    let came = check_open(&Manner::default(), &[c(&[query("START_REPLICATION")]), t(&[copy_start(b'W', false)])]);
    assert_eq!(came.error, Some(ProtocolError::CopyBothOutsideReplication));
    let mut turns = opening();
    turns[0] = c(&[startup(0, &[("user", "ann"), ("replication", "true")])]);
    turns.extend([
        c(&[query("START_REPLICATION")]),
        t(&[copy_start(b'W', false), copy_data("wal")]),
        c(&[copy_data("status"), copy_done()]),
        t(&[copy_data("more"), done(b'c'), complete("COPY 0"), complete("START_STREAMING"), ready(b'I')]),
        c(&[query("IDENTIFY_SYSTEM")]),
        t(&[complete("X"), ready(b'I')]),
    ]);
    let came = check(&Manner::default(), &turns);
    assert_eq!((came.error, came.idle), (None, true));
}

#[test]
fn a_copy_that_ends_without_its_data_ending_is_an_error() {
    let came = check_open(
        &Manner::default(),
        &[c(&[query("copy")]), t(&[copy_start(b'G', false), complete("COPY 0"), ready(b'I')])],
    );
    assert_eq!(came.error, Some(ProtocolError::UnexpectedMessage { side: Side::Target, kind: b'C' }));
}
