//! The simple protocol, and what holds for every statement: errors, notices, limits, holding.

use crate::rig::*;
use crate::wire::*;
use lockgate_codecs::Side;
use lockgate_codecs::postgres::ProtocolError;

#[test]
fn a_query_and_its_rows_pass_and_end_once() {
    let reply = [columns(&["a"], 0), row(&[Some("1")]), row(&[None]), complete("SELECT 2"), ready(b'I')];
    let came = settled(&[c(&[query("select a")]), t(&reply)]);
    assert_eq!(came.to_target, query("select a"));
    assert_eq!(came.to_client, reply.concat());
    assert_eq!(came.client_log, "request Query select a\n");
    assert_eq!(came.target_log, "shape Rows a of select a\noutcome 1 complete 2 2/13\nready Idle\n");
}

#[test]
fn statements_of_one_query_end_one_by_one_and_the_last_is_marked() {
    let reply = [complete("INSERT 0 5"), columns(&["a"], 0), complete("SELECT 0"), complete("BEGIN"), ready(b'T')];
    let came = check_open(&Manner::default(), &[c(&[query("three")]), t(&reply)]);
    assert_eq!(
        came.outcomes(),
        ["outcome 1 complete 5 0/0 more", "outcome 1 complete 0 0/0 more", "outcome 1 complete 0/0"]
    );
    assert!(!came.idle, "a transaction is open");
}

#[test]
fn settings_and_notifications_between_the_end_and_ready_do_not_hide_the_last_outcome() {
    let reply = [complete("SET"), setting("TimeZone", "UTC"), notification("ch", "x"), notice("n"), ready(b'I')];
    let came = settled(&[c(&[query("set")]), t(&reply)]);
    assert_eq!(came.outcomes(), ["outcome 1 complete 0/0"]);
    assert!(came.target_log.contains("setting TimeZone=UTC"));
    assert_eq!(came.to_client, reply.concat());
}

#[test]
fn where_ready_is_too_far_to_see_the_last_outcome_comes_with_it() {
    let far = notice(&"x".repeat(20_000));
    let came = settled(&[c(&[query("noisy")]), t(&[complete("DO"), far, ready(b'I')])]);
    assert_eq!(came.outcomes(), ["outcome 1 complete 0/0 more", "outcome 1 complete 0/0"]);
}

#[test]
fn empty_queries_and_errors_end_a_query() {
    let came = settled(&[c(&[query("")]), t(&[done(b'I'), ready(b'I')])]);
    assert_eq!(came.outcomes(), ["outcome 1 empty 0/0"]);
    let came = settled(&[c(&[query("x")]), t(&[complete("INSERT 0 1"), error("22012", "no"), ready(b'I')])]);
    assert_eq!(came.outcomes(), ["outcome 1 complete 1 0/0 more", "outcome 1 error 22012 0/0"]);
}

#[test]
fn an_error_larger_than_any_buffer_streams() {
    let huge = error_with("22012", &[(b'M', "m"), (b'D', &"d".repeat(300_000))]);
    let came = settled(&[c(&[query("x")]), t(&[huge.clone(), ready(b'I')])]);
    assert_eq!(came.outcomes(), ["outcome 1 error 22012 0/0"]);
    assert_eq!(came.to_client, [huge, ready(b'I')].concat());
}

#[test]
fn function_calls_are_asked_about_with_their_function() {
    let call = message(b'F', &[0, 0, 1, 2, 0, 0, 0, 0, 0, 0]);
    let came = settled(&[c(&[call]), t(&[message(b'V', &[255; 4]), ready(b'I')])]);
    assert!(came.client_log.contains("FunctionCall { function: 258 }"));
    assert_eq!(came.outcomes(), ["outcome 1 complete 1/4"]);
}

#[test]
fn a_held_query_waits_with_everything_behind_it_while_the_target_speaks() {
    let before = [c(&[query("HOLD"), query("after")]), t(&[notice("still here"), setting("a", "b")])];
    let came = check_open(&Manner::default(), &before);
    assert_eq!((came.target_said().as_str(), came.client_said().as_str()), ("", "N(NOTICE 00000 still here) S"));
    let after = |release| {
        let reply = t(&[complete("SELECT 0"), ready(b'I')]);
        let replies = if release { vec![reply.clone(), reply] } else { vec![reply] };
        settled(&[&before[..], &[Turn::Release(release)], &replies].concat())
    };
    assert_eq!(after(true).target_said(), "Q(HOLD) Q(after)");
    let refused = after(false);
    assert_eq!(refused.target_said(), "Q(after)");
    assert_eq!(refused.client_said(), "N(NOTICE 00000 still here) S E(ERROR 42501 denied) ZI C(SELECT 0) ZI");
}

#[test]
fn our_notice_goes_between_messages_never_inside_one() {
    let long = row(&[Some(&"v".repeat(3000))]);
    let (head, tail) = long.split_at(1000);
    let turns = [
        c(&[query("select a")]),
        t(&[columns(&["a"], 0), head.to_vec()]),
        Turn::Notice,
        t(&[tail.to_vec(), complete("SELECT 1"), ready(b'I')]),
        Turn::Notice,
    ];
    let came = check_open(&Manner { describe: false, ..Manner::default() }, &turns);
    let said = came.client_said().replace(&"v".repeat(3000), "v");
    assert_eq!(said, "T D[v] N(NOTICE 42501 wait) C(SELECT 1) ZI N(NOTICE 42501 wait)");
}

