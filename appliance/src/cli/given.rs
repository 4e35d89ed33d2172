//! From flags and variables to the keys of the configuration that they win over.

use super::{ServeArgs, WrongUsage, said, variables};
use crate::config::{self, Bounds, Config, ConfigError, Given, Value};
use anyhow::anyhow;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches as _};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

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

impl OnLine {
    /// The flag or variable that gives this option its value.
    pub fn giver(&self, option: &str) -> String {
        match self.0.contains(option) {
            true => format!("--{}", option.replace('_', "-")),
            false => format!("LOCKGATE_{}", option.to_uppercase()),
        }
    }
}

/// The configuration that a gateway would have that is started from here: variables are laid over the file, as `serve` does it.
/// A file that is refused is a [`ConfigError`].
pub(super) fn load(file: &Path) -> anyhow::Result<Config> {
    let command = ServeArgs::augment_args(Command::new("serve"));
    let matches = variables::parse(command, &["serve".into()]).map_err(|error| WrongUsage(said(&error)))?;
    Ok(config::load_with(file, &ServeArgs::from_arg_matches(&matches)?.given())?)
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
        self.given.add(self.line.giver(&option(table, key)), table, key, value.into());
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

/// Options of this verb that are numbers or durations tell their range, as the file has it.
pub(super) fn tell_ranges(verb: Command) -> Command {
    let schema = config::schema();
    let mut ranges = Vec::new();
    for (table, definition) in [("server", "Server"), ("audit", "Audit")] {
        for (key, value) in schema["$defs"][definition]["properties"].as_object().into_iter().flatten() {
            if let (Some(min), Some(max)) = (value["minimum"].as_i64(), value["maximum"].as_i64()) {
                ranges.push((option(table, key), format!("From {min} to {max}")));
            }
        }
    }
    ranges.extend(config::DURATIONS.iter().map(|(key, bounds)| ((*key).to_owned(), range(*bounds))));
    verb.mut_args(|argument: Arg| {
        let range = ranges.iter().find(|(option, _)| argument.get_id() == option.as_str());
        // Clap takes the full stop off the end of a help text.
        match (range, argument.get_help().map(ToString::to_string)) {
            // A negative one is told the range as well, instead of being taken for an option.
            (Some((_, range)), Some(help)) => argument.help(format!("{help}. {range}")).allow_negative_numbers(true),
            _ => argument,
        }
    })
}

fn range((min, max): Bounds) -> String {
    let min = config::show_duration(min);
    if max == Duration::MAX {
        format!("At least {min}")
    } else {
        format!("From {min} to {}", config::show_duration(max))
    }
}

/// For flags: as the file's addresses are read, with the same words.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    config::parse_socket(text).map_err(|(what, right)| format!("{what}: {right}"))
}
