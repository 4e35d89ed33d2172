//! The verdict on a text: first match per class and table, strictest overall.

use super::rule::{Rule, Unit};
use super::{Action, Decision, View, path, push_table_name};
use masking::sql::{Analysis, Class, Classes, Statement, Table};
use std::borrow::Cow;

/// What most sentences fit in: a refusal costs one allocation.
const SENTENCE_BYTES: usize = 128;

/// What made a rule match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// What the text shows.
    Shown,
    /// What it may hide.
    Hidden,
    /// Where it would lead the names in later statements.
    Path,
    /// That there is more of it than is read.
    TooMuch,
}

/// Who decided, before it is put into words.
#[derive(Clone, Copy)]
struct Verdict<'a> {
    action: Action,
    /// The deciding rule and its place in the file.
    rule: Option<(usize, &'a Rule)>,
    /// Another rule that wants a ruling on other terms: one ruling cannot meet both, so it is denied.
    against: Option<&'a Rule>,
    class: Class,
    why: Why,
    table: Option<&'a Table>,
    word: Option<&'a str>,
}

impl<'a> Verdict<'a> {
    const ALLOW: Verdict<'static> = Verdict {
        action: Action::Allow,
        rule: None,
        against: None,
        class: Class::Other,
        why: Why::Shown,
        table: None,
        word: None,
    };

    /// The stricter one. Of equals, the one whose rule stands first in the file; any rule before none, and what a rule denies before what
    /// two rules want different rulings for.
    fn or_stricter(self, other: Verdict<'a>) -> Verdict<'a> {
        let place =
            |verdict: &Verdict<'_>| (verdict.against.is_some(), verdict.rule.map_or(usize::MAX, |(place, _)| place));
        let later = other.action > self.action || other.action == self.action && place(&other) < place(&self);
        let (one, two) = if later { (other, self) } else { (self, other) };
        match (one.rule, two.rule) {
            (Some((_, first)), Some((_, second))) if one.action == Action::Approve && two.action == Action::Approve => {
                let apart = first.approval != second.approval;
                if apart { Verdict { action: Action::Deny, against: Some(second), ..one } } else { one }
            }
            _ => one,
        }
    }
}

impl View {
    /// The one function behind the live path and `explain`.
    pub fn decide(&self, analysis: &Analysis) -> Decision {
        if self.rules.is_empty() || analysis.statements.iter().all(|statement| self.is_nobodys(statement)) {
            return Decision::ALLOW;
        }
        let alone = analysis.statements.len() <= 1;
        let verdicts = analysis.statements.iter().map(|statement| self.judge(statement, &analysis.words, alone));
        verdicts.fold(Verdict::ALLOW, Verdict::or_stricter).into_decision()
    }

    /// A FunctionCall message: the function is a number and its arguments are bytes, so it runs only if a rule says so. A
    /// session that no rule and no mask concerns has nothing to lose by it: it is recorded and passes.
    pub fn decide_function_call(&self) -> Decision {
        let matching =
            |rule: &Rule| rule.classes.contains(Class::FunctionCall) && (rule.restricts() || !rule.looks_inside());
        match self.rules.iter().find(|rule| matching(rule)) {
            Some(rule) if !rule.restricts() => Decision::by(rule, rule.action, String::new()),
            Some(rule) => Decision::by(rule, Action::Deny, FUNCTION_CALL.to_owned()),
            None if self.rules.is_empty() && self.column_masks.is_empty() && self.detect.is_none() => {
                Verdict::ALLOW.into_decision()
            }
            None => Decision::deny_unruled(FUNCTION_CALL),
        }
    }

    /// A statement of which the text is not known, such as EXECUTE of a name that was prepared out of sight. With rules it
    /// runs only if the first rule that could say anything allows everything.
    pub fn decide_unknown(&self) -> Decision {
        match self.rules.iter().find(|rule| rule.restricts() || rule.is_unconditional()) {
            Some(rule) if !rule.restricts() => Decision::by(rule, rule.action, String::new()),
            Some(_) => Decision::deny_unruled(UNKNOWN),
            None if self.rules.is_empty() => Verdict::ALLOW.into_decision(),
            None => Decision::deny_unruled(UNKNOWN),
        }
    }

