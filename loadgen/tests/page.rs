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

fn report(directory: &Path) -> PathBuf {
    let responder = Command::new(PROGRAM).args(["respond", "--port", "0"]).stdout(Stdio::piped()).spawn();
    let mut responder = Process(responder.expect("the program is built"));
    let mut line = String::new();
    let output = responder.0.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut line).expect("it says its address");
    let address = line.trim().strip_prefix("listening on ").expect("it says its address");
    let page = directory.join("report.html");
    let status = Command::new(PROGRAM)
        .args([
            "run",
            "--rate",
            "500",
            "--duration",
            "1s",
            "--interval",
            "200ms",
            "--warmup",
            "100ms",
            "--lag-limit",
            "10s",
        ])
        .arg(format!("--target=postgres://test@{address}/test"))
        .arg(format!("--report={}", page.display()))
        .stdout(Stdio::null())
        .status()
        .expect("the program is built");
    assert!(status.success());
    page
}

#[test]
fn the_report_draws_itself_in_a_browser() {
    let Some(browser) = browser() else {
        assert!(std::env::var_os("LOCKGATE_NEEDS_BROWSER").is_none(), "there is no chromium in the path");
        eprintln!("not checked: there is no chromium in the path");
        return;
    };
    let directory = std::env::temp_dir().join(format!("loadgen-page-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("there is room");
    let page = report(&directory);
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"])
        .arg(format!("--user-data-dir={}", directory.join("profile").display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("it was found");
    let dom = String::from_utf8_lossy(&output.stdout);
    // What was drawn stands before the data and the script, which both may hold any word.
    let drawn = dom.split("<script").next().unwrap_or_default();
    assert!(dom.contains("data-rendered=\"yes\""), "its script did not come to its end: {dom}");
    // Two curves by percentile, three over time, two of the rate: offered and answered.
    assert_eq!(drawn.matches("<path ").count(), 7, "{drawn}");
    assert!(!drawn.contains("NaN") && !drawn.contains("undefined"), "{drawn}");
    std::fs::remove_dir_all(directory).expect("it is ours");
}
