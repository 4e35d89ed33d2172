//! The ends of a relay that speak TLS: what came in is decrypted into the window, what goes out is encrypted from it.

use super::{Phase, Relay};
use crate::gate::{Drive, Input};
use crate::shard::io::Io;
use crate::shard::ring::{Chunk, Payload};
use crate::shard::tls::{ALPN, Tls};
use codecs::{Piece, Side};

impl<D: Drive> Relay<D> {
    pub(super) fn begin_direct_tls(&mut self, io: &mut Io<D>) {
        self.phase = Phase::DirectTls;
        let config = self
            .terms
            .tls
            .as_ref()
            .expect("a ClientHello is looked for only where TLS is offered")
            .load()
            .config
            .clone();
        let Ok(tls) = Tls::server(config) else { return self.die(io) };
        let end = &mut self.ends[Side::Client as usize];
        end.tls = Some(Box::new(tls));
        let hello = std::mem::take(&mut end.window).into_payload();
        self.decrypt_payload(Side::Client, hello, io);
    }

    pub(super) fn start_tls(&mut self, side: Side, io: &mut Io<D>) {
        match self.tls_for(side) {
            Ok(tls) => {
                self.ends[side as usize].tls = Some(Box::new(tls));
                self.flush_tls(side, io);
            }
            Err(reason) => io.later.push_back((self.id, Input::TlsFailed { side, reason })),
        }
    }

    fn tls_for(&self, side: Side) -> Result<Tls, String> {
        if !self.ends[side as usize].window.is_empty() {
            // CVE-2021-23214, CVE-2021-23222: they would be taken for bytes that came encrypted.
            return Err("bytes arrived in plaintext before the TLS handshake".to_string());
        }
        match side {
            Side::Client => {
                let config = self.terms.tls.as_ref().ok_or("the listener offers no TLS")?;
                Tls::server(config.load().config.clone())
            }
            Side::Target => {
                let target = self.target.as_ref().ok_or("no target is connected")?;
                let config = target.tls.clone().ok_or("the target is configured without TLS")?;
                Tls::client(config, &target.server_name)
            }
        }
    }

    pub(super) fn decrypt(&mut self, side: Side, chunk: Chunk, io: &mut Io<D>) {
        self.decrypt_payload(side, Payload::Borrowed(chunk), io);
    }

    fn decrypt_payload(&mut self, side: Side, cipher: Payload, io: &mut Io<D>) {
        let end = &mut self.ends[side as usize];
        let Some(tls) = &mut end.tls else { unreachable!("only an end with TLS decrypts") };
        end.window.joined(io.ring.buffers_mut(), &mut io.pool);
        let plain = end.window.vector();
        let before = plain.len();
        let fed = match &cipher {
            Payload::Borrowed(chunk) => tls.receive(io.ring.buffers().bytes(chunk), plain),
            Payload::Owned { bytes, start, end } => tls.receive(&bytes[*start..*end], plain),
        };
        let grown = plain.len() > before;
        io.discard(cipher);
        self.flush_tls(side, io);
        match fed {
            Ok(progress) => {
                if progress.secured {
                    self.secured(side, io);
                }
                if grown && self.phase != Phase::Dead {
                    self.look(side, io);
                }
                if progress.closed {
                    self.end(side, io);
                }
            }
            Err(reason) => self.tls_failed(side, reason, io),
        }
    }

    fn secured(&mut self, side: Side, io: &mut Io<D>) {
        let tls = self.ends[side as usize].tls.as_ref().expect("its handshake has just been completed");
        if self.phase == Phase::DirectTls {
            if tls.alpn() != Some(ALPN) {
                return self.die(io);
            }
            return self.open(true, io);
        }
        let binding = if side == Side::Target { tls.binding() } else { None };
        self.drive(Input::Secured { side, binding }, io);
    }

    fn tls_failed(&mut self, side: Side, reason: String, io: &mut Io<D>) {
        io.counters.tls_failures.add(1);
        self.ends[side as usize].ended = true;
        match self.phase {
            Phase::Open => self.drive(Input::TlsFailed { side, reason }, io),
            Phase::AwaitFirstByte | Phase::DirectTls => self.close(io),
            Phase::Flushing | Phase::Lingering | Phase::Dead => {}
        }
    }

    pub(super) fn encrypt(&mut self, from: Side, to: Side, pieces: &[Piece], composed: &[u8], io: &mut Io<D>) {
        let (from, to_end) = match (from, &mut self.ends) {
            (Side::Client, [client, target]) => (client, target),
            (Side::Target, [client, target]) => (target, client),
        };
        let Some(tls) = &mut to_end.tls else { unreachable!("only an end with TLS encrypts") };
        let window = from.window.bytes(io.ring.buffers());
        for piece in pieces {
            match *piece {
                Piece::Pass { start, end } => tls.send(&window[start..end]),
                Piece::Composed { start, end } => tls.send(&composed[start..end]),
            }
        }
        self.flush_tls(to, io);
    }

    /// Queues what TLS has to say.
    fn flush_tls(&mut self, side: Side, io: &mut Io<D>) {
        let Some(tls) = &mut self.ends[side as usize].tls else { return };
        let mut cipher = io.pool.take();
        tls.drain(&mut cipher);
        if cipher.is_empty() {
            return io.pool.give(cipher);
        }
        self.queue(side, Payload::owned(cipher), io);
    }

    pub(super) fn say_goodbye(&mut self, side: Side, io: &mut Io<D>) {
        let end = &mut self.ends[side as usize];
        if let Some(tls) = &mut end.tls
            && !end.finishing
        {
            tls.send_close();
            self.flush_tls(side, io);
        }
    }
}
