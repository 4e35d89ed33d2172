//! Garbage, silence, floods and hostile targets: an error or a close within the deadline, and neighbours undisturbed.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::postgres::PASSWORD;
use crate::harness::process::eventually;
use crate::harness::scripted::{Behaviour, ScriptedTarget};
use crate::harness::wire::{self, SYNC, Wire, complaint, message, parse, password, query, startup, tags};
use crate::harness::{Endpoint, PrivatePostgres, Report, Settings};

const LOGIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Beyond the gateway's own deadlines, for a machine with other work to do.
const GRACE: Duration = Duration::from_secs(5);
/// What one misbehaving session may cost: its windows and buffers, far below what it asks for.
const MEMORY_KIB_MAX: u64 = 96 * 1024;

/// Under a mask every row is taken apart, so that one which lies is found out.
const WATCHED: &str = "[[mask]]\ntargets = [\"hostile\"]\ndetect = [\"card\"]\nstyle = \"fill\"\n\
                       [[rule]]\nname = \"no\"\ntargets = [\"mortal\"]\nwords = [\"nobody_calls_this\"]\naction = \"deny\"\n";

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let hostile = ScriptedTarget::start()?;
    let mortal = PrivatePostgres::start(&settings.run_dir, "mortal")?;
    let target = |name: &str, port: u16| {
        format!(
            "[[target]]\nname = \"{name}\"\nprotocol = \"postgres\"\naddress = \"127.0.0.1:{port}\"\ndatabase = \"shop\"\n\
             user = \"service\"\npassword_env = \"TARGET_PASSWORD\"\ntls = \"disable\"\nrequire_auth = \"none\"\n"
        )
    };
    let setup = Setup {
        server: format!("login_timeout = \"{}s\"\nconnect_timeout = \"2s\"\n", LOGIN_TIMEOUT.as_secs()),
        more: format!("{}{}{WATCHED}", target("hostile", hostile.port), target("mortal", mortal.port)),
        ..Setup::default()
    };
    let world = World::start(settings, "faults", &setup)?;
    let endpoint = world.endpoint("ada@example.com", &["engineering"], false);
    for (name, bytes) in garbage_before_login() {
        undisturbed(report, &world, &format!("garbage before login: {name}"), || garbage_at_open(&endpoint, &bytes));
    }
    for (name, bytes) in garbage_for_password() {
        undisturbed(report, &world, &format!("garbage for a password: {name}"), || garbage_at_login(&endpoint, &bytes));
    }
    for (name, bytes) in garbage_in_session() {
        undisturbed(report, &world, &format!("garbage in a session: {name}"), || {
            garbage_after_login(&endpoint, &bytes)
        });
    }
    undisturbed(report, &world, "garbage in a COPY", || garbage_in_copy(&endpoint));
    undisturbed(report, &world, "a client that never speaks", || silent(&endpoint, &[]));
    undisturbed(report, &world, "a client that asks for TLS and never speaks it", || silent(&endpoint, &SSL_REQUEST));
    undisturbed(report, &world, "a client that sends half a start-up message", || {
        silent(&endpoint, &startup(&[("user", "u"), ("database", "orders")])[..11])
    });
    undisturbed(report, &world, "a client that never sends its password", || {
        silent(&endpoint, &startup(&[("user", "u"), ("database", "orders")]))
    });
    undisturbed(report, &world, "a client that trickles", || trickle(&endpoint));
    undisturbed(report, &world, "fifty clients that never speak", || many_silent(&endpoint));
    if settings.direct {
        return Ok(()); // the rest is about the gateway's memory, its targets and how it keeps them apart
    }
    undisturbed(report, &world, "a client that never reads", || never_reads(&world, &endpoint));
    undisturbed(report, &world, "a client that floods and never reads", || floods(&world, &endpoint));
    undisturbed(report, &world, "a client that floods with what is refused and never reads", || {
        floods_with_refused(&world, &endpoint.with_dbname("mortal"))
    });
    undisturbed(report, &world, "a client that leaves in the middle of a result", || leaves(&endpoint));
    undisturbed(report, &world, "a client that leaves while its statement runs", || leaves_running(&world, &endpoint));
    undisturbed(report, &world, "a target that dies in the middle of a result, and comes back", || {
        target_dies(&mortal, &endpoint.with_dbname("mortal"))
    });
    for behaviour in Behaviour::IN_LOGIN {
        undisturbed(report, &world, &format!("a target that {}", behaviour.description()), || {
            hostile_login(&hostile, *behaviour, &endpoint.with_dbname("hostile"))
        });
    }
    for behaviour in Behaviour::IN_SESSION {
        undisturbed(report, &world, &format!("a target that {}", behaviour.description()), || {
            hostile_session(&hostile, *behaviour, &endpoint.with_dbname("hostile"))
        });
    }
    report.case("and the gateway still answers", || {
        ensure!(Wire::connect(&endpoint)?.value("SELECT 'on'")? == "on");
        world.gateway().ops("/readyz").map(drop)
    });
    Ok(())
}

