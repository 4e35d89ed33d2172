//! One simulated connection: gate, journal, two peers, and the seed that orders what happens.

use super::peers::{self, SECRET, Statement, TABLE_OID, Target, Verb};
use codecs::{Outgoing, Piece, Pipes, Side, Window};
use lockgate::approval::{Ruling, TicketId};
use lockgate::audit::{Entry, Full, Journal, Who};
use lockgate::gate::{Context, Drive, Gate, Input, Now, Origin, Output, ReadsHere, Shared};
use lockgate::shard::mailbox::{Catalogue, CatalogueTable, ToControl};
use lockgate::snapshot::Snapshot;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Of each response that is recorded: all of them fit.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Which faults a run has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub journal_full: bool,
    pub disconnects: bool,
    /// Canaries: the product is broken on purpose.
    pub no_mask: bool,
    pub forget_requests: bool,
    pub forget_outcomes: bool,
    pub alter_responses: bool,
}

/// A law that did not hold. The fields are for whoever reads the panic.
#[derive(Debug)]
#[allow(dead_code)]
pub enum Breach {
    SecretLeft,
    /// The target got this statement without a record that allowed it.
    Unrecorded(u32),
    /// The target got a statement that was refused.
    Refused(u32),
    NoOutcome,
    /// A forwarded statement has no outcome at the end.
    NeverEnded(u64),
    /// What is recorded of the responses is not what the client got: rows recorded, rows got.
    Misrecorded(usize, usize),
    /// Everything was delivered and the session did not get to its end.
    Stuck {
        answered: usize,
        asked: usize,
    },
}

