//! Where an issuer's keys are found: OpenID Connect discovery, then the key set (OpenID Connect Discovery 1.0 section 4,
//! RFC 8414 section 3). Runs on the control thread.

use super::json;
use super::jwks::{DOCUMENT_BYTES_MAX, Jwks, JwksError};
use crate::config::Issuer;
use reqwest::header::{CACHE_CONTROL, HeaderMap};
use reqwest::{Client, Url};
use serde_json::Value;
use std::time::Duration;

/// For one document, from connecting to its last byte. Beyond: the keys known so far stay, and it is tried again.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Why an issuer's keys could not be had. Nothing in it is secret.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    #[error("{0:?} is not a URL keys can be fetched from: https is needed (http on loopback only)")]
    Url(String),
    #[error("{url} could not be fetched: {reason}")]
    Fetch { url: String, reason: String },
    #[error("{url} answered {status}")]
    Status { url: String, status: u16 },
    #[error("{url} sent more than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong { url: String },
    #[error("{url} is not a JSON object without repeated members")]
    NotAnObject { url: String },
    #[error("the discovery document names {found:?} as issuer, not {expected:?}")]
    OtherIssuer { expected: String, found: String },
    #[error("the discovery document has no jwks_uri")]
    NoKeySet,
    #[error("{url}: {reason}")]
    Keys { url: String, reason: JwksError },
}

/// Fetches the keys of an issuer by discovery.
pub async fn fetch(issuer: &Issuer) -> Result<Jwks, DiscoveryError> {
    let base = allowed(&issuer.issuer, true)?;
    let local = is_loopback(&base);
    let client = client(local).map_err(|error| failed(&base, &error))?;
    let address = format!("{}{WELL_KNOWN}", issuer.issuer.strip_suffix('/').unwrap_or(&issuer.issuer));
    let (document, _) = get(&client, allowed(&address, true)?).await?;
    let document = json::object(&document).ok_or(DiscoveryError::NotAnObject { url: address })?;
    // Exactly: an issuer that may speak for another one is an attack (OpenID Connect Discovery 1.0 section 4.3).
    let named = document.get("issuer").and_then(Value::as_str).unwrap_or_default();
    if named != issuer.issuer {
        return Err(DiscoveryError::OtherIssuer { expected: issuer.issuer.clone(), found: named.to_owned() });
    }
    let address = document.get("jwks_uri").and_then(Value::as_str).ok_or(DiscoveryError::NoKeySet)?;
    let (document, fresh_for) = get(&client, allowed(address, local)?).await?;
    let mut keys = Jwks::parse(&document).map_err(|reason| DiscoveryError::Keys { url: address.to_owned(), reason })?;
    keys.fresh_for = fresh_for;
    Ok(keys)
}

/// https, or http to this very machine.
fn allowed(address: &str, plain_on_loopback: bool) -> Result<Url, DiscoveryError> {
    let refused = || DiscoveryError::Url(address.to_owned());
    let url = Url::parse(address).map_err(|_| refused())?;
    let plain = plain_on_loopback && url.scheme() == "http" && is_loopback(&url);
    if url.scheme() == "https" || plain { Ok(url) } else { Err(refused()) }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Redirects are not followed: the issuer is who was configured, not whoever it points at.
fn client(local: bool) -> Result<Client, reqwest::Error> {
    let builder = Client::builder().timeout(FETCH_TIMEOUT).redirect(reqwest::redirect::Policy::none());
    let builder = builder.user_agent(concat!("lockgate/", env!("CARGO_PKG_VERSION")));
    // No proxy stands between this machine and itself.
    if local { builder.no_proxy().build() } else { builder.build() }
}

async fn get(client: &Client, url: Url) -> Result<(Vec<u8>, Option<Duration>), DiscoveryError> {
    let mut response = client.get(url.clone()).send().await.map_err(|error| failed(&url, &error))?;
    if !response.status().is_success() {
        return Err(DiscoveryError::Status { url: url.to_string(), status: response.status().as_u16() });
    }
    let fresh_for = max_age(response.headers());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&url, &error))? {
        if body.len() + chunk.len() > DOCUMENT_BYTES_MAX {
            return Err(DiscoveryError::TooLong { url: url.to_string() });
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, fresh_for))
}

/// The whole chain of causes: `error sending request` alone helps nobody.
fn failed(url: &Url, error: &reqwest::Error) -> DiscoveryError {
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        reason = format!("{reason}: {inner}");
        cause = inner.source();
    }
    DiscoveryError::Fetch { url: url.to_string(), reason }
}

