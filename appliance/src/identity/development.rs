//! Development issuers: a key pair, its key set, and tokens signed with it. Used by `lockgate token`, the demo and tests;
//! the gateway itself never signs a token.

use super::base64url;
use anyhow::{Context, anyhow, bail};
use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// A private key that signs tokens.
pub struct SigningKey {
    pair: Pair,
    /// PKCS #8, for writing it down.
    der: Zeroizing<Vec<u8>>,
}

enum Pair {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// What a new key is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum NewKey {
    Es256,
    Eddsa,
    Rs256,
}

impl SigningKey {
    pub fn generate(kind: NewKey) -> anyhow::Result<Self> {
        let der = match kind {
            NewKey::Es256 => {
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?.as_ref().to_vec()
            }
            NewKey::Eddsa => Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())?.as_ref().to_vec(),
            NewKey::Rs256 => {
                return Self::from_pkcs8(pkcs8(&RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048)?)?);
            }
        };
        Self::from_pkcs8(Zeroizing::new(der))
    }

    /// Reads the first private key of a PEM text: EC P-256 or P-384, Ed25519 or RSA, in any of the usual forms.
    pub fn from_pem(pem: &[u8]) -> anyhow::Result<Self> {
        match PrivateKeyDer::from_pem_slice(pem).map_err(|error| anyhow!("no private key in PEM form: {error}"))? {
            PrivateKeyDer::Pkcs8(der) => Self::from_pkcs8(Zeroizing::new(der.secret_pkcs8_der().to_vec())),
            PrivateKeyDer::Sec1(der) => {
                let der = der.secret_sec1_der();
                let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
                    .or_else(|_| EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_FIXED_SIGNING, der))
                    .map_err(|_| anyhow!("the key is neither on P-256 nor on P-384"))?;
                Self::from_pkcs8(Zeroizing::new(pair.to_pkcs8v1()?.as_ref().to_vec()))
            }
            PrivateKeyDer::Pkcs1(der) => {
                let pair = RsaKeyPair::from_der(der.secret_pkcs1_der())
                    .map_err(|error| anyhow!("the RSA key cannot be used: {error}"))?;
                Self::from_pkcs8(pkcs8(&pair)?)
            }
            _ => bail!("a key form that is not known here; PKCS #8 is"),
        }
    }

    fn from_pkcs8(der: Zeroizing<Vec<u8>>) -> anyhow::Result<Self> {
        let pair = if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der) {
            Pair::P256(pair)
        } else if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der) {
            Pair::P384(pair)
        } else if let Ok(pair) = Ed25519KeyPair::from_pkcs8(&der) {
            Pair::Ed25519(pair)
        } else if let Ok(pair) = RsaKeyPair::from_pkcs8(&der) {
            Pair::Rsa(pair)
        } else {
            bail!("the key is none of EC P-256, EC P-384, Ed25519 and RSA with at least 2048 bits");
        };
        Ok(Self { pair, der })
    }

    /// The private key as PEM, PKCS #8.
    pub fn to_pem(&self) -> Zeroizing<String> {
        const STANDARD: [(char, char); 2] = [('-', '+'), ('_', '/')];
        let mut body = Zeroizing::new(base64url::encode(&self.der));
        for (url, standard) in STANDARD {
            body = Zeroizing::new(body.replace(url, &standard.to_string()));
        }
        let padding = (4 - body.len() % 4) % 4;
        body.extend(std::iter::repeat_n('=', padding));
        let mut pem = Zeroizing::new(String::from("-----BEGIN PRIVATE KEY-----\n"));
        for line in body.as_bytes().chunks(64) {
            pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        pem
    }

    /// The `alg` of its signatures.
    pub fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::P256(_) => "ES256",
            Pair::P384(_) => "ES384",
            Pair::Ed25519(_) => "EdDSA",
            Pair::Rsa(_) => "RS256",
        }
    }

    /// The required members of the public JWK, in the order RFC 7638 hashes them.
    fn public_members(&self) -> Value {
        let curve = |name: &str, pair: &EcdsaKeyPair| {
            let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
            json!({"crv": name, "kty": "EC", "x": base64url::encode(x), "y": base64url::encode(y)})
        };
        match &self.pair {
            Pair::P256(pair) => curve("P-256", pair),
            Pair::P384(pair) => curve("P-384", pair),
            Pair::Ed25519(pair) => {
                json!({"crv": "Ed25519", "kty": "OKP", "x": base64url::encode(pair.public_key().as_ref())})
            }
            Pair::Rsa(pair) => {
                let parts = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"e": base64url::encode(&parts.e), "kty": "RSA", "n": base64url::encode(&parts.n)})
            }
        }
    }

    /// RFC 7638: the SHA-256 of the public key, so that a key has one name everywhere.
    pub fn kid(&self) -> String {
        let members = self.public_members().to_string();
        base64url::encode(digest::digest(&digest::SHA256, members.as_bytes()).as_ref())
    }

    /// The public JWK.
    pub fn jwk(&self) -> Value {
        let mut jwk = self.public_members();
        jwk["alg"] = json!(self.algorithm());
        jwk["use"] = json!("sig");
        jwk["kid"] = json!(self.kid());
        jwk
    }

    /// The public key set.
    pub fn jwks(&self) -> Value {
        json!({"keys": [self.jwk()]})
    }

    /// A token with these claims under this key's usual header.
    pub fn token(&self, claims: &Value) -> anyhow::Result<String> {
        self.token_with_header(&json!({"alg": self.algorithm(), "kid": self.kid(), "typ": "JWT"}), claims)
    }

    /// A token with exactly this header, whatever it says.
    pub fn token_with_header(&self, header: &Value, claims: &Value) -> anyhow::Result<String> {
        let encode = |part: &Value| base64url::encode(part.to_string().as_bytes());
        let signed = format!("{}.{}", encode(header), encode(claims));
        Ok(format!("{signed}.{}", base64url::encode(&self.sign(signed.as_bytes())?)))
    }

    pub fn sign(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let random = SystemRandom::new();
        Ok(match &self.pair {
            Pair::P256(pair) | Pair::P384(pair) => pair.sign(&random, message)?.as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).context("the key could not sign")?;
                signature
            }
        })
    }
}

fn pkcs8(pair: &RsaKeyPair) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    Ok(Zeroizing::new(AsDer::<Pkcs8V1Der<'_>>::as_der(pair)?.as_ref().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written_down() {
        for kind in [NewKey::Es256, NewKey::Eddsa, NewKey::Rs256] {
            let key = SigningKey::generate(kind).expect("a key");
            let again = SigningKey::from_pem(key.to_pem().as_bytes()).expect("the same key");
            assert_eq!(key.jwks(), again.jwks(), "{kind:?}");
            assert!(!key.jwks().to_string().contains("\"d\""), "the key set is public");
        }
    }

    #[test]
    fn what_is_no_signing_key_is_refused() {
        for pem in ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(SigningKey::from_pem(pem.as_bytes()).is_err(), "{pem}");
        }
    }
}
