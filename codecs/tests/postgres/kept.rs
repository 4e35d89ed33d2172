//! What is kept of responses for the record: what the client got, and nothing it did not get.

use crate::rig::*;
use crate::wire::*;

/// Every message kept but the columns has gone to the client as it is, in that order.
fn reached_the_client(came: &Came) {
    let mut gone = &came.to_client[..];
    for (_, kept, cut) in &came.kept {
        assert!(!cut);
        let mut rest = &kept[..];
        while !rest.is_empty() {
            let length = 1 + u32::from_be_bytes(rest[1..5].try_into().expect("a header")) as usize;
            let (message, later) = rest.split_at(length);
            rest = later;
            if message[0] == b'T' {
                continue;
            }
            let at = gone.windows(length).position(|window| window == message);
            gone = &gone[at.unwrap_or_else(|| panic!("{} is not in {}", said(message), came.client_said())) + length..];
        }
    }
}

fn kept(turns: &[Turn]) -> Vec<String> {
    let came = settled(turns);
    reached_the_client(&came);
    came.kept()
}

#[test]
fn a_simple_query_is_kept_with_its_masks_result_by_result() {
    let shape = columns(&["id", "mask", "over", "null"], 0);
    let reply = [
        shape,
        row(&[Some("1"), Some("4111"), Some("abc"), Some("n")]),
        notice("careful"),
        complete("SELECT 1"),
        columns(&["none"], 0),
        complete("SELECT 0"),
        complete("INSERT 0 5"),
        error("22012", "division by zero"),
        ready(b'I'),
    ];
    let kept = kept(&[c(&[query("four of them")]), t(&reply)]);
    assert_eq!(
        kept,
        [
            "T D[1,***,xxx,-] N(NOTICE 00000 careful) C(SELECT 1)",
            "T C(SELECT 0)",
            "C(INSERT 0 5)",
            "E(ERROR 22012 division by zero)"
        ]
    );
}

fn prepare(names: &[&str]) -> Vec<Turn> {
    vec![c(&[parse("s", "q"), sync()]), t(&[done(b'1'), parameters(), columns(names, 0), ready(b'I')])]
}

#[test]
fn columns_are_kept_though_the_client_never_asks_for_them_and_in_the_formats_of_the_execution() {
    let execution = c(&[bind("", "s", &[], &[0, 1]), execute("", 0), sync()]);
    let reply = t(&[done(b'2'), row(&[Some("***"), Some("b")]), complete("SELECT 1"), ready(b'I')]);
    let came = settled(&[&prepare(&["over", "b"])[..], &[execution, reply]].concat());
    assert_eq!(came.kept(), ["T D[xxx,b] C(SELECT 1)"]);
    let mut described = columns(&["over", "b"], 0);
    *described.last_mut().expect("a format") = 1;
    assert!(came.kept[0].1.starts_with(&described), "the second column is binary");
    reached_the_client(&came);
}

#[test]
fn a_description_that_runs_nothing_is_not_part_of_the_next_response() {
    let turns = [
        &prepare(&["a"])[..],
        &[c(&[bind("p", "s", &[], &[]), describe(b'P', "p"), bind("r", "s", &[], &[]), execute("r", 0), sync()])],
        &[t(&[done(b'2'), columns(&["a"], 0), done(b'2'), row(&[Some("1")]), complete("SELECT 1"), ready(b'I')])],
    ];
    assert_eq!(kept(&turns.concat()), ["T D[1] C(SELECT 1)"]);
}

#[test]
fn each_portion_of_a_portal_has_its_columns_and_its_rows() {
    let turns = [
        &prepare(&["a"])[..],
        &[c(&[bind("p", "s", &[], &[]), execute("p", 1), execute("p", 1), sync()])],
        &[t(&[done(b'2'), row(&[Some("1")]), done(b's'), row(&[Some("2")]), done(b's'), ready(b'I')])],
    ];
    assert_eq!(kept(&turns.concat()), ["T D[1] s", "T D[2] s"]);
}

#[test]
fn in_a_pipeline_the_failing_statement_has_the_error_and_the_skipped_ones_nothing() {
    let one = [bind("", "s", &[], &[]), execute("", 0)].concat();
    let turns = [
        &prepare(&["a"])[..],
        &[c(&[one.clone(), one.clone(), one, sync()])],
        &[t(&[done(b'2'), row(&[Some("1")]), complete("SELECT 1"), done(b'2'), error("22012", "zero"), ready(b'I')])],
    ];
    assert_eq!(kept(&turns.concat()), ["T D[1] C(SELECT 1)", "E(ERROR 22012 zero)", ""]);
}

