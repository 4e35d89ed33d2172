//! What rustls takes for a server's side of a full handshake: both ends in memory, no socket. Usage: handshakes CERT.pem KEY.pem
//! COUNT; prints microseconds of CPU each. TLS 1.3 with X25519, as OpenSSL's clients ask for; nothing is resumed.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key, count] = &args[..] else { return Err("usage: handshakes CERT.pem KEY.pem COUNT".into()) };
    let certificate = CertificateDer::from_pem_file(certificate)?;
    let (server, client) = configs(certificate, PrivateKeyDer::from_pem_file(key)?)?;
    let count: u32 = count.parse()?;
    // The first ones fill caches and tables.
    for _ in 0..count.min(50) {
        handshake(&server, &client)?;
    }
    let mut spent = Duration::ZERO;
    for _ in 0..count {
        spent += handshake(&server, &client)?;
    }
    println!("{:.2}", spent.as_secs_f64() * 1e6 / f64::from(count));
    Ok(())
}

fn configs(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), Box<dyn Error>> {
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.resumption = rustls::client::Resumption::disabled();
    Ok((Arc::new(server), Arc::new(client)))
}

/// One handshake to its end; the time the server's side took.
fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Result<Duration, Box<dyn Error>> {
    let mut client = ClientConnection::new(client.clone(), ServerName::try_from("localhost")?)?;
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let start = Instant::now();
    let mut server = ServerConnection::new(server.clone())?;
    let mut spent = start.elapsed();
    while client.is_handshaking() || server.is_handshaking() {
        to_server.clear();
        while client.wants_write() {
            client.write_tls(&mut to_server)?;
        }
        to_client.clear();
        let start = Instant::now();
        let mut unread = &to_server[..];
        while !unread.is_empty() {
            server.read_tls(&mut unread)?;
            server.process_new_packets()?;
        }
        while server.wants_write() {
            server.write_tls(&mut to_client)?;
        }
        spent += start.elapsed();
        let mut unread = &to_client[..];
        while !unread.is_empty() {
            client.read_tls(&mut unread)?;
            client.process_new_packets()?;
        }
    }
    Ok(spent)
}
