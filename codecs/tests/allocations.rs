//! A steady-state round allocates nothing, its response kept for the record: counted by the allocator itself.
#![allow(unsafe_code)] // A counting allocator cannot be written without it; it only counts and passes on.

use lockgate_codecs::postgres::*;
use lockgate_codecs::{Outgoing, Pipes, Side, Window};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::rc::Rc;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches a thread-local integer only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

struct Round {
    session: Session<u32>,
    to_client: Outgoing,
    to_target: Outgoing,
    plan: ColumnPlan,
    pieces: usize,
}

impl Round {
    /// An open session with statement `s` prepared.
    fn open() -> Self {
        let limits = SessionLimits { request_bytes_max: 1 << 20, row_bytes_max: 1 << 20 };
        let mut round = Self {
            session: Session::new(limits, false),
            to_client: Outgoing::default(),
            to_target: Outgoing::default(),
            plan: Rc::from([0u8].as_slice()),
            pieces: 0,
        };
        round.session.keep_responses(64 << 10);
        let mut startup = 22u32.to_be_bytes().to_vec();
        startup.extend(196_608u32.to_be_bytes());
        startup.extend(b"user\0ann\0x\0y\0\0");
        startup[3] = startup.len() as u8;
        round.turn(Side::Client, &mut startup);
        round.turn(Side::Client, &mut message(b'p', b"token\0"));
        round.turn(Side::Target, &mut [message(b'R', &[0; 4]), message(b'Z', b"I")].concat());
        round.turn(Side::Client, &mut [message(b'P', b"s\0select\0\0\0"), message(b'S', b"")].concat());
        round.turn(Side::Target, &mut [message(b'1', b""), message(b'Z', b"I")].concat());
        assert!(round.session.is_idle());
        round
    }

    /// Bytes arrive; everything they lead to is done, and what leaves is counted.
    fn turn(&mut self, side: Side, bytes: &mut [u8]) {
        let (mut none, mut other) = ([0u8; 0], [0u8; 0]);
        let (client, target) = match side {
            Side::Client => (bytes, &mut none[..]),
            Side::Target => (&mut other[..], bytes),
        };
        let mut pipes = Pipes {
            client: Window::new(client),
            target: Window::new(target),
            to_client: &mut self.to_client,
            to_target: &mut self.to_target,
        };
        while let Step::Event(event) = self.session.step(side, &mut pipes, &mut Keeps).expect("nobody misbehaves") {
            let answer = match event {
                Event::Login(_) => Answer::AskCredential,
                Event::Credential(_) => {
                    self.session.answer(Side::Client, Answer::Admit, &mut pipes);
                    let login = TargetLogin {
                        user: "u".into(),
                        database: "d".into(),
                        password: Rc::new(Vec::new().into()),
                        weakest: AuthMethod::Trust,
                        tls: false,
                        nonce: [0; 18],
                        client_process: 1,
                        client_secret: vec![0; 4],
                    };
                    self.session.connect(login, &mut pipes);
                    continue;
                }
                Event::Request(_) => Answer::Forward { id: 1, tag: 1, describe: false },
                Event::Shape(_) => Answer::Watch(Some(self.plan.clone())),
                Event::Outcome(_) => {
                    assert!(self.session.response().bytes.ends_with(b"C\0\0\0\x0dSELECT 1\0"), "the response is kept");
                    self.session.forget_response();
                    continue;
                }
                _ => continue,
            };
            self.session.answer(side, answer, &mut pipes);
        }
        self.pieces = self.to_client.pieces().len() + self.to_target.pieces().len();
        self.to_client.reset();
        self.to_target.reset();
    }
}

struct Keeps;

impl Watch<u32> for Keeps {
    fn value(&mut self, _: Value, _: &mut [u8], _: Option<&u32>) -> ValueAnswer {
        ValueAnswer::Keep
    }
}

fn prepared_round() -> (Vec<u8>, Vec<u8>) {
    let bind = message(b'B', b"\0s\0\0\0\0\x01\0\0\0\x041234\0\0");
    let client = [bind, message(b'D', b"P\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    (client, [message(b'2', b""), rows()].concat())
}

fn simple_round() -> (Vec<u8>, Vec<u8>) {
    (message(b'Q', b"select abalance from pgbench_accounts where aid = 1234;\0"), rows())
}

fn rows() -> Vec<u8> {
    let shape = message(b'T', b"\0\x01abalance\0\0\0\x40\0\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0");
    [shape, message(b'D', b"\0\x01\0\0\0\x010"), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
}

fn check(round: &mut Round, (mut client, mut target): (Vec<u8>, Vec<u8>)) {
    for _ in 0..3 {
        round.turn(Side::Client, &mut client);
        round.turn(Side::Target, &mut target);
    }
    let before = ALLOCATIONS.with(Cell::get);
    for _ in 0..100 {
        round.turn(Side::Client, &mut client);
        assert_eq!(round.pieces, 1, "one piece passes towards the target");
        round.turn(Side::Target, &mut target);
        assert_eq!(round.pieces, 1, "one piece passes towards the client");
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "a steady-state round allocates nothing");
}

#[test]
fn a_prepared_round_allocates_nothing() {
    check(&mut Round::open(), prepared_round());
}

#[test]
fn a_simple_round_allocates_nothing() {
    check(&mut Round::open(), simple_round());
}

#[test]
fn a_watched_round_allocates_nothing_when_values_are_kept() {
    let mut round = Round::open();
    round.plan = Rc::from([1u8].as_slice());
    check(&mut round, prepared_round());
}

#[test]
fn a_pipelined_round_allocates_nothing() {
    let (client, target) = prepared_round();
    let cut = client.len() - 5;
    let client = [&client[..cut], &client[..cut], &client[..]].concat();
    let cut = target.len() - 6;
    let target = [&target[..cut], &target[..cut], &target[..]].concat();
    check(&mut Round::open(), (client, target));
}

/// The checker's canary.
#[test]
fn an_allocation_is_counted() {
    let before = ALLOCATIONS.with(Cell::get);
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 1);
}

/// `cargo test --release -p lockgate-codecs --test allocations -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a check"]
fn what_a_round_costs() {
    for (name, (mut client, mut target)) in [("prepared", prepared_round()), ("simple", simple_round())] {
        let mut round = Round::open();
        let rounds = 2_000_000;
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            round.turn(Side::Client, &mut client);
            round.turn(Side::Target, &mut target);
        }
        println!("{name}: {:.0} ns a round, both ways", start.elapsed().as_nanos() as f64 / f64::from(rounds));
    }
}
