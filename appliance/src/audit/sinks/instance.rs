//! The credentials of the role a machine in EC2 runs under: its metadata service, version 2 (a token first).

use super::deliver::Failure;
use super::http::Http;
use super::sigv4::Credentials;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;
use zeroize::Zeroizing;

/// The service is on the machine's own link: if it is there, it answers at once.
const TIMEOUT: Duration = Duration::from_secs(2);
const SERVICE: &str = "http://169.254.169.254";
/// What AWS's own tools read where the service is elsewhere.
const SERVICE_VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";

pub fn credentials() -> Result<Credentials, Failure> {
    let service = std::env::var(SERVICE_VARIABLE).unwrap_or_else(|_| SERVICE.to_owned());
    of(service.trim_end_matches('/')).map_err(|failure| {
        let what = match failure {
            Failure::Later { what, .. } | Failure::Refused { what } => what,
        };
        let mend = "give the sink `access_key_id` and its secret, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role";
        Failure::mend(format!("no AWS credential: {what}"), mend)
    })
}

fn of(service: &str) -> Result<Credentials, Failure> {
    let http = Http::direct(TIMEOUT)?;
    let ask = |method, path: &str, name: &'static str, value: &str| {
        let mut headers = HeaderMap::new();
        let value =
            HeaderValue::from_str(value).map_err(|_| Failure::later("the metadata service's token is no text"))?;
        headers.insert(HeaderName::from_static(name), value);
        let answer = http.send(method, &format!("{service}/latest/{path}"), headers, Vec::new())?;
        if !answer.is_success() {
            return Err(Failure::later(format!("the metadata service answered {} to {path}", answer.status)));
        }
        Ok(answer)
    };
    let token = ask(Method::PUT, "api/token", "x-aws-ec2-metadata-token-ttl-seconds", "60")?;
    let token = String::from_utf8_lossy(&token.body).trim().to_owned();
    let roles = "meta-data/iam/security-credentials/";
    let get = |path: &str| ask(Method::GET, path, "x-aws-ec2-metadata-token", &token);
    let named = get(roles)?;
    let role = String::from_utf8_lossy(&named.body).lines().next().unwrap_or_default().trim().to_owned();
    let found = get(&format!("{roles}{role}"))?.json();
    let text = |key: &str| found[key].as_str().map(str::to_owned);
    match (text("AccessKeyId"), text("SecretAccessKey")) {
        (Some(access_key_id), Some(secret_key)) => Ok(Credentials {
            access_key_id,
            secret_key: Zeroizing::new(secret_key),
            session_token: text("Token").map(Zeroizing::new),
            expires_s: text("Expiration")
                .and_then(|end| end.parse::<jiff::Timestamp>().ok())
                .map(|end| end.as_second()),
        }),
        _ => Err(Failure::later(format!("the machine's role \"{role}\" gives no credential"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    /// Answers one request a connection; the heads of the requests.
    fn service(answers: Vec<&'static str>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let serve = move || {
            let answer = |body: &str| {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut head = [0; 2048];
                let bytes = stream.read(&mut head).expect("readable");
                write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                    .expect("written");
                String::from_utf8_lossy(&head[..bytes]).into_owned()
            };
            answers.into_iter().map(answer).collect()
        };
        (address, std::thread::spawn(serve))
    }

    #[test]
    fn a_token_is_asked_for_first_and_shown_with_each_question() {
        let found =
            r#"{"AccessKeyId":"ASIA1","SecretAccessKey":"s3cret","Token":"t0ken","Expiration":"2026-11-20T09:12:00Z"}"#;
        let (address, served) = service(vec!["meta-token", "gateway-role", found]);
        let credentials = of(&address).expect("credentials");
        assert_eq!((credentials.access_key_id.as_str(), credentials.secret_key.as_str()), ("ASIA1", "s3cret"));
        assert_eq!(credentials.session_token.as_deref().map(String::as_str), Some("t0ken"));
        assert_eq!(credentials.expires_s, Some(1_795_165_920));
        let asked = served.join().expect("it ends");
        assert!(asked[0].starts_with("PUT /latest/api/token ") && asked[0].contains("ttl-seconds: 60"), "{asked:?}");
        let role = "GET /latest/meta-data/iam/security-credentials/gateway-role ";
        assert!(asked[2].starts_with(role) && asked[2].contains("metadata-token: meta-token"), "{asked:?}");
    }

    #[test]
    fn a_machine_without_a_role_is_told_so() {
        let (address, served) = service(vec!["meta-token", "", "{}"]);
        let failure = of(&address).err().expect("none");
        assert!(matches!(failure, Failure::Later { what, .. } if what.contains("gives no credential")));
        served.join().expect("it ends");
    }
}
