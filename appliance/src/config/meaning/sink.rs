//! `[[sink]]`: which keys a kind needs and has.

use super::*;
use crate::config::units::parse_host_port;
use std::path::Component;

/// Keys that only some kinds have, and which.
macro_rules! keys {
    ($($key:ident: $($kind:ident)+;)+) => {
        /// Those of them that are in the file, with their places.
        fn given(raw: &raw::Sink) -> Vec<(&'static str, Span, &'static [raw::SinkKind])> {
            let all = [$((
                stringify!($key), raw.$key.as_ref().map(At::span), &[$(raw::SinkKind::$kind),+] as &'static [_],
            )),+];
            all.into_iter().filter_map(|(key, span, kinds)| Some((key, span?, kinds))).collect()
        }
    };
}

keys! {
    path: File;
    rotate_mib: File;
    rotate_every: File;
    keep: File;
    sync: File;
    address: Syslog;
    transport: Syslog;
    tls_cert: Syslog;
    tls_key: Syslog;
    facility: Syslog;
    confirm: Syslog;
    url: Splunk Otlp Webhook;
    token_env: Splunk Otlp Webhook;
    token_file: Splunk Otlp Webhook;
    secret_env: Webhook;
    secret_file: Webhook;
    index: Splunk;
    source: Splunk;
    sourcetype: Splunk;
    region: CloudWatch S3;
    endpoint: CloudWatch S3;
    access_key_id: CloudWatch S3;
    secret_key_env: CloudWatch S3;
    secret_key_file: CloudWatch S3;
    session_token_file: CloudWatch S3;
    log_group: CloudWatch;
    log_stream: CloudWatch;
    bucket: S3;
    prefix: S3;
    brokers: Kafka;
    topic: Kafka;
    tls: Kafka;
    sasl: Kafka;
    user: Kafka;
    password_env: Kafka;
    password_file: Kafka;
    tls_ca: Syslog Splunk CloudWatch Otlp S3 Kafka Webhook;
    allow_plaintext: Splunk CloudWatch Otlp S3 Kafka Webhook;
}

const NAME_CHARS_MAX: usize = 64;
/// Kafka's own limit.
const TOPIC_CHARS_MAX: usize = 249;
const FLUSH_BOUNDS: Bounds = (Duration::ZERO, Duration::from_secs(3600));
const RETRY_BOUNDS: Bounds = (Duration::from_millis(100), Duration::from_secs(86_400));
const ROTATE_BOUNDS: Bounds = (Duration::from_secs(1), Duration::MAX);

fn name_of(kind: raw::SinkKind) -> &'static str {
    match kind {
        raw::SinkKind::File => "file",
        raw::SinkKind::Syslog => "syslog",
        raw::SinkKind::Splunk => "splunk",
        raw::SinkKind::CloudWatch => "cloudwatch",
        raw::SinkKind::Otlp => "otlp",
        raw::SinkKind::S3 => "s3",
        raw::SinkKind::Kafka => "kafka",
        raw::SinkKind::Webhook => "webhook",
    }
}

