//! A recording of two peers, damaged by the fuzzer, against one session and a gate that answers by the bytes it sees.
//! Sought: panics, and bytes that reach the target while a question about them is open.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockgate_codecs::postgres::*;
use lockgate_codecs::{Outgoing, Pipes, Side, Window};
use std::rc::Rc;

struct Peers {
    session: Session<u64>,
    windows: [Vec<u8>; 2],
    /// Drawn from the input: which answers the gate gives.
    whim: u64,
    id: u64,
    held: bool,
    /// Recordings were made where no password is asked for: one is put in when it is due.
    password_due: bool,
}

impl Peers {
    fn new(first: u8) -> Self {
        let limits = SessionLimits { request_bytes_max: 1 << 16, row_bytes_max: 1 << 16 };
        let mut session = Session::new(limits, first & 1 != 0);
        session.watch_texts(first & 2 != 0);
        Self {
            session,
            windows: Default::default(),
            whim: u64::from(first) | 1,
            id: 0,
            held: false,
            password_due: false,
        }
    }

    fn whim(&mut self, below: u64) -> u64 {
        self.whim ^= self.whim << 13;
        self.whim ^= self.whim >> 7;
        self.whim ^= self.whim << 17;
        (self.whim >> 20) % below
    }

    /// One call with both windows. `false`: the session is over.
    fn call(&mut self, side: Side) -> bool {
        let (mut to_client, mut to_target) = (Outgoing::default(), Outgoing::default());
        let [mut client, mut target] = std::mem::take(&mut self.windows);
        let mut pipes = Pipes {
            client: Window::new(&mut client),
            target: Window::new(&mut target),
            to_client: &mut to_client,
            to_target: &mut to_target,
        };
        let was_held = self.held;
        let more = self.step(side, &mut pipes);
        assert!(!was_held || pipes.client.decided() == 0 || !self.held, "decided while held");
        let decided = [pipes.client.decided(), pipes.target.decided()];
        client.drain(..decided[0]);
        target.drain(..decided[1]);
        if std::mem::take(&mut self.password_due) {
            client.splice(..0, *b"p\0\0\0\x06t\0");
        }
        self.windows = [client, target];
        more
    }

    fn step(&mut self, side: Side, pipes: &mut Pipes<'_>) -> bool {
        let mut masks = Masks(self.whim(8));
        let Ok(step) = self.session.step(side, pipes, &mut masks) else { return false };
        let Step::Event(event) = step else { return false };
        let whim = self.whim(8);
        let answer = match event {
            Event::Secure => Answer::Secure(whim == 0),
            Event::Login(_) => {
                self.password_due = true;
                Answer::AskCredential
            }
            Event::Credential(_) => {
                self.session.answer(Side::Client, Answer::Admit, pipes);
                self.session.connect(login(whim), pipes);
                return true;
            }
            Event::TargetSecure(_) => {
                self.session.target_secured((whim > 3).then(|| vec![1]), pipes);
                return true;
            }
            Event::DeriveKeys { .. } => Answer::Keys(ScramKeys { client_key: [0; 32], server_key: [0; 32] }),
            Event::TargetRefused { .. } => Answer::Refuse(refusal()),
            Event::Request(_) => {
                self.id += 1;
                match whim {
                    0 => Answer::Refuse(refusal()),
                    1 => {
                        self.held = true;
                        Answer::Hold
                    }
                    _ => Answer::Forward { id: self.id, tag: self.id, describe: whim > 4 },
                }
            }
            Event::Shape(_) => {
                let plan = self.session.columns().iter().map(|_| (whim % 2) as u8).collect();
                Answer::Watch((whim > 1).then_some(plan))
            }
            _ => return true,
        };
        self.session.answer(side, answer, pipes);
        true
    }

    fn release(&mut self) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        let (mut to_client, mut to_target) = (Outgoing::default(), Outgoing::default());
        let [mut client, mut target] = std::mem::take(&mut self.windows);
        let mut pipes = Pipes {
            client: Window::new(&mut client),
            target: Window::new(&mut target),
            to_client: &mut to_client,
            to_target: &mut to_target,
        };
        self.session.answer(Side::Client, Answer::Forward { id: self.id, tag: self.id, describe: false }, &mut pipes);
        let decided = [pipes.client.decided(), pipes.target.decided()];
        client.drain(..decided[0]);
        target.drain(..decided[1]);
        self.windows = [client, target];
    }
}

fn refusal() -> Refusal {
    Refusal { sqlstate: *b"42501", message: "no".into(), detail: None, hint: None }
}

struct Masks(u64);

impl Watch<u64> for Masks {
    fn value(&mut self, _: Value, _: &mut [u8], _: Option<&u64>) -> ValueAnswer {
        match self.0 {
            0 => ValueAnswer::Null,
            1 => ValueAnswer::Replace(vec![b'x'; 9]),
            _ => ValueAnswer::Keep,
        }
    }
}

fn login(whim: u64) -> TargetLogin {
    TargetLogin {
        user: "u".into(),
        database: "d".into(),
        password: Rc::new(zeroize::Zeroizing::new(b"p".to_vec())),
        weakest: AuthMethod::Trust,
        tls: whim == 7,
        nonce: [0; 18],
        client_process: 1,
        client_secret: vec![0; 4],
    }
}

fuzz_target!(|input: &[u8]| {
    // The side needs one bit of its byte: the others of the first one choose the manner.
    let Some(&first) = input.first() else { return };
    let mut peers = Peers::new(first >> 1);
    let mut input = input;
    while let [side, a, b, c, d, rest @ ..] = input {
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let (bytes, rest) = rest.split_at(length.min(rest.len()));
        peers.windows[usize::from(side & 1)].extend_from_slice(bytes);
        while peers.call(Side::Client) {}
        while peers.call(Side::Target) {}
        peers.release();
        while peers.call(Side::Client) {}
        input = rest;
    }
});
