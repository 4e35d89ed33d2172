//! The program against its own canned server: what it prints, what it exits with, what it finds out.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lockgate-loadgen");

struct Responder {
    child: Child,
    url: String,
}

impl Responder {
    fn start(arguments: &[&str]) -> Responder {
        let mut child = Command::new(PROGRAM)
            .args(["respond", "--port", "0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program is built");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says its address");
        let address = line.trim().strip_prefix("listening on ").expect("it says its address");
        Responder { url: format!("postgres://test@{address}/test"), child }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Generous with lag unless told otherwise: these tests check answers, not time.
fn run(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--target", url, "-o", "json"]).args(arguments);
    for (name, value) in [("--warmup", "100ms"), ("--lag-limit", "10s")] {
        if !arguments.contains(&name) {
            command.args([name, value]);
        }
    }
    command.output().expect("the program is built")
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: `{text}` `{errors}`"))
}

#[test]
fn every_workload_is_answered_rightly_and_counted() {
    let responder = Responder::start(&["--rows", "3", "--value", "a", "--value", "b", "--copy-rows", "50"]);
    for workload in ["simple", "extended", "prepared", "pipelined", "copy-out", "churn"] {
        for load in [&["--rate", "500"][..], &["--closed"], &["--rate", "500", "--arrivals", "poisson", "-j", "2"]] {
            let arguments = [&["--workload", workload, "--count", "200", "--connections", "4"], load].concat();
            let output = run(&responder.url, &arguments);
            let value = json(&output);
            assert_eq!(output.status.code(), Some(0), "{workload} {load:?}: {value}");
            assert_eq!(
                (&value["answered"], &value["errors"]),
                (&200.into(), &0.into()),
                "{workload} {load:?}: {value}"
            );
            assert_eq!(value["response"]["samples"], 200, "{workload} {load:?}");
            assert_eq!(value["server_version"], "15.0 (canned)");
        }
    }
}

#[test]
fn an_open_loop_offers_its_rate() {
    let responder = Responder::start(&[]);
    let value = json(&run(&responder.url, &["--rate", "1000", "--duration", "1s", "--interval", "100ms"]));
    assert_eq!((&value["requests"], &value["answered"]), (&1000.into(), &1000.into()), "{value}");
    // A row of one character in a column: what the warm-up received is not in it.
    assert_eq!((&value["row_bytes"], &value["offered_per_s"]), (&7000.into(), &1000.0.into()), "{value}");
    let done: u64 =
        value["intervals"].as_array().expect("it is a list").iter().filter_map(|one| one["done"].as_u64()).sum();
    assert_eq!(done, 1000);
}

#[test]
fn a_count_of_random_arrivals_on_several_threads_offers_its_rate() {
    let responder = Responder::start(&[]);
    let arguments = ["--rate", "2000", "--arrivals", "poisson", "-n", "800", "-j", "8", "-c", "8", "--seed", "3"];
    let value = json(&run(&responder.url, &arguments));
    let offered = value["offered_per_s"].as_f64().expect("it is a number");
    // The schedule follows from the seed, whatever the machine does. By the first thread's time it was 2310/s.
    assert!((offered / 2000.0 - 1.0).abs() < 0.1, "{value}");
}

#[test]
fn a_count_offers_its_rate_whatever_the_warm_up_is() {
    let responder = Responder::start(&[]);
    let value = json(&run(&responder.url, &["--rate", "2", "-n", "1", "-c", "1", "--warmup", "50ms"]));
    let offered = value["offered_per_s"].as_f64().expect("it is a number");
    assert!((offered / 2.0 - 1.0).abs() < 1e-6, "{value}");
}

#[test]
fn settings_are_told_as_they_were_and_a_count_that_was_not_reached_is_told() {
    let responder = Responder::start(&[]);
    let arguments = ["--rate", "100", "-n", "1000", "-d", "200ms", "-j", "256", "-c", "1", "--expect-rows", "1"];
    let output = run(&responder.url, &arguments);
    let value = json(&output);
    assert_eq!(output.status.code(), Some(0), "{value}");
    assert!(value["count_missed"].as_str().is_some_and(|why| why.contains("after 20 of 1000 requests")), "{value}");
    let settings = &value["settings"];
    assert!(settings["threads"] == 1 && settings["load"].as_str().is_some_and(|load| load.contains(", 1 thread,")));
    assert!(settings["timeout_s"] == 10.0 && settings["interval_s"] == 1.0 && settings["check"][0] == "same");
    assert!(settings["expect_rows"] == 1 && settings["expect_masked"].is_null(), "{value}");
    let reached = json(&run(&responder.url, &["--rate", "100", "-n", "5", "-d", "2s"]));
    assert!(reached["count_missed"].is_null(), "{reached}");
    // A closed loop that reaches its count is over: its rate is over the time it took.
    let closed = json(&run(&responder.url, &["--closed", "-n", "50", "-d", "10m", "-c", "2", "-j", "2"]));
    let (rate, load_s) = (closed["achieved_per_s"].as_f64(), closed["load_s"].as_f64());
    assert!(load_s.is_some_and(|load_s| load_s < 60.0), "{closed}");
    assert!(rate.zip(load_s).is_some_and(|(rate, load_s)| (rate * load_s - 50.0).abs() < 1e-6), "{closed}");
}

#[test]
fn what_lies_unread_until_the_next_tick_is_timed_when_it_came() {
    let responder = Responder::start(&[]);
    let arguments = ["--rate", "100", "--tick", "400ms", "--count", "160", "--warmup", "400ms", "--connections", "100"];
    let value = json(&run(&responder.url, &arguments));
    assert_eq!((&value["answered"], &value["errors"]), (&160.into(), &0.into()), "{value}");
    // Read at the next tick and timed then, half of them would have taken 400 ms.
    let service = value["service"]["percentiles"]["p50"]["ns"].as_f64().expect("it is a number") / 1e6;
    assert!(service < 200.0, "{service} ms");
}

/// The status of a verb whose arguments cannot be meant, so that nothing is connected to.
fn status_of(arguments: &[&str]) -> Option<i32> {
    let status = Command::new(PROGRAM).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.expect("the program is built").code()
}

const NOWHERE: &str = "postgres://u@127.0.0.1:1/d";

#[test]
fn a_tick_that_is_long_beside_the_run_is_refused() {
    let run = ["run", "--target", NOWHERE, "--rate", "100", "--duration", "2s"];
    let saturate = ["saturate", "--target", NOWHERE, "--probe", "1s"];
    let (one, two) = (format!("a={NOWHERE}"), format!("b={NOWHERE}"));
    let compare = ["compare", "-e", &one, "-e", &two, "--rate", "100", "--round-time", "1s"];
    for (verb, more, status) in [
        (&run[..], &["--tick", "20s", "--warmup", "0s"][..], 2),
        (&run, &["--tick", "3s", "--warmup", "1s"], 2),
        (&run, &["--tick", "200ms", "--warmup", "100ms"], 2),
        // Nobody listens there: these got as far as that.
        (&run, &["--tick", "200ms", "--warmup", "200ms"], 3),
        (&run, &["--tick", "200ms", "--warmup", "0s"], 3),
        (&saturate, &["--tick", "101ms"], 2),
        (&saturate, &["--tick", "100ms"], 3),
        (&compare, &["--tick", "101ms"], 2),
        (&compare, &["--tick", "100ms"], 3),
    ] {
        assert_eq!(status_of(&[verb, more].concat()), Some(status), "{verb:?} {more:?}");
    }
}

#[test]
fn rates_and_timeouts_that_cannot_be_meant_are_refused() {
    let run = ["run", "--target", NOWHERE];
    for (arguments, status) in [
        (&["--rate", "1e-12"][..], 2),
        (&["--profile", "step:0.00001,5"], 2),
        (&["--profile", "ramp:5-0.00001"], 2),
        (&["--closed", "--timeout", "0s"], 2),
        (&["--closed", "--timeout", "500us"], 2),
        // Nobody listens there: these got as far as that.
        (&["--rate", "0.0001"], 3),
        (&["--closed", "--timeout", "1ms"], 3),
    ] {
        assert_eq!(status_of(&[&run, arguments].concat()), Some(status), "{arguments:?}");
    }
}

#[test]
fn each_step_of_a_profile_is_told_apart() {
    let responder = Responder::start(&[]);
    let profile = ["--profile", "step:100,0.3k", "--duration", "2s", "--interval", "500ms"];
    let value = json(&run(&responder.url, &profile));
    let steps = value["steps"].as_array().expect("it is a list");
    let offered: Vec<u64> = steps.iter().filter_map(|step| step["offered"].as_u64()).collect();
    assert!(offered.len() == 2 && offered.iter().sum::<u64>() == 400 && offered[0] < offered[1], "{value}");
    let (count, rest) = ("--duration", "1500ms");
    let value = json(&run(&responder.url, &["--profile", "step:100,300", count, rest]));
    assert_eq!(value["steps"][0]["seconds"], 0.75, "intervals divide steps unless told otherwise: {value}");
    let uneven = run(&responder.url, &["--profile", "step:100,300", "--duration", "3s", "--interval", "1s"]);
    assert_eq!(uneven.status.code(), Some(2));
    let too_long = run(&responder.url, &["--profile", "step:100,300", "--duration", "1s", "--interval", "1s"]);
    assert_eq!(too_long.status.code(), Some(2));
}

#[test]
fn time_in_which_nothing_happened_is_a_part_of_its_step_and_of_the_series() {
    let responder = Responder::start(&[]);
    let log = std::env::temp_dir().join(format!("loadgen-gaps-{}", std::process::id()));
    let file = log.to_str().expect("it is text");
    // In most of the first step's intervals nothing is due.
    let load = ["--profile", "step:4,16", "--duration", "2s", "--interval", "50ms", "--hlog", file];
    let value = json(&run(&responder.url, &load));
    let number = |value: &Value, name: &str| value[name].as_f64().expect("it is a number");
    for step in value["steps"].as_array().expect("it is a list") {
        assert!((number(step, "seconds") - 1.0).abs() < 1e-6, "{value}");
    }
    let intervals = value["intervals"].as_array().expect("it is a list");
    let spans = intervals.iter().map(|one| (number(one, "at_s") - number(one, "seconds"), number(one, "at_s")));
    let end = spans.fold(0.0, |end: f64, (from, until)| {
        assert!((from - end).abs() < 1e-6, "a gap at {end} s: {value}");
        until
    });
    assert!(end > 2.0 - 1e-6 && intervals.iter().any(|one| one["done"] == 0 && one["p50_ns"].is_null()), "{value}");
    // What begins with the end of the load holds at least an answer.
    let last = intervals.last().expect("there are some");
    assert!(number(last, "at_s") < 2.0 + 1e-6 || last["done"] != 0, "{value}");
    let lines = std::fs::read_to_string(&log).expect("it was written");
    assert_eq!(lines.lines().filter(|line| line.contains(",HISTFAAA")).count(), intervals.len(), "{lines}");
    std::fs::remove_file(log).expect("it is ours");
}

#[test]
fn waiting_for_a_connection_counts() {
    // 20 ms a request on one connection, one request every 10 ms: each waits 10 ms longer than the one before.
    let responder = Responder::start(&["--delay", "20ms"]);
    let arguments = ["--rate", "100", "--count", "40", "--connections", "1", "--warmup", "0s"];
    let value = json(&run(&responder.url, &arguments));
    let response = value["response"]["max_ns"].as_f64().expect("it is a number") / 1e6;
    let service = value["service"]["percentiles"]["p50"]["ns"].as_f64().expect("it is a number") / 1e6;
    assert!(response > 400.0, "{response} ms: the queue is hidden");
    // Forty requests were due within 0.4 s, however long it took to answer them.
    let rate = |name: &str| value[name].as_f64().expect("it is a number");
    assert!((rate("offered_per_s") - 100.0).abs() < 0.001 && rate("achieved_per_s") < 60.0, "{value}");
    assert!((20.0..60.0).contains(&service), "{service} ms");
}

/// What the table says was achieved: rate, answers and seconds.
fn achieved(url: &str, load: &[&str]) -> (f64, f64, f64, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--target", url, "--lag-limit", "10s"]).args(load);
    let text = String::from_utf8_lossy(&command.output().expect("the program is built").stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("achieved")).unwrap_or_else(|| panic!("{text}"));
    let (rate, of) = line.split_once("/s (").expect("a rate and what it is made of");
    let (answers, of) = of.split_once(" answered rightly in ").expect("how many");
    let (seconds, rest) = of.split_once(" s").expect("in how long");
    let number = |text: &str| text.trim().parse().expect("it is a number");
    (number(rate), number(answers), number(seconds), rest.to_string())
}

#[test]
fn the_answers_beside_a_rate_are_those_it_is_made_of() {
    let responder = Responder::start(&["--delay", "20ms"]);
    let closed = ["--closed", "--duration", "200ms", "--warmup", "100ms", "-c", "8"];
    let (rate, answers, seconds, rest) = achieved(&responder.url, &closed);
    assert!((rate * seconds - answers).abs() < 0.1 && rest == ")", "{rate} {answers} {seconds} {rest}");
    // One in 20 ms, asked for every 10 ms: half of them come after the load.
    let open = ["--rate", "100", "--duration", "400ms", "--warmup", "0s", "-c", "1"];
    let (rate, answers, seconds, rest) = achieved(&responder.url, &open);
    assert!(
        (rate * seconds - answers).abs() < 0.1 && rest.starts_with("; 40 in "),
        "{rate} {answers} {seconds} {rest}"
    );
}

#[test]
fn thresholds_set_the_exit_status() {
    let responder = Responder::start(&["--delay", "5ms"]);
    let base = ["--rate", "100", "--count", "20"];
    let status = |more: &[&str]| run(&responder.url, &[&base, more].concat()).status.code();
    assert_eq!(status(&["--fail-p99", "10s", "--fail-errors", "0"]), Some(0));
    assert_eq!(status(&["--fail-p99", "1ms"]), Some(1));
    // Longer than this generator may stand still itself.
    let slow = Responder::start(&["--delay", "500ms"]);
    let longest = run(&slow.url, &["--rate", "100", "--count", "4", "--warmup", "0s", "--fail-max", "1ms"]);
    assert_eq!(longest.status.code(), Some(1));
    assert_eq!(status(&["--fail-rate", "1000"]), Some(1));
    assert_eq!(status(&["--fail-p99", "fast"]), Some(2));
}

#[test]
fn percentiles_are_refused_when_the_generator_was_late() {
    let responder = Responder::start(&[]);
    let output = run(&responder.url, &["--rate", "1000", "--count", "300", "--lag-limit", "1ns"]);
    let value = json(&output);
    assert_eq!(output.status.code(), Some(3));
    assert!(value.get("response").is_none() && value["late"].is_string(), "{value}");
    assert!(value["intervals"][0]["done"].is_u64() && value["intervals"][0].get("p99_ns").is_none(), "{value}");
}

#[test]
fn a_rate_is_not_held_against_a_server_whose_generator_was_late() {
    let responder = Responder::start(&[]);
    let load = ["--rate", "1000", "--count", "300", "--lag-limit", "1ns", "--fail-rate", "100000"];
    let output = run(&responder.url, &load);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && !errors.contains("missed"), "{errors}");
}

#[test]
fn a_generator_at_its_limit_says_so() {
    let responder = Responder::start(&["--rows", "1000", "--value", &"lorem ipsum dolor ".repeat(33)]);
    let load = ["--rate", "100000", "--duration", "500ms", "-c", "4", "--fail-p99", "1ms"];
    let output = run(&responder.url, &[&load[..], &["--expect-masked", "####-####"]].concat());
    let value = json(&output);
    // Other tests may keep it from filling a core; then it is them that it waits for.
    let at_its_limit = value["busiest_thread_cores"].as_f64().is_some_and(|busy| busy > 0.95);
    let says_so = value["late"].as_str().is_some_and(|late| late.contains("at its limit"));
    assert_eq!((says_so, output.status.code() == Some(3)), (at_its_limit, at_its_limit), "{value}");
}

#[test]
fn a_load_too_short_to_tell_how_busy_the_generator_was_is_not_held_against_it() {
    let responder = Responder::start(&[]);
    for load in [["-r", "1", "-d", "1s"], ["-r", "1", "-n", "1"], ["-r", "1000", "-n", "1"]] {
        let output = run(&responder.url, &load);
        let value = json(&output);
        assert_eq!((output.status.code(), &value["late"]), (Some(0), &Value::Null), "{load:?}: {value}");
    }
}

#[test]
fn whoever_asks_for_json_gets_wrong_usage_as_json_too() {
    for format in [&["-o", "json"][..], &["-ojson"], &["--output=json"], &["--output", "json"]] {
        for wrong in [&["--rate", "fast"][..], &["--nonsense"], &[]] {
            let arguments = [&["run", "--target", NOWHERE], wrong, format].concat();
            let output = Command::new(PROGRAM).args(arguments).output().expect("the program is built");
            let value = json(&output);
            assert_eq!((output.status.code(), &value["status"]), (Some(2), &2.into()), "{value}");
            assert!(value["error"].as_str().is_some_and(|error| !error.starts_with("error")), "{value}");
        }
    }
    let output = Command::new(PROGRAM).args(["run", "--nonsense"]).output().expect("the program is built");
    assert!(output.status.code() == Some(2) && output.stdout.is_empty());
}

#[test]
fn passwords_in_arguments_that_are_refused_are_not_repeated() {
    for arguments in [
        &["compare", "-e", "postgres://u:S3cret@127.0.0.1:5/db", "--rate", "10"][..],
        &["compare", "--endpoint=postgres://u:S3cret@127.0.0.1:5/db"],
        &["run", "-t", "u:S3cret@127.0.0.1:5432/db", "--rate", "1"],
        &["run", "-t", "host=127.0.0.1 user=u password=S3cret", "--rate", "1", "-o", "json"],
        &["run", "-t", "postgres://u:S3cret/x@127.0.0.1:1/db", "--rate", "1"],
    ] {
        let output = Command::new(PROGRAM).args(arguments).output().expect("the program is built");
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(output.status.code() == Some(2) && !told.contains("S3cret"), "{arguments:?}: {told}");
    }
}

#[test]
fn wrong_answers_and_unmasked_values_are_found_out() {
    let responder = Responder::start(&["--value", "card 4111-1111-1111-1111"]);
    let fault = |arguments: &[&str]| {
        let output = run(&responder.url, &[&["--closed", "--count", "10"], arguments].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (arguments, expected) in [
        (&["--expect-masked", "####-####-####-####"][..], "unmasked value"),
        (&["--expect-rows", "2"], "wrong number of rows"),
        (&["--expect-value", "other"], "expected value missing"),
    ] {
        let (status, message) = fault(arguments);
        assert_eq!(status, Some(1), "{message}");
        assert!(message.contains(expected), "{message}");
    }
    let fine = ["--expect-rows", "1", "--expect-value", "card 4111-1111-1111-1111", "--expect-masked", "@@@@-####"];
    assert_eq!(fault(&fine).0, Some(0));
}

#[test]
fn logins_that_fail_say_what_to_do() {
    let responder = Responder::start(&["--password", "right"]);
    let attempt = |word: Option<&str>| {
        let mut command = Command::new(PROGRAM);
        command.args(["run", "--closed", "--count", "5", "--target", &responder.url]).env_remove("PGPASSWORD");
        word.map(|word| command.env("PGPASSWORD", word));
        let output = command.output().expect("the program is built");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(attempt(Some("right")).0, Some(0));
    let (status, message) = attempt(Some("wrong"));
    assert!(status == Some(3) && message.contains("28P01"), "{message}");
    let (status, message) = attempt(None);
    assert!(status == Some(3) && message.contains("PGPASSWORD"), "{message}");
    let nowhere = run("postgres://u@127.0.0.1:1/d", &["--closed", "--count", "1"]);
    assert_eq!(nowhere.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("is the server up"));
}

#[test]
fn what_cannot_be_written_is_told_before_the_run_or_costs_only_itself() {
    let nowhere =
        run("postgres://u@127.0.0.1:1/d", &["--closed", "--count", "1", "--report", "/nonexistent/report.html"]);
    let errors = String::from_utf8_lossy(&nowhere.stderr);
    assert!(nowhere.status.code() == Some(3) && errors.contains("cannot write /nonexistent/report.html"), "{errors}");
    let responder = Responder::start(&[]);
    let output = run(&responder.url, &["--closed", "--count", "5", "--hlog", "/dev/full"]);
    assert_eq!((output.status.code(), &json(&output)["answered"]), (Some(3), &5.into()));
    let arguments = ["run", "--target", &responder.url, "--closed", "--count", "5", "--warmup", "0s"];
    let unread = || {
        let (reader, writer) = std::io::pipe().expect("there are descriptors");
        drop(reader);
        Stdio::from(writer)
    };
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there"));
    for (stdout, message) in [(unread(), ""), (full(), "lockgate-loadgen: cannot write to standard output")] {
        let output = Command::new(PROGRAM).args(arguments).stdout(stdout).output().expect("the program is built");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && errors.starts_with(message), "{errors}");
        assert_eq!(errors.is_empty(), message.is_empty(), "{errors}");
    }
}

#[test]
fn two_results_do_not_share_a_file() {
    let path = std::env::temp_dir().join(format!("loadgen-shared-{}", std::process::id()));
    let name = path.to_str().expect("it is text");
    let run = ["run", "--target", NOWHERE, "--closed", "--hlog", name, "--report"];
    assert_eq!(status_of(&[&run[..], &[name]].concat()), Some(2));
    assert!(!path.exists(), "a run that was refused leaves no file");
}

#[test]
fn files_are_written_and_hold_the_run() {
    let responder = Responder::start(&[]);
    let directory = std::env::temp_dir().join(format!("loadgen-files-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("there is room");
    let (page, log) = (directory.join("report.html"), directory.join("run.hlog"));
    let files = ["--report", page.to_str().expect("it is text"), "--hlog", log.to_str().expect("it is text")];
    let output =
        run(&responder.url, &[&["--rate", "500", "--duration", "1s", "--interval", "250ms"], &files[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(page).expect("it was written");
    let (_, rest) = page.split_once("id=\"data\">").expect("the data is there");
    let data: Value = serde_json::from_str(rest.split_once("</script>").expect("it ends").0).expect("it parses");
    assert_eq!(data["answered"], json(&output)["answered"]);
    assert!(data["manifest"]["kernel"].is_string() && data["response_curve"].is_array());
    let log = std::fs::read_to_string(log).expect("it was written");
    assert!(log.lines().filter(|line| line.contains(",HISTFAAA")).count() >= 4, "{log}");
    std::fs::remove_dir_all(directory).expect("it is ours");
}

#[test]
fn endpoints_are_compared_with_the_cpu_of_their_servers() {
    let (one, two) = (Responder::start(&[]), Responder::start(&["--rows", "1000"]));
    let (first, second) = (format!("small={}", one.url), format!("large={}", two.url));
    let output = Command::new(PROGRAM)
        .args(["compare", "--endpoint", &first, "--endpoint", &second, "--rate", "500", "--rounds", "3"])
        .args([
            "--check",
            "none",
            "--round-time",
            "500ms",
            "--warmup",
            "100ms",
            "--lag-limit",
            "10s",
            "--seed",
            "7",
            "-o",
            "json",
        ])
        .output()
        .expect("the program is built");
    let value = json(&output);
    assert_eq!((output.status.code(), &value["rounds"], &value["seed"]), (Some(0), &3.into(), &7.into()), "{value}");
    // How much more the second costs is a measurement, and another process may take the core: only that both were
    // measured, and compared, is checked here. `compare.rs` checks the arithmetic.
    for endpoint in value["endpoints"].as_array().expect("there are two") {
        let cpu = endpoint["cpu_per_request"]["median"].as_f64().expect("the CPU is known");
        assert!(cpu > 0.0, "{endpoint}");
    }
    let ratio = &value["endpoints"][1]["cpu_per_request"]["to_first"];
    assert!(ratio["median"].as_f64().is_some_and(|median| median.is_finite() && median > 0.0), "{value}");
    assert!(ratio["low"].is_null() && ratio["high"].is_null(), "three rounds are too few for an interval: {value}");
    assert_eq!(value["endpoints"][1]["errors_by_kind"], serde_json::json!({}));
}

#[test]
fn endpoints_that_answer_otherwise_are_told() {
    let first = Responder::start(&["--value", "ann"]);
    let check = |arguments: &[&str], check: &str, status: i32, differs: Option<&str>| {
        let other = Responder::start(arguments);
        let (one, two) = (format!("a={}", first.url), format!("b={}", other.url));
        let compare = |format: &str| {
            Command::new(PROGRAM)
                .args(["compare", "--endpoint", &one, "--endpoint", &two, "--rate", "100", "--rounds", "1"])
                .args(["--round-time", "100ms", "--warmup", "0s", "--lag-limit", "10s", "--check", check, "-o", format])
                .output()
                .expect("the program is built")
        };
        let output = compare("json");
        let value = json(&output);
        assert_eq!(output.status.code(), Some(status), "{value}");
        assert_eq!(value["endpoints"][1]["answer_differs"].as_str(), differs, "{value}");
        assert_eq!(value["warnings"].as_array().map(Vec::len), Some(usize::from(differs.is_some())), "{value}");
        let table = String::from_utf8_lossy(&compare("table").stdout).into_owned();
        assert_eq!(table.contains("WARNING: `b` answers otherwise than `a`"), differs.is_some(), "{table}");
    };
    check(&["--value", "ann"], "same", 0, None);
    check(&["--value", "xxx"], "same", 0, Some("content"));
    check(&["--value", "xxx"], "rows", 0, None);
    check(&["--value", "ann", "--rows", "2"], "rows", 1, Some("rows"));
    check(&["--value", "ann", "--rows", "2"], "none", 0, None);
}

#[test]
fn a_comparison_wants_two_to_six_names() {
    let status = |endpoints: &[&str]| {
        let endpoints = endpoints.iter().flat_map(|name| ["--endpoint".into(), format!("{name}=postgres://u@h/d")]);
        let status =
            Command::new(PROGRAM).arg("compare").args(endpoints).arg("--closed").stderr(Stdio::null()).status();
        status.expect("the program is built").code()
    };
    for endpoints in [&["a"][..], &["a", "a"], &["a", "b", "c", "d", "e", "f", "g"]] {
        assert_eq!(status(endpoints), Some(2), "{endpoints:?}");
    }
}

#[test]
fn saturation_of_a_slow_server_is_found() {
    // 10 ms a request on two connections: 200 a second and no more.
    let responder = Responder::start(&["--delay", "10ms"]);
    let output = Command::new(PROGRAM)
        .args(["saturate", "--target", &responder.url, "--connections", "2", "--from", "20", "--probe", "500ms"])
        .args(["--p99", "60ms", "--precision", "20", "--lag-limit", "10s", "-o", "json"])
        .output()
        .expect("the program is built");
    let value = json(&output);
    let rate = value["rate"].as_f64().unwrap_or_else(|| panic!("{value}"));
    assert!((60.0..=230.0).contains(&rate), "{value}");
}

#[test]
fn saturation_tells_no_times_where_the_generator_was_late() {
    let responder = Responder::start(&[]);
    let output = Command::new(PROGRAM)
        .args(["saturate", "--target", &responder.url, "--from", "200", "--probe", "200ms", "--lag-limit", "1ns"])
        .args(["-o", "json"])
        .output()
        .expect("the program is built");
    let value = json(&output);
    assert_eq!(output.status.code(), Some(3), "{value}");
    let probes = value["probes"].as_array().expect("it is a list");
    assert!(!probes.is_empty() && probes.iter().all(|probe| probe["p99_ns"].is_null()), "{value}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("p99        -  the generator itself was late"), "{errors}");
}

#[test]
fn a_search_that_could_find_nothing_is_refused() {
    let status = |arguments: &[&str]| status_of(&[&["saturate", "--target", NOWHERE], arguments].concat());
    assert_eq!(status(&["--from", "0.01", "--max", "0.04", "--probe", "100ms"]), Some(2));
    assert_eq!(status(&["--from", "10", "--max", "20", "--probe", "100ms"]), Some(3), "nobody listens there");
    for (precision, expected) in [("0", 2), ("0.4", 2), ("101", 2), ("nan", 2), ("0.5", 3), ("100", 3)] {
        assert_eq!(status(&["--precision", precision]), Some(expected), "{precision}");
    }
}

#[test]
fn no_rate_holds_without_a_request() {
    let responder = Responder::start(&[]);
    // With this seed no request is due in the first probe, whatever the machine does.
    let output = Command::new(PROGRAM)
        .args(["saturate", "--target", &responder.url, "--from", "20", "--max", "20", "--probe", "50ms"])
        .args(["--arrivals", "poisson", "--seed", "3", "--lag-limit", "10s"])
        .output()
        .expect("the program is built");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && errors.contains("no request was due"), "{errors}");
}

#[test]
fn a_long_latency_does_not_look_like_falling_behind() {
    let responder = Responder::start(&["--delay", "200ms"]);
    let output = Command::new(PROGRAM)
        .args(["saturate", "--target", &responder.url, "--from", "20", "--max", "40", "--probe", "1s"])
        .args(["--p99", "10s", "--lag-limit", "10s", "-o", "json"])
        .output()
        .expect("the program is built");
    let value = json(&output);
    assert_eq!((output.status.code(), value["rate"].as_f64()), (Some(0), Some(40.0)), "{value}");
}

#[test]
fn a_server_out_of_descriptors_serves_those_it_can() {
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -n 20; exec '{PROGRAM}' respond --port 0")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says its address");
    let address = line.trim().strip_prefix("listening on ").expect("it says its address");
    let responder = Responder { url: format!("postgres://test@{address}/test"), child };
    let load = |connections: &str, timeout: &str| {
        let arguments = ["--closed", "--count", "100", "--connections", connections, "--timeout", timeout];
        run(&responder.url, &arguments).status.code()
    };
    assert_eq!(load("40", "300ms"), Some(3), "some cannot log in");
    assert_eq!(load("5", "10s"), Some(0));
}
