//! The built program: what it prints where, and its exit status.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

fn lockgate(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockgate"));
    command.args(arguments).env_clear().env("NO_COLOR", "1").envs(variables.iter().copied());
    command.output().expect("the program was built beside this test")
}

#[track_caller]
fn check(arguments: &[&str], status: i32, on_stdout: &str, on_stderr: &str) -> Output {
    check_with(&[], arguments, status, on_stdout, on_stderr)
}

/// The same with these variables, and no others.
#[track_caller]
fn check_with(variables: &[(&str, &str)], arguments: &[&str], status: i32, on_stdout: &str, on_stderr: &str) -> Output {
    let output = lockgate(arguments, variables);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{arguments:?}\n{stdout}\n{stderr}");
    for (stream, wanted) in [(&stdout, on_stdout), (&stderr, on_stderr)] {
        assert!(stream.contains(wanted), "{arguments:?}: no {wanted:?} in\n{stream}");
        assert_eq!(stream.is_empty(), wanted.is_empty(), "{arguments:?}\n{stream}");
        assert!(!stream.contains('\u{1b}'), "{arguments:?}: colours in spite of NO_COLOR");
    }
    output
}

fn file(folder: &Path, text: &str) -> String {
    let path = folder.join("gw.toml");
    std::fs::write(&path, text).expect("a fresh folder is writable");
    path.to_str().expect("temporary names are UTF-8").to_owned()
}

#[test]
fn help_and_version_are_answers() {
    check(&["--version"], 0, concat!("lockgate ", env!("CARGO_PKG_VERSION")), "");
    check(&["--help"], 0, "Watch:\n  audit ", "");
    check(&["serve", "--help"], 0, "LOCKGATE_SHARDS", "");
    check(&["help", "doctor"], 0, "EXAMPLES", "");
}

#[test]
fn wrong_usage_is_status_2_and_says_what_is_right() {
    check(&[], 2, "", "Usage: lockgate");
    check(&["sevre"], 2, "", "lockgate: unrecognized subcommand 'sevre'");
    check(&["serve", "--shard", "1"], 2, "", "'--shards'");
    check(&["serve", "--ring-entries", "1000"], 2, "", "a power of two from 64 to 32768");
    check(&["config", "check"], 2, "", "<FILE>");
}

#[test]
fn what_could_not_run_is_status_3() {
    check(&["config", "check", "/nonexistent/gw.toml"], 3, "", "lockgate: /nonexistent/gw.toml: no such file");
    check(&["config", "check", "/proc"], 3, "", "lockgate: /proc: could not open the configuration: is not a file");
}

#[test]
fn config_check_answers_with_its_status() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let example = String::from_utf8(check(&["config", "example"], 0, "[[target]]", "").stdout).expect("text");
    let path = file(folder.path(), &example);
    check(&["config", "check", &path], 0, "is valid\n", "");

    let path = file(folder.path(), "[ops]\nadress = \"127.0.0.1:1\"\n");
    check(
        &["config", "check", &path],
        1,
        "",
        "gw.toml:2:1\n  |\n2 | adress = \"127.0.0.1:1\"\n  | ^^^^^^ did you mean `address`?",
    );
    let output = check(&["config", "check", &path, "-o", "json"], 1, "\"line\":2,\"column\":1", "");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("one JSON object a line");
    }
    check(&["serve", "--config", &path], 3, "", "did you mean `address`?");

    let path = file(folder.path(), "");
    check(&["config", "check", &path], 1, "", "error: there is no [[listener]]");
    check(&["serve", "--config", &path], 3, "", "error: there is no [[listener]]");
    let path = file(folder.path(), LISTENER);
    check(&["config", "check", &path], 0, "is valid\n", "warning: there is no [[issuer]]");
    check(&["config", "check", "--strict", &path], 1, "", "there is no [[issuer]]");
}

const LISTENER: &str = "[[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:1\"\n";

/// They were blamed on flags that nobody had typed.
#[test]
fn what_is_wrong_with_a_variable_is_told_by_its_name() {
    let serve = ["serve", "--config", "/nonexistent/gw.toml"];
    for (name, value, said) in [
        ("LOCKGATE_SHARDS", "abc", "invalid value 'abc' for 'LOCKGATE_SHARDS'"),
        ("LOCKGATE_PIN", "yes", "invalid value 'yes' for 'LOCKGATE_PIN'"),
        (
            "LOCKGATE_OPS_ADDRESS",
            "localhost:1",
            "for 'LOCKGATE_OPS_ADDRESS': `localhost:1` is not an IP address and a port",
        ),
        ("LOCKGATE_LOG", "bogus=zzz", "lockgate: LOCKGATE_LOG: `bogus=zzz` is not a filter"),
        ("LOCKGATE_LOG", "warning", "lockgate: LOCKGATE_LOG: `warning` is not a level"),
    ] {
        let output = check_with(&[(name, value)], &serve, 2, "", said);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("--") || said.contains("--help"), "{said}");
    }
    check(&["serve", "--shards", "abc"], 2, "", "'abc' for '--shards <N>'");
    check(&["serve", "--log", "warning"], 2, "", "lockgate: --log: `warning` is not a level");
    // The flag is what is wrong, whatever the variable is.
    check_with(&[("LOCKGATE_SHARDS", "2")], &["serve", "--shards", "abc"], 2, "", "'abc' for '--shards <N>'");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockgate"));
    command.args(serve).env_clear().env("LOCKGATE_LOG", OsStr::from_bytes(b"inf\xff"));
    let output = command.output().expect("the program was built beside this test");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("the value of LOCKGATE_LOG is not UTF-8"), "{said}");
}