/// Runs a case while another session works; its statements must all succeed, none may take long.
fn undisturbed(report: &mut Report, world: &World, name: &str, case: impl FnOnce() -> Result<()>) {
    report.case(name, || {
        let neighbour = Neighbour::start(&world.endpoint("nia@example.com", &["engineering"], false))?;
        let result = case();
        let slowest = neighbour.stop().context("the neighbour was disturbed")?;
        ensure!(slowest < Duration::from_secs(3), "the neighbour waited {} ms", slowest.as_millis());
        result
    });
}

struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<Duration>>,
}

impl Neighbour {
    fn start(endpoint: &Endpoint) -> Result<Neighbour> {
        let mut wire = Wire::connect(endpoint).context("the neighbour does not get in")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            loop {
                let began = Instant::now();
                ensure!(wire.value("SELECT 'neighbour'")? == "neighbour");
                slowest = slowest.max(began.elapsed());
                if stopped.load(Ordering::Relaxed) {
                    return Ok(slowest);
                }
                thread::sleep(Duration::from_millis(2)); // a pace, not a wait: leaves the processors to what is tested
            }
        });
        Ok(Neighbour { stop, thread })
    }

    fn stop(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the neighbour panicked"))?
    }
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

fn garbage_before_login() -> Vec<(&'static str, Vec<u8>)> {
    let length = |length: u32| [&length.to_be_bytes()[..], &[0, 3, 0, 0], b"user\0u\0\0"].concat();
    let startup = startup(&[("user", "u"), ("database", "orders")]);
    vec![
        ("random bytes", noise(4_096)),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a TLS hello without asking", [&[0x16, 3, 1, 2, 0, 1][..], &noise(600)].concat()),
        ("a length of 0", length(0)),
        ("a length of 3", length(3)),
        ("a length of 2^31", length(1 << 31)),
        ("a length of 2^32 - 1", length(u32::MAX)),
        ("an unknown major version", [&[0, 0, 0, 16, 0, 9, 0, 0][..], b"user\0u\0\0"].concat()),
        ("parameters without an end", [&[0, 0, 0, 13, 0, 3, 0, 0][..], b"user\0"].concat()),
        ("a parameter without a value", [&[0, 0, 0, 14, 0, 3, 0, 0][..], b"user\0\0"].concat()),
        ("bytes behind an SSLRequest, before the handshake", [&SSL_REQUEST[..], &startup].concat()),
        ("a cancel request for nobody", [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 1].to_vec()),
        ("a cancel request with a short key", [0, 0, 0, 12, 4, 210, 22, 46, 0, 0, 0, 1].to_vec()),
    ]
}

