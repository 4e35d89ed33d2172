//! OpenTelemetry logs: OTLP over HTTP in its JSON form (opentelemetry-proto, `ExportLogsServiceRequest`), which every collector
//! takes on the port of its binary form. The event is the record's body, as a map; its id is `log.record.uid`.

use super::deliver::{Deliver, Delivered, Failure};
use super::http::{Answer, Http};
use super::join::Event;
use super::{syslog, webhook};
use crate::config::OtlpSink;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub struct Otlp {
    http: Http,
    url: String,
    bearer: Option<HeaderValue>,
    resource: Value,
}

impl Otlp {
    pub fn open(config: &OtlpSink, timeout: Duration, appliance: &str) -> Result<Self, Failure> {
        let attributes = [
            ("service.name", "lockgate"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", appliance),
            ("host.name", &syslog::host_name()),
        ];
        Ok(Self {
            http: Http::new(&config.place, timeout)?,
            url: config.place.url.clone(),
            bearer: config.token.as_ref().map(webhook::bearer).transpose()?,
            resource: json!({ "attributes": attributes.map(|(key, text)| attribute(key, text)) }),
        })
    }

    fn request(&self, batch: &[Event], observed_ns: u128) -> Value {
        let records: Vec<Value> = batch.iter().map(|event| record(event, observed_ns)).collect();
        json!({ "resourceLogs": [{
            "resource": self.resource,
            "scopeLogs": [{
                "scope": { "name": "lockgate.audit", "version": env!("CARGO_PKG_VERSION") },
                "logRecords": records,
            }],
        }] })
    }
}

fn attribute(key: &str, text: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": text } })
}

/// 64-bit numbers are texts in OTLP's JSON form.
fn record(event: &Event, observed_ns: u128) -> Value {
    let (severity, text) = match event.severity {
        0 | 1 => (9, "INFO"),
        2 => (10, "INFO2"),
        3 => (13, "WARN"),
        _ => (17, "ERROR"),
    };
    let body: Value = serde_json::from_str(&event.json).unwrap_or_default();
    json!({
        "timeUnixNano": (i128::from(event.time_us) * 1000).to_string(),
        "observedTimeUnixNano": observed_ns.to_string(),
        "severityNumber": severity,
        "severityText": text,
        "eventName": format!("lockgate.{}", event.class),
        "body": any_value(&body),
        "attributes": [attribute("log.record.uid", &event.uid)],
    })
}

/// `AnyValue`.
fn any_value(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(flag) => json!({ "boolValue": flag }),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => json!({ "intValue": whole.to_string() }),
            None => json!({ "doubleValue": number }),
        },
        Value::String(text) => json!({ "stringValue": text }),
        Value::Array(items) => json!({ "arrayValue": { "values": items.iter().map(any_value).collect::<Vec<_>>() } }),
        Value::Object(map) => {
            let values: Vec<_> =
                map.iter().map(|(key, value)| json!({ "key": key, "value": any_value(value) })).collect();
            json!({ "kvlistValue": { "values": values } })
        }
    }
}

impl Deliver for Otlp {
    fn deliver(&mut self, batch: &[Event]) -> Result<Delivered, Failure> {
        let observed_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.bearer.iter().map(|bearer| (AUTHORIZATION, bearer.clone())));
        let body = self.request(batch, observed_ns).to_string().into_bytes();
        let answer = self.http.send(Method::POST, &self.url, headers, body)?;
        if !is_taken(&answer) {
            return Err(answer.failure());
        }
        Ok(partial(batch, &answer, &answer.json()["partialSuccess"]))
    }
}

/// A proxy or a sign-in page answers 200 as well. A collector answers with an `ExportLogsServiceResponse`, or with nothing at all.
fn is_taken(answer: &Answer) -> bool {
    answer.is_success() && (answer.body.trim_ascii().is_empty() || answer.json().is_object())
}

/// A collector that took only some does not say which, and must not be sent the batch again: all of it is put aside.
fn partial(batch: &[Event], answer: &Answer, success: &Value) -> Delivered {
    let rejected = match &success["rejectedLogRecords"] {
        Value::String(text) => text.parse().unwrap_or(0),
        number => number.as_u64().unwrap_or(0),
    };
    if rejected == 0 {
        return Delivered::all(batch);
    }
    let said = answer.quoted(success["errorMessage"].as_str().unwrap_or_default());
    let why = format!("the collector rejected {rejected} of these {}, not saying which: {said}", batch.len());
    Delivered { events: batch.len(), refused: (0..batch.len()).map(|index| (index, why.clone())).collect() }
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::answer;
    use super::super::tests::event;
    use super::*;

    #[test]
    fn a_record_carries_time_severity_id_and_the_event_as_a_map() {
        let json = r#"{"a":{"b":[1,-2,true,"x",null,1.5]}}"#;
        let record = record(&Event { severity: 3, json: json.into(), ..event(5) }, 7);
        assert_eq!(
            (&record["timeUnixNano"], &record["observedTimeUnixNano"]),
            (&json!("1795142000000005000"), &json!("7"))
        );
        assert_eq!((&record["severityNumber"], &record["severityText"]), (&json!(13), &json!("WARN")));
        assert_eq!(record["attributes"][0], attribute("log.record.uid", "u-5"));
        let inner = &record["body"]["kvlistValue"]["values"][0]["value"]["kvlistValue"]["values"][0];
        assert_eq!(inner["key"], "b");
        let expected = json!([
            { "intValue": "1" }, { "intValue": "-2" }, { "boolValue": true }, { "stringValue": "x" }, {},
            { "doubleValue": 1.5 },
        ]);
        assert_eq!(inner["value"]["arrayValue"]["values"], expected);
    }

    #[test]
    fn only_what_a_collector_may_answer_counts_as_taken() {
        for (status, body, taken) in [
            (200, "{}", true),
            (200, r#"{"partialSuccess":{}}"#, true),
            (204, "", true),
            (200, "\n", true),
            (200, "<html>sign in</html>", false),
            (200, "OK", false),
            (200, "[]", false),
            (503, "{}", false),
        ] {
            let answer = answer(status, "", body);
            assert_eq!(is_taken(&answer), taken, "{status} {body}");
            assert!(taken || matches!(answer.failure(), Failure::Later { .. }), "it is sent again: {status} {body}");
        }
    }

    #[test]
    fn a_partial_success_puts_the_batch_aside_and_does_not_send_it_again() {
        let batch = [event(1), event(2)];
        let partial = |success: &Value| partial(&batch, &answer(200, "", ""), success);
        assert_eq!(partial(&Value::Null), Delivered::all(&batch));
        assert_eq!(partial(&json!({ "rejectedLogRecords": "0" })), Delivered::all(&batch));
        let some = partial(&json!({ "rejectedLogRecords": "1", "errorMessage": "too large" }));
        assert_eq!((some.events, some.refused.len()), (2, 2));
        assert!(some.refused[1].1.contains("rejected 1 of these 2, not saying which: too large"));
    }
}
