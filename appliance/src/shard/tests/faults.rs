//! What goes wrong stays with whom it concerns.

use super::*;
use std::sync::mpsc;
use std::thread;

/// A bare relay that tells the test what it was told, and panics when asked to.
struct Teller {
    bare: BareRelay,
    news: mpsc::Sender<String>,
}

impl Drive for Teller {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        if pipes.client.undecided().starts_with(b"boom") {
            panic!("asked for by the test");
        }
        match &input {
            Input::ConnectFailed(reason) => self.news.send(format!("connect: {reason}")).expect("the test listens"),
            Input::Kill(reason) => self.news.send(format!("kill: {reason}")).expect("the test listens"),
            Input::Wake => self.news.send("wake".into()).expect("the test listens"),
            _ => {}
        }
        self.bare.handle(input, pipes, cx);
    }
    fn poll(&mut self) -> Output {
        self.bare.poll()
    }
    fn idle(&self) -> bool {
        true
    }
}

fn teller(target: Arc<Target>) -> (Shard, mpsc::Receiver<String>) {
    let (news, told) = mpsc::channel();
    let shard = Shard::start(options(), Box::new(NoLog::default()), move |_, _| Teller {
        bare: BareRelay::new(target.clone()),
        news: news.clone(),
    });
    (shard, told)
}