    /// No rule is about any of its classes. (Of what does not parse, and of settings, more is asked than that.)
    fn is_nobodys(&self, statement: &Statement) -> bool {
        let classes = judged(statement.classes);
        !classes.contains(Class::Unparsed) && statement.settings.is_empty() && !classes.intersects(self.ruled)
    }

    fn judge<'a>(&'a self, statement: &'a Statement, words: &'a [String], alone: bool) -> Verdict<'a> {
        let unit = |table| Unit { statement, table, words, alone };
        if statement.classes.contains(Class::Unparsed) {
            return self.judge_unparsed(unit(None));
        }
        if let Some(rule) = self.path_guard(statement) {
            return Verdict {
                action: Action::Deny,
                rule: Some(rule),
                class: Class::Set,
                why: Why::Path,
                ..Verdict::ALLOW
            };
        }
        // What a statement reaches, or may reach, besides the tables it names is judged as well.
        let beyond = statement.opaque || !statement.reach.is_nothing();
        let hidden = (statement.tables.is_empty() || beyond).then_some(None);
        let tables = statement.tables.iter().map(Some).chain(hidden);
        let verdicts = tables.map(|table| self.judge_unit(unit(table)));
        verdicts.reduce(Verdict::or_stricter).unwrap_or(Verdict::ALLOW)
    }

    /// Each class goes to the first rule that wants it.
    fn judge_unit<'a>(&'a self, unit: Unit<'a>) -> Verdict<'a> {
        let mut open = judged(unit.statement.classes);
        let mut strictest: Option<Verdict<'a>> = None;
        for (place, rule) in self.rules.iter().enumerate() {
            let taken = Classes(open.0 & rule.classes.0);
            if taken.is_empty() || !rule.holds(unit) {
                continue;
            }
            open = Classes(open.0 & !taken.0);
            let verdict = Verdict {
                action: rule.action,
                rule: Some((place, rule)),
                against: None,
                class: taken.iter().next().unwrap_or(Class::Other),
                why: if rule.seen(unit) { Why::Shown } else { Why::Hidden },
                table: unit.table,
                word: rule.finds_word(unit),
            };
            strictest = Some(strictest.map_or(verdict, |strictest| strictest.or_stricter(verdict)));
            if open.is_empty() {
                break;
            }
        }
        strictest.unwrap_or(Verdict::ALLOW)
    }

    /// Only a rule that names the class can let it through; tables, words and conditions cannot be told.
    fn judge_unparsed<'a>(&'a self, unit: Unit<'a>) -> Verdict<'a> {
        let mut rules = self.rules.iter().enumerate();
        // A replication command is no SQL; a rule may name it all the same.
        let replication = unit.statement.classes.contains(Class::Replication);
        let named = |rule: &Rule| rule.names(Class::Unparsed) || replication && rule.names(Class::Replication);
        let found = rules.find(|(_, rule)| named(rule) && (rule.restricts() || !rule.looks_inside()));
        Verdict {
            action: found.map_or(Action::Deny, |(_, rule)| rule.action),
            rule: found.map(|(place, rule)| (place, &**rule)),
            against: None,
            class: Class::Unparsed,
            why: if unit.statement.too_much { Why::TooMuch } else { Why::Shown },
            table: None,
            word: found.and_then(|(_, rule)| rule.finds_word(unit)),
        }
    }
}

fn judged(classes: Classes) -> Classes {
    if classes.is_empty() { Class::Other.into() } else { classes }
}

const TOO_MUCH: &str = "the statement is longer, or nests more deeply, than the gateway reads (300,000 words and signs; COPY has no such bound), \
    and rules apply to this session that could not be checked";