fn garbage_for_password() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("random bytes", noise(512)),
        ("a query before the password", query("SELECT 1")),
        ("a length of 2^31", [&b"p"[..], &(1_u32 << 31).to_be_bytes(), b"x"].concat()),
        ("a length of 0", [&b"p"[..], &0_u32.to_be_bytes(), b"x"].concat()),
        ("16 MiB of it", password(&"x".repeat(16 << 20))),
        ("a password without an end", message(b'p', b"no zero at the end")),
        ("an unexpected SASL answer", message(b'p', b"SCRAM-SHA-256\0\0\0\0\x04n,,x")),
    ]
}

fn garbage_in_session() -> Vec<(&'static str, Vec<u8>)> {
    let overlong = |tag: u8| [&[tag][..], &u32::MAX.to_be_bytes(), b"x"].concat();
    vec![
        ("random bytes", [&[0xff][..], &noise(512)].concat()),
        ("an unknown type", message(0xff, b"what")),
        ("a length of 0", b"Q\0\0\0\0".to_vec()),
        ("a length of 3", b"Q\0\0\0\x03".to_vec()),
        ("a query of 2^32 - 1 bytes", overlong(b'Q')),
        ("a bind of 2^32 - 1 bytes", overlong(b'B')),
        ("a query without an end", message(b'Q', b"SELECT 1")),
        ("a query with a zero inside", message(b'Q', b"SELECT 1\0; DROP TABLE x\0")),
        ("a query that is not UTF-8", message(b'Q', b"SELECT '\xff\xfe'\0")),
        ("a parse without an end", message(b'P', b"name")),
        ("a parse with a count that lies", message(b'P', b"\0SELECT 1\0\x7f\xff")),
        ("a bind with a count that lies", [parse("", "SELECT 1"), message(b'B', b"\0\0\0\0\x7f\xff\0\0")].concat()),
        (
            "a bind with a length that lies",
            [parse("", "SELECT 1"), message(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0")].concat(),
        ),
        ("an execute cut short", message(b'E', b"\0\0\0")),
        ("a describe of nothing known", message(b'D', b"Xname\0")),
        ("COPY data without a COPY", [message(b'd', b"data"), message(b'c', b""), SYNC.to_vec()].concat()),
        ("a password after the login", password("again")),
        ("a server's message", message(b'Z', b"I")),
        ("a function call", [message(b'F', b"\0\0\0\x01\0\0\0\0\0\0"), SYNC.to_vec()].concat()),
    ]
}

/// Bytes that look random and are the same in every run: xorshift from a fixed seed.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// After the garbage: an error or a close, in time. Nothing but errors may be read.
fn ends_in_time(wire: &mut Wire, within: Duration) -> Result<()> {
    wire.stream.set_read_timeout(Some(within + GRACE))?;
    let began = Instant::now();
    let mut answer = Vec::new();
    // A reset is a close too.
    if let Err(error) = wire.stream.read_to_end(&mut answer) {
        ensure!(error.kind() == std::io::ErrorKind::ConnectionReset, "still open after {:?}: {error}", began.elapsed());
    }
    Ok(())
}

fn garbage_at_open(endpoint: &Endpoint, bytes: &[u8]) -> Result<()> {
    let mut wire = Wire::open(endpoint)?;
    let _ = wire.send(bytes); // the gateway may close before it took everything
    ends_in_time(&mut wire, LOGIN_TIMEOUT)
}

fn garbage_at_login(endpoint: &Endpoint, bytes: &[u8]) -> Result<()> {
    let mut wire = Wire::open(endpoint)?;
    wire.send(&startup(&[("user", &endpoint.user), ("database", &endpoint.dbname)]))?;
    let asked = wire.read()?;
    ensure!(asked.tag == b'R', "{asked:?}");
    let _ = wire.send(bytes);
    ends_in_time(&mut wire, LOGIN_TIMEOUT)
}

fn garbage_after_login(endpoint: &Endpoint, bytes: &[u8]) -> Result<()> {
    let mut wire = Wire::connect(endpoint)?;
    let _ = wire.send(bytes);
    // Some of it is only an error of one statement: then the session must still work once it is asked to.
    let _ = wire.send(&[SYNC, &query("SELECT 'still here'")].concat());
    let _ = wire.stream.shutdown(Shutdown::Write);
    ends_in_time(&mut wire, Duration::from_secs(10))
}

fn garbage_in_copy(endpoint: &Endpoint) -> Result<()> {
    let mut wire = Wire::connect(endpoint)?;
    wire.query("CREATE TEMPORARY TABLE copied (n int)")?;
    wire.send(&query("COPY copied FROM STDIN"))?;
    while wire.read()?.tag != b'G' {}
    let _ = wire.send(&[message(0xfe, &noise(64)), overlong_copy()].concat());
    ends_in_time(&mut wire, Duration::from_secs(10))
}

fn overlong_copy() -> Vec<u8> {
    [&b"d"[..], &u32::MAX.to_be_bytes(), b"x"].concat()
}

fn silent(endpoint: &Endpoint, said: &[u8]) -> Result<()> {
    let mut wire = Wire::open(endpoint)?;
    wire.send(said)?;
    ends_in_time(&mut wire, LOGIN_TIMEOUT)
}

fn trickle(endpoint: &Endpoint) -> Result<()> {
    let mut wire = Wire::open(endpoint)?;
    let began = Instant::now();
    for byte in startup(&[("user", "u"), ("database", "orders"), ("application_name", &"x".repeat(200))]) {
        if wire.stream.write_all(&[byte]).is_err() {
            break;
        }
        ensure!(began.elapsed() < LOGIN_TIMEOUT + GRACE, "it was never cut off");
        thread::sleep(Duration::from_millis(100)); // being slow is the fault
    }
    ends_in_time(&mut wire, LOGIN_TIMEOUT)
}

fn many_silent(endpoint: &Endpoint) -> Result<()> {
    let mut wires = (0..50).map(|_| Wire::open(endpoint)).collect::<Result<Vec<_>>>()?;
    ensure!(Wire::connect(endpoint)?.value("SELECT 1")? == "1");
    wires.iter_mut().try_for_each(|wire| ends_in_time(wire, LOGIN_TIMEOUT))
}

/// The gateway's memory must stay where it was, give or take what one session may hold.
fn bounded_memory(world: &World, fault: impl FnOnce() -> Result<Wire>) -> Result<()> {
    let before = world.gateway().resident_kib()?;
    let wire = fault()?;
    let mut most = before;
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(100)); // watching over two seconds is the test
        most = most.max(world.gateway().resident_kib()?);
    }
    drop(wire);
    ensure!(most < before + MEMORY_KIB_MAX, "grew from {before} to {most} KiB");
    Ok(())
}

