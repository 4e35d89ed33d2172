//! Certificates and keys in PEM files: a reload reads them, so what would be waited for is an error.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
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
    PrivateKeyDer::from_pem_reader(file).map_err(|error| error.to_string())
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
    }
}
