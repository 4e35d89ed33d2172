//! Kafka: each event one message of a topic, acknowledged by all replicas in sync. Behind the cargo feature `kafka`.
//!
//! ```text
//! key     the session: its events stay in one partition, in order; the appliance's id for what belongs to none
//! value   the OCSF event, JSON
//! header  id: the event's id, the same for ever
//! ```
//! A batch is as many requests as its sessions have partitions. What of it is acknowledged when another part fails is
//! remembered, and left out when the courier comes with it again.

use super::deliver::{Deliver, Delivered, Failure};
use super::join::Event;
use super::secret;
use crate::config::{KafkaSasl, KafkaSink, KafkaTls, SaslMechanism};
use crate::snapshot::tls;
use rskafka::chrono::DateTime;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use rskafka::record::Record;
use rskafka::{BackoffConfig, BackoffError, ConnectionError, SaslError};
use rustls::ClientConfig;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

pub struct Kafka {
    /// `None`: the last one was given up with what hung in it.
    runtime: Option<Runtime>,
    timeout: Duration,
    producer: Producer,
}

/// What runs on the runtime.
struct Producer {
    config: KafkaSink,
    tls: Option<Arc<ClientConfig>>,
    sasl: Option<SaslConfig>,
    appliance: String,
    link: Option<Link>,
    /// Ids of events that a broker has, of batches that failed as a whole: at most one batch.
    taken: HashSet<String>,
}

/// A cluster that has answered.
struct Link {
    client: Client,
    /// Of the topic, in their order. Never empty. Partitions that are added later are used after the next connect.
    partitions: Vec<i32>,
    /// A connection each, to its leader.
    open: BTreeMap<i32, Arc<PartitionClient>>,
}

impl Kafka {
    pub fn open(config: &KafkaSink, timeout: Duration, appliance: &str) -> Result<Self, Failure> {
        let producer = Producer {
            config: config.clone(),
            tls: config.tls.as_ref().map(tls_of).transpose()?,
            sasl: config.sasl.as_ref().map(login).transpose()?,
            appliance: appliance.to_owned(),
            link: None,
            taken: HashSet::new(),
        };
        Ok(Self { runtime: None, timeout, producer })
    }

    /// One attempt, within one deadline for everything in it: connecting, logging in, each of the requests.
    fn send(&mut self, batch: &[Event]) -> Result<(), Failure> {
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => crate::workers::runtime(1, "kafka-names")
                .map_err(|error| Failure::later(format!("no runtime for Kafka: {error}")))?,
        };
        let (timeout, producer) = (self.timeout, &mut self.producer);
        match runtime.block_on(async { tokio::time::timeout(timeout, producer.send(batch)).await }) {
            Ok(sent) => {
                self.runtime = Some(runtime);
                sent
            }
            Err(_) => {
                // rskafka finishes a request it has begun to write, in a task of its own: one that hangs goes with the runtime.
                producer.link = None;
                runtime.shutdown_background();
                Err(Failure::later(format!("no answer within {} s", timeout.as_secs_f32())))
            }
        }
    }
}

/// A name that is being looked up cannot be interrupted: it is not waited for either.
impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Deliver for Kafka {
    fn deliver(&mut self, batch: &[Event]) -> Result<Delivered, Failure> {
        match self.send(batch) {
            Ok(()) => {
                for event in batch {
                    self.producer.taken.remove(&event.uid);
                }
                Ok(Delivered::all(batch))
            }
            Err(failure) => {
                if matches!(failure, Failure::Later { .. }) {
                    // Whatever is wrong with it, and with what it knows of the cluster, ends with it.
                    self.producer.link = None;
                }
                Err(failure)
            }
        }
    }
}

impl Producer {
    async fn send(&mut self, batch: &[Event]) -> Result<(), Failure> {
        let kept = self.link.is_some();
        match self.attempt(batch).await {
            // Brokers close connections that were idle, and leaders move: that shows only when something is sent.
            Err(Failure::Later { .. }) if kept => {
                self.link = None;
                self.attempt(batch).await
            }
            other => other,
        }
    }

