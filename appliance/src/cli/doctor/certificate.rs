//! What a listener shows its clients.

use super::{Finding, readable_by_all};
use crate::config::ListenerTls;
use crate::control::not_a_pair;
use crate::pem;
use rustls_pki_types::UnixTime;
use std::path::Path;

pub fn check(tls: &ListenerTls) -> Finding {
    let check = "certificate";
    match try_certificate(tls) {
        Err((detail, mend)) => Finding::fail(check, detail, mend),
        Ok(_) if readable_by_all(&tls.key) => {
            Finding::warn(check, format!("every user of this host can read {}", tls.key.display()), "chmod 600")
        }
        Ok(chain) => Finding::ok(check, format!("{} and its key fit, {chain} in the chain", tls.cert.display())),
    }
}

/// The number of certificates in the chain.
fn try_certificate(tls: &ListenerTls) -> Result<usize, (String, &'static str)> {
    let failed = |file: &Path, why: String| format!("{}: {why}", file.display());
    let chain = pem::certificates(&tls.cert)
        .map_err(|why| (failed(&tls.cert, why), "a PEM file with the certificate chain"))?;
    let key = pem::key(&tls.key)
        .map_err(|why| (failed(&tls.key, why), "a PEM file with the private key, readable by the gateway's user"))?;
    if let Some(ca) = &tls.client_ca {
        pem::certificates(ca).map_err(|why| (failed(ca, why), "a PEM file with certificates"))?;
    }
    let (count, untimely) = (chain.len(), pem::untimely(&chain, UnixTime::now()));
    rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| {
            let why = format!("{} and {}: {}", tls.cert.display(), tls.key.display(), not_a_pair(&error));
            (why, "the certificate and the key that belong together")
        })?;
    match untimely {
        Some(why) => {
            Err((failed(&tls.cert, why), "a certificate that is valid now, and HUP; or set this host's clock"))
        }
        None => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn write(tls: &ListenerTls, until: i32) {
        let mut wishes = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        wishes.not_before = rcgen::date_time_ymd(2020, 1, 1);
        wishes.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&tls.cert, wishes.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&tls.key, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&tls.key, PermissionsExt::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_certificate_that_clients_will_not_take_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let tls = ListenerTls { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem"), client_ca: None };
        write(&tls, 4000);
        assert_eq!(check(&tls).state, State::Ok, "{}", check(&tls).detail);
        let other = std::fs::read(&tls.key).unwrap();
        write(&tls, 2021);
        let found = check(&tls);
        assert_eq!(found.state, State::Fail);
        assert!(found.detail.ends_with("cert.pem: it expired at 2021-01-01T00:00:00Z"), "{}", found.detail);
        for (key, end) in
            [(&other[..], "the key is not that of the first certificate"), (b"", "there is no private key in it")]
        {
            std::fs::write(&tls.key, key).unwrap();
            let found = check(&tls);
            assert!(
                found.state == State::Fail && found.detail.contains("key.pem") && found.detail.ends_with(end),
                "{}",
                found.detail
            );
        }
    }
}