#[test]
fn our_fatal_error_goes_behind_the_message_under_way_and_ends_everything() {
    let long = row(&[Some(&"v".repeat(3000))]);
    let (head, tail) = long.split_at(1000);
    let turns = [
        c(&[query("select a")]),
        t(&[columns(&["a"], 0), head.to_vec()]),
        Turn::Fail,
        t(&[tail.to_vec(), complete("SELECT 1"), ready(b'I')]),
        c(&[query("more")]),
    ];
    let came = check_open(&Manner::default(), &turns);
    let said = came.client_said().replace(&"v".repeat(3000), "v");
    assert_eq!(said, "T D[v] E(FATAL 42501 over)");
    assert!(came.closed);
    assert_eq!(came.target_said(), "Q(select a)");
    assert_eq!(came.abandoned, [1]);
}

#[test]
fn lengths_below_four_and_absurd_ones_close_the_connection() {
    let open = |turn: Turn| check_open(&Manner::default(), &[turn]).error;
    for length in [0u32, 3] {
        let bytes = |kind: u8| [&[kind][..], &length.to_be_bytes()].concat();
        let error = |side, kind| Some(ProtocolError::LengthTooSmall { side, kind });
        assert_eq!(open(Turn::Client(bytes(b'Q'))), error(Side::Client, b'Q'));
        assert_eq!(open(Turn::Target(bytes(b'D'))), error(Side::Target, b'D'));
    }
    for length in [0x4000_0000u32, 0xffff_fffb, u32::MAX] {
        let bytes = |kind: u8| [&[kind][..], &length.to_be_bytes()].concat();
        let error = |side, kind| Some(ProtocolError::LengthAbsurd { side, kind, length });
        assert_eq!(open(Turn::Client(bytes(b'd'))), error(Side::Client, b'd'));
        assert_eq!(open(Turn::Target(bytes(b'd'))), error(Side::Target, b'd'));
    }
}

#[test]
fn a_request_over_the_limit_is_an_error_before_it_has_arrived() {
    for kind in *b"QPBF" {
        let head = [&[kind][..], &(2u32 << 20).to_be_bytes()].concat();
        let came = check_open(&Manner::default(), &[Turn::Client(head)]);
        assert_eq!(came.error, Some(ProtocolError::TooLarge { side: Side::Client, kind, length: (2 << 20) + 1 }));
        assert_eq!(came.to_target, b"");
    }
}

#[test]
fn text_behind_the_nul_is_malformed() {
    let sneaky = message(b'Q', b"select 1\0drop table x\0");
    let came = check_open(&Manner::default(), &[c(&[sneaky])]);
    assert_eq!(came.error, Some(ProtocolError::Malformed { side: Side::Client, kind: b'Q' }));
    let came = check_open(&Manner::default(), &[c(&[message(b'Q', b"no nul")])]);
    assert_eq!(came.error, Some(ProtocolError::Malformed { side: Side::Client, kind: b'Q' }));
}

#[test]
fn unknown_and_misplaced_messages_are_told_apart() {
    let client = |kind| check_open(&Manner::default(), &[c(&[message(kind, b"")])]).error;
    assert_eq!(client(b'!'), Some(ProtocolError::UnknownMessage { side: Side::Client, kind: b'!' }));
    assert_eq!(client(b'p'), Some(ProtocolError::UnexpectedMessage { side: Side::Client, kind: b'p' }));
    let target = |bytes: Vec<u8>| check_open(&Manner::default(), &[t(&[bytes])]).error;
    assert_eq!(target(message(b'!', b"")), Some(ProtocolError::UnknownMessage { side: Side::Target, kind: b'!' }));
    for unasked in [
        ready(b'I'),
        row(&[None]),
        complete("X"),
        columns(&["a"], 0),
        done(b'1'),
        copy_data("x"),
        copy_start(b'G', false),
        authentication(0, b""),
    ] {
        let kind = unasked[0];
        let error = target(unasked).expect("nobody asked");
        assert!(
            matches!(error, ProtocolError::UnexpectedMessage { side: Side::Target, kind: k } | ProtocolError::UnknownMessage { side: Side::Target, kind: k } if k == kind)
        );
    }
}

#[test]
fn terminate_passes_and_ends_the_session_once_replies_are_in() {
    let came = check_open(&Manner::default(), &[c(&[terminate()])]);
    assert!(came.closed);
    assert_eq!(came.to_target, terminate());
    let early = check_open(&Manner::default(), &[c(&[query("x"), terminate()])]);
    assert!(!early.closed);
    assert_eq!(early.target_said(), "Q(x) X");
    let late = check_open(&Manner::default(), &[c(&[query("x"), terminate()]), t(&[complete("X"), ready(b'I')])]);
    assert!(late.closed);
}

#[test]
fn a_fatal_error_of_an_idle_target_passes() {
    let came = check_open(&Manner::default(), &[t(&[error("57P01", "terminating")])]);
    assert_eq!(came.client_said(), "E(ERROR 57P01 terminating)");
}

#[test]
fn requests_of_a_lost_connection_are_named() {
    let turns = [
        c(&[query("one"), query("two"), parse("", "three"), bind("", "", &[], &[]), execute("", 0)]),
        t(&[complete("ONE"), ready(b'I')]),
    ];
    let came = check_open(&Manner::default(), &turns);
    // 3 was the Parse, which has no outcome.
    assert_eq!(came.abandoned, [2, 4]);
}
