//! The check of a token, from its bytes to its claims (RFC 7515, 7519; RFC 8725 for what to be wary of).
//!
//! The token only says which key it wants; what may sign is the issuer's configuration. Headers that point elsewhere
//! (`jku`, `x5u`, `jwk`, `x5c`) are never looked at.

use super::jwks::{self, Jwks, Key};
use super::{TokenError, Verified, base64url, claims, json};
use crate::config::{Algorithm, Issuer, KeySource};
use crate::limits::TOKEN_BYTES_MAX;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One issuer with its keys.
#[derive(Clone)]
pub struct IssuerKeys {
    pub issuer: Arc<Issuer>,
    pub keys: Arc<Jwks>,
    /// Raised when a token named a key that is not here: the [`super::KeyKeeper`] lowers it and asks the issuer. The
    /// only thing shards tell through memory: once per unknown key at a login, never on the way of a statement.
    pub wanted: Arc<AtomicBool>,
}

/// Issuers with their keys. Immutable: new keys mean a new snapshot.
#[derive(Clone, Default)]
pub struct Verifier {
    issuers: Vec<IssuerKeys>,
}

impl Verifier {
    pub fn new(issuers: Vec<IssuerKeys>) -> Self {
        Self { issuers }
    }

    /// What an OAUTHBEARER client whose token was not accepted is told (RFC 7628, 3.2.2): with one issuer that can be
    /// discovered, also where.
    pub fn bearer_error(&self) -> Vec<u8> {
        let mut error = serde_json::json!({"status": "invalid_token"});
        if let [IssuerKeys { issuer, .. }] = &self.issuers[..]
            && issuer.keys == KeySource::Discovery
        {
            let base = issuer.issuer.trim_end_matches('/');
            error["openid-configuration"] = format!("{base}/.well-known/openid-configuration").into();
        }
        error.to_string().into_bytes()
    }

    /// Checks a compact JWS. `now`: Unix seconds.
    pub fn verify(&self, token: &[u8], now: i64) -> Result<Verified, TokenError> {
        let token = Parts::split(token)?;
        let header = Header::parse(token.header)?;
        let claims = token.claims()?;
        let entry = self.issuer_of(&claims)?;
        let algorithm = header.algorithm.filter(|algorithm| entry.issuer.algorithms.contains(algorithm));
        let algorithm = algorithm.ok_or(TokenError::Algorithm)?;
        let signed = token.signed.as_bytes();
        let mut candidates = entry.candidates(algorithm, header.kid.as_deref())?;
        if !candidates.any(|key| key.verifies(algorithm, signed, token.signature)) {
            return Err(TokenError::BadSignature);
        }
        let expires_at = check_times(&claims, &entry.issuer, now)?;
        if !claims::is_for(&claims, &entry.issuer.audience)? {
            return Err(TokenError::Audience);
        }
        Ok(Verified { principal: claims::principal(&claims, &entry.issuer)?, expires_at })
    }

    /// Who acts for the person of a token that is accepted: its actors but for `azp`, which names the application that anybody's own
    /// token was issued to.
    pub fn agents(&self, token: &[u8]) -> Result<Vec<String>, TokenError> {
        let claims = Parts::split(token)?.claims()?;
        claims::agents(&claims, &self.issuer_of(&claims)?.issuer)
    }

    /// By `iss`, byte for byte. Several entries may share one issuer and differ in audience; the one the token is for wins.
    fn issuer_of(&self, claims: &Map<String, Value>) -> Result<&IssuerKeys, TokenError> {
        let iss = match claims.get("iss") {
            None => return Err(TokenError::MissingClaim),
            Some(Value::String(iss)) => iss,
            Some(_) => return Err(TokenError::Malformed),
        };
        let mut same = self.issuers.iter().filter(|entry| entry.issuer.issuer == *iss);
        let first = same.next().ok_or(TokenError::UnknownIssuer)?;
        let meant = std::iter::once(first).chain(same).find(|e| claims::is_for(claims, &e.issuer.audience) == Ok(true));
        Ok(meant.unwrap_or(first))
    }
}

