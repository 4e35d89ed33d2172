//! Values that come from elsewhere than the file: flags and variables. They are laid over what was parsed of the file, before
//! anything is checked, so they meet every check that the same values meet in the file.
//!
//! ```text
//! text:  0 ............ len | len+1   len+2   ...
//!        spans of the file    one place for each given value: a span tells who is to blame
//! ```

use super::units::show_duration;
use crate::limits::GIVEN_CHARS_MAX;
use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

#[derive(Default, Debug)]
pub struct Given(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    /// `--archive-url`, `LOCKGATE_ARCHIVE_URL`: as reports name it.
    name: String,
    table: &'static str,
    key: &'static str,
    value: Value,
}

/// As the file could say it.
#[derive(Debug)]
pub enum Value {
    /// Its digits.
    Number(String),
    Switch(bool),
    Text(String),
    /// Starts at the working directory, unlike those of the file.
    Path(PathBuf),
    List(Vec<String>),
}

macro_rules! from {
    ($($Type:ty => $make:expr,)*) => {
        $(impl From<$Type> for Value {
            fn from(value: $Type) -> Self {
                $make(value)
            }
        })*
    };
}

from! {
    u32 => |number: u32| Value::Number(number.to_string()),
    u16 => |number: u16| Value::Number(number.to_string()),
    bool => Value::Switch,
    String => Value::Text,
    Duration => |duration| Value::Text(show_duration(duration)),
    SocketAddr => |address: SocketAddr| Value::Text(address.to_string()),
    PathBuf => Value::Path,
    Vec<String> => Value::List,
}

impl Given {
    /// `name` is who gives it, `key` of `[table]` what it is.
    pub fn add(&mut self, name: String, table: &'static str, key: &'static str, value: Value) {
        self.0.push(Entry { name, table, key, value });
    }

    /// `table.key` of each.
    #[cfg(test)]
    pub fn keys(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|entry| format!("{}.{}", entry.table, entry.key))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn over(&self, text: &str) -> Over<'_> {
        Over { given: self, first: text.len() + 1 }
    }
}

/// Given values with their places behind a text.
#[derive(Clone, Copy)]
pub struct Over<'g> {
    given: &'g Given,
    first: usize,
}

impl<'g> Over<'g> {
    /// Each takes the place of the file's own.
    pub fn lay<'i>(&self, file: &mut DeTable<'i>)
    where
        'g: 'i,
    {
        for (at, entry) in self.given.0.iter().enumerate() {
            let span = self.first + at..self.first + at + 1;
            let key = |name| Spanned::new(span.clone(), Cow::Borrowed(name));
            let empty = || Spanned::new(span.clone(), DeValue::Table(DeTable::new()));
            if let DeValue::Table(table) = file.entry(key(entry.table)).or_insert_with(empty).get_mut() {
                table.insert(key(entry.key), Spanned::new(span.clone(), entry.value.toml(&span)));
            }
        }
    }

    /// The value at this place, if it is a given one.
    pub fn value(&self, span: &Range<usize>) -> Option<&'g Value> {
        self.at(span).map(|entry| &entry.value)
    }

    /// Who gave it: a flag, a variable.
    pub fn name(&self, span: &Range<usize>) -> Option<&'g str> {
        self.at(span).map(|entry| &*entry.name)
    }

    fn at(&self, span: &Range<usize>) -> Option<&'g Entry> {
        self.given.0.get(span.start.checked_sub(self.first)?)
    }
}

/// `--shards 2, LOCKGATE_PAYLOADS none`: for the trail.
impl fmt::Display for Over<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Entry { name, value, .. }) in self.given.0.iter().enumerate() {
            let value: String = value.show().chars().take(GIVEN_CHARS_MAX).collect();
            write!(f, "{}{name} {value}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A webhook's address may be all that keeps others from using it: neither the trail nor the log gets more than its host.
pub fn without_secrets(text: &str) -> String {
    let web = ["https://", "http://"].iter().find_map(|scheme| Some((scheme, text.strip_prefix(scheme)?)));
    let Some((scheme, rest)) = web else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    format!("{scheme}{host}{}", if end < rest.len() { "/..." } else { "" })
}

impl Value {
    fn show(&self) -> String {
        match self {
            Value::Number(digits) => digits.clone(),
            Value::Switch(on) => on.to_string(),
            Value::Text(text) => without_secrets(text),
            Value::Path(path) => path.display().to_string(),
            Value::List(list) => list.iter().map(|item| without_secrets(item)).collect::<Vec<_>>().join(","),
        }
    }

    fn toml(&self, span: &Range<usize>) -> DeValue<'_> {
        match self {
            // Its type is made by its own parser alone.
            Value::Number(digits) => DeValue::parse(digits).expect("digits are an integer").into_inner(),
            Value::Switch(on) => DeValue::Boolean(*on),
            Value::Text(text) => DeValue::String(Cow::Borrowed(text)),
            // What is not UTF-8 is taken from the value itself, see `Check::path`.
            Value::Path(path) => DeValue::String(path.to_string_lossy()),
            Value::List(list) => {
                let mut array = DeArray::new();
                for item in list {
                    array.push(Spanned::new(span.clone(), DeValue::String(Cow::Borrowed(item))));
                }
                DeValue::Array(array)
            }
        }
    }
}
