//! What rustls takes for a server's side of a full handshake: both ends in memory, no socket. Usage: handshakes CERT.pem KEY.pem
//! COUNT; prints microseconds of CPU each. TLS 1.3 with X25519, as OpenSSL's clients ask for; nothing is resumed.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::error::Error;
use std::sync::Arc;

/// Handshakes that go on side by side, so that the clock is read rarely.
const BATCH: u32 = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key, count] = &args[..] else { return Err("usage: handshakes CERT.pem KEY.pem COUNT".into()) };
    let certificate = CertificateDer::from_pem_file(certificate)?;
    let (server, client) = configs(certificate, PrivateKeyDer::from_pem_file(key)?)?;
    let batches = count.parse::<u32>()?.div_ceil(BATCH);
    // The first ones fill caches and tables.
    handshakes(&server, &client)?;
    let mut spent_ns = 0;
    for _ in 0..batches {
        spent_ns += handshakes(&server, &client)?;
    }
    println!("{:.2}", spent_ns as f64 / 1e3 / f64::from(batches * BATCH));
    Ok(())
}

fn configs(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), Box<dyn Error>> {
    let mut server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    // As the gateway has it: see control/certificates.rs.
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
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

/// CPU time of this thread: other work on the machine does not count.
fn cpu_ns() -> Result<u64, Box<dyn Error>> {
    // The kernel brings the number up to date when a thread gives way.
    std::thread::yield_now();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split_whitespace().next().ok_or("schedstat is empty")?.parse()?)
}

/// One connection, and the bytes on their way.
struct Pair {
    client: ClientConnection,
    server: ServerConnection,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl Pair {
    fn step_client(&mut self) -> Result<(), Box<dyn Error>> {
        let mut unread = &self.to_client[..];
        while !unread.is_empty() {
            self.client.read_tls(&mut unread)?;
            self.client.process_new_packets()?;
        }
        self.to_client.clear();
        while self.client.wants_write() {
            self.client.write_tls(&mut self.to_server)?;
        }
        Ok(())
    }

    fn step_server(&mut self) -> Result<(), Box<dyn Error>> {
        let mut unread = &self.to_server[..];
        while !unread.is_empty() {
            self.server.read_tls(&mut unread)?;
            self.server.process_new_packets()?;
        }
        self.to_server.clear();
        while self.server.wants_write() {
            self.server.write_tls(&mut self.to_client)?;
        }
        Ok(())
    }

    fn is_open(&self) -> bool {
        !self.client.is_handshaking() && !self.server.is_handshaking()
    }
}

/// A batch of handshakes to their end; nanoseconds of CPU that the server's side took.
fn handshakes(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Result<u64, Box<dyn Error>> {
    let pair = |_| -> Result<Pair, Box<dyn Error>> {
        Ok(Pair {
            client: ClientConnection::new(client.clone(), ServerName::try_from("localhost")?)?,
            server: ServerConnection::new(server.clone())?,
            to_server: Vec::new(),
            to_client: Vec::new(),
        })
    };
    let mut pairs = (0..BATCH).map(pair).collect::<Result<Vec<_>, _>>()?;
    let mut spent_ns = 0;
    while !pairs.iter().all(Pair::is_open) {
        pairs.iter_mut().try_for_each(Pair::step_client)?;
        let start = cpu_ns()?;
        pairs.iter_mut().try_for_each(Pair::step_server)?;
        spent_ns += cpu_ns()? - start;
    }
    Ok(spent_ns)
}
