//! Issuers' public keys (RFC 7517): what may verify a token, and why a key may not.

use super::{base64url, json};
use crate::config::Algorithm;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};
use std::time::Duration;

/// Keys of one issuer beyond which a document is refused: nobody rotates through so many.
pub const KEYS_MAX: usize = 256;
/// A whole JWKS document, bytes. Beyond: refused.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The algorithm a JWS or JWK names, exactly as RFC 7515 wants it. `Ed25519` is RFC 9864's name for what everybody calls
/// EdDSA. There is no symmetric one, so no token can ask for one.
pub fn named(name: &str) -> Option<Algorithm> {
    if name == "Ed25519" {
        return Some(Algorithm::EdDsa);
    }
    Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
}

fn implementation(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Rs384 => jsonwebtoken::Algorithm::RS384,
        Algorithm::Rs512 => jsonwebtoken::Algorithm::RS512,
        Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
        Algorithm::Ps384 => jsonwebtoken::Algorithm::PS384,
        Algorithm::Ps512 => jsonwebtoken::Algorithm::PS512,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::Es384 => jsonwebtoken::Algorithm::ES384,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
    }
}

/// One public key that may verify tokens.
#[derive(Clone)]
pub struct Key {
    pub kid: Option<String>,
    kind: Kind,
    /// The JWK's own `alg`, when it has one.
    only: Option<Algorithm>,
    decoding: DecodingKey,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    fn fits(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => self == Kind::Rsa,
            Algorithm::Es256 => self == Kind::P256,
            Algorithm::Es384 => self == Kind::P384,
            Algorithm::EdDsa => self == Kind::Ed25519,
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Key {
    /// May this key verify a signature of that algorithm?
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind.fits(algorithm) && self.only.is_none_or(|only| only == algorithm)
    }

    /// `signature`: base64url, as it stands in the token.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        self.fits(algorithm)
            && jsonwebtoken::crypto::verify(signature, message, &self.decoding, implementation(algorithm))
                .unwrap_or(false)
    }
}

/// The usable keys of one document.
#[derive(Clone, Debug, Default)]
pub struct Jwks {
    pub keys: Vec<Key>,
    /// Keys left out, each with the reason. A bad key never takes the good ones with it.
    pub warnings: Vec<String>,
    /// How long the issuer said the document may be kept (Cache-Control), when it came over HTTP.
    pub fresh_for: Option<Duration>,
}

/// Why a whole document was not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JwksError {
    #[error("the key set is longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong,
    #[error("the key set is not a JSON object without repeated members")]
    NotAnObject,
    #[error("the key set has no array named \"keys\"")]
    NoKeys,
    #[error("the key set holds more than {KEYS_MAX} keys")]
    TooMany,
}

impl Jwks {
    /// Reads `{"keys": [...]}`. An empty set, or one of which no key is usable, is no error: tokens will name a key
    /// that is not there.
    pub fn parse(document: &[u8]) -> Result<Jwks, JwksError> {
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(JwksError::TooLong);
        }
        let document = json::object(document).ok_or(JwksError::NotAnObject)?;
        let Some(Value::Array(entries)) = document.get("keys") else { return Err(JwksError::NoKeys) };
        if entries.len() > KEYS_MAX {
            return Err(JwksError::TooMany);
        }
        let mut jwks = Jwks::default();
        for (index, entry) in entries.iter().enumerate() {
            match Key::parse(entry) {
                Ok(key) => jwks.keys.push(key),
                Err(reason) => {
                    let kid = entry.get("kid").and_then(Value::as_str).unwrap_or("-");
                    jwks.warnings.push(format!("key {index} (kid {kid:?}) is left out: {reason}"));
                }
            }
        }
        Ok(jwks)
    }

    /// The same keys, whatever else changed.
    pub fn same_keys(&self, other: &Jwks) -> bool {
        let same = |(a, b): (&Key, &Key)| {
            a.kid == b.kid && a.only == b.only && a.kind == b.kind && raw(&a.decoding) == raw(&b.decoding)
        };
        self.keys.len() == other.keys.len() && self.keys.iter().zip(&other.keys).all(same)
    }
}

fn raw(key: &DecodingKey) -> (&[u8], &[u8]) {
    match key.kind() {
        jsonwebtoken::DecodingKeyKind::SecretOrDer(bytes) => (bytes, &[]),
        jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, e } => (n, e),
    }
}

