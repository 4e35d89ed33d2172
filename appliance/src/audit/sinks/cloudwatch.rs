//! CloudWatch Logs: PutLogEvents (the JSON protocol, `Logs_20140328`). Group and stream are made when they are not there.

use super::deliver::{Deliver, Delivered, Failure};
use super::http::{Answer, Http};
use super::join::Event;
use super::sigv4::{Credentials, Request, Scope, sign};
use crate::config::CloudWatchSink;
use reqwest::Method;
use serde_json::{Value, json};
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

// Quotas of PutLogEvents.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// What each event costs besides its text.
const EVENT_BYTES: usize = 26;
const BATCH_EVENTS_MAX: usize = 10_000;
const BATCH_SPAN_MS: i64 = 24 * 3_600_000;
/// Events older than 14 days are refused. An older one is filed under the oldest time that is safe; its own stands in it.
const AGE_MAX_MS: i64 = 14 * 24 * 3_600_000 - 3_600_000;

pub struct CloudWatch {
    http: Http,
    config: CloudWatchSink,
    stream: String,
    credentials: Credentials,
}

/// What goes into one call: of the batch's first events, their places in the order of time.
struct Call {
    events: usize,
    /// (time in ms, place in the batch)
    order: Vec<(i64, usize)>,
}

impl CloudWatch {
    pub fn open(config: &CloudWatchSink, timeout: Duration, appliance: &str) -> Result<Self, Failure> {
        Ok(Self {
            http: Http::new(&config.aws.place, timeout)?,
            credentials: Credentials::read(&config.aws)?,
            stream: config.log_stream.clone().unwrap_or_else(|| format!("lockgate-{appliance}")),
            config: config.clone(),
        })
    }

    fn call(&self, action: &str, body: &Value) -> Result<Answer, Failure> {
        let body = body.to_string().into_bytes();
        let url = format!("{}/", self.config.aws.place.url.trim_end_matches('/'));
        let headers = [
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("x-amz-target", format!("Logs_20140328.{action}")),
        ];
        let request = Request { method: "POST", url: &url, headers: &headers, body: &body };
        let scope = Scope { region: &self.config.aws.region, service: "logs" };
        let headers = sign(&request, &scope, &self.credentials)?;
        self.http.send(Method::POST, &url, headers, body)
    }

    fn put(&self, batch: &[Event], call: &Call) -> Result<Answer, Failure> {
        let event = |(time_ms, index): &(i64, usize)| json!({ "timestamp": time_ms, "message": batch[*index].json });
        let events: Vec<Value> = call.order.iter().map(event).collect();
        let body = json!({ "logGroupName": self.config.log_group, "logStreamName": self.stream, "logEvents": events });
        self.call("PutLogEvents", &body)
    }

    /// Whoever made one of them in the meantime did what we wanted.
    fn make(&self) -> Result<(), Failure> {
        let group = json!({ "logGroupName": self.config.log_group });
        let stream = json!({ "logGroupName": self.config.log_group, "logStreamName": self.stream });
        let made = |answer: Answer| match code(&answer).as_str() {
            _ if answer.is_success() => Ok(()),
            "ResourceAlreadyExistsException" => Ok(()),
            _ => Err(failure(&answer)),
        };
        let streamed = made(self.call("CreateLogStream", &stream)?);
        if streamed.is_ok() {
            return Ok(());
        }
        made(self.call("CreateLogGroup", &group)?)?;
        made(self.call("CreateLogStream", &stream)?)
    }
}

impl Deliver for CloudWatch {
    fn deliver(&mut self, batch: &[Event]) -> Result<Delivered, Failure> {
        self.credentials.renew(&self.config.aws)?;
        self.http.hide(self.credentials.secrets());
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let call = plan(batch, now_ms);
        let mut answer = self.put(batch, &call)?;
        if code(&answer) == "ResourceNotFoundException" {
            self.make()?;
            answer = self.put(batch, &call)?;
        }
        if !is_taken(&answer) {
            return Err(failure(&answer));
        }
        Ok(Delivered { events: call.events, refused: rejected(&call, &answer.json()["rejectedLogEventsInfo"]) })
    }
}

/// A proxy or a sign-in page answers 200 as well. The service answers with an object, also where it has nothing to say.
fn is_taken(answer: &Answer) -> bool {
    answer.is_success() && answer.json().is_object() || code(answer) == "DataAlreadyAcceptedException"
}

/// As many of the first events as one call takes, sorted: the service wants them in the order of time.
fn plan(batch: &[Event], now_ms: i64) -> Call {
    let (mut bytes, mut earliest, mut latest) = (0, i64::MAX, i64::MIN);
    let mut order = Vec::new();
    for (index, event) in batch.iter().enumerate().take(BATCH_EVENTS_MAX) {
        let time_ms = event.time_us.div_euclid(1000).max(now_ms - AGE_MAX_MS);
        bytes += event.json.len() + EVENT_BYTES;
        (earliest, latest) = (earliest.min(time_ms), latest.max(time_ms));
        // One event alone is always tried: what is too large is for the service to say.
        if index > 0 && (bytes > BATCH_BYTES_MAX || latest - earliest >= BATCH_SPAN_MS) {
            break;
        }
        order.push((time_ms, index));
    }
    let events = order.len();
    order.sort();
    Call { events, order }
}

