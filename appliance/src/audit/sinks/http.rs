//! What all sinks over HTTP share: one client, one request at a time, and what an answer means.

use super::deliver::Failure;
use crate::config::HttpPlace;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode};
use std::time::Duration;

/// Of an answer. Beyond: the rest is not read; what matters stands at the beginning.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Of an answer's text in an error.
const SAID_CHARS_MAX: usize = 200;

/// A client with a runtime of its own: couriers are plain threads.
pub struct Http {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

/// The receiver has answered, whatever it says.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Http {
    pub fn new(place: &HttpPlace, timeout: Duration) -> Result<Self, Failure> {
        let mut builder = builder(timeout);
        if let Some(path) = &place.tls_ca {
            let unreadable = |error: &dyn std::fmt::Display| {
                Failure::mend(format!("{}: {error}", path.display()), "name a PEM file with the receiver's authorities")
            };
            let pem = crate::files::read(path).map_err(|error| unreadable(&error))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(&error))?;
            if certificates.is_empty() {
                return Err(unreadable(&"there is no certificate in it"));
            }
            builder = builder.tls_certs_only(certificates);
        }
        if place.is_local() {
            // No proxy stands between this machine and itself.
            builder = builder.no_proxy();
        }
        Self::of(builder)
    }

    /// For what can only be on this machine or beside it, whatever the environment says of proxies.
    pub fn direct(timeout: Duration) -> Result<Self, Failure> {
        Self::of(builder(timeout).no_proxy())
    }

    fn of(builder: reqwest::ClientBuilder) -> Result<Self, Failure> {
        let client = builder.build().map_err(|error| Failure::later(format!("no HTTP client: {error}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::later(format!("no runtime for HTTP: {error}")))?;
        Ok(Self { runtime, client })
    }

    pub fn send(&self, method: Method, url: &str, headers: HeaderMap, body: Vec<u8>) -> Result<Answer, Failure> {
        let request = self.client.request(method, url).headers(headers).body(body);
        self.runtime.block_on(async {
            let mut response = request.send().await.map_err(|error| unreachable(&error))?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let mut body = Vec::new();
            while body.len() < ANSWER_BYTES_MAX
                && let Some(part) = response.chunk().await.map_err(|error| unreachable(&error))?
            {
                body.extend_from_slice(&part);
            }
            Ok(Answer { status, headers, body })
        })
    }
}

/// Redirects are not followed: records go where the configuration says, not where somebody points.
fn builder(timeout: Duration) -> reqwest::ClientBuilder {
    let agent = concat!("lockgate/", env!("CARGO_PKG_VERSION"));
    Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none()).user_agent(agent)
}

/// The innermost cause says it best, without the URL: a query could hold a secret.
fn unreachable(error: &reqwest::Error) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let what = if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
    Failure::later(format!("the receiver cannot be reached: {what}"))
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The beginning of what it said.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(SAID_CHARS_MAX).collect()
    }

    /// Null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What an answer that is no success means to most receivers; those that tell more look at it first.
    pub fn failure(&self) -> Failure {
        let status = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason()).unwrap_or("");
        let what = format!("the receiver answered {} {status}: {}", self.status, self.said());
        match self.status {
            400 | 413 | 422 => Failure::Refused { what },
            401 | 403 => Failure::mend(what, "the receiver does not accept the credential: correct it, then reload"),
            408 | 425 | 429 | 500.. => Failure::Later { what, mend: None, after: self.retry_after() },
            300..400 => Failure::mend(what, "redirects are not followed: write the final URL into the configuration"),
            _ => Failure::mend(what, "is the URL right?"),
        }
    }

    /// Seconds, or a date (RFC 9110, 10.2.3).
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse::<u64>() {
            return Some(Duration::from_secs(seconds));
        }
        let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Some(Duration::try_from(date.duration_since(jiff::Timestamp::now())).unwrap_or(Duration::ZERO))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use reqwest::header::HeaderName;

    /// `head`: one header, `name: value`, or none.
    pub fn answer(status: u16, head: &str, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = head.split_once(": ") {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
            headers.insert(name, value.parse().expect("a header's value"));
        }
        Answer { status, headers, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn a_status_says_whether_to_wait_to_split_or_to_mend() {
        let of = |status| match answer(status, "", "no").failure() {
            Failure::Refused { .. } => "split",
            Failure::Later { mend: None, .. } => "wait",
            Failure::Later { mend: Some(_), .. } => "mend",
        };
        for (statuses, expected) in [
            (&[400, 413, 422][..], "split"),
            (&[408, 425, 429, 500, 502, 503, 504, 599], "wait"),
            (&[301, 401, 403, 404, 405, 410], "mend"),
        ] {
            for &status in statuses {
                assert_eq!(of(status), expected, "{status}");
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let seconds = |text| answer(503, &format!("retry-after: {text}"), "").retry_after().map(|pause| pause.as_secs());
        assert_eq!((seconds("7"), seconds(" 120 "), seconds("soon")), (Some(7), Some(120), None));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        let year = seconds("Tue, 31 Dec 2999 23:59:59 GMT").expect("a date");
        assert!(year > 86_400 * 365);
    }
}