impl IssuerKeys {
    /// The keys a signature of that algorithm may be checked with: those the `kid` names, or without one the only one.
    fn candidates<'a>(
        &'a self,
        algorithm: Algorithm,
        kid: Option<&'a str>,
    ) -> Result<impl Iterator<Item = &'a Key>, TokenError> {
        let keys = &self.keys.keys;
        let fitting = move |key: &&Key| key.fits(algorithm) && kid.is_none_or(|kid| key.kid.as_deref() == Some(kid));
        let count = keys.iter().filter(fitting).count();
        if kid.is_none() && count == 1 || kid.is_some() && count > 0 {
            return Ok(keys.iter().filter(fitting));
        }
        if kid.is_some() && keys.iter().any(|key| key.kid.as_deref() == kid) {
            return Err(TokenError::Algorithm);
        }
        self.wanted.store(true, Ordering::Relaxed);
        Err(TokenError::UnknownKey)
    }
}

/// `exp` (required) and `nbf`, give or take the leeway. Returns the second at which the principal expires.
fn check_times(claims: &Map<String, Value>, issuer: &Issuer, now: i64) -> Result<i64, TokenError> {
    let leeway = issuer.leeway.as_secs() as i64;
    let expires_at = claims::date(claims, "exp")?.ok_or(TokenError::MissingClaim)? + leeway;
    let not_before = claims::date(claims, "nbf")?;
    claims::date(claims, "iat")?;
    if now >= expires_at {
        return Err(TokenError::Expired);
    }
    if not_before.is_some_and(|not_before| now < not_before - leeway) {
        return Err(TokenError::NotYetValid);
    }
    Ok(expires_at)
}

/// The three parts as they stand in the token.
struct Parts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// Header, dot and claims: what the signature covers.
    signed: &'a str,
}

impl<'a> Parts<'a> {
    fn claims(&self) -> Result<Map<String, Value>, TokenError> {
        let claims = base64url::decode(self.claims.as_bytes()).and_then(|text| json::object(&text));
        claims.ok_or(TokenError::Malformed)
    }

    fn split(token: &'a [u8]) -> Result<Self, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let token = std::str::from_utf8(token).map_err(|_| TokenError::Malformed)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if claims.contains('.') || base64url::decode(signature.as_bytes()).is_none() {
            return Err(TokenError::Malformed);
        }
        Ok(Self { header, claims, signature, signed })
    }
}

struct Header {
    /// `None`: `none`, symmetric, or unheard of.
    algorithm: Option<Algorithm>,
    kid: Option<String>,
}

impl Header {
    fn parse(text: &str) -> Result<Self, TokenError> {
        let header = base64url::decode(text.as_bytes()).and_then(|text| json::object(&text));
        let header = header.ok_or(TokenError::Malformed)?;
        // No extension is understood here, so whatever `crit` lists is unknown (RFC 7515 4.1.11).
        if header.contains_key("crit") {
            return Err(TokenError::CriticalHeader);
        }
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(TokenError::Malformed),
        };
        if text("typ")?.is_some_and(|typ| !is_identity(typ)) {
            return Err(TokenError::Malformed);
        }
        let algorithm = text("alg")?.ok_or(TokenError::Malformed)?;
        Ok(Self { algorithm: jwks::named(algorithm), kid: text("kid")?.map(str::to_owned) })
    }
}

/// Tokens made for something else (`logout+jwt`, `secevent+jwt`, `dpop+jwt`) are no proof of identity (RFC 8725 3.11).
fn is_identity(typ: &str) -> bool {
    let typ = typ.strip_prefix("application/").unwrap_or(typ);
    typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt")
}

#[cfg(test)]
mod tests;
