//! Why a peer's certificate is not believed, in words and with what to do: rustls says some of it in the manner of its source text.

use rustls::{CertificateError, Error};
use rustls_pki_types::UnixTime;
use std::io;

/// What is wrong, and its mend.
pub type Distrust = (String, &'static str);

/// Of those in a certificate; the peer decides how many there are.
const NAMES_TOLD: usize = 5;

/// For errors that are about the peer's certificate.
pub fn of(error: &Error) -> Option<Distrust> {
    match error {
        Error::InvalidCertificate(error) => Some(of_certificate(error)),
        _ => None,
    }
}

/// The same for an error of a stream.
pub fn of_io(error: &io::Error) -> Option<Distrust> {
    error.get_ref()?.downcast_ref().and_then(of)
}

/// A line about any error of TLS.
pub fn told(error: &Error) -> String {
    of(error).map_or_else(|| error.to_string(), |(why, mend)| format!("{why}: {mend}"))
}

fn of_certificate(error: &CertificateError) -> Distrust {
    if let Some(why) = untimely(error) {
        return (format!("the certificate: {why}"), "one that is valid now is needed, or this host's clock is wrong");
    }
    match error {
        CertificateError::UnknownIssuer => (
            "none of the authorities that are believed here has issued the certificate".into(),
            "name its authority with tls_ca",
        ),
        CertificateError::BadSignature => (
            "the authority of that name has not signed the certificate".into(),
            "name the authority with tls_ca that has: it may have been made anew",
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let why = format!("the certificate is not for {} (subjectAltName: {})", expected.to_str(), list(presented));
            (why, "use a name that is in it, or issue one with this name")
        }
        CertificateError::NotValidForName => {
            ("the certificate is for another name".into(), "use a name that is in it, or issue one with this name")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "the certificate is not one for this purpose (extendedKeyUsage)".into(),
            "issue one with extendedKeyUsage=serverAuth",
        ),
        CertificateError::Revoked => ("the certificate has been revoked".into(), "issue another"),
        CertificateError::BadEncoding => ("the certificate is damaged".into(), "issue another"),
        CertificateError::Other(error) => of_webpki(&error.to_string()),
        error => (format!("the certificate: {error}"), "issue another"),
    }
}

/// Names as rustls writes them, `DnsName("db.example.com")`.
fn list(names: &[String]) -> String {
    let mut shown: Vec<_> = names.iter().take(NAMES_TOLD).map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
    match names.len() {
        0 => shown.push("none"),
        1..=NAMES_TOLD => {}
        _ => shown.push("..."),
    }
    shown.join(", ")
}

/// What has no name in rustls is told by webpki's.
fn of_webpki(name: &str) -> Distrust {
    match name {
        "CaUsedAsEndEntity" => (
            "the certificate is itself an authority (CA:TRUE)".into(),
            "issue one with basicConstraints=CA:FALSE; this one may stay in tls_ca",
        ),
        "EndEntityUsedAsCa" => (
            "the certificate was issued with one that is no authority (CA:FALSE)".into(),
            "issue it with one that has basicConstraints=CA:TRUE",
        ),
        "UnsupportedCertVersion" => (
            "the certificate is of an old version (X.509 v1)".into(),
            "issue one with extensions, subjectAltName among them",
        ),
        name => (format!("the certificate is not believed ({name})"), "issue another"),
    }
}

/// It has expired or is not valid yet.
pub fn untimely(error: &CertificateError) -> Option<String> {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => Some(format!("it expired at {}", date(not_after))),
        CertificateError::Expired => Some("it has expired".into()),
        CertificateError::NotValidYetContext { not_before, .. } => {
            Some(format!("it is not valid before {}", date(not_before)))
        }
        CertificateError::NotValidYet => Some("it is not valid yet".into()),
        _ => None,
    }
}

/// RFC 3339 in UTC.
fn date(time: &UnixTime) -> String {
    let seconds = time.as_secs();
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or(seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::{CertificateDer, ServerName};
    use std::sync::Arc;
    use std::time::Duration;

    fn wishes(name: &str) -> CertificateParams {
        let mut wishes = CertificateParams::new(vec![name.into()]).expect("a name");
        wishes.distinguished_name.push(DnType::CommonName, name);
        wishes
    }

    fn self_signed(wishes: CertificateParams) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        wishes.self_signed(&key).expect("signs").into()
    }

    /// `shown` by a server called localhost, `root` is believed.
    fn check(shown: &CertificateDer<'static>, root: &CertificateDer<'static>, why: &str, mend: &str) {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("roots");
        let (name, now) = (ServerName::try_from("localhost").expect("a name"), UnixTime::since_unix_epoch(NOW));
        let error = verifier.verify_server_cert(shown, &[], &name, &[], now).expect_err("it is not believed");
        let (said, what_to_do) = of(&error).expect("it is about the certificate");
        assert!(said.contains(why) && what_to_do.contains(mend), "{said}: {what_to_do}");
        assert_eq!(told(&error), format!("{said}: {what_to_do}"));
        assert!(of_io(&io::Error::other(error)).is_some());
    }

    #[test]
    fn a_certificate_of_many_names_is_not_told_in_full() {
        assert_eq!(list(&[]), "none");
        let names: Vec<_> = (0..7).map(|number| format!("DnsName(\"{number}\")")).collect();
        assert_eq!(list(&names), "0, 1, 2, 3, 4, ...");
        assert_eq!(list(&names[..2]), "0, 1");
    }

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    #[test]
    fn each_reason_for_distrust_has_words_and_a_mend() {
        let good = self_signed(wishes("localhost"));
        let mut authority = wishes("localhost");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = self_signed(authority);
        check(&authority, &authority, "itself an authority", "CA:FALSE");
        check(&good, &self_signed(wishes("other")), "none of the authorities", "tls_ca");
        check(&good, &self_signed(wishes("localhost")), "has not signed", "made anew");
        let named = self_signed(wishes("db.example.com"));
        check(&named, &named, "not for localhost (subjectAltName: db.example.com)", "issue one with this name");
        let mut old = wishes("localhost");
        (old.not_before, old.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
        let old = self_signed(old);
        check(&old, &old, "it expired at 2021-01-01T00:00:00Z", "this host's clock");
    }

    #[test]
    fn what_is_not_about_a_certificate_is_left_as_it_is() {
        let error = Error::DecryptError;
        assert!(of(&error).is_none());
        assert_eq!(told(&error), error.to_string());
        assert!(of_io(&io::ErrorKind::TimedOut.into()).is_none());
    }
}
