//! A client's first packets: encryption requests, cancellation, the start-up message.
//!
//! ```text
//!   length:u32be  code:u32be  (80877103 SSL | 80877104 GSSENC | 80877102 cancel | major.minor)  body
//! ```

use super::compose;
use super::frame::Reader;
use super::session::{ClientStage, Life, Session};
use super::{Event, ProtocolError, Refusal, Startup, Step};
use crate::{Pipes, Side};

/// PostgreSQL's MAX_STARTUP_PACKET_LENGTH, bytes. Beyond: the connection closes.
const STARTUP_BYTES_MAX: usize = 10_000;
/// SSLRequest and GSSENCRequest of one connection. Clients send one of each. Beyond: the connection closes.
const NEGOTIATIONS_MAX: u32 = 8;
/// The newest minor version spoken to clients.
const MINOR_MAX: u16 = 2;

impl<T: Clone + 'static> Session<T> {
    pub(super) fn step_startup(&mut self, pipes: &mut Pipes<'_>) -> Result<Step, ProtocolError> {
        loop {
            let bytes = pipes.client.undecided();
            let Some(head) = bytes.first_chunk::<4>() else { return Ok(Step::NeedBytes) };
            let length = u32::from_be_bytes(*head);
            if !(8..=STARTUP_BYTES_MAX as u32).contains(&length) {
                return Err(ProtocolError::StartupLength { length });
            }
            let total = length as usize;
            let Some(packet) = bytes.get(..total) else { return Ok(Step::NeedBytes) };
            let code = Reader::new(packet, 4).u32().ok_or(ProtocolError::StartupMalformed)?;
            match code {
                compose::SSL_REQUEST if total == 8 => return self.ask_secure().map(Step::Event),
                compose::GSSENC_REQUEST if total == 8 => {
                    self.count_negotiation()?;
                    pipes.client.skip(total);
                    pipes.to_client.compose(|out| out.push(b'N'));
                }
                compose::CANCEL_REQUEST => {
                    let event = cancel(packet)?;
                    pipes.client.skip(total);
                    self.life = Life::Closed;
                    return Ok(Step::Event(event));
                }
                code => {
                    let step = self.read_startup(packet, code)?;
                    pipes.client.skip(total);
                    return Ok(self.report_startup(step, pipes));
                }
            }
        }
    }

    fn ask_secure(&mut self) -> Result<Event, ProtocolError> {
        if self.encrypted {
            return Err(ProtocolError::SecureTwice);
        }
        self.count_negotiation()?;
        self.client = ClientStage::AskedSecure;
        Ok(Event::Secure)
    }

    fn count_negotiation(&mut self) -> Result<(), ProtocolError> {
        self.negotiations += 1;
        if self.negotiations > NEGOTIATIONS_MAX { Err(ProtocolError::TooManyNegotiations) } else { Ok(()) }
    }

    /// `S` or `N`. Bytes that came in plaintext behind the request would be taken for encrypted ones: an attack.
    pub(super) fn answer_secure(&mut self, yes: bool, pipes: &mut Pipes<'_>) {
        pipes.client.skip(8);
        if !yes {
            self.client = ClientStage::AwaitStartup;
            pipes.to_client.compose(|out| out.push(b'N'));
            return;
        }
        self.client = ClientStage::AwaitHandshake;
        if pipes.client.undecided().is_empty() {
            pipes.to_client.compose(|out| out.push(b'S'));
        } else {
            self.fault = Some(ProtocolError::BytesBehindSecure { side: Side::Client }.into());
        }
    }

    /// Between our `S` and the end of the handshake no plaintext is the client's to send.
    pub(super) fn step_handshake(&mut self, pipes: &mut Pipes<'_>) -> Result<Step, ProtocolError> {
        if pipes.client.undecided().is_empty() {
            Ok(Step::Held)
        } else {
            Err(ProtocolError::BytesBehindSecure { side: Side::Client })
        }
    }

    /// Reads the start-up message. `None`: it names no user.
    fn read_startup(&mut self, packet: &[u8], code: u32) -> Result<Option<Startup>, ProtocolError> {
        let (major, minor) = ((code >> 16) as u16, code as u16);
        if major != 3 {
            return Err(ProtocolError::UnsupportedProtocol { major, minor });
        }
        let mut startup = Startup { minor, ..Startup::default() };
        let (mut user, mut database) = (&b""[..], &b""[..]);
        let mut reader = Reader::new(packet, 8);
        loop {
            let name = reader.text().ok_or(ProtocolError::StartupMalformed)?;
            if name.is_empty() {
                break;
            }
            let value = reader.text().ok_or(ProtocolError::StartupMalformed)?;
            match name {
                // The last one counts, as in the server.
                b"user" => user = value,
                b"database" => database = value,
                b"_pq_.lockgate_auth" if value == b"oauthbearer" => startup.oauth = true,
                name if name.starts_with(b"_pq_.") => {
                    self.early.get_or_insert_default().unknown_options.push(name.to_vec());
                }
                _ => self.keep_parameter(&mut startup, name, value),
            }
        }
        if !reader.is_done() {
            return Err(ProtocolError::StartupMalformed);
        }
        if user.is_empty() {
            return Ok(None);
        }
        let database = if database.is_empty() { user } else { database };
        startup.user = String::from_utf8_lossy(user).into_owned();
        startup.database = String::from_utf8_lossy(database).into_owned();
        Ok(Some(startup))
    }

    fn keep_parameter(&mut self, startup: &mut Startup, name: &[u8], value: &[u8]) {
        let mut value = value.to_vec();
        match name {
            b"application_name" => startup.application_name = String::from_utf8_lossy(&value).into_owned(),
            b"replication" => startup.replication = asks_for_replication(&value),
            b"options" => {
                if let Some(rest) = without_oauth_option(&value) {
                    startup.oauth = true;
                    value = rest;
                    if value.iter().all(u8::is_ascii_whitespace) {
                        return;
                    }
                }
            }
            _ => {}
        }
        startup.parameters.push((name.to_vec(), value));
    }

    fn report_startup(&mut self, startup: Option<Startup>, pipes: &mut Pipes<'_>) -> Step {
        let Some(startup) = startup else {
            let refusal = Refusal {
                sqlstate: *b"28000",
                message: "no PostgreSQL user name specified in startup packet".into(),
                detail: None,
                hint: None,
            };
            self.fail(&refusal, pipes);
            return Step::Closed;
        };
        self.startup = Some(Box::new(startup.clone()));
        self.client = ClientStage::AskedLogin;
        Step::Event(Event::Login(Box::new(startup)))
    }

    /// Tells a client that speaks newer than we do, or has options we do not know, what we speak.
    pub(super) fn negotiate_version(&mut self, pipes: &mut Pipes<'_>) {
        let minor = self.startup.as_ref().map_or(0, |startup| startup.minor);
        let unknown = self.early.as_ref().map_or(&[][..], |early| &early.unknown_options);
        if minor > MINOR_MAX || !unknown.is_empty() {
            let version = compose::PROTOCOL_3_0 | u32::from(minor.min(MINOR_MAX));
            pipes.to_client.compose(|out| compose::negotiate(out, version, unknown));
        }
    }
}

