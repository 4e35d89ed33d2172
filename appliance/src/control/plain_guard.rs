//! Over an unencrypted connection a target must not be able to ask for the password in clear text. tokio-postgres would
//! answer; this stream ends the connection first.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// AuthenticationCleartextPassword.
const CLEARTEXT: i32 = 3;
/// AuthenticationOk: the login is over, nothing more to watch.
const OK: i32 = 0;
/// Login messages are small; PostgreSQL itself allows 2,000 bytes.
const LOGIN_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// A stream whose server's login messages are looked at before they are handed on.
pub struct PlainGuard<S> {
    inner: S,
    watch: Watch,
}

impl<S> PlainGuard<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, watch: Watch::default() }
    }
}

/// Follows message boundaries in what arrives.
#[derive(Default)]
struct Watch {
    /// Type, length and the first four bytes of the body, as far as they have come.
    head: Vec<u8>,
    /// Bytes of the message still to come behind `head`.
    rest: usize,
    done: bool,
}

impl Watch {
    fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !self.done && !bytes.is_empty() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> io::Result<()> {
        let number = |at: usize| i32::from_be_bytes(self.head[at..at + 4].try_into().expect("four bytes"));
        if self.head.len() < 5 {
            return Ok(());
        }
        let length = usize::try_from(number(1)).unwrap_or(0);
        if !(4..=LOGIN_MESSAGE_BYTES_MAX).contains(&length) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the target's login message has an impossible length",
            ));
        }
        let authentication = self.head[0] == b'R' && length >= 8;
        if authentication && self.head.len() < 9 {
            return Ok(());
        }
        if authentication && number(5) == CLEARTEXT {
            let text = "the target asks for the password in clear text over an unencrypted connection";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        self.done = authentication && number(5) == OK;
        self.rest = length + 1 - self.head.len();
        self.head.clear();
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PlainGuard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled {
            self.watch.feed(&buf.filled()[before..])?;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PlainGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend((body.len() as i32 + 4).to_be_bytes());
        message.extend(body);
        message
    }

    /// The verdict, whole and byte by byte.
    fn check(bytes: &[u8], allowed: bool) {
        let mut whole = Watch::default();
        assert_eq!(whole.feed(bytes).is_ok(), allowed);
        let mut split = Watch::default();
        assert_eq!(bytes.chunks(1).try_for_each(|byte| split.feed(byte)).is_ok(), allowed);
    }

    #[test]
    fn a_request_for_the_password_in_clear_text_is_refused_wherever_it_stands() {
        let cleartext = message(b'R', &3i32.to_be_bytes());
        check(&cleartext, false);
        check(&[message(b'v', &[0; 12]), cleartext.clone()].concat(), false);
        let sasl = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
        check(&[sasl, cleartext].concat(), false);
    }

    #[test]
    fn scram_and_md5_pass_and_nothing_is_watched_after_the_login() {
        let sasl = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
        let ok = message(b'R', &0i32.to_be_bytes());
        check(&[sasl, ok.clone(), b"any bytes at all".to_vec()].concat(), true);
        check(&[message(b'R', b"\0\0\0\x05salt"), ok].concat(), true);
        check(&message(b'E', b"SFATAL\0\0"), true);
    }

    #[test]
    fn an_impossible_length_is_refused() {
        for length in [0i32, 3, -1, i32::MAX] {
            check(&[vec![b'R'], length.to_be_bytes().to_vec()].concat(), false);
        }
    }
}
