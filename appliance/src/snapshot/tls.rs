//! TLS towards targets: what is checked is what the configuration says, never what the target prefers.

use crate::config::{Target, TargetTls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("tls_ca {path}: {why}")]
    Ca { path: PathBuf, why: String },
    #[error("this system has no root certificates to check the target's with; name some with tls_ca")]
    NoRoots,
    #[error("`{0}` cannot be the name in a certificate")]
    Name(String),
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The system's root certificates, read when the first target needs them.
#[derive(Default)]
pub struct Roots {
    native: Option<Arc<RootCertStore>>,
}

impl Roots {
    fn of(&mut self, ca: Option<&Path>) -> Result<Arc<RootCertStore>, TlsError> {
        if let Some(path) = ca {
            return read_ca(path).map(Arc::new);
        }
        if let Some(native) = &self.native {
            return Ok(native.clone());
        }
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            return Err(TlsError::NoRoots);
        }
        Ok(self.native.insert(Arc::new(store)).clone())
    }
}

/// The authorities in a file, or the system's.
pub fn roots(ca: Option<&Path>) -> Result<Arc<RootCertStore>, TlsError> {
    Roots::default().of(ca)
}

fn read_ca(path: &Path) -> Result<RootCertStore, TlsError> {
    let fail = |why: String| TlsError::Ca { path: path.to_owned(), why };
    let mut store = RootCertStore::empty();
    for certificate in crate::pem::certificates(path).map_err(fail)? {
        store.add(certificate).map_err(|error| fail(error.to_string()))?;
    }
    Ok(store)
}

/// `None`: no TLS towards this target.
pub fn client_config(target: &Target, roots: &mut Roots) -> Result<Option<Arc<ClientConfig>>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let config = match target.tls {
        TargetTls::Disable => return Ok(None),
        TargetTls::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unchecked::new(&provider)))
            .with_no_client_auth(),
        TargetTls::VerifyFull => {
            builder.with_root_certificates(roots.of(target.tls_ca.as_deref())?).with_no_client_auth()
        }
    };
    ServerName::try_from(target.host.as_str()).map_err(|_| TlsError::Name(target.host.clone()))?;
    Ok(Some(Arc::new(config)))
}

/// `tls = "require"`: whoever answers must hold the key of the certificate they show; whose certificate is not asked.
#[derive(Debug)]
struct Unchecked {
    algorithms: WebPkiSupportedAlgorithms,
}

impl Unchecked {
    fn new(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
