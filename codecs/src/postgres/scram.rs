//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the client's part (RFC 5802, RFC 7677, RFC 5929), and md5. Public, because the load
//! generator shows its password in the same way.

use super::{ProtocolError, ScramKeys};
use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use md5::{Digest, Md5};
use std::num::NonZeroU32;

/// RFC 7677 asks for at least that many. Below: a false target could search for the password cheaply.
const ITERATIONS_MIN: u32 = 4_096;
/// Beyond: a hostile target could keep us computing (CVE-2026-42198).
const ITERATIONS_MAX: u32 = 1_000_000;

/// One exchange, from our first message on.
#[derive(Debug)]
pub struct Scram {
    /// `n,,`, `y,,` or `p=tls-server-end-point,,`, and behind it the binding data.
    header: Vec<u8>,
    nonce: String,
    /// client-first-bare, then server-first, then client-final-without-proof, with commas between.
    transcript: Vec<u8>,
    combined_nonce: Vec<u8>,
    /// Set once our proof is sent: what the target must answer.
    expected: Option<[u8; 32]>,
    /// The target has proved that it knows the verifier.
    pub proved: bool,
}

/// Channel binding as RFC 5802 puts it in the GS2 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding<'a> {
    /// We could not: no TLS.
    None,
    /// We could, but the target did not offer it: lets it notice somebody who removed its offer.
    NotOffered,
    ServerEndPoint(&'a [u8]),
}

impl Scram {
    /// Starts an exchange; returns it with the client-first message.
    pub fn start(binding: Binding<'_>, nonce: &[u8; 18]) -> (Self, Vec<u8>) {
        let (gs2, data): (&[u8], &[u8]) = match binding {
            Binding::None => (b"n,,", b""),
            Binding::NotOffered => (b"y,,", b""),
            Binding::ServerEndPoint(data) => (b"p=tls-server-end-point,,", data),
        };
        let nonce = base64(nonce);
        // The server takes the user from the start-up message; the one here is left empty as libpq leaves it.
        let bare = format!("n=,r={nonce}").into_bytes();
        let first = [gs2, &bare].concat();
        let scram = Self {
            header: [gs2, data].concat(),
            nonce,
            transcript: bare,
            combined_nonce: Vec::new(),
            expected: None,
            proved: false,
        };
        (scram, first)
    }

    /// Reads the server-first message: salt and iterations.
    pub fn server_first(&mut self, message: &[u8]) -> Result<(Vec<u8>, u32), ProtocolError> {
        let malformed = ProtocolError::ScramMalformed;
        if !self.combined_nonce.is_empty() {
            return Err(malformed);
        }
        let mut fields = message.split(|&byte| byte == b',');
        let mut field = |name: &[u8]| fields.next().and_then(|field| field.strip_prefix(name)).ok_or(malformed);
        let nonce = field(b"r=")?;
        let salt = unbase64(field(b"s=")?).filter(|salt| !salt.is_empty()).ok_or(malformed)?;
        let iterations = field(b"i=")?;
        let iterations = std::str::from_utf8(iterations).ok().and_then(|text| text.parse().ok()).ok_or(malformed)?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(self.nonce.as_bytes()) {
            return Err(malformed);
        }
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(ProtocolError::ScramIterations { iterations });
        }
        self.combined_nonce = nonce.to_vec();
        self.transcript.push(b',');
        self.transcript.extend_from_slice(message);
        Ok((salt, iterations))
    }

    /// The client-final message.
    pub fn client_final(&mut self, keys: &ScramKeys) -> Vec<u8> {
        let mut message = format!("c={},r=", base64(&self.header)).into_bytes();
        message.extend_from_slice(&self.combined_nonce);
        self.transcript.push(b',');
        self.transcript.extend_from_slice(&message);
        let stored = digest::digest(&digest::SHA256, &keys.client_key);
        let signature = mac(stored.as_ref(), &self.transcript);
        let mut proof = keys.client_key;
        proof.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        self.expected = Some(mac(&keys.server_key, &self.transcript));
        message.extend_from_slice(b",p=");
        message.extend_from_slice(base64(&proof).as_bytes());
        message
    }

    /// Reads the server-final message: without the right signature the target is not the one we know.
    pub fn server_final(&mut self, message: &[u8]) -> Result<(), ProtocolError> {
        let expected = self.expected.take().ok_or(ProtocolError::ScramMalformed)?;
        if message.starts_with(b"e=") {
            return Err(ProtocolError::ScramServerError);
        }
        let field = message.split(|&byte| byte == b',').next().and_then(|field| field.strip_prefix(b"v="));
        let signature = field.and_then(unbase64).ok_or(ProtocolError::ScramMalformed)?;
        constant_time::verify_slices_are_equal(&signature, &expected).map_err(|_| ProtocolError::ScramServerProof)?;
        self.proved = true;
        Ok(())
    }
}

