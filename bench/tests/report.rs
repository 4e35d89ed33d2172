//! What the scripts of bench/ compute and say, from samples and output that are made up: tables, verdicts, and that a page replaces
//! another only when it is whole.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/side-by-side.sh");

/// What a run left.
struct Folder {
    place: tempfile::TempDir,
    parts: Vec<&'static str>,
}

impl Folder {
    fn new() -> Folder {
        let folder = Folder { place: tempfile::tempdir().expect("there is room"), parts: Vec::new() };
        folder.write("run.manifest", "command: bench/side-by-side.sh\n");
        folder
    }

    /// With a script that printed this, and its exit status.
    fn with(mut self, part: &'static str, printed: &str, status: &str) -> Folder {
        self.parts.push(part);
        self.write("run.parts", &format!("64 32 {}\n", self.parts.join(" ")));
        for (what, text) in [("command", part), ("out", printed), ("err", ""), ("status", status)] {
            self.write(&format!("{part}.{what}"), text);
        }
        self
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.place.path().join(name), text).expect("there is room");
    }

    /// An older page, where the new one is to go.
    fn older_page(&self) -> PathBuf {
        self.write("RESULTS.md", OLDER);
        self.place.path().join("RESULTS.md")
    }

    fn again(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(SCRIPT);
        command.arg("--again").arg(self.place.path()).args(arguments);
        command.output().expect("there is a shell")
    }

    /// The row of a promise, and the exit status.
    fn row(&self, promise: &str) -> (String, Option<i32>) {
        let output = self.again(&[]);
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        let row = page.lines().find(|line| line.starts_with(&format!("| {promise} |")));
        let said = String::from_utf8_lossy(&output.stderr);
        (row.unwrap_or_else(|| panic!("no {promise} in {page}{said}")).to_string(), output.status.code())
    }
}

const OLDER: &str = "an older page\n";

fn output_to(file: &Path) -> [&str; 2] {
    ["--output", file.to_str().expect("it is text")]
}

const SHARDS: &str = "two shards: CPU a query";

fn shards(ratio: &str) -> String {
    format!(
        "| flags | CPU over (defaults) | with children over (defaults) |\n|---|---|---|\n| (defaults) | 1.00 | 1.00 |\n\
         | --shards 2 | 0.90 | {ratio} |\n"
    )
}

#[test]
fn a_missed_promise_is_a_whole_page() {
    let folder = Folder::new().with("shards", &shards("1.20"), "0");
    let older = folder.older_page();
    assert_eq!(folder.again(&output_to(&older)).status.code(), Some(0));
    let page = fs::read_to_string(&older).expect("it is there");
    assert!(page.contains("| **no** |") && page.contains("## shards"), "{page}");
}

#[test]
fn what_could_not_be_measured_is_said_and_replaces_no_page() {
    let folder = Folder::new().with("shards", "set0: no such port", "1");
    let (row, status) = folder.row(SHARDS);
    assert!(row.contains("could not be measured: set0: no such port"), "{row}");
    assert_eq!(status, Some(1));
    let older = folder.older_page();
    assert_eq!(folder.again(&output_to(&older)).status.code(), Some(1));
    assert_eq!(fs::read_to_string(&older).expect("it is there"), OLDER);
}

#[test]
fn a_page_that_cannot_be_made_replaces_none() {
    let folder = Folder::new().with("shards", &shards("1.00"), "0");
    let file = folder.place.path().join("shards.out");
    fs::remove_file(&file).and_then(|()| fs::create_dir(&file)).expect("it is ours");
    let older = folder.older_page();
    assert_eq!(folder.again(&output_to(&older)).status.code(), Some(3));
    assert_eq!(fs::read_to_string(&older).expect("it is there"), OLDER);
}

#[test]
fn what_a_server_costs_is_judged_by_all_that_runs_for_it_and_by_its_interval() {
    // The aim is at most 1.05.
    for (ratio, verdict) in [
        ("1.04", "yes"),
        ("1.04 [1.00, 1.05]", "yes"),
        ("1.04 [1.00, 1.06]", "yes, within noise"),
        ("1.06 [1.05, 1.09]", "**no**, within noise"),
        ("1.07 [1.06, 1.09]", "**no**"),
        ("inf", "**no**"),
        ("1.07 [1.01, inf]", "**no**, within noise"),
    ] {
        let (row, status) = Folder::new().with("shards", &shards(ratio), "0").row(SHARDS);
        assert!(row.ends_with(&format!("| {ratio} (the process alone 0.90) | {verdict} |")), "{row}");
        assert_eq!(status, Some(0), "{row}");
    }
}

