//! From flags and variables to the keys of the configuration that they win over.

use super::WrongUsage;
use crate::config::{self, ConfigError, Given, Value};
use anyhow::anyhow;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use std::collections::HashSet;
use std::path::Path;

/// Which options stand on the command line itself: the others that have a value have it from their variable. Flattened into the
/// options of a verb, as the first of its fields: those behind it take their values out.
#[derive(Default, Clone, Debug)]
pub struct OnLine(HashSet<String>);

impl clap::FromArgMatches for OnLine {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let on_line = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
        Ok(Self(matches.ids().filter(on_line).map(ToString::to_string).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for OnLine {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

/// Collects what is given.
pub(super) struct Collect<'a> {
    line: &'a OnLine,
    given: Given,
}

impl<'a> Collect<'a> {
    pub fn new(line: &'a OnLine) -> Self {
        Self { line, given: Given::default() }
    }

    /// The option that belongs to this key, if it has a value.
    pub fn add(&mut self, table: &'static str, key: &'static str, value: Option<impl Into<Value>>) {
        let Some(value) = value else { return };
        let option = option(table, key);
        let name = match self.line.0.contains(&option) {
            true => format!("--{}", option.replace('_', "-")),
            false => format!("LOCKGATE_{}", option.to_uppercase()),
        };
        self.given.add(name, table, key, value.into());
    }

    pub fn done(self) -> Given {
        self.given
    }

    /// One out of a closed set.
    pub fn choice(&mut self, table: &'static str, key: &'static str, value: Option<impl clap::ValueEnum>) {
        self.add(table, key, value.and_then(|value| Some(value.to_possible_value()?.get_name().to_owned())));
    }
}

fn option(table: &str, key: &str) -> String {
    if key == "address" { format!("{table}_address") } else { key.to_owned() }
}

/// What a configuration that is refused means to somebody at a command line.
pub(super) fn refused(error: ConfigError, file: &Path) -> anyhow::Error {
    if error.by_given {
        let what = "flags or variables do not go with the configuration";
        return WrongUsage(format!("{what}\n\n{error}\n\ncorrect them, or {}", file.display())).into();
    }
    anyhow!("the configuration is not valid\n\n{error}\n\ncorrect {}", file.display())
}

/// Options of this verb that are numbers tell their range, as the file's schema has it.
pub(super) fn tell_ranges(verb: Command) -> Command {
    let schema = config::schema();
    let mut ranges = Vec::new();
    for (table, definition) in [("server", "Server"), ("audit", "Audit")] {
        for (key, value) in schema["$defs"][definition]["properties"].as_object().into_iter().flatten() {
            if let (Some(min), Some(max)) = (value["minimum"].as_i64(), value["maximum"].as_i64()) {
                ranges.push((option(table, key), min, max));
            }
        }
    }
    verb.mut_args(|argument: Arg| {
        let range = ranges.iter().find(|(option, ..)| argument.get_id() == option.as_str());
        // Clap takes the full stop off the end of a help text.
        match (range, argument.get_help().map(ToString::to_string)) {
            (Some((_, min, max)), Some(help)) => argument.help(format!("{help}. From {min} to {max}")),
            _ => argument,
        }
    })
}