/// `rejectedLogEventsInfo`: everything before an end, everything from a start on.
fn rejected(call: &Call, info: &Value) -> Vec<(usize, String)> {
    let number = |key: &str| info[key].as_u64().map(|number| number as usize);
    let places = |range: Range<usize>, why: &str| {
        let within = range.start.min(call.order.len())..range.end.min(call.order.len());
        call.order[within].iter().map(|(_, index)| (*index, why.to_owned())).collect::<Vec<_>>()
    };
    let mut refused = Vec::new();
    if let Some(start) = number("tooNewLogEventStartIndex") {
        refused.extend(places(start..usize::MAX, "more than two hours in the future: is this host's clock right?"));
    }
    let (old, expired) = (number("tooOldLogEventEndIndex"), number("expiredLogEventEndIndex"));
    if let Some(end) = old.max(expired) {
        refused.extend(places(0..end, "older than the service or the log group keeps"));
    }
    refused.sort();
    refused.dedup_by_key(|(index, _)| *index);
    refused
}

/// The error's name, without what may stand around it.
fn code(answer: &Answer) -> String {
    let value = answer.json();
    let name = value["__type"].as_str().or(value["code"].as_str()).unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned()
}

fn failure(answer: &Answer) -> Failure {
    let code = code(answer);
    let what = format!("CloudWatch Logs answered {} {}: {}", answer.status, answer.quoted(&code), answer.said());
    let credential = ["Signature", "Token", "UnrecognizedClient", "AccessDenied", "NotAuthorized", "OptInRequired"];
    match code.as_str() {
        "InvalidParameterException" | "SerializationException" => Failure::Refused { what },
        code if credential.iter().any(|part| code.contains(part)) => {
            Failure::mend(what, "the credential is wrong, or may not logs:PutLogEvents there")
        }
        code if code.contains("Throttling") || code.contains("Limit") || code.contains("Unavailable") => {
            Failure::Later { what, mend: None, after: answer.retry_after() }
        }
        _ => answer.failure(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::answer;
    use super::super::tests::event;
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    fn at(number: u64, hours: i64) -> Event {
        Event { time_us: hours * HOUR_US, ..event(number) }
    }

    #[test]
    fn a_call_holds_what_the_service_takes_in_the_order_of_time() {
        let now_ms = 100 * 3_600_000;
        let batch = [at(1, 99), at(2, 97), at(3, 98), at(4, 74), at(5, 72)];
        let call = plan(&batch, now_ms);
        assert_eq!(call.events, 3, "97 and 73 are 24 hours apart");
        assert_eq!(call.order.iter().map(|(_, index)| *index).collect::<Vec<_>>(), [1, 2, 0]);
        let large = Event { json: "x".repeat(700 << 10), ..at(1, 99) };
        assert_eq!(plan(&[large.clone(), large.clone()], now_ms).events, 1);
        assert_eq!(plan(&[Event { json: "x".repeat(2 << 20), ..large }], now_ms).events, 1, "tried all the same");
        let many: Vec<_> = (0..10_001).map(|number| at(number, 99)).collect();
        assert_eq!(plan(&many, now_ms).events, 10_000);
    }

    #[test]
    fn an_old_event_is_filed_under_the_oldest_time_that_is_safe() {
        let now_ms = 1000 * 3_600_000;
        let call = plan(&[at(1, 10), at(2, 20), at(3, 664)], now_ms);
        assert_eq!(call.events, 3);
        assert_eq!(call.order[0], (now_ms - AGE_MAX_MS, 0));
        assert!(call.order.iter().all(|(time_ms, _)| now_ms - time_ms < 14 * 24 * 3_600_000));
    }

    #[test]
    fn rejected_events_are_told_by_their_place_in_the_batch() {
        let call = Call { events: 4, order: vec![(1, 2), (2, 0), (3, 1), (4, 3)] };
        let places = |info: Value| rejected(&call, &info).into_iter().map(|(index, _)| index).collect::<Vec<_>>();
        assert_eq!(places(Value::Null), Vec::<usize>::new());
        assert_eq!(places(json!({ "tooOldLogEventEndIndex": 1, "expiredLogEventEndIndex": 2 })), [0, 2]);
        assert_eq!(places(json!({ "tooNewLogEventStartIndex": 3 })), [3]);
        assert_eq!(places(json!({ "tooOldLogEventEndIndex": 99 })), [0, 1, 2, 3]);
    }

    #[test]
    fn only_the_services_own_word_counts_as_taken() {
        let accepted = r#"{"__type":"DataAlreadyAcceptedException"}"#;
        for (status, body, taken) in [
            (200, "{}", true),
            (200, r#"{"nextSequenceToken":"1"}"#, true),
            (400, accepted, true),
            (200, "<html>sign in</html>", false),
            (200, "", false),
            (204, "", false),
            (500, "{}", false),
        ] {
            let answer = answer(status, "", body);
            assert_eq!(is_taken(&answer), taken, "{status} {body}");
            assert!(taken || matches!(failure(&answer), Failure::Later { .. }), "it is sent again: {status} {body}");
        }
    }

    #[test]
    fn errors_are_told_by_their_name() {
        let of = |name: &str| match failure(&answer(400, "", &json!({ "__type": name, "message": "x" }).to_string())) {
            Failure::Refused { .. } => "split",
            Failure::Later { mend: None, .. } => "wait",
            Failure::Later { mend: Some(_), .. } => "mend",
        };
        for (name, expected) in [
            ("com.amazonaws.logs#InvalidParameterException", "split"),
            ("ThrottlingException", "wait"),
            ("ServiceUnavailableException", "wait"),
            ("UnrecognizedClientException", "mend"),
            ("InvalidSignatureException:http://x", "mend"),
            ("ExpiredTokenException", "mend"),
            ("AccessDeniedException", "mend"),
        ] {
            assert_eq!(of(name), expected, "{name}");
        }
    }
}