/// Compose files write `LOCKGATE_SHARDS=${SHARDS:-}`.
#[test]
fn an_empty_variable_is_not_set() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = file(folder.path(), "");
    let empty: Vec<_> =
        ["SHARDS", "PIN", "LOG", "LOG_FORMAT", "DATA_DIR", "ARCHIVE_URL", "CHECKPOINT_COPIES", "DURABILITY"]
            .iter()
            .map(|name| (format!("LOCKGATE_{name}"), ""))
            .collect();
    let empty: Vec<_> = empty.iter().map(|(name, value)| (&**name, *value)).collect();
    check_with(&empty, &["serve", "--config", &path], 3, "", "error: there is no [[listener]]");
    check_with(&[("LOCKGATE_CONFIG", "")], &["serve"], 3, "", "/etc/lockgate/lockgate.toml");
    check_with(&empty, &["serve", "--help"], 0, "[env: LOCKGATE_SHARDS=]", "");
}

/// They looked at another gateway than `serve` would have run.
#[test]
fn variables_are_laid_over_the_file_by_whoever_reads_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = file(folder.path(), LISTENER);
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a fresh folder is writable");
    let data_dir = [("LOCKGATE_DATA_DIR", elsewhere.to_str().expect("temporary names are UTF-8"))];
    let found = format!("{} is writable", elsewhere.display());
    let output = lockgate(&["doctor", "--config", &path], &data_dir);
    assert!(String::from_utf8_lossy(&output.stdout).contains(&found), "{output:?}");
    let said = format!("{}: there is no audit trail", elsewhere.display());
    check_with(&data_dir, &["audit", "search", "--config", &path], 3, "", &said);

    let small = [("LOCKGATE_SEGMENT_MIB", "1"), ("LOCKGATE_PAYLOAD_KIB", "4096")];
    check_with(&small, &["config", "check", &path], 1, "", " --> LOCKGATE_PAYLOAD_KIB\n");
    check_with(&[("LOCKGATE_SHARDS", "abc")], &["config", "check", &path], 2, "", "'abc' for 'LOCKGATE_SHARDS'");
    check_with(&[("LOCKGATE_SHARDS", "abc")], &["doctor", "--config", &path], 2, "", "'abc' for 'LOCKGATE_SHARDS'");
}

#[test]
fn an_archiver_makes_nothing_where_no_gateway_was() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = file(folder.path(), LISTENER);
    let absent = folder.path().join("absent");
    let data_dir = absent.to_str().expect("temporary names are UTF-8");
    check(&["archiver", "--config", &path, "--data-dir", data_dir], 3, "", "absent: No such file or directory");
    assert!(!absent.exists());
}

#[test]
fn the_schema_is_json() {
    let output = check(&["config", "schema"], 0, "additionalProperties", "");
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

#[test]
fn shells_and_manual_readers_get_theirs() {
    for shell in ["bash", "zsh", "fish"] {
        check(&["completions", shell], 0, "doctor", "");
    }
    check(&["man"], 0, ".TH lockgate 1", "");
    let folder = tempfile::tempdir().expect("a temporary folder");
    check(&["man", "--dir", folder.path().to_str().expect("temporary names are UTF-8")], 0, "", "");
    assert!(folder.path().join("lockgate-serve.1").exists());
}

#[test]
fn doctor_gives_every_finding_a_state() {
    let output = lockgate(&["doctor", "-o", "json"], &[]);
    let findings: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .collect();
    assert!(findings.len() >= 8, "{findings:?}");
    let failed = findings.iter().any(|finding| finding["state"] == "fail");
    assert_eq!(output.status.code(), Some(i32::from(failed)));
    for finding in &findings {
        assert_eq!(finding["state"] == "ok", finding["mend"].is_null(), "{finding}");
    }
}

#[test]
fn a_reader_who_hangs_up_is_no_failure() {
    let script = format!("{} config schema | head -c 1; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_lockgate"));
    let status = Command::new("bash").args(["-c", &script]).status().expect("bash runs");
    assert_eq!(status.code(), Some(0));
}
