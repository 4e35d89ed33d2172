//! `data_dir/tickets.ndjson`: what a restart has to know about tickets. One JSON object a line, appended as it happens, and written anew
//! when it has grown.

use super::board::{Board, Case, Note};
use super::limits::{TICKET_FILE_BYTES, TICKET_FILE_RETRY_BYTES, TICKET_KEPT_TEXT_BYTES_MAX, TICKETS_ENDED_KEPT};
use crate::approval::{Ticket, TicketId};
use crate::files;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

const NAME: &str = "tickets.ndjson";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Asked(Box<Ticket>),
    #[serde(untagged)]
    Noted(Note),
}

/// The file, open for appending.
pub struct TicketFile {
    path: PathBuf,
    file: File,
    /// Of whole lines.
    bytes: u64,
    /// Something behind the whole lines could not be cut off yet.
    torn: bool,
    /// Beyond so many bytes it is written anew.
    rewrite_beyond: u64,
}

impl TicketFile {
    /// Reads what an earlier run left, writes it anew (ended tickets only) and goes on behind it. Without room for that (a full disk) it
    /// goes on with the file as it is: what it says of ended tickets is history, and what waited is expired either way.
    /// A line that cannot be read is left out: at worst a ticket is unknown, and an unknown ticket approves nothing.
    pub fn open(data_dir: &Path, now_us: i64) -> io::Result<(Self, Board)> {
        let path = data_dir.join(NAME);
        let mut found = Found::default();
        match files::open(&path) {
            Ok(file) => found.read(BufReader::new(file))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let bytes = found.bytes;
        let board = Board::restore(found.cases(), now_us);
        match written_anew(&path, &board) {
            Ok((file, bytes)) => Ok((Self::of(path, file, bytes), board)),
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "the ticket file cannot be written anew: going on with the old one");
                let file = files::open_to_append(&path)?;
                let torn = file.metadata()?.len() > bytes;
                let rewrite_beyond = bytes + TICKET_FILE_RETRY_BYTES;
                Ok((Self { path, file, bytes, torn, rewrite_beyond }, board))
            }
        }
    }

    /// Just written anew.
    fn of(path: PathBuf, file: File, bytes: u64) -> Self {
        Self { path, file, bytes, torn: false, rewrite_beyond: TICKET_FILE_BYTES.max(2 * bytes) }
    }

    /// Written before the ticket is put up.
    pub fn asked(&mut self, ticket: &Ticket) -> io::Result<()> {
        self.append(&asked_line(ticket)?)
    }

    pub fn noted(&mut self, note: &Note) -> io::Result<()> {
        self.append(&noted_line(note)?)
    }

    /// `board`: all that was written here until now, and nothing else. What fails is logged: the file stays as it is.
    pub fn rewrite_when_grown(&mut self, board: &Board) {
        if self.bytes <= self.rewrite_beyond {
            return;
        }
        match written_anew(&self.path, board) {
            Ok((file, bytes)) => *self = Self::of(std::mem::take(&mut self.path), file, bytes),
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "the ticket file has grown and cannot be written anew");
                self.rewrite_beyond = self.bytes + TICKET_FILE_RETRY_BYTES;
            }
        }
    }

    /// The whole line or nothing of it: behind a part of one, the next line could not be read.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.bytes)?;
            self.torn = false;
        }
        let written = self.file.write_all(line);
        match written {
            Ok(()) => self.bytes += line.len() as u64,
            Err(_) => self.torn = self.file.set_len(self.bytes).is_err(),
        }
        written
    }
}

/// What the board knows, in a file of its own that then takes the name. Owner only: statements may carry what the target's users typed
/// into them. The number is the file's length.
fn written_anew(path: &Path, board: &Board) -> io::Result<(File, u64)> {
    let fresh = path.with_extension("ndjson.new");
    files::create(&fresh)?;
    let file = files::open_to_append(&fresh)?;
    let mut out = BufWriter::new(&file);
    let written = board.cases(false).into_iter().try_for_each(|case| write_case(&mut out, case));
    let written = written.and_then(|()| out.flush()).and_then(|()| file.sync_data());
    drop(out);
    let renamed = written.and_then(|()| std::fs::rename(&fresh, path)).and_then(|()| file.metadata());
    match renamed {
        Ok(metadata) => Ok((file, metadata.len())),
        Err(error) => {
            // Half of a file is of no use to anybody, least of all on a full disk.
            let _ = std::fs::remove_file(&fresh);
            Err(error)
        }
    }
}

