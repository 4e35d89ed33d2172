//! Against a server that fails, leaks, hangs up or goes away at a request that is counted: what is told of it, and that it ends.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lockgate-loadgen");

const CARD: &str = "4111-1111-1111-1111";

type Make = fn() -> Vec<u8>;

/// What the server does with one SELECT.
enum Reply {
    Row(&'static str),
    Error(&'static str),
    /// The row, and then it hangs up.
    Last,
    Silence,
    /// The row, but not before that many milliseconds.
    Late(u64),
    /// A card number, and then an error, or nothing more.
    LeakAndError,
    LeakAndHangUp,
    LeakAndSilence,
    /// These messages; for a login (SELECT number 0) instead of letting anybody in.
    Messages(Make),
    /// Rows without end.
    Endless,
    /// It hangs up on everybody from now on, and its socket is gone.
    Gone,
}

/// Decides by how many SELECTs there have been, this one included. The first is the generator's look at a right answer; before
/// each login it is asked about number 0.
type Plan = fn(u64) -> Reply;

/// On a Unix socket in a folder of its own, or on TCP.
struct Fake {
    folder: PathBuf,
    port: Option<u16>,
    selects: Arc<AtomicU64>,
}

impl Fake {
    fn start(plan: Plan) -> Fake {
        let fake = Fake::new(None);
        let listener = UnixListener::bind(fake.socket()).expect("nobody else has it");
        fake.listen(plan, move || listener.accept().map(|(stream, _)| stream));
        fake
    }

    fn start_on_tcp(plan: Plan) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
        let fake = Fake::new(Some(listener.local_addr().expect("it listens").port()));
        std::fs::write(fake.socket(), "").expect("there is room");
        fake.listen(plan, move || listener.accept().map(|(stream, _)| stream));
        fake
    }

    fn new(port: Option<u16>) -> Fake {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("loadgen-fake-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("there is room");
        Fake { folder, port, selects: Arc::new(AtomicU64::new(0)) }
    }

    /// What is there as long as it serves: its socket, if it has one.
    fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    fn listen<S: Read + Write + Send + 'static>(
        &self,
        plan: Plan,
        accept: impl Fn() -> std::io::Result<S> + Send + 'static,
    ) {
        let (selects, socket) = (Arc::clone(&self.selects), self.socket());
        std::thread::spawn(move || {
            loop {
                let stream = accept().expect("it is accepted");
                let (selects, socket) = (Arc::clone(&selects), socket.clone());
                // However a session ends, it is over.
                std::thread::spawn(move || serve(stream, plan, &selects, &socket));
            }
        });
    }

    fn url(&self) -> String {
        match self.port {
            Some(port) => format!("postgres://u@127.0.0.1:{port}/d"),
            None => format!("postgres://u@/d?host={}", self.folder.display()),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["run", "--target", &self.url(), "-o", "json"]).args(arguments);
        for (name, value) in [("--warmup", "0s"), ("--lag-limit", "1h")] {
            if !arguments.contains(&name) {
                command.args([name, value]);
            }
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, Value, String) {
        told(&self.command(arguments).output().expect("the program is built"))
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // Nothing more can be done about an error here.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn told(output: &Output) -> (Option<i32>, Value, String) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: `{text}` `{errors}`"));
    (output.status.code(), value, errors)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn row(value: &str) -> Vec<u8> {
    let length = (value.len() as u32).to_be_bytes();
    let row = message(b'D', &[&[0, 1][..], &length, value.as_bytes()].concat());
    [row, message(b'C', b"SELECT 1\0")].concat()
}

/// A column's name, then its numbers, which are digits too.
fn column(name: &str) -> Vec<u8> {
    message(b'T', &[&[0, 1][..], name.as_bytes(), b"\0", &[b'4'; 18]].concat())
}

fn fields(kind: u8, text: &str) -> Vec<u8> {
    message(kind, format!("SERROR\0C22P02\0Mno\0D{text}\0\0").as_bytes())
}

fn error(sqlstate: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0C{sqlstate}\0Mno\0\0").as_bytes())
}

/// One session: the simple protocol, with transactions that fail as PostgreSQL's do.
fn serve(
    mut stream: impl Read + Write,
    plan: Plan,
    selects: &AtomicU64,
    socket: &std::path::Path,
) -> std::io::Result<()> {
    let gone = || !socket.exists();
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize - 4])?;
    if gone() {
        return Ok(());
    }
    if let Reply::Messages(make) = plan(0) {
        return stream.write_all(&make());
    }
    stream.write_all(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat())?;
    let mut status = b'I';
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let mut body = vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4];
        stream.read_exact(&mut body)?;
        if gone() || head[0] != b'Q' {
            return Ok(());
        }
        let mut last = false;
        let answer = match body.split(|&byte| byte == 0).next().unwrap_or_default() {
            b"ROLLBACK" | b"COMMIT" => {
                status = b'I';
                message(b'C', b"COMMIT\0")
            }
            _ if status == b'E' => error("25P02"),
            b"BEGIN" => {
                status = b'T';
                message(b'C', b"BEGIN\0")
            }
            _ => match plan(selects.fetch_add(1, Ordering::SeqCst) + 1) {
                Reply::Row(value) => row(value),
                Reply::Error(sqlstate) => {
                    status = if status == b'T' { b'E' } else { status };
                    error(sqlstate)
                }
                Reply::Last => {
                    last = true;
                    row("1")
                }
                Reply::Silence => continue,
                Reply::Late(ms) => {
                    std::thread::sleep(std::time::Duration::from_millis(ms));
                    row("1")
                }
                Reply::LeakAndError => [row(CARD), error("22012")].concat(),
                Reply::Messages(make) => make(),
                Reply::LeakAndHangUp => return stream.write_all(&row(CARD)),
                Reply::LeakAndSilence => {
                    stream.write_all(&row(CARD))?;
                    continue;
                }
                Reply::Endless => {
                    let rows = row("1").repeat(10_000);
                    loop {
                        stream.write_all(&rows)?;
                    }
                }
                Reply::Gone => {
                    let _ = std::fs::remove_file(socket);
                    return Ok(());
                }
            },
        };
        stream.write_all(&[answer, message(b'Z', &[status])].concat())?;
        if last {
            return Ok(());
        }
    }
}

