//! A non-blocking stream, plain or under TLS.

use crate::sys::{self, Address};
use crate::target::{Target, TlsMode};
use anyhow::{Context, Result, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

#[derive(Debug)]
pub enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Transport {
    /// Begins to connect. A Unix socket rides in a `TcpStream` too: reading and writing are the same calls on both.
    pub fn connect(address: &Address) -> io::Result<Transport> {
        Ok(Transport::Plain(TcpStream::from(sys::connect(address)?)))
    }

    /// How connecting ended; to be asked once the socket is writable.
    pub fn connected(&self) -> io::Result<()> {
        let Transport::Plain(socket) = self else { return Ok(()) };
        match socket.take_error()? {
            Some(error) => Err(error),
            None => {
                // A Unix socket has no such option and needs none.
                let _ = socket.set_nodelay(true);
                Ok(())
            }
        }
    }

    /// The server agreed to TLS: from here on everything is under it.
    pub fn encrypt(self, config: &Arc<ClientConfig>, host: &str) -> Result<Transport> {
        let Transport::Plain(socket) = self else { return Ok(self) };
        let name = ServerName::try_from(host.to_string()).with_context(|| format!("`{host}` cannot be a TLS name"))?;
        let connection = ClientConnection::new(Arc::clone(config), name)?;
        Ok(Transport::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    pub fn is_tls(&self) -> bool {
        matches!(self, Transport::Tls(_))
    }

    /// TLS records are waiting for room in the socket.
    pub fn wants_write(&self) -> bool {
        matches!(self, Transport::Tls(stream) if stream.conn.wants_write())
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.read(buffer),
            Transport::Tls(stream) => stream.read(buffer),
        }
    }

    /// Has the kernel note when bytes arrive; says whether it does. Under TLS it would be the time of a record, not of a message.
    pub fn stamp_arrivals(&self) -> bool {
        matches!(self, Transport::Plain(socket) if sys::stamp_arrivals(socket.as_raw_fd()).is_ok())
    }

    /// As [`Transport::read`], with the time of arrival where that is noted.
    pub fn read_stamped(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
        match self {
            Transport::Plain(socket) => sys::receive_stamped(socket.as_raw_fd(), buffer),
            Transport::Tls(_) => self.read(buffer).map(|count| (count, None)),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.write(bytes),
            Transport::Tls(stream) => stream.write(bytes),
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Plain(_) => Ok(()),
            Transport::Tls(stream) => stream.flush(),
        }
    }
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Transport::Plain(socket) => socket.as_raw_fd(),
            Transport::Tls(stream) => stream.sock.as_raw_fd(),
        }
    }
}

/// The TLS configuration a target asks for.
pub fn tls_config(target: &Target) -> Result<Option<Arc<ClientConfig>>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut config = match target.tls {
        TlsMode::Disable => return Ok(None),
        TlsMode::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
        TlsMode::VerifyFull => builder.with_root_certificates(roots(target)?).with_no_client_auth(),
    };
    // Every connection is a new client: a resumed session would cost the server a fraction of a handshake.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Some(Arc::new(config)))
}

fn roots(target: &Target) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match &target.tls_ca {
        Some(file) => {
            for certificate in CertificateDer::pem_file_iter(file).with_context(|| format!("cannot read `{file}`"))? {
                roots.add(certificate.with_context(|| format!("`{file}` is no PEM file"))?)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    match &target.tls_ca {
        Some(file) => ensure!(!roots.is_empty(), "`{file}` holds no certificate"),
        None => ensure!(
            !roots.is_empty(),
            "there is no CA to check the server with: name one with sslrootcert=FILE, or use sslmode=require"
        ),
    }
    Ok(roots)
}

/// `sslmode=require`: encrypted, but anybody could be at the other end, as with libpq.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
