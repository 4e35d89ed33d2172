//! TLS on either side.

use super::*;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::sync::mpsc;

struct Identity {
    certificate: CertificateDer<'static>,
    server: Arc<ServerConfig>,
    /// Trusts this identity alone, asks for the protocol by name.
    client: Arc<ClientConfig>,
}

fn identity(alpn: &[&[u8]]) -> Identity {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let alpn: Vec<Vec<u8>> = alpn.iter().map(|name| name.to_vec()).collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider's versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a certificate and its key");
    server.alpn_protocols = alpn.clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = alpn;
    Identity { certificate, server: Arc::new(server), client: Arc::new(client) }
}

type TlsClient = StreamOwned<ClientConnection, TcpStream>;

fn handshake(socket: TcpStream, config: Arc<ClientConfig>) -> TlsClient {
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(config, name).expect("a configuration"), socket)
}

fn tls_echo(config: Arc<ServerConfig>) -> impl Fn(TcpStream) + Send + Sync + Clone + 'static {
    move |socket| {
        let connection = ServerConnection::new(config.clone()).expect("a configuration");
        let mut stream = StreamOwned::new(connection, socket);
        let mut bytes = [0; 20_000];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if stream.write_all(&bytes[..count]).and_then(|()| stream.flush()).is_err() {
                return;
            }
        }
    }
}

/// Secures the target's side, or the client's, when there is something to secure, and carries bytes then.
struct Secured {
    bare: BareRelay,
    target: bool,
    held: Option<Input>,
    wish: Option<Output>,
    news: mpsc::Sender<String>,
}

impl Secured {
    fn tell(&self, news: String) {
        // A test that has seen enough no longer listens.
        let _ = self.news.send(news);
    }
}

impl Drive for Secured {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        match input {
            Input::Connected if self.target => {
                self.held = Some(Input::Connected);
                self.wish = Some(Output::StartTls(Side::Target));
            }
            Input::Secured { side, binding } => {
                self.tell(format!("{side:?} {}", binding.map_or("-".into(), |binding| hex(&binding))));
                if let Some(input) = self.held.take() {
                    self.bare.handle(input, pipes, cx);
                }
            }
            Input::TlsFailed { side, reason } => {
                self.tell(format!("{side:?} failed: {reason}"));
                self.bare.handle(Input::TlsFailed { side, reason }, pipes, cx);
            }
            input => self.bare.handle(input, pipes, cx),
        }
    }
    fn poll(&mut self) -> Output {
        self.wish.take().unwrap_or_else(|| self.bare.poll())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn secured(options: ShardOptions, target: Arc<Target>, to_target: bool) -> (Shard, mpsc::Receiver<String>) {
    let (news, told) = mpsc::channel();
    let shard = Shard::start(options, Box::new(NoLog::default()), move |origin, _| {
        let _ = news.send(format!("encrypted {}", origin.encrypted));
        Secured { bare: BareRelay::new(target.clone()), target: to_target, held: None, wish: None, news: news.clone() }
    });
    (shard, told)
}

fn say(stream: &mut (impl Read + Write), words: &[u8]) {
    stream.write_all(words).expect("the shard reads");
    stream.flush().expect("the shard reads");
    let mut back = vec![0; words.len()];
    stream.read_exact(&mut back).expect("the echo");
    assert!(back == words);
}

#[test]
fn direct_tls_from_the_client_and_tls_to_the_target_carry_bytes_both_ways() {
    let (ours, theirs) = (identity(&[ALPN]), identity(&[]));
    let target = target_with(vec![listening(tls_echo(theirs.server.clone()))], Some(theirs.client.clone()));
    let (shard, told) = secured(options_with(Some(ours.server)), target, true);
    let mut client = handshake(shard.connect(), ours.client);
    say(&mut client, b"hello");
    assert_eq!(told.recv_timeout(PATIENCE).expect("a drive is made"), "encrypted true");
    // rcgen signs with ECDSA and SHA-256, so RFC 5929 hashes the certificate with SHA-256.
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &theirs.certificate);
    assert_eq!(told.recv_timeout(PATIENCE).expect("the target is secured"), format!("Target {}", hex(digest.as_ref())));
    for len in [1, 16_384, 16_385, 300_000] {
        say_large(&mut client, &Dice(len as u64).bytes(len));
    }
    client.conn.send_close_notify();
    client.flush().expect("the shard reads");
    assert_eq!(client.read(&mut [0]).expect("a goodbye of its own"), 0);
}

