//! Splunk HTTP Event Collector: events one behind another in a gzip body; with indexer acknowledgement, where the token
//! has it, a batch counts as delivered when the indexer says so.
//!
//! ```text
//! POST /services/collector/event   Authorization: Splunk TOKEN   X-Splunk-Request-Channel: GUID
//!   {"time":1795142003.123456,"host":..,"sourcetype":..,"event":{..}}{"time":..           -> {"code":0,"ackId":7}
//! POST /services/collector/ack?channel=GUID   {"acks":[7]}                                -> {"acks":{"7":true}}
//! ```

use super::deliver::{Deliver, Delivered, Failure};
use super::gzip::gzip;
use super::http::{Answer, Http};
use super::join::Event;
use super::{syslog, webhook};
use crate::config::SplunkSink;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// An indexer acknowledges within seconds. Beyond: the batch is sent again.
const ACK_WITHIN: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(250);

pub struct Splunk {
    http: Http,
    event_url: String,
    ack_url: String,
    headers: HeaderMap,
    /// What every event says besides time and event: `,"host":...`.
    about: String,
}

impl Splunk {
    pub fn open(config: &SplunkSink, timeout: Duration) -> Result<Self, Failure> {
        let channel = guid();
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, webhook::authorization("Splunk", &config.token)?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(value) = HeaderValue::from_str(&channel) {
            headers.insert(HeaderName::from_static("x-splunk-request-channel"), value);
        }
        let base = config.place.url.trim_end_matches('/');
        let mut about = Map::new();
        about.insert("host".into(), json!(syslog::host_name()));
        about.insert("source".into(), json!(config.source));
        about.insert("sourcetype".into(), json!(config.sourcetype));
        about.extend(config.index.as_ref().map(|index| ("index".to_owned(), json!(index))));
        let about = Value::Object(about).to_string();
        Ok(Self {
            http: Http::new(&config.place, timeout)?,
            event_url: format!("{base}/services/collector/event"),
            ack_url: format!("{base}/services/collector/ack?channel={channel}"),
            headers,
            about: format!(",{}", &about[1..about.len() - 1]),
        })
    }

    fn body(&self, batch: &[Event]) -> String {
        let mut body = String::with_capacity(batch.iter().map(|event| event.json.len() + 200).sum());
        for event in batch {
            let (seconds, micros) = (event.time_us.div_euclid(1_000_000), event.time_us.rem_euclid(1_000_000));
            body += &format!("{{\"time\":{seconds}.{micros:06}{},\"event\":{}}}\n", self.about, event.json);
        }
        body
    }