fn script(fake: &Fake, text: &str) -> String {
    let file = fake.folder.join("script.sql");
    std::fs::write(&file, text).expect("there is room");
    file.display().to_string()
}

#[test]
fn a_failed_transaction_is_not_taken_along_into_the_next_request() {
    let fake = Fake::start(|n| if n.is_multiple_of(5) { Reply::Error("22012") } else { Reply::Row("1") });
    let file = script(&fake, "BEGIN; SELECT 1; COMMIT;");
    let (status, value, errors) =
        fake.run(&["--script", &file, "--closed", "--count", "50", "-c", "2", "--expect-rows", "1"]);
    let counts = ["requests", "answered", "errors"].map(|name| value[name].as_u64());
    assert_eq!((status, counts), (Some(0), [Some(50), Some(40), Some(10)]), "{value}");
    assert!(
        errors.contains("10 requests failed, which does not set the status; with --fail-errors 0 it is 1"),
        "{errors}"
    );
    assert_eq!(value["errors_by_kind"]["SQLSTATE 22012"]["count"], 10, "{value}");
}

#[test]
fn a_script_that_ends_inside_a_transaction_is_refused() {
    let fake = Fake::start(|_| Reply::Row("1"));
    let file = script(&fake, "BEGIN; SELECT 1;");
    let (status, value, errors) = fake.run(&["--script", &file, "--closed", "--count", "5"]);
    assert!(status == Some(3) && errors.contains("add COMMIT or ROLLBACK"), "{errors}");
    assert_eq!(value["status"], 3, "whoever asked for JSON gets the reason as JSON: {value}");
}

#[test]
fn a_wrong_answer_in_the_warm_up_counts() {
    let fake = Fake::start(|n| Reply::Row(if n == 3 { "4111-1111-1111-1111" } else { "1" }));
    let load = ["--rate", "100", "--warmup", "200ms", "--count", "5", "--check", "none"];
    let (status, value, errors) = fake.run(&[&load[..], &["--expect-masked", "####-####-####-####"]].concat());
    assert_eq!((status, &value["errors"], &value["answered"]), (Some(1), &0.into(), &5.into()), "{value}");
    assert_eq!(value["warmup_errors"]["unmasked value"]["count"], 1, "{value}");
    assert!(errors.contains("in the warm-up"), "{errors}");
}

