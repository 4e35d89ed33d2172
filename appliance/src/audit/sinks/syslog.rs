//! Syslog: RFC 5424 messages with the event as JSON in MSG, octet-counted frames (RFC 6587, 3.4.1) over TLS (RFC 5425) or TCP.
//!
//! ```text
//! 512 <110>1 2026-11-20T03:12:00.123456Z gw-1 lockgate 4711 datastore_activity - {"class_uid":6005,...}
//! ```
//! Syslog has no acknowledgement, so a connection is made for each batch and closed for writing behind it; that the receiver
//! then closes its side as well says that it has read to the end; that it had closed it before says that it has not. With `confirm = false` one connection stays open and what the
//! kernel has taken counts as delivered: what it still held when a connection broke is lost.

use super::certificate;
use super::deliver::{Deliver, Delivered, Failure, said};
use super::join::Event;
use super::resolve::Resolver;
use crate::audit::when;
use crate::config::{SyslogSink, SyslogTransport};
use crate::pem;
use crate::shard::{peer_has_left, unacknowledged};
use crate::snapshot::tls;
use crate::timed::{Timed, left};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A receiver that closes at once, as a proxy does whose own receiver is down, has done it by then.
const LEAVES_WITHIN: Duration = Duration::from_millis(10);
/// RFC 5424, 6: no field of the header is longer.
const HOST_CHARS_MAX: usize = 255;

pub struct Syslog {
    config: SyslogSink,
    timeout: Duration,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    host: String,
    resolver: Resolver,
    /// Kept between batches with `confirm = false` only.
    open: Option<Stream>,
}

enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Syslog {
    pub fn open(config: &SyslogSink, timeout: Duration) -> Result<Self, Failure> {
        let tls = match &config.transport {
            SyslogTransport::Tcp => None,
            SyslogTransport::Tls(settings) => Some(tls_of(settings, &config.host)?),
        };
        Ok(Self { config: config.clone(), timeout, tls, host: host_name(), resolver: Resolver::default(), open: None })
    }

    fn connect(&mut self, deadline: Instant) -> io::Result<Stream> {
        let mut error = io::Error::other("the name has no address");
        let place = (self.config.host.clone(), self.config.port);
        let lookup = move || Ok((place.0.as_str(), place.1).to_socket_addrs()?.collect());
        let addresses = self.resolver.resolve(deadline, lookup)?;
        for (tried, address) in addresses.iter().enumerate() {
            // One that swallows everything leaves the others their share.
            let share = left(deadline)? / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
                Ok(socket) => return self.secure(Timed { socket, deadline }),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    fn secure(&self, stream: Timed) -> io::Result<Stream> {
        stream.socket.set_nodelay(true)?;
        let Some((config, name)) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let connection = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        // Who it is must be known before anything is said.
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// One attempt: it ends within the timeout, whatever the receiver does.
    fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + self.timeout;
        if self.config.confirm {
            let mut stream = self.connect(deadline)?;
            stream.write(frames)?;
            return stream.finish();
        }
        let mut stream = match self.open.take().filter(Stream::is_open) {
            Some(stream) => stream,
            None => self.connect(deadline)?,
        };
        stream.socket().deadline = deadline;
        stream.write(frames)?;
        self.open = Some(stream);
        Ok(())
    }

    fn frame(&self, event: &Event) -> String {
        // Facility and severity (RFC 5424, 6.2.1): informational, warning, error.
        let severity = match event.severity {
            0..=2 => 6,
            3 => 4,
            _ => 3,
        };
        let message = format!(
            "<{}>1 {} {} lockgate {} {} - {}",
            self.config.facility * 8 + severity,
            when::rfc3339(event.time_us),
            self.host,
            std::process::id(),
            event.class,
            event.json
        );
        format!("{} {message}", message.len())
    }
}

impl Deliver for Syslog {
    fn deliver(&mut self, batch: &[Event]) -> Result<Delivered, Failure> {
        let frames: String = batch.iter().map(|event| self.frame(event)).collect();
        self.send(frames.as_bytes()).map_err(|error| {
            let place = format!("{}:{}: ", self.config.host, self.config.port);
            certificate::refused(&place, &error).unwrap_or_else(|| Failure::later(place + &said(&error)))
        })?;
        Ok(Delivered::all(batch))
    }
}

impl Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Ends our side and waits until the receiver has ended its own, for having read ours.
    fn finish(mut self) -> io::Result<()> {
        std::thread::sleep(LEAVES_WITHIN);
        if peer_has_left(&self.socket().socket) {
            return Err(unread());
        }
        if let Self::Tls(stream) = &mut self {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        self.socket().socket.shutdown(Shutdown::Write)?;
        let mut rest = [0; 1024];
        if let Self::Tls(stream) = &mut self {
            // An alert says why it took nothing. An end without a word is as good as one with, after ours.
            loop {
                match stream.read(&mut rest) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let plain = self.socket();
        while plain.read(&mut rest)? > 0 {}
        has_read(&plain.socket)
    }

    fn socket(&mut self) -> &mut Timed {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &mut stream.sock,
        }
    }

    /// Has the receiver left it open? What it sends unasked does not matter.
    fn is_open(&self) -> bool {
        let socket = match self {
            Self::Plain(stream) => &stream.socket,
            Self::Tls(stream) => &stream.sock.socket,
        };
        let looked = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut [0]));
        let closed = match looked {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        !closed && socket.set_nonblocking(false).is_ok()
    }
}

/// Has the receiver, which has closed its side, met the end of ours? Its end of the stream comes with an acknowledgement of all that it
/// had got: where ours was not among that, it closed without having read it, and may answer with a reset.
fn has_read(socket: &TcpStream) -> io::Result<()> {
    match socket.take_error()? {
        Some(error) => Err(error),
        None if unacknowledged(socket)? > 0 => Err(unread()),
        None => Ok(()),
    }
}

fn unread() -> io::Error {
    let what = "the connection was closed before what was sent had been read (a proxy whose receiver is down?)";
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

fn tls_of(
    settings: &crate::config::SyslogTls,
    host: &str,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), Failure> {
    let wrong = |what: String| Failure::mend(what, "correct the sink's TLS settings, then reload");
    let roots = tls::roots(settings.ca.as_deref()).map_err(|error| wrong(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots);
    let config = match &settings.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = pem::certificates(cert).map_err(|error| wrong(format!("{}: {error}", cert.display())))?;
            let secret = pem::key(key).map_err(|error| wrong(format!("{}: {error}", key.display())))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| wrong(format!("{}: {error}", cert.display())))?
        }
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| wrong(format!("`{host}` cannot be the name in a certificate")))?;
    Ok((Arc::new(config), name))
}

/// As the kernel says; `-` (RFC 5424's nil) when it cannot stand in a header.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let fits = !name.is_empty() && name.len() <= HOST_CHARS_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { name.to_owned() } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;
    use rustls::RootCertStore;
    use std::net::TcpListener;

    fn sink(port: u16, confirm: bool) -> Syslog {
        let config =
            SyslogSink { host: "127.0.0.1".into(), port, transport: SyslogTransport::Tcp, facility: 13, confirm };
        Syslog::open(&config, Duration::from_secs(10)).expect("opens")
    }

    /// Frames of an octet-counted stream.
    fn frames(mut text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        while let Some((count, rest)) = text.split_once(' ') {
            let (frame, rest) = rest.split_at(count.parse().expect("a count"));
            found.push(frame);
            text = rest;
        }
        found
    }

    #[test]
    fn a_frame_has_the_fields_of_rfc_5424_in_order() {
        let syslog = sink(1, true);
        let severe = Event { severity: 3, json: "{\"é\":1}".into(), ..event(7) };
        let text = format!("{}{}", syslog.frame(&event(1)), syslog.frame(&severe));
        let frames = frames(&text);
        let fields: Vec<&str> = frames[1].splitn(8, ' ').collect();
        assert_eq!((fields[0], fields[1]), ("<108>1", "2026-11-20T02:33:20.000007Z"), "audit, warning");
        assert_eq!((fields[3], fields[5], fields[6], fields[7]), ("lockgate", "datastore_activity", "-", "{\"é\":1}"));
        assert!(frames[0].starts_with("<110>1 "));
    }

    #[test]
    fn a_batch_is_delivered_when_the_receiver_has_read_to_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let receiver = std::thread::spawn(move || {
            // The first connection is dropped unread, as a receiver that dies does.
            drop(listener.accept().expect("a connection"));
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("readable");
            text
        });
        let mut syslog = sink(port, true);
        let batch: Vec<_> = (1..=2000).map(|number| Event { json: "x".repeat(1000), ..event(number) }).collect();
        let failure = syslog.deliver(&batch).expect_err("nobody read it");
        assert!(matches!(failure, Failure::Later { .. }), "{failure:?}");
        assert_eq!(syslog.deliver(&batch).expect("delivered"), Delivered::all(&batch));
        assert_eq!(frames(&receiver.join().expect("it ends")).len(), 2000);
    }

    #[test]
    fn a_receiver_that_closes_its_side_before_ours_has_read_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut syslog = sink(listener.local_addr().expect("bound").port(), true);
        let (over, until_over) = std::sync::mpsc::channel::<()>();
        let receiver = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            stream.shutdown(Shutdown::Write).expect("ended");
            // No reset is on its way while the sink judges.
            let _ = until_over.recv();
        });
        let failure = syslog.deliver(&[event(1)]).expect_err("nobody read it");
        assert!(format!("{failure:?}").contains("before what was sent had been read"), "{failure:?}");
        drop(over);
        receiver.join().expect("it ends");
    }

    #[test]
    fn an_end_that_does_not_acknowledge_ours_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (mut theirs, _) = listener.accept().expect("a connection");
        theirs.shutdown(Shutdown::Write).expect("ended");
        // It takes no more than its buffer holds: the rest, and our end behind it, are not acknowledged.
        ours.set_nonblocking(true).expect("set");
        while (&ours).write(&[0; 1 << 16]).is_ok() {}
        ours.set_nonblocking(false).expect("set");
        ours.shutdown(Shutdown::Write).expect("ended");
        assert_eq!((&ours).read(&mut [0]).expect("its end"), 0);
        has_read(&ours).expect_err("it has read nothing");
        io::copy(&mut theirs, &mut io::sink()).expect("read");
        has_read(&ours).expect("all was read");
        // Reset: what it had not read is gone.
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (theirs, _) = listener.accept().expect("a connection");
        theirs.shutdown(Shutdown::Write).expect("ended");
        assert_eq!((&ours).read(&mut [0]).expect("its end"), 0);
        (&ours).write_all(b"lost").expect("sent");
        drop(theirs);
        has_read(&ours).expect_err("reset");
    }

    /// Reads nothing and keeps talking for some seconds: the beginning of a TLS handshake, and more and more of it.
    fn talker(listener: TcpListener) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let until = Instant::now() + Duration::from_secs(4);
            let mut talk = [0x16, 3, 3, 0x40, 0].into_iter().chain(std::iter::repeat(2));
            while Instant::now() < until
                && let Some(byte) = talk.next()
                && stream.write_all(&[byte]).is_ok()
            {
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    }

    #[test]
    fn a_receiver_that_keeps_talking_does_not_hold_the_sink() {
        let roots = RootCertStore::empty();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        let name = ServerName::try_from("localhost").expect("a name");
        for tls in [None, Some((config, name))] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let mut syslog = sink(listener.local_addr().expect("bound").port(), true);
            (syslog.timeout, syslog.tls) = (Duration::from_millis(300), tls);
            let receiver = talker(listener);
            let failure = syslog.deliver(&[event(1)]).expect_err("it never closed");
            assert!(format!("{failure:?}").contains("no answer in time"), "{failure:?}");
            receiver.join().expect("it ends");
        }
    }

    #[test]
    fn an_open_connection_is_used_again_until_the_receiver_closes_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let mut syslog = sink(port, false);
        (1..3).for_each(|number| drop(syslog.deliver(&[event(number)]).expect("sent")));
        let read = |listener: &TcpListener, frames: usize| {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut text = String::new();
            let mut chunk = [0; 4096];
            while text.matches("lockgate").count() < frames {
                let bytes = stream.read(&mut chunk).expect("readable");
                text += std::str::from_utf8(&chunk[..bytes]).expect("UTF-8");
            }
        };
        read(&listener, 2);
        // Closed there: the next batch finds out before it is written.
        while syslog.open.as_ref().is_some_and(Stream::is_open) {
            std::thread::yield_now();
        }
        syslog.deliver(&[event(3)]).expect("sent");
        read(&listener, 1);
    }
}
