//! `lockgate explain`: the verdict on a statement without running it, from the functions the live path uses.

use super::out::{UntilHungUp, print, stdout, written};
use crate::config::Config;
use crate::identity::Principal;
use crate::policy::{Action, Decision, Policy, View, table_name};
use anyhow::{Context, bail};
use masking::sql::{Analysis, Class, Classes, Reading, read};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// One line of a batch. Beyond: that line is an error, the next ones are read.
const LINE_BYTES_MAX: u64 = 16 << 20;

#[derive(clap::Args)]
#[command(after_help = "EXAMPLES
  lockgate explain --config lockgate.toml --target orders --user ann@example.com --groups engineering \\
    'DELETE FROM customers'
  lockgate explain --config lockgate.toml --batch < statements.ndjson

A line of a batch: {\"id\": 1, \"target\": \"orders\", \"user\": \"ann\", \"groups\": [\"engineering\"], \"statement\": \"SELECT 1\"}

Missing members are taken from the options. Each line gets one answer, in order; a line that cannot be read gets \
{\"id\", \"error\"}.")]
pub struct ExplainArgs {
    /// The configuration whose rules are asked
    #[arg(long, default_value = "/etc/lockgate/lockgate.toml", value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    who: WhoArgs,
    /// Read JSON lines from standard input and answer one line each
    #[arg(long, conflicts_with = "statement")]
    batch: bool,
    /// Exit with 1 when a statement would be denied
    #[arg(long)]
    fail_on_deny: bool,
    /// How to answer
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// The text to explain; `-` reads it from standard input
    #[arg(required_unless_present = "batch", allow_hyphen_values = true)]
    statement: Option<String>,
}

#[derive(clap::Args, Clone)]
struct WhoArgs {
    /// The target the statement would go to
    #[arg(long, default_value = "", hide_default_value = true, required_unless_present = "batch")]
    target: String,
    /// Who would send it
    #[arg(long, default_value = "", hide_default_value = true, required_unless_present = "batch")]
    user: String,
    /// The sender's groups, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    groups: Vec<String>,
    /// The sender's actor chain, nearest first, as name or name@version, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    actor: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

pub fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let config = super::given::load(&args.config)?;
    for warning in &config.warnings {
        note!("{}", warning.rendered);
    }
    let judge = Judge { policy: Policy::compile(&config), config: &config };
    let denied = if args.batch {
        batch(&judge, &args.who, std::io::stdin().lock(), &mut stdout(), args.fail_on_deny)?
    } else {
        let statement = statement(args.statement.unwrap_or_default())?;
        let explanation = judge.explain(&args.who, statement.as_bytes());
        print(&match args.output {
            Output::Json => format!("{}\n", explanation.json(&Value::Null)),
            Output::Text => explanation.text(&judge),
        })?;
        explanation.decision.action == Action::Deny
    };
    Ok(ExitCode::from(if denied && args.fail_on_deny { super::ANSWER_NO } else { super::DONE }))
}

fn statement(argument: String) -> anyhow::Result<String> {
    if argument != "-" {
        return Ok(argument);
    }
    let mut text = String::new();
    std::io::stdin().take(LINE_BYTES_MAX + 1).read_to_string(&mut text).context("could not read the statement")?;
    if text.len() as u64 > LINE_BYTES_MAX {
        bail!("the statement is longer than {} MiB", LINE_BYTES_MAX >> 20);
    }
    Ok(text)
}

struct Judge<'a> {
    policy: Policy,
    config: &'a Config,
}

/// What would happen to a text.
struct Explanation {
    decision: Decision,
    analysis: Analysis,
    masks: Vec<String>,
}

impl Judge<'_> {
    fn explain(&self, who: &WhoArgs, statement: &[u8]) -> Explanation {
        let Reading { analysis, otherwise, .. } = read(statement);
        match self.policy.view(&who.target, &principal(who)) {
            Some(view) => {
                let masks = masks(&view, &analysis);
                let decision = decide(&view, &analysis, otherwise.as_ref());
                Explanation { decision, masks, analysis }
            }
            None => Explanation { decision: self.no_grant(&who.target), masks: Vec::new(), analysis },
        }
    }

    /// The client reads one text for both cases; whoever holds the configuration may know which it is.
    fn no_grant(&self, target: &str) -> Decision {
        let reason = match self.config.target(target) {
            Some(_) => format!("no grant opens target {target:?} for this user"),
            None => format!("there is no target {target:?}, and no grant for it"),
        };
        Decision { action: Action::Deny, rule: None, message: None, approval: None, reason }
    }

    /// Where the rule's name stands in the file, counting from 1.
    fn rule_line(&self, name: &str) -> Option<usize> {
        let text = std::fs::read_to_string(&self.config.path).ok()?;
        line_of_rule(&text, name)
    }
}

