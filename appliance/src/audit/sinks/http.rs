//! What all sinks over HTTP share: one client, one request at a time, and what an answer means.

use super::certificate;
use super::deliver::Failure;
use super::hidden::Hidden;
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
    /// Besides what sensitive headers carry: what the receiver knows as well, and is not sent.
    hidden: Hidden,
}

/// The receiver has answered, whatever it says.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// What must not be quoted of it.
    hidden: Hidden,
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
        Ok(Self { runtime, client, hidden: Hidden::default() })
    }

    /// From now on these are kept out of what is quoted of answers.
    pub fn hide<'a>(&mut self, secrets: impl IntoIterator<Item = &'a str>) {
        self.hidden = Hidden::default();
        secrets.into_iter().for_each(|secret| self.hidden.add(secret));
    }

    pub fn send(&self, method: Method, url: &str, headers: HeaderMap, body: Vec<u8>) -> Result<Answer, Failure> {
        let mut hidden = self.hidden.clone();
        hidden.add_headers(&headers);
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
            Ok(Answer { status, headers, body, hidden })
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
    if let Some(refused) = certificate::refused("", error) {
        return refused;
    }
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

    /// The beginning of what it said, without our secrets: it stands in logs and files.
    pub fn said(&self) -> String {
        self.quoted(&String::from_utf8_lossy(&self.body)).chars().take(SAID_CHARS_MAX).collect()
    }

    /// Any text of it, fit to be told.
    pub fn quoted(&self, text: &str) -> String {
        self.hidden.redact(text)
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
    use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
    use std::io::{Read as _, Write as _};

    /// `head`: one header, `name: value`, or none.
    pub fn answer(status: u16, head: &str, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = head.split_once(": ") {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
            headers.insert(name, value.parse().expect("a header's value"));
        }
        Answer { status, headers, body: body.as_bytes().to_vec(), hidden: Hidden::default() }
    }

    #[test]
    fn a_receiver_that_quotes_the_request_gives_no_secret_away() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let serve = move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 2048];
            let bytes = stream.read(&mut request).expect("readable");
            let request = String::from_utf8_lossy(&request[..bytes]);
            let (_, token) = request.split_once("Bearer ").expect("a token");
            // What is told is cut within the token.
            let body = format!("{} {token} hm4c-s3cret", "x".repeat(190));
            write!(stream, "HTTP/1.1 400 Bad\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("written");
        };
        let server = std::thread::spawn(serve);
        let mut http = Http::direct(Duration::from_secs(10)).expect("a client");
        http.hide(["hm4c-s3cret"]);
        let mut headers = HeaderMap::new();
        let mut bearer = HeaderValue::from_static("Bearer receiver-t0ken-that-is-quite-long");
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        let answer = http.send(Method::POST, &url, headers, b"[]".to_vec()).expect("answered");
        server.join().expect("it ends");
        let whole = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(whole.contains("t0ken") && whole.contains("hm4c"), "{whole}");
        for told in [format!("{:?}", answer.failure()), answer.quoted(&whole)] {
            assert!(!told.contains("receiver-") && !told.contains("t0ken") && !told.contains("hm4c"), "{told}");
            assert!(told.contains("[secr"), "{told}");
        }
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
        let seconds =
            |text| answer(503, &format!("retry-after: {text}"), "").retry_after().map(|pause| pause.as_secs());
        assert_eq!((seconds("7"), seconds(" 120 "), seconds("soon")), (Some(7), Some(120), None));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        let year = seconds("Tue, 31 Dec 2999 23:59:59 GMT").expect("a date");
        assert!(year > 86_400 * 365);
    }
}
