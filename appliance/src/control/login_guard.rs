//! A target must not be able to ask for the password in a weaker way than is configured, nor over an unencrypted connection in clear
//! text. tokio-postgres would answer; this stream ends the connection first.

use codecs::postgres::AuthMethod;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Kinds of authentication message (manual, "Message Formats"). OK: the login is over, nothing more to watch.
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
/// Login messages are small; PostgreSQL itself allows 2,000 bytes.
const LOGIN_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// A stream whose server's login messages are looked at before they are handed on.
pub struct LoginGuard<S> {
    inner: S,
    watch: Watch,
}

impl<S> LoginGuard<S> {
    /// `weakest`: what the target has to ask for at least.
    pub fn new(inner: S, weakest: AuthMethod, encrypted: bool) -> Self {
        Self { inner, watch: Watch::new(weakest, encrypted) }
    }
}

/// Follows message boundaries in what arrives.
struct Watch {
    weakest: AuthMethod,
    encrypted: bool,
    /// The strongest that the target has asked for.
    asked: AuthMethod,
    /// Type, length and the first four bytes of the body, as far as they have come.
    head: Vec<u8>,
    /// Bytes of the message still to come behind `head`.
    rest: usize,
    done: bool,
}

impl Watch {
    fn new(weakest: AuthMethod, encrypted: bool) -> Self {
        Self { weakest, encrypted, asked: AuthMethod::Trust, head: Vec::new(), rest: 0, done: false }
    }

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
        if authentication {
            let kind = number(5);
            self.weigh(kind)?;
            self.done = kind == OK;
        }
        self.rest = length + 1 - self.head.len();
        self.head.clear();
        Ok(())
    }

    fn weigh(&mut self, kind: i32) -> io::Result<()> {
        let denied = |text| Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        let method = match kind {
            OK => self.asked,
            CLEARTEXT => AuthMethod::Cleartext,
            MD5 => AuthMethod::Md5,
            SASL => AuthMethod::ScramSha256,
            _ => return Ok(()),
        };
        if method < self.weakest {
            return denied("the target asks for less than its `require_auth` allows");
        }
        if method == AuthMethod::Cleartext && !self.encrypted {
            return denied("the target asks for the password in clear text over an unencrypted connection");
        }
        self.asked = self.asked.max(method);
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LoginGuard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled {
            self.watch.feed(&buf.filled()[before..])?;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LoginGuard<S> {
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
    fn check(weakest: AuthMethod, encrypted: bool, bytes: &[u8], allowed: bool) {
        let mut whole = Watch::new(weakest, encrypted);
        assert_eq!(whole.feed(bytes).is_ok(), allowed);
        let mut split = Watch::new(weakest, encrypted);
        assert_eq!(bytes.chunks(1).try_for_each(|byte| split.feed(byte)).is_ok(), allowed);
    }

    fn sasl() -> Vec<u8> {
        message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")
    }

    fn of(kind: i32) -> Vec<u8> {
        message(b'R', &kind.to_be_bytes())
    }

    #[test]
    fn a_request_for_the_password_in_clear_text_is_refused_wherever_it_stands() {
        let plain = |bytes: &[u8]| check(AuthMethod::Trust, false, bytes, false);
        plain(&of(CLEARTEXT));
        plain(&[message(b'v', &[0; 12]), of(CLEARTEXT)].concat());
        plain(&[sasl(), of(CLEARTEXT)].concat());
        check(AuthMethod::Cleartext, true, &[of(CLEARTEXT), of(OK)].concat(), true);
    }

    #[test]
    fn less_than_what_is_required_is_refused_and_nothing_asked_is_less_than_anything() {
        let md5 = message(b'R', b"\0\0\0\x05salt");
        for encrypted in [false, true] {
            for weak in [&md5, &of(CLEARTEXT), &of(OK), &message(b'v', &[0; 12])] {
                check(AuthMethod::ScramSha256, encrypted, &[weak.clone(), of(OK)].concat(), false);
            }
            check(AuthMethod::ScramSha256, encrypted, &[sasl(), of(11), of(12), of(OK)].concat(), true);
            check(AuthMethod::Md5, encrypted, &[md5.clone(), of(OK)].concat(), true);
            check(AuthMethod::Md5, encrypted, &[sasl(), of(OK)].concat(), true);
            check(AuthMethod::Md5, encrypted, &of(OK), false);
            check(AuthMethod::Trust, encrypted, &of(OK), true);
        }
    }

    #[test]
    fn nothing_is_watched_after_the_login() {
        let scram = [sasl(), of(OK), b"any bytes at all".to_vec()].concat();
        check(AuthMethod::ScramSha256, false, &scram, true);
        check(AuthMethod::ScramSha256, false, &message(b'E', b"SFATAL\0\0"), true);
    }

    #[test]
    fn an_impossible_length_is_refused() {
        for length in [0i32, 3, -1, i32::MAX] {
            check(AuthMethod::Trust, true, &[vec![b'R'], length.to_be_bytes().to_vec()].concat(), false);
        }
    }
}
