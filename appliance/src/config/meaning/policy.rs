//! Grants, rules and masks.

use super::*;
use crate::config::pattern::{ColumnPattern, TablePattern};
use crate::policy::ApprovalTerms;

impl Check<'_> {
    pub(super) fn grant(&mut self, at: usize, raw: &At<raw::Grant>) -> Grant {
        if raw.targets.is_empty() {
            self.error(
                raw.targets.span(),
                "`targets` is empty: the grant opens nothing",
                "name a target, or \"*\" for all",
            );
        }
        let name = raw.name.as_ref().map(|name| self.text("name", name));
        let bounds = (Duration::from_secs(1), Duration::MAX);
        Grant {
            name: name.unwrap_or_else(|| format!("grant-{}", at + 1)),
            targets: raw.targets.iter().filter_map(|text| self.pattern(text, Glob::new)).collect(),
            who: Who {
                groups: self.texts("groups", &raw.groups),
                except_groups: Vec::new(),
                users: self.globs("users", &raw.users),
                actors: self.globs("actors", &raw.actors),
            },
            max_session: raw
                .max_session
                .as_ref()
                .map(|text| self.duration("max_session", Some(text), Duration::ZERO, bounds)),
            connection_limit: raw.connection_limit.as_ref().map(bounded),
            replication: raw.replication.unwrap_or(false),
            approval: raw.approval.as_ref().map(|approval| {
                self.terms(
                    &approval.approvers,
                    approval.count.as_ref(),
                    approval.expires.as_ref(),
                    15,
                    approval.own == Some(true),
                )
            }),
        }
    }

    pub(super) fn rule(&mut self, raw: &At<raw::Rule>) -> Rule {
        let action = match *raw.action {
            raw::Action::Approve => RuleAction::Approve(self.rule_terms(raw)),
            raw::Action::Allow => RuleAction::Allow,
            raw::Action::Deny => RuleAction::Deny,
            raw::Action::Alert => RuleAction::Alert,
        };
        if *raw.action != raw::Action::Approve {
            self.only_with_approve(raw);
        }
        if let (Some(message), raw::Action::Allow | raw::Action::Alert) = (&raw.message, *raw.action) {
            self.warn(message.span(), "nobody reads this `message`: the statement is not refused", "");
        }
        Rule {
            name: self.text("name", &raw.name),
            targets: self.targets(&raw.targets),
            who: self.who(&raw.groups, &raw.except_groups, &raw.users, &raw.actors),
            classes: self.not_empty("classes", &raw.classes).iter().filter_map(|name| name.meaning()).collect(),
            tables: self
                .not_empty("tables", &raw.tables)
                .iter()
                .filter_map(|text| self.pattern(text, TablePattern::new))
                .collect(),
            missing_where: raw.missing_where.unwrap_or(false),
            words: self.not_empty("words", &raw.words).iter().map(|word| self.word(word)).collect(),
            action,
            message: raw.message.as_ref().map(|message| self.text("message", message)),
        }
    }

    fn rule_terms(&mut self, raw: &At<raw::Rule>) -> ApprovalTerms {
        let own = raw.own.as_ref().is_some_and(|own| **own);
        match &raw.approvers {
            Some(approvers) => self.terms(approvers, raw.count.as_ref(), raw.expires.as_ref(), 10, own),
            None => {
                self.error(
                    raw.action.span(),
                    "a rule that asks for approval needs `approvers`",
                    "add `approvers = [\"dba\"]`, groups or users, or \"local\"",
                );
                ApprovalTerms { approvers: Vec::new(), count: 1, expires_s: 1, own }
            }
        }
    }

    fn terms(
        &mut self,
        approvers: &At<Vec<At<String>>>,
        count: Option<&At<i64>>,
        expires: Option<&At<String>>,
        default_m: u64,
        own: bool,
    ) -> ApprovalTerms {
        if approvers.is_empty() {
            self.error(
                approvers.span(),
                "`approvers` is empty: nobody could ever approve",
                "name groups or users, or \"local\"",
            );
        }
        let people = number(count, 1);
        if let (Some(at), true) = (count, people > 1 && approvers.iter().all(|name| name.as_str() == "local")) {
            self.error(
                at.span(),
                "`local` is one person and approves once: this could never be approved",
                "add groups or users, or leave `count` out",
            );
        }
        let bounds = (Duration::from_secs(1), Duration::from_secs(APPROVAL_EXPIRES_S_MAX));
        ApprovalTerms {
            approvers: approvers.iter().map(|name| self.text("approvers", name)).collect(),
            count: people,
            expires_s: self.duration("expires", expires, Duration::from_secs(default_m * 60), bounds).as_secs(),
            own,
        }
    }

    fn only_with_approve(&mut self, raw: &At<raw::Rule>) {
        let given = [
            ("approvers", raw.approvers.as_ref().map(At::span)),
            ("count", raw.count.as_ref().map(At::span)),
            ("expires", raw.expires.as_ref().map(At::span)),
            ("self", raw.own.as_ref().map(At::span)),
        ];
        for (key, span) in given {
            if let Some(span) = span {
                self.error(
                    span,
                    format!("`{key}` has no effect: this rule does not ask for approval"),
                    "set `action = \"approve\"`, or leave it out",
                );
            }
        }
    }

    pub(super) fn mask(&mut self, raw: &At<raw::Mask>) -> Mask {
        if raw.columns.is_none() && raw.detect.is_none() {
            self.error(
                raw.span(),
                "a [[mask]] needs `columns`, `detect` or both",
                "for example `columns = [\"customers.card_number\"]`",
            );
        }
        Mask {
            targets: self.targets(&raw.targets),
            who: self.who(&raw.groups, &raw.except_groups, &raw.users, &raw.actors),
            columns: self
                .not_empty("columns", &raw.columns)
                .iter()
                .filter_map(|text| self.pattern(text, ColumnPattern::new))
                .collect(),
            detect: self.not_empty("detect", &raw.detect).iter().filter_map(|name| name.meaning()).collect(),
            style: raw.style.as_ref().and_then(|style| style.meaning()).unwrap_or(masking::style::Style::Last4),
        }
    }

    fn targets(&mut self, list: &Names) -> Vec<Glob> {
        let targets = self.globs("targets", list);
        if targets.is_empty() { vec![Glob::any()] } else { targets }
    }

    fn who(&mut self, groups: &Names, except_groups: &Names, users: &Names, actors: &Names) -> Who {
        Who {
            groups: self.texts("groups", groups),
            except_groups: self.texts("except_groups", except_groups),
            users: self.globs("users", users),
            actors: self.globs("actors", actors),
        }
    }

    /// One identifier or keyword, as the analysis reports them: lower case.
    fn word(&mut self, word: &At<String>) -> String {
        if word.is_empty() || !word.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$')) {
            self.error(
                word.span(),
                format!("\"{}\" can never match: words are single identifiers or keywords", word.escape_debug()),
                "write each identifier as an entry of its own, without quotes, dots or blanks",
            );
        }
        word.to_lowercase()
    }

    /// A target that is named must exist; a glob that matches none is suspicious.
    pub(super) fn references(&mut self, file: &raw::File) {
        let grants = file.grant.iter().flat_map(|grant| grant.targets.iter());
        let rules = file.rule.iter().filter_map(|rule| rule.targets.as_ref()).flat_map(|targets| targets.iter());
        let masks = file.mask.iter().filter_map(|mask| mask.targets.as_ref()).flat_map(|targets| targets.iter());
        let known = || file.target.iter().map(|target| target.name.as_str());
        for named in grants.chain(rules).chain(masks) {
            let Ok(glob) = Glob::new(named) else { continue };
            if known().any(|name| glob.matches(name)) {
                continue;
            }
            if !glob.is_literal() {
                self.warn(named.span(), format!("no target matches \"{}\"", named.escape_debug()), "");
                continue;
            }
            let right = match suggest::nearest(named, known()) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None if file.target.is_empty() => "there is no [[target]] at all".into(),
                None => format!("targets are: {}", known().collect::<Vec<_>>().join(", ")),
            };
            self.error(named.span(), format!("there is no target \"{}\"", named.escape_debug()), right);
        }
    }

    /// A rule behind one that takes everything never decides.
    pub(super) fn reachable(&mut self, file: &raw::File, rules: &[Rule]) {
        for (at, rule) in rules.iter().enumerate() {
            let before =
                rules[..at].iter().find(|before| before.takes_everything() && covers(&before.targets, &rule.targets));
            if let Some(before) = before {
                self.warn(
                    file.rule[at].name.span(),
                    format!(
                        "rule \"{}\" never decides: \"{}\" before it takes every statement",
                        rule.name, before.name
                    ),
                    "move it up",
                );
            }
        }
    }
}

impl Rule {
    /// It has no condition but its targets.
    fn takes_everything(&self) -> bool {
        let everyone = self.who.groups.is_empty()
            && self.who.except_groups.is_empty()
            && self.who.users.is_empty()
            && self.who.actors.is_empty();
        everyone && self.classes.is_empty() && self.tables.is_empty() && self.words.is_empty() && !self.missing_where
    }
}

/// Every target of `inner` is one of `outer`, as far as names tell.
fn covers(outer: &[Glob], inner: &[Glob]) -> bool {
    inner.iter().all(|name| {
        outer
            .iter()
            .any(|glob| glob == name || *glob == Glob::any() || (name.is_literal() && glob.matches(name.as_str())))
    })
}
