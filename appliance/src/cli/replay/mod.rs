//! `lockgate audit replay`: a recorded session, played.

mod cast;
mod player;
mod screen;
mod script;
mod session;
pub mod table;

use super::audit::{Trail, answered, print::coloured, readable, report};
use super::out::written;
use super::{ANSWER_NO, DONE, USAGE};
use crate::audit::printable::json_safe;
use crate::audit::search::{Trouble, parse_id, show};
use crate::config::parse_duration;
use anyhow::{Context as _, Result};
use script::{Event, Ink};
use session::{Found, From};
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
#[command(
    after_help = "Sessions are named as in `audit search` and `sessions ls`; a beginning that fits one alone will do, and so will any record of theirs.

In a terminal: space pauses, left and right go from statement to statement, + and - change the speed, q quits. Elsewhere \
everything is printed at once, or at its pace where --speed is given. Exit status 3 where a part of the trail could not be read.

EXAMPLES
  lockgate audit replay 6b4e8c35b2a1f000
  lockgate audit replay 6b4e --speed 4 --from 12
  lockgate audit replay 0-345                           (the session that this record belongs to)
  lockgate audit replay 6b4e --export session.cast      (asciinema play session.cast)
  lockgate audit replay 6b4e -o json | jq -r 'select(.event == \"statement\").statement'"
)]
pub struct ReplayArgs {
    /// The session's id, its beginning, or the id of one of its records
    session: String,
    /// So many times as fast
    #[arg(long, value_parser = parse_speed)]
    speed: Option<f64>,
    /// Longer pauses are shortened to this
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    max_pause: Duration,
    /// Begin at this statement (12: the twelfth, 0-345: its record) or at the first one from this time on
    #[arg(long, value_name = "TIME|STATEMENT", value_parser = From::parse)]
    from: Option<From>,
    /// Write an asciicast v2 file instead of playing; `-`: to standard output
    #[arg(long, value_name = "FILE.cast")]
    export: Option<PathBuf>,
    /// json: the events, one object a line
    #[arg(short, long, value_enum, default_value_t = super::Output::Text, conflicts_with = "export")]
    output: super::Output,
    #[command(flatten)]
    trail: Trail,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.trim_end_matches(['x', 'X']).parse().map_err(|_| format!("`{text}` is not a number"))?;
    let bounds = player::SPEED_MIN..=player::SPEED_MAX;
    if bounds.contains(&speed) { Ok(speed) } else { Err(format!("from {} to {}", bounds.start(), bounds.end())) }
}

pub fn run(args: ReplayArgs) -> Result<ExitCode> {
    let data_dir = args.trail.recorded()?;
    let mut damages = 0;
    let mut damaged = |damage: Trouble| {
        damages += 1;
        report(&damage);
    };
    let wanted = match parse_id(&args.session) {
        Some(_) => session_of(&data_dir, &args.session, &mut damaged)?,
        None => args.session.clone(),
    };
    let found = session::find(&data_dir, &wanted, &mut damaged)?;
    let session = match found {
        Found::One(session) => session,
        Found::No(why) => {
            note!("lockgate: {why}");
            return Ok(if damages == 0 { ExitCode::from(ANSWER_NO) } else { answered(damages) });
        }
    };
    let ink = Ink { coloured: args.export.is_some() || coloured() };
    let events = script::events(&session, ink);
    let first = match &args.from {
        None => 0,
        Some(from) => match place(&data_dir, &session, from)?.and_then(|turn| start_of(&events, turn)) {
            Some(first) => first,
            None => {
                note!(
                    "lockgate: --from names none of the session's {} statements, and no time before the last",
                    session.turns.len()
                );
                return Ok(ExitCode::from(USAGE));
            }
        },
    };
    play(&args, &session.id, &events, first)?;
    Ok(answered(damages))
}

/// The session that a record belongs to; where there is none, the text itself, which names no session either.
fn session_of(data_dir: &Path, id: &str, damaged: &mut dyn FnMut(Trouble)) -> Result<String> {
    let record = readable(show(data_dir, id, damaged))?;
    let session = record.map(|record| record.session).filter(|session| !session.is_empty());
    Ok(session.unwrap_or_else(|| id.to_owned()))
}

/// The statement that `--from` names, counted from 0; an id may be that of an outcome or a ruling.
fn place(data_dir: &Path, session: &session::Session, from: &From) -> Result<Option<usize>> {
    let place = session.place(from);
    let (From::Id(id), None) = (from, place) else { return Ok(place) };
    let whole = readable(show(data_dir, id, &mut |_| {}))?;
    let ticket = |record: &crate::audit::search::Record| record.ticket.clone().filter(|_| record.kind == "ruling");
    Ok(whole.and_then(|record| match ticket(&record) {
        Some(ticket) => session.turns.iter().position(|turn| turn.statement.ticket.as_ref() == Some(&ticket)),
        None => session.place(&From::Id(record.id)),
    }))
}

/// From that event on, in the way that was asked for.
fn play(args: &ReplayArgs, id: &str, events: &[Event], first: usize) -> Result<ExitCode> {
    if args.output == super::Output::Json {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for event in &events[first..] {
            written(writeln!(out, "{}", json_safe(&event.json.to_string())))?;
        }
        written(out.flush())?;
        return Ok(ExitCode::from(DONE));
    }
    // What is skipped takes no time.
    let offsets = script::offsets(&events[first..], args.max_pause);
    if let Some(file) = &args.export {
        export(file, id, &events[first..], &offsets, args.speed.unwrap_or(1.0))?;
    } else if io::stdin().is_terminal() && io::stdout().is_terminal() {
        let behind: Vec<Duration> = std::iter::repeat_n(Duration::ZERO, first).chain(offsets).collect();
        player::play(events, &behind, first, args.speed.unwrap_or(1.0))?;
    } else {
        stream(&events[first..], &offsets, args.speed)?;
    }
    Ok(ExitCode::from(DONE))
}

fn start_of(events: &[Event], turn: usize) -> Option<usize> {
    events.iter().position(|event| event.starts_turn && event.turn == Some(turn))
}

/// Prints it, at its pace where somebody asked for one.
fn stream(events: &[Event], offsets: &[Duration], speed: Option<f64>) -> Result<()> {
    let began = std::time::Instant::now();
    for (event, offset) in events.iter().zip(offsets) {
        if let Some(speed) = speed {
            std::thread::sleep(offset.div_f64(speed).saturating_sub(began.elapsed()));
        }
        let mut out = io::stdout().lock();
        written(out.write_all(event.text.as_bytes()).and_then(|()| out.flush()))?;
    }
    Ok(())
}

fn export(file: &Path, id: &str, events: &[Event], offsets: &[Duration], speed: f64) -> Result<()> {
    let title = format!("lockgate session {id}");
    if file == Path::new("-") {
        return written(cast::write(&mut io::stdout().lock(), &title, events, offsets, speed));
    }
    let create =
        || -> io::Result<()> { cast::write(&mut io::BufWriter::new(private(file)?), &title, events, offsets, speed) };
    create().with_context(|| format!("{} cannot be written", file.display()))?;
    note!("{} events written to {}", events.len(), file.display());
    Ok(())
}

/// Results of somebody's session: for whoever exported them alone, also where a file of that name was there for all.
fn private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.is_file() {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.set_len(0)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_export_is_its_owners_alone_also_over_a_file_that_was_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("session.cast");
        std::fs::write(&path, "what was there").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        private(&path).expect("opens");
        let metadata = path.metadata().expect("there");
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, 0));
    }
}
