//! The log of the verbs that run on: what goes into it, and how it looks.

use super::WrongUsage;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// `giver`: the flag or variable that the filter came from.
pub(super) fn start(filter: &str, giver: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = parse(filter, giver)?;
    // What cannot be written is lost; to say so in the same place would be a panic in whatever thread it is.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    match format {
        LogFormat::Text => {
            log.with_ansi(std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal()).init()
        }
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

fn parse(text: &str, giver: &str) -> Result<EnvFilter, WrongUsage> {
    let refused = |what: String| {
        let levels =
            "a level (off, error, warn, info, debug, trace), or directives like `info,lockgate::control=debug`";
        WrongUsage(format!("{giver}: {what}; it takes {levels}"))
    };
    let mut words = text.split(',').map(str::trim).filter(|word| !word.is_empty()).peekable();
    if words.peek().is_none() {
        return Err(refused("it is empty".into()));
    }
    if let Some(word) = words.find(|word| is_neither(word)) {
        return Err(refused(format!("`{}` is not a level", word.escape_debug())));
    }
    // What rskafka tells of each connection stands in the sink's status; `--log info,rskafka=debug` shows it all the same.
    let quiet = if cfg!(feature = "kafka") { "rskafka=off," } else { "" };
    EnvFilter::try_new(format!("{quiet}{text}"))
        .map_err(|_| refused(format!("`{}` is not a filter", text.escape_debug())))
}

/// A bare word would be read as the name of a module whose lines alone are wanted: `warning` silenced all others, errors too.
fn is_neither(word: &str) -> bool {
    !word.contains(['=', '[']) && !word.contains("::") && word.parse::<LevelFilter>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of these ran on without a line, whatever happened.
    #[test]
    fn a_word_that_is_no_level_is_refused_by_the_name_of_its_giver() {
        for (text, what) in [
            ("warning", "`warning` is not a level"),
            ("verbose", "`verbose` is not a level"),
            ("information", "`information` is not a level"),
            ("info warn", "`info warn` is not a level"),
            ("lockgate::control=debug,all", "`all` is not a level"),
            ("", "it is empty"),
            (" , ", "it is empty"),
            ("bogus=zzz", "`bogus=zzz` is not a filter"),
        ] {
            let said = parse(text, "LOCKGATE_LOG").unwrap_err().to_string();
            assert!(said.starts_with(&format!("LOCKGATE_LOG: {what}; it takes a level (off, error, warn")), "{said}");
            assert_eq!(said.matches("filter").count(), usize::from(what.contains("filter")), "{said}");
        }
    }

    #[test]
    fn levels_and_directives_are_filters() {
        for text in ["warn", "INFO", "off", "info,", "info,lockgate::control=debug", "lockgate::control", "[span]=info"]
        {
            assert!(parse(text, "--log").is_ok(), "{text}");
        }
    }
}