/// Without a response of the probe and of `compare`'s question: numbers 1 and 2.
fn status_of_verb(fake: &Fake, verb: &[&str]) -> (Option<i32>, Value, String) {
    let load = ["--check", "none", "-c", "2", "--lag-limit", "10s", "--seed", "1", "-o", "json"];
    let mut command = Command::new(PROGRAM);
    told(&command.args(verb).args(load).args(MASKED).output().unwrap_or_else(|error| panic!("{}: {error}", fake.url())))
}

#[test]
fn a_comparison_in_which_something_was_answered_wrongly_says_no() {
    let plans: [(Plan, &str, &str); 2] = [
        (
            |n| Reply::Row(if (5..=40).contains(&n) { CARD } else { "1" }),
            "warmup_errors",
            "unmasked value (in the warm-up)",
        ),
        (|n| Reply::Row(if n == 200 { CARD } else { "1" }), "errors_by_kind", "unmasked value"),
    ];
    for (plan, place, words) in plans {
        let fake = Fake::start(plan);
        let (one, other) = (format!("a={}", fake.url()), format!("b={}", fake.url()));
        let compare = ["compare", "-e", &one, "-e", &other, "--rate", "100", "--rounds", "1", "--round-time", "1s"];
        let (status, value, errors) = status_of_verb(&fake, &[&compare[..], &["--warmup", "1s"]].concat());
        assert_eq!(status, Some(1), "{value} {errors}");
        assert!(value["endpoints"][0][place]["unmasked value"]["count"].as_u64() > Some(0), "{value}");
        assert!(value["wrong_answers"][0].as_str().is_some_and(|wrong| wrong.starts_with("`a`: ")), "{value}");
        assert!(errors.contains("missed: `a`: ") && errors.contains(words), "{errors}");
    }
}

#[test]
fn a_search_ends_at_the_first_wrong_answer_and_says_so() {
    let plans: [(Plan, &str); 2] = [
        (|n| Reply::Row(if n == 5 { CARD } else { "1" }), "warmup_errors"),
        (|n| Reply::Row(if n == 50 { CARD } else { "1" }), "errors_by_kind"),
    ];
    for (plan, place) in plans {
        let fake = Fake::start(plan);
        let url = fake.url();
        let search =
            ["saturate", "--target", &url, "--p99", "10s", "--from", "100", "--max", "400", "--probe", "400ms"];
        let (status, value, errors) = status_of_verb(&fake, &search);
        assert_eq!((status, &value["rate"]), (Some(1), &Value::Null), "{value} {errors}");
        // Not taken for a hiccup, and not for a lack of capacity.
        assert_eq!(value["probes"].as_array().map(Vec::len), Some(1), "{value}");
        assert_eq!(value["probes"][0][place]["unmasked value"]["count"], 1, "{value}");
        assert!(errors.contains("missed: 1 responses: unmasked value"), "{errors}");
        assert!(value["limit"].as_str().is_some_and(|limit| limit.contains("unmasked value")), "{value}");
    }
}

#[test]
fn what_failed_at_a_rate_is_told_by_its_kind() {
    let fake = Fake::start(|n| if n == 30 { Reply::Error("40001") } else { Reply::Row("1") });
    let url = fake.url();
    let search = ["saturate", "--target", &url, "--p99", "10s", "--from", "100", "--max", "100", "--probe", "400ms"];
    let (status, value, errors) = status_of_verb(&fake, &search);
    assert_eq!(
        (status, &value["probes"][0]["errors_by_kind"]["SQLSTATE 40001"]["count"]),
        (Some(0), &1.into()),
        "{value} {errors}"
    );
    assert!(errors.contains("1 x SQLSTATE 40001: "), "{errors}");
}

