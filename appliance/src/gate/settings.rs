//! What a start-up message sets, as parameters of its own or in `options`: judged as the SET that it is, and told in the trail.

use crate::policy::{Action, Decision, View};
use masking::sql::{self, Analysis};

/// Drivers send these unasked.
const USUAL: [&str; 6] =
    ["application_name", "client_encoding", "datestyle", "extra_float_digits", "intervalstyle", "timezone"];

/// In the order of the message, names in lower case.
#[derive(Debug, Default)]
pub(super) struct Settings {
    given: Vec<(String, String)>,
    /// A word of `options` that is neither `-c name=value` nor `--name=value`: the server may read several flags in it.
    odd: Option<String>,
}

impl Settings {
    /// What is no name for the server itself is a setting (manual, "StartupMessage").
    pub fn of(parameters: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut settings = Self::default();
        for (name, value) in parameters {
            let value = String::from_utf8_lossy(value);
            match name.as_slice() {
                b"replication" => {}
                b"options" => settings.read_options(&value),
                name => settings.given.push((String::from_utf8_lossy(name).to_lowercase(), value.into_owned())),
            }
        }
        settings
    }

    /// As the server's own command line (`postgres.c`, process_postgres_switches): `-` in a name stands for `_`.
    fn read_options(&mut self, options: &str) {
        let mut words = words(options).into_iter();
        while let Some(word) = words.next() {
            let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
                Some("") if word == "-c" => words.next(),
                Some(setting) => Some(setting.to_owned()),
                None => None,
            };
            match setting.as_deref().and_then(|setting| setting.split_once('=')) {
                Some((name, value)) => self.given.push((name.replace('-', "_").to_lowercase(), value.to_owned())),
                None => self.odd = Some(word),
            }
        }
    }

    /// The setting that a rule keeps this session from, and why. A ruling can only be asked for a statement.
    pub fn refused(&self, view: &View) -> Option<(&str, Decision)> {
        if !view.has_rules {
            return None;
        }
        if let Some(odd) = &self.odd {
            let reason =
                "rules apply to this session, so `options` may hold \"-c name=value\" and \"--name=value\" only";
            return Some((odd, Decision::deny_unruled(reason)));
        }
        self.unusual().find_map(|(name, value)| {
            let decision = view.decide(&as_set(name, value));
            let refused = matches!(decision.action, Action::Deny | Action::Approve);
            refused.then_some((name, Decision { action: Action::Deny, approval: None, ..decision }))
        })
    }

    fn unusual(&self) -> impl Iterator<Item = (&str, &str)> {
        let given = self.given.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        given.filter(|(name, _)| !USUAL.contains(name))
    }

    /// For the trail: `name=value`, without those that drivers send unasked.
    pub fn told(&self) -> String {
        let each = self.unusual().map(|(name, value)| format!("{name}={value}"));
        each.chain(self.odd.clone()).collect::<Vec<_>>().join(", ")
    }
}

/// The SET that does the same. Its value is taken as it stands: of a list, all of it.
fn as_set(name: &str, value: &str) -> Analysis {
    let name = name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect::<Vec<_>>();
    let text = format!("SET {} TO '{}'", name.join("."), value.replace('\'', "''"));
    let mut analysis = sql::analyse(text.as_bytes(), true);
    for (_, set) in analysis.statements.iter_mut().flat_map(|statement| &mut statement.settings) {
        *set = Some(value.to_owned());
    }
    analysis
}

/// Split at white space as C's `isspace` has it; a backslash keeps the character behind it (`postinit.c`, pg_split_opts).
fn words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r' => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::identity::Principal;
    use crate::policy::Policy;
    use std::path::Path;

    fn of(name: &str, value: &str) -> Settings {
        Settings::of(&[(name.as_bytes().to_vec(), value.as_bytes().to_vec())])
    }

    #[test]
    fn settings_are_found_in_every_spelling_of_the_start_up_message() {
        for (name, value, told) in [
            ("search_path", "billing", "search_path=billing"),
            ("Search_Path", "billing", "search_path=billing"),
            ("options", "-c search_path=billing,public", "search_path=billing,public"),
            ("options", "-csearch_path=billing -c work_mem=1MB", "search_path=billing, work_mem=1MB"),
            ("options", "--search-path=billing\\ x", "search_path=billing x"),
            ("options", "-c\x0bSEARCH_PATH=a\x0c--search_path=b", "search_path=a, search_path=b"),
            ("options", "-c role=billing --session-authorization=x", "role=billing, session_authorization=x"),
            ("options", "-c application_name=x -c TimeZone=UTC", ""),
            ("application_name", "search_path", ""),
            ("replication", "database", ""),
        ] {
            let settings = of(name, value);
            assert_eq!((settings.told().as_str(), &settings.odd), (told, &None), "{name} {value:?}");
        }
    }

    #[test]
    fn words_that_the_server_reads_flags_in_are_odd() {
        for options in ["-ecsearch_path=x", "-E-search-path=x", "-e -c a=b", "x", "-c", "-c a", "--", "--a", "-"] {
            assert!(of("options", options).odd.is_some(), "{options}");
        }
    }

    fn refused(rule: &str, name: &str, value: &str) -> Option<String> {
        let text = format!(
            r#"
            listener = [{{ protocol = "postgres", address = "127.0.0.1:6432" }}]
            issuer = [{{ name = "i", issuer = "https://i", audience = "a", algorithms = ["ES256"], jwks_file = "k" }}]
            target = [{{ name = "shop", protocol = "postgres", address = "127.0.0.1:5432", database = "d", user = "u", password_env = "P", tls = "disable" }}]
            grant = [{{ targets = ["shop"] }}]
            rule = [{{ name = "r", {rule} }}]
            "#
        );
        let policy = Policy::compile(&config::parse(&text, Path::new("test.toml")).expect("a configuration"));
        let ann = Principal {
            user: "ann".into(),
            subject: "ann".into(),
            issuer: "i".into(),
            groups: Vec::new(),
            actor: Vec::new(),
        };
        let view = policy.view("shop", &ann).expect("a grant");
        of(name, value).refused(&view).map(|(setting, decision)| {
            assert_eq!(decision.action, Action::Deny);
            format!("{setting}: {}", decision.refusal().message)
        })
    }

    #[test]
    fn a_setting_is_refused_as_the_set_that_it_is() {
        let set = "classes = [\"set\"], action = \"deny\"";
        assert_eq!(refused(set, "options", "-c role=boss").as_deref(), Some("role: set is not allowed"));
        assert_eq!(refused(set, "jit", "off").as_deref(), Some("jit: set is not allowed"));
        assert!(refused(set, "TimeZone", "UTC").is_none() && refused(set, "replication", "true").is_none());
        let approve = "classes = [\"set\"], action = \"approve\", approvers = [\"leads\"]";
        assert_eq!(refused(approve, "my.key", "x").as_deref(), Some("my.key: set needs approval"));
        let billing = "tables = [\"billing.*\"], action = \"deny\"";
        for (name, value) in
            [("search_path", "public, billing"), ("options", "-c search_path=\"billing\""), ("role", "billing")]
        {
            assert!(refused(billing, name, value).is_some_and(|why| why.contains("search_path")), "{name} {value}");
        }
        assert!(refused(billing, "search_path", "public").is_none() && refused(billing, "role", "x").is_none());
        assert!(refused(billing, "options", "-ecsearch_path=billing").is_some_and(|why| why.contains("`options`")));
        assert!(refused(billing, "a..b", "x").is_some(), "no name of a setting");
    }
}
