//! What `search` and `tail` are asked for, as options.

use crate::audit::search::{Filter, RULINGS};
use crate::audit::when;
use crate::cli::WrongUsage;
use crate::config::Glob;
use anyhow::{Result, bail};

/// Of a session's id in the trail. A shorter one is the beginning of some.
const SESSION_CHARS: usize = 16;

#[derive(clap::Args)]
pub struct FilterArgs {
    /// Who did it
    #[arg(long, value_parser = Glob::new)]
    user: Vec<Glob>,
    /// On whose behalf it was done by whom: any of the actors, as `copilot@2.1`
    #[arg(long, value_parser = Glob::new)]
    actor: Vec<Glob>,
    /// On which target
    #[arg(long, value_parser = Glob::new)]
    target: Vec<Glob>,
    /// Statements that name this table: `customers` in any schema, `public.customers` only there (or with no schema written)
    #[arg(long, value_parser = Glob::new)]
    table: Vec<Glob>,
    /// Statements of this class: select, delete, drop, ...
    #[arg(long, value_parser = parse_class)]
    class: Vec<Glob>,
    /// allow, deny, approve or alert; or how an approval ended: approved, rejected, expired, abandoned
    #[arg(long, value_parser = parse_decision)]
    decision: Vec<Glob>,
    /// Statements that this rule decided
    #[arg(long, value_parser = Glob::new)]
    rule: Vec<Glob>,
    /// What was held under this ticket, and the ruling on it
    #[arg(long, value_parser = Glob::new)]
    ticket: Vec<Glob>,
    /// What ended with this SQLSTATE (`23*`: of this class), `skipped` or `disconnected`
    #[arg(long, value_name = "SQLSTATE", value_parser = Glob::new)]
    error: Vec<Glob>,
    /// In this session: its id or the beginning of it
    #[arg(long, value_parser = parse_session)]
    session: Vec<Glob>,
    /// statement, session, login, ruling or gateway
    #[arg(long, value_parser = parse_kind)]
    kind: Vec<Glob>,
    /// Statements whose text or bind values contain this, in any case
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// From this time on: 2026-11-20T03:12:00Z, "2026-11-20 03:12", 03:12 (today, UTC), 15m, 2h, 1d (ago)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,
    /// Up to this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,
}

fn parse_class(text: &str) -> Result<Glob, String> {
    one_of(text, "class", &masking::sql::Class::ALL.map(masking::sql::Class::name))
}

fn parse_decision(text: &str) -> Result<Glob, String> {
    one_of(text, "decision", &[&["allow", "deny", "approve", "alert"], &RULINGS[..]].concat())
}

fn parse_kind(text: &str) -> Result<Glob, String> {
    one_of(text, "kind", &["statement", "session", "login", "ruling", "gateway"])
}

/// A name that none of these has would find nothing, and look like an answer.
fn one_of(text: &str, what: &str, names: &[&str]) -> Result<Glob, String> {
    let glob = Glob::new(text)?;
    if names.iter().any(|name| glob.matches(name)) {
        return Ok(glob);
    }
    Err(format!("there is no {what} of that name; there are: {}", names.join(" ")))
}

/// As `replay` takes it. A whole id stays literal: bloom filters know those.
fn parse_session(text: &str) -> Result<Glob, String> {
    let glob = Glob::new(text)?;
    if glob.is_literal() && text.len() < SESSION_CHARS { Glob::new(&format!("{text}*")) } else { Ok(glob) }
}

pub fn parse_time(text: &str) -> Result<i64, String> {
    when::parse_when(text, jiff::Timestamp::now())
}

impl FilterArgs {
    pub fn filter(self) -> Result<Filter> {
        in_order(self.since, self.until)?;
        if let Some(since) = self.since.filter(|&since| since > jiff::Timestamp::now().as_microsecond()) {
            note!(
                "lockgate: --since {} is still to come, nothing was recorded then (a time of day is today's, in UTC)",
                when::rfc3339(since)
            );
        }
        Ok(Filter {
            users: self.user,
            actors: self.actor,
            targets: self.target,
            tables: self.table,
            classes: self.class,
            decisions: self.decision,
            rules: self.rule,
            tickets: self.ticket,
            errors: self.error,
            sessions: self.session,
            kinds: self.kind,
            since_us: self.since,
            until_us: self.until,
            contains: self.contains,
        })
    }
}

/// Of two dates that are the same nothing but midnight would be looked at.
fn one_moment(at_us: i64) -> String {
    let day_us = 86_400_000_000;
    let whole_day = if at_us.rem_euclid(day_us) == 0 {
        let next = when::rfc3339(at_us.saturating_add(day_us));
        format!("; a date is its midnight: for the whole day, --until {}", &next[..10])
    } else {
        String::new()
    };
    format!("lockgate: --since and --until are the same moment, {}{whole_day}", when::rfc3339(at_us))
}

/// A time that ends before it begins would find nothing, and look like an answer.
pub fn in_order(since_us: Option<i64>, until_us: Option<i64>) -> Result<()> {
    match (since_us, until_us) {
        (Some(since), Some(until)) if since > until => bail!(WrongUsage(format!(
            "--since {} is later than --until {}",
            when::rfc3339(since),
            when::rfc3339(until)
        ))),
        (Some(since), Some(until)) if since == until => {
            note!("{}", one_moment(until));
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_session_names_it() {
        let matches = |text: &str, id: &str| parse_session(text).expect("a glob").matches(id);
        let id = "c249b7aa01f2e4d8";
        assert!(matches("c249", id) && matches(id, id) && matches("*e4d8", id));
        assert!(!matches("249", id) && !matches("c249b7aa01f2e4d9", id));
        assert!(parse_session(id).expect("a glob").is_literal());
    }

    #[test]
    fn a_time_that_ends_before_it_begins_is_wrong_usage() {
        let error = in_order(Some(2), Some(1)).expect_err("turned around");
        assert!(error.is::<WrongUsage>(), "{error}");
        assert!(in_order(Some(1), Some(1)).is_ok() && in_order(None, Some(1)).is_ok());
    }

    #[test]
    fn one_and_the_same_date_is_told_to_be_its_midnight() {
        let of = |text| one_moment(parse_time(text).expect("a time"));
        assert!(
            of("2026-11-30").ends_with(
                "2026-11-30T00:00:00.000000Z; a date is its midnight: for the whole day, --until 2026-12-01"
            )
        );
        assert!(of("2026-11-30T01:00").ends_with("same moment, 2026-11-30T01:00:00.000000Z"));
    }
}
