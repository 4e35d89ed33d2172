//! The listeners' certificates: read at start, and again on reload without closing a listener.

use crate::config::{self, Config};
use crate::pem;
use crate::shard::ListenerTls;
use arc_swap::ArcSwap;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::UnixTime;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("listener {address}: {path}: {why}")]
    File { address: SocketAddr, path: PathBuf, why: String },
    #[error("listener {address}: {} and {}: {why}", .cert.display(), .key.display())]
    Pair { address: SocketAddr, cert: PathBuf, key: PathBuf, why: String },
    #[error("listener {address}: {error}")]
    Rustls { address: SocketAddr, error: rustls::Error },
}

/// What each listener with TLS shows its clients. Shards read it once a handshake.
#[derive(Default)]
pub struct Certificates {
    listeners: Vec<(SocketAddr, Arc<ArcSwap<ListenerTls>>)>,
}

impl Certificates {
    pub fn load(config: &Config) -> Result<Self, CertificateError> {
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            if let Some(tls) = &listener.tls {
                let server = server_config(listener.address, tls)?;
                listeners.push((listener.address, Arc::new(ArcSwap::from_pointee(server))));
            }
        }
        Ok(Self { listeners })
    }

    /// For the shards' listener options. `None`: this listener offers no TLS.
    pub fn of(&self, address: SocketAddr) -> Option<Arc<ArcSwap<ListenerTls>>> {
        self.listeners.iter().find(|(of, _)| *of == address).map(|(_, shared)| shared.clone())
    }

    /// Reads what a new configuration names. Listeners it leaves out, or takes TLS from, keep what they have until a restart.
    pub fn prepare(&self, config: &Config) -> Result<Replacement, CertificateError> {
        let mut fresh = Vec::new();
        for listener in &config.listeners {
            if let (Some(shared), Some(tls)) = (self.of(listener.address), &listener.tls) {
                fresh.push((shared, Arc::new(server_config(listener.address, tls)?)));
            }
        }
        Ok(Replacement { fresh })
    }
}

/// Certificates that are read but not yet shown.
pub struct Replacement {
    fresh: Vec<(Arc<ArcSwap<ListenerTls>>, Arc<ListenerTls>)>,
}

impl Replacement {
    pub fn take_into_use(self) {
        self.fresh.into_iter().for_each(|(shared, config)| shared.store(config));
    }
}

fn server_config(address: SocketAddr, tls: &config::ListenerTls) -> Result<ListenerTls, CertificateError> {
    let file = |path: &Path, why: String| CertificateError::File { address, path: path.to_owned(), why };
    let failed = |error| CertificateError::Rustls { address, error };
    let chain = pem::certificates(&tls.cert).map_err(|why| file(&tls.cert, why))?;
    let key = pem::key(&tls.key).map_err(|why| file(&tls.key, why))?;
    // A warning: clients that do not look at it go on, and it may be the clock that is wrong.
    if let Some(why) = pem::untimely(&chain, UnixTime::now()) {
        tracing::warn!(%address, path = %tls.cert.display(), "the listener's certificate: {why}");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in pem::certificates(path).map_err(|why| file(path, why))? {
                roots.add(certificate).map_err(|error| file(path, error.to_string()))?;
            }
            // Whoever has no certificate of that authority does not get as far as a token.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| file(path, error.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        let (cert, key, why) = (tls.cert.clone(), tls.key.clone(), not_a_pair(&error));
        CertificateError::Pair { address, cert, key, why }
    })?;
    config.alpn_protocols = vec![crate::shard::ALPN.to_vec()];
    // As PostgreSQL's server: nothing is resumed. A resumed session would stand on a client's certificate that was looked at before the
    // last reload, and tickets that libpq never uses cost a new session more than they could save.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(ListenerTls { config: Arc::new(config), client_certificate: tls.client_ca.is_some() })
}

/// Why a certificate and a key were not taken together.
pub fn not_a_pair(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "the key is not that of the first certificate".into(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;
    use crate::config::{Listener, Protocol};

    /// A folder with a certificate of its own and a configuration that names it.
    fn with_listener(dir: &Path) -> Config {
        let tls = config::ListenerTls { cert: dir.join("cert.pem"), key: dir.join("key.pem"), client_ca: None };
        let address = "127.0.0.1:6432".parse().unwrap();
        let listener = Listener {
            protocol: Protocol::Postgres,
            address,
            tls: Some(tls),
            allow_plaintext: false,
            proxy_protocol: false,
        };
        Config { listeners: vec![listener], ..config(dir) }
    }

    fn write_pair(dir: &Path) {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(dir.join("cert.pem"), pair.cert.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_reload_shows_the_new_certificate_and_a_wrong_one_keeps_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let config = with_listener(dir.path());
        write_pair(dir.path());
        let certificates = Certificates::load(&config).unwrap();
        let shown = certificates.of(config.listeners[0].address).unwrap();
        let first = shown.load_full();

        std::fs::write(dir.path().join("cert.pem"), "no certificate").unwrap();
        let error = certificates.prepare(&config).err().expect("refused").to_string();
        assert!(error.contains("cert.pem") && error.contains("127.0.0.1:6432"), "{error}");
        assert!(Arc::ptr_eq(&first, &shown.load_full()));

        write_pair(dir.path());
        let replacement = certificates.prepare(&config).unwrap();
        assert!(Arc::ptr_eq(&first, &shown.load_full()), "only prepared");
        replacement.take_into_use();
        assert!(!Arc::ptr_eq(&first, &shown.load_full()));
    }

    #[test]
    fn no_session_is_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let config = with_listener(dir.path());
        write_pair(dir.path());
        let shown = Certificates::load(&config).unwrap().of(config.listeners[0].address).unwrap().load_full();
        assert_eq!(shown.config.send_tls13_tickets, 0);
        assert!(!shown.config.session_storage.can_cache() && !shown.config.ticketer.enabled());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path());
        let key = std::fs::read(dir.path().join("key.pem")).unwrap();
        write_pair(dir.path());
        std::fs::write(dir.path().join("key.pem"), key).unwrap();
        let error = Certificates::load(&with_listener(dir.path())).err().expect("refused").to_string();
        for part in ["127.0.0.1:6432", "cert.pem and ", "key.pem: the key is not that of the first certificate"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
