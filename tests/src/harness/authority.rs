//! A certificate authority of a suite's own: for client certificates, and for servers by a name of one's choice.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::process::run;

const DEADLINE: Duration = Duration::from_secs(30);

/// Issues certificates; its own is what verifiers are given.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    name: String,
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Result<Authority> {
        let authority = Authority { folder: folder.into(), name: name.into() };
        let own = authority.pair(name);
        request(&own, name, &["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign"])?;
        Ok(authority)
    }

    pub fn certificate(&self) -> PathBuf {
        self.pair(&self.name).certificate
    }

    /// `alternative`: the names it is good for, as in `DNS:localhost`.
    pub fn issue(&self, name: &str, alternative: &str) -> Result<Pair> {
        let (own, pair) = (self.pair(&self.name), self.pair(name));
        let (authority, key) = (own.certificate.display().to_string(), own.key.display().to_string());
        let names = format!("subjectAltName={alternative}");
        let extensions = ["-addext", &names, "-addext", "basicConstraints=critical,CA:FALSE"];
        request(&pair, name, &[&["-CA", &authority, "-CAkey", &key], &extensions[..]].concat())?;
        Ok(pair)
    }

    fn pair(&self, name: &str) -> Pair {
        Pair { certificate: self.folder.join(format!("{name}.crt")), key: self.folder.join(format!("{name}.key")) }
    }
}

fn request(pair: &Pair, name: &str, more: &[&str]) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", &format!("/CN={name}")]).args(more);
    openssl.arg("-keyout").arg(&pair.key).arg("-out").arg(&pair.certificate);
    run(&mut openssl, DEADLINE)?.succeeded().with_context(|| format!("openssl req for {name}"))?;
    Ok(())
}