impl Key {
    fn parse(entry: &Value) -> Result<Key, String> {
        let jwk = entry.as_object().ok_or("it is not an object")?;
        if jwk.contains_key("d") || jwk.contains_key("k") {
            return Err("it holds secret key material, which has no place in a key set".to_owned());
        }
        may_verify(jwk)?;
        let kid = optional_text(jwk, "kid")?.map(str::to_owned);
        let (kind, decoding) = match text(jwk, "kty")? {
            "RSA" => (Kind::Rsa, rsa(jwk)?),
            "EC" => elliptic(jwk)?,
            "OKP" => (Kind::Ed25519, ed25519(jwk)?),
            other => return Err(format!("key type {other:?} cannot verify tokens")),
        };
        let only = match optional_text(jwk, "alg")? {
            None => None,
            Some(name) => Some(named(name).ok_or_else(|| format!("algorithm {name:?} is not supported"))?),
        };
        if let Some(only) = only
            && !kind.fits(only)
        {
            return Err(format!("its algorithm {} does not fit its type", only.name()));
        }
        Ok(Key { kid, kind, only, decoding })
    }
}

/// `use` and `key_ops` must not say that the key is for something else.
fn may_verify(jwk: &Map<String, Value>) -> Result<(), String> {
    if let Some(usage) = optional_text(jwk, "use")?
        && usage != "sig"
    {
        return Err(format!("its use is {usage:?}, not \"sig\""));
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => Ok(()),
        Some(_) => Err("its key_ops do not include \"verify\"".to_owned()),
    }
}

fn rsa(jwk: &Map<String, Value>) -> Result<DecodingKey, String> {
    let modulus = bytes(jwk, "n")?;
    let exponent = bytes(jwk, "e")?;
    // RFC 7518 6.3.1 forbids leading zeros; some issuers send one, and it changes nothing.
    let modulus = strip_zeros(&modulus);
    let exponent = strip_zeros(&exponent);
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(format!("its modulus has {bits} bits; {} to {} are accepted", RSA_BITS.start(), RSA_BITS.end()));
    }
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    if !odd(modulus) || !odd(exponent) || exponent == [1] || exponent.len() > 4 {
        return Err("its modulus or exponent is no RSA number".to_owned());
    }
    Ok(DecodingKey::from_rsa_raw_components(modulus, exponent))
}

fn elliptic(jwk: &Map<String, Value>) -> Result<(Kind, DecodingKey), String> {
    let (kind, coordinate, algorithm) = match text(jwk, "crv")? {
        "P-256" => (Kind::P256, 32, &ECDSA_P256_SHA256_FIXED),
        "P-384" => (Kind::P384, 48, &ECDSA_P384_SHA384_FIXED),
        other => return Err(format!("curve {other:?} is not supported")),
    };
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != coordinate || y.len() != coordinate {
        return Err(format!("its coordinates must have {coordinate} bytes"));
    }
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    if ParsedPublicKey::new(algorithm, &point).is_err() {
        return Err("its point is not on the curve".to_owned());
    }
    Ok((kind, DecodingKey::from_ec_der(&point)))
}

fn ed25519(jwk: &Map<String, Value>) -> Result<DecodingKey, String> {
    let curve = text(jwk, "crv")?;
    if curve != "Ed25519" {
        return Err(format!("curve {curve:?} is not supported"));
    }
    let x = bytes(jwk, "x")?;
    if ParsedPublicKey::new(&ED25519, &x).is_err() {
        return Err("its point is not on the curve".to_owned());
    }
    Ok(DecodingKey::from_ed_der(&x))
}

fn strip_zeros(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|&byte| byte != 0).unwrap_or(number.len());
    &number[start..]
}

