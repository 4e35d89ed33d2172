//! Starting: signals that come early, addresses that others have, and hosts that do not let it run.

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::process::{built, eventually, run};
use crate::harness::wire::Wire;
use crate::harness::{Gateway, Report, Settings};

const DEADLINE: Duration = Duration::from_secs(20);

/// Starts a program that cannot make one system call: NUMBER ERRNO PROGRAM ARGUMENTS. The filter loads the call's number, and answers
/// that one with the error.
const WITHOUT_CALL: &str = "
import ctypes, os, struct, sys
number, error = int(sys.argv[1]), int(sys.argv[2])
code = b''.join(struct.pack('HBBI', *line) for line in [
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7fff0000)])
held = ctypes.create_string_buffer(code, len(code))
program = struct.pack('HxxxxxxQ', 4, ctypes.addressof(held))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[3], sys.argv[3:])
";
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let mut world = World::start(settings, "starting", &Setup::default())?;
    report.case("HUP before it is ready is a reload afterwards", || early_hangup(settings, &world));
    report.case("HUP with a FIFO for a configuration is refused, and the next one is not", || fifo(&world));
    report.case("a listener's address that another gateway has is refused, and its clients stay", || {
        taken_listener(settings, &world)
    });
    report.case("an ops address that somebody has is refused by its flag", || taken_ops(settings, &world));
    report.case("strangers leave descriptors for the others and for the trail", || strangers(settings, &world));
    report.case("a lower limit on open files is raised as far as it goes", || raised(settings, &world));
    report.case("a limit on open files that is too low is refused with what is needed", || few_files(settings, &world));
    report.case("the largest ring starts", || largest_ring(settings, &world));
    report.case("system calls that are missing are told by doctor and by serve", || missing_calls(settings, &world));
    report
        .case("512 KiB of locked memory are enough for a shard, and less is told", || locked_memory(settings, &world));
    report.case("threads that cannot be started are counted by doctor", few_threads);
    report.case("a warning is logged once", || warned_once(settings, &world));
    report.case("a new gateway takes the address of one that drains", || successor(settings, &mut world));
    Ok(())
}

fn launched(words: &[&str]) -> Setup {
    Setup { launcher: words.iter().map(|word| word.to_string()).collect(), ..Setup::default() }
}

fn start(settings: &Settings, world: &World, setup: &Setup) -> Result<Gateway> {
    Gateway::start(&settings.run_dir, &world.target, &world.issuer, setup)
}

