//! What a receiver will never take: `data_dir/sinks/NAME.dead.ndjson`, one object a line with the event in full.

use super::join::Event;
use crate::audit::printable::json_safe;
use crate::audit::segment::at;
use crate::audit::when;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Beyond: the sink waits until somebody has looked at the file and moved it away.
const BYTES_MAX: u64 = 256 << 20;

pub fn path(data_dir: &Path, sink: &str) -> PathBuf {
    super::folder(data_dir).join(format!("{sink}.dead.ndjson"))
}

/// On stable storage when it returns.
pub fn bury(data_dir: &Path, sink: &str, event: &Event, why: &str, now_us: i64) -> io::Result<()> {
    let path = path(data_dir, sink);
    let mut file = crate::files::open_to_append(&path).map_err(|error| at(&path, error))?;
    if file.metadata()?.len() > BYTES_MAX {
        let full = io::Error::other("holds 256 MiB of refused events: look at them and move the file away");
        return Err(at(&path, full));
    }
    let head = serde_json::json!({ "time": when::rfc3339(now_us), "uid": event.uid, "error": why });
    let head = json_safe(&head.to_string());
    let line = format!("{},\"event\":{}}}\n", head.trim_end_matches('}'), event.json);
    file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).map_err(|error| at(&path, error))
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;

    #[test]
    fn a_line_holds_the_event_and_why_it_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(super::super::folder(dir.path())).expect("made");
        for number in [1, 2] {
            bury(dir.path(), "siem", &event(number), "too \u{1b}[2Jlarge}", 0).expect("written");
        }
        let text = std::fs::read_to_string(path(dir.path(), "siem")).expect("there");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[1]["uid"], &lines[1]["error"]), (&"u-2".into(), &"too \u{1b}[2Jlarge}".into()));
        assert_eq!(lines[1]["event"]["n"], 2);
        assert!(!text.contains('\u{1b}'));
    }
}
