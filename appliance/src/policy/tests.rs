//! Rules against statements: what is written here is what people may rely on.

use super::*;
use crate::config::{ColumnPattern, Glob, Grant, Mask, Rule, RuleAction, TablePattern, Who};
use masking::detect::Kind;
use masking::sql::{Analysis, Class, Statement, Table, analyse};
use std::time::Duration;

fn glob(text: &str) -> Glob {
    Glob::new(text).expect("a glob")
}

fn globs(texts: &[&str]) -> Vec<Glob> {
    texts.iter().map(|text| glob(text)).collect()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

fn principal(user: &str, groups: &[&str], actor: &[&str]) -> Principal {
    Principal {
        user: user.into(),
        subject: user.into(),
        issuer: "https://issuer.example".into(),
        groups: strings(groups),
        actor: strings(actor),
    }
}

fn ann() -> Principal {
    principal("ann@example.com", &["engineering"], &[])
}

fn rule(name: &str, action: RuleAction) -> Rule {
    Rule {
        name: name.into(),
        targets: globs(&["*"]),
        who: Who::default(),
        classes: vec![],
        tables: vec![],
        missing_where: false,
        words: vec![],
        action,
        message: None,
    }
}

fn approve(by: &str) -> RuleAction {
    RuleAction::Approve(ApprovalTerms { approvers: strings(&[by]), count: 1, expires_s: 600, own: false })
}

trait Conditions {
    fn on_classes(self, classes: &[Class]) -> Self;
    fn on_tables(self, tables: &[&str]) -> Self;
    fn on_words(self, words: &[&str]) -> Self;
    fn on_missing_where(self) -> Self;
    fn for_who(self, who: Who) -> Self;
}

impl Conditions for Rule {
    fn on_classes(self, classes: &[Class]) -> Self {
        Rule { classes: classes.to_vec(), ..self }
    }
    fn on_tables(self, tables: &[&str]) -> Self {
        Rule { tables: tables.iter().map(|table| TablePattern::new(table).expect("a table")).collect(), ..self }
    }
    fn on_words(self, words: &[&str]) -> Self {
        Rule { words: strings(words), ..self }
    }
    fn on_missing_where(self) -> Self {
        Rule { missing_where: true, ..self }
    }
    fn for_who(self, who: Who) -> Self {
        Rule { who, ..self }
    }
}

fn grant(targets: &[&str], who: Who) -> Grant {
    Grant {
        name: format!("grant-{}", targets.join("-")),
        targets: globs(targets),
        who,
        max_session: None,
        connection_limit: None,
        replication: false,
        approval: None,
    }
}

fn view_of(rules: &[Rule], principal: &Principal) -> View {
    let everyone = grant(&["*"], Who::default());
    Policy::from_parts(&[everyone], rules, &[]).view("orders", principal).expect("a grant for everyone")
}

fn statement(classes: &[Class], tables: &[&str]) -> Statement {
    let table = |text: &&str| match text.split_once('.') {
        Some((schema, name)) => Table { schema: Some(schema.into()), name: name.into(), written: false, read: true },
        None => Table { schema: None, name: text.to_string(), written: false, read: true },
    };
    Statement {
        classes: classes.iter().copied().collect(),
        tables: tables.iter().map(table).collect(),
        ..Statement::default()
    }
}

fn text(statements: &[Statement], words: &[&str]) -> Analysis {
    let mut words = strings(words);
    words.sort();
    Analysis { statements: statements.to_vec(), words }
}

/// The action and the rule's name (`-`: none) that these rules give this text for Ann.
#[track_caller]
fn check(rules: &[Rule], analysis: &Analysis, expected: &str) {
    let decision = view_of(rules, &ann()).decide(analysis);
    let found = format!("{} {}", decision.action.name(), decision.rule.as_deref().unwrap_or("-"));
    assert_eq!(found, expected, "{decision:?}");
    assert_eq!(decision.approval.is_some(), decision.action == Action::Approve);
    assert_eq!(decision.reason.is_empty(), matches!(decision.action, Action::Allow | Action::Alert));
    assert!(!decision.why().is_empty());
}

#[track_caller]
fn check_one(rules: &[Rule], one: Statement, expected: &str) {
    check(rules, &text(&[one], &[]), expected);
}

use Class::{Alter, Delete, Drop, Explain, FunctionCall, Replication, Select, Truncate, Unparsed, Update};
use RuleAction::{Alert as ALERT, Allow as ALLOW, Deny as DENY};

#[test]
fn no_rule_or_no_match_allows() {
    check_one(&[], statement(&[Drop], &["customers"]), "allow -");
    check_one(&[rule("r", DENY).on_classes(&[Truncate])], statement(&[Drop], &["customers"]), "allow -");
    check(&[rule("r", DENY)], &text(&[], &[]), "allow -");
}

#[test]
fn the_first_match_in_file_order_decides() {
    let rules = [
        rule("own-schema", ALLOW).on_tables(&["scratch.*"]),
        rule("no-ddl", DENY).on_classes(&[Drop, Alter]),
        rule("watch", ALERT),
    ];
    check_one(&rules, statement(&[Drop], &["scratch.t"]), "allow own-schema");
    check_one(&rules, statement(&[Drop], &["public.t"]), "deny no-ddl");
    check_one(&rules, statement(&[Select], &["public.t"]), "alert watch");
    check_one(&rules, statement(&[Drop], &[]), "deny no-ddl");
}

#[test]
fn every_condition_of_a_rule_must_hold() {
    let both = [rule("r", DENY).on_classes(&[Delete, Update]).on_tables(&["customers"]).on_missing_where()];
    let bare = |classes: &[Class], tables: &[&str]| Statement { missing_where: true, ..statement(classes, tables) };
    check_one(&both, bare(&[Delete], &["customers"]), "deny r");
    check_one(&both, bare(&[Delete], &["orders"]), "allow -");
    check_one(&both, statement(&[Delete], &["customers"]), "allow -");
    check_one(&both, bare(&[Select], &["customers"]), "allow -");
}

#[test]
fn any_class_of_a_statement_is_enough_to_refuse_it() {
    let rules = [rule("no-delete", DENY).on_classes(&[Delete])];
    check_one(&rules, statement(&[Explain, Delete], &["customers"]), "deny no-delete");
    check_one(&rules, statement(&[Select, Delete], &["customers", "orders"]), "deny no-delete");
}

#[test]
fn allowing_one_class_or_table_does_not_cover_the_others() {
    let rules = [rule("reads", ALLOW).on_classes(&[Select, Explain]), rule("no-delete", DENY).on_classes(&[Delete])];
    check_one(&rules, statement(&[Explain, Delete], &["customers"]), "deny no-delete");
    check_one(&rules, statement(&[Explain, Select], &["customers"]), "allow reads");
    let rules = [
        rule("logs", ALLOW).on_tables(&["logs"]),
        rule("seen", ALERT).on_tables(&["audit"]),
        rule("secrets", DENY).on_tables(&["secrets"]),
    ];
    check_one(&rules, statement(&[Select], &["logs"]), "allow logs");
    check_one(&rules, statement(&[Select], &["logs", "secrets"]), "deny secrets");
    check_one(&rules, statement(&[Select], &["audit", "secrets"]), "deny secrets");
    check_one(&rules, statement(&[Select], &["audit", "logs"]), "alert seen");
    check_one(&rules, statement(&[Select], &["orders"]), "allow -");
}

#[test]
fn the_strictest_statement_of_a_text_decides() {
    let rules = [
        rule("ddl", DENY).on_classes(&[Drop]),
        rule("deletes", approve("dba")).on_classes(&[Delete]),
        rule("watch", ALERT).on_classes(&[Update]),
    ];
    let s = |class| statement(&[class], &["public.t"]);
    check(&rules, &text(&[s(Select), s(Update)], &[]), "alert watch");
    check(&rules, &text(&[s(Update), s(Delete), s(Update)], &[]), "approve deletes");
    check(&rules, &text(&[s(Delete), s(Drop), s(Select)], &[]), "deny ddl");
    check(&rules, &text(&[s(Delete), s(Delete)], &[]), "approve deletes");
}

#[test]
fn one_ruling_never_stands_for_two_rules() {
    let rules = [
        rule("deletes", approve("leads")).on_classes(&[Delete]),
        rule("updates", approve("dba")).on_classes(&[Update]),
        rule("ddl", DENY).on_classes(&[Drop]),
    ];
    let s = |class| statement(&[class], &["public.t"]);
    let both = view_of(&rules, &ann()).decide(&text(&[s(Delete), s(Update)], &[]));
    assert_eq!(both.action, Action::Deny);
    assert!(both.reason.contains("\"deletes\"") && both.reason.contains("one at a time"), "{}", both.reason);
    check(&rules, &text(&[s(Delete), s(Update), s(Drop)], &[]), "deny ddl");
    let same = [rules[0].clone(), Rule { action: approve("leads"), ..rules[1].clone() }];
    check(&same, &text(&[s(Update), s(Delete)], &[]), "approve deletes");
    // Nor within one statement: by class or by table.
    check_one(&rules, statement(&[Update, Delete], &["public.t"]), "deny deletes");
    check_one(&rules, statement(&[Update, Delete, Drop], &["public.t"]), "deny ddl");
    check_one(&same, statement(&[Update, Delete], &["public.t"]), "approve deletes");
    let by_table = [
        rule("orders", approve("leads")).on_tables(&["orders"]),
        rule("customers", approve("dba")).on_tables(&["customers"]),
    ];
    check_one(&by_table, statement(&[Select], &["orders", "customers"]), "deny orders");
    check_one(&by_table, statement(&[Select], &["customers"]), "approve customers");
    // Nor what a text needs, and what a name in it stands for.
    let decided = |class| view_of(&rules, &ann()).decide(&text(&[s(class)], &[]));
    let combined = decided(Delete).stricter(decided(Update));
    assert_eq!((combined.action, combined.approval), (Action::Deny, None));
    assert_eq!(decided(Delete).stricter(decided(Delete)).action, Action::Approve);
}

#[test]
fn an_unqualified_table_is_refused_in_any_schema_and_allowed_only_in_public() {
    for action in [DENY, approve("dba")] {
        let rules = [rule("r", action).on_tables(&["billing.cards"])];
        let decided = |name: &str| view_of(&rules, &ann()).decide(&text(&[statement(&[Select], &[name])], &[]));
        assert_ne!(decided("billing.cards").action, Action::Allow);
        assert_ne!(decided("cards").action, Action::Allow, "search_path could lead there");
        assert_eq!(decided("public.cards").action, Action::Allow);
    }
    let only = |pattern: &str| [rule("ok", ALLOW).on_tables(&[pattern]), rule("rest", DENY)];
    check_one(&only("public.logs"), statement(&[Select], &["logs"]), "allow ok");
    check_one(&only("public.logs"), statement(&[Select], &["public.logs"]), "allow ok");
    check_one(&only("archive.logs"), statement(&[Select], &["logs"]), "deny rest");
    check_one(&only("logs"), statement(&[Select], &["archive.logs"]), "allow ok");
    check_one(&only("*.logs"), statement(&[Select], &["logs"]), "allow ok");
    check_one(&only("logs"), statement(&[Select], &["Logs"]), "deny rest");
}

#[test]
fn words_match_whole_tokens_of_the_text() {
    let rules = [rule("sleep", DENY).on_words(&["pg_sleep", "DBLINK"])];
    let s = statement(&[Select], &[]);
    check(&rules, &text(std::slice::from_ref(&s), &["select", "pg_sleep"]), "deny sleep");
    check(&rules, &text(std::slice::from_ref(&s), &["dblink", "select"]), "deny sleep");
    check(&rules, &text(std::slice::from_ref(&s), &["pg_sleep_for", "select"]), "allow -");
    // Of the same length and first letter as one of the rule's.
    check(&rules, &text(std::slice::from_ref(&s), &["dbname", "debian", "pg_sleeq"]), "allow -");
}

#[test]
fn every_word_of_a_long_list_is_found_among_many_others() {
    let listed: Vec<String> = (0..200).map(|n| format!("w{n}{}", "x".repeat(n % 9))).collect();
    let words: Vec<&str> = listed.iter().map(String::as_str).collect();
    let rules = [rule("long", DENY).on_words(&words)];
    let s = statement(&[Select], &[]);
    for word in &words {
        check(&rules, &text(std::slice::from_ref(&s), &["from", "select", word, "zebra"]), "deny long");
        check(&rules, &text(std::slice::from_ref(&s), &["from", &word[1..], "zebra"]), "allow -");
    }
}

#[test]
fn an_allowing_word_counts_only_in_a_text_of_one_statement() {
    let rules = [rule("count", ALLOW).on_words(&["count"]), rule("rest", DENY)];
    let (reads, drops) = (statement(&[Select], &[]), statement(&[Drop], &[]));
    check(&rules, &text(std::slice::from_ref(&reads), &["count", "select"]), "allow count");
    check(&rules, &text(&[reads, drops], &["count", "drop", "select"]), "deny rest");
}

#[test]
fn what_does_not_parse_is_denied_once_a_rule_applies() {
    let broken = || statement(&[Unparsed], &[]);
    check_one(&[], broken(), "allow -");
    check_one(&[rule("r", ALLOW).on_classes(&[Select])], broken(), "deny -");
    check_one(&[rule("all", ALLOW)], broken(), "deny -");
    check_one(&[rule("let", ALLOW).on_classes(&[Unparsed]), rule("r", DENY)], broken(), "allow let");
    check_one(&[rule("let", ALERT).on_classes(&[Select, Unparsed])], broken(), "alert let");
    check_one(&[rule("let", ALLOW).on_classes(&[Unparsed]).on_tables(&["logs"])], broken(), "deny -");
    check_one(&[rule("no", DENY).on_classes(&[Unparsed]).on_tables(&["logs"])], broken(), "deny no");
    check_one(&[rule("ask", approve("dba")).on_classes(&[Unparsed])], broken(), "approve ask");
    let elsewhere = Rule { targets: globs(&["billing"]), ..rule("r", DENY) };
    check_one(&[elsewhere], broken(), "allow -");
}

#[test]
fn a_function_call_message_needs_a_rule_that_allows_it_once_any_rule_applies() {
    let check = |rules: &[Rule], expected: Action| {
        let decision = view_of(rules, &ann()).decide_function_call();
        assert_eq!(decision.action, expected, "{decision:?}");
    };
    check(&[], Action::Allow);
    check(&[rule("r", DENY).on_classes(&[Drop])], Action::Deny);
    check(&[rule("r", ALLOW).on_classes(&[FunctionCall])], Action::Allow);
    check(&[rule("r", ALERT).on_classes(&[FunctionCall])], Action::Alert);
    check(&[rule("r", ALLOW)], Action::Allow);
    check(&[rule("r", ALLOW).on_tables(&["logs"])], Action::Deny);
    check(&[rule("secret", DENY).on_tables(&["secrets"]), rule("r", ALLOW)], Action::Deny);
    check(&[rule("r", approve("dba")).on_classes(&[FunctionCall])], Action::Deny);
    check(&[rule("r", DENY).on_classes(&[FunctionCall]), rule("s", ALLOW)], Action::Deny);
}

#[test]
fn a_statement_never_seen_is_denied_once_a_rule_applies() {
    let check = |rules: &[Rule], expected: Action| {
        assert_eq!(view_of(rules, &ann()).decide_unknown().action, expected);
    };
    check(&[], Action::Allow);
    check(&[rule("r", ALLOW).on_classes(&[Select])], Action::Deny);
    check(&[rule("r", DENY).on_classes(&[Drop]), rule("all", ALLOW)], Action::Deny);
    check(&[rule("all", ALLOW), rule("r", DENY)], Action::Allow);
    check(&[rule("all", ALERT), rule("r", DENY)], Action::Alert);
}

#[test]
fn rules_apply_to_the_people_they_name() {
    let who = Who {
        groups: strings(&["engineering"]),
        users: globs(&["root@*"]),
        except_groups: strings(&["dba"]),
        actors: vec![],
    };
    let applies =
        |who: &Who, principal: &Principal| view_of(&[rule("r", DENY).for_who(who.clone())], principal).has_rules;
    assert!(applies(&Who::default(), &ann()));
    assert!(applies(&who, &ann()));
    assert!(applies(&who, &principal("root@example.com", &[], &[])), "by group or by user");
    assert!(!applies(&who, &principal("bob@example.com", &["sales"], &[])));
    assert!(!applies(&who, &principal("ann@example.com", &["engineering", "dba"], &[])), "exempt");
    let bots = Who { actors: globs(&["deploy-bot@2.*"]), ..Who::default() };
    assert!(applies(&bots, &principal("ann", &[], &["deploy-bot@2.1"])));
    assert!(applies(&bots, &principal("ann", &[], &["ide", "deploy-bot@2.1"])), "anywhere in the chain");
    assert!(!applies(&bots, &principal("ann", &[], &["deploy-bot@3.0"])));
    assert!(!applies(&bots, &principal("ann", &[], &["deploy-bot"])));
    assert!(!applies(&bots, &ann()));
    let exempt = Who { except_groups: strings(&["dba"]), ..Who::default() };
    assert!(applies(&exempt, &ann()) && !applies(&exempt, &principal("d", &["dba"], &[])));
}

#[test]
fn nobody_opens_what_no_grant_names() {
    let engineering = Who { groups: strings(&["engineering"]), ..Who::default() };
    let policy = Policy::from_parts(&[grant(&["ord*"], engineering)], &[], &[]);
    assert!(policy.view("orders", &ann()).is_some());
    assert!(policy.view("billing", &ann()).is_none());
    assert!(policy.view("orders", &principal("bob", &["sales"], &[])).is_none());
    assert!(Policy::default().view("orders", &ann()).is_none());
}

#[test]
fn a_standing_grant_is_used_before_one_that_asks() {
    let terms = ApprovalTerms { approvers: strings(&["leads"]), count: 1, expires_s: 900, own: false };
    let asking = Grant { approval: Some(terms.clone()), replication: true, ..grant(&["*"], Who::default()) };
    let standing = Grant {
        max_session: Some(Duration::from_secs(3600)),
        ..grant(&["orders"], Who { groups: strings(&["dba"]), ..Who::default() })
    };
    let policy = Policy::from_parts(&[asking, standing], &[], &[]);
    let view = policy.view("orders", &ann()).expect("the asking grant");
    assert_eq!((view.approval, view.replication), (Some(terms), true));
    let view = policy.view("orders", &principal("d", &["dba"], &[])).expect("the standing grant");
    assert_eq!((view.grant.as_str(), view.approval, view.max_session_s), ("grant-orders", None, Some(3600)));
    assert!(!view.replication, "a grant that asks gives nothing before it was asked");
}

#[test]
fn column_masks_follow_patterns_and_people() {
    let mask = |columns: &[&str], style: Style, except: &[&str]| Mask {
        targets: globs(&["orders"]),
        who: Who { except_groups: strings(except), ..Who::default() },
        columns: columns.iter().map(|column| ColumnPattern::new(column).expect("a column")).collect(),
        detect: vec![],
        style,
    };
    let masks = [
        mask(&["customers.card_number", "*.ssn"], Style::Last4, &["fraud"]),
        mask(&["billing.*.*", "customers.card_number"], Style::Null, &[]),
    ];
    let policy = Policy::from_parts(&[grant(&["*"], Who::default())], &[], &masks);
    let view = policy.view("orders", &ann()).expect("granted");
    assert_eq!(view.column_style("public", "customers", "card_number"), Some(Style::Last4), "the first that names it");
    assert_eq!(view.column_style("anything", "staff", "ssn"), Some(Style::Last4));
    assert_eq!(view.column_style("billing", "invoices", "total"), Some(Style::Null));
    assert_eq!(view.column_style("public", "customers", "name"), None);
    assert!(view.masks_table(None, "invoices") && view.masks_table(Some("public"), "invoices"), "*.ssn");
    assert_eq!(view.masks_of_table(Some("public"), "customers").count(), 3);
    assert_eq!(view.column_masks[2].to_string(), "billing.*.*");
    assert_eq!(view.column_style("pg_catalog", "pg_stat_activity", "query"), Some(Style::Fill), "others' statements");
    assert_eq!(view.column_style("pg_catalog", "pg_stat_activity", "state"), None);
    let fraud = policy.view("orders", &principal("f", &["fraud"], &[])).expect("granted");
    assert_eq!(fraud.column_style("public", "customers", "card_number"), Some(Style::Null));
    assert_eq!(fraud.column_style("public", "staff", "ssn"), None);
    assert!(!fraud.masks_table(Some("public"), "invoices") && fraud.masks_table(None, "invoices"));
    let other = policy.view("warehouse", &ann()).expect("granted");
    assert!(other.column_masks.is_empty() && !other.masks_table(None, "customers"));
}

#[test]
fn detectors_of_all_masks_join_in_the_strictest_style() {
    let mask = |detect: &[Kind], style: Style| Mask {
        targets: globs(&["*"]),
        who: Who::default(),
        columns: vec![],
        detect: detect.to_vec(),
        style,
    };
    let view = |masks: &[Mask]| {
        let policy = Policy::from_parts(&[grant(&["*"], Who::default())], &[], masks);
        policy
            .view("orders", &ann())
            .expect("granted")
            .detect
            .map(|(detectors, style)| (detectors.kinds().to_vec(), style))
    };
    assert_eq!(view(&[]), None);
    assert_eq!(view(&[mask(&[Kind::Email], Style::Last4)]), Some((vec![Kind::Email], Style::Last4)));
    assert_eq!(
        view(&[mask(&[Kind::Email], Style::Last4), mask(&[Kind::Card, Kind::Email], Style::Token)]),
        Some((vec![Kind::Card, Kind::Email], Style::Token))
    );
    let nothing_to_detect = mask(&[], Style::Null);
    assert_eq!(view(&[mask(&[Kind::Ssn], Style::Fill), nothing_to_detect]), Some((vec![Kind::Ssn], Style::Fill)));
}

#[test]
fn a_refusal_names_what_which_rule_and_what_next() {
    let rules = [
        Rule { message: Some("Use a migration: go/migrations".into()), ..rule("no-ddl", DENY).on_classes(&[Drop]) },
        rule("bare", DENY).on_classes(&[Delete]).on_missing_where(),
        rule("sleep", DENY).on_words(&["pg_sleep"]),
    ];
    let refusal = |one: Statement, words: &[&str]| view_of(&rules, &ann()).decide(&text(&[one], words)).refusal();
    let ddl = refusal(statement(&[Drop], &["customers"]), &[]);
    assert_eq!(&ddl.sqlstate, b"42501");
    assert_eq!(ddl.message, "Use a migration: go/migrations");
    assert_eq!(ddl.detail.as_deref(), Some("rule \"no-ddl\""));
    assert!(ddl.hint.expect("says what next").contains("lockgate explain"));
    let bare = Statement { missing_where: true, ..statement(&[Delete], &["public.customers"]) };
    assert_eq!(refusal(bare, &[]).message, "delete on public.customers without a condition is not allowed");
    assert_eq!(refusal(statement(&[Select], &[]), &["pg_sleep"]).message, "select with pg_sleep is not allowed");
    let broken = refusal(statement(&[Unparsed], &[]), &[]);
    assert!(broken.message.contains("does not parse"));
    assert_eq!(broken.detail, None);
}

#[test]
fn what_may_be_hidden_meets_every_condition_that_refuses() {
    let hidden = || Statement { opaque: true, ..statement(&[Class::Do, Delete], &["logs"]) };
    check_one(&[rule("r", DENY).on_tables(&["secrets"])], hidden(), "deny r");
    check_one(&[rule("r", DENY).on_classes(&[Delete]).on_missing_where()], hidden(), "deny r");
    check_one(&[rule("r", approve("dba")).on_words(&["dblink"])], hidden(), "approve r");
    check_one(&[rule("r", DENY).on_missing_where()], hidden(), "deny r");
    let created = Statement { opaque: true, ..statement(&[Class::Create], &[]) };
    check_one(&[rule("r", DENY).on_missing_where()], created, "allow -");
    check_one(&[rule("r", DENY).on_classes(&[Drop]).on_tables(&["secrets"])], hidden(), "allow -");
    check_one(&[rule("ok", ALLOW).on_tables(&["logs"]), rule("rest", DENY)], hidden(), "deny rest");
    let reason = view_of(&[rule("r", DENY).on_tables(&["secrets"])], &ann()).decide(&text(&[hidden()], &[])).reason;
    assert_eq!(reason, "delete, which may do more than its text shows, is not allowed");
}

#[test]
fn replication_commands_may_be_named_although_they_are_no_sql() {
    let command = || statement(&[Unparsed, Replication], &[]);
    check_one(&[rule("r", DENY).on_classes(&[Drop])], command(), "deny -");
    check_one(&[rule("backup", ALLOW).on_classes(&[Replication])], command(), "allow backup");
    check_one(&[rule("backup", ALLOW).on_classes(&[Replication])], statement(&[Unparsed], &[]), "deny -");
}

/// The rules of the contract's example and the statements they are about, from their text on.
#[test]
fn statements_as_people_write_them_meet_their_rules() {
    let rules = [
        rule("no-ddl", DENY).on_classes(&[Drop, Truncate, Alter, Class::Grant]),
        rule("bare", DENY).on_classes(&[Delete, Update]).on_missing_where(),
        rule("sleep", DENY).on_words(&["pg_sleep", "dblink"]),
        rule("program", DENY).on_classes(&[Class::CopyProgram]),
        rule("deletes", approve("dba")).on_classes(&[Delete]).on_tables(&["customers", "billing.*"]),
        rule("secrets", DENY).on_tables(&["secrets"]),
        rule("watch", ALERT).on_tables(&["customers"]),
    ];
    let view = view_of(&rules, &ann());
    for (sql, expected) in [
        ("SELECT 1", "allow -"),
        ("", "allow -"),
        ("SELECT * FROM orders", "allow -"),
        ("SELECT * FROM customers", "alert watch"),
        ("SELECT 'drop table customers; pg_sleep'", "allow -"),
        ("/* DROP TABLE x */ SELECT 1 -- pg_sleep", "allow -"),
        ("DROP TABLE customers", "deny no-ddl"),
        ("dRoP/**/taBLe customers", "deny no-ddl"),
        ("SELECT 1; DROP TABLE orders", "deny no-ddl"),
        ("BEGIN; TRUNCATE orders; COMMIT", "deny no-ddl"),
        ("DO $$ BEGIN DROP TABLE orders; END $$", "deny no-ddl"),
        ("DELETE FROM orders", "deny bare"),
        ("DELETE FROM orders WHERE true", "deny bare"),
        ("UPDATE orders SET total = 0 WHERE 1 = 1", "deny bare"),
        ("DELETE FROM orders WHERE id = 7", "allow -"),
        ("DELETE FROM customers WHERE id = 7", "approve deletes"),
        ("DELETE FROM public.customers WHERE id = 7", "approve deletes"),
        ("DELETE FROM billing.invoices WHERE id = 7", "approve deletes"),
        ("EXPLAIN ANALYZE DELETE FROM customers WHERE id = 7", "approve deletes"),
        ("WITH d AS (DELETE FROM customers WHERE id = 7 RETURNING *) SELECT * FROM d", "approve deletes"),
        ("SELECT pg_sleep(10)", "deny sleep"),
        ("SELECT PG_SLEEP(10)", "deny sleep"),
        ("SELECT \"pg_sleep\"(10)", "deny sleep"),
        ("COPY orders TO PROGRAM 'curl evil'", "deny program"),
        ("SELECT * FROM orders o, secrets s", "deny secrets"),
        ("SELECT (SELECT max(x) FROM secrets)", "deny secrets"),
        ("SELECT * FROM other.secrets", "deny secrets"),
        ("SELECT * FROM \"Secrets\"", "allow -"),
        ("SELEC 1", "deny -"),
        ("SELECT 1; SELEC 2", "deny -"),
    ] {
        let decision = view.decide(&analyse(sql.as_bytes(), true));
        let found = format!("{} {}", decision.action.name(), decision.rule.as_deref().unwrap_or("-"));
        assert_eq!(found, expected, "{sql}: {decision:?}");
    }
}

#[test]
fn a_rule_about_a_schema_is_not_gone_around_by_search_path() {
    let rules = [rule("billing", DENY).on_classes(&[Delete]).on_tables(&["billing.*"])];
    let decide = |rules: &[Rule], sql: &str| {
        let decision = view_of(rules, &ann()).decide(&analyse(sql.as_bytes(), true));
        format!("{} {}", decision.action.name(), decision.rule.as_deref().unwrap_or("-"))
    };
    for (sql, expected) in [
        ("DELETE FROM billing.cards WHERE id = 1", "deny billing"),
        ("DELETE FROM cards WHERE id = 1", "allow -"),
        ("DELETE FROM public.cards WHERE id = 1", "allow -"),
        ("SET search_path = billing", "deny billing"),
        ("SET LOCAL search_path TO public, billing", "deny billing"),
        ("SET search_path = 'Billing'", "deny billing"),
        ("SET search_path = '\"billing\"'", "deny billing"),
        ("SELECT set_config('search_path', 'billing', false)", "deny billing"),
        ("SELECT set_config('search_path', $1, false)", "deny billing"),
        ("SELECT set_config($1, $2, false)", "deny billing"),
        ("SELECT set_config('search_path', '', false)", "allow -"),
        ("SET search_path = public", "allow -"),
        ("RESET search_path", "allow -"),
        ("RESET ALL", "allow -"),
        ("DISCARD ALL", "allow -"),
    ] {
        assert_eq!(decide(&rules, sql), expected, "{sql}");
    }
    assert_eq!(decide(&[rule("all", ALLOW), rules[0].clone()], "SET search_path = billing"), "allow all");
    assert_eq!(decide(&[rule("named", DENY).on_tables(&["billing.cards"])], "SET search_path = billing"), "allow -");
}

#[test]
fn a_rule_about_a_table_meets_what_takes_it_along_unnamed() {
    let rules = [
        rule("scratch", ALLOW).on_tables(&["orders", "scratch.*"]),
        rule("keep", DENY)
            .on_classes(&[Drop, Truncate, Alter, Class::Revoke])
            .on_tables(&["public.customers", "billing.*"]),
    ];
    let verdict = |text: &str| {
        let decision = view_of(&rules, &ann()).decide(&analyse(text.as_bytes(), true));
        format!("{} {}", decision.action.name(), decision.rule.as_deref().unwrap_or("-"))
    };
    for (text, expected) in [
        ("DROP SCHEMA public CASCADE", "deny keep"),
        ("DROP SCHEMA billing CASCADE", "deny keep"),
        ("DROP SCHEMA scratch, billing CASCADE", "deny keep"),
        ("DROP SCHEMA other CASCADE", "allow -"),
        ("DROP SCHEMA public", "allow -"),
        ("DROP OWNED BY svc", "deny keep"),
        ("REASSIGN OWNED BY svc TO bob", "deny keep"),
        ("DROP DATABASE shop", "deny keep"),
        ("DROP EXTENSION citext CASCADE", "deny keep"),
        // The rule that allows `orders` says nothing of what refers to it.
        ("TRUNCATE orders", "allow scratch"),
        ("TRUNCATE orders CASCADE", "deny keep"),
        ("REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM bob", "deny keep"),
        ("ALTER SCHEMA billing RENAME TO old", "deny keep"),
        ("DO $$ BEGIN DROP SCHEMA public CASCADE; END $$", "deny keep"),
    ] {
        assert_eq!(verdict(text), expected, "{text}");
    }
}