/// What it says that does not start.
fn refusal(started: Result<Gateway>) -> Result<String> {
    match started {
        Ok(_) => bail!("it started"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn session(world: &World) -> Result<Wire> {
    Wire::connect(&world.endpoint("ada@example.com", &["engineering"], false))
}

fn works(world: &World, gateway: &Gateway) -> Result<Wire> {
    let mut wire = Wire::connect(&gateway.endpoint(&world.issuer.token("ada@example.com", &["engineering"]), false))?;
    ensure!(wire.value("SELECT 'on'")? == "on");
    Ok(wire)
}

/// An issuer that takes a connection and says nothing holds the start up for as long as the signal needs.
fn early_hangup(settings: &Settings, world: &World) -> Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let more = format!(
        "[[issuer]]\nname = \"silent\"\nissuer = \"http://{}\"\naudience = \"nobody\"\nalgorithms = [\"RS256\"]\n",
        silent.local_addr()?
    );
    let setup = Setup { more, ..Setup::default() };
    let mut hangup = None;
    let gateway = Gateway::start_after(&settings.run_dir, &world.target, &world.issuer, &setup, |config| {
        let pid_file = config.with_file_name("gateway.pid");
        hangup = Some(thread::spawn(move || -> Result<()> {
            let _asks_for_keys = silent.accept()?;
            eventually("its process is known", DEADLINE, || {
                fs::read_to_string(&pid_file).is_ok_and(|pid| !pid.is_empty())
            })?;
            let pid = fs::read_to_string(&pid_file)?;
            ensure!(Command::new("kill").args(["-HUP", &pid]).status()?.success());
            Ok(())
        }));
        Ok(())
    })?;
    hangup.context("not begun")?.join().expect("it does not panic")?;
    eventually("it is reloaded", DEADLINE, || gateway.log().contains("configuration taken into use"))?;
    works(world, &gateway).map(drop)
}

fn fifo(world: &World) -> Result<()> {
    let (config, aside) = (world.gateway().config(), world.folder.join("aside.toml"));
    let taken = || world.gateway().log().matches("configuration taken into use").count();
    let before = taken();
    fs::rename(&config, &aside)?;
    ensure!(Command::new("mkfifo").arg(&config).status()?.success());
    world.gateway().reload()?;
    let told =
        eventually("it is told", DEADLINE, || world.gateway().log().contains("is not a file but a folder, a FIFO"));
    fs::rename(&aside, &config)?;
    world.gateway().reload()?;
    told?;
    eventually("the next one is taken into use", DEADLINE, || taken() > before)
}

/// Writes another address into a table of a configuration.
fn readdress(config: &Path, table: &str, port: u16) -> Result<()> {
    let text = fs::read_to_string(config)?;
    let (before, after) = text.split_once(table).with_context(|| format!("no {table}"))?;
    let (keys, rest) = after.split_once("address = \"").context("no address")?;
    let (_, rest) = rest.split_once('"').context("no address")?;
    Ok(fs::write(config, format!("{before}{table}{keys}address = \"127.0.0.1:{port}\"{rest}"))?)
}

/// Starts one more gateway at an address that it may not have.
fn start_at(settings: &Settings, world: &World, table: &str, port: u16) -> Result<Gateway> {
    let before = |config: &Path| readdress(config, table, port);
    Gateway::start_after(&settings.run_dir, &world.target, &world.issuer, &Setup::default(), before)
}

fn taken_listener(settings: &Settings, world: &World) -> Result<()> {
    let port = world.gateway().port;
    let said = refusal(start_at(settings, world, "[[listener]]\n", port))?;
    ensure!(said.contains(&format!("the listener ([[listener]] address) cannot use 127.0.0.1:{port}")), "{said}");
    ensure!(said.contains(&format!("`ss -ltnp 'sport = :{port}'` tells by whom")), "{said}");
    ensure!(!said.contains("listening"), "it listened first: {said}");
    session(world)?.value("SELECT 1").map(drop)
}

fn taken_ops(settings: &Settings, world: &World) -> Result<()> {
    let port = world.gateway().ops_port;
    // Who has the port answers for the other one as well, which may seem ready before it has ended.
    let said = match start_at(settings, world, "[ops]\n", port) {
        Ok(other) => {
            eventually("it ends", DEADLINE, || other.log().contains("--ops-address"))?;
            other.log()
        }
        Err(error) => format!("{error:#}"),
    };
    let expected = format!("the ops listener ([ops] address, --ops-address) cannot use 127.0.0.1:{port}: ");
    ensure!(
        said.contains(&expected) && said.contains(&format!("`ss -ltnp 'sport = :{port}'` tells by whom")),
        "{said}"
    );
    ensure!(!said.contains("listening"), "it listened first: {said}");
    Ok(())
}

/// The number behind a word of the log.
fn told(gateway: &Gateway, word: &str) -> Result<usize> {
    let log = gateway.log();
    let at = log.rfind(word).with_context(|| format!("{word} is not in the log"))?;
    let digits: String = log[at + word.len()..].chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

fn strangers(settings: &Settings, world: &World) -> Result<()> {
    // A segment is a MiB: the statements below need two more while the strangers are there.
    let setup = Setup {
        server: "login_timeout = \"10m\"".into(),
        audit: "segment_mib = 1\nsegments_per_shard = 4".into(),
        ..launched(&["prlimit", "--nofile=400:400"])
    };
    let gateway = start(settings, world, &setup)?;
    let mut wire = works(world, &gateway)?;
    let room = told(&gateway, "connections=")?;
    ensure!((10..100).contains(&room), "room for {room}");
    let strangers = (0..400).map(|_| TcpStream::connect(("127.0.0.1", gateway.port))).collect::<Result<Vec<_>, _>>()?;
    eventually("those beyond are turned away", DEADLINE, || {
        let page = gateway.ops("/metrics").unwrap_or_default();
        let turned_away =
            page.lines().filter(|line| line.starts_with("lockgate_client_connections_turned_away_total{"));
        turned_away.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() >= (400 - room) as f64
    })?;
    for number in 0..10 {
        let statement = format!("SELECT length('{}') + {number}", "x".repeat(200_000));
        wire.query(&statement).with_context(|| format!("statement {number}"))?;
    }
    gateway.ops("/readyz")?;
    gateway.reload()?;
    eventually("HUP is followed", DEADLINE, || gateway.log().contains("configuration taken into use"))?;
    drop(strangers);
    eventually("there is room again", DEADLINE, || works(world, &gateway).is_ok())
}

fn raised(settings: &Settings, world: &World) -> Result<()> {
    let gateway = start(settings, world, &launched(&["prlimit", "--nofile=64:2000"]))?;
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.pid()?))?;
    let row = limits.lines().find(|line| line.starts_with("Max open files")).context("no row")?;
    ensure!(row.split_whitespace().nth(3) == Some("2000"), "{row}");
    ensure!(told(&gateway, "files=")? == 2000, "{}", gateway.log());
    Ok(())
}

fn few_files(settings: &Settings, world: &World) -> Result<()> {
    let said = refusal(start(settings, world, &launched(&["prlimit", "--nofile=60:60"])))?;
    for words in ["FAIL  open files", "is the least for 2 shards", "LimitNOFILE="] {
        ensure!(said.contains(words), "{words:?} is not in {said}");
    }
    Ok(())
}

fn largest_ring(settings: &Settings, world: &World) -> Result<()> {
    let setup = Setup { server: "ring_entries = 32768".into(), shards: 1, ..Setup::default() };
    works(world, &start(settings, world, &setup)?).map(drop)
}

/// io_uring_setup, io_uring_enter and sched_setaffinity, which have other numbers elsewhere.
const CALLS: [(u32, &str); 3] = if cfg!(target_arch = "aarch64") {
    [(425, "io_uring"), (426, "io_uring"), (122, "cores")]
} else {
    [(425, "io_uring"), (426, "io_uring"), (203, "cores")]
};

fn missing_calls(settings: &Settings, world: &World) -> Result<()> {
    let python = std::env::var("LOCKGATE_PYTHON").unwrap_or_else(|_| "python3".into());
    for ((call, check), error) in CALLS.into_iter().flat_map(|call| [(call, EPERM), (call, ENOSYS)]) {
        let (number, error) = (call.to_string(), error.to_string());
        let launcher = [python.as_str(), "-c", WITHOUT_CALL, &number, &error];
        let lockgate = built("lockgate")?;
        let doctor = run(Command::new(&python).args(&launcher[1..]).arg(&lockgate).arg("doctor"), DEADLINE)?;
        let serve = refusal(start(settings, world, &launched(&launcher)))?;
        for said in [doctor.everything(), serve] {
            for words in [format!("FAIL  {check} "), "FAIL  seccomp".into(), "deploy/seccomp.json".into()] {
                ensure!(said.contains(&words), "without {call} ({error}): {words:?} is not in {said}");
            }
            ensure!(!said.contains("panicked"), "{said}");
        }
    }
    Ok(())
}

fn locked_memory(settings: &Settings, world: &World) -> Result<()> {
    let gateway = start(settings, world, &Setup { shards: 1, ..launched(&["prlimit", "--memlock=524288:524288"]) })?;
    works(world, &gateway)?;
    let doctor = |limit: &str| -> Result<String> {
        let mut doctor = Command::new("prlimit");
        doctor.arg(limit).arg(built("lockgate")?).args(["doctor", "--config"]).arg(gateway.config());
        Ok(run(&mut doctor, DEADLINE)?.everything())
    };
    let enough = doctor("--memlock=524288:524288")?;
    ensure!(enough.lines().any(|line| line.starts_with("ok") && line.contains("locked memory")), "{enough}");
    let little = doctor("--memlock=524287:524287")?;
    ensure!(little.contains("FAIL  locked memory"), "{little}");
    let said = refusal(start(settings, world, &launched(&["prlimit", "--memlock=65536:65536"])))?;
    ensure!(said.contains("FAIL  locked memory") && said.contains("LimitMEMLOCK="), "{said}");
    Ok(())
}

/// The limit is a user's, and binds everybody but root: somebody else asks.
fn few_threads() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let lockgate = folder.path().join("lockgate");
    fs::copy(built("lockgate")?, &lockgate)?;
    let mut doctor = Command::new("prlimit");
    doctor.args(["--nproc=3:3", "setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"]);
    let said = run(doctor.arg(&lockgate).arg("doctor"), DEADLINE)?.everything();
    ensure!(said.contains("FAIL  processes") && said.contains("TasksMax="), "{said}");
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}