    async fn attempt(&mut self, batch: &[Event]) -> Result<(), Failure> {
        let link = match self.link.take() {
            Some(link) => link,
            None => self.connect().await?,
        };
        let link = self.link.insert(link);
        let mut shares: BTreeMap<i32, Vec<&Event>> = BTreeMap::new();
        for event in batch.iter().filter(|event| !self.taken.contains(&event.uid)) {
            let partition = partition(&link.partitions, key(event, &self.appliance));
            shares.entry(partition).or_default().push(event);
        }
        // All leaders are found before anything is sent: what is on its way when one is missing would come twice.
        for &number in shares.keys() {
            link.connect(number, &self.config.topic).await?;
        }
        let mut sending = JoinSet::new();
        for (number, events) in shares {
            let partition = link.open[&number].clone();
            let records = events.iter().map(|event| record(event, &self.appliance)).collect();
            let uids: Vec<_> = events.iter().map(|event| event.uid.clone()).collect();
            sending.spawn(async move { (partition.produce(records, Compression::NoCompression).await, uids) });
        }
        let mut worst = None;
        while let Some(answer) = sending.join_next().await {
            let failed = match answer {
                Ok((Ok(_), uids)) => {
                    self.taken.extend(uids);
                    continue;
                }
                Ok((Err(error), _)) => failure(&error),
                Err(panicked) => Failure::later(panicked.to_string()),
            };
            // First what waiting mends; then a refusal, which splits the batch.
            if !matches!((&worst, &failed), (Some(_), Failure::Refused { .. })) {
                worst = Some(failed);
            }
        }
        worst.map_or(Ok(()), Err)
    }

    async fn connect(&self) -> Result<Link, Failure> {
        // The courier is who tries again: rskafka gives up at the first failure.
        let backoff = BackoffConfig { deadline: Some(Duration::ZERO), ..BackoffConfig::default() };
        let mut builder = ClientBuilder::new(self.config.brokers.clone()).client_id("lockgate").backoff_config(backoff);
        if let Some(tls) = &self.tls {
            builder = builder.tls_config(tls.clone());
        }
        if let Some(sasl) = &self.sasl {
            builder = builder.sasl_config(sasl.clone());
        }
        let client = builder.build().await.map_err(|error| failure(&error))?;
        let topics = client.list_topics().await.map_err(|error| failure(&error))?;
        let topic = topics.into_iter().find(|topic| topic.name == self.config.topic);
        let partitions: Vec<_> = topic.map(|topic| topic.partitions.into_iter().collect()).unwrap_or_default();
        if partitions.is_empty() {
            return Err(Failure::mend(
                format!("the cluster shows no topic `{}`", self.config.topic),
                "make the topic, correct `topic`, or let the sink's user describe it",
            ));
        }
        Ok(Link { client, partitions, open: BTreeMap::new() })
    }
}

impl Link {
    /// To the leader of a partition, unless there is one.
    async fn connect(&mut self, partition: i32, topic: &str) -> Result<(), Failure> {
        if let Entry::Vacant(vacant) = self.open.entry(partition) {
            let made = self.client.partition_client(topic, partition, UnknownTopicHandling::Error).await;
            vacant.insert(Arc::new(made.map_err(|error| failure(&error))?));
        }
        Ok(())
    }
}

fn key<'e>(event: &'e Event, appliance: &'e str) -> &'e str {
    if event.session.is_empty() { appliance } else { &event.session }
}

fn record(event: &Event, appliance: &str) -> Record {
    Record {
        key: Some(key(event, appliance).as_bytes().to_vec()),
        value: Some(event.json.as_bytes().to_vec()),
        headers: [("id".to_owned(), event.uid.as_bytes().to_vec())].into(),
        // Kafka's unit; rskafka would round a batch's times one against the other.
        timestamp: DateTime::from_timestamp_millis(event.time_us.div_euclid(1000)).unwrap_or_default(),
    }
}

/// The one that Kafka's own producers would choose for this key. `partitions` is not empty.
fn partition(partitions: &[i32], key: &str) -> i32 {
    partitions[(murmur2(key.as_bytes()) & 0x7fff_ffff) as usize % partitions.len()]
}

/// As in `org.apache.kafka.common.utils.Utils`.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let word = word.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (word ^ word >> 24).wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash = (hash ^ rest.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

