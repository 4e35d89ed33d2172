//! Refusals take their place in the order of replies, and abort a transaction that may be open.

use crate::rig::*;
use crate::wire::*;
use lockgate_codecs::postgres::ProtocolError;

fn step(sql: &str) -> Vec<u8> {
    all(&[parse("", sql), bind("", "", &[], &[]), execute("", 0)])
}

fn plain() -> Manner {
    Manner { describe: false, ..Manner::default() }
}

fn ok(tag: &str) -> Turn {
    t(&[complete(tag), ready(b'I')])
}

#[test]
fn a_refused_query_outside_a_transaction_never_reaches_the_target() {
    let came = settled(&[c(&[query("DENY"), query("next")]), ok("NEXT")]);
    assert_eq!(came.target_said(), "Q(next)");
    assert_eq!(came.client_said(), "E(ERROR 42501 denied) ZI C(NEXT) ZI");
    assert_eq!(came.outcomes(), ["outcome 1 complete 0/0"]);
}

#[test]
fn a_refused_query_in_a_transaction_aborts_it() {
    let came = check_open(
        &plain(),
        &[
            c(&[query("begin")]),
            t(&[complete("BEGIN"), ready(b'T')]),
            c(&[query("DENY")]),
            t(&[error("42601", "syntax error at or near \")\""), ready(b'E')]),
            c(&[query("commit")]),
            t(&[complete("ROLLBACK"), ready(b'I')]),
        ],
    );
    assert_eq!(came.target_said(), "Q(begin) Q() lockgate refused a statement) Q(commit)");
    assert_eq!(came.client_said(), "C(BEGIN) ZT E(ERROR 42501 denied) ZE C(ROLLBACK) ZI");
    assert!(came.idle);
}

#[test]
fn a_refused_query_behind_one_whose_end_is_not_known_aborts_too() {
    let came = check_open(
        &plain(),
        &[c(&[query("begin"), query("DENY")]), t(&[complete("BEGIN"), ready(b'T'), error("26000", "x"), ready(b'E')])],
    );
    assert_eq!(came.target_said(), "Q(begin) Q() lockgate refused a statement)");
    assert_eq!(came.client_said(), "C(BEGIN) ZT E(ERROR 42501 denied) ZE");
}

#[test]
fn refused_query_in_a_pipeline_waits_its_turn() {
    let came = settled(&[
        c(&[parse("s", "x"), sync(), query("DENY"), query("next")]),
        t(&[done(b'1'), parameters(), done(b'n')]),
        // What follows may use the name, and goes when the name counts.
        t(&[ready(b'I')]),
        t(&[complete("NEXT"), ready(b'I')]),
    ]);
    assert_eq!(came.client_said(), "1 ZI E(ERROR 42501 denied) ZI C(NEXT) ZI");
}

#[test]
fn a_refused_parse_skips_to_sync() {
    let came = settled(&[c(&[step("DENY"), sync(), query("next")]), t(&[ready(b'I'), complete("NEXT"), ready(b'I')])]);
    assert_eq!(came.target_said(), "S Q(next)");
    assert_eq!(came.client_said(), "E(ERROR 42501 denied) ZI C(NEXT) ZI");
    assert_eq!(came.client_log, "request Parse DENY\nrequest Query next\n");
}

#[test]
fn a_refused_execute_waits_for_the_replies_before_it_which_are_flushed() {
    let came = check_open(
        &plain(),
        &[c(&[step("DENYRUN"), flush()]), t(&[done(b'1'), done(b'2')]), c(&[sync()]), t(&[ready(b'I')])],
    );
    assert_eq!(came.error, None);
    assert!(came.target_said().ends_with("H S"), "{}", came.target_said());
    assert!(!came.target_said().contains("E("));
    assert_eq!(came.client_said(), "1 2 E(ERROR 42501 denied) ZI");
    assert!(came.outcomes().is_empty() && came.idle);
}