const FUNCTION_CALL: &str = "a function-call message is refused, because what it would do cannot be read from it";
const UNKNOWN: &str = "a prepared statement whose text was never seen is refused, because rules apply to this session";

impl Verdict<'_> {
    fn into_decision(self) -> Decision {
        if let (Some((_, rule)), Some(against)) = (self.rule, self.against) {
            return Decision::two_approvals(Some(&rule.name), Some(&against.name));
        }
        match self.rule {
            None if self.action == Action::Allow => Decision::ALLOW,
            None if self.why == Why::TooMuch => Decision::deny_unruled(TOO_MUCH),
            None => Decision::deny_unruled(
                "the statement does not parse as PostgreSQL, and rules apply to this session that could not be checked",
            ),
            Some((_, rule)) if !rule.restricts() => Decision::by(rule, self.action, String::new()),
            Some((_, rule)) => Decision::by(rule, self.action, self.sentence(rule)),
        }
    }

    /// `delete on customers without a condition is not allowed`
    fn sentence(&self, rule: &Rule) -> String {
        if self.why == Why::Path {
            return path::REASON.to_owned();
        }
        let mut sentence = String::with_capacity(SENTENCE_BYTES);
        match self.class {
            Class::Unparsed => sentence += "a statement that does not parse",
            class => class.name().split('_').enumerate().for_each(|(index, word)| {
                sentence += if index > 0 { " " } else { "" };
                sentence += word;
            }),
        }
        if self.why == Why::Hidden {
            sentence += ", which may do more than its text shows,";
            return sentence + if self.action == Action::Approve { " needs approval" } else { " is not allowed" };
        }
        if let Some(table) = self.table {
            sentence += " on ";
            push_table_name(table, &mut sentence);
        }
        if rule.wants_missing_where() {
            sentence += " without a condition";
        }
        if let Some(word) = self.word {
            sentence += " with ";
            sentence += word;
        }
        sentence + if self.action == Action::Approve { " needs approval" } else { " is not allowed" }
    }
}

impl Decision {
    const ALLOW: Decision =
        Decision { action: Action::Allow, rule: None, message: None, approval: None, reason: String::new() };

    fn by(rule: &Rule, action: Action, reason: String) -> Self {
        let approval = rule.approval.clone().filter(|_| action == Action::Approve);
        Self { action, rule: Some(rule.name.clone()), message: rule.message.clone(), approval, reason }
    }

    pub fn deny_unruled(reason: &str) -> Self {
        Self { action: Action::Deny, reason: reason.to_owned(), ..Self::ALLOW }
    }

    /// The stricter of two verdicts; the first when they are alike. Where they want rulings on different terms: refused.
    pub fn stricter(self, other: Self) -> Self {
        let both = self.action == Action::Approve && other.action == Action::Approve;
        if both && self.approval != other.approval {
            return Self::two_approvals(self.rule.as_deref(), other.rule.as_deref());
        }
        if other.action > self.action { other } else { self }
    }

    /// One ruling cannot meet the terms of two rules.
    fn two_approvals(first: Option<&str>, second: Option<&str>) -> Self {
        let [one, other] = [first, second].map(Option::unwrap_or_default);
        let reason = format!(
            "this needs approval under different rules ({one:?} and {other:?}), which no single ruling can give: send its parts one at a time"
        );
        Self { action: Action::Deny, rule: first.map(Into::into), reason, ..Self::ALLOW }
    }

    /// Why, in one sentence, for whoever asks.
    pub fn why(&self) -> Cow<'_, str> {
        match (&self.rule, self.action) {
            (_, Action::Deny | Action::Approve) => Cow::Borrowed(&self.reason),
            (Some(rule), Action::Alert) => Cow::Owned(format!("rule {rule:?} lets it run and records it as an alert")),
            (Some(rule), Action::Allow) => Cow::Owned(format!("rule {rule:?} allows it")),
            (None, Action::Allow | Action::Alert) => Cow::Borrowed("no rule matches"),
        }
    }
}
