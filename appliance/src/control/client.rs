//! The other end of the control socket: one HTTP/1.1 request over a Unix socket, for the command line.

use super::socket::socket_path;
use crate::audit::sinks::said;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A reload may resolve names; anything longer means that nobody is there.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The largest statement that can wait fits, also if each of its bytes takes six.
const ANSWER_BYTES_MAX: u64 = 512 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no gateway answers on {path} ({error}); start one with `lockgate serve --config FILE`, or name its folder with --data-dir"
    )]
    NotRunning { path: PathBuf, error: io::Error },
    #[error("{path}: {error}; only whoever runs the gateway may ask it")]
    Denied { path: PathBuf, error: io::Error },
    #[error("the gateway on {path} did not answer: {}", said(error))]
    Broken { path: PathBuf, error: io::Error },
}

impl ClientError {
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::NotRunning { .. })
    }

    fn of(path: PathBuf, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { path, error },
            _ => Self::NotRunning { path, error },
        }
    }
}

/// A status code and a JSON body.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

/// One request to the gateway of this folder. `body`: POST, else GET.
pub fn request(data_dir: &Path, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
    let socket = socket_path(data_dir);
    let stream = UnixStream::connect(&socket).map_err(|error| ClientError::of(socket.clone(), error))?;
    let timeouts = stream.set_read_timeout(Some(TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
    timeouts.and_then(|()| exchange(stream, path, body)).map_err(|error| ClientError::Broken { path: socket, error })
}

/// One request and its answer over any stream, which is used up.
pub fn exchange(mut stream: impl Read + Write, path: &str, body: Option<&Value>) -> io::Result<Answer> {
    let (method, body) = match body {
        Some(body) => ("POST", body.to_string()),
        None => ("GET", String::new()),
    };
    // In one write: a handler that needs no body answers and closes before a second one arrives.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: lockgate\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is cut or is no HTTP"))
}

/// Status line, headers, and a body of the length they announce.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    let body = bytes.get(end + 4..)?.get(..length)?;
    // A framework's own refusals are plain text.
    let body =
        serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()));
    Some(Answer { status, body })
}

/// An id as it may stand in a path: nothing that would be another path.
pub fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
        && text != ".."
        && text != "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_announced_length() {
        let text =
            b"HTTP/1.1 409 Conflict\r\ncontent-type: application/json\r\nContent-Length: 13\r\n\r\n{\"error\":\"x\"}";
        let answer = Answer { status: 409, body: serde_json::json!({ "error": "x" }) };
        assert_eq!(parse(text), Some(answer));
        assert_eq!(parse(&text[..text.len() - 1]), None, "a cut answer is no answer");
        for garbage in [&b""[..], b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0-x\r\ncontent-length: 0\r\n\r\n"] {
            assert_eq!(parse(garbage), None);
        }
    }

    #[test]
    fn a_missing_gateway_is_told_with_the_socket_that_was_tried() {
        let dir = tempfile::tempdir().unwrap();
        let error = request(dir.path(), "/status", None).unwrap_err().to_string();
        assert!(error.contains("lockgate.sock") && error.contains("lockgate serve"), "{error}");
        // The command line prints the chain of causes as well: nothing may be said twice.
        let error = anyhow::Error::new(request(dir.path(), "/status", None).unwrap_err());
        assert_eq!(format!("{error:#}").matches("os error").count(), 1);
    }

    #[test]
    fn ids_cannot_be_other_paths() {
        assert!(is_id("0-17-a9f3") && is_id("s_1.2"));
        for bad in ["", "..", "a/b", "a?x", "a b", "a\r\nHost: x", "ü"] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