/// As the target reads it with `standard_conforming_strings` on, or off where that is judged more strictly: it may be off by then.
fn decide(view: &View, analysis: &Analysis, otherwise: Option<&Analysis>) -> Decision {
    let off = otherwise.map(|other| {
        let decision = view.decide(other);
        let reason = format!("{} (read with standard_conforming_strings off)", decision.reason);
        Decision { reason, ..decision }
    });
    off.into_iter().fold(view.decide(analysis), Decision::stricter)
}

fn line_of_rule(text: &str, name: &str) -> Option<usize> {
    let file = toml::de::DeTable::parse(text).ok()?;
    let rules = file.get_ref().get("rule")?.get_ref().as_array()?;
    let named = rules.iter().filter_map(|rule| rule.get_ref().as_table()?.get("name"));
    let found = named.into_iter().find(|found| found.get_ref().as_str() == Some(name))?;
    Some(1 + text[..found.span().start].matches('\n').count())
}

fn principal(who: &WhoArgs) -> Principal {
    let given = |names: &[String]| names.iter().filter(|name| !name.is_empty()).cloned().collect();
    Principal {
        user: who.user.clone(),
        subject: who.user.clone(),
        issuer: String::new(),
        groups: given(&who.groups),
        actor: given(&who.actor),
    }
}

/// The column masks that concern tables of the text, then the detectors, which look at every text value.
fn masks(view: &View, analysis: &Analysis) -> Vec<String> {
    let mut masks = Vec::new();
    for table in analysis.statements.iter().flat_map(|statement| &statement.tables) {
        for mask in view.masks_of_table(table.schema.as_deref(), &table.name) {
            let mask = mask.to_string();
            if !masks.contains(&mask) {
                masks.push(mask);
            }
        }
    }
    let detectors = view.detect.iter().flat_map(|(detectors, _)| detectors.kinds());
    masks.extend(detectors.map(|kind| format!("detect:{}", kind.name())));
    masks
}

impl Explanation {
    fn classes(&self) -> Vec<&'static str> {
        let all = self.analysis.statements.iter().map(|statement| statement.classes);
        all.fold(Classes::default(), Classes::union).iter().map(Class::name).collect()
    }

    fn tables(&self) -> Vec<String> {
        let mut tables: Vec<String> = Vec::new();
        for table in self.analysis.statements.iter().flat_map(|statement| &statement.tables) {
            let name = table_name(table);
            if !tables.contains(&name) {
                tables.push(name);
            }
        }
        tables
    }

    fn json(&self, id: &Value) -> Value {
        json!({
            "id": id,
            "action": self.decision.action.name(),
            "rule": self.decision.rule.as_deref(),
            "classes": self.classes(),
            "tables": self.tables(),
            "masks": self.masks,
            "reason": self.decision.why(),
        })
    }

    fn text(&self, judge: &Judge<'_>) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: &str| {
            let shown = if value.is_empty() { "-" } else { value };
            writeln!(text, "{name:<9} {}", printable(shown)).expect("a string takes everything");
        };
        let decision = &self.decision;
        row("action", decision.action.name());
        let rule = decision.rule.as_deref().map(|rule| match judge.rule_line(rule) {
            Some(line) => format!("{rule} ({}:{line})", judge.config.path.display()),
            None => rule.to_owned(),
        });
        row("rule", &rule.unwrap_or_default());
        row("reason", &decision.why());
        if let Some(message) = &decision.message {
            row("message", message);
        }
        if let Some(terms) = &decision.approval {
            let own = if terms.own { ", the requester included" } else { "" };
            let minutes = terms.expires_s.div_ceil(60);
            row("approval", &format!("{} of {} within {minutes} min{own}", terms.count, terms.approvers.join(", ")));
        }
        row("classes", &self.classes().join(", "));
        row("tables", &self.tables().join(", "));
        row("masks", &self.masks.join(", "));
        text
    }
}