/// A port nobody listens on: bound, never listening, held until dropped.
fn refusing() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(loopback()).expect("a free port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

fn closed_port() -> SocketAddr {
    let (listener, address) = refusing();
    drop(listener);
    address
}

fn assert_ends(mut client: TcpStream) {
    assert_eq!(client.read(&mut [0; 16]).unwrap_or(0), 0, "the shard closes the client");
}

#[test]
fn a_refused_connect_names_each_address_and_closes_the_client() {
    let (first, second) = (closed_port(), closed_port());
    let (shard, told) = teller(target(vec![first, second]));
    let mut client = shard.connect();
    client.write_all(b"x").expect("the shard reads");
    let reason = told.recv_timeout(PATIENCE).expect("the drive is told");
    assert!(reason.contains(&first.to_string()) && reason.contains(&second.to_string()), "{reason}");
    assert!(reason.contains("refused"), "{reason}");
    assert_ends(client);
}

#[test]
fn a_target_without_addresses_fails_at_once() {
    let (shard, told) = teller(target(Vec::new()));
    let mut client = shard.connect();
    client.write_all(b"x").expect("the shard reads");
    assert_eq!(told.recv_timeout(PATIENCE).expect("the drive is told"), "connect: peer has no known address");
    assert_ends(client);
}

#[test]
fn the_second_address_serves_when_the_first_refuses() {
    let shard = Shard::bare(options(), target(vec![closed_port(), listening(echo)]));
    let sent = Dice(1).bytes(1000);
    assert!(exchange(shard.connect(), &sent, 100, 1) == sent);
}

#[test]
fn a_panicking_drive_takes_nobody_with_it() {
    let (shard, _told) = teller(peer(echo));
    let mut neighbour = shard.connect();
    neighbour.write_all(b"before").expect("the shard reads");
    neighbour.read_exact(&mut [0; 6]).expect("the echo");
    let mut victim = shard.connect();
    victim.write_all(b"boom").expect("the shard reads");
    assert_ends(victim);
    neighbour.write_all(b"after").expect("the shard still reads");
    let mut back = [0; 5];
    neighbour.read_exact(&mut back).expect("the echo");
    assert_eq!((&back, shard.counters().panics.value()), (b"after", 1));
}

#[test]
fn a_drained_shard_ends_idle_sessions_refuses_new_ones_and_says_so() {
    let (mut shard, told) = teller(peer(echo));
    let mut client = shard.connect();
    client.write_all(b"hello").expect("the shard reads");
    client.read_exact(&mut [0; 5]).expect("the echo");
    let silent = shard.connect();
    shard.handle().post.send(ToShard::Drain { now: false });
    assert_eq!(told.recv_timeout(PATIENCE).expect("the drive is told"), "kill: the gateway is shutting down");
    assert_ends(client);
    assert_ends(silent);
    assert_eq!(shard.fault(), None);
}

#[test]
fn a_killed_session_ends_and_a_stale_id_reaches_nobody() {
    let (news, told) = mpsc::channel();
    let (ids, relays) = mpsc::channel();
    let target = peer(echo);
    let shard = Shard::start(options(), Box::new(NoLog::default()), move |origin, _| {
        ids.send(origin.relay).expect("the test listens");
        Teller { bare: BareRelay::new(target.clone()), news: news.clone() }
    });
    let open = || {
        let mut client = shard.connect();
        client.write_all(b"hello").expect("the shard reads");
        client.read_exact(&mut [0; 5]).expect("the echo");
        (client, relays.recv_timeout(PATIENCE).expect("a drive was made"))
    };
    let kill = |relay| shard.handle().post.send(ToShard::Kill { relay, session: String::new() });
    let (first, first_id) = open();
    kill(first_id);
    assert!(told.recv_timeout(PATIENCE).expect("the drive is told").starts_with("kill:"));
    assert_ends(first);
    let (mut second, second_id) = open();
    assert_ne!(first_id, second_id);
    kill(first_id);
    kill(second_id ^ 1 << 32);
    second.write_all(b"again").expect("the shard still reads");
    second.read_exact(&mut [0; 5]).expect("the echo");
    assert!(told.try_recv().is_err());
}

#[test]
fn a_taken_address_is_named_before_the_shard_starts() {
    let (holder, address) = refusing();
    let listener = ListenerOptions { address, tls: None, allow_plaintext: true };
    let (to_control, _control) = tokio::sync::mpsc::unbounded_channel();
    let options = ShardOptions { listeners: vec![listener], ..ShardOptions::default() };
    let peer = target(Vec::new());
    let snapshot = Arc::new(Snapshot::empty());
    let started =
        start(options, snapshot, Box::new(NoLog::default()), to_control, move |_, _| BareRelay::new(peer.clone()));
    let Err(error) = started else { panic!("two listeners on one address") };
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    drop(holder);
}

#[test]
fn two_shards_share_one_address() {
    let first = Shard::bare(options(), peer(echo));
    let listener = ListenerOptions { address: first.handle().addresses[0], tls: None, allow_plaintext: true };
    let second = Shard::bare(ShardOptions { listeners: vec![listener], number: 1, ..options() }, peer(echo));
    for seed in 1..40 {
        let sent = Dice(seed).bytes(100);
        assert!(exchange(first.connect(), &sent, 100, seed) == sent);
    }
    let accepted = [first.counters().accepted.value(), second.counters().accepted.value()];
    assert_eq!(accepted.iter().sum::<u64>(), 39);
    assert!(accepted.iter().all(|count| *count > 0), "the kernel spreads connections: {accepted:?}");
}

/// Two shards on one address that even out their connections.
fn balanced() -> [Shard; 2] {
    let balance = Balance::of(2);
    let shard = |number: usize, address: SocketAddr| {
        let listener = ListenerOptions { address, tls: None, allow_plaintext: true };
        let options =
            ShardOptions { number, balance: balance.clone(), listeners: vec![listener], ..ShardOptions::default() };
        Shard::bare(options, peer(echo))
    };
    let first = shard(0, loopback());
    let second = shard(1, first.handle().addresses[0]);
    balance.begin([&first, &second].map(|shard| shard.handle().post.clone()).into());
    [first, second]
}

/// A connection that has been served: something came back through it.
fn served(shard: &Shard) -> TcpStream {
    let mut socket = shard.connect();
    socket.write_all(b"hello").expect("a shard reads");
    socket.read_exact(&mut [0; 5]).expect("a shard answers");
    socket
}

#[test]
fn connections_opened_one_after_another_are_shared_evenly_and_again_after_some_close() {
    let shards = balanced();
    let alive = || shards.each_ref().map(|shard| shard.counters().relays.value());
    let mut open: Vec<TcpStream> = (0..8).map(|_| served(&shards[0])).collect();
    assert_eq!(alive(), [4, 4]);
    for seed in 1..6 {
        let mut dice = Dice(seed);
        for _ in 0..5 {
            open.swap_remove(dice.below(open.len()));
        }
        // Gone when the shard has seen the end; a connection opened before that would be dealt by the old numbers.
        while alive().iter().sum::<u64>() > 3 {
            std::thread::yield_now();
        }
        open.extend((0..5).map(|_| served(&shards[0])));
        assert_eq!(alive(), [4, 4], "seed {seed}");
    }
    let [first, second] = &shards;
    assert!(first.counters().adopted.value() + second.counters().adopted.value() > 0, "the hash alone was even");
}

#[test]
fn connections_go_on_when_one_of_two_shards_has_ended() {
    let [first, second] = balanced();
    let _held: Vec<TcpStream> = (0..4).map(|_| served(&first)).collect();
    drop(second);
    let later: Vec<TcpStream> = (0..6).map(|_| served(&first)).collect();
    assert_eq!(first.counters().relays.value(), 2 + later.len() as u64);
}

/// Asks to be woken, and closes when it is.
struct Sleeper {
    wish: Option<Output>,
}

impl Drive for Sleeper {
    fn handle(&mut self, input: Input, _: &mut Pipes<'_>, cx: &mut Context<'_>) {
        match input {
            Input::Bytes(_) => self.wish = Some(Output::WakeAt(cx.now.mono_us + 20_000)),
            Input::Wake | Input::Ended(_) | Input::Kill(_) => self.wish = Some(Output::Close),
            _ => {}
        }
    }
    fn poll(&mut self) -> Output {
        self.wish.take().unwrap_or(Output::Idle)
    }
}

#[test]
fn a_deadline_wakes_its_drive_and_not_before() {
    let shard = Shard::start(options(), Box::new(NoLog::default()), |_, _| Sleeper { wish: None });
    let mut client = shard.connect();
    let begun = std::time::Instant::now();
    client.write_all(b"x").expect("the shard reads");
    assert_ends(client);
    assert!(begun.elapsed() >= Duration::from_micros(20_000));
}

/// A bare relay that tells how often it was let rest.
struct Rester {
    bare: BareRelay,
    rests: mpsc::Sender<()>,
}

impl Drive for Rester {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        self.bare.handle(input, pipes, cx);
    }
    fn poll(&mut self) -> Output {
        self.bare.poll()
    }
    fn rest(&mut self) {
        self.rests.send(()).expect("the test listens");
    }
    fn idle(&self) -> bool {
        true
    }
}

