//! The report in a real browser: it has to draw itself with nothing but the file. Without a browser nothing is checked, unless
//! LOCKGATE_NEEDS_BROWSER is set, as tests/run.sh does.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lockgate-loadgen");

/// Ended however the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path).flat_map(|place| names.map(|name| place.join(name))).find(|file| file.is_file())
}

/// The page of a verb with these arguments, in which every `TARGET` is a canned server.
fn report(directory: &Path, arguments: &[&str]) -> PathBuf {
    let responder = Command::new(PROGRAM).args(["respond", "--port", "0"]).stdout(Stdio::piped()).spawn();
    let mut responder = Process(responder.expect("the program is built"));
    let mut line = String::new();
    let output = responder.0.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut line).expect("it says its address");
    let address = line.trim().strip_prefix("listening on ").expect("it says its address");
    let target = format!("postgres://test@{address}/test");
    let page = directory.join("report.html");
    let status = Command::new(PROGRAM)
        .args(arguments.iter().map(|argument| argument.replace("TARGET", &target)))
        .arg(format!("--report={}", page.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("the program is built");
    // What the answer is depends on the machine; that there is a page does not.
    assert!(matches!(status.code(), Some(0 | 1 | 3)), "{status}");
    page
}

/// What a browser makes of it, without the data and the script, which both may hold any word.
fn drawn(browser: &Path, directory: &Path, page: &Path) -> String {
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"])
        .arg(format!("--user-data-dir={}", directory.join("profile").display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("it was found");
    let dom = String::from_utf8_lossy(&output.stdout);
    assert!(dom.contains("data-rendered=\"yes\""), "its script did not come to its end: {dom}");
    let drawn = dom.split("<script").next().unwrap_or_default();
    assert!(!drawn.contains("NaN") && !drawn.contains("undefined"), "{drawn}");
    // Whatever is too wide for a small window scrolls by itself.
    assert_eq!(drawn.matches("<table").count(), drawn.matches("<div class=\"wide\"><table").count(), "{drawn}");
    drawn.into()
}

fn wanted_browser() -> Option<PathBuf> {
    let found = browser();
    if found.is_none() {
        assert!(std::env::var_os("LOCKGATE_NEEDS_BROWSER").is_none(), "there is no chromium in the path");
        eprintln!("not checked: there is no chromium in the path");
    }
    found
}

fn folder(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("loadgen-page-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("there is room");
    directory
}

/// One run with these arguments: see [`check_verb`].
fn check(name: &str, arguments: &[&str], curves: usize, there: &[&str], not_there: &[&str]) {
    let run = ["run", "--duration", "1s", "--warmup", "100ms", "--target", "TARGET"];
    check_verb(name, &[&run, arguments].concat(), curves, there, not_there);
}

/// Runs with these arguments, draws the page, and looks for what must be on it and what must not.
fn check_verb(name: &str, arguments: &[&str], curves: usize, there: &[&str], not_there: &[&str]) {
    let Some(browser) = wanted_browser() else { return };
    let directory = folder(name);
    let drawn = drawn(&browser, &directory, &report(&directory, arguments));
    assert_eq!(drawn.matches("<path ").count(), curves, "{drawn}");
    there.iter().for_each(|text| assert!(drawn.contains(text), "{text}: {drawn}"));
    not_there.iter().for_each(|text| assert!(!drawn.contains(text), "{text}: {drawn}"));
    std::fs::remove_dir_all(directory).expect("it is ours");
}

const INTENDED: &str = "from the intended send";
const CLOSED: &str = "Closed loop: a slow server is asked less often";

#[test]
fn the_report_draws_itself_in_a_browser() {
    let load = ["--rate", "500", "--interval", "200ms", "--lag-limit", "10s"];
    // Two curves by percentile, three over time, two of the rate: offered and answered.
    check("open", &load, 7, &[INTENDED], &[CLOSED]);
}

#[test]
fn the_report_of_a_closed_loop_says_what_its_times_are() {
    check("closed", &["--closed", "-c", "1"], 5, &[CLOSED, "from the actual send"], &[INTENDED, "<th>response</th>"]);
}

#[test]
fn the_report_tells_what_was_offered_in_each_step() {
    let load = ["--profile", "step:100,200", "--interval", "250ms", "--lag-limit", "10s"];
    check("steps", &load, 7, &["<th>offered/s</th><th>answered/s</th>"], &[]);
}

#[test]
fn the_report_draws_no_line_across_a_time_without_answers() {
    let load = ["--rate", "5", "--interval", "50ms", "--lag-limit", "10s"];
    // Points between two gaps are dots; of the rate nothing is missing. Ticks have the decimals they need.
    check("gaps", &load, 7, &["<circle class=\"a\"", "<circle class=\"c\"", ">0.2 s<"], &["<circle class=\"due\""]);
}

#[test]
fn the_report_of_a_long_run_draws_no_more_than_there_is_room_for() {
    let Some(browser) = wanted_browser() else { return };
    let directory = folder("long");
    let load =
        ["run", "--duration", "1s", "--warmup", "0s", "--target", "TARGET", "--rate", "500", "--lag-limit", "10s"];
    let page = report(&directory, &load);
    // As if there had been an hour of intervals of 20 ms.
    let text = std::fs::read_to_string(&page).expect("it is there");
    let (before, rest) = text.split_once("\"intervals\":[").expect("they are told");
    let (_, after) = rest.split_once(']').expect("they end");
    let interval = |n: u32| {
        let (at_s, rate) = (f64::from(n) / 50.0, if n == 77_777 { 9_000 } else { 500 });
        format!(
            "{{\"at_s\":{at_s},\"seconds\":0.02,\"rate\":{rate},\"offered_per_s\":500,\"done\":10,\"p50_ns\":1000,\"p99_ns\":{n},\"max_ns\":200000}}"
        )
    };
    let intervals: Vec<String> = (1..=180_000).map(interval).collect();
    let before = before.replace("\"load_s\":1", "\"load_s\":3600");
    let after = after.replace("\"load_s\":1", "\"load_s\":3600");
    std::fs::write(&page, format!("{before}\"intervals\":[{}]{after}", intervals.join(","))).expect("it is ours");
    let drawn = drawn(&browser, &directory, &page);
    let points = |path: &str| path.split('"').next().map_or(0, |path| path.matches('L').count());
    let longest = drawn.split(" d=\"").skip(1).map(points).max();
    assert!(longest.is_some_and(|longest| (500..2_000).contains(&longest)), "{longest:?} points");
    // The one rate above all others is among them, and decides how far the axis goes.
    assert!(drawn.contains(">8,000</text>"), "the highest was left out");
    std::fs::remove_dir_all(directory).expect("it is ours");
}

#[test]
fn the_report_tells_what_cannot_be_said() {
    let load = ["--rate", "500", "--lag-limit", "1ns", "--fail-p99", "1s"];
    check("unknown", &load, 2, &["cannot tell: thresholds on time cannot be judged"], &[]);
}

#[test]
fn the_report_of_a_comparison_shows_every_round() {
    let load = ["--rate", "200", "--rounds", "6", "--round-time", "200ms", "--warmup", "50ms", "--lag-limit", "10s"];
    let compare = [&["compare", "-e", "one=TARGET", "-e", "other=TARGET"], &load[..]].concat();
    // A curve each by percentile, and over the rounds of CPU, p50, p99 and rate.
    let there = ["Ratios to one", "p99, other", "covers the true median with 96.9 %"];
    check_verb("compare", &compare, 10, &there, &["not known", "Too few rounds", "requests failed"]);
}

#[test]
fn the_report_of_a_comparison_knows_no_ratio_to_nothing() {
    let Some(browser) = wanted_browser() else { return };
    let directory = folder("nothing");
    let load = ["--rate", "200", "--rounds", "1", "--round-time", "200ms", "--warmup", "50ms", "--lag-limit", "10s"];
    let page = report(&directory, &[&["compare", "-e", "one=TARGET", "-e", "other=TARGET"], &load[..]].concat());
    // As if the first one's CPU had been nothing in a round: the last that is told is the second endpoint's.
    let text = std::fs::read_to_string(&page).expect("it is there");
    let (before, rest) = text.rsplit_once("\"cpu_per_request\":").expect("it is told");
    let (cpu, rest) = rest.split_once("\"to_first\":").expect("it is told");
    let (_, rest) = rest.split_once('}').expect("it ends");
    let text = format!("{before}\"cpu_per_request\":{cpu}\"to_first\":null{rest}");
    std::fs::write(&page, text).expect("it is ours");
    let drawn = drawn(&browser, &directory, &page);
    assert!(drawn.contains("not known") && drawn.contains("p99, other"), "{drawn}");
    std::fs::remove_dir_all(directory).expect("it is ours");
}

#[test]
fn the_report_of_a_search_shows_every_rate_tried() {
    let search = ["saturate", "--target", "TARGET", "--p99", "10s", "--from", "100", "--max", "400"];
    let load = ["--probe", "200ms", "--lag-limit", "10s"];
    // The bound, and what was asked.
    let there = ["100/s", "<td>200</td>", "<td>400</td>", "held (--max)"];
    check_verb("saturate", &[&search, &load[..]].concat(), 2, &there, &[]);
}
