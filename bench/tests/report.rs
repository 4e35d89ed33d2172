//! The page of `bench/side-by-side.sh`, from what scripts are made up to have printed: its verdicts, and that it replaces a page only
//! when it is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
    format!("| flags | CPU over (defaults) |\n|---|---|\n| (defaults) | 1.00 |\n| --shards 2 | {ratio} |\n")
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
fn what_is_dearer_than_a_parse_is_judged_and_not_called_unmeasured() {
    let bench = |name, time| format!("{name}\n    time:   [1.0 ns {time} 9.9 µs]\n\n");
    let printed = [
        bench("pg_query parse", "5.0000 µs"),
        bench("deny list of ten classes (at most 1/40 of the parse)", "6.0000 ns"),
        bench("deny list of eight words (at most 1/40 of the parse)", "7.5000 µs"),
    ];
    let (row, status) = Folder::new().with("promises", &printed.concat(), "0").row("the deny list's prefilter");
    assert!(row.contains("ten classes 1/833, eight words 1.50 | **no** |"), "{row}");
    // The other rows of that script are not there.
    assert_eq!(status, Some(1));
}
