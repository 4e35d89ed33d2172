//! AWS Signature Version 4, as far as PutLogEvents and PutObject need it. Written out: the official crate brings a dozen
//! others, and the algorithm is four HMACs over a text; the tests are AWS's own published examples.

use super::deliver::Failure;
use super::{instance, secret};
use crate::audit::segment::hex;
use crate::config::AwsPlace;
use aws_lc_rs::{digest, hmac};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::time::SystemTime;
use zeroize::Zeroizing;

pub struct Credentials {
    pub(super) access_key_id: String,
    pub(super) secret_key: Zeroizing<String>,
    pub(super) session_token: Option<Zeroizing<String>>,
    /// Unix seconds. `None`: not that we know.
    pub(super) expires_s: Option<i64>,
}

/// New credentials are there some minutes before the old ones end.
const RENEW_BEFORE_S: i64 = 300;

impl Credentials {
    /// As configured; else from the variables that AWS's own tools read; else those of the machine's role.
    pub fn read(place: &AwsPlace) -> Result<Self, Failure> {
        let variable = |name: &str| secret::read(&crate::config::Secret::Env(name.to_owned()));
        if let Some(access_key_id) = &place.access_key_id {
            let secret_key =
                place.secret_key.as_ref().map_or_else(|| variable("AWS_SECRET_ACCESS_KEY"), secret::read)?;
            let session_token = place.session_token.as_ref().map(secret::read).transpose()?;
            return Ok(Self { access_key_id: access_key_id.clone(), secret_key, session_token, expires_s: None });
        }
        match variable("AWS_ACCESS_KEY_ID") {
            Ok(access_key_id) => Ok(Self {
                access_key_id: access_key_id.to_string(),
                secret_key: variable("AWS_SECRET_ACCESS_KEY")?,
                session_token: variable("AWS_SESSION_TOKEN").ok(),
                expires_s: None,
            }),
            Err(_) => instance::credentials(),
        }
    }

    /// Reads them again before they end.
    pub fn renew(&mut self, place: &AwsPlace) -> Result<(), Failure> {
        let now_s = jiff::Timestamp::now().as_second();
        if self.expires_s.is_some_and(|end| end - RENEW_BEFORE_S < now_s) {
            *self = Self::read(place)?;
        }
        Ok(())
    }

    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        [&self.secret_key].into_iter().chain(&self.session_token).map(|secret| secret.as_str())
    }
}

/// What is signed. The path is as it stands in the request line, without a query.
pub struct Request<'a> {
    pub method: &'a str,
    pub url: &'a str,
    /// Besides `host`, `x-amz-date`, `x-amz-content-sha256` and the token, which are added; lower case.
    pub headers: &'a [(&'static str, String)],
    pub body: &'a [u8],
}

/// Where a signature holds.
pub struct Scope<'a> {
    pub region: &'a str,
    pub service: &'static str,
}

/// All headers to send, the signature among them.
pub fn sign(request: &Request<'_>, scope: &Scope<'_>, credentials: &Credentials) -> Result<HeaderMap, Failure> {
    let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut headers: Vec<(&str, String)> = request.headers.to_vec();
    headers.push(("x-amz-content-sha256", sha256(request.body)));
    headers.extend(credentials.session_token.as_ref().map(|token| ("x-amz-security-token", token.to_string())));
    let authorization = authorization(request, &mut headers, &stamp, scope, credentials);
    headers.push(("authorization", authorization));
    // The client sets `host` itself, the same.
    headers.retain(|(name, _)| *name != "host");
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let secret = matches!(name, "authorization" | "x-amz-security-token");
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(&value).ok());
        let Some((name, mut value)) = parsed else {
            return Err(Failure::mend(format!("{name} holds what no header can carry"), "correct the sink's settings"));
        };
        value.set_sensitive(secret);
        map.insert(name, value);
    }
    Ok(map)
}