/// `max-age` of Cache-Control; `no-store` and `no-cache` mean: ask again soon.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives: Vec<String> =
        directives.flat_map(|value| value.split(',')).map(|one| one.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|one| one == "no-store" || one == "no-cache") {
        return Some(Duration::ZERO);
    }
    let seconds = directives.iter().find_map(|one| one.strip_prefix("max-age="))?;
    seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::identity::development::{NewKey, SigningKey};
    use crate::identity::issuer_for_tests;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get as serve;
    use serde_json::json;
    use std::sync::{Arc, Mutex};

    /// An issuer on loopback whose answers a test can change. Stops with the runtime it was started on.
    #[derive(Clone)]
    pub struct TestIssuer {
        pub url: String,
        pub answers: Arc<Mutex<Answers>>,
    }

    pub struct Answers {
        pub status: u16,
        pub configuration: String,
        pub keys: String,
        pub cache_control: Option<&'static str>,
        /// How often the key set was asked for.
        pub asked: usize,
    }

    impl TestIssuer {
        pub async fn start(keys: &Value) -> TestIssuer {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let url = format!("http://{}", listener.local_addr().expect("bound"));
            let configuration = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
            let answers = Answers { status: 200, configuration, keys: keys.to_string(), cache_control: None, asked: 0 };
            let answers = Arc::new(Mutex::new(answers));
            let (for_configuration, for_keys) = (answers.clone(), answers.clone());
            let configuration = move || {
                let answers = for_configuration.lock().expect("no panic");
                std::future::ready((status(&answers), answers.configuration.clone()))
            };
            let keys = move || {
                let mut answers = for_keys.lock().expect("no panic");
                answers.asked += 1;
                let control = [(CACHE_CONTROL, answers.cache_control.unwrap_or("private"))];
                std::future::ready((status(&answers), control, answers.keys.clone()))
            };
            let router = Router::new().route(WELL_KNOWN, serve(configuration)).route("/keys", serve(keys));
            tokio::spawn(async move { axum::serve(listener, router).await });
            TestIssuer { url, answers }
        }

        pub fn change(&self, change: impl FnOnce(&mut Answers)) {
            change(&mut self.answers.lock().expect("no panic"));
        }

        pub fn config(&self) -> Issuer {
            issuer_for_tests(&self.url, "lockgate")
        }
    }

    fn status(answers: &Answers) -> StatusCode {
        StatusCode::from_u16(answers.status).expect("a status")
    }

    pub fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    fn key() -> SigningKey {
        SigningKey::generate(NewKey::Es256).expect("a key")
    }

    #[test]
    fn keys_are_found_by_discovery_with_their_age() {
        runtime().block_on(async {
            let key = key();
            let issuer = TestIssuer::start(&key.jwks()).await;
            issuer.change(|answers| answers.cache_control = Some("public, max-age=600, must-revalidate"));
            let keys = fetch(&issuer.config()).await.expect("an honest issuer");
            assert_eq!(keys.keys[0].kid.as_deref(), Some(key.kid().as_str()));
            assert_eq!(keys.fresh_for, Some(Duration::from_secs(600)));
        });
    }

    #[test]
    fn an_issuer_that_speaks_for_another_is_refused() {
        runtime().block_on(async {
            let issuer = TestIssuer::start(&key().jwks()).await;
            let keys_at = format!("{}/keys", issuer.url);
            for named in ["https://login.example.com", "", &format!("{}/", issuer.url)] {
                let lie = json!({"issuer": named, "jwks_uri": keys_at}).to_string();
                issuer.change(|answers| answers.configuration = lie);
                let refused = fetch(&issuer.config()).await;
                assert!(matches!(refused, Err(DiscoveryError::OtherIssuer { .. })), "{named:?}: {refused:?}");
            }
            assert_eq!(issuer.answers.lock().expect("no panic").asked, 0, "its keys were never asked for");
        });
    }

    #[test]
    fn key_sets_elsewhere_need_https() {
        runtime().block_on(async {
            let issuer = TestIssuer::start(&key().jwks()).await;
            for address in ["http://192.0.2.1/keys", "file:///etc/passwd", "keys", ""] {
                let named = json!({"issuer": issuer.url, "jwks_uri": address}).to_string();
                issuer.change(|answers| answers.configuration = named);
                let refused = fetch(&issuer.config()).await;
                assert!(matches!(refused, Err(DiscoveryError::Url(_))), "{address}: {refused:?}");
            }
            assert!(matches!(fetch(&issuer_for_tests("http://192.0.2.1", "x")).await, Err(DiscoveryError::Url(_))));
            assert!(allowed("http://127.0.0.1/keys", false).is_err(), "not from an https issuer down to plain http");
        });
    }

    #[test]
    fn bad_answers_are_told_apart() {
        runtime().block_on(async {
            let issuer = TestIssuer::start(&key().jwks()).await;
            let good = issuer.answers.lock().expect("no panic").configuration.clone();
            issuer.change(|answers| answers.status = 503);
            assert!(matches!(fetch(&issuer.config()).await, Err(DiscoveryError::Status { status: 503, .. })));
            issuer.change(|answers| answers.status = 302);
            assert!(matches!(fetch(&issuer.config()).await, Err(DiscoveryError::Status { status: 302, .. })));
            issuer.change(|answers| answers.status = 200);
            issuer.change(|answers| answers.configuration = "<html>".into());
            assert!(matches!(fetch(&issuer.config()).await, Err(DiscoveryError::NotAnObject { .. })));
            let without = json!({"issuer": issuer.url}).to_string();
            issuer.change(|answers| answers.configuration = without);
            assert!(matches!(fetch(&issuer.config()).await, Err(DiscoveryError::NoKeySet)));
            issuer.change(|answers| answers.configuration = good);
            issuer.change(|answers| answers.keys = " ".repeat(DOCUMENT_BYTES_MAX + 1));
            assert!(matches!(fetch(&issuer.config()).await, Err(DiscoveryError::TooLong { .. })));
            issuer.change(|answers| answers.keys = "{}".into());
            assert!(matches!(fetch(&issuer.config()).await, Err(DiscoveryError::Keys { .. })));
            let nobody = issuer_for_tests("http://127.0.0.1:1", "lockgate");
            assert!(matches!(fetch(&nobody).await, Err(DiscoveryError::Fetch { .. })));
        });
    }

    #[test]
    fn cache_control_is_read_as_it_is_written() {
        let age = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, text.parse().expect("a header"));
            max_age(&headers)
        };
        assert_eq!(age("max-age=60"), Some(Duration::from_secs(60)));
        assert_eq!(age("Public, Max-Age=\"60\""), Some(Duration::from_secs(60)));
        assert_eq!(age("no-store, max-age=60"), Some(Duration::ZERO));
        assert_eq!(age("private"), None);
        assert_eq!(age("max-age=soon"), None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }
}
