//! What benches measure is what a gateway does: the verdict on a request comes from what the live path remembers.

use codecs::postgres::RequestKind;
use lockgate::policy::Action;
use lockgate_bench::gate::{EIGHT_WORDS, Features, Rig, ten_classes};
use lockgate_bench::texts::{accounts, mapper};

fn rig(open: impl FnOnce(&std::path::Path) -> Rig) -> (Rig, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("there is room");
    (open(directory.path()), directory)
}

fn query(rig: &mut Rig, text: &str) -> Action {
    rig.verdict(RequestKind::Query, &mut text.as_bytes().to_vec())
}

#[test]
fn a_text_that_came_before_is_judged_by_what_the_session_remembers() {
    let (mut rig, _directory) = rig(|directory| Rig::open(Features::On, directory));
    let all: Vec<String> = accounts().into_iter().chain([mapper()]).collect();
    all.iter().for_each(|text| assert_eq!(query(&mut rig, text), Action::Allow));
    let parsed = rig.parsed_texts();
    all.iter().for_each(|text| assert_eq!(query(&mut rig, text), Action::Allow));
    assert_eq!(rig.parsed_texts(), parsed);
    query(&mut rig, "SELECT something_else");
    assert_eq!(rig.parsed_texts(), parsed + 1);
}

#[test]
fn an_execution_is_judged_by_the_mark_of_what_was_prepared() {
    let (mut rig, _directory) = rig(Rig::open_waiting);
    let parsed = rig.parsed_texts();
    // Without that mark the statement were unknown, and allowed.
    assert_eq!(rig.verdict(RequestKind::Execute { resumed: false }, &mut []), Action::Approve);
    assert_eq!(rig.parsed_texts(), parsed);
}

#[test]
fn deny_lists_refuse_what_they_name() {
    let (mut classes, _directory) = rig(|directory| Rig::open_with(&ten_classes(), directory));
    assert_eq!([query(&mut classes, "DROP TABLE t"), query(&mut classes, "SELECT 1")], [Action::Deny, Action::Allow]);
    let (mut words, _directory) = rig(|directory| Rig::open_with(EIGHT_WORDS, directory));
    assert_eq!([query(&mut words, "SELECT pg_sleep(1)"), query(&mut words, "SELECT 1")], [Action::Deny, Action::Allow]);
}
