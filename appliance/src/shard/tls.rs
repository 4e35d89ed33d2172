//! TLS between the ring and the window of one end: rustls's buffered interface, for either role.

use crate::distrust::told;
use aws_lc_rs::digest;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::io::{Read, Write};
use std::sync::Arc;

/// What direct TLS must negotiate, and what we offer to targets (PostgreSQL manual, "SSL Session Encryption").
pub const ALPN: &[u8] = b"postgresql";
/// Plaintext is read out of rustls at this grain.
const READ_BYTES: usize = 16 << 10;

pub struct Tls {
    connection: Connection,
    secured: bool,
}

/// What feeding ciphertext came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// The handshake has just been completed.
    pub secured: bool,
    /// The peer said that nothing more will follow.
    pub closed: bool,
}

impl Tls {
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, String> {
        let connection = ServerConnection::new(config).map_err(|e| e.to_string())?;
        Ok(Self::new(Connection::Server(connection)))
    }

    pub fn client(config: Arc<ClientConfig>, server_name: &str) -> Result<Self, String> {
        let name = ServerName::try_from(server_name.to_string()).map_err(|e| format!("{server_name}: {e}"))?;
        let connection = ClientConnection::new(config, name).map_err(|e| e.to_string())?;
        Ok(Self::new(Connection::Client(connection)))
    }

    fn new(mut connection: Connection) -> Self {
        // The relay bounds what is queued; a limit here would only lose bytes.
        connection.set_buffer_limit(None);
        Self { connection, secured: false }
    }

    /// Feeds ciphertext; plaintext is appended to `plain`. On an error an alert may be waiting in `drain`.
    pub fn receive(&mut self, mut cipher: &[u8], plain: &mut Vec<u8>) -> Result<Progress, String> {
        let mut progress = Progress::default();
        while !cipher.is_empty() {
            if self.connection.read_tls(&mut cipher).map_err(|e| e.to_string())? == 0 {
                progress.closed = true;
                return Ok(progress);
            }
            let state = self.connection.process_new_packets().map_err(|error| told(&error))?;
            self.read_plain(state.plaintext_bytes_to_read(), plain)?;
            progress.closed |= state.peer_has_closed();
        }
        progress.secured = !self.secured && !self.connection.is_handshaking();
        self.secured |= progress.secured;
        Ok(progress)
    }

    fn read_plain(&mut self, mut count: usize, plain: &mut Vec<u8>) -> Result<(), String> {
        while count > 0 {
            let from = plain.len();
            plain.resize(from + count.min(READ_BYTES), 0);
            let read = self.connection.reader().read(&mut plain[from..]).map_err(|e| e.to_string())?;
            plain.truncate(from + read);
            count -= read;
        }
        Ok(())
    }

    /// Encrypts bytes for the peer; they come out of `drain`.
    pub fn send(&mut self, plain: &[u8]) {
        self.connection.writer().write_all(plain).expect("rustls buffers without limit");
    }

    /// Says that nothing more will follow.
    pub fn send_close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Appends the ciphertext to be sent.
    pub fn drain(&mut self, cipher: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(cipher).expect("a vector takes everything");
        }
    }

    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// The channel binding of the peer's certificate.
    pub fn binding(&self) -> Option<Vec<u8>> {
        end_point_binding(self.connection.peer_certificates()?.first()?)
    }
}

/// `tls-server-end-point` (RFC 5929, section 4) of a certificate.
pub fn end_point_binding(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = end_point_hash(certificate)?;
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// The hash of the certificate's own signature, with MD5 and SHA-1 raised to SHA-256. `None`: it has none that RFC 5929
/// knows (EdDSA), or hides it in parameters (RSASSA-PSS).
fn end_point_hash(certificate: &[u8]) -> Option<&'static digest::Algorithm> {
    const PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    let (_, certificate) = der(certificate)?;
    let (rest, _to_be_signed) = der(certificate)?;
    let (_, algorithm) = der(rest)?;
    let (_, oid) = der(algorithm)?;
    if oid == ECDSA_SHA1 {
        return Some(&digest::SHA256);
    }
    match oid.split_last()? {
        (4 | 5 | 11, PKCS1) | (2, ECDSA_SHA2) => Some(&digest::SHA256),
        (12, PKCS1) | (3, ECDSA_SHA2) => Some(&digest::SHA384),
        (13, PKCS1) | (4, ECDSA_SHA2) => Some(&digest::SHA512),
        _ => None,
    }
}

/// Splits one DER element: what follows it, and its contents.
fn der(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_tag, bytes) = bytes.split_first()?;
    let (&first, bytes) = bytes.split_first()?;
    let (len, bytes) = match first {
        0..=0x7f => (first as usize, bytes),
        0x81..=0x84 => {
            let (len, bytes) = bytes.split_at_checked((first & 0x7f) as usize)?;
            (len.iter().fold(0, |len, byte| len << 8 | *byte as usize), bytes)
        }
        _ => return None,
    };
    let (contents, rest) = bytes.split_at_checked(len)?;
    Some((rest, contents))
}
