//! First the record, then the bytes: what could not be recorded is never sent.

use super::*;
use crate::approval::TicketId;
use crate::audit::{Entry, Full, Journal, NOBODY, Who};
use crate::shard::mailbox::{Cancel, SessionKey};
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Mutex;

/// What the fake log does, changed by the test while the shard runs.
#[derive(Default)]
struct Script {
    fail_writes: bool,
    /// An append has failed for good: every one is refused.
    broken: bool,
    full: bool,
    /// What was written is not where it belongs: the next look finds that.
    astray: bool,
    appended: usize,
    writes: usize,
    turned_away: usize,
    /// It takes that long to say whether something is wrong.
    pause: Duration,
    sync: Option<File>,
}

#[derive(Clone, Default)]
struct FakeLog {
    script: Arc<Mutex<Script>>,
    dirty: bool,
    found_astray: bool,
}

impl FakeLog {
    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().expect("no panic while scripted")
    }
}

impl Journal for FakeLog {
    fn append(&mut self, _: i64, _: &Who<'_>, _: &Entry<'_>) -> Result<(), Full> {
        let mut script = self.script.lock().expect("no panic while scripted");
        if script.full {
            script.turned_away += 1;
            return Err(Full);
        }
        script.appended += 1;
        self.dirty = true;
        Ok(())
    }
}

impl RoundLog for FakeLog {
    fn dirty(&self) -> bool {
        self.dirty
    }
    fn write(&mut self) -> std::io::Result<()> {
        let mut script = self.script.lock().expect("no panic while scripted");
        script.writes += 1;
        if script.fail_writes {
            return Err(std::io::Error::other("no space left"));
        }
        self.dirty = false;
        Ok(())
    }
    fn sync_fd(&self) -> Option<RawFd> {
        self.script().sync.as_ref().map(|file| file.as_raw_fd())
    }
    fn has_room(&self) -> bool {
        !self.script().full
    }
    fn failed(&self) -> Option<&str> {
        let script = self.script();
        let (broken, pause) = (script.broken, script.pause);
        drop(script);
        std::thread::sleep(pause);
        (self.found_astray || broken).then_some("it is broken")
    }
    fn close(&mut self) -> std::io::Result<()> {
        self.write()
    }
    fn look(&mut self) {
        let astray = self.script().astray;
        self.found_astray = astray;
    }
}

/// A bare relay that records everything a client says before it lets it go.
struct Recorder {
    bare: BareRelay,
    waiting: bool,
}

impl Drive for Recorder {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let statement = match input {
            Input::Bytes(Side::Client) | Input::Connected => true,
            Input::JournalRoom => std::mem::take(&mut self.waiting),
            _ => false,
        };
        if statement && cx.journal.append(cx.now.unix_us, &NOBODY, &Entry::Gateway { detail: "bytes" }).is_err() {
            self.waiting = true;
            if !matches!(input, Input::Connected) {
                return;
            }
        }
        match input {
            Input::JournalRoom => self.bare.handle(Input::Bytes(Side::Client), pipes, cx),
            input => self.bare.handle(input, pipes, cx),
        }
    }
    fn poll(&mut self) -> Output {
        self.bare.poll()
    }
}

