//! The client's credential: a password message, or a bearer token through SASL OAUTHBEARER (RFC 7628).

use super::compose;
use super::frame::{HEADER_BYTES, Header, Reader};
use super::session::{ClientStage, Life, Session};
use super::{Event, ProtocolError, Refusal, Step};
use crate::{Pipes, Side, Span};

/// A password or SASL message, bytes. PostgreSQL's own bound on one (PG_MAX_AUTH_TOKEN_LENGTH). Beyond: the connection closes.
const CREDENTIAL_BYTES_MAX: usize = 65_535;
const MECHANISM: &[u8] = b"OAUTHBEARER";
/// RFC 7628, 3.1: separates the key-value pairs.
const SEPARATOR: u8 = 0x01;
/// What a client whose token was not accepted is told (RFC 7628, 3.2.2).
const CHALLENGE: &[u8] = br#"{"status":"invalid_token"}"#;

/// What the client was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Credential {
    /// AuthenticationCleartextPassword: a PasswordMessage.
    Password,
    /// AuthenticationSASL: a SASLInitialResponse.
    Initial,
    /// The client sent no initial response and was asked again.
    Response,
    /// The token was not accepted and the client was told so: one separator from it, then the end (RFC 7628, 3.2.3).
    Acknowledgement,
}

/// Where the credential is, or what the client wants instead.
enum Shown {
    /// Empty when the client has none and wants to know where to get one: refused like any other that is wrong.
    Token(Span),
    /// No initial response: RFC 4422 allows it; the token comes after an empty challenge.
    Nothing,
}

impl<T: Clone + 'static> Session<T> {
    /// Login was answered: negotiate the version, then ask for the credential.
    pub(super) fn ask_credential(&mut self, pipes: &mut Pipes<'_>) {
        self.negotiate_version(pipes);
        let oauth = self.startup.as_ref().is_some_and(|startup| startup.oauth);
        let credential = if oauth { Credential::Initial } else { Credential::Password };
        pipes.to_client.compose(|out| match credential {
            Credential::Initial => compose::authentication(out, 10, b"OAUTHBEARER\0\0"),
            _ => compose::authentication(out, 3, b""),
        });
        self.client = ClientStage::AwaitCredential(credential);
    }

    pub(super) fn step_credential(
        &mut self,
        credential: Credential,
        pipes: &mut Pipes<'_>,
    ) -> Result<Step, ProtocolError> {
        let bytes = pipes.client.undecided();
        // What is no password message may have no header at all: do not wait for one.
        if let Some(&kind) = bytes.first().filter(|&&kind| kind != b'p') {
            return Err(ProtocolError::ExpectedCredential { kind });
        }
        let Some(header) = Header::peek(bytes, Side::Client)? else { return Ok(Step::NeedBytes) };
        let Some(message) = header.whole(bytes, Side::Client, CREDENTIAL_BYTES_MAX)? else {
            return Ok(Step::NeedBytes);
        };
        let shown = match credential {
            Credential::Password => Shown::Token(password(message)?),
            Credential::Initial => initial_response(message)?,
            Credential::Response => bearer(message, HEADER_BYTES)?,
            Credential::Acknowledgement if message[HEADER_BYTES..] == [SEPARATOR] => {
                return Ok(self.end_refused_token(header.total, pipes));
            }
            Credential::Acknowledgement => return Err(ProtocolError::CredentialMalformed),
        };
        match shown {
            Shown::Token(span) => {
                self.client = ClientStage::AskedCredential { total: header.total };
                Ok(Step::Event(Event::Credential(span)))
            }
            Shown::Nothing => {
                super::client::erase(header.total, pipes);
                self.challenge(b"", Credential::Response, pipes);
                Ok(Step::NeedBytes)
            }
        }
    }

    /// AuthenticationSASLContinue.
    fn challenge(&mut self, data: &[u8], next: Credential, pipes: &mut Pipes<'_>) {
        pipes.to_client.compose(|out| compose::authentication(out, 11, data));
        self.client = ClientStage::AwaitCredential(next);
    }

    /// The gate refuses the credential. A bearer token that was not accepted is refused as RFC 7628 has it: the status as
    /// JSON, the client's separator, then the error. Every other refusal is read by clients at once.
    pub(super) fn refuse_credential(&mut self, total: usize, refusal: Refusal, pipes: &mut Pipes<'_>) {
        super::client::erase(total, pipes);
        let oauth = self.startup.as_ref().is_some_and(|startup| startup.oauth);
        if oauth && refusal.sqlstate == *b"28P01" {
            let json = self
                .early
                .as_mut()
                .and_then(|early| early.oauth_challenge.take())
                .unwrap_or_else(|| CHALLENGE.to_vec());
            self.challenge(&json, Credential::Acknowledgement, pipes);
            self.early.get_or_insert_default().refused_token = Some(refusal);
        } else {
            self.fail(&refusal, pipes);
        }
    }

    /// The credential was refused, and the client has still to say that it read why.
    pub fn awaits_acknowledgement(&self) -> bool {
        self.life == Life::Alive && self.client == ClientStage::AwaitCredential(Credential::Acknowledgement)
    }

    fn end_refused_token(&mut self, total: usize, pipes: &mut Pipes<'_>) -> Step {
        super::client::erase(total, pipes);
        let refusal = self
            .early
            .take()
            .and_then(|early| early.refused_token)
            .expect("an acknowledgement is awaited only after a refusal");
        self.fail(&refusal, pipes);
        Step::Closed
    }

    /// The gate accepts the credential and lets the client wait for a person's word. The client reads AuthenticationOk now:
    /// before it, libpq takes no notice.
    pub(super) fn hold_admission(&mut self, total: usize, pipes: &mut Pipes<'_>) {
        super::client::erase(total, pipes);
        pipes.to_client.compose(|out| compose::authentication(out, 0, b""));
        self.client = ClientStage::AwaitTarget;
        self.admitted_early = true;
    }
}