fn tls_of(settings: &KafkaTls) -> Result<Arc<ClientConfig>, Failure> {
    let wrong = |what: String| Failure::mend(what, "correct the sink's TLS settings, then reload");
    let roots = tls::roots(settings.ca.as_deref()).map_err(|error| wrong(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn login(sasl: &KafkaSasl) -> Result<SaslConfig, Failure> {
    let credentials = Credentials::new(sasl.user.clone(), secret::read(&sasl.password)?.to_string());
    Ok(match sasl.mechanism {
        SaslMechanism::Plain => SaslConfig::Plain(credentials),
        SaslMechanism::ScramSha256 => SaslConfig::ScramSha256(credentials),
        SaslMechanism::ScramSha512 => SaslConfig::ScramSha512(credentials),
    })
}

/// What an error means to the courier.
fn failure(error: &Error) -> Failure {
    match error {
        Error::ServerError { protocol_error, .. } => answered(*protocol_error),
        // That is how rskafka says that it does not try again.
        Error::RetryFailed(BackoffError::DeadlineExceded { source, .. }) => {
            source.downcast_ref::<Error>().map_or_else(|| unreachable(&source.to_string()), failure)
        }
        Error::Connection(ConnectionError::RetryFailed(BackoffError::DeadlineExceded { source, .. })) => {
            unreachable(&source.to_string())
        }
        Error::Connection(ConnectionError::SaslFailed(SaslError::ApiError(code))) => answered(*code),
        other => unreachable(&other.to_string()),
    }
}

/// A code of the protocol.
fn answered(code: ProtocolError) -> Failure {
    let what = format!("the broker answered {code}");
    match code {
        // About what was sent: with fewer events it may fit, and the one that does not goes aside.
        ProtocolError::MessageTooLarge
        | ProtocolError::RecordListTooLarge
        | ProtocolError::InvalidRecord
        | ProtocolError::InvalidTimestamp => Failure::Refused { what },
        ProtocolError::UnknownTopicOrPartition | ProtocolError::InvalidTopicException => {
            Failure::mend(what, "make the topic, or correct `topic`")
        }
        ProtocolError::TopicAuthorizationFailed | ProtocolError::ClusterAuthorizationFailed => {
            Failure::mend(what, "let the sink's user describe the topic and write to it")
        }
        ProtocolError::SaslAuthenticationFailed
        | ProtocolError::UnsupportedSaslMechanism
        | ProtocolError::IllegalSaslState => Failure::mend(what, LOGIN),
        // Elections, replicas that are behind, disks: the cluster's own.
        _ => Failure::later(what),
    }
}

const LOGIN: &str = "correct `sasl`, `user` and the password, then reload";

/// rskafka has only a text where it asked several brokers; it never holds the credential.
fn unreachable(text: &str) -> Failure {
    let what = format!("no broker can be used: {text}");
    // A connection that broke during the login says nothing of the credential.
    if text.contains("Sasl") && !text.contains("Request error") {
        return Failure::mend(what, LOGIN);
    }
    if text.contains("invalid peer certificate") {
        return Failure::mend(
            what,
            "name the brokers' authority with tls_ca, and the brokers as their certificates do",
        );
    }
    Failure::later(what)
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;
    use crate::config::Secret;
    use rskafka::client::error::RequestContext;
    use std::net::TcpListener;
    use std::time::Instant;

    /// The pairs of Kafka's own test, `UtilsTest.testMurmur2`.
    #[test]
    fn keys_are_hashed_as_kafkas_own_producers_do() {
        for (text, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, expected, "{text}");
        }
    }

    #[test]
    fn a_session_has_one_partition_and_sessions_have_all_of_them() {
        let partitions = [0, 1, 2, 5];
        let of = |number: u32| partition(&partitions, &format!("session-{number}"));
        assert!((0..100).all(|number| of(number) == of(number)));
        let used: HashSet<_> = (0..100).map(of).collect();
        assert_eq!(used, HashSet::from(partitions));
        assert_eq!(partition(&[7], "any"), 7);
    }

    #[test]
    fn a_message_has_key_value_id_and_the_events_time() {
        let made = record(&event(7), "aa");
        assert_eq!((made.key.as_deref(), made.value.as_deref()), (Some(&b"s-a"[..]), Some(&b"{\"n\":7}"[..])));
        assert_eq!(made.headers, BTreeMap::from([("id".to_owned(), b"u-7".to_vec())]));
        assert_eq!(made.timestamp.timestamp_micros(), event(7).time_us / 1000 * 1000);
        let gateway = Event { session: String::new(), ..event(8) };
        assert_eq!(record(&gateway, "aa").key.as_deref(), Some(&b"aa"[..]));
    }

    fn kind(failure: &Failure) -> &'static str {
        match failure {
            Failure::Refused { .. } => "split",
            Failure::Later { mend: None, .. } => "wait",
            Failure::Later { mend: Some(_), .. } => "mend",
        }
    }

    fn server(protocol_error: ProtocolError) -> Error {
        let request = RequestContext::Partition("t".into(), 0);
        Error::ServerError { protocol_error, error_message: None, request, response: None, is_virtual: false }
    }

    #[test]
    fn a_code_says_whether_to_wait_to_split_or_to_mend() {
        for (codes, expected) in [
            (
                &[ProtocolError::MessageTooLarge, ProtocolError::RecordListTooLarge, ProtocolError::InvalidRecord][..],
                "split",
            ),
            (
                &[
                    ProtocolError::NotEnoughReplicas,
                    ProtocolError::LeaderNotAvailable,
                    ProtocolError::NotLeaderOrFollower,
                    ProtocolError::RequestTimedOut,
                    ProtocolError::KafkaStorageError,
                    ProtocolError::CorruptMessage,
                    ProtocolError::Unknown(999),
                ],
                "wait",
            ),
            (
                &[
                    ProtocolError::UnknownTopicOrPartition,
                    ProtocolError::TopicAuthorizationFailed,
                    ProtocolError::SaslAuthenticationFailed,
                ],
                "mend",
            ),
        ] {
            for &code in codes {
                assert_eq!(kind(&failure(&server(code))), expected, "{code}");
                let tried = BackoffError::DeadlineExceded { deadline: Duration::ZERO, source: Box::new(server(code)) };
                assert_eq!(kind(&failure(&Error::RetryFailed(tried))), expected, "{code}, wrapped");
            }
        }
    }

    #[test]
    fn a_connection_that_fails_is_tried_again_unless_the_settings_are_wrong() {
        for (text, expected) in [
            ("error connecting to broker \"b:1\": IO Error: Connection refused (os error 111)", "wait"),
            ("Sasl handshake failed: Request error: Connection is poisoned: early eof", "wait"),
            ("Sasl handshake failed: API error: SaslAuthenticationFailed", "mend"),
            ("error connecting to broker \"b:1\": IO Error: invalid peer certificate: UnknownIssuer", "mend"),
        ] {
            let tried = BackoffError::DeadlineExceded { deadline: Duration::ZERO, source: text.into() };
            let failure = failure(&Error::Connection(ConnectionError::RetryFailed(tried)));
            assert_eq!(kind(&failure), expected, "{text}");
        }
    }

    fn sink(port: u16, timeout: Duration) -> Kafka {
        let brokers = vec![format!("127.0.0.1:{port}")];
        let config = KafkaSink { brokers, topic: "audit".into(), tls: None, sasl: None };
        Kafka::open(&config, timeout, "aa").expect("opens")
    }

    #[test]
    fn a_broker_that_is_away_or_says_nothing_costs_its_timeout_at_most() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = silent.local_addr().expect("bound").port();
        let began = Instant::now();
        let failure = sink(port, Duration::from_millis(200)).deliver(&[event(1)]).expect_err("nobody answers");
        assert!(
            matches!(&failure, Failure::Later { what, .. } if what.contains("no answer within 0.2 s")),
            "{failure:?}"
        );
        drop(silent);
        let failure = sink(port, Duration::from_secs(60)).deliver(&[event(1)]).expect_err("nobody is there");
        assert!(matches!(&failure, Failure::Later { mend: None, what, .. } if what.contains("refused")), "{failure:?}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    /// A broker that hangs up once the connection is encrypted, and once more for each try.
    fn encrypted(authority: &std::path::Path) -> u16 {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(authority, made.cert.pem()).expect("written");
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a server");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut server = rustls::ServerConnection::new(config.clone()).expect("a connection");
                while server.is_handshaking() && server.complete_io(&mut stream).is_ok() {}
            }
        });
        port
    }

    #[test]
    fn brokers_must_show_a_certificate_of_an_authority_that_is_trusted() {
        let dir = tempfile::tempdir().expect("a directory");
        let (own, other) = (dir.path().join("own.pem"), dir.path().join("other.pem"));
        let port = encrypted(&own);
        encrypted(&other);
        let deliver = |ca: &std::path::Path| {
            let tls = Some(KafkaTls { ca: Some(ca.to_owned()) });
            let brokers = vec![format!("localhost:{port}")];
            let config = KafkaSink { brokers, topic: "audit".into(), tls, sasl: None };
            let mut kafka = Kafka::open(&config, Duration::from_secs(10), "aa").expect("opens");
            kafka.deliver(&[event(1)]).expect_err("no broker at all")
        };
        let stranger = deliver(&other);
        assert!(
            matches!(&stranger, Failure::Later { mend: Some(mend), .. } if mend.contains("tls_ca")),
            "{stranger:?}"
        );
        let friend = deliver(&own);
        assert!(matches!(&friend, Failure::Later { mend: None, .. }), "encrypted, then hung up: {friend:?}");
    }

    #[test]
    fn a_password_that_cannot_be_read_is_told_before_anything_is_connected() {
        let sasl = KafkaSasl {
            mechanism: SaslMechanism::ScramSha256,
            user: "lockgate".into(),
            password: Secret::Env("LOCKGATE_TEST_NO_SUCH_VARIABLE".into()),
        };
        let tls = Some(KafkaTls { ca: None });
        let config = KafkaSink { brokers: vec!["h:1".into()], topic: "t".into(), tls, sasl: Some(sasl) };
        let failed = Kafka::open(&config, Duration::from_secs(1), "aa").err().expect("there is none");
        assert!(matches!(failed, Failure::Later { mend: Some(_), .. }), "{failed:?}");
    }
}
