//! Objects in S3, or in anything that speaks it: each batch one object of gzipped NDJSON.
//!
//! ```text
//! PREFIX 2026/11/20/03/APPLIANCE-SHARD-SEQUENCE_COUNT.ndjson.gz
//! ```
//! Date and hour are those of the first event, and the name is its id: the same batch sent again replaces itself.

use super::deliver::{Deliver, Delivered, Failure};
use super::gzip::gzip;
use super::http::{Answer, Http};
use super::join::Event;
use super::sigv4::{Credentials, Request, Scope, encoded, sign};
use crate::config::S3Sink;
use aws_lc_rs::digest;
use reqwest::Method;
use reqwest::header::ETAG;
use std::time::Duration;

pub struct S3 {
    http: Http,
    config: S3Sink,
    credentials: Credentials,
}

impl S3 {
    pub fn open(config: &S3Sink, timeout: Duration) -> Result<Self, Failure> {
        Ok(Self {
            http: Http::new(&config.aws.place, timeout)?,
            credentials: Credentials::read(&config.aws)?,
            config: config.clone(),
        })
    }

    fn key(&self, batch: &[Event]) -> String {
        let time = jiff::Timestamp::from_microsecond(batch[0].time_us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let hour = time.strftime("%Y/%m/%d/%H");
        format!("{}{hour}/{}_{}.ndjson.gz", self.config.prefix, batch[0].uid, batch.len())
    }

    fn url(&self, key: &str) -> String {
        let key: Vec<_> = key.split('/').map(encoded).collect();
        format!("{}/{}", self.config.aws.place.url.trim_end_matches('/'), key.join("/"))
    }
}

impl Deliver for S3 {
    fn deliver(&mut self, batch: &[Event]) -> Result<Delivered, Failure> {
        self.credentials.renew(&self.config.aws)?;
        self.http.hide(self.credentials.secrets());
        let lines: String = batch.iter().flat_map(|event| [event.json.as_str(), "\n"]).collect();
        let body = gzip(lines.as_bytes());
        let url = self.url(&self.key(batch));
        let headers = [
            ("content-type", "application/x-ndjson".to_owned()),
            ("content-encoding", "gzip".to_owned()),
            // Buckets with object lock ask for a checksum of the request.
            ("x-amz-checksum-sha256", base64(digest::digest(&digest::SHA256, &body).as_ref())),
        ];
        let request = Request { method: "PUT", url: &url, headers: &headers, body: &body };
        let scope = Scope { region: &self.config.aws.region, service: "s3" };
        let headers = sign(&request, &scope, &self.credentials)?;
        let answer = self.http.send(Method::PUT, &url, headers, body)?;
        if is_taken(&answer) { Ok(Delivered::all(batch)) } else { Err(failure(&answer)) }
    }
}

/// A proxy or a sign-in page answers 200 as well. Whoever has stored an object tells its entity tag.
fn is_taken(answer: &Answer) -> bool {
    answer.is_success() && answer.headers.contains_key(ETAG)
}

/// No object is refused for what is in it: what S3 answers is about us, the bucket, or its load.
fn failure(answer: &Answer) -> Failure {
    let said = answer.said();
    let code = said.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    let what = format!("S3 answered {} {code}", answer.status);
    match (answer.status, code) {
        (_, "SlowDown" | "RequestTimeout") => Failure::later(what),
        (_, "RequestTimeTooSkewed") => Failure::mend(what, "set this host's clock: it is more than 15 minutes off"),
        (_, "NoSuchBucket") => Failure::mend(what, "make the bucket, or correct `bucket`"),
        (301 | 307, _) => Failure::mend(what, "the bucket is in another region: correct `region`"),
        (400 | 401 | 403, _) => Failure::mend(what, "the credential is wrong, or may not s3:PutObject there"),
        _ => answer.failure(),
    }
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (at, &byte)| word | u32::from(byte) << (16 - 8 * at));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { digit as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::answer;
    use super::*;

    #[test]
    fn base64_as_rfc_4648_tests_it() {
        for (text, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn only_an_entity_tag_says_that_an_object_is_stored() {
        for (status, head, body, taken) in [
            (200, "etag: \"9b2cf535f27731c974343645a3985328\"", "", true),
            (200, "content-type: text/html", "<html>sign in</html>", false),
            (200, "", "", false),
            (503, "etag: \"x\"", "", false),
        ] {
            let answer = answer(status, head, body);
            assert_eq!(is_taken(&answer), taken, "{status} {head}");
            assert!(taken || matches!(failure(&answer), Failure::Later { .. }), "it is sent again: {status} {head}");
        }
    }

    #[test]
    fn an_answer_is_about_us_or_its_load_never_about_the_events() {
        let of = |status, code: &str| {
            let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
            match failure(&answer(status, "", &body)) {
                Failure::Later { mend, .. } => mend.is_some(),
                Failure::Refused { what } => panic!("{what}"),
            }
        };
        for (status, code, mend) in [
            (503, "SlowDown", false),
            (500, "InternalError", false),
            (400, "RequestTimeout", false),
            (403, "SignatureDoesNotMatch", true),
            (403, "AccessDenied", true),
            (404, "NoSuchBucket", true),
            (301, "PermanentRedirect", true),
            (400, "InvalidBucketName", true),
        ] {
            assert_eq!(of(status, code), mend, "{status} {code}");
        }
    }
}
