use super::super::tests::target;
use super::*;

fn place() -> Place {
    Place::of(&target("orders"))
}

fn empty() -> Result<Arc<Catalogue>, String> {
    Ok(Arc::default())
}

#[test]
fn requests_during_a_reading_share_it_when_it_is_new_enough() {
    let mut catalogues = Catalogues::default();
    let start = catalogues.want(place(), (0, 1), 100, 100).unwrap_err().expect("the first one starts a reading");
    assert_eq!(start.after, Duration::ZERO);
    let time_us = catalogues.begin(&place(), 110);
    assert_eq!(time_us, 110);
    assert!(catalogues.want(place(), (0, 2), 105, 115).unwrap_err().is_none());
    let (told, next) = catalogues.read(&place(), time_us, &empty(), 120);
    assert_eq!(told, [(0, 1), (0, 2)]);
    assert!(next.is_none());
    assert_eq!(catalogues.want(place(), (0, 3), 110, 130).unwrap().0, 110);
}

#[test]
fn a_request_newer_than_the_reading_gets_the_next_one_after_the_interval() {
    let mut catalogues = Catalogues::default();
    catalogues.want(place(), (0, 1), 0, 1_000).unwrap_err();
    let time_us = catalogues.begin(&place(), 1_000);
    catalogues.want(place(), (0, 2), 1_001, 1_002).unwrap_err();
    let (told, next) = catalogues.read(&place(), time_us, &empty(), 51_000);
    assert_eq!(told, [(0, 1)]);
    assert_eq!(next.expect("another reading follows").after, Duration::from_micros(150_000));
    let time_us = catalogues.begin(&place(), 201_000);
    let (told, next) = catalogues.read(&place(), time_us, &empty(), 202_000);
    assert_eq!((told, next.is_none()), (vec![(0, 2)], true));
}

#[test]
fn an_error_is_told_to_everybody_and_is_not_kept() {
    let mut catalogues = Catalogues::default();
    catalogues.want(place(), (0, 1), 0, 10).unwrap_err();
    let time_us = catalogues.begin(&place(), 10);
    catalogues.want(place(), (1, 2), 500, 20).unwrap_err();
    let (told, next) = catalogues.read(&place(), time_us, &Err("no".into()), 30);
    assert_eq!((told, next.is_none()), (vec![(0, 1), (1, 2)], true));
    let start = catalogues.want(place(), (0, 3), 0, 40).unwrap_err().expect("a fresh reading");
    assert_eq!(start.after, Duration::from_micros(199_970));
}

#[test]
fn a_clock_that_ran_ahead_does_not_keep_anybody_waiting_for_ever() {
    let mut catalogues = Catalogues::default();
    catalogues.want(place(), (0, 1), 9_000_000, 10).unwrap_err();
    let time_us = catalogues.begin(&place(), 10);
    let (told, next) = catalogues.read(&place(), time_us, &empty(), 30);
    assert_eq!((told, next.is_none()), (vec![(0, 1)], true));
}

#[test]
fn a_target_that_moved_is_another_place() {
    let mut catalogues = Catalogues::default();
    catalogues.want(place(), (0, 1), 0, 10).unwrap_err();
    catalogues.read(&place(), 10, &empty(), 20);
    let mut moved = target("orders");
    moved.database = "elsewhere".into();
    assert!(catalogues.want(Place::of(&moved), (0, 1), 0, 30).is_err());
    catalogues.keep_only(&[Arc::new(moved)]);
    assert!(catalogues.want(place(), (0, 1), 0, 40).is_err(), "the old place was forgotten");
}
