//! `data_dir/tickets.ndjson`: what a restart has to know about tickets. One JSON object a line, appended as it happens.

use super::board::{Board, Case, Note};
use super::limits::TICKET_FILE_STATEMENT_BYTES_MAX;
use crate::approval::{Ticket, TicketId};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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
    file: File,
}

impl TicketFile {
    /// Reads what an earlier run left, writes it anew (ended tickets only) and goes on behind it.
    /// A line that cannot be read is left out: at worst a ticket is unknown, and an unknown ticket approves nothing.
    pub fn open(data_dir: &Path, now_us: i64) -> io::Result<(Self, Board)> {
        let path = data_dir.join(NAME);
        let text = match crate::files::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let board = Board::restore(cases(&text), now_us);
        let fresh = data_dir.join(format!("{NAME}.new"));
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Owner only: statements may carry what the target's users typed into them.
        let mut file = Self { file: OpenOptions::new().append(true).create_new(true).mode(0o600).open(&fresh)? };
        for case in board.cases(false) {
            file.asked(&case.ticket)?;
            for vote in &case.votes {
                file.noted(&Note::Vote { id: case.ticket.id.clone(), vote: vote.clone() })?;
            }
            if let Some((ruling, at_us)) = case.end.clone() {
                file.noted(&Note::Ended { id: case.ticket.id.clone(), ruling, at_us })?;
            }
        }
        file.file.sync_data()?;
        std::fs::rename(&fresh, &path)?;
        Ok((file, board))
    }

    /// Written before the ticket is put up.
    pub fn asked(&mut self, ticket: &Ticket) -> io::Result<()> {
        let mut ticket = ticket.clone();
        cut(&mut ticket.statement);
        ticket.binds.iter_mut().flatten().for_each(cut);
        self.append(&Line::Asked(Box::new(ticket)))
    }

    pub fn noted(&mut self, note: &Note) -> io::Result<()> {
        self.append(&Line::Noted(note.clone()))
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text)
    }
}

fn cut(text: &mut String) {
    if text.len() > TICKET_FILE_STATEMENT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TICKET_FILE_STATEMENT_BYTES_MAX));
        text.push_str(" ... (cut)");
    }
}

/// Folds the lines into tickets, in the order they were asked.
fn cases(text: &str) -> Vec<Case> {
    let mut order = Vec::new();
    let mut cases: HashMap<TicketId, Case> = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(Line::Asked(ticket)) => {
                order.push(ticket.id.clone());
                cases.insert(ticket.id.clone(), Case { ticket: *ticket, votes: Vec::new(), end: None });
            }
            Ok(Line::Noted(Note::Vote { id, vote })) => {
                if let Some(case) = cases.get_mut(&id) {
                    case.votes.push(vote);
                }
            }
            Ok(Line::Noted(Note::Ended { id, ruling, at_us })) => {
                if let Some(case) = cases.get_mut(&id) {
                    case.end = Some((ruling, at_us));
                }
            }
            Err(error) => tracing::warn!(line = number + 1, %error, "unreadable line in {NAME}: left out"),
        }
    }
    order.into_iter().filter_map(|id| cases.remove(&id)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::board::{Effect, Ruler, Verdict};
    use super::*;
    use crate::approval::Ruling;

    fn ticket(id: &str, count: u32) -> Ticket {
        Ticket {
            id: TicketId(id.into()),
            shard: 0,
            relay: 1,
            session: "s".into(),
            digest: [9; 32],
            user: "alice".into(),
            groups: vec![],
            actor: vec![],
            target: "orders".into(),
            statement: "SELECT 'é\n'".into(),
            binds: vec![None, Some("x".into())],
            rule: "r".into(),
            approvers: vec!["dba".into()],
            count,
            own: false,
            asked_at_us: 1,
            expires_at_us: 100,
        }
    }

    fn approve(board: &mut Board, file: &mut TicketFile, id: &str, user: &str) {
        let ruler = Ruler::Token { user: user.into(), groups: vec!["dba".into()], actor: vec![] };
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
}