fn write_case(out: &mut impl Write, case: &Case) -> io::Result<()> {
    let id = &case.ticket.id;
    out.write_all(&asked_line(&case.ticket)?)?;
    for vote in &case.votes {
        out.write_all(&noted_line(&Note::Vote { id: id.clone(), vote: vote.clone() })?)?;
    }
    match case.end.clone() {
        Some((ruling, at_us)) => out.write_all(&noted_line(&Note::Ended { id: id.clone(), ruling, at_us })?),
        None => Ok(()),
    }
}

fn asked_line(ticket: &Ticket) -> io::Result<Vec<u8>> {
    line(&Line::Asked(Box::new(ticket.shortened(TICKET_KEPT_TEXT_BYTES_MAX))))
}

fn noted_line(note: &Note) -> io::Result<Vec<u8>> {
    line(&Line::Noted(note.clone()))
}

fn line(line: &Line) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

/// The lines folded into tickets, in the order they were asked. No more than a board remembers: all of them have ended, or will have.
#[derive(Default)]
struct Found {
    order: VecDeque<TicketId>,
    cases: HashMap<TicketId, Case>,
    /// Of whole lines.
    bytes: u64,
}

impl Found {
    /// Line by line: an older version let the file grow.
    fn read(&mut self, mut file: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if file.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if line.ends_with(b"\n") {
                self.bytes += line.len() as u64;
            }
            match serde_json::from_slice(&line) {
                Ok(line) => self.take(line),
                Err(error) => tracing::warn!(line = number, %error, "unreadable line in {NAME}: left out"),
            }
        }
        Ok(())
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Asked(ticket) => self.asked(&ticket),
            Line::Noted(Note::Vote { id, vote }) => {
                if let Some(case) = self.cases.get_mut(&id) {
                    case.votes.push(vote);
                }
            }
            Line::Noted(Note::Ended { id, ruling, at_us }) => {
                if let Some(case) = self.cases.get_mut(&id) {
                    case.end = Some((ruling, at_us));
                }
            }
        }
    }

    fn asked(&mut self, ticket: &Ticket) {
        let id = ticket.id.clone();
        let ticket = ticket.shortened(TICKET_KEPT_TEXT_BYTES_MAX);
        if self.cases.insert(id.clone(), Case { ticket, votes: Vec::new(), end: None }).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > TICKETS_ENDED_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.cases.remove(&oldest);
        }
    }

    fn cases(mut self) -> Vec<Case> {
        self.order.into_iter().filter_map(|id| self.cases.remove(&id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::{Effect, Ruler, Verdict};
    use super::*;
    use crate::approval::{Ruling, ticket_for_tests};
    use std::fs::OpenOptions;
    use std::os::unix::fs::PermissionsExt;

    fn ticket(id: &str, count: u32) -> Ticket {
        Ticket { id: TicketId(id.into()), count, ..ticket_for_tests("SELECT 'é\n'", &[None, Some("x")]) }
    }

    fn approve(board: &mut Board, file: &mut TicketFile, id: &str, user: &str) {
        let ruler = Ruler::Token { user: user.into(), groups: vec!["dba".into()], actor: vec![], agent: false };
        board.rule(&TicketId(id.into()), &ruler, Verdict::Approve, "go".into(), 5).unwrap();
        for effect in board.take_effects() {
            if let Effect::Note(note) = effect {
                file.noted(&note).unwrap();
            }
        }
    }

    #[test]
    fn a_restart_keeps_what_ended_and_expires_what_waited() {
        let dir = tempfile::tempdir().unwrap();
        {
            let (mut file, mut board) = TicketFile::open(dir.path(), 0).unwrap();
            for (id, count) in [("done", 1), ("half", 2), ("asked", 1)] {
                file.asked(&ticket(id, count)).unwrap();
                board.ask(ticket(id, count));
            }
            approve(&mut board, &mut file, "done", "bob");
            approve(&mut board, &mut file, "half", "bob");
        }
        // The second restart reads what the first one wrote anew.
        for _ in 0..2 {
            let (_file, board) = TicketFile::open(dir.path(), 50).unwrap();
            let end = |id: &str| board.case(&TicketId(id.into())).unwrap().end.clone().unwrap();
            assert_eq!(end("done"), (Ruling::Approved { by: vec!["bob".into()], reason: "go".into() }, 5));
            assert_eq!((end("half"), end("asked")), ((Ruling::Expired, 50), (Ruling::Expired, 50)));
            assert_eq!(board.case(&TicketId("done".into())).unwrap().ticket.digest, [9; 32]);
            assert_eq!(board.pending(), 0);
        }
    }

    #[test]
    fn a_torn_line_costs_that_line_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = TicketFile::open(dir.path(), 0).unwrap();
        file.asked(&ticket("a", 1)).unwrap();
        drop(file);
        let path = dir.path().join(NAME);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str(r#"{"ended":{"id":"a","ruling":{"appro"#);
        std::fs::write(&path, text).unwrap();
        let (_file, board) = TicketFile::open(dir.path(), 7).unwrap();
        assert_eq!(board.case(&TicketId("a".into())).unwrap().end, Some((Ruling::Expired, 7)));
    }

    fn lines(dir: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(dir.join(NAME)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect()
    }

    /// 64,000 control characters took 384 KB each time: 781 of them 211 MB.
    #[test]
    fn statements_that_are_asked_and_cancelled_do_not_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, mut board) = TicketFile::open(dir.path(), 0).unwrap();
        let mut largest = 0;
        for number in 0..6_000 {
            let asked = Ticket { statement: "\u{1}".repeat(2_000), ..ticket(&format!("t{number}"), 1) };
            file.asked(&asked).unwrap();
            let id = asked.id.clone();
            board.ask(Ticket { asked_at_us: number, ..asked });
            board.abandon(&id, number);
            for effect in board.take_effects() {
                if let Effect::Note(note) = effect {
                    file.noted(&note).unwrap();
                }
            }
            file.rewrite_when_grown(&board);
            largest = largest.max(std::fs::metadata(dir.path().join(NAME)).unwrap().len());
        }
        // Just before the last rewrite.
        assert!((TICKET_FILE_BYTES - (64 << 10)..=TICKET_FILE_BYTES).contains(&largest), "{largest}");
        assert_eq!(std::fs::metadata(dir.path().join(NAME)).unwrap().len(), file.bytes);
        let mode = std::fs::metadata(dir.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (file, board) = TicketFile::open(dir.path(), 7_000).unwrap();
        let last = board.case(&TicketId("t5999".into())).expect("remembered");
        assert_eq!((last.state(), board.cases(false).len()), ("abandoned", TICKETS_ENDED_KEPT));
        assert!(file.bytes < 6 << 20, "{}", file.bytes);
    }

    #[test]
    fn a_rewrite_keeps_what_waits_and_its_votes() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, mut board) = TicketFile::open(dir.path(), 0).unwrap();
        for id in ["waits", "half"] {
            file.asked(&ticket(id, 2)).unwrap();
            board.ask(ticket(id, 2));
        }
        approve(&mut board, &mut file, "half", "bob");
        file.rewrite_beyond = 0;
        file.rewrite_when_grown(&board);
        approve(&mut board, &mut file, "half", "carol");
        drop(file);
        let (_file, board) = TicketFile::open(dir.path(), 50).unwrap();
        let end = |id: &str| board.case(&TicketId(id.into())).unwrap().end.clone().unwrap().0;
        let by = vec!["bob".into(), "carol".into()];
        assert_eq!(end("half"), Ruling::Approved { by, reason: "go; go".into() });
        assert_eq!(end("waits"), Ruling::Expired);
    }

    #[test]
    fn behind_a_line_that_failed_the_next_one_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = TicketFile::open(dir.path(), 0).unwrap();
        file.asked(&ticket("a", 1)).unwrap();
        // Can neither be written nor be cut.
        let good = std::mem::replace(&mut file.file, files::open(&dir.path().join(NAME)).unwrap());
        file.asked(&ticket("b", 1)).unwrap_err();
        OpenOptions::new().append(true).open(dir.path().join(NAME)).unwrap().write_all(b"{\"asked\":{\"id").unwrap();
        file.file = good;
        file.asked(&ticket("c", 1)).unwrap();
        let ids: Vec<_> = lines(dir.path()).iter().map(|line| line["asked"]["id"].clone()).collect();
        assert_eq!(ids, ["a", "c"]);
    }

    #[test]
    fn a_disk_without_room_at_start_keeps_the_old_file_in_use() {
        let dir = tempfile::tempdir().unwrap();
        {
            let (mut file, mut board) = TicketFile::open(dir.path(), 0).unwrap();
            file.asked(&ticket("a", 1)).unwrap();
            board.ask(ticket("a", 1));
            approve(&mut board, &mut file, "a", "bob");
            file.file.write_all(b"{\"asked\":{\"id").unwrap();
        }
        // Nothing can be written anew where a folder stands.
        std::fs::create_dir(dir.path().join("tickets.ndjson.new")).unwrap();
        let (mut file, board) = TicketFile::open(dir.path(), 50).unwrap();
        assert_eq!(board.case(&TicketId("a".into())).unwrap().state(), "approved");
        file.asked(&ticket("b", 1)).unwrap();
        assert_eq!(lines(dir.path()).len(), 3, "the torn line is gone");
        file.rewrite_beyond = 0;
        file.rewrite_when_grown(&board);
        assert!(file.rewrite_beyond > TICKET_FILE_RETRY_BYTES, "tried again later");
        assert_eq!(lines(dir.path()).len(), 3);
    }
}
