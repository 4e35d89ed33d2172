//! What is seen while a run goes on: a line with rate and p99 on a terminal, and nothing of it anywhere else.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lockgate-loadgen");

/// Ended however the test ends.
struct Responder {
    child: Child,
    url: String,
}

impl Responder {
    fn start() -> Responder {
        let child = Command::new(PROGRAM).args(["respond", "--port", "0"]).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("the program is built");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says its address");
        let address = line.trim().strip_prefix("listening on ").expect("it says its address");
        Responder { url: format!("postgres://test@{address}/test"), child }
    }

    fn run(&self) -> String {
        let load = "--rate 200 --duration 1s --interval 200ms --warmup 200ms --lag-limit 10s";
        format!("'{PROGRAM}' run --target {} {load}", self.url)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn on_a_terminal_rate_and_p99_are_shown_while_it_runs() {
    let responder = Responder::start();
    // `script` makes a terminal of its own; 80 columns are what people have at least.
    let command = format!("stty cols 80; {}", responder.run());
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .expect("script is part of every Debian");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let lines: Vec<&str> = text.split(['\r', '\n']).filter(|line| line.contains(" of 1 s")).collect();
    assert!(lines.iter().any(|line| line.contains("/s  p50 ") && line.contains("  p99 ")), "{text:?}");
    assert!(lines.iter().any(|line| line.contains("  lag ")), "it does not fit into 80 columns: {text:?}");
    assert!(!text.contains("\u{1b}[1A"), "a line was broken and had to be taken back: {text:?}");
    assert!(text.contains("response time"), "the table follows: {text:?}");
}

#[test]
fn elsewhere_there_are_no_progress_and_no_control_characters() {
    let responder = Responder::start();
    let output = Command::new("sh").args(["-c", &responder.run()]).env("TERM", "xterm").output();
    let output = output.expect("there is a shell");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("response time"), "{text} {errors}");
    assert_eq!(errors, "");
    assert!(!text.contains(" of 1 s") && !text.contains(['\r', '\u{1b}']), "{text:?}");
}
