//! The people of the demo and their tokens.

use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::process::Command;

/// Somebody with a token.
pub struct Person {
    /// What the shell variable with the token is called.
    pub variable: &'static str,
    pub user: &'static str,
    pub groups: &'static str,
    /// Name and version of the agent that acts for them.
    pub agent: Option<(&'static str, &'static str)>,
    /// One line about who this is.
    pub about: &'static str,
}

pub const ENGINEER: Person = Person {
    variable: "ALICE",
    user: "alice@example.com",
    groups: "engineering",
    agent: None,
    about: "an engineer: reads and writes, sees cards masked",
};
pub const REVIEWER: Person = Person {
    variable: "BOB",
    user: "bob@example.com",
    groups: "engineering,leads",
    agent: None,
    about: "a reviewer: rules on deletes",
};
pub const ANALYST: Person = Person {
    variable: "FRANK",
    user: "frank@example.com",
    groups: "fraud",
    agent: None,
    about: "a fraud analyst: exempt from the masks",
};
pub const AGENT_OLD: Person = Person {
    variable: "BOT1",
    user: "alice@example.com",
    groups: "engineering",
    agent: Some(("support-bot", "1.4")),
    about: "an AI agent acting for alice, version 1.4: may only read",
};
pub const AGENT_NEW: Person = Person {
    variable: "BOT2",
    user: "alice@example.com",
    groups: "engineering",
    agent: Some(("support-bot", "2.0")),
    about: "the same agent, version 2.0: may also update, one row at a time",
};

pub const EVERYBODY: [&Person; 5] = [&ENGINEER, &REVIEWER, &ANALYST, &AGENT_OLD, &AGENT_NEW];

impl Person {
    /// A token from the development issuer in `issuer_dir`, good for eight hours.
    pub fn token(&self, program: &Path, issuer_dir: &Path) -> Result<String> {
        let mut command = Command::new(program);
        command.arg("token").arg("--issuer-key").arg(issuer_dir.join("issuer.pem"));
        command.args(["--user", self.user, "--groups", self.groups, "--ttl", "8h"]);
        command.args(["--issuer", super::scene::ISSUER, "--audience", "lockgate"]);
        if let Some((agent, version)) = self.agent {
            command.arg("--claim").arg(format!("agent={agent}"));
            command.arg("--claim").arg(format!("agent_version=\"{version}\""));
        }
        let output = command.output().context("run `lockgate token`")?;
        if !output.status.success() {
            bail!("`lockgate token` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout).context("a token is ASCII")?.trim().to_string())
    }
}