fn warned_once(settings: &Settings, world: &World) -> Result<()> {
    let listener = "[[listener]]\nprotocol = \"postgres\"\naddress = \"0.0.0.0:0\"\n";
    let gateway = start(settings, world, &Setup { more: listener.into(), ..Setup::default() })?;
    let warnings = || gateway.log().matches("nobody beyond this host can log in here").count();
    ensure!(warnings() == 1, "{}", gateway.log());
    gateway.reload()?;
    eventually("it is reloaded", DEADLINE, || gateway.log().contains("configuration taken into use"))?;
    ensure!(warnings() == 2, "{}", gateway.log());
    Ok(())
}

/// The old one has a session that works until its lock is let go.
fn successor(settings: &Settings, world: &mut World) -> Result<()> {
    let mut lock = Wire::connect(&world.target.endpoint(false))?;
    lock.value("SELECT 1 FROM pg_advisory_lock(4711)")?;
    let mut wire = session(world)?;
    wire.send(&crate::harness::wire::query("SELECT 'finished' FROM pg_advisory_lock(4711)"))?;
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    eventually("it waits", DEADLINE, || lock.value(waiting).is_ok_and(|count| count == "1"))?;
    let pid = world.gateway().pid()?.to_string();
    ensure!(Command::new("kill").args(["-TERM", &pid]).status()?.success());
    let port = world.gateway().port;
    eventually("the old one has closed its listeners", DEADLINE, || TcpStream::connect(("127.0.0.1", port)).is_err())?;
    let new = start_at(settings, world, "[[listener]]\n", port)?;
    let endpoint = session(world)?;
    drop((endpoint, new));
    lock.value("SELECT pg_advisory_unlock(4711)")?;
    let messages = wire.read_until_ready()?;
    ensure!(messages.iter().any(|message| message.tag == b'D'), "the session was cut off");
    eventually("it ends", DEADLINE, || world.gateway().log().contains("draining"))
}
