//! Watched cells, payloads and texts.

use crate::rig::*;
use crate::wire::*;
use lockgate_codecs::Side;
use lockgate_codecs::postgres::ProtocolError;

#[test]
fn watched_cells_are_shown_and_replaced_in_order() {
    let shape = columns(&["id", "mask", "over", "null", "keep"], 0);
    let one = row(&[Some("1"), Some("4111"), Some("abc"), Some("n"), Some("k")]);
    let nulls = row(&[Some("2"), None, None, None, None]);
    let only_over = row(&[None, None, Some("zz"), None, None]);
    let reply = [shape.clone(), one, nulls.clone(), only_over, complete("SELECT 3"), ready(b'I')];
    let came = settled(&[c(&[query("q")]), t(&reply)]);
    assert_eq!(came.client_said(), "T D[1,***,xxx,-,k] D[2,-,-,-,-] D[-,-,xx,-,-] C(SELECT 3) ZI");
    let first = "value Cell { code: 109, column: 1, type_oid: 25, binary: false } 4111\n";
    assert!(came.target_log.contains(first), "{}", came.target_log);
    assert_eq!(came.target_log.matches("value").count(), 5, "NULLs are not shown");
    assert_eq!(came.outcomes(), ["outcome 1 complete 3 3/79"]);
}

#[test]
fn empty_values_are_values() {
    let came =
        settled(&[c(&[query("q")]), t(&[columns(&["mask"], 0), row(&[Some("")]), complete("SELECT 1"), ready(b'I')])]);
    assert_eq!(came.client_said(), "T D[***] C(SELECT 1) ZI");
}

#[test]
fn a_plan_ends_with_its_statement() {
    let reply = [
        columns(&["mask"], 0),
        row(&[Some("a")]),
        complete("SELECT 1"),
        columns(&["id"], 0),
        row(&[Some("b")]),
        complete("SELECT 1"),
        ready(b'I'),
    ];
    let came = settled(&[c(&[query("two")]), t(&reply)]);
    assert_eq!(came.client_said(), "T D[***] C(SELECT 1) T D[b] C(SELECT 1) ZI");
}

#[test]
fn an_unwatched_row_larger_than_any_buffer_streams_and_a_watched_one_has_a_limit() {
    let big = row(&[Some(&"v".repeat(2 << 20))]);
    let reply = |name: &str| t(&[columns(&[name], 0), big.clone(), complete("SELECT 1"), ready(b'I')]);
    let mut rig = Rig::new(Manner::default());
    for turn in opening().iter().chain(&[c(&[query("q")]), reply("id")]) {
        rig.take(turn, &mut |len| len.min(8192));
    }
    assert_eq!(rig.came.error, None);
    assert!(rig.session.is_idle());
    let mut rig = Rig::new(Manner::default());
    for turn in opening().iter().chain(&[c(&[query("q")]), reply("mask")]) {
        rig.take(turn, &mut |len| len.min(8192));
    }
    let length = big.len();
    assert_eq!(rig.came.error, Some(ProtocolError::TooLarge { side: Side::Target, kind: b'D', length }));
}

#[test]
fn counts_in_a_watched_row_are_checked_against_its_length_and_its_description() {
    let rows =
        |bad: Vec<u8>| check_open(&Manner::default(), &[c(&[query("q")]), t(&[columns(&["mask"], 0), bad])]).error;
    let malformed = Some(ProtocolError::Malformed { side: Side::Target, kind: b'D' });
    assert_eq!(rows(row(&[None, None])), Some(ProtocolError::ColumnCountMismatch { described: 1, sent: 2 }));
    assert_eq!(rows(message(b'D', &[0, 1, 0, 0, 0, 9, b'x'])), malformed);
    assert_eq!(rows(message(b'D', &[0, 1, 0xff, 0xff, 0xff, 0xfe])), malformed);
    assert_eq!(rows(message(b'D', &[0, 1, 0, 0, 0, 1, b'x', b'y'])), malformed);
    assert_eq!(rows(message(b'D', &[0])), malformed);
    let shape = |body: &[u8]| check_open(&Manner::default(), &[c(&[query("q")]), t(&[message(b'T', body)])]).error;
    for body in [&[0u8, 1][..], &[0, 2, b'a', 0, 0, 0], &[0, 0, 9], &[0xff, 0xff]] {
        assert_eq!(shape(body), Some(ProtocolError::Malformed { side: Side::Target, kind: b'T' }));
    }
}

#[test]
fn watched_texts_are_shown_field_by_field() {
    let manner = Manner { watch_texts: true, ..Manner::default() };
    let fields =
        [(b'M', "dup 4111"), (b'D', "gone"), (b'H', "fine"), (b't', "4111"), (b'W', "in 4111"), (b'q', "q 4111")];
    let reply = [error_with("23505", &fields), ready(b'I')];
    let came = check_open(&manner, &[c(&[query("q")]), t(&reply)]);
    let masked = [(b'M', "***"), (b'D', ""), (b'H', "fine"), (b't', "***"), (b'W', "***"), (b'q', "***")];
    assert_eq!(came.to_client, [error_with("23505", &masked), ready(b'I')].concat());
    assert_eq!(came.outcomes(), ["outcome 1 error 23505 0/0"]);
    let came = check_open(&manner, &[t(&[notice("card 4111"), notification("4111", "4111"), notification("c", "")])]);
    assert_eq!(came.to_client, [notice("***"), notification("4111", "***"), notification("c", "")].concat());
}

#[test]
fn malformed_texts_are_refused_when_they_are_watched() {
    let manner = Manner { watch_texts: true, ..Manner::default() };
    for (kind, body) in [(b'N', &b"Mx"[..]), (b'N', b"Mx\0"), (b'E', b"Mx\0\0y"), (b'A', b"\0\0\0\x01a\0b")] {
        let came = check_open(&manner, &[t(&[message(kind, body)])]);
        assert_eq!(came.error, Some(ProtocolError::Malformed { side: Side::Target, kind }));
    }
}

#[test]
fn binary_results_are_marked_as_such() {
    let shape = columns(&["mask"], 1);
    let came = settled(&[c(&[query("fetch")]), t(&[shape, row(&[Some("b")]), complete("FETCH 1"), ready(b'I')])]);
    assert!(came.target_log.contains("binary: true"), "a binary cursor read through the simple protocol");
}

#[test]
fn rows_nobody_described_do_not_pass_in_the_simple_protocol() {
    let came = check_open(&Manner::default(), &[c(&[query("q")]), t(&[row(&[Some("v")])])]);
    assert_eq!(came.error, Some(ProtocolError::RowWithoutShape));
}