fn never_reads(world: &World, endpoint: &Endpoint) -> Result<()> {
    bounded_memory(world, || {
        let mut wire = Wire::connect(endpoint)?;
        wire.send(&query("SELECT repeat('x', 1000000) FROM generate_series(1, 1000)"))?;
        Ok(wire)
    })
}

fn floods(world: &World, endpoint: &Endpoint) -> Result<()> {
    bounded_memory(world, || {
        let mut wire = Wire::connect(endpoint)?;
        wire.stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        let many: Vec<u8> = (0..10_000).flat_map(|_| query("SELECT repeat('x', 1000)")).collect();
        for _ in 0..50 {
            if wire.stream.write_all(&many).is_err() {
                break; // it no longer takes our bytes: as it should
            }
        }
        Ok(wire)
    })
}

/// The gateway itself answers, so no target is there that would stop reading.
fn floods_with_refused(world: &World, endpoint: &Endpoint) -> Result<()> {
    const REFUSED: &str = "SELECT nobody_calls_this()";
    let refused = complaint(&Wire::connect(endpoint)?.query(REFUSED)?).context("it is refused")?;
    ensure!(refused.sqlstate == "42501", "that was not the gateway: {refused:?}");
    bounded_memory(world, || {
        let mut wire = Wire::connect(endpoint)?;
        wire.stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        let many = query(REFUSED).repeat(30_000);
        let taken = (0..100).take_while(|_| wire.stream.write_all(&many).is_ok()).count();
        ensure!(taken < 100, "it takes more than {} MB and answers each", many.len() * taken / 1_000_000);
        Ok(wire)
    })
}