#[test]
fn a_refusal_behind_an_execute_aborts_the_implicit_transaction() {
    let came = check_open(
        &plain(),
        &[
            c(&[step("insert"), step("DENYRUN"), step("never"), sync()]),
            t(&[
                done(b'1'),
                done(b'2'),
                complete("INSERT 0 1"),
                done(b'1'),
                done(b'2'),
                error("26000", "x"),
                ready(b'I'),
            ]),
        ],
    );
    assert_eq!(came.error, None);
    assert!(came.target_said().ends_with("D(Slockgate_refused) S"), "{}", came.target_said());
    assert_eq!(came.client_said(), "1 2 C(INSERT 0 1) 1 2 E(ERROR 42501 denied) ZI");
    assert!(!came.client_log.contains("never"));
    assert!(came.idle);
}

#[test]
fn an_error_before_a_refusal_takes_its_place() {
    let came = check_open(
        &plain(),
        &[
            c(&[step("fails"), parse("", "DENY"), sync()]),
            t(&[done(b'1'), done(b'2'), error("22012", "zero"), ready(b'I')]),
        ],
    );
    assert_eq!(came.client_said(), "1 2 E(ERROR 22012 zero) ZI", "the target skipped our message as well");
    assert!(came.idle);
}

#[test]
fn a_refusal_the_target_does_not_enforce_closes_the_connection() {
    let came = check_open(
        &plain(),
        &[c(&[query("begin"), parse("", "DENY")]), t(&[complete("BEGIN"), ready(b'T'), parameters(), done(b'n')])],
    );
    assert_eq!(came.error, Some(ProtocolError::RefusalNotEnforced));
    assert!(!came.client_said().contains("t"));
}

#[test]
fn a_query_refused_inside_a_pipeline_ends_it_as_a_failing_one_would() {
    // What PostgreSQL 15 answers to Parse, Bind, Execute, Query('select 1/0') and, later, Sync: 1 2 C E Z(I) .. Z(I).
    let came = check_open(
        &plain(),
        &[
            c(&[step("insert"), query("DENY"), step("next")]),
            t(&[done(b'1'), done(b'2'), complete("INSERT 0 1"), error("42601", "x"), ready(b'I')]),
            t(&[done(b'1'), done(b'2'), complete("NEXT 1")]),
            c(&[sync()]),
            t(&[ready(b'I')]),
        ],
    );
    assert_eq!((came.error, came.idle), (None, true));
    assert!(came.target_said().contains("E() Q() lockgate refused a statement) P("), "{}", came.target_said());
    assert_eq!(came.client_said(), "1 2 C(INSERT 0 1) E(ERROR 42501 denied) ZI 1 2 C(NEXT 1) ZI");
    assert_eq!(came.outcomes(), ["outcome 2 complete 1 0/0", "outcome 4 complete 1 0/0"]);
}

#[test]
fn a_query_refused_behind_only_a_parse_still_waits_for_what_may_fail() {
    let came = check_open(
        &plain(),
        &[
            c(&[parse("s", "bad"), query("DENY"), query("skipped")]),
            t(&[error("42601", "syntax")]),
            c(&[sync()]),
            t(&[ready(b'I')]),
        ],
    );
    assert_eq!((came.error, came.idle), (None, true));
    assert_eq!(came.client_said(), "E(ERROR 42601 syntax) ZI", "the server skips a Query behind an error, to Sync");
    assert!(came.outcomes().is_empty(), "it was never asked about");
}

#[test]
fn a_query_refused_in_a_pipeline_inside_a_transaction_leaves_it_failed() {
    let came = check_open(
        &plain(),
        &[
            c(&[step("begin"), step("insert"), query("DENY"), query("commit")]),
            t(&[done(b'1'), done(b'2'), complete("BEGIN"), done(b'1'), done(b'2'), complete("INSERT 0 1")]),
            t(&[error("42601", "x"), ready(b'E'), complete("ROLLBACK"), ready(b'I')]),
        ],
    );
    assert_eq!((came.error, came.idle), (None, true));
    assert!(came.client_said().ends_with("E(ERROR 42501 denied) ZE C(ROLLBACK) ZI"), "{}", came.client_said());
}