#[test]
fn an_error_before_the_statement_ran_is_kept_with_the_statement_it_stopped() {
    let turns = [
        c(&[parse("", "bad"), bind("", "", &[], &[]), execute("", 0), sync()]),
        t(&[error("42601", "syntax error"), ready(b'I')]),
    ];
    let came = settled(&turns);
    assert_eq!(came.outcomes(), ["outcome 2 error 42601 0/0"]);
    assert_eq!(came.kept(), ["E(ERROR 42601 syntax error)"]);
}

#[test]
fn masked_texts_are_kept_masked() {
    let manner = Manner { watch_texts: true, ..Manner::default() };
    let reply = [notice("card 4111"), error_with("23505", &[(b'M', "dup 4111"), (b'D', "gone")]), ready(b'I')];
    let came = check_open(&manner, &[c(&[query("q")]), t(&reply)]);
    assert_eq!(came.kept(), ["N(NOTICE 00000 ***) E(ERROR 23505 *** )"]);
    reached_the_client(&came);
}

#[test]
fn copy_out_is_kept_as_it_was_sent() {
    let copy = |text: &str| {
        let reply = [copy_start(b'H', false), copy_data("4111\n"), copy_data("b\n"), done(b'c'), complete("COPY 2")];
        kept(&[c(&[query(text)]), t(&reply), t(&[ready(b'I')])])
    };
    assert_eq!(copy("COPY a TO STDOUT"), ["H d(4111\n) d(b\n) C(COPY 2)"]);
    assert_eq!(copy("COPY MASK TO STDOUT"), ["H d(***) d(***) C(COPY 2)"]);
}

#[test]
fn what_goes_beyond_the_bound_is_shortened_in_one_message_and_the_end_is_kept() {
    let manner = Manner { keep: 200, ..Manner::default() };
    let rows = |count: usize| {
        let mut reply = vec![columns(&["a"], 0)];
        reply.extend((0..count).map(|_| row(&[Some("0123456789012345678901234567890123456789")])));
        reply.extend([complete(&format!("SELECT {count}")), ready(b'I')]);
        check_open(&manner, &[c(&[query("q")]), t(&reply)])
    };
    assert!(!rows(1).kept[0].2);
    let came = rows(9);
    let (_, bytes, cut) = &came.kept[0];
    assert!(*cut && bytes.len() <= 200, "{}", bytes.len());
    let lengths: Vec<(u8, usize)> = messages(bytes).collect();
    assert_eq!(lengths, [(b'T', 27), (b'D', 51), (b'D', 51), (b'D', 21), (b'C', 14)], "the third row is shortened");
}

/// Kinds and lengths of whole messages.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    std::iter::from_fn(move || {
        let kind = *bytes.first()?;
        let length = 1 + u32::from_be_bytes(bytes[1..5].try_into().expect("a header")) as usize;
        bytes = &bytes[length..];
        Some((kind, length))
    })
}

#[test]
fn an_error_of_any_length_is_kept_up_to_a_bound_and_framed() {
    let reply = [error("22000", &"long ".repeat(4000)), ready(b'I')];
    let came = settled(&[c(&[query("q")]), t(&reply)]);
    let (_, bytes, cut) = &came.kept[0];
    assert!(*cut);
    assert_eq!(messages(bytes).collect::<Vec<_>>(), [(b'E', 4096)]);
}

#[test]
fn what_came_of_a_response_before_the_connection_ended_is_there() {
    let mut rig = Rig::new(Manner::default());
    for turn in opening() {
        rig.take(&turn, &mut |len| len);
    }
    rig.take(&c(&[query("q")]), &mut |len| len);
    let half = row(&[Some("0123456789")]);
    rig.take(&t(&[columns(&["id"], 0), row(&[Some("1")]), half[..12].to_vec()]), &mut |len| len);
    rig.session.end_response();
    let response = rig.session.response();
    assert!(response.cut);
    assert_eq!(messages(response.bytes).collect::<Vec<_>>(), [(b'T', 28), (b'D', 12), (b'D', 12)]);
}

#[test]
fn nothing_is_kept_unless_it_is_asked_for() {
    let manner = Manner { keep: 0, ..Manner::default() };
    let came = check_open(&manner, &[c(&[query("q")]), t(&[error("22012", "zero"), ready(b'I')])]);
    assert_eq!(came.kept(), [""]);
}