/// Control characters of a statement never reach a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// One line of a batch; what is absent comes from the options.
#[derive(serde::Deserialize)]
struct Question {
    target: Option<String>,
    user: Option<String>,
    groups: Option<Names>,
    actor: Option<Names>,
    statement: String,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Names {
    Several(Vec<String>),
    Separated(String),
}

impl Names {
    fn list(self) -> Vec<String> {
        match self {
            Names::Several(names) => names,
            Names::Separated(names) => names.split(',').map(|name| name.trim().to_owned()).collect(),
        }
    }
}

/// Answers every line, in order. Was any denied? `to_the_end`: that is asked of all lines, also when nobody reads the answers any more.
fn batch(
    judge: &Judge<'_>,
    who: &WhoArgs,
    mut from: impl BufRead,
    out: &mut UntilHungUp<impl Write>,
    to_the_end: bool,
) -> anyhow::Result<bool> {
    let mut denied = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut from).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
        if read.context("could not read standard input")? == 0 {
            break;
        }
        let whole = line.ends_with(b"\n") || line.len() as u64 <= LINE_BYTES_MAX;
        if !whole {
            skip_line(&mut from).context("could not read standard input")?;
        }
        if whole && line.trim_ascii().is_empty() {
            continue;
        }
        let (answer, no) = if whole {
            answer(judge, who, &line)
        } else {
            (json!({"id": null, "error": format!("the line is longer than {} MiB", LINE_BYTES_MAX >> 20)}), false)
        };
        denied |= no;
        // Somebody may wait for each answer before asking again.
        written(out.write_all(format!("{answer}\n").as_bytes()).and_then(|()| out.flush()))?;
        if out.is_over() && !to_the_end {
            break;
        }
    }
    Ok(denied)
}

fn skip_line(from: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = from.fill_buf()?;
        let (len, last) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        from.consume(len);
        if last {
            return Ok(());
        }
    }
}