#[test]
fn a_query_held_inside_a_pipeline_is_refused_in_order() {
    let came = check_open(
        &plain(),
        &[
            c(&[step("insert"), query("HOLD"), sync()]),
            Turn::Release(false),
            t(&[done(b'1'), done(b'2'), complete("INSERT 0 1"), error("42601", "x"), ready(b'I'), ready(b'I')]),
        ],
    );
    assert_eq!((came.error, came.idle), (None, true));
    assert_eq!(came.client_said(), "1 2 C(INSERT 0 1) E(ERROR 42501 denied) ZI ZI");
}

#[test]
fn the_query_in_a_refused_ones_place_must_fail() {
    for reply in [complete("SELECT 1"), ready(b'I'), columns(&["x"], 0), done(b'I')] {
        let came = check_open(
            &plain(),
            &[c(&[query("begin"), query("DENY")]), t(&[complete("BEGIN"), ready(b'T'), reply, ready(b'T')])],
        );
        assert!(came.error.is_some());
        assert_eq!(came.client_said(), "C(BEGIN) ZT");
    }
}

#[test]
fn a_refused_query_drops_the_unnamed_statement_unless_it_is_skipped() {
    let bound = || c(&[bind("", "", &[], &[]), execute("", 0), sync()]);
    let came = check_open(
        &plain(),
        &[c(&[parse("", "one"), query("DENY")]), t(&[done(b'1'), error("42601", "x"), ready(b'I')]), bound()],
    );
    assert!(came.client_log.ends_with("Execute { resumed: false } ?\n"), "{}", came.client_log);
    let came = check_open(
        &plain(),
        &[
            c(&[parse("", "one"), sync(), bind("", "ghost", &[], &[]), query("DENY"), sync()]),
            t(&[done(b'1'), ready(b'I')]),
            t(&[error("26000", "no ghost"), ready(b'I')]),
            bound(),
        ],
    );
    assert!(came.client_log.ends_with("Execute { resumed: false } one\n"), "{}", came.client_log);
}

#[test]
fn a_refused_function_call_is_answered_like_a_query() {
    let mut rig_turns = vec![c(&[query("HOLD")]), Turn::Release(false)];
    rig_turns.extend([c(&[query("next")]), ok("NEXT")]);
    let came = settled(&rig_turns);
    assert_eq!(came.client_said(), "E(ERROR 42501 denied) ZI C(NEXT) ZI");
}

#[test]
fn a_held_execute_is_released_or_refused_in_order() {
    let before = [c(&[step("HOLD"), sync(), query("after")]), t(&[done(b'1'), done(b'2')])];
    let forwarded = check_open(
        &plain(),
        &[&before[..], &[Turn::Release(true), t(&[complete("HELD 1"), ready(b'I'), complete("A"), ready(b'I')])]]
            .concat(),
    );
    assert_eq!(forwarded.client_said(), "1 2 C(HELD 1) ZI C(A) ZI");
    let refused = check_open(
        &plain(),
        &[&before[..], &[Turn::Release(false), t(&[ready(b'I'), complete("A"), ready(b'I')])]].concat(),
    );
    assert_eq!(refused.client_said(), "1 2 E(ERROR 42501 denied) ZI C(A) ZI");
    assert!(forwarded.idle && refused.idle);
}

#[test]
fn a_refusal_after_everything_is_settled_is_local_again() {
    let came = check_open(
        &plain(),
        &[
            c(&[step("insert"), sync()]),
            t(&[done(b'1'), done(b'2'), complete("INSERT 0 1"), ready(b'I')]),
            c(&[query("DENY")]),
        ],
    );
    assert!(!came.target_said().contains("lockgate"));
    assert!(came.client_said().ends_with("E(ERROR 42501 denied) ZI"));
}
