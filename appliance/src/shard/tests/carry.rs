//! Bytes arrive whole, in order, both ways, whatever the sizes, the buffers and the readers.

use super::*;

fn check_echo(options: ShardOptions, connections: u64, bytes: usize, piece_max: usize) -> u64 {
    let shard = Shard::bare(options, peer(echo));
    std::thread::scope(|scope| {
        for seed in 1..=connections {
            let socket = shard.connect();
            scope.spawn(move || {
                let sent = Dice(seed).bytes(bytes);
                let received = exchange(socket, &sent, piece_max, seed);
                assert!(
                    received == sent,
                    "seed {seed}: {} bytes came back, first differing at {:?}",
                    received.len(),
                    received.iter().zip(&sent).position(|(a, b)| a != b)
                );
            });
        }
    });
    shard.counters().starved.value()
}

#[test]
fn random_sizes_come_back_identical() {
    check_echo(options(), 4, 1 << 20, 100_000);
    check_echo(options(), 4, 20_000, 50);
}

#[test]
fn running_out_of_buffers_loses_and_reorders_nothing() {
    let options = ShardOptions { buffers: 2, buffer_bytes: 512, ..options() };
    let starved = check_echo(options, 8, 300_000, 20_000);
    assert!(starved > 0, "two buffers were enough for eight connections: the test proves nothing");
}

#[test]
fn a_relay_with_more_than_its_share_waits_for_its_next_turn_and_keeps_its_order() {
    let shard = Shard::bare(options(), peer(echo));
    let sent = Dice(11).bytes(8 << 20);
    let received = exchange(shard.connect(), &sent, 1 << 20, 11);
    assert!(received == sent, "bytes were lost or changed places");
    assert!(shard.counters().deferred.value() > 0, "nothing ever waited: the test proves nothing");
}

#[test]
fn a_full_submission_queue_loses_nothing() {
    check_echo(ShardOptions { ring_entries: 2, ..options() }, 16, 50_000, 5_000);
}

#[test]
fn looking_before_sleeping_carries_as_well() {
    let shard = Shard::bare(ShardOptions { spin_us: 10_000, ..options() }, peer(echo));
    let mut socket = shard.connect();
    let mut sent = 0;
    // On a machine that is busy it takes a while until it tries, and some of it is in vain.
    while shard.counters().spun_us.value() == 0 || sent < 1_000 {
        assert!(sent < 100_000, "it never looked");
        let (byte, mut back) = ([sent as u8], [0]);
        socket.write_all(&byte).and_then(|()| socket.read_exact(&mut back)).expect("an echo");
        assert_eq!(back, byte);
        sent += 1;
    }
}

#[test]
fn a_reader_that_stops_holds_back_the_writer_and_still_gets_everything() {
    const OFFERED: usize = 256 << 20;
    let (report, accepted) = std::sync::mpsc::channel();
    let target = peer(move |mut socket| {
        let mut first = [0];
        socket.read_exact(&mut first).expect("the client's first byte");
        socket.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout above zero");
        let block = [7; 64 << 10];
        let mut written = 0;
        while written < OFFERED {
            match socket.write(&block) {
                Ok(count) => written += count,
                // Held back: nobody took a byte for half a second.
                Err(_) => break,
            }
        }
        report.send(written).expect("the test waits");
    });
    let shard = Shard::bare(options(), target);
    let mut client = shard.connect();
    client.write_all(b"x").expect("the shard reads");
    let written = accepted.recv_timeout(PATIENCE).expect("the target is held back");
    // The kernel's own buffers, four of them, hold a few megabytes each.
    assert!(written < OFFERED / 4, "{written} bytes were taken from the target although nobody reads");
    assert!(shard.counters().target_bytes.value() <= written as u64);
    let mut received = Vec::new();
    client.read_to_end(&mut received).expect("everything, then the end");
    assert_eq!(received.len(), written);
    assert!(received.iter().all(|byte| *byte == 7));
}

#[test]
fn slow_readers_leave_buffers_to_their_neighbours() {
    let target = peer(|mut socket| {
        let mut kind = [0];
        socket.read_exact(&mut kind).expect("the client's first byte");
        match kind[0] {
            b'f' => while socket.write_all(&[1; 1000]).is_ok() {},
            _ => echo(socket),
        }
    });
    let options = ShardOptions { buffers: 8, buffer_bytes: 4096, ..options() };
    let shard = Shard::bare(options, target);
    let mut stuck: Vec<TcpStream> = (0..12).map(|_| shard.connect()).collect();
    stuck.iter_mut().for_each(|client| client.write_all(b"f").expect("the shard reads"));
    // Each flood has begun: its first bytes are here.
    stuck.iter_mut().for_each(|client| client.read_exact(&mut [0]).expect("the flood"));
    let mut client = shard.connect();
    client.write_all(b"e").expect("the shard reads");
    let sent = Dice(3).bytes(200_000);
    assert!(exchange(client, &sent, 9_000, 3) == sent);
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let target = peer(|mut socket| {
        let mut everything = Vec::new();
        socket.read_to_end(&mut everything).expect("the client's end is passed on");
        everything.reverse();
        socket.write_all(&everything).expect("the client still reads");
    });
    let shard = Shard::bare(options(), target);
    let mut client = shard.connect();
    let sent = Dice(9).bytes(100_000);
    client.write_all(&sent).expect("the shard reads");
    client.shutdown(std::net::Shutdown::Write).expect("connected");
    let mut received = Vec::new();
    client.read_to_end(&mut received).expect("the answer, then the end");
    received.reverse();
    assert!(received == sent);
}

/// Holds what comes after the target is connected until all of it is there, then lets it go at once.
struct WholeMessage {
    bare: BareRelay,
    left: usize,
    connected: bool,
}

impl Drive for WholeMessage {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let undecided = pipes.client.undecided().len();
        if matches!(input, Input::Connected) {
            self.connected = true;
            self.left -= undecided;
        } else if matches!(input, Input::Bytes(Side::Client)) && self.connected && undecided < self.left {
            return;
        }
        self.bare.handle(input, pipes, cx);
    }
    fn poll(&mut self) -> Output {
        self.bare.poll()
    }
}

#[test]
fn a_message_larger_than_any_buffer_is_gathered_and_passed_whole() {
    const LEN: usize = 3 << 20;
    let target = peer(echo);
    let shard = Shard::start(options(), Box::new(NoLog::default()), move |_, _| WholeMessage {
        bare: BareRelay::new(target.clone()),
        left: LEN,
        connected: false,
    });
    let sent = Dice(5).bytes(LEN);
    assert!(exchange(shard.connect(), &sent, 70_000, 5) == sent);
}