/// A shard that records, its script, and what has arrived at the target.
fn recording(durability: Mode) -> (Shard, FakeLog, Arc<Mutex<Vec<u8>>>) {
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let seen = arrived.clone();
    let target = peer(move |mut socket| {
        let mut bytes = [0; 1000];
        while let Ok(count @ 1..) = socket.read(&mut bytes) {
            seen.lock().expect("no panic while listening").extend_from_slice(&bytes[..count]);
            if socket.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    });
    let log = FakeLog::default();
    let options = ShardOptions { durability, ..options() };
    let shard = Shard::start(options, Box::new(log.clone()), move |_, _| Recorder {
        bare: BareRelay::new(target.clone()),
        waiting: false,
    });
    (shard, log, arrived)
}

fn say(client: &mut TcpStream, words: &[u8]) {
    client.write_all(words).expect("the shard reads");
    let mut back = vec![0; words.len()];
    client.read_exact(&mut back).expect("the echo");
    assert_eq!(back, words);
}

/// After `break_it`, nothing a client says reaches the target any more and the shard stops.
fn check_fail_closed(durability: Mode, break_it: impl FnOnce(&mut Script)) {
    let (mut shard, log, arrived) = recording(durability);
    let (mut client, mut neighbour) = (shard.connect(), shard.connect());
    say(&mut client, b"recorded");
    say(&mut neighbour, b"too");
    break_it(&mut log.script());
    client.write_all(b"SECRET").expect("the shard still reads");
    assert_eq!(client.read(&mut [0; 16]).unwrap_or(0), 0, "the client is closed, without an answer");
    let fault = shard.fault().expect("the shard says why it stopped");
    assert!(fault.contains("audit record"), "{fault}");
    assert_eq!(neighbour.read(&mut [0; 16]).unwrap_or(0), 0, "nobody is served without a record");
    let arrived = arrived.lock().expect("no panic while listening");
    assert!(!arrived.windows(6).any(|six| six == b"SECRET"), "unrecorded bytes reached the target");
    assert_eq!(shard.counters().journal_failed.value(), 1);
}

#[test]
fn what_could_not_be_written_is_not_sent() {
    check_fail_closed(Mode::Group, |script| script.fail_writes = true);
    check_fail_closed(Mode::Strict, |script| script.fail_writes = true);
    for mode in [Mode::Group, Mode::Strict, Mode::Async] {
        check_fail_closed(mode, |script| (script.full, script.broken) = (true, true));
    }
}

#[test]
fn a_shard_whose_record_went_astray_stops_within_a_second_or_so_without_being_asked_anything() {
    let (mut shard, log, _) = recording(Mode::Group);
    let mut client = shard.connect();
    say(&mut client, b"recorded");
    log.script().astray = true;
    let since = std::time::Instant::now();
    assert_eq!(client.read(&mut [0; 16]).unwrap_or(0), 0, "nobody is served any more");
    assert!(shard.fault().is_some_and(|fault| fault.contains("it is broken")));
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

#[test]
fn what_could_not_be_synced_is_not_sent_in_strict_mode() {
    // Nothing can fdatasync a character device such as /dev/null.
    check_fail_closed(Mode::Strict, |script| script.sync = Some(File::open("/dev/null").expect("/dev/null")));
}

#[test]
fn statements_pass_once_their_record_is_safe() {
    for durability in [Mode::Group, Mode::Strict, Mode::Async] {
        let (shard, log, _) = recording(durability);
        log.script().sync = Some(tempfile::tempfile().expect("a temporary file"));
        let mut client = shard.connect();
        (0..50).for_each(|_| say(&mut client, b"statement"));
        let script = log.script();
        assert!(script.appended >= 50, "{durability:?}: {} records", script.appended);
        if durability != Mode::Async {
            assert!(script.writes >= 50, "{durability:?}: {} writes", script.writes);
        }
        if durability == Mode::Strict {
            assert!(shard.counters().journal_syncs.value() >= 50);
        }
    }
}

#[test]
fn a_strict_relay_that_waits_for_its_record_keeps_the_order_of_its_bytes() {
    let (shard, log, _) = recording(Mode::Strict);
    log.script().sync = Some(tempfile::tempfile().expect("a temporary file"));
    let sent = Dice(11).bytes(200_000);
    assert!(exchange(shard.connect(), &sent, 3_000, 11) == sent);
}

#[test]
fn a_full_journal_holds_statements_until_it_has_room() {
    let (shard, log, arrived) = recording(Mode::Group);
    let mut client = shard.connect();
    say(&mut client, b"first");
    log.script().full = true;
    client.write_all(b"second").expect("the shard still reads");
    while log.script().turned_away == 0 {
        std::thread::yield_now();
    }
    assert_eq!(&*arrived.lock().expect("no panic while listening"), b"first");
    while shard.counters().room_awaited_since_us.value() == 0 {
        std::thread::yield_now();
    }
    log.script().full = false;
    let mut back = [0; 6];
    client.read_exact(&mut back).expect("the echo, once there is room");
    assert_eq!(&back, b"second");
    while shard.counters().room_awaited_since_us.value() != 0 {
        std::thread::yield_now();
    }
}

/// A bare relay that tells the control thread of every answer.
struct Announcer(BareRelay);

impl Drive for Announcer {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        if matches!(input, Input::Bytes(Side::Target)) {
            cx.control.push(ToControl::SessionClosed(SessionKey { process: 1, shard: 0, relay: 2 }));
        }
        self.0.handle(input, pipes, cx);
    }
    fn poll(&mut self) -> Output {
        self.0.poll()
    }
}

#[test]
fn the_control_thread_is_told_before_the_client_reads_what_it_may_ask_about() {
    let log = FakeLog::default();
    log.script().pause = Duration::from_millis(20);
    let target = peer(echo);
    let mut shard = Shard::start(options(), Box::new(log), move |_, _| Announcer(BareRelay::new(target.clone())));
    let mut client = shard.connect();
    for _ in 0..5 {
        client.write_all(b"x").expect("the shard reads");
        client.read_exact(&mut [0]).expect("the echo");
        assert!(matches!(shard.control.try_recv(), Ok(ToControl::SessionClosed(_))), "nobody would know the ticket");
    }
}

/// A bare relay whose statement waits for a ruling.
struct Holder(BareRelay);

impl Drive for Holder {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        self.0.handle(input, pipes, cx);
    }
    fn poll(&mut self) -> Output {
        self.0.poll()
    }
    fn cancel(&mut self) -> Cancels {
        Cancels::Held(TicketId("0-held".into()))
    }
}