/// The password up to its NUL, which ends the message.
fn password(message: &[u8]) -> Result<Span, ProtocolError> {
    let mut reader = Reader::new(message, HEADER_BYTES);
    let text = reader.text().filter(|_| reader.is_done()).ok_or(ProtocolError::CredentialMalformed)?;
    Ok(Span { start: HEADER_BYTES as u32, end: (HEADER_BYTES + text.len()) as u32 })
}

/// SASLInitialResponse: mechanism, length, data.
fn initial_response(message: &[u8]) -> Result<Shown, ProtocolError> {
    let mut reader = Reader::new(message, HEADER_BYTES);
    let mechanism = reader.text().ok_or(ProtocolError::CredentialMalformed)?;
    if mechanism != MECHANISM {
        return Err(ProtocolError::UnknownMechanism);
    }
    let length = reader.i32().ok_or(ProtocolError::CredentialMalformed)?;
    match usize::try_from(length) {
        Err(_) if length == -1 && reader.is_done() => Ok(Shown::Nothing),
        Ok(length) if length == reader.rest().len() => bearer(message, reader.at()),
        _ => Err(ProtocolError::CredentialMalformed),
    }
}

/// `n,,^Aauth=Bearer TOKEN^A^A`: GS2 header (no channel binding, no authorisation identity), key-value pairs, end.
fn bearer(message: &[u8], start: usize) -> Result<Shown, ProtocolError> {
    let malformed = ProtocolError::CredentialMalformed;
    let data = &message[start..];
    if !data.starts_with(b"n,,") && !data.starts_with(b"y,,") || data.get(3) != Some(&SEPARATOR) {
        return Err(malformed);
    }
    let mut at = 4;
    let mut token = None;
    loop {
        let length = memchr::memchr(SEPARATOR, &data[at..]).ok_or(malformed)?;
        let pair = &data[at..at + length];
        if pair.is_empty() {
            break;
        }
        if let Some(value) = pair.strip_prefix(b"auth=") {
            if token.is_some() {
                return Err(malformed);
            }
            token = Some((start + at + 5, value));
        }
        at += length + 1;
    }
    if at + 1 != data.len() {
        return Err(malformed);
    }
    let (position, value) = token.ok_or(malformed)?;
    if value.is_empty() {
        return Ok(Shown::Token(Span { start: position as u32, end: position as u32 }));
    }
    let scheme = value.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    let spaces = value.iter().skip(7).take_while(|&&byte| byte == b' ').count();
    let token = scheme.map(|_| &value[7 + spaces..]).filter(|token| is_token(token)).ok_or(malformed)?;
    let start = (position + 7 + spaces) as u32;
    Ok(Shown::Token(Span { start, end: start + token.len() as u32 }))
}

/// RFC 6750's b64token.
fn is_token(token: &[u8]) -> bool {
    let body = token.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte)).count();
    body > 0 && token[body..].iter().all(|&byte| byte == b'=')
}