/// In pieces the echo can answer before the next: this client does not read and write at once.
fn say_large(client: &mut TlsClient, words: &[u8]) {
    words.chunks(10_000).for_each(|piece| say(client, piece));
}

#[test]
fn direct_tls_without_the_protocols_name_is_closed() {
    let ours = identity(&[]);
    let (shard, told) = secured(options_with(Some(ours.server)), peer(echo), false);
    let mut client = handshake(shard.connect(), ours.client);
    let _ = client.write_all(b"hello");
    assert!(client.read(&mut [0; 8]).map_or(true, |count| count == 0));
    assert!(told.try_recv().is_err(), "no drive was made");
}

#[test]
fn a_target_whose_certificate_is_not_trusted_fails_with_the_reason() {
    let (theirs, others) = (identity(&[]), identity(&[]));
    let target = target_with(vec![listening(tls_echo(theirs.server))], Some(others.client));
    let (shard, told) = secured(options(), target, true);
    let mut client = shard.connect();
    client.write_all(b"x").expect("the shard reads");
    assert_eq!(told.recv_timeout(PATIENCE).expect("a drive is made"), "encrypted false");
    let reason = told.recv_timeout(PATIENCE).expect("the drive is told");
    assert!(reason.starts_with("Target failed: ") && reason.contains("name the authority with tls_ca"), "{reason}");
    assert_eq!(shard.counters().tls_failures.value(), 1);
}

/// Upgrades the client when its first byte has come, as an SSLRequest would.
struct Upgrade {
    session: codecs::bare::Session,
    bare: BareRelay,
    upgraded: bool,
    /// Leaves the bytes that came with the request undecided.
    careless: bool,
    wish: Option<Output>,
    news: mpsc::Sender<String>,
}

impl Drive for Upgrade {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        match input {
            Input::Bytes(Side::Client) if !self.upgraded => {
                self.upgraded = true;
                if !self.careless {
                    // There is no target yet: cleared bytes go nowhere.
                    self.session.step(Side::Client, pipes);
                }
                self.wish = Some(Output::StartTls(Side::Client));
            }
            Input::Secured { .. } => {}
            Input::TlsFailed { side, reason } => {
                self.news.send(reason.clone()).expect("the test listens");
                self.bare.handle(Input::TlsFailed { side, reason }, pipes, cx);
            }
            input => self.bare.handle(input, pipes, cx),
        }
    }
    fn poll(&mut self) -> Output {
        self.wish.take().unwrap_or_else(|| self.bare.poll())
    }
}

fn upgrading(careless: bool) -> (Shard, mpsc::Receiver<String>, Arc<ClientConfig>) {
    let ours = identity(&[]);
    let target = peer(echo);
    let (news, told) = mpsc::channel();
    let shard = Shard::start(options_with(Some(ours.server)), Box::new(NoLog::default()), move |_, _| Upgrade {
        session: codecs::bare::Session::default(),
        bare: BareRelay::new(target.clone()),
        upgraded: false,
        careless,
        wish: None,
        news: news.clone(),
    });
    (shard, told, ours.client)
}

#[test]
fn a_client_may_upgrade_a_connection_that_began_in_plaintext() {
    let (shard, _told, config) = upgrading(false);
    let mut socket = shard.connect();
    socket.write_all(b"S").expect("the shard reads");
    // The handshake may begin only once the request has been taken: in PostgreSQL the `S` says so.
    while shard.counters().client_bytes.value() == 0 {
        std::thread::yield_now();
    }
    let mut client = handshake(socket, config);
    say(&mut client, b"through TLS");
}

#[test]
fn plaintext_that_arrives_before_the_handshake_is_refused() {
    let (shard, told, _) = upgrading(true);
    let mut client = shard.connect();
    client.write_all(b"SELECT injected").expect("the shard reads");
    assert!(told.recv_timeout(PATIENCE).expect("the drive is told").contains("plaintext before the TLS handshake"));
    assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
}
