//! `lockgate audit replay`: a recorded session, played.

mod cast;
mod player;
mod screen;
mod script;
mod session;
pub mod table;

use super::audit::{Trail, print::coloured, report};
use super::{ANSWER_NO, DONE, USAGE};
use crate::audit::printable::json_safe;
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
    after_help = "Sessions are named as in `audit search` and `sessions ls`; a beginning that fits one alone will do.
In a terminal: space pauses, left and right go from statement to statement, + and - change the speed, q quits. Elsewhere
everything is printed at once, or at its pace where --speed is given.

EXAMPLES
  lockgate audit replay 6b4e8c35b2a1f000
  lockgate audit replay 6b4e --speed 4 --from 12
  lockgate audit replay 6b4e --export session.cast      (asciinema play session.cast)
  lockgate audit replay 6b4e -o json | jq -r 'select(.event == \"statement\").statement'"
)]
pub struct ReplayArgs {
    /// The session's id, or its beginning
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
    let session = match session::find(&data_dir, &args.session, &mut |damage| report(&damage))? {
        Found::One(session) => session,
        Found::No(why) => {
            note!("lockgate: {why}");
            return Ok(ExitCode::from(ANSWER_NO));
        }
    };
    let ink = Ink { coloured: args.export.is_some() || coloured() };
    let events = script::events(&session, ink);
    let first = match &args.from {
        None => 0,
        Some(from) => match session.place(from).and_then(|turn| start_of(&events, turn)) {
            Some(first) => first,
            None => {
                note!("lockgate: --from is behind the last of the session's {} statements", session.turns.len());
                return Ok(ExitCode::from(USAGE));
            }
        },
    };
    if args.output == super::Output::Json {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for event in &events[first..] {
            writeln!(out, "{}", json_safe(&event.json.to_string()))?;
        }
        out.flush()?;
        return Ok(ExitCode::from(DONE));
    }
    // What is skipped takes no time.
    let offsets = script::offsets(&events[first..], args.max_pause);
    if let Some(file) = &args.export {
        export(file, &session.id, &events[first..], &offsets, args.speed.unwrap_or(1.0))?;
    } else if io::stdin().is_terminal() && io::stdout().is_terminal() {
        let behind: Vec<Duration> = std::iter::repeat_n(Duration::ZERO, first).chain(offsets).collect();
        player::play(&events, &behind, first, args.speed.unwrap_or(1.0))?;
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
        out.write_all(event.text.as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

fn export(file: &Path, id: &str, events: &[Event], offsets: &[Duration], speed: f64) -> Result<()> {
    let title = format!("lockgate session {id}");
    if file == Path::new("-") {
        return Ok(cast::write(&mut io::stdout().lock(), &title, events, offsets, speed)?);
    }
    let create = || -> io::Result<()> {
        // Results of somebody's session: for whoever exported them alone.
        use std::os::unix::fs::OpenOptionsExt as _;
        let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(file)?;
        cast::write(&mut io::BufWriter::new(opened), &title, events, offsets, speed)
    };
    create().with_context(|| format!("{} cannot be written", file.display()))?;
    note!("{} events written to {}", events.len(), file.display());
    Ok(())
}