    /// Asks until the indexer has it.
    fn acknowledged(&self, id: u64) -> Result<(), Failure> {
        let deadline = Instant::now() + ACK_WITHIN;
        let question = json!({ "acks": [id] }).to_string().into_bytes();
        loop {
            let answer = self.http.send(Method::POST, &self.ack_url, self.headers.clone(), question.clone())?;
            if !answer.is_success() {
                return Err(failure(&answer));
            }
            if answer.json()["acks"][id.to_string()] == true {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::later("the indexer did not acknowledge the batch in time"));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}

impl Deliver for Splunk {
    fn deliver(&mut self, batch: &[Event]) -> Result<Delivered, Failure> {
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let answer = self.http.send(Method::POST, &self.event_url, headers, gzip(self.body(batch).as_bytes()))?;
        if !is_taken(&answer) {
            return Err(failure(&answer));
        }
        if let Some(id) = answer.json()["ackId"].as_u64() {
            self.acknowledged(id)?;
        }
        Ok(Delivered::all(batch))
    }
}

/// A load balancer or a login page answers 200 as well: only the collector says that it has the events.
fn is_taken(answer: &Answer) -> bool {
    answer.is_success() && answer.json()["code"] == 0
}

/// The collector's own codes tell more than the status.
fn failure(answer: &Answer) -> Failure {
    let what = || format!("Splunk answered {}: {}", answer.status, answer.said());
    match answer.json()["code"].as_u64() {
        Some(1..=4) => {
            Failure::mend(what(), "the collector does not accept the token: correct or enable it, then reload")
        }
        Some(7) => Failure::mend(what(), "allow the index for this token, or name another with `index`"),
        Some(10 | 11 | 14) => {
            Failure::mend(what(), "the collector and the token disagree about acknowledgement: look at the token")
        }
        Some(5 | 6 | 12 | 13 | 15) => Failure::Refused { what: what() },
        Some(8 | 9 | 18 | 19 | 20) => Failure::Later { what: what(), mend: None, after: answer.retry_after() },
        _ => answer.failure(),
    }
}

/// Random, in the form of a GUID (RFC 9562, version 4): names our connection to the collector.
fn guid() -> String {
    let mut bytes = [0; 16];
    // Not a secret: without randomness it is merely not unique.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = crate::audit::segment::hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::answer as answer_with;
    use super::super::tests::event;
    use super::*;
    use crate::config::{HttpPlace, Secret};

    fn answer(status: u16, body: &str) -> Answer {
        answer_with(status, "", body)
    }

    #[test]
    fn the_body_is_events_with_their_own_time_one_behind_another() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("token"), "s3cret\n").expect("written");
        let config = SplunkSink {
            place: HttpPlace { url: "https://splunk:8088/".into(), tls_ca: None },
            token: Secret::File(dir.path().join("token")),
            index: Some("audit".into()),
            source: "lockgate".into(),
            sourcetype: "lockgate:ocsf".into(),
        };
        let splunk = Splunk::open(&config, Duration::from_secs(1)).expect("opens");
        assert_eq!(splunk.event_url, "https://splunk:8088/services/collector/event");
        let body = splunk.body(&[event(1), event(2)]);
        let events: Vec<Value> =
            serde_json::Deserializer::from_str(&body).into_iter().map(|event| event.expect("JSON")).collect();
        assert_eq!(events.len(), 2);
        assert!(body.contains("{\"time\":1795142000.000002,"), "{body}");
        assert_eq!((&events[1]["event"]["n"], &events[1]["index"]), (&json!(2), &json!("audit")));
        assert_eq!(format!("{:?}", splunk.headers).matches("s3cret").count(), 0, "never in a log");
    }

    #[test]
    fn the_collectors_codes_say_what_to_do() {
        let of = |status, code: u32| match failure(&answer(status, &format!("{{\"text\":\"x\",\"code\":{code}}}"))) {
            Failure::Refused { .. } => "split",
            Failure::Later { mend: None, .. } => "wait",
            Failure::Later { mend: Some(_), .. } => "mend",
        };
        for (status, code, expected) in [
            (403, 1, "mend"),
            (401, 3, "mend"),
            (403, 4, "mend"),
            (400, 6, "split"),
            (400, 7, "mend"),
            (500, 8, "wait"),
            (503, 9, "wait"),
            (400, 12, "split"),
            (503, 18, "wait"),
            (413, 99, "split"),
            (503, 99, "wait"),
        ] {
            assert_eq!(of(status, code), expected, "{status} {code}");
        }
        assert!(matches!(failure(&answer(502, "<html>")), Failure::Later { mend: None, .. }), "a proxy in between");
    }

    #[test]
    fn only_the_collectors_own_word_counts_as_taken() {
        assert!(is_taken(&answer(200, r#"{"text":"Success","code":0,"ackId":7}"#)));
        for (status, body) in [
            (200, "<html>sign in</html>"),
            (200, ""),
            (204, ""),
            (200, r#"{"text":"Server is busy","code":9}"#),
            (200, r#"{"text":"Success"}"#),
            (503, r#"{"text":"Success","code":0}"#),
        ] {
            let answer = answer(status, body);
            assert!(!is_taken(&answer), "{status} {body}");
            assert!(matches!(failure(&answer), Failure::Later { .. }), "it is sent again: {status} {body}");
        }
    }

    #[test]
    fn a_guid_looks_like_one_and_differs_each_time() {
        let (one, other) = (guid(), guid());
        assert_eq!((one.len(), one.as_bytes()[14]), (36, b'4'));
        assert_ne!(one, other);
    }
}
