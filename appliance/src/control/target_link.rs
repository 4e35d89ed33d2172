//! A connection of the control thread's own to a target: TCP, then TLS where the target has it, the PostgreSQL way.

use super::login_guard::LoginGuard;
use crate::distrust;
use crate::shard::end_point_binding;
use crate::snapshot::Target;
use codecs::postgres::AuthMethod;
use rustls_pki_types::ServerName;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

/// Tries the target's addresses in turn. Errors never name the address: they may reach a user.
pub async fn connect(target: &Target) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the target's host name has no address");
    for address in &target.resolved {
        match connect_to(*address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

pub async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub type Encrypted = tokio_rustls::client::TlsStream<TcpStream>;

/// The handshake, after the server has said `S`.
pub async fn encrypt(config: Arc<rustls::ClientConfig>, server_name: &str, stream: TcpStream) -> io::Result<Encrypted> {
    let name = ServerName::try_from(server_name.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the target's name cannot be in a certificate"))?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| match distrust::of_io(&error) {
        Some((why, mend)) => io::Error::other(format!("{why}: {mend}")),
        None => error,
    })
}

/// What tokio-postgres needs to encrypt.
pub struct Handshake {
    pub config: Arc<rustls::ClientConfig>,
    pub server_name: String,
    pub require_auth: AuthMethod,
}

impl TlsConnect<TcpStream> for Handshake {
    type Stream = Wrapped;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Wrapped>> + Send>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        Box::pin(async move {
            let stream = encrypt(self.config, &self.server_name, stream).await?;
            let certificates = stream.get_ref().1.peer_certificates();
            let binding = certificates.and_then(|all| end_point_binding(all.first()?));
            Ok(Wrapped { stream: LoginGuard::new(stream, self.require_auth, true), binding })
        })
    }
}

/// Carries tokio-postgres's trait over the TLS stream.
pub struct Wrapped {
    stream: LoginGuard<Encrypted>,
    binding: Option<Vec<u8>>,
}

impl TlsStream for Wrapped {
    fn channel_binding(&self) -> ChannelBinding {
        self.binding.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Wrapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wrapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