/// SplitMix64: small, seeded, good enough to choose splits.
pub struct Random(u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The trail as the simulator keeps it.
#[derive(Default)]
struct Trail {
    faults: Faults,
    full: bool,
    /// Statement number -> (request id, decision).
    requests: HashMap<u32, (u64, String)>,
    approved: HashSet<u64>,
    forwarded: HashSet<u64>,
    outcomes: HashSet<u64>,
    /// Each outcome's response, and whether it is cut.
    responses: Vec<(Vec<u8>, bool)>,
}

impl Journal for Trail {
    fn append(&mut self, _time_us: i64, _who: &Who<'_>, entry: &Entry<'_>) -> Result<(), Full> {
        if self.full {
            return Err(Full);
        }
        match entry {
            Entry::Request(request) if !self.faults.forget_requests => {
                if let Some(number) = peers::number_in(request.statement) {
                    self.requests.insert(number, (request.request, request.decision.to_string()));
                }
                if matches!(request.decision, "allow" | "alert") {
                    self.forwarded.insert(request.request);
                }
            }
            Entry::Ruling { request, ruling: "approved", .. } => {
                self.approved.insert(*request);
                self.forwarded.insert(*request);
            }
            Entry::Outcome(outcome) if !self.faults.forget_outcomes => {
                self.outcomes.insert(outcome.request);
                let mut response = outcome.payload.to_vec();
                if self.faults.alter_responses {
                    response.iter_mut().for_each(|byte| *byte = byte.wrapping_add(u8::from(*byte == b'p')));
                }
                self.responses.push((response, outcome.payload_cut));
            }
            _ => {}
        }
        Ok(())
    }
}

pub struct World {
    random: Random,
    faults: Faults,
    gate: Gate,
    trail: Trail,
    shared: Shared,
    snapshot: Arc<Snapshot>,
    now: Now,
    target: Target,
    /// Bytes under way, by the side they come from, and those in the gate's windows.
    under_way: [Vec<u8>; 2],
    windows: [Vec<u8>; 2],
    /// What the client has received.
    client_got: Vec<u8>,
    seen: usize,
    results: usize,
    ready: usize,
    inputs: Vec<Input>,
    closed: bool,
    script: Vec<Statement>,
    token: String,
    checked: usize,
}

fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Target => 1,
    }
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> Self {
        let mut random = Random(seed);
        let (snapshot, token) = super::world::snapshot::build(faults.no_mask);
        let mut trail = Trail { faults, ..Trail::default() };
        let mut shared = Shared::default();
        shared.payload_bytes_max = PAYLOAD_BYTES_MAX;
        shared.login_timeout_us = 30_000_000;
        // Some texts are long for some of them.
        shared.reads_here = ReadsHere(random.below(100) as usize);
        let mut control = Vec::new();
        let now = Now { mono_us: 1_000, unix_us: snapshot::NOW_S * 1_000_000 };
        let mut entropy = [0; 42];
        entropy.iter_mut().for_each(|byte| *byte = random.below(256) as u8);
        let client = "127.0.0.1:50000".parse().expect("an address");
        let origin = Origin {
            shard: 0,
            relay: 1,
            client,
            tls_offered: false,
            encrypted: false,
            allow_plaintext: false,
            certificate_required: false,
            login_by_us: now.mono_us + 30_000_000,
            entropy,
        };
        let mut cx =
            Context { now, snapshot: &snapshot, journal: &mut trail, control: &mut control, shared: &mut shared };
        let gate = Gate::new(origin, &mut cx);
        let script = script(&mut random);
        let mut world = Self {
            random,
            faults,
            gate,
            trail,
            shared,
            snapshot,
            now,
            target: Target::default(),
            under_way: [peers::startup(), Vec::new()],
            windows: [Vec::new(), Vec::new()],
            client_got: Vec::new(),
            seen: 0,
            results: 0,
            ready: 0,
            inputs: Vec::new(),
            closed: false,
            script,
            token,
            checked: 0,
        };
        world.client_sends();
        world
    }

    /// The client pipelines: everything is sent at once, the seed decides how it arrives.
    fn client_sends(&mut self) {
        let mut bytes = peers::password(&self.token);
        self.script.iter().for_each(|statement| statement.messages(&mut bytes));
        self.under_way[0].extend_from_slice(&bytes);
    }

    /// Plays until nothing moves.
    pub fn run(mut self) -> Result<(), Breach> {
        let mut idle_rounds = 0;
        while !self.closed && idle_rounds < 200 {
            let moved = self.step()?;
            idle_rounds = if moved { 0 } else { idle_rounds + 1 };
        }
        self.ended()
    }

    fn step(&mut self) -> Result<bool, Breach> {
        self.now.mono_us += self.random.below(200);
        self.now.unix_us += 100;
        if self.faults.journal_full {
            let was = self.trail.full;
            self.trail.full = self.random.chance(if was { 70 } else { 10 });
            if was && !self.trail.full {
                self.input(Input::JournalRoom)?;
            }
        }
        if self.faults.disconnects && self.random.chance(1) {
            let side = if self.random.chance(50) { Side::Client } else { Side::Target };
            self.under_way[index(side)].clear();
            self.input(Input::Ended(side))?;
            return Ok(true);
        }
        if !self.inputs.is_empty() && self.random.chance(50) {
            let chosen = self.random.below(self.inputs.len() as u64) as usize;
            let input = self.inputs.remove(chosen);
            self.input(input)?;
            return Ok(true);
        }
        let side = if self.random.chance(50) { Side::Client } else { Side::Target };
        self.deliver(side)
    }

    fn deliver(&mut self, side: Side) -> Result<bool, Breach> {
        let waiting = self.under_way[index(side)].len();
        if waiting == 0 {
            return Ok(!self.inputs.is_empty());
        }
        let most = if self.random.chance(30) { 3 } else { 400 };
        let length = 1 + self.random.below(waiting.min(most) as u64) as usize;
        let chunk: Vec<u8> = self.under_way[index(side)].drain(..length).collect();
        self.windows[index(side)].extend_from_slice(&chunk);
        self.input(Input::Bytes(side))?;
        Ok(true)
    }

    /// Hands the gate one input, delivers what it cleared, grants its wishes.
    fn input(&mut self, input: Input) -> Result<(), Breach> {
        if self.closed {
            return Ok(());
        }
        let (mut to_client, mut to_target) = (Outgoing::default(), Outgoing::default());
        let mut control = Vec::new();
        let [client_bytes, target_bytes] = &mut self.windows;
        let mut pipes = Pipes {
            client: Window::new(client_bytes),
            target: Window::new(target_bytes),
            to_client: &mut to_client,
            to_target: &mut to_target,
        };
        let mut cx = Context {
            now: self.now,
            snapshot: &self.snapshot,
            journal: &mut self.trail,
            control: &mut control,
            shared: &mut self.shared,
        };
        self.gate.handle(input, &mut pipes, &mut cx);
        if self.random.chance(20) {
            self.gate.rest();
        }
        let decided = [pipes.client.decided(), pipes.target.decided()];
        let for_target = gather(&to_target, &self.windows[0]);
        let for_client = gather(&to_client, &self.windows[1]);
        self.windows[0].drain(..decided[0]);
        self.windows[1].drain(..decided[1]);
        self.client_receives(&for_client)?;
        self.target_receives(&for_target)?;
        control.into_iter().for_each(|wish| self.control(wish));
        loop {
            match self.gate.poll() {
                Output::Idle => return Ok(()),
                Output::Connect(_) => self.inputs.push(Input::Connected),
                Output::Close => self.closed = true,
                Output::StartTls(_) | Output::Finish(_) | Output::WakeAt(_) => {}
            }
        }
    }

    fn control(&mut self, wish: ToControl) {
        match wish {
            ToControl::Ask(ticket) => {
                let ruling = match self.random.below(3) {
                    0 => Ruling::Approved { by: vec!["bob".into()], reason: String::new() },
                    1 => Ruling::Rejected { by: "bob".into(), reason: "no".into() },
                    _ => Ruling::Expired,
                };
                self.inputs.push(Input::Ruling { ticket: TicketId(ticket.id.0.clone()), ruling });
            }
            ToControl::Read { unread, .. } => self.inputs.push(Input::Read(unread.read())),
            ToControl::Catalogue { .. } => {
                let columns = HashMap::from([(1, "secret".to_string()), (2, "plain".to_string())]);
                let table = CatalogueTable { schema: "public".into(), name: "vault".into(), columns };
                let catalogue = Catalogue { tables: HashMap::from([(TABLE_OID, table)]) };
                self.inputs.push(Input::Catalogue(Ok((self.now.unix_us, Arc::new(catalogue)))));
            }
            _ => {}
        }
    }

    /// Law 1 and law 3, at every byte the client gets.
    fn client_receives(&mut self, bytes: &[u8]) -> Result<(), Breach> {
        self.client_got.extend_from_slice(bytes);
        if self.client_got[self.seen..].windows(SECRET.len()).any(|window| window == SECRET) {
            return Err(Breach::SecretLeft);
        }
        while let Some((kind, _, length)) = peers::whole(&self.client_got[self.seen..]) {
            self.seen += length;
            match kind {
                b'C' => self.results += 1,
                b'Z' => self.ready += 1,
                _ => {}
            }
        }
        if self.trail.outcomes.len() < self.results { Err(Breach::NoOutcome) } else { Ok(()) }
    }

    /// Law 2, at every byte the target gets.
    fn target_receives(&mut self, bytes: &[u8]) -> Result<(), Breach> {
        self.target.receive(bytes, &mut self.under_way[1]);
        while let Some(number) = self.target.ran.get(self.checked).copied() {
            self.checked += 1;
            match self.trail.requests.get(&number) {
                None => return Err(Breach::Unrecorded(number)),
                Some((_, decision)) if decision == "allow" || decision == "alert" => {}
                Some((request, decision)) if decision == "approve" && self.trail.approved.contains(request) => {}
                Some(_) => return Err(Breach::Refused(number)),
            }
        }
        Ok(())
    }

    fn ended(mut self) -> Result<(), Breach> {
        if !self.closed {
            self.trail.full = false;
            self.input(Input::JournalRoom)?;
            if !self.faults.disconnects && self.ready != self.script.len() + 1 {
                return Err(Breach::Stuck { answered: self.ready, asked: self.script.len() + 1 });
            }
            self.input(Input::Ended(Side::Client))?;
        }
        if self.faults.forget_outcomes || self.faults.forget_requests {
            return Ok(());
        }
        self.responses_are_what_the_client_got()?;
        match self.trail.forwarded.difference(&self.trail.outcomes).next() {
            Some(request) => Err(Breach::NeverEnded(*request)),
            None => Ok(()),
        }
    }
}