#[test]
fn a_cancel_request_that_ends_what_is_held_does_not_go_to_the_target() {
    let target = peer(echo);
    let drive = target.clone();
    let mut shard =
        Shard::start(options(), Box::new(FakeLog::default()), move |_, _| Holder(BareRelay::new(drive.clone())));
    let mut client = shard.connect();
    say(&mut client, b"first");
    for (relay, held) in [(1 << 32, true), (77 << 32, false)] {
        let cancel = Cancel { target: target.clone(), process: 1, secret: Box::default(), waiter: Some((0, relay)) };
        shard.handle().post.send(ToShard::Cancel { relay, cancel: Box::new(cancel) });
        match shard.control.blocking_recv() {
            Some(ToControl::CancelHeld { ticket, waiter }) if held => {
                assert_eq!((&*ticket.0, waiter), ("0-held", Some((0, relay))));
            }
            Some(ToControl::PassCancel(_)) if !held => {}
            _ => panic!("relay {relay}"),
        }
    }
}

/// A bare relay whose statement is decided when keys come.
struct Undecided(BareRelay, bool);

impl Drive for Undecided {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        self.1 |= matches!(input, Input::Keys(_));
        self.0.handle(input, pipes, cx);
    }
    fn poll(&mut self) -> Output {
        self.0.poll()
    }
    fn cancel(&mut self) -> Cancels {
        if self.1 { Cancels::Running } else { Cancels::Undecided }
    }
}

#[test]
fn a_cancel_request_waits_for_a_statement_that_is_not_decided_yet() {
    let target = peer(echo);
    let drive = target.clone();
    let mut shard = Shard::start(options(), Box::new(FakeLog::default()), move |_, _| {
        Undecided(BareRelay::new(drive.clone()), false)
    });
    let mut client = shard.connect();
    say(&mut client, b"first");
    let relay = 1 << 32;
    let cancel = Cancel { target, process: 1, secret: Box::default(), waiter: Some((0, relay)) };
    shard.handle().post.send(ToShard::Cancel { relay, cancel: Box::new(cancel) });
    // Rounds in which it would have been passed on.
    (0..3).for_each(|_| say(&mut client, b"again"));
    assert!(shard.control.try_recv().is_err(), "it would find nothing to cancel");
    shard.handle().post.send(ToShard::Keys { relay, keys: Err("none".into()) });
    assert!(matches!(shard.control.blocking_recv(), Some(ToControl::PassCancel(_))));
}

/// Asks the shard about a cancel request; when the answer has come, it may go to the target.
fn may_be_cancelled(shard: &mut Shard, relay: u64) {
    let cancel = Cancel { target: target(Vec::new()), process: 1, secret: Box::default(), waiter: Some((0, relay)) };
    shard.handle().post.send(ToShard::Cancel { relay, cancel: Box::new(cancel) });
    match shard.control.blocking_recv() {
        Some(ToControl::PassCancel(cancel)) => assert_eq!(cancel.waiter, Some((0, relay))),
        _ => panic!("nobody would pass the cancel request on"),
    }
}

#[test]
fn a_cancel_request_does_not_overtake_a_statement_that_waits_for_its_record() {
    let (mut shard, log, _) = recording(Mode::Strict);
    // With a neighbour: for one alone the shard itself waits for the disk.
    let (mut client, mut neighbour) = (shard.connect(), shard.connect());
    say(&mut client, b"first");
    say(&mut neighbour, b"too");
    // A file with this much to bring to the disk takes its time.
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&vec![7; 64 << 20]).expect("room for it");
    log.script().sync = Some(file);
    let (written, synced) = (log.script().writes, shard.counters().journal_syncs.value());
    client.write_all(b"slow").expect("the shard reads");
    while log.script().writes == written {
        std::thread::yield_now();
    }
    may_be_cancelled(&mut shard, 1 << 32);
    assert!(shard.counters().journal_syncs.value() > synced, "the statement was still here");
    client.read_exact(&mut [0; 4]).expect("the echo");
    // With nothing that waits, and for a session that is no more.
    may_be_cancelled(&mut shard, 1 << 32);
    may_be_cancelled(&mut shard, 77 << 32);
}
