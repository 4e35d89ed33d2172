//! A webhook: POST of a JSON array of events. With a secret each request is signed:
//!
//! ```text
//! X-Lockgate-Signature: t=1795142000,v1=<hex of HMAC-SHA256(secret, "1795142000" "." body)>
//! X-Lockgate-Batch: <uid of the first event>/<number of events>
//! ```
//! A receiver checks the signature over the body as it came, and that `t` is recent: then nothing can be forged or replayed.

use super::deliver::{Deliver, Delivered, Failure};
use super::http::{Answer, Http};
use super::join::Event;
use super::secret;
use crate::audit::segment::hex;
use crate::config::{self, WebhookSink};
use aws_lc_rs::hmac;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub struct Webhook {
    http: Http,
    url: String,
    key: Option<hmac::Key>,
    bearer: Option<HeaderValue>,
}

impl Webhook {
    pub fn open(config: &WebhookSink, timeout: Duration) -> Result<Self, Failure> {
        let key = config.secret.as_ref().map(secret::read).transpose()?;
        let mut http = Http::new(&config.place, timeout)?;
        http.hide(key.iter().map(|key| key.as_str()).chain(path_of(&config.place.url)));
        Ok(Self {
            http,
            url: config.place.url.clone(),
            key: key.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())),
            bearer: config.token.as_ref().map(bearer).transpose()?,
        })
    }
}

/// Where that is more than `/`: some receivers take whoever knows it for one of theirs.
fn path_of(url: &str) -> Option<&str> {
    let (_, place) = url.split_once("://")?;
    let path = &place[place.find('/')?..];
    let path = path.split(['?', '#']).next().unwrap_or(path).trim_end_matches('/');
    (!path.is_empty()).then_some(path)
}

/// `Authorization: Bearer ...`; marked so that it is not shown in debug output.
pub fn bearer(token: &config::Secret) -> Result<HeaderValue, Failure> {
    authorization("Bearer", token)
}

pub fn authorization(scheme: &str, token: &config::Secret) -> Result<HeaderValue, Failure> {
    let token = secret::read(token)?;
    let mut value = HeaderValue::from_str(&format!("{scheme} {}", *token))
        .map_err(|_| Failure::mend("the token holds characters that no header can carry", "correct the token"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn signature(key: &hmac::Key, unix_s: u64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(unix_s.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    format!("t={unix_s},v1={}", hex(context.sign().as_ref()))
}

/// `[event,event,...]`
pub fn json_array(batch: &[Event]) -> Vec<u8> {
    let mut body = Vec::with_capacity(batch.iter().map(|event| event.json.len() + 1).sum::<usize>() + 2);
    for (index, event) in batch.iter().enumerate() {
        body.push(if index == 0 { b'[' } else { b',' });
        body.extend_from_slice(event.json.as_bytes());
    }
    body.push(b']');
    body
}

impl Deliver for Webhook {
    fn deliver(&mut self, batch: &[Event]) -> Result<Delivered, Failure> {
        let body = json_array(batch);
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut insert = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        insert("x-lockgate-batch", format!("{}/{}", batch[0].uid, batch.len()));
        if let Some(key) = &self.key {
            insert("x-lockgate-signature", signature(key, unix_s, &body));
        }
        if let Some(bearer) = &self.bearer {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        let answer = self.http.send(Method::POST, &self.url, headers, body)?;
        if is_taken(&answer) { Ok(Delivered::all(batch)) } else { Err(answer.failure()) }
    }
}

/// A receiver may answer what it likes, but not with a page: that is a sign-in, or a proxy, which says 200 as well. (What is no
/// page is taken: some frameworks call an empty answer and `ok` HTML.)
fn is_taken(answer: &Answer) -> bool {
    let text = answer.body.trim_ascii_start();
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text).trim_ascii_start();
    let is_page =
        match answer.headers.get(CONTENT_TYPE).map(|value| media_type(value.as_bytes())).filter(|of| !of.is_empty()) {
            Some(of) => is_one_of(of, &["text/html", "application/xhtml+xml"]) && text.starts_with(b"<"),
            // What it is shows in how it begins.
            None => ["<!doctype html", "<html"]
                .iter()
                .any(|begin| is_one_of(&text[..text.len().min(begin.len())], &[begin])),
        };
    answer.is_success() && !is_page
}

/// Without its parameters.
fn media_type(value: &[u8]) -> &[u8] {
    value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}

fn is_one_of(text: &[u8], names: &[&str]) -> bool {
    names.iter().any(|name| text.eq_ignore_ascii_case(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::answer;
    use super::super::tests::event;
    use super::*;

    #[test]
    fn a_page_is_no_receivers_answer() {
        let page = "\n<!DOCTYPE html><title>Sign in</title>";
        for (status, head, body, taken) in [
            (200, "content-type: application/json", "{}", true),
            (200, "content-type: text/plain", "<ok>", true),
            (200, "content-type: text/html; charset=utf-8", "ok", true),
            (204, "content-type: text/html", "", true),
            (202, "", "", true),
            (200, "", "<ok/>", true),
            (200, "", page, false),
            (200, "", "\u{feff} <HTML lang=en>", false),
            (200, "content-type: ", page, false),
            (200, "content-type: text/html; charset=utf-8", page, false),
            (200, "content-type: Text/HTML", "\u{feff}<html>", false),
            (500, "content-type: application/json", "{}", false),
        ] {
            let answer = answer(status, head, body);
            assert_eq!(is_taken(&answer), taken, "{status} {head} {body}");
            assert!(taken || matches!(answer.failure(), Failure::Later { .. }), "it is sent again: {status} {head}");
        }
    }

    #[test]
    fn the_path_is_what_a_url_may_have_in_confidence() {
        for (url, path) in [
            ("https://hooks.test/services/T0/B0/x?a=b", Some("/services/T0/B0/x")),
            ("https://hooks.test/", None),
            ("https://hooks.test", None),
            ("http://127.0.0.1:80/in/", Some("/in")),
        ] {
            assert_eq!(path_of(url), path, "{url}");
        }
    }

    #[test]
    fn a_batch_is_one_json_array() {
        let batch = [event(1), event(2)];
        let array: Vec<serde_json::Value> = serde_json::from_slice(&json_array(&batch)).expect("JSON");
        assert_eq!((array.len(), &array[1]["n"]), (2, &2.into()));
    }

    /// The key and the text are those of RFC 4231, test case 2; the text is split where ours has its dot.
    #[test]
    fn a_signature_covers_time_and_body() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let whole = hmac::sign(&key, b"17.what do ya want for nothing?");
        assert_eq!(signature(&key, 17, b"what do ya want for nothing?"), format!("t=17,v1={}", hex(whole.as_ref())));
        assert_ne!(signature(&key, 18, b"what do ya want for nothing?")[5..], hex(whole.as_ref()));
    }
}