#[test]
fn whoever_falls_silent_rests_once_and_works_again_afterwards() {
    let (rests, rested) = mpsc::channel();
    let target = peer(echo);
    let options = impatient(|deadlines| deadlines.rest_us = 20_000);
    let shard = Shard::start(options, Box::new(NoLog::default()), move |_, _| Rester {
        bare: BareRelay::new(target.clone()),
        rests: rests.clone(),
    });
    let mut client = shard.connect();
    for _ in 0..3 {
        client.write_all(b"hello").expect("the shard reads");
        client.read_exact(&mut [0; 5]).expect("the echo");
        rested.recv_timeout(Duration::from_secs(10)).expect("silent for long enough");
        assert!(rested.recv_timeout(Duration::from_millis(100)).is_err(), "it rests already");
    }
}

#[test]
fn this_host_can_run_a_shard() {
    let findings = probe();
    assert!(findings.iter().all(|finding| finding.ok), "{findings:?}");
}

fn impatient(change: impl FnOnce(&mut Deadlines)) -> ShardOptions {
    let mut options = options();
    change(&mut options.deadlines);
    options
}

#[test]
fn a_client_that_says_nothing_is_closed() {
    let shard = Shard::bare(impatient(|deadlines| deadlines.login_us = 10_000), peer(echo));
    assert_ends(shard.connect());
}

#[test]
fn the_time_of_a_login_runs_from_the_accept() {
    let (news, told) = mpsc::channel();
    let target = peer(echo);
    let options = impatient(|deadlines| deadlines.login_us = 60_000_000);
    let shard = Shard::start(options, Box::new(NoLog::default()), move |origin, cx| {
        let _ = news.send(origin.login_by_us - cx.now.mono_us);
        BareRelay::new(target.clone())
    });
    let mut client = shard.connect();
    thread::sleep(Duration::from_millis(50));
    client.write_all(b"x").expect("the shard reads");
    let left_us = told.recv_timeout(PATIENCE).expect("a drive is made");
    assert!(left_us < 59_975_000, "the first byte gave it all of its time again: {left_us} us are left");
}

