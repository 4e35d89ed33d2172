//! The tour: every scene is a real `psql` or `lockgate` command, shown with what it printed, and checked.

use super::household::Household;
use super::people::{AGENT_NEW, AGENT_OLD, ANALYST, ENGINEER, Person, REVIEWER};
use super::scene::TARGET;
use crate::cli::print;
use anyhow::{Context as _, Result, bail};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a scene must show, and must not.
struct Expect<'a> {
    shows: &'a [&'a str],
    hides: &'a [&'a str],
}

/// Plays all scenes. Exit status 1 when one did not show what it should.
pub fn play(household: &Household, stop: &AtomicBool) -> Result<ExitCode> {
    let mut stage = Stage { household, stop, failures: 0, scene: 0 };
    stage.masks()?;
    stage.refusals()?;
    stage.agents()?;
    stage.approval()?;
    stage.trail()?;
    if stage.failures > 0 {
        print(&format!("\n{} of the tour's checks failed.\n", stage.failures))?;
        return Ok(ExitCode::from(1));
    }
    print("\nThe tour is over: every scene showed what it should.\n")
}

struct Stage<'a> {
    household: &'a Household,
    stop: &'a AtomicBool,
    failures: u32,
    scene: u32,
}

impl Stage<'_> {
    fn masks(&mut self) -> Result<()> {
        let query = "SELECT name, card_number, ssn, note FROM customers WHERE id <= 2 ORDER BY id";
        self.title("Alice, an engineer, reads customers: cards and SSNs are masked, also inside a note")?;
        let expect = Expect { shows: &["Ada Krol", "1111", "1881"], hides: &["4111 1111", "219-09", "4012 8888"] };
        self.psql(&ENGINEER, query, &expect)?;
        self.title("Frank, a fraud analyst, is exempt: the same query, the same database login behind it")?;
        self.psql(
            &ANALYST,
            query,
            &Expect { shows: &["4111 1111 1111 1111", "219-09-9999", "4012 8888 8888 1881"], hides: &[] },
        )
    }

    fn refusals(&mut self) -> Result<()> {
        self.title("Alice tries to drop a table: refused before the database sees it, with the rule's own words")?;
        let expect = Expect { shows: &["Schema changes go through a migration", "no-ddl"], hides: &["DROP TABLE\n"] };
        self.psql(&ENGINEER, "DROP TABLE orders", &expect)?;
        self.title("Hiding it in a DO block does not help")?;
        self.psql(
            &ENGINEER,
            "DO $$ BEGIN EXECUTE 'DROP TABLE orders'; END $$",
            &Expect { shows: &["ERROR"], hides: &[] },
        )?;
        self.title("An UPDATE without a condition, or with one that is always true, is refused as well")?;
        let expect = Expect { shows: &["Add a WHERE clause"], hides: &["UPDATE 6"] };
        self.psql(&ENGINEER, "UPDATE orders SET cents = 0 WHERE 1 = 1", &expect)
    }

    fn agents(&mut self) -> Result<()> {
        let update = "UPDATE orders SET item = 'standing desk' WHERE id = 2";
        self.title("An AI agent acts for Alice. Version 1.4 may only read")?;
        self.psql(&AGENT_OLD, update, &Expect { shows: &["support-bot 1.x may only read"], hides: &["UPDATE 1"] })?;
        self.title("Version 2.0 may write")?;
        self.psql(&AGENT_NEW, update, &Expect { shows: &["UPDATE 1"], hides: &["ERROR"] })
    }

    fn approval(&mut self) -> Result<()> {
        self.title("Alice deletes an order: the statement waits on the wire for a reviewer")?;
        let statement = "DELETE FROM orders WHERE id = 6";
        print(&format!("  alice$ psql -c \"{statement}\"      (waits)\n"))?;
        let waiting = self.psql_command(&ENGINEER, statement).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let waiting = waiting.context("run psql")?;
        let ticket = match self.wait_for_ticket() {
            Ok(ticket) => ticket,
            Err(error) => {
                abandon(waiting);
                return Err(error);
            }
        };
        self.lockgate(None, &["approvals", "ls"], &Expect { shows: &[&ticket, "alice@example.com"], hides: &[] })?;
        self.title("Alice cannot approve herself; Bob can")?;
        self.lockgate(
            Some(&ENGINEER),
            &["approvals", "approve", &ticket],
            &Expect { shows: &[], hides: &["approved by alice"] },
        )?;
        self.lockgate(
            Some(&REVIEWER),
            &["approvals", "approve", &ticket, "--reason", "duplicate order"],
            &Expect { shows: &[], hides: &["error"] },
        )?;
        let output = waiting.wait_with_output().context("wait for psql")?;
        self.show(
            "alice's psql goes on:",
            &joined(&output),
            &Expect { shows: &[&ticket, "DELETE 1"], hides: &["ERROR"] },
        )
    }

    fn trail(&mut self) -> Result<()> {
        self.title("Who touched customers?")?;
        let expect = Expect { shows: &["alice@example.com", "frank@example.com"], hides: &["4111 1111 1111 1111"] };
        self.lockgate(None, &["audit", "search", "--table", "customers"], &expect)?;
        self.title("Who deleted from orders, and who let them?")?;
        let expect = Expect { shows: &["alice@example.com", "deletes-need-a-reviewer"], hides: &[] };
        self.lockgate(None, &["audit", "search", "--table", "orders", "--class", "delete"], &expect)?;
        self.title("And is the trail whole?")?;
        self.lockgate(None, &["audit", "verify"], &Expect { shows: &[], hides: &["break"] })
    }

    fn title(&mut self, text: &str) -> Result<()> {
        self.scene += 1;
        print(&format!("\n{}. {text}\n\n", self.scene)).map(drop)
    }

    fn psql_command(&self, person: &Person, statement: &str) -> Command {
        let mut command = Command::new("psql");
        let port = self.household.ports().listen;
        command.arg("-X").arg(format!("host=127.0.0.1 port={port} dbname={TARGET} user=me sslmode=require"));
        command.args(["-c", statement]).env("PGPASSWORD", self.household.token(person)).stdin(Stdio::null());
        command
    }

    fn psql(&mut self, person: &Person, statement: &str, expect: &Expect<'_>) -> Result<()> {
        let who = person.agent.map_or_else(
            || person.user.split('@').next().unwrap_or(person.user).to_string(),
            |(agent, version)| format!("{agent}@{version}"),
        );
        let output =
            self.psql_command(person, statement).output().context("run psql (apt-get install postgresql-client)")?;
        self.show(&format!("{who}$ psql -c \"{statement}\""), &joined(&output), expect)
    }

    fn lockgate(&mut self, person: Option<&Person>, words: &[&str], expect: &Expect<'_>) -> Result<()> {
        let mut command = Command::new(self.household.program());
        command.args(words).arg("--config").arg(self.household.config_file()).stdin(Stdio::null());
        let who = match person {
            Some(person) => {
                command.env("LOCKGATE_TOKEN", self.household.token(person));
                person.user.split('@').next().unwrap_or(person.user)
            }
            None => {
                command.env_remove("LOCKGATE_TOKEN");
                "ops"
            }
        };
        let output = command.output().context("run lockgate")?;
        self.show(&format!("{who}$ lockgate {}", words.join(" ")), &joined(&output), expect)
    }

    /// The id of the one pending ticket.
    fn wait_for_ticket(&self) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline && !self.stop.load(Ordering::Relaxed) {
            let mut command = Command::new(self.household.program());
            command.args(["approvals", "ls", "-o", "json", "--config"]).arg(self.household.config_file());
            let output = command.output().context("run lockgate approvals ls")?;
            let listed = String::from_utf8_lossy(&output.stdout).into_owned();
            let pending = listed.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            if let Some(id) = pending.filter_map(|ticket| ticket["id"].as_str().map(str::to_string)).next() {
                return Ok(id);
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        bail!("no ticket appeared for the held DELETE")
    }

    fn show(&mut self, line: &str, output: &str, expect: &Expect<'_>) -> Result<()> {
        let mut text = format!("  {line}\n");
        output.lines().for_each(|row| text += &format!("    {row}\n"));
        let missing: Vec<_> = expect.shows.iter().filter(|text| !output.contains(**text)).collect();
        let leaked: Vec<_> = expect.hides.iter().filter(|text| output.contains(**text)).collect();
        if !missing.is_empty() || !leaked.is_empty() {
            self.failures += 1;
            text += &format!("  CHECK FAILED: missing {missing:?}, should not be there {leaked:?}\n");
        }
        print(&text).map(drop)
    }
}

fn abandon(mut child: Child) {
    drop(child.kill());
    drop(child.wait());
}

fn joined(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout))
}