impl Check<'_> {
    pub(super) fn sink(&mut self, raw: &At<raw::Sink>) -> Sink {
        self.foreign_keys(raw);
        let kind = match raw.kind {
            raw::SinkKind::File => SinkKind::File(self.file_sink(raw)),
            raw::SinkKind::Syslog => SinkKind::Syslog(self.syslog_sink(raw)),
            raw::SinkKind::Splunk => SinkKind::Splunk(self.splunk_sink(raw)),
            raw::SinkKind::CloudWatch => SinkKind::CloudWatch(self.cloudwatch_sink(raw)),
            raw::SinkKind::Otlp => SinkKind::Otlp(OtlpSink { place: self.http_place(raw), token: self.token(raw) }),
            raw::SinkKind::S3 => SinkKind::S3(self.s3_sink(raw)),
            raw::SinkKind::Kafka => SinkKind::Kafka(self.kafka_sink(raw)),
            raw::SinkKind::Webhook => SinkKind::Webhook(WebhookSink {
                place: self.http_place(raw),
                secret: self.secret("secret", raw.secret_env.as_ref(), raw.secret_file.as_ref()),
                token: self.token(raw),
            }),
        };
        let seconds = Duration::from_secs;
        // Objects are better few and large.
        let s3 = raw.kind == raw::SinkKind::S3;
        let (events, kib, flush) = if s3 { (10_000, 8192, seconds(60)) } else { (500, 512, seconds(1)) };
        Sink {
            name: raw.name.as_ref().map_or(name_of(raw.kind).into(), |name| self.sink_name(name)),
            kind,
            start: match raw.start.as_deref() {
                Some(raw::SinkStart::Beginning) | None => SinkStart::Beginning,
                Some(raw::SinkStart::Now) => SinkStart::Now,
            },
            batch_events: number(raw.batch_events.as_ref(), events) as usize,
            batch_bytes: (number(raw.batch_kib.as_ref(), kib) as usize) << 10,
            flush: self.duration("flush", raw.flush.as_ref(), flush, FLUSH_BOUNDS),
            timeout: self.timeout("timeout", raw.timeout.as_ref(), 10),
            retry_max: self.duration("retry_max", raw.retry_max.as_ref(), seconds(60), RETRY_BOUNDS),
        }
    }

    fn foreign_keys(&mut self, raw: &At<raw::Sink>) {
        for (key, span, kinds) in given(raw) {
            if !kinds.contains(&raw.kind) {
                let of: Vec<_> = kinds.iter().map(|kind| format!("\"{}\"", name_of(*kind))).collect();
                self.error(
                    span,
                    format!("`{key}` has no effect in a {} sink", name_of(raw.kind)),
                    format!("it is a key of kind {}", of.join(", ")),
                );
            }
        }
    }

    /// It becomes part of file names and metric labels.
    fn sink_name(&mut self, name: &At<String>) -> String {
        let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(right) {
            self.error(
                name.span(),
                format!("\"{}\" is not a name for a sink", name.escape_debug()),
                format!("letters, digits, `-` and `_`, at most {NAME_CHARS_MAX}"),
            );
        }
        name.to_string()
    }

    /// A name that is left out is the kind's: two of a kind need names.
    pub(super) fn distinct_sinks(&mut self, sinks: &[At<raw::Sink>]) {
        let mut seen = HashMap::new();
        for sink in sinks {
            let name = sink.name.as_ref().map_or(name_of(sink.kind), |name| name.as_str());
            if seen.insert(name.to_owned(), ()).is_some() {
                let span = sink.name.as_ref().map_or(sink.span(), At::span);
                self.error(
                    span,
                    format!("there is more than one [[sink]] named \"{}\"", name.escape_debug()),
                    "give each its own `name`",
                );
            }
        }
    }

    /// Says at which line, where the configuration only says what.
    pub(super) fn sink_places(&mut self, file: &raw::File, config: &Config) {
        if let Some((at, what)) = config.trespass() {
            let own = file.sink[at].path.as_ref().map_or(file.sink[at].span(), At::span);
            let span = self.blame([Some(own), file.server.data_dir.as_ref().map(At::span)]);
            self.error(span, what, "name a file of its own, outside of data_dir");
        }
    }

    /// A key that this kind cannot do without; the stand-in beside the error is empty.
    fn needed<'r>(
        &mut self,
        raw: &'r At<raw::Sink>,
        key: &str,
        value: Option<&'r At<String>>,
        example: &str,
    ) -> Option<&'r At<String>> {
        if value.is_none() {
            self.error(
                raw.span(),
                format!("a {} sink needs `{key}`", name_of(raw.kind)),
                format!("add `{key} = \"{example}\"`"),
            );
        }
        value
    }

    fn file_sink(&mut self, raw: &At<raw::Sink>) -> FileSink {
        let path = self.needed(raw, "path", raw.path.as_ref(), "audit.ndjson");
        FileSink {
            path: path.map_or(PathBuf::new(), |path| self.path(path)),
            rotate_bytes: u64::from(number(raw.rotate_mib.as_ref(), 100)) << 20,
            rotate_every: raw
                .rotate_every
                .as_ref()
                .map(|age| self.duration("rotate_every", Some(age), Duration::from_secs(86_400), ROTATE_BOUNDS)),
            keep: raw.keep.as_ref().map(|keep| number(Some(keep), 1) as usize),
            sync: raw.sync.as_ref().is_none_or(|sync| **sync),
        }
    }

    fn syslog_sink(&mut self, raw: &At<raw::Sink>) -> SyslogSink {
        let address = self.needed(raw, "address", raw.address.as_ref(), "siem.internal:6514");
        let place = address.map(|address| {
            parse_host_port(address).unwrap_or_else(|(_, _)| {
                self.error(
                    address.span(),
                    format!("\"{}\" is not a host and a port", address.escape_debug()),
                    "for example \"siem.internal:6514\"",
                );
                ("localhost".into(), 0)
            })
        });
        let (host, port) = place.unwrap_or_default();
        let identity = match (&raw.tls_cert, &raw.tls_key) {
            (Some(cert), Some(key)) => Some((self.path(cert), self.path(key))),
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                self.error(one.span(), "a certificate and its key go together", "give both `tls_cert` and `tls_key`");
                None
            }
        };
        let tls = SyslogTls { ca: raw.tls_ca.as_ref().map(|file| self.path(file)), identity };
        let transport = match raw.transport.as_deref() {
            Some(raw::SyslogTransport::Tls) | None => SyslogTransport::Tls(tls),
            Some(raw::SyslogTransport::Tcp) => self.plain_syslog(raw, &host),
        };
        SyslogSink {
            host,
            port,
            transport,
            facility: number(raw.facility.as_ref(), 13),
            confirm: raw.confirm.as_ref().is_none_or(|confirm| **confirm),
        }
    }

    fn plain_syslog(&mut self, raw: &At<raw::Sink>, host: &str) -> SyslogTransport {
        let span = raw.transport.as_ref().map_or(raw.span(), At::span);
        if let Some(key) = [&raw.tls_ca, &raw.tls_cert, &raw.tls_key].into_iter().flatten().next() {
            self.error(key.span(), "this has no effect: `transport` is \"tcp\"", "leave it out, or use \"tls\"");
        } else if !is_loopback(host) {
            self.warn(span, "records cross the network readable", "prefer \"tls\"");
        }
        SyslogTransport::Tcp
    }

    fn splunk_sink(&mut self, raw: &At<raw::Sink>) -> SplunkSink {
        let place = self.http_place(raw);
        let token = self.token(raw).unwrap_or_else(|| {
            if raw.token_env.is_none() {
                self.error(
                    raw.span(),
                    "a splunk sink needs a token",
                    "add `token_file = \"...\"` or `token_env = \"...\"`",
                );
            }
            Secret::Env(String::new())
        });
        SplunkSink {
            place,
            token,
            index: self.optional("index", raw.index.as_ref()),
            source: self.optional("source", raw.source.as_ref()).unwrap_or("lockgate".into()),
            sourcetype: self.optional("sourcetype", raw.sourcetype.as_ref()).unwrap_or("lockgate:ocsf".into()),
        }
    }

    fn cloudwatch_sink(&mut self, raw: &At<raw::Sink>) -> CloudWatchSink {
        let group = self.needed(raw, "log_group", raw.log_group.as_ref(), "/lockgate/audit");
        CloudWatchSink {
            log_group: group.map(|group| self.text("log_group", group)).unwrap_or_default(),
            log_stream: self.optional("log_stream", raw.log_stream.as_ref()),
            aws: self.aws_place(raw, |region| format!("https://logs.{region}.amazonaws.com")),
        }
    }

    fn s3_sink(&mut self, raw: &At<raw::Sink>) -> S3Sink {
        let bucket = self
            .needed(raw, "bucket", raw.bucket.as_ref(), "corp-audit")
            .map(|text| text.to_string())
            .unwrap_or_default();
        let right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
        if let Some(at) = &raw.bucket
            && !((3..=63).contains(&bucket.len()) && bucket.chars().all(right))
        {
            self.error(
                at.span(),
                "this is not the name of a bucket",
                "3 to 63 lower-case letters, digits, `-` and `.`",
            );
        }
        // A dot in the name would not fit the certificate of a host below S3's own.
        let own = |region: &str| match bucket.contains('.') {
            true => format!("https://s3.{region}.amazonaws.com/{bucket}"),
            false => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        };
        let mut aws = self.aws_place(raw, own);
        if raw.endpoint.is_some() {
            aws.place.url = format!("{}/{bucket}", aws.place.url.trim_end_matches('/'));
        }
        S3Sink { aws, prefix: self.optional("prefix", raw.prefix.as_ref()).unwrap_or_default() }
    }

    fn aws_place(&mut self, raw: &At<raw::Sink>, own: impl Fn(&str) -> String) -> AwsPlace {
        let region = self
            .needed(raw, "region", raw.region.as_ref(), "eu-central-1")
            .map(|text| text.to_string())
            .unwrap_or_default();
        if let Some(at) = &raw.region
            && (region.is_empty() || !region.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
        {
            self.error(at.span(), "this is not a region", "for example \"eu-central-1\"");
        }
        let url = match &raw.endpoint {
            Some(endpoint) => {
                self.sink_url(endpoint, raw.allow_plaintext.as_ref().is_some_and(|allowed| **allowed));
                endpoint.to_string()
            }
            None => own(&region),
        };
        let secret_key = self.secret("secret key", raw.secret_key_env.as_ref(), raw.secret_key_file.as_ref());
        let session_token = raw.session_token_file.as_ref().map(|file| Secret::File(self.path(file)));
        let with_id = [&raw.secret_key_env, &raw.secret_key_file, &raw.session_token_file].into_iter().flatten().next();
        match (&raw.access_key_id, with_id) {
            (None, Some(key)) => {
                self.error(key.span(), "this belongs to an access key", "add `access_key_id = \"...\"`");
            }
            (Some(id), _) if secret_key.is_none() && raw.secret_key_env.is_none() => {
                self.error(
                    id.span(),
                    "the access key has no secret",
                    "add `secret_key_file = \"...\"` or `secret_key_env = \"...\"`",
                );
            }
            (Some(_) | None, _) => {}
        }
        AwsPlace {
            place: HttpPlace { url, tls_ca: raw.tls_ca.as_ref().map(|file| self.path(file)) },
            region,
            access_key_id: self.optional("access_key_id", raw.access_key_id.as_ref()),
            secret_key,
            session_token,
        }
    }

    fn kafka_sink(&mut self, raw: &At<raw::Sink>) -> KafkaSink {
        if !cfg!(feature = "kafka") {
            self.error(
                raw.span(),
                "this program was built without kafka sinks (cargo feature `kafka`)",
                "build with `--features kafka`, or let a shipper follow a sink of kind \"file\"",
            );
        }
        let topic = self.needed(raw, "topic", raw.topic.as_ref(), "lockgate-audit");
        let topic = topic.map(|topic| self.topic(topic)).unwrap_or_default();
        let brokers = self.brokers(raw);
        KafkaSink { brokers, topic, tls: self.kafka_tls(raw), sasl: self.kafka_sasl(raw) }
    }

    fn topic(&mut self, topic: &At<String>) -> String {
        let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let fits = (1..=TOPIC_CHARS_MAX).contains(&topic.len()) && topic.chars().all(right);
        if !fits || matches!(topic.as_str(), "." | "..") {
            self.error(
                topic.span(),
                "this is not the name of a topic",
                format!("letters, digits, `.`, `_` and `-`, at most {TOPIC_CHARS_MAX}"),
            );
        }
        topic.to_string()
    }

    fn brokers(&mut self, raw: &At<raw::Sink>) -> Vec<String> {
        let example = "brokers = [\"kafka-1.internal:9093\"]";
        let Some(list) = &raw.brokers else {
            self.error(raw.span(), "a kafka sink needs `brokers`", format!("add `{example}`"));
            return Vec::new();
        };
        if list.is_empty() {
            self.error(list.span(), "there is no broker to begin with", format!("for example `{example}`"));
        }
        let plaintext = raw.allow_plaintext.as_ref().is_some_and(|allowed| **allowed);
        let plain = raw.tls.as_ref().is_some_and(|tls| !**tls) && !plaintext;
        for broker in list.iter() {
            match parse_host_port(broker) {
                Ok((host, _)) if plain && !is_loopback(&host) => self.error(
                    broker.span(),
                    "records and credential would cross the network readable",
                    "leave `tls = false` out, or add `allow_plaintext = true`",
                ),
                Ok(_) => {}
                Err(_) => self.error(
                    broker.span(),
                    format!("\"{}\" is not a host and a port", broker.escape_debug()),
                    "for example \"kafka-1.internal:9093\"",
                ),
            }
        }
        list.iter().map(|broker| broker.to_string()).collect()
    }

    fn kafka_tls(&mut self, raw: &At<raw::Sink>) -> Option<KafkaTls> {
        if raw.tls.as_ref().is_none_or(|tls| **tls) {
            return Some(KafkaTls { ca: raw.tls_ca.as_ref().map(|file| self.path(file)) });
        }
        if let Some(key) = &raw.tls_ca {
            self.error(key.span(), "this has no effect: `tls` is false", "leave it out, or use TLS");
        }
        None
    }

    fn kafka_sasl(&mut self, raw: &At<raw::Sink>) -> Option<KafkaSasl> {
        let Some(sasl) = &raw.sasl else {
            if let Some(key) = [&raw.user, &raw.password_env, &raw.password_file].into_iter().flatten().next() {
                self.error(
                    key.span(),
                    "this belongs to a login",
                    "add `sasl = \"scram-sha-256\"` or another mechanism",
                );
            }
            return None;
        };
        let password = self.secret("password", raw.password_env.as_ref(), raw.password_file.as_ref());
        if raw.password_env.is_none() && raw.password_file.is_none() {
            self.error(
                sasl.span(),
                "the login has no password",
                "add `password_file = \"...\"` or `password_env = \"...\"`",
            );
        }
        if raw.user.is_none() {
            self.error(sasl.span(), "the login has no user", "add `user = \"lockgate\"`");
        }
        let mechanism = match **sasl {
            raw::SaslMechanism::Plain => SaslMechanism::Plain,
            raw::SaslMechanism::ScramSha256 => SaslMechanism::ScramSha256,
            raw::SaslMechanism::ScramSha512 => SaslMechanism::ScramSha512,
        };
        Some(KafkaSasl { mechanism, user: self.optional("user", raw.user.as_ref())?, password: password? })
    }

    fn optional(&mut self, key: &str, text: Option<&At<String>>) -> Option<String> {
        text.map(|text| self.text(key, text))
    }

    fn token(&mut self, raw: &raw::Sink) -> Option<Secret> {
        self.secret("token", raw.token_env.as_ref(), raw.token_file.as_ref())
    }

    fn http_place(&mut self, raw: &At<raw::Sink>) -> HttpPlace {
        let tls_ca = raw.tls_ca.as_ref().map(|file| self.path(file));
        let Some(url) = self.needed(raw, "url", raw.url.as_ref(), "https://...") else {
            return HttpPlace { url: String::new(), tls_ca };
        };
        self.sink_url(url, raw.allow_plaintext.as_ref().is_some_and(|allowed| **allowed));
        HttpPlace { url: url.to_string(), tls_ca }
    }

    fn sink_url(&mut self, url: &At<String>, plaintext: bool) {
        let host = url_host(url);
        let plain = url.starts_with("http://");
        if host.is_none() || !(plain || url.starts_with("https://")) || url.contains(char::is_whitespace) {
            self.error(
                url.span(),
                "this is not a URL events can be sent to",
                "for example \"https://siem.internal/lockgate\"",
            );
        } else if url.contains('@') {
            self.error(
                url.span(),
                "a URL must not hold a credential",
                "secrets have keys of their own, and files or variables",
            );
        } else if plain && !plaintext && !host.is_some_and(is_loopback) {
            self.error(
                url.span(),
                "records and credential would cross the network readable",
                "use https, or add `allow_plaintext = true`",
            );
        }
    }

    /// At most one source.
    fn secret(&mut self, key: &str, env: Option<&At<String>>, file: Option<&At<String>>) -> Option<Secret> {
        match (env, file) {
            (Some(_), Some(file)) => {
                self.error(
                    file.span(),
                    format!("there are two sources of the {key}"),
                    format!("either `{key}_env` or `{key}_file`"),
                );
                None
            }
            (Some(name), None) => {
                self.variable(name);
                Some(Secret::Env(name.to_string()))
            }
            (None, Some(file)) => Some(Secret::File(self.path(file))),
            (None, None) => None,
        }
    }

    pub(super) fn variable(&mut self, name: &At<String>) {
        if name.is_empty() || name.contains(['=', '\0', '$', ' ']) {
            self.error(
                name.span(),
                "this is not the name of an environment variable",
                "for example \"ORDERS_PASSWORD\"",
            );
        }
    }
}