#[test]
fn a_missed_promise_is_a_status_of_its_own_for_whoever_asks() {
    for (ratio, status) in [("1.00", 0), ("1.20", 4), ("1.06 [1.00, 1.10]", 4)] {
        let folder = Folder::new().with("shards", &shards(ratio), "0");
        let older = folder.older_page();
        let output = folder.again(&[&output_to(&older)[..], &["--strict"]].concat());
        assert_eq!(output.status.code(), Some(status), "{ratio}");
        assert_ne!(fs::read_to_string(&older).expect("it is there"), OLDER, "the page is whole");
    }
    let unmeasured = Folder::new().with("shards", "set0: no such port", "1").again(&["--strict"]);
    assert_eq!(unmeasured.status.code(), Some(1));
}

#[test]
fn a_page_tells_once_what_was_measured() {
    let printed = format!("commit: abc\nprograms: lockgate sha256 0123\nwhat: 7 rounds\n\n{}", shards("1.00"));
    let folder = Folder::new().with("shards", &printed, "0");
    folder.write("run.manifest", "commit: abc\nprograms: lockgate sha256 0123\n");
    let page = String::from_utf8_lossy(&folder.again(&[]).stdout).into_owned();
    assert_eq!((page.matches("commit: ").count(), page.matches("programs: ").count()), (1, 1), "{page}");
    assert!(page.contains("    what: 7 rounds"), "{page}");
}