fn answer(judge: &Judge<'_>, who: &WhoArgs, line: &[u8]) -> (Value, bool) {
    let value = match serde_json::from_slice::<Value>(line) {
        Ok(value) => value,
        Err(error) => return (json!({"id": null, "error": format!("not JSON: {error}")}), false),
    };
    let id = value.get("id").cloned().unwrap_or(Value::Null);
    let failed = |error: String| (json!({"id": id, "error": error}), false);
    let question = match serde_json::from_value::<Question>(value) {
        Ok(question) => question,
        Err(error) => return failed(error.to_string()),
    };
    let who = WhoArgs {
        target: question.target.unwrap_or_else(|| who.target.clone()),
        user: question.user.unwrap_or_else(|| who.user.clone()),
        groups: question.groups.map_or_else(|| who.groups.clone(), Names::list),
        actor: question.actor.map_or_else(|| who.actor.clone(), Names::list),
    };
    if who.target.is_empty() || who.user.is_empty() {
        return failed("target and user are needed, here or as options".to_owned());
    }
    let explanation = judge.explain(&who, question.statement.as_bytes());
    (explanation.json(&id), explanation.decision.action == Action::Deny)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::out::NobodyReads;

    const CONFIG: &str = r#"
[server]
data_dir = "data"

[[listener]]
protocol = "postgres"
address = "127.0.0.1:6432"

[[issuer]]
name = "dev"
issuer = "lockgate-development"
audience = "lockgate"
algorithms = ["ES256"]
jwks_file = "jwks.json"

[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "PASSWORD"
tls = "disable"

[[grant]]
targets = ["orders"]
groups = ["engineering", "fraud"]

[[rule]]
name = "no-ddl"
targets = ["orders"]
classes = ["drop"]
action = "deny"
message = "Use a migration"

[[rule]]
name = "deletes"
targets = ["orders"]
classes = ["delete"]
action = "approve"
approvers = ["dba"]

[[mask]]
targets = ["orders"]
except_groups = ["fraud"]
columns = ["customers.card_number", "staff.ssn"]
detect = ["email"]
style = "last4"
"#;

    fn with_judge<T>(check: impl FnOnce(&Judge<'_>) -> T) -> T {
        let config = crate::config::parse(CONFIG, std::path::Path::new("lockgate.toml")).expect("a good configuration");
        check(&Judge { policy: Policy::compile(&config), config: &config })
    }

    fn ann() -> WhoArgs {
        WhoArgs { target: "orders".into(), user: "ann".into(), groups: vec!["engineering".into()], actor: vec![] }
    }

    fn answers(input: &str) -> (Vec<Value>, bool) {
        with_judge(|judge| {
            let mut out = UntilHungUp::new(Vec::new());
            let denied = batch(judge, &ann(), input.as_bytes(), &mut out, false).expect("reads and writes");
            let lines = std::str::from_utf8(out.get_ref()).expect("UTF-8").lines();
            (lines.map(|line| serde_json::from_str(line).expect("JSON")).collect(), denied)
        })
    }

    #[test]
    fn whether_something_is_denied_is_asked_of_all_lines_also_where_nobody_reads_the_answers() {
        let lines = "{\"statement\":\"SELECT 1\"}\n".repeat(3) + "{\"statement\":\"DROP TABLE customers\"}\n";
        assert!(answers(&lines).1);
        with_judge(|judge| {
            for to_the_end in [false, true] {
                let mut out = UntilHungUp::new(NobodyReads);
                let denied = batch(judge, &ann(), lines.as_bytes(), &mut out, to_the_end);
                assert_eq!(denied.expect("a hang-up is no error"), to_the_end);
            }
        });
    }

    #[test]
    fn an_explanation_has_the_keys_of_the_contract() {
        let (answers, denied) = answers("{\"id\":7,\"statement\":\"DELETE FROM customers WHERE id = 1\"}\n");
        assert!(!denied);
        assert_eq!(
            answers,
            [json!({
                "id": 7,
                "action": "approve",
                "rule": "deletes",
                "classes": ["delete"],
                "tables": ["customers"],
                "masks": ["customers.card_number", "detect:email"],
                "reason": "delete on customers needs approval",
            })]
        );
    }

    #[test]
    fn what_a_text_does_with_the_other_kind_of_strings_is_told_as_well() {
        let line = json!({ "statement": r"SELECT '\', '; DROP TABLE t; --'" });
        let (answers, denied) = answers(&format!("{line}\n"));
        assert!(denied);
        assert_eq!(answers[0]["rule"], "no-ddl");
        let reason = answers[0]["reason"].as_str().expect("a reason");
        assert!(reason.ends_with("(read with standard_conforming_strings off)"), "{reason}");
    }

    #[test]
    fn a_batch_answers_every_line_in_order_and_never_stops() {
        let input = concat!(
            "{\"id\":\"a\",\"statement\":\"SELECT 1\"}\n",
            "not json\n",
            "\n",
            "{\"id\":\"b\"}\n",
            "{\"id\":\"c\",\"statement\":7}\n",
            "{\"id\":\"d\",\"statement\":\"DROP TABLE x\",\"more\":1}\r\n",
            "{\"id\":\"e\",\"user\":\"eve\",\"groups\":[],\"statement\":\"SELECT 1\"}\n",
            "{\"id\":\"f\",\"target\":\"nowhere\",\"statement\":\"SELECT 1\"}\n",
            "[]\n",
            "{\"id\":\"g\",\"groups\":\"fraud, engineering\",\"statement\":\"SELECT * FROM customers\"}",
        );
        let (answers, denied) = answers(input);
        let brief: Vec<String> = answers
            .iter()
            .map(|answer| {
                let verdict = answer.get("action").and_then(Value::as_str).unwrap_or("error");
                assert_eq!(verdict == "error", answer.get("error").is_some(), "{answer}");
                format!("{} {verdict}", answer["id"])
            })
            .collect();
        let expected = [
            "\"a\" allow",
            "null error",
            "\"b\" error",
            "\"c\" error",
            "\"d\" deny",
            "\"e\" deny",
            "\"f\" deny",
            "null error",
            "\"g\" allow",
        ];
        assert_eq!(brief, expected);
        assert!(denied);
        assert_eq!(answers[8]["masks"], json!([]), "fraud is exempt");
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error_and_the_next_is_read() {
        let long = "x".repeat(LINE_BYTES_MAX as usize + 10);
        let (answers, _) = answers(&format!("{long}\n{{\"id\":1,\"statement\":\"SELECT 1\"}}\n"));
        assert!(answers[0]["error"].as_str().is_some_and(|error| error.contains("longer")));
        assert_eq!(answers[1]["action"], "allow");
    }

    #[test]
    fn people_read_the_rule_and_its_line() {
        assert_eq!(
            line_of_rule(CONFIG, "no-ddl"),
            CONFIG.lines().position(|line| line.contains("no-ddl")).map(|n| n + 1)
        );
        assert_eq!(line_of_rule(CONFIG, "nothing"), None);
        let text = with_judge(|judge| judge.explain(&ann(), b"DROP TABLE customers").text(judge));
        assert!(text.contains("action    deny\n") && text.contains("message   Use a migration\n"), "{text}");
        let hostile = with_judge(|judge| judge.explain(&ann(), "SELECT * FROM \"a\x1b[2Jb\"".as_bytes()).text(judge));
        assert!(!hostile.contains('\x1b'), "{hostile}");
    }
}