#[test]
fn a_value_that_came_through_unmasked_counts_whatever_becomes_of_its_response() {
    let plans: [Plan; 3] = [
        |n| if n == 3 { Reply::LeakAndError } else { Reply::Row("1") },
        |n| if n == 3 { Reply::LeakAndHangUp } else { Reply::Row("1") },
        |n| if n == 3 { Reply::LeakAndSilence } else { Reply::Row("1") },
    ];
    for plan in plans {
        let load = ["--rate", "50", "--count", "5", "-c", "1", "--timeout", "500ms", "--check", "none"];
        let (status, value, errors) =
            Fake::start(plan).run(&[&load[..], &["--expect-masked", "####-####-####-####"]].concat());
        assert!(status == Some(1) && errors.contains("unmasked value"), "{value} {errors}");
        assert_eq!(value["errors_by_kind"]["unmasked value"]["count"], 1, "{value}");
    }
}

/// Texts with a card number in them, in each place that is no row.
const LEAKS: [(&str, Make); 5] = [
    ("in an error", || fields(b'E', CARD)),
    ("in a notice", || [fields(b'N', CARD), row("1")].concat()),
    ("in a column's name", || [column(CARD), row("1")].concat()),
    ("in a notification", || [message(b'A', &[b"4444news\0", CARD.as_bytes(), b"\0"].concat()), row("1")].concat()),
    ("in a command's tag", || message(b'C', format!("SELECT {CARD}\0").as_bytes())),
];

const MASKED: [&str; 2] = ["--expect-masked", "####-####-####-####"];

#[test]
fn a_value_that_came_through_beside_the_rows_is_found_and_not_repeated() {
    let plans: [Plan; LEAKS.len()] = [
        |n| if n == 3 { Reply::Messages(LEAKS[0].1) } else { Reply::Row("1") },
        |n| if n == 3 { Reply::Messages(LEAKS[1].1) } else { Reply::Row("1") },
        |n| if n == 3 { Reply::Messages(LEAKS[2].1) } else { Reply::Row("1") },
        |n| if n == 3 { Reply::Messages(LEAKS[3].1) } else { Reply::Row("1") },
        |n| if n == 3 { Reply::Messages(LEAKS[4].1) } else { Reply::Row("1") },
    ];
    for (plan, (place, _)) in plans.into_iter().zip(LEAKS) {
        let load = ["--rate", "50", "--count", "5", "-c", "1", "--check", "none"];
        let (status, value, errors) = Fake::start(plan).run(&[&load[..], &MASKED].concat());
        let fault = &value["errors_by_kind"]["unmasked value"];
        assert!(status == Some(1) && errors.contains("unmasked value"), "{value} {errors}");
        assert_eq!((&fault["count"], &value["errors"]), (&1.into(), &1.into()), "{value}");
        assert!(fault["example"].as_str().is_some_and(|example| example.starts_with(place)), "{value}");
        assert!(!value.to_string().contains(CARD) && !errors.contains(CARD), "{value} {errors}");
    }
}

#[test]
fn an_error_with_a_value_in_it_keeps_a_run_from_beginning_and_is_not_repeated() {
    let plans: [Plan; 2] = [
        // The login, and the first request.
        |n| if n == 0 { Reply::Messages(LEAKS[0].1) } else { Reply::Row("1") },
        |n| if n == 1 { Reply::Messages(LEAKS[0].1) } else { Reply::Row("1") },
    ];
    for plan in plans {
        let (status, value, errors) = Fake::start(plan).run(&[&["--closed", "--count", "5"][..], &MASKED].concat());
        assert!(status == Some(1) && errors.contains("unmasked value"), "{value} {errors}");
        assert!(!value.to_string().contains(CARD) && !errors.contains(CARD), "{value} {errors}");
    }
}

#[test]
fn numbers_of_a_column_are_no_text() {
    let plan: Plan = |n| if n > 0 { Reply::Messages(|| [column("card"), row("1")].concat()) } else { Reply::Row("1") };
    let fake = Fake::start(plan);
    let (status, value, errors) = fake.run(&["--closed", "--count", "5", "--expect-masked", "####"]);
    assert_eq!((status, &value["errors"]), (Some(0), &0.into()), "{value} {errors}");
}

#[test]
fn an_answer_without_end_is_given_up_like_any_other() {
    let fake = Fake::start(|n| if n == 2 { Reply::Endless } else { Reply::Row("1") });
    let load = ["--closed", "--count", "3", "-c", "1", "--timeout", "300ms", "--check", "none"];
    let (status, value, _) = fake.run(&[&load[..], &["--expect-masked", "####-####"]].concat());
    assert_eq!((status, &value["errors_by_kind"]["timeout"]["count"]), (Some(0), &1.into()), "{value}");
    assert_eq!(value["answered"], 2, "{value}");
}