fn cancel(packet: &[u8]) -> Result<Event, ProtocolError> {
    let mut reader = Reader::new(packet, 8);
    let process = reader.i32().ok_or(ProtocolError::StartupMalformed)?;
    let secret = reader.rest();
    // 4 bytes in 3.0, up to 256 in 3.2.
    if !(4..=256).contains(&secret.len()) {
        return Err(ProtocolError::StartupMalformed);
    }
    Ok(Event::Cancel { process, secret: secret.to_vec() })
}

/// Any value the server would take for true, or for the name of a kind of replication. What it takes for false is not.
fn asks_for_replication(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    let prefix = |word: &[u8]| !lower.is_empty() && word.starts_with(&lower);
    let off = prefix(b"false") || prefix(b"no") || (lower.len() > 1 && prefix(b"off")) || lower == b"0";
    !off
}

/// `options` without `-c lockgate.auth=oauthbearer`, if it is in there.
fn without_oauth_option(options: &[u8]) -> Option<Vec<u8>> {
    const SETTING: &[u8] = b"lockgate.auth=oauthbearer";
    let words = words(options);
    let text = |range: &(usize, usize)| &options[range.0..range.1];
    for (index, word) in words.iter().enumerate() {
        let inline = [&b"-c"[..], b"--"].iter().any(|dash| text(word).strip_prefix(*dash) == Some(SETTING));
        let spaced = text(word) == b"-c" && words.get(index + 1).is_some_and(|next| text(next) == SETTING);
        let end = match (inline, spaced) {
            (true, _) => word.1,
            (_, true) => words[index + 1].1,
            _ => continue,
        };
        let mut rest = options[..word.0].to_vec();
        rest.extend_from_slice(options[end..].trim_ascii_start());
        return Some(rest);
    }
    None
}

/// Where the words are, split at white space that no backslash precedes (as pg_split_opts does).
fn words(options: &[u8]) -> Vec<(usize, usize)> {
    let mut words = Vec::new();
    let mut start = None;
    let mut escaped = false;
    for (index, &byte) in options.iter().enumerate() {
        let space = byte.is_ascii_whitespace() && !escaped;
        escaped = byte == b'\\' && !escaped;
        match (space, start) {
            (false, None) => start = Some(index),
            (true, Some(from)) => {
                words.push((from, index));
                start = None;
            }
            (true, None) | (false, Some(_)) => {}
        }
    }
    words.extend(start.map(|from| (from, options.len())));
    words
}