#[test]
fn a_client_that_never_reads_is_closed_and_its_drive_is_told() {
    let (news, told) = mpsc::channel();
    let target = peer(|mut socket| while socket.write_all(&[1; 64 << 10]).is_ok() {});
    let shard =
        Shard::start(impatient(|deadlines| deadlines.stalled_us = 50_000), Box::new(NoLog::default()), move |_, _| {
            Teller { bare: BareRelay::new(target.clone()), news: news.clone() }
        });
    let mut client = shard.connect();
    client.write_all(b"x").expect("the shard reads");
    assert_eq!(
        told.recv_timeout(PATIENCE).expect("the drive is told"),
        "kill: the peer did not read what was sent to it"
    );
    let mut received = Vec::new();
    let _ = client.read_to_end(&mut received);
    assert_eq!(shard.counters().stalled.value(), 1);
}

/// One that reads a little again and again is none, though our kernel takes nothing more for it meanwhile.
#[test]
fn a_client_that_reads_slowly_is_not_taken_for_one_that_never_reads() {
    let target = peer(|mut socket| while socket.write_all(&[1; 64 << 10]).is_ok() {});
    let shard = Shard::bare(impatient(|deadlines| deadlines.stalled_us = 3_000_000), target);
    let mut client = shard.connect();
    client.write_all(b"x").expect("the shard reads");
    let mut bytes = vec![0; 64 << 10];
    for _ in 0..50 {
        client.read_exact(&mut bytes).expect("the shard sends");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(shard.counters().stalled.value(), 0);
}

/// A listener whose backlog is full: the kernel drops every further SYN, as a host that is gone would.
fn unanswering() -> (TcpListener, Vec<TcpStream>) {
    let (listener, address) = refusing();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
    let waiting = std::iter::from_fn(connect).collect();
    (listener, waiting)
}

#[test]
fn a_connect_that_nobody_answers_ends_in_time_and_turns_to_the_next_address() {
    let (listener, _waiting) = unanswering();
    let addresses = vec![listener.local_addr().expect("bound"), listening(echo)];
    let shard = Shard::bare(impatient(|deadlines| deadlines.connect_us = 200_000), target(addresses));
    let sent = Dice(1).bytes(1000);
    assert!(exchange(shard.connect(), &sent, 100, 1) == sent);
    assert_eq!(shard.counters().connect_failures.value(), 1);
}

/// Sends everything the target says, and closes at its first word.
struct LastWords {
    bare: BareRelay,
    close: bool,
}

impl Drive for LastWords {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        self.close |= matches!(input, Input::Bytes(Side::Target));
        self.bare.handle(input, pipes, cx);
    }
    fn poll(&mut self) -> Output {
        if std::mem::take(&mut self.close) { Output::Close } else { self.bare.poll() }
    }
}

#[test]
fn last_words_reach_a_client_that_is_still_talking() {
    let target = peer(|mut socket| {
        socket.read_exact(&mut [0; 1]).expect("the client's first byte");
        socket.write_all(b"FATAL: goodbye").expect("the shard reads");
        // Neither reads on nor closes: what the client says piles up in the shard and before it.
        std::mem::forget(socket);
    });
    let options = impatient(|deadlines| deadlines.linger_us = 100_000);
    let shard = Shard::start(options, Box::new(NoLog::default()), move |_, _| LastWords {
        bare: BareRelay::new(target.clone()),
        close: false,
    });
    for _ in 0..5 {
        let mut client = shard.connect();
        let mut talking = client.try_clone().expect("a second handle");
        let talk = std::thread::spawn(move || while talking.write_all(&[1; 100_000]).is_ok() {});
        let mut words = Vec::new();
        client.read_to_end(&mut words).expect("the words, then the end, and no reset");
        assert_eq!(words, b"FATAL: goodbye");
        talk.join().expect("ends once the shard has closed");
    }
}

#[test]
fn a_full_shard_turns_connections_away() {
    let shard = Shard::bare(ShardOptions { relays_max: 1, ..options() }, peer(echo));
    let mut first = shard.connect();
    first.write_all(b"x").expect("the shard reads");
    first.read_exact(&mut [0; 1]).expect("the echo");
    assert_ends(shard.connect());
    assert_eq!(shard.counters().turned_away.value(), 1);
}