#[test]
fn what_comes_after_the_load_is_no_rate_of_it() {
    // Nobody is answered while the load lasts.
    let fake = Fake::start(|n| if n > 1 { Reply::Late(600) } else { Reply::Row("1") });
    let (status, value, errors) = fake.run(&["--closed", "--duration", "300ms", "-c", "4", "--fail-rate", "5"]);
    assert!(status == Some(1) && value["achieved_per_s"] == 0.0, "{value} {errors}");
}

#[test]
fn a_connection_lost_while_it_carried_nothing_is_no_failed_request() {
    let fake = Fake::start(|n| if n == 3 { Reply::Last } else { Reply::Row("1") });
    let (status, value, _) = fake.run(&["--rate", "5", "--count", "4", "-c", "1", "--fail-errors", "0"]);
    assert_eq!((status, &value["errors"], &value["answered"]), (Some(0), &0.into(), &4.into()), "{value}");
    assert_eq!(value["connection_events"]["connection lost"]["count"], 1, "{value}");
}

#[test]
fn a_request_that_failed_took_longer_than_any_limit() {
    let fake = Fake::start(|n| if n.is_multiple_of(10) { Reply::Error("40001") } else { Reply::Row("1") });
    let load = ["--closed", "--count", "100", "-c", "2"];
    let status = |more: &[&str]| fake.run(&[&load, more].concat());
    assert_eq!(status(&["--fail-p50", "1h"]).0, Some(0));
    let (allowed, _, errors) = status(&["--fail-errors", "10"]);
    assert!(allowed == Some(0) && errors.is_empty(), "{errors}");
    for limit in ["--fail-p99", "--fail-p999", "--fail-max"] {
        let (status, value, errors) = status(&[limit, "1h"]);
        assert!(
            status == Some(1) && errors.contains("10 of 100 requests were not answered rightly"),
            "{value} {errors}"
        );
    }
}

#[test]
fn a_closed_loop_ends_when_its_server_has_gone() {
    let plan: Plan = |n| if n > 20 { Reply::Gone } else { Reply::Row("1") };
    let (status, value, _) =
        Fake::start(plan).run(&["--closed", "--count", "1000000", "-c", "2", "--timeout", "300ms"]);
    let why = value["cut_short"].as_str().unwrap_or_default();
    assert!(status == Some(3) && why.contains("no connection was up for 1.00 s"), "{value}");
    // Connecting to a socket that is not there fails at once, every time.
    let fake = Fake::start(plan);
    let churn = ["--closed", "--workload", "churn", "--duration", "300ms", "-c", "2"];
    let (status, value, _) = fake.run(&churn);
    assert_eq!((status, &value["cut_short"]), (Some(0), &Value::Null), "{value}");
    assert!(value["errors_by_kind"]["connect"]["count"].as_u64().is_some_and(|count| count < 100), "{value}");
}

#[test]
fn an_answer_after_the_timeout_is_none() {
    // Timeouts are looked for every 20 ms: some of these answers come before anybody looked.
    let fake = Fake::start(|n| if n > 1 { Reply::Late(101) } else { Reply::Row("1") });
    let (_, value, _) = fake.run(&["--closed", "--count", "10", "-c", "1", "--timeout", "100ms"]);
    assert_eq!((&value["answered"], &value["errors_by_kind"]["timeout"]["count"]), (&0.into(), &10.into()), "{value}");
}

