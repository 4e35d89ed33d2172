//! Environment variables that stand for flags. One that is empty was not given, and what is wrong with one is told by its own name.

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};
use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Compose files and unit files have `LOCKGATE_SHARDS=${SHARDS:-}`: nothing in it is nothing given.
pub(super) fn parse(command: Command, arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let given = without(command.clone(), |name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
    match given.try_get_matches_from(arguments) {
        Ok(matches) => Ok(matches),
        // Drawn again: it shows the variables of every flag.
        Err(error) if super::is_answer(error.kind()) => command.try_get_matches_from(arguments),
        Err(error) => Err(blame(error, &command, arguments)),
    }
}

/// Clap says of a variable's value what it says of the flag's. A line that is right by itself is not to blame.
fn blame(mut error: clap::Error, command: &Command, arguments: &[OsString]) -> clap::Error {
    if without(command.clone(), |_| true).try_get_matches_from(arguments).is_err() {
        return error;
    }
    let set = set_of(command, arguments);
    if error.kind() == ErrorKind::InvalidUtf8 {
        let odd = |(argument, name): &&(&Arg, &OsStr)| {
            std::env::var_os(name).is_some_and(|value| value.to_str().is_none())
                && argument.get_value_parser().type_id() != TypeId::of::<PathBuf>()
        };
        let name = set.iter().find(odd).map_or("a variable".into(), |(_, name)| name.to_string_lossy());
        return clap::Error::raw(ErrorKind::InvalidUtf8, format!("the value of {name} is not UTF-8"));
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    // `--pin [<BOOL>]`
    let long = flag.split([' ', '=']).next().and_then(|flag| flag.strip_prefix("--"));
    let name = set.iter().find(|(argument, _)| argument.get_long() == long).map(|(_, name)| name.to_string_lossy());
    if let Some(name) = name {
        error.insert(ContextKind::InvalidArg, ContextValue::String(name.into_owned()));
    }
    error
}

/// Arguments of the verb, and of those above it, whose variables are set.
fn set_of<'c>(command: &'c Command, arguments: &[OsString]) -> Vec<(&'c Arg, &'c OsStr)> {
    let (mut at, mut set) = (command, Vec::new());
    let mut take = |of: &'c Command| {
        let named = of.get_arguments().filter_map(|argument| Some((argument, argument.get_env()?)));
        set.extend(named.filter(|(_, name)| std::env::var_os(name).is_some_and(|value| !value.is_empty())));
    };
    take(at);
    for word in arguments.iter().skip(1) {
        if let Some(verb) = word.to_str().and_then(|word| at.find_subcommand(word)) {
            at = verb;
            take(at);
        }
    }
    set
}

fn without(command: Command, which: fn(&OsStr) -> bool) -> Command {
    let command = command.mut_args(|argument| match argument.get_env() {
        Some(name) if which(name) => argument.env(Resettable::Reset),
        Some(_) | None => argument,
    });
    command.mut_subcommands(|verb| without(verb, which))
}