impl Config {
    /// No sink writes to the trail or to this file. The first sink whose file is one of ours, and why.
    fn trespass(&self) -> Option<(usize, String)> {
        let (data_dir, own) = (real(&self.server.data_dir), real(&self.path));
        self.sinks.iter().enumerate().find_map(|(at, sink)| {
            let SinkKind::File(FileSink { path, .. }) = &sink.kind else { return None };
            let place = real(path);
            let what = match place.strip_prefix(&data_dir) {
                _ if place == own => "is this configuration",
                // Copies may lie beside the positions of sinks, under names of their own.
                Ok(inside) if !is_beside_positions(inside) => "lies among the files of the trail",
                Ok(_) | Err(_) => return None,
            };
            Some((at, format!("the sink \"{}\" would write to {}, which {what}", sink.name, path.display())))
        })
    }
}

fn is_beside_positions(inside: &Path) -> bool {
    let name = inside.file_name().and_then(|name| name.to_str()).unwrap_or("");
    inside.parent() == Some(Path::new("sinks")) && !name.ends_with(".position") && !name.ends_with(".dead.ndjson")
}

/// As many as the kernel follows.
const LINKS_MAX: usize = 40;

/// The same place however it is written, and through whatever links; what is not there yet, behind the folders that are.
fn real(path: &Path) -> PathBuf {
    let mut whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // A link to what is not there yet makes it there.
    for _ in 0..LINKS_MAX {
        let Some((target, folder)) = whole.read_link().ok().zip(whole.parent()) else { break };
        whole = folder.join(target);
    }
    let there = whole.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    let Some((part, mut real)) = there else { return whole };
    for step in whole.strip_prefix(part).unwrap_or(Path::new("")).components() {
        match step {
            Component::ParentDir => drop(real.pop()),
            step => real.push(step),
        }
    }
    real
}
