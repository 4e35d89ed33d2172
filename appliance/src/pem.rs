//! Certificates and keys in PEM files: a reload reads them, so what would be waited for is an error.

use crate::distrust;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::path::Path;

/// At least one. The error does not name the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let file = crate::files::open(path).map_err(|error| error.to_string())?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(file).collect();
    let certificates = certificates.map_err(|error| error.to_string())?;
    match certificates.is_empty() {
        true => Err("there is no certificate in it".into()),
        false => Ok(certificates),
    }
}

/// The first one.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let file = crate::files::open(path).map_err(|error| error.to_string())?;
    PrivateKeyDer::from_pem_reader(file).map_err(|error| match error {
        pem::Error::NoItemsFound => "there is no private key in it".into(),
        error => error.to_string(),
    })
}

/// Why clients will not take this chain at that time: the first certificate of it that has expired or is not valid yet.
pub fn untimely(chain: &[CertificateDer<'_>], now: UnixTime) -> Option<String> {
    let one = |(place, certificate)| {
        let why = untimely_one(certificate, now)?;
        Some(if chain.len() == 1 { why } else { format!("certificate {} of {}: {why}", place + 1, chain.len()) })
    };
    chain.iter().enumerate().find_map(one)
}

/// Nobody is trusted here: a certificate's times are looked at before its issuer is looked for.
fn untimely_one(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let refused = verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], now, &[]).err()?;
    let rustls::Error::InvalidCertificate(error) = refused else { return None };
    distrust::untimely(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_waited_for_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("cert.pem");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
        assert!(certificates(&fifo).expect_err("a FIFO").contains("FIFO"));
        assert!(key(&fifo).expect_err("a FIFO").contains("FIFO"));
    }

    #[test]
    fn a_file_without_a_certificate_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let empty = dir.path().join("cert.pem");
        std::fs::write(&empty, "nothing\n").expect("written");
        assert_eq!(certificates(&empty).expect_err("empty"), "there is no certificate in it");
        assert_eq!(key(&empty).expect_err("empty"), "there is no private key in it");
    }

    /// A pair of its own for `localhost`, valid between the first days of these years.
    fn certificate(from: i32, until: i32) -> CertificateDer<'static> {
        let mut wishes = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("a name");
        wishes.not_before = rcgen::date_time_ymd(from, 1, 1);
        wishes.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        wishes.self_signed(&key).expect("signs").into()
    }

    #[test]
    fn a_chain_that_has_expired_or_is_not_valid_yet_is_told() {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let (good, old, new) = (certificate(2020, 2040), certificate(2020, 2021), certificate(2039, 2040));
        let told = |chain: &[&CertificateDer<'static>]| {
            untimely(&chain.iter().map(|&one| one.clone()).collect::<Vec<_>>(), now)
        };
        assert_eq!(told(&[&good]), None);
        assert_eq!(told(&[&good, &good]), None);
        assert_eq!(told(&[&old]).as_deref(), Some("it expired at 2021-01-01T00:00:00Z"));
        assert_eq!(told(&[&new]).as_deref(), Some("it is not valid before 2039-01-01T00:00:00Z"));
        let second = "certificate 2 of 2: it expired at 2021-01-01T00:00:00Z";
        assert_eq!(told(&[&good, &old]).as_deref(), Some(second));
    }
}