/// Ended however the test ends.
struct Process(Option<Child>);

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn ctrl_c_ends_a_run_whose_first_request_is_not_answered() {
    let fake = Fake::start(|_| Reply::Silence);
    let mut command = fake.command(&["--closed", "--timeout", "1h"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program is built");
    let (status, value, errors) = interrupt_after(&fake, 1, child, "-INT");
    assert!(status == Some(3) && value["status"] == 3 && errors.contains("interrupted"), "{value} {errors}");
}

/// Sends a signal once there were that many SELECTs, and waits.
fn interrupt_after(fake: &Fake, selects: u64, child: Child, signal: &str) -> (Option<i32>, Value, String) {
    let mut process = Process(Some(child));
    while fake.selects.load(Ordering::SeqCst) < selects {
        std::thread::yield_now();
    }
    let child = process.0.take().expect("it runs");
    send(signal, &child);
    told(&child.wait_with_output().expect("it ends"))
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("there is kill");
    assert!(sent.success());
}

/// A closed loop of eight connections, in the middle of which the generator is stopped for a second: far longer than the server
/// takes, and than any machine stands still by itself.
fn stopped_for_a_second(fake: &Fake, more: &[&str]) -> (Option<i32>, Value, String) {
    let load = ["--closed", "-c", "8", "--count", "400", "--lag-limit", "100ms", "--fail-p99", "500ms"];
    let mut command = fake.command(&[&load, more].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program is built");
    let mut process = Process(Some(child));
    while fake.selects.load(Ordering::SeqCst) < 50 {
        std::thread::yield_now();
    }
    let child = process.0.take().expect("it runs");
    send("-STOP", &child);
    std::thread::sleep(std::time::Duration::from_secs(1));
    send("-CONT", &child);
    told(&child.wait_with_output().expect("it ends"))
}

#[test]
fn what_waited_while_the_generator_stood_still_is_not_held_against_the_server() {
    let fake = Fake::start_on_tcp(|_| Reply::Late(20));
    let file = script(&fake, "SELECT 1; SELECT 1;");
    let (status, value, errors) = stopped_for_a_second(&fake, &["--script", &file]);
    assert!(status == Some(3) && errors.contains("waited while the generator itself stood still"), "{value} {errors}");
    assert!(value["answered_after_own_pause"].as_u64().is_some_and(|answers| (1..=8).contains(&answers)), "{value}");
    assert!(value.get("response").is_none(), "{value}");
}

#[test]
fn answers_that_the_kernel_timed_do_not_wait_for_a_generator_that_stood_still() {
    let fake = Fake::start_on_tcp(|_| Reply::Late(20));
    let (status, value, errors) = stopped_for_a_second(&fake, &[]);
    assert_eq!((status, &value["late"]), (Some(0), &Value::Null), "{value} {errors}");
    assert!(value["response"]["percentiles"]["p99"]["ns"].as_u64().is_some_and(|p99| p99 < 500_000_000), "{value}");
    assert!(value["own_pause_max_ns"].as_u64().is_some_and(|pause| pause > 500_000_000), "it was stopped: {value}");
}

#[test]
fn an_interrupted_run_ends_soon_and_shows_what_there_is() {
    shows_what_there_is_after("-INT");
}

#[test]
fn a_run_that_is_terminated_shows_what_there_is() {
    shows_what_there_is_after("-TERM");
}

#[test]
fn a_run_whose_terminal_closes_shows_what_there_is() {
    shows_what_there_is_after("-HUP");
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let fake = Fake::start(|_| Reply::Row("1"));
    let run = fake.command(&["--rate", "20", "--count", "20", "-c", "1"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(run.get_program()).args(run.get_args());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("there is a shell");
    let (status, value, errors) = interrupt_after(&fake, 6, child, "-HUP");
    assert_eq!((status, &value["answered"], &value["interrupted"]), (Some(0), &20.into(), &false.into()), "{errors}");
}

fn shows_what_there_is_after(signal: &str) {
    let fake = Fake::start(|n| if n > 5 { Reply::Silence } else { Reply::Row("1") });
    let load = ["--rate", "1000", "--duration", "1h", "-c", "1", "--timeout", "1h", "--fail-p99", "1ns"];
    let run = fake.command(&load);
    // Whoever runs the tests may ignore HUP, and so would what they start.
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP").arg(run.get_program()).args(run.get_args());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("coreutils are installed");
    let (status, value, errors) = interrupt_after(&fake, 6, child, signal);
    assert_eq!(status, Some(3), "{value} {errors}");
    assert!(value["cut_short"].as_str().is_some_and(|why| why.contains("of 3600 s")), "{value}");
    let [requests, answered, errors] = ["requests", "answered", "errors"].map(|name| value[name].as_u64().unwrap_or(0));
    assert_eq!((answered, requests - answered), (4, errors), "{value}");
    assert_eq!(value["interrupted"], true);
}