fn leaves(endpoint: &Endpoint) -> Result<()> {
    for _ in 0..20 {
        let mut wire = Wire::connect(endpoint)?;
        wire.send(&query("SELECT repeat('x', 10000) FROM generate_series(1, 10000)"))?;
        wire.read()?;
    }
    Ok(())
}

fn leaves_running(world: &World, endpoint: &Endpoint) -> Result<()> {
    let mut wire = Wire::connect(endpoint)?;
    wire.send(&query("SELECT 'left-running', pg_sleep(600)"))?;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%left-running%' AND pid <> pg_backend_pid() \
                   AND state = 'active'";
    let count = |wanted: &str| world.target.execute("shop", running).is_ok_and(|count| count.trim() == wanted);
    eventually("the statement runs", GRACE, || count("1"))?;
    drop(wire);
    eventually("the target is relieved of it", Duration::from_secs(10), || count("0"))
}

fn target_dies(mortal: &PrivatePostgres, endpoint: &Endpoint) -> Result<()> {
    let mut wire = Wire::connect(endpoint)?;
    wire.send(&query("SELECT repeat('x', 10000) FROM generate_series(1, 100000)"))?;
    for _ in 0..100 {
        wire.read()?;
    }
    mortal.kill()?;
    let began = Instant::now();
    let mut last = None;
    while let Some(message) = wire.read_or_end()? {
        ensure!(began.elapsed() < Duration::from_secs(30), "it goes on and on");
        last = Some(message);
    }
    let last = last.context("nothing at all was said")?;
    ensure!(last.tag != b'C' && last.tag != b'Z', "a cut result ended as if it were whole: {}", last.tag as char);
    let refusal = Wire::refusal(endpoint)?;
    ensure!(refusal.sqlstate == "08001", "{refusal:?}");
    ensure!(!format!("{refusal:?}").contains(&mortal.port.to_string()), "the target's address is told: {refusal:?}");
    mortal.start_again()?;
    ensure!(Wire::connect(endpoint)?.value("SELECT 'back'")? == "back");
    Ok(())
}

fn hostile_login(target: &ScriptedTarget, behaviour: Behaviour, endpoint: &Endpoint) -> Result<()> {
    target.behave(behaviour);
    let began = Instant::now();
    let refusal = Wire::refusal(endpoint)?;
    ensure!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    // A target that is merely silent runs into the deadline of the whole login.
    let late = behaviour == Behaviour::SaysNothing && refusal.sqlstate == "08006";
    ensure!(late || ["08001", "08004"].contains(&refusal.sqlstate.as_str()), "{refusal:?}");
    let told = format!("{refusal:?}");
    ensure!(!told.contains(PASSWORD) && !told.contains("service"), "the client is told our credential: {refusal:?}");
    ensure!(!told.contains(&target.port.to_string()), "the client is told the address: {refusal:?}");
    let heard = target.heard();
    ensure!(
        !heard.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes()),
        "our password was sent in the clear"
    );
    Ok(())
}

fn hostile_session(target: &ScriptedTarget, behaviour: Behaviour, endpoint: &Endpoint) -> Result<()> {
    target.behave(behaviour);
    let mut wire = Wire::connect(endpoint)?;
    wire.send(&query("SELECT 1"))?;
    let mut messages = Vec::new();
    let began = Instant::now();
    while let Some(message) = wire.read_or_end()? {
        messages.push(message);
        if messages.last().is_some_and(|message| message.tag == b'Z') {
            break;
        }
        ensure!(began.elapsed() < Duration::from_secs(20), "it goes on and on: {}", wire::tags(&messages));
    }
    ensure!(
        complaint(&messages).is_some() || !tags(&messages).contains('Z'),
        "passed on as if it were sound: {}",
        tags(&messages)
    );
    Ok(())
}
