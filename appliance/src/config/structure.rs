//! Holds the parsed file against the schema: unknown keys, missing keys, wrong types, values out of range. All at once,
//! where a deserializer stops at the first.

use super::report::{Problem, Severity};
use super::suggest::nearest;
use super::units::DURATION_PATTERN;
use serde_json::Value as Json;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reports what does not fit, and takes unknown keys out so that the rest can be looked at. `false`: the table cannot be
/// deserialized.
pub fn check(table: &mut DeTable<'_>, schema: &Json, problems: &mut Vec<Problem>) -> bool {
    let mut check = Structure { schema, problems, sound: true };
    check.table(table, schema, &Place { name: "a configuration".into(), span: 0..0 });
    check.sound
}

/// What a table is called, and where it begins.
struct Place {
    name: String,
    span: Range<usize>,
}

struct Structure<'a> {
    schema: &'a Json,
    problems: &'a mut Vec<Problem>,
    sound: bool,
}

impl<'a> Structure<'a> {
    fn table(&mut self, table: &mut DeTable<'_>, schema: &'a Json, place: &Place) {
        let schema = self.resolve(schema);
        let known = properties(schema);
        let unknown = table.keys().filter(|key| !known.iter().any(|(name, _)| *name == key.get_ref()));
        for key in unknown.cloned().collect::<Vec<_>>() {
            self.unknown(key.get_ref(), key.span(), &known, place);
            table.remove(key.get_ref().as_ref());
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if !table.contains_key(name) {
                self.missing(name, self.resolve(&schema["properties"][name]), place);
            }
        }
        for (key, value) in table.iter_mut() {
            if let Some((_, schema)) = known.iter().find(|(name, _)| *name == key.get_ref()) {
                self.value(key.get_ref(), value, schema, place);
            }
        }
    }

    fn value(&mut self, key: &str, value: &mut Spanned<DeValue<'_>>, schema: &'a Json, place: &Place) {
        let schema = self.resolve(schema);
        let span = value.span();
        let wanted = schema["type"].as_str().unwrap_or("string");
        match (wanted, value.get_mut()) {
            ("object", DeValue::Table(table)) => self.table(table, schema, &inner(key, place, span, false)),
            ("array", DeValue::Array(items)) => {
                for item in items.iter_mut() {
                    let item_span = item.span();
                    match item.get_mut() {
                        DeValue::Table(table) if self.resolve(&schema["items"])["type"] == "object" => {
                            self.table(table, &schema["items"], &inner(key, place, item_span, true))
                        }
                        _ => self.value(key, item, &schema["items"], place),
                    }
                }
            }
            ("string", DeValue::String(text)) => self.choice(key, text, span, schema),
            ("integer", DeValue::Integer(number)) => {
                let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
                self.range(key, number, span, schema)
            }
            ("boolean", DeValue::Boolean(_)) => {}
            (_, found) => {
                let what =
                    format!("`{key}` of {} is {}, not {}", place.name, an(found.type_str()), an(toml_name(wanted)));
                let right = self.right_form(key, found, schema, place);
                self.broken(span, what, right)
            }
        }
    }

    /// One of a closed set of names.
    fn choice(&mut self, key: &str, given: &str, span: Range<usize>, schema: &Json) {
        let known = choices(schema);
        if known.is_empty() || known.contains(&given) {
            return;
        }
        let right = match (not_offered(given, key), nearest(given, known.iter().copied())) {
            (Some(reason), _) => reason.to_owned(),
            (None, Some(name)) => format!("did you mean \"{name}\"?"),
            (None, None) => format!("one of: {}", known.join(", ")),
        };
        self.broken(span, format!("`{key}` cannot be \"{}\"", given.escape_debug()), Some(right));
    }

    fn range(&mut self, key: &str, number: Option<i64>, span: Range<usize>, schema: &Json) {
        let (min, max) =
            (schema["minimum"].as_i64().unwrap_or(i64::MIN), schema["maximum"].as_i64().unwrap_or(i64::MAX));
        if !number.is_some_and(|number| (min..=max).contains(&number)) {
            self.broken(span, format!("`{key}` is out of range"), Some(format!("from {min} to {max}")));
        }
    }