#[test]
fn a_manifest_has_the_commit_and_what_the_programs_are() {
    let target = tempfile::tempdir().expect("there is room");
    fs::create_dir(target.path().join("release")).expect("there is room");
    fs::write(target.path().join("release/lockgate"), "abc").expect("there is room");
    let measured = |prefix: &str| {
        let script = format!("{prefix} . \"$0\"; measured");
        let mut command = Command::new("bash");
        command.args(["-c", &script, concat!(env!("CARGO_MANIFEST_DIR"), "/lib.sh")]);
        let output =
            command.env("CARGO_TARGET_DIR", target.path()).env_remove("BUILT").output().expect("there is a shell");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let told = measured("");
    assert!(told.starts_with("commit: "), "{told}");
    assert!(told.ends_with("\nprograms: lockgate sha256 ba7816bf8f01, no lockgate-loadgen\n"), "{told}");
    assert_eq!(measured("MEASURED=once;"), "once\n");
}

/// Rows of the table of these samples: label, round, own and children's CPU in us, latency in us; a statement each.
fn table(samples: &[(&str, u32, u32, u32, u32)], first: &str, bare: &[&str]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().expect("there is room");
    let (file, order) = (folder.path().join("samples"), folder.path().join("order"));
    let lines = samples.iter().map(|(label, round, own, children, latency)| {
        format!("{label}\t{round}\t{own}000\t{children}000\t1\t{latency}\t100\n")
    });
    fs::write(&file, lines.collect::<String>()).expect("there is room");
    fs::write(&order, "direct\npgbouncer\non\n").expect("there is room");
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/table.py")).args([&file, &order]);
    let output = command.args(["clients | proxy", first]).args(bare).output().expect("there is python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect();
    text.lines().filter(|line| !line.starts_with("|---")).map(cells).collect()
}

#[test]
fn a_table_tells_of_a_server_alone_and_with_its_children() {
    let rounds = (1..=6).flat_map(|round| [("1 | on", round, 6 + round, 3, 30), ("1 | pgbouncer", round, 10, 0, 20)]);
    let rows = table(&rounds.collect::<Vec<_>>(), "pgbouncer", &[]);
    let wanted = ["CPU us each", "CPU over pgbouncer", "with its children", "with children over pgbouncer"];
    assert_eq!(rows[0][2..6], wanted);
    // In the order of rows that is asked for, not that of a round.
    assert_eq!((&*rows[1][1], &*rows[2][1]), ("pgbouncer", "on"));
    assert_eq!(
        rows[2][2..8],
        ["9.50", "0.95 [0.70, 1.20]", "12.50", "1.25 [1.00, 1.50]", "30.00", "1.50 [1.50, 1.50]"]
    );
}

#[test]
fn a_round_in_which_the_base_added_nothing_is_not_left_out() {
    let round = |number, direct, pgbouncer, on| {
        [("1 | direct", number, 0, 0, direct), ("1 | pgbouncer", number, 1, 0, pgbouncer), ("1 | on", number, 1, 0, on)]
    };
    // What was added to PostgreSQL's own latency: 20 over 10, and twice 20 over nothing.
    let rounds = [round(1, 50, 60, 70), round(2, 50, 50, 70), round(3, 50, 45, 70)].concat();
    let rows = table(&rounds, "pgbouncer", &["direct"]);
    let at = rows[0].iter().position(|heading| heading == "added over pgbouncer").expect("there is a column");
    assert_eq!([&*rows[1][at], &*rows[2][at], &*rows[3][at]], ["0.00", "1.00", "inf"]);
}

#[test]
fn a_process_counts_with_its_children_and_a_child_that_ended_with_its_parent() {
    // A child that works and lives, and one that has ended.
    let script = "exec 3<&0; python3 -c 'sum(range(10**7))'; \
                  python3 -c 'import sys; sum(range(10**7)); print(\"ready\", flush=True); sys.stdin.read()' <&3 & wait";
    let mut parent = Command::new("bash")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let mut ready = [0; 6];
    parent.stdout.as_mut().expect("it is piped").read_exact(&mut ready).expect("it gets that far");
    let read = |what: &str| -> Vec<u64> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/process.py");
        let output =
            Command::new("python3").args([script, what, &parent.id().to_string()]).output().expect("there is python3");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().map(|number| number.parse().expect("it is a number")).collect()
    };
    let [cpu, memory] = ["cpu", "memory"].map(read);
    drop(parent.stdin.take());
    parent.wait().expect("it ends");
    // Of python that sums ten million numbers; the shell itself does next to nothing.
    assert!(cpu[1] > 50_000_000 && cpu[0] < cpu[1], "{cpu:?}");
    assert!(memory[0] > 100 && memory[1] > 2 * memory[0], "{memory:?}");
}

/// As criterion prints it.
fn bench(name: &str, time: &str) -> String {
    format!("{name}\n    time:   [1.0000 ns {time} 9.9000 µs]\n\n")
}

#[test]
fn an_append_is_judged_with_its_share_of_the_frame() {
    let printed = [
        bench("audit append and frame write, a record (at most 150 ns)", "283.00 ns"),
        bench("audit append, its encoding alone, a record (of at most 150 ns)", "39.500 ns"),
    ];
    let append = "an audit append on the path, with its share of the frame's checksum, hash and write";
    let (row, _) = Folder::new().with("promises", &printed.concat(), "0").row(append);
    assert!(row.contains("| 283.0 [1.0, 9900.0] (its encoding alone 39.5 [1.0, 9900.0]) | **no**"), "{row}");
}

#[test]
fn every_way_to_send_a_statement_has_a_budget() {
    let modes =
        ["prepared", "repeated", "simple"].into_iter().flat_map(|mode| ["off", "on"].map(|of| format!("{mode}_{of}")));
    let budget = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/budget.toml")).expect("it is there");
    let printed = modes.map(|name| {
        assert!(budget.lines().any(|line| line.starts_with(&format!("{name} = "))), "{name}");
        let counted = if name == "simple_on" { 101 } else { 99 };
        format!("{name}      {counted} instructions a statement, budget    100: ok\n")
    });
    let folder = Folder::new().with("instructions", &printed.collect::<String>(), "1");
    let (row, status) = folder.row("instructions of a statement inside the gateway");
    assert!(row.contains("simple, on 101/100 | **no** |"), "{row}");
    assert_eq!(status, Some(0));
}

#[test]
fn what_is_dearer_than_a_parse_is_judged_and_not_called_unmeasured() {
    let printed = [
        bench("pg_query parse", "5.0000 µs"),
        bench("ten classes added to a new text (at most 1/40 of the parse)", "6.0000 ns"),
        bench("eight words added to a new text (at most 1/40 of the parse)", "-7.5000 ns"),
        bench("ten classes added to a new text that one names (at most 1/40 of the parse)", "7.5000 µs"),
        bench("verdict of ten classes on a known meaning (of at most 1/40 of the parse)", "8.0000 ns"),
        bench("verdict of eight words on a known meaning (of at most 1/40 of the parse)", "40.000 ns"),
    ];
    let (row, status) =
        Folder::new().with("promises", &printed.concat(), "0").row("what a deny list adds to a new text");
    let ends = "[1/5000, 1.98]";
    let judged =
        format!("ten classes 1/833 {ends}, eight words 0 {ends}, ten classes to a text that one names 1.50 {ends} (");
    assert!(row.contains(&judged) && row.contains("**no**"), "{row}");
    // The other rows of that script are not there.
    assert_eq!(status, Some(1));
}