/// Adds `host` and `x-amz-date` to the headers and signs them all.
fn authorization(
    request: &Request<'_>,
    headers: &mut Vec<(&str, String)>,
    stamp: &str,
    scope: &Scope<'_>,
    credentials: &Credentials,
) -> String {
    let (host, path) = host_and_path(request.url);
    headers.push(("host", host.to_owned()));
    headers.push(("x-amz-date", stamp.to_owned()));
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical = format!("{}\n{path}\n\n{lines}\n{names}\n{}", request.method, sha256(request.body));
    let date = &stamp[..8];
    let place = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{place}\n{}", sha256(canonical.as_bytes()));
    let secret = Zeroizing::new(format!("AWS4{}", *credentials.secret_key));
    let mut key = Zeroizing::new(secret.as_bytes().to_vec());
    for part in [date, scope.region, scope.service, "aws4_request"] {
        key = Zeroizing::new(mac(&key, part).as_ref().to_vec());
    }
    let signature = hex(mac(&key, &to_sign).as_ref());
    let id = &credentials.access_key_id;
    format!("AWS4-HMAC-SHA256 Credential={id}/{place}, SignedHeaders={names}, Signature={signature}")
}

/// The host with a port that is not the scheme's own: as the client sends it.
fn host_and_path(url: &str) -> (&str, &str) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let own = if scheme == "http" { ":80" } else { ":443" };
    (host.strip_suffix(own).unwrap_or(host), path)
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// A part of a path: everything but unreserved characters as `%XX` (RFC 3986, 2.3), which is what is signed.
pub fn encoded(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(id: &str, secret: &str) -> Credentials {
        Credentials {
            access_key_id: id.into(),
            secret_key: Zeroizing::new(secret.into()),
            session_token: None,
            expires_s: None,
        }
    }

    /// `get-vanilla` of the Signature Version 4 test suite.
    #[test]
    fn the_test_suites_plainest_request_is_signed_as_published() {
        let request = Request { method: "GET", url: "https://example.amazonaws.com/", headers: &[], body: b"" };
        let scope = Scope { region: "us-east-1", service: "service" };
        let credentials = credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let signed = authorization(&request, &mut Vec::new(), "20150830T123600Z", &scope, &credentials);
        assert_eq!(
            signed,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    /// "GET Object" of Amazon S3's guide to authenticating requests.
    #[test]
    fn the_s3_guides_example_is_signed_as_published() {
        let url = "https://examplebucket.s3.amazonaws.com/test.txt";
        let request = Request { method: "GET", url, headers: &[], body: b"" };
        let scope = Scope { region: "us-east-1", service: "s3" };
        let credentials = credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let mut headers = vec![("range", "bytes=0-9".to_owned()), ("x-amz-content-sha256", sha256(b""))];
        let signed = authorization(&request, &mut headers, "20130524T000000Z", &scope, &credentials);
        assert!(
            signed.ends_with("Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
            "{signed}"
        );
    }

    #[test]
    fn hosts_are_as_the_client_sends_them_and_paths_are_encoded() {
        assert_eq!(host_and_path("http://localhost:5000/b/k"), ("localhost:5000", "/b/k"));
        assert_eq!(host_and_path("https://s3.example:443"), ("s3.example", "/"));
        assert_eq!(encoded("a b+c/é"), "a%20b%2Bc%2F%C3%A9");
    }

    #[test]
    fn a_session_token_is_signed_and_neither_it_nor_the_signature_is_shown() {
        let request = Request { method: "PUT", url: "http://localhost:5000/b/k", headers: &[], body: b"x" };
        let scope = Scope { region: "eu-west-1", service: "s3" };
        let credentials =
            Credentials { session_token: Some(Zeroizing::new("t0ken".into())), ..credentials("id", "s3cret") };
        let headers = sign(&request, &scope, &credentials).expect("signed");
        let shown = format!("{headers:?}");
        assert!(!shown.contains("t0ken") && !shown.contains("Signature="), "{shown}");
        let authorization = headers["authorization"].to_str().expect("text");
        assert!(authorization.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token"));
    }
}