    fn unknown(&mut self, key: &str, span: Range<usize>, known: &[(&str, &Json)], place: &Place) {
        let what = format!("unknown key `{}` in {}", key.escape_debug(), place.name);
        let elsewhere = || self.home_of(key).map(|home| format!("`{key}` belongs in {home}"));
        let right = match key {
            "password" | "secret" => {
                Some("secrets do not belong in this file: password_env, password_file or credential".into())
            }
            _ => nearest(key, known.iter().map(|(name, _)| *name))
                .map(|name| format!("did you mean `{name}`?"))
                .or_else(elsewhere)
                .or_else(|| {
                    Some(format!("known here: {}", known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")))
                }),
        };
        self.problems.push(Problem { severity: Severity::Error, span: Some(span), what, right });
    }

    fn missing(&mut self, name: &str, schema: &Json, place: &Place) {
        let example = match &schema["examples"][0] {
            Json::Null if name == "algorithms" => "[\"RS256\"]".to_owned(),
            Json::Null if schema["type"] == "array" => "[\"...\"]".to_owned(),
            Json::Null => "\"...\"".to_owned(),
            example => example.to_string(),
        };
        self.broken(
            place.span.clone(),
            format!("{} needs `{name}`", place.name),
            Some(format!("add `{name} = {example}`")),
        );
    }

    /// The first table that has this key.
    fn home_of(&self, key: &str) -> Option<String> {
        properties(self.schema).into_iter().find_map(|(table, schema)| {
            let repeated = self.resolve(schema)["type"] == "array";
            let schema = if repeated { &self.resolve(schema)["items"] } else { schema };
            let has = self.resolve(schema)["properties"].get(key).is_some();
            has.then(|| if repeated { format!("[[{table}]]") } else { format!("[{table}]") })
        })
    }

    /// What would be right instead of a value of another type.
    fn right_form(&self, key: &str, found: &DeValue<'_>, schema: &Json, place: &Place) -> Option<String> {
        let items = self.resolve(&schema["items"]);
        Some(match (schema["type"].as_str()?, found) {
            ("array", DeValue::Table(_)) if items["type"] == "object" => {
                format!("write `[[{key}]]`, with two brackets: there may be several")
            }
            ("object", DeValue::Array(_)) if place.span.is_empty() => {
                format!("write `[{key}]`, with one bracket: there is only one")
            }
            ("array", DeValue::String(text)) => format!("write `{key} = [\"{}\"]`", text.escape_debug()),
            ("string", DeValue::Integer(number)) if schema["pattern"] == DURATION_PATTERN => {
                format!("give it a unit: `{key} = \"{}s\"`", number.as_str())
            }
            ("string", DeValue::Integer(number)) => format!("put it in quotes: `{key} = \"{}\"`", number.as_str()),
            ("integer", DeValue::String(text)) if text.parse::<i64>().is_ok() => {
                format!("without quotes: `{key} = {text}`")
            }
            ("boolean", DeValue::String(text)) if text == "true" || text == "false" => {
                format!("without quotes: `{key} = {text}`")
            }
            ("boolean", _) => "true or false".into(),
            ("object", _) => format!(
                "write `{key} = {{ ... }}` with: {}",
                properties(schema).iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            ),
            _ => return None,
        })
    }

    /// Follows references and looks through the wrapper of a described one.
    fn resolve(&self, mut schema: &'a Json) -> &'a Json {
        while let Some(path) = schema["$ref"].as_str() {
            schema = self.schema.pointer(path.trim_start_matches('#')).expect("the schema defines what it refers to");
        }
        schema
    }

    fn broken(&mut self, span: Range<usize>, what: String, right: Option<String>) {
        self.sound = false;
        self.problems.push(Problem { severity: Severity::Error, span: Some(span), what, right });
    }
}

fn inner(key: &str, outer: &Place, span: Range<usize>, repeated: bool) -> Place {
    let name = match (outer.span.is_empty(), repeated) {
        (true, true) => format!("[[{key}]]"),
        (true, false) => format!("[{key}]"),
        (false, _) => format!("`{key}` of {}", outer.name),
    };
    // The root alone has an empty span: an empty table of its own still has its brackets.
    Place { name, span: span.start..span.end.max(span.start + 1) }
}

fn properties(schema: &Json) -> Vec<(&str, &Json)> {
    schema["properties"].as_object().into_iter().flatten().map(|(name, schema)| (name.as_str(), schema)).collect()
}

/// The names a string may be, if they are a closed set.
fn choices(schema: &Json) -> Vec<&str> {
    let constants = schema["oneOf"].as_array().into_iter().flatten().map(|variant| &variant["const"]);
    schema["enum"].as_array().into_iter().flatten().chain(constants).filter_map(Json::as_str).collect()
}

/// Names that people try for good reasons and that are not offered for better ones.
fn not_offered(name: &str, key: &str) -> Option<&'static str> {
    match (key, name) {
        ("algorithms", "HS256" | "HS384" | "HS512") => {
            Some("symmetric algorithms are not offered: whoever can check such a token can also issue it")
        }
        ("algorithms", "none") => Some("unsigned tokens are not offered"),
        ("on_full", "drop") => Some("records are never dropped: statements wait"),
        ("protocol", "mysql" | "http" | "ssh" | "redis" | "mongodb" | "mssql") => {
            Some("not in this version; \"postgres\" is")
        }
        _ => None,
    }
}

fn toml_name(json: &str) -> &str {
    match json {
        "object" => "table",
        other => other,
    }
}

fn an(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}