impl World {
    /// Law 4: every row the client got is in the record of its statement's outcome, and no other. Of the last one, when the
    /// connection ended in the middle of it, the record has a part and says so.
    fn responses_are_what_the_client_got(&self) -> Result<(), Breach> {
        let rows = |bytes: &[u8]| -> Vec<Vec<u8>> {
            let (mut rows, mut at) = (Vec::new(), 0);
            while let Some((kind, body, length)) = peers::whole(&bytes[at..]) {
                rows.extend((kind == b'D').then(|| body.to_vec()));
                at += length;
            }
            rows
        };
        let got = rows(&self.client_got);
        let mut kept = Vec::new();
        let mut partial = false;
        for (response, cut) in &self.trail.responses {
            if response.windows(SECRET.len()).any(|window| window == SECRET) {
                return Err(Breach::SecretLeft);
            }
            kept.extend(rows(response));
            partial |= *cut;
        }
        if partial {
            kept.pop();
        }
        let missing = got.len().checked_sub(kept.len());
        let holds = got.starts_with(&kept) && missing.is_some_and(|missing| missing <= usize::from(partial));
        if holds { Ok(()) } else { Err(Breach::Misrecorded(kept.len(), got.len())) }
    }
}

fn gather(out: &Outgoing, window: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in out.pieces() {
        match *piece {
            Piece::Pass { start, end } => bytes.extend_from_slice(&window[start..end]),
            Piece::Composed { start, end } => bytes.extend_from_slice(&out.composed()[start..end]),
        }
    }
    bytes
}

fn script(random: &mut Random) -> Vec<Statement> {
    let count = 1 + random.below(8) as u32;
    (1..=count)
        .map(|number| {
            let verb = match random.below(10) {
                0..=4 => Verb::Select,
                5..=6 => Verb::Insert,
                7..=8 => Verb::Drop,
                _ => Verb::Delete,
            };
            Statement { number, verb, extended: random.chance(50) }
        })
        .collect()
}

mod snapshot;