fn optional_text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("its {name:?} is not a string")),
    }
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    optional_text(jwk, name)?.ok_or_else(|| format!("it has no {name:?}"))
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    base64url::decode(text(jwk, name)?.as_bytes()).ok_or_else(|| format!("its {name:?} is not base64url"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7517 appendix A.1 (the RSA key) and RFC 8037 appendix A.2.
    const RFC_KEYS: &str = r#"{"keys":[
        {"kty":"RSA","alg":"RS256","kid":"2011-04-29","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"},
        {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

    #[test]
    fn rfc_keys_are_read() {
        let jwks = Jwks::parse(RFC_KEYS.as_bytes()).expect("a key set");
        assert_eq!(jwks.warnings, Vec::<String>::new());
        assert_eq!(jwks.keys.len(), 3);
        assert_eq!(jwks.keys[0].kid.as_deref(), Some("2011-04-29"));
        assert!(jwks.keys[0].fits(Algorithm::Rs256));
        assert!(!jwks.keys[0].fits(Algorithm::Ps256), "its alg says RS256");
        assert!(jwks.keys[1].fits(Algorithm::EdDsa) && !jwks.keys[1].fits(Algorithm::Es256));
        assert!(jwks.keys[2].fits(Algorithm::Es256) && !jwks.keys[2].fits(Algorithm::Es384));
    }

    #[test]
    fn bad_keys_are_left_out_and_say_why() {
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
        let ed = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let short_rsa = base64url::encode(&[0xff; 128]);
        let even_rsa = base64url::encode(&[0xfe; 256]);
        for (jwk, reason) in [
            (r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(), "secret key material"),
            (format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ed}","d":"AA"}}"#), "secret key material"),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{y}","y":"{x}"}}"#), "not on the curve"),
            (format!(r#"{{"kty":"EC","crv":"P-384","x":"{x}","y":"{y}"}}"#), "must have 48 bytes"),
            (format!(r#"{{"kty":"EC","crv":"secp256k1","x":"{x}","y":"{y}"}}"#), "not supported"),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}"}}"#), "no \"y\""),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}=","y":"{y}"}}"#), "not base64url"),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","use":"enc"}}"#), "its use is"),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","key_ops":["sign"]}}"#), "key_ops"),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","alg":"HS256"}}"#), "not supported"),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","alg":"RS256"}}"#), "does not fit"),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","kid":7}}"#), "not a string"),
            (format!(r#"{{"kty":"OKP","crv":"X25519","x":"{ed}"}}"#), "not supported"),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#.to_owned(), "not on the curve"),
            (format!(r#"{{"kty":"RSA","e":"AQAB","n":"{short_rsa}"}}"#), "1024 bits"),
            (format!(r#"{{"kty":"RSA","e":"AQAB","n":"{even_rsa}"}}"#), "no RSA number"),
            (r#"{"kty":"RSA","e":"AQAB","n":""}"#.to_owned(), "0 bits"),
            ("7".to_owned(), "not an object"),
            ("{}".to_owned(), "no \"kty\""),
        ] {
            let document = format!(r#"{{"keys":[{jwk},{{"kty":"OKP","crv":"Ed25519","x":"{ed}"}}]}}"#);
            let jwks = Jwks::parse(document.as_bytes()).expect("a key set");
            assert_eq!(jwks.keys.len(), 1, "{jwk}");
            assert!(jwks.warnings[0].contains(reason), "{jwk}: {:?}", jwks.warnings);
        }
    }

    #[test]
    fn documents_that_are_no_key_sets_are_refused() {
        let many = format!(r#"{{"keys":[{}]}}"#, vec!["{}"; KEYS_MAX + 1].join(","));
        for (document, error) in [
            ("", JwksError::NotAnObject),
            ("[]", JwksError::NotAnObject),
            (r#"{"keys":[],"keys":[]}"#, JwksError::NotAnObject),
            ("{}", JwksError::NoKeys),
            (r#"{"keys":{}}"#, JwksError::NoKeys),
            (&many, JwksError::TooMany),
        ] {
            assert_eq!(Jwks::parse(document.as_bytes()).err(), Some(error));
        }
        assert_eq!(Jwks::parse(&vec![b' '; DOCUMENT_BYTES_MAX + 1]).err(), Some(JwksError::TooLong));
        assert!(Jwks::parse(br#"{"keys":[]}"#).expect("empty is no error").keys.is_empty());
    }

    #[test]
    fn same_keys_are_recognised() {
        let parse = |text: &str| Jwks::parse(text.as_bytes()).expect("a key set");
        assert!(parse(RFC_KEYS).same_keys(&parse(RFC_KEYS)));
        assert!(!parse(RFC_KEYS).same_keys(&parse(&RFC_KEYS.replace("2011-04-29", "2012"))));
        assert!(!parse(RFC_KEYS).same_keys(&parse(r#"{"keys":[]}"#)));
    }
}
