//! What the courier asks of a sink: take these events, or say what is wrong.

use super::join::Event;
#[cfg(feature = "kafka")]
use super::kafka;
use super::{cloudwatch, file, otlp, s3, splunk, syslog, webhook};
use crate::config::{CloudWatchSink, S3Sink, Sink, SinkKind};
use std::io;
use std::time::Duration;

/// A place that takes events.
pub trait Deliver: Send {
    /// Hands over a batch (never empty), in its order. `Ok`: what the receiver has acknowledged, for good.
    fn deliver(&mut self, batch: &[Event]) -> Result<Delivered, Failure>;
}

/// The receiver has taken a batch, or its beginning.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivered {
    /// From the first on; at least one.
    pub events: usize,
    /// Of those, the ones that the receiver will never take, and why.
    pub refused: Vec<(usize, String)>,
}

impl Delivered {
    pub fn all(batch: &[Event]) -> Self {
        Self { events: batch.len(), refused: Vec::new() }
    }
}

/// Nothing of the batch counts as delivered. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The receiver cannot be reached, is busy or does not want us: the same batch again, later.
    Later {
        what: String,
        /// What somebody has to do, where waiting alone will not help.
        mend: Option<String>,
        /// When the receiver said when.
        after: Option<Duration>,
    },
    /// The receiver does not want these events; with fewer of them it may.
    Refused { what: String },
}

impl Failure {
    pub fn later(what: impl Into<String>) -> Self {
        Self::Later { what: what.into(), mend: None, after: None }
    }

    /// Somebody has to do something.
    pub fn mend(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Later { what: what.into(), mend: Some(mend.into()), after: None }
    }
}

/// What an error of a socket says to people; the system calls an answer that did not come in time "Resource temporarily unavailable".
pub fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads secrets and certificates and makes the sink. Nothing is connected yet.
pub fn open(sink: &Sink, appliance: &str) -> Result<Box<dyn Deliver>, Failure> {
    let timeout = sink.timeout;
    Ok(match &sink.kind {
        SinkKind::File(config) => Box::new(file::FileSink::open(config)?),
        SinkKind::Syslog(config) => Box::new(syslog::Syslog::open(config, timeout)?),
        SinkKind::Splunk(config) => Box::new(splunk::Splunk::open(config, timeout)?),
        SinkKind::CloudWatch(config) => Box::new(cloudwatch::CloudWatch::open(config, timeout, appliance)?),
        SinkKind::Otlp(config) => Box::new(otlp::Otlp::open(config, timeout, appliance)?),
        SinkKind::S3(config) => Box::new(s3::S3::open(config, timeout)?),
        #[cfg(feature = "kafka")]
        SinkKind::Kafka(config) => Box::new(kafka::Kafka::open(config, timeout, appliance)?),
        // The check of the configuration has refused it.
        #[cfg(not(feature = "kafka"))]
        SinkKind::Kafka(_) => {
            return Err(Failure::mend(
                "built without kafka sinks (cargo feature `kafka`)",
                "build with `--features kafka`",
            ));
        }
        SinkKind::Webhook(config) => Box::new(webhook::Webhook::open(config, timeout)?),
    })
}

/// What `doctor` can say without a receiver, for this user on this host: besides, can a file be written.
pub fn try_out(sink: &Sink) -> Result<(), (String, String)> {
    check(sink)?;
    if let SinkKind::File(file) = &sink.kind {
        file::try_out(file).map_err(in_words)?;
    }
    Ok(())
}

/// What `config check` can: are secrets and certificates readable. The error is what is wrong and what to do.
pub fn check(sink: &Sink) -> Result<(), (String, String)> {
    let made = match &sink.kind {
        // Opening a file makes it.
        SinkKind::File(file) => file::check(file),
        // Whose credential is the machine's or the environment's shows where the gateway runs, not here.
        SinkKind::CloudWatch(CloudWatchSink { aws, .. }) | SinkKind::S3(S3Sink { aws, .. })
            if aws.access_key_id.is_none() =>
        {
            Ok(())
        }
        SinkKind::Syslog(_)
        | SinkKind::Splunk(_)
        | SinkKind::CloudWatch(_)
        | SinkKind::Otlp(_)
        | SinkKind::S3(_)
        | SinkKind::Kafka(_)
        | SinkKind::Webhook(_) => open(sink, "0000000000000000").map(drop),
    };
    made.map_err(in_words)
}

fn in_words(failure: Failure) -> (String, String) {
    match failure {
        Failure::Later { what, mend, .. } => (what, mend.unwrap_or_default()),
        Failure::Refused { what } => (what, String::new()),
    }
}
