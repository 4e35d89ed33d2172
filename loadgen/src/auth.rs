//! Showing the password: in the clear, as md5, or proved by SCRAM-SHA-256 (RFC 5802 and 7677).

use anyhow::{Result, bail, ensure};
use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};
use md5::{Digest, Md5};
use std::num::NonZeroU32;

/// Beyond: a server that wants to keep us computing.
const ITERATIONS_MAX: u32 = 1_000_000;

pub fn md5_password(user: &str, password: &str, salt: &[u8]) -> String {
    let inner = hex(&Md5::new().chain_update(password).chain_update(user).finalize());
    format!("md5{}", hex(&Md5::new().chain_update(inner).chain_update(salt).finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A salted password, kept because deriving it costs a millisecond and churn would measure nothing else.
#[derive(Clone, Debug, Default)]
pub struct SaltCache {
    salt: Vec<u8>,
    iterations: u32,
    salted: [u8; 32],
}

impl SaltCache {
    fn salted(&mut self, password: &str, salt: &[u8], iterations: NonZeroU32) -> [u8; 32] {
        if self.iterations != iterations.get() || self.salt != salt {
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut self.salted);
            self.salt = salt.to_vec();
            self.iterations = iterations.get();
        }
        self.salted
    }
}

/// One exchange without channel binding.
#[derive(Debug)]
pub struct Scram {
    nonce: String,
    server_signature: Option<[u8; 32]>,
}

impl Scram {
    /// Returns the exchange with the client-first message.
    pub fn start() -> Result<(Scram, String)> {
        let mut random = [0; 18];
        if rand::fill(&mut random).is_err() {
            bail!("the system has no randomness to give");
        }
        let scram = Scram { nonce: base64(&random), server_signature: None };
        let first = format!("n,,n=,r={}", scram.nonce);
        Ok((scram, first))
    }

    /// Reads server-first, returns client-final.
    pub fn prove(&mut self, server_first: &str, password: &str, cache: &mut SaltCache) -> Result<String> {
        let field = |name: &str| server_first.split(',').find_map(|field| field.strip_prefix(name));
        let (Some(nonce), Some(salt), Some(iterations)) = (field("r="), field("s="), field("i=")) else {
            bail!("the server's SCRAM challenge is malformed");
        };
        ensure!(nonce.starts_with(&self.nonce), "the server's SCRAM challenge does not continue our nonce");
        let iterations = iterations.parse().ok().filter(|count: &NonZeroU32| count.get() <= ITERATIONS_MAX);
        let (Some(salt), Some(iterations)) = (unbase64(salt), iterations) else {
            bail!("the server's SCRAM salt or iteration count is out of bounds");
        };
        let salted = cache.salted(password, &salt, iterations);
        let client_key = mac(&salted, b"Client Key");
        let without_proof = format!("c=biws,r={nonce}");
        let transcript = format!("n=,r={},{server_first},{without_proof}", self.nonce);
        let signature = mac(digest::digest(&digest::SHA256, &client_key).as_ref(), transcript.as_bytes());
        let mut proof = client_key;
        proof.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        self.server_signature = Some(mac(&mac(&salted, b"Server Key"), transcript.as_bytes()));
        Ok(format!("{without_proof},p={}", base64(&proof)))
    }

    /// Reads server-final: it must know the password too.
    pub fn verify(&mut self, server_final: &str) -> Result<()> {
        let shown = server_final.split(',').find_map(|field| field.strip_prefix("v=")).and_then(unbase64);
        let (Some(shown), Some(expected)) = (shown, self.server_signature.take()) else {
            bail!("the server refused our SCRAM proof");
        };
        ensure!(constant_time::verify_slices_are_equal(&shown, &expected).is_ok(), "the server's SCRAM proof is wrong");
        Ok(())
    }
}

fn mac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = ALPHABET[(group >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut group, mut bits) = (0u32, 0u32);
    for digit in text.trim_end_matches('=').bytes() {
        group = group << 6 | ALPHABET.iter().position(|&known| known == digit)? as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits) as u8);
            group &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3, has a user name in its transcript, which PostgreSQL leaves out; so the two ends are played here.
    #[test]
    fn scram_proof_is_what_the_verifier_expects_and_a_false_server_is_found() {
        let (mut scram, first) = Scram::start().expect("there is randomness");
        let nonce = first.strip_prefix("n,,n=,r=").expect("it is the first message").to_string();
        let server_first = format!("r={nonce}xyz,s={},i=4096", base64(b"saltsalt"));
        let last = scram.prove(&server_first, "secret", &mut SaltCache::default()).expect("it is well formed");
        let mut salted = [0; 32];
        let rounds = NonZeroU32::new(4096).expect("it is not zero");
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, b"saltsalt", b"secret", &mut salted);
        let stored = digest::digest(&digest::SHA256, &mac(&salted, b"Client Key"));
        let transcript = format!("n=,r={nonce},{server_first},c=biws,r={nonce}xyz");
        let proof = unbase64(last.split_once(",p=").expect("there is a proof").1).expect("it is base64");
        let key: Vec<u8> =
            proof.iter().zip(mac(stored.as_ref(), transcript.as_bytes())).map(|(one, two)| one ^ two).collect();
        assert_eq!(digest::digest(&digest::SHA256, &key).as_ref(), stored.as_ref());
        assert!(scram.verify(&format!("v={}", base64(&[0; 32]))).is_err());
        let (mut other, _) = Scram::start().expect("there is randomness");
        assert!(other.prove(&server_first, "secret", &mut SaltCache::default()).is_err(), "another's nonce");
    }

    #[test]
    fn md5_agrees_with_postgresql() {
        // md5(md5(password user) salt), as another implementation computed it.
        assert_eq!(md5_password("u", "p", &[1, 2, 3, 4]), "md5facdc455923b0a58efea84a6d9ee0e76");
    }

    #[test]
    fn base64_goes_there_and_back() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(unbase64(coded).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(unbase64("Z!"), None);
    }
}