/// RFC 5802, section 3. Milliseconds: never on a shard. Passwords are taken as they are, which is what SASLprep makes
/// of ASCII and of most text already in its composed form.
pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
    let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut salted);
    ScramKeys { client_key: mac(&salted, b"Client Key"), server_key: mac(&salted, b"Server Key") }
}

/// AuthenticationMD5Password's answer: `md5` and the hash over the hash, in hex.
pub fn md5_password(user: &[u8], password: &[u8], salt: &[u8]) -> Vec<u8> {
    let inner = hex(&Md5::new().chain_update(password).chain_update(user).finalize());
    let outer = hex(&Md5::new().chain_update(&inner).chain_update(salt).finalize());
    [b"md5", outer.as_slice()].concat()
}

fn mac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
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

/// Strict: padded, no other characters, no stray bits.
fn unbase64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let body = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(body.len() * 3 / 4);
    let (mut group, mut bits) = (0u32, 0u32);
    for &digit in body {
        let value = ALPHABET.iter().position(|&known| known == digit)? as u32;
        group = group << 6 | value;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits) as u8);
            group &= (1 << bits) - 1;
        }
    }
    (group == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_rfc_4648() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(unbase64(coded.as_bytes()).as_deref(), Some(plain.as_bytes()));
        }
        for bad in ["Zg=", "Zg", "Z===", "Zm9v!", "Zh==", "====", "Zg==Zg=="] {
            assert_eq!(unbase64(bad.as_bytes()), None, "{bad}");
        }
    }

    /// The example of RFC 7677, section 3, whose user and nonces are its own.
    #[test]
    fn proof_and_signature_agree_with_rfc_7677() {
        let salt = unbase64(b"W22ZaJ0SNY7soEsUEjb6gQ==").expect("it is base64");
        let keys = derive(b"pencil", &salt, 4096);
        let first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let mut scram = Scram {
            header: b"n,,".to_vec(),
            nonce: "rOprNGfwEbeRWgbNEkqO".into(),
            transcript: b"n=user,r=rOprNGfwEbeRWgbNEkqO".to_vec(),
            combined_nonce: Vec::new(),
            expected: None,
            proved: false,
        };
        assert_eq!(scram.server_first(first), Ok((salt, 4096)));
        let last = scram.client_final(&keys);
        assert!(last.ends_with(b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="));
        assert_eq!(scram.server_final(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
        assert!(scram.proved);
    }

    #[test]
    fn a_false_target_is_told_from_the_true_one() {
        let (mut scram, first) = Scram::start(Binding::None, &[7; 18]);
        let nonce = String::from_utf8(first[8..].to_vec()).expect("it is text");
        let bad = |message: String| Scram::start(Binding::None, &[7; 18]).0.server_first(message.as_bytes());
        assert_eq!(bad(format!("r={nonce},s=AAAA,i=4096")), Err(ProtocolError::ScramMalformed));
        assert_eq!(bad("r=otherotherotherotherotherother,s=AAAA,i=4096".into()), Err(ProtocolError::ScramMalformed));
        let few = ProtocolError::ScramIterations { iterations: 1 };
        assert_eq!(bad(format!("r={nonce}x,s=AAAA,i=1")), Err(few));
        let many = ProtocolError::ScramIterations { iterations: 1_000_001 };
        assert_eq!(bad(format!("r={nonce}x,s=AAAA,i=1000001")), Err(many));
        scram.server_first(format!("r={nonce}x,s=AAAA,i=4096").as_bytes()).expect("it is well formed");
        scram.client_final(&derive(b"secret", &[0, 0, 0], 4096));
        let wrong = format!("v={}", base64(&[0; 32]));
        assert_eq!(scram.server_final(wrong.as_bytes()), Err(ProtocolError::ScramServerProof));
        assert!(!scram.proved);
    }
}
