//! A development issuer: one ES256 key, its JWKS file, and tokens of every kind, right and wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

/// The `iss` of every right token.
pub const ISSUER: &str = "https://issuer.test";
pub const AUDIENCE: &str = "lockgate";

/// A signing key and the file that tells the gateway its public half.
#[derive(Debug)]
pub struct Issuer {
    key: EcdsaKeyPair,
    pub jwks_file: PathBuf,
}

impl Issuer {
    pub fn new(folder: &Path) -> Result<Issuer> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| anyhow!("no key"))?;
        let issuer = Issuer { key, jwks_file: folder.join("jwks.json") };
        fs::write(&issuer.jwks_file, issuer.jwks().to_string())?;
        Ok(issuer)
    }

    /// A stranger: the same names, another key, which the gateway does not know.
    pub fn stranger() -> Result<Issuer> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| anyhow!("no key"))?;
        Ok(Issuer { key, jwks_file: PathBuf::new() })
    }

    /// What the manual of a person would say: who, which groups, an hour.
    pub fn token(&self, user: &str, groups: &[&str]) -> String {
        self.signed(&header(), &claims(user, groups, 3_600))
    }

    pub fn token_for(&self, user: &str, groups: &[&str], ttl_s: i64) -> String {
        self.signed(&header(), &claims(user, groups, ttl_s))
    }

    /// Any header and claims under this issuer's signature.
    pub fn signed(&self, header: &Value, claims: &Value) -> String {
        let input = signing_input(header, claims);
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes()).expect("an ES256 key signs anything");
        format!("{input}.{}", base64url(signature.as_ref()))
    }

    /// The classic confusion: HS256 with the public key as the secret.
    pub fn hs256_with_public_key(&self, claims: &Value) -> String {
        let input = signing_input(&json!({"alg": "HS256", "typ": "JWT", "kid": KEY_ID}), claims);
        let secret = hmac::Key::new(hmac::HMAC_SHA256, self.public_pem().as_bytes());
        format!("{input}.{}", base64url(hmac::sign(&secret, input.as_bytes()).as_ref()))
    }

    fn jwks(&self) -> Value {
        let point = self.key.public_key().as_ref(); // 0x04, x, y: SEC 1, section 2.3.3
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID,
            "x": base64url(&point[1..33]), "y": base64url(&point[33..65])}]})
    }

    fn public_pem(&self) -> String {
        // SubjectPublicKeyInfo of an uncompressed P-256 point: RFC 5480.
        const PREFIX: [u8; 26] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        let der = [&PREFIX[..], self.key.public_key().as_ref()].concat();
        let base64 = encode(&der, STANDARD);
        let padded = format!("{base64}{}", &"=="[..(4 - base64.len() % 4) % 4]);
        let lines: Vec<_> =
            padded.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }
}

const KEY_ID: &str = "test-key";

pub fn header() -> Value {
    json!({"alg": "ES256", "typ": "JWT", "kid": KEY_ID})
}

/// The claims of a right token that lasts `ttl_s` from now.
pub fn claims(user: &str, groups: &[&str], ttl_s: i64) -> Value {
    let now = now();
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": user, "email": user, "groups": groups, "iat": now, "exp": now + ttl_s})
}

/// A token nobody signed.
pub fn unsigned(claims: &Value) -> String {
    format!("{}.", signing_input(&json!({"alg": "none", "typ": "JWT"}), claims))
}

/// Unix seconds.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs() as i64
}

fn signing_input(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()))
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub fn base64url(bytes: &[u8]) -> String {
    encode(bytes, URL_SAFE)
}

/// Base64 without padding: RFC 4648.
fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = 0_u32;
        for index in 0..3 {
            bits = bits << 8 | u32::from(group.get(index).copied().unwrap_or(0));
        }
        for index in 0..=group.len() {
            text.push(alphabet[(bits >> (18 - 6 * index) & 63) as usize] as char);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_follows_the_vectors_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE")]
        {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }
}
