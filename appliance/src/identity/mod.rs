//! Token -> [`Principal`], against keys in the snapshot.
//!
//! ```text
//!   issuer's key set --> KeyKeeper (control thread) --> Verifier (in the snapshot) --> Principal
//!   file or discovery    refreshes, keeps old keys      one per shard's snapshot       user, groups, actors
//! ```

pub mod base64url;
mod claims;
pub mod development;
pub mod discovery;
mod json;
mod jwks;
mod keeper;
mod verify;

pub use jwks::{Jwks, JwksError, Key};
pub use keeper::{Asked, KeyKeeper};
pub use verify::{IssuerKeys, Verifier};

/// Who somebody is, from the token alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The user claim (default: a verified email, else sub).
    pub user: String,
    pub subject: String,
    pub issuer: String,
    pub groups: Vec<String>,
    /// The actor chain, nearest first, as `name` or `name@version`: the `act` chain, then the other `actor_claims`.
    pub actor: Vec<String>,
}

/// What an accepted token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub principal: Principal,
    /// Unix seconds; no statement starts at or after it. The token's `exp` plus the issuer's leeway.
    pub expires_at: i64,
}

/// Why a token was not believed: for the audit record; the client reads one text for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    #[error("no token was given")]
    Missing,
    #[error("the token is longer than {} bytes", crate::limits::TOKEN_BYTES_MAX)]
    TooLong,
    /// Not a compact JWS, not canonical, a claim named twice or of the wrong type.
    #[error("the token is malformed")]
    Malformed,
    #[error("no configured issuer has the token's iss")]
    UnknownIssuer,
    /// `none`, a symmetric one, one the issuer is not configured for, or one the named key is not for.
    #[error("the token's algorithm is not one this issuer may use")]
    Algorithm,
    /// No key with the token's kid, or no kid and not exactly one key.
    #[error("the issuer has no such key")]
    UnknownKey,
    #[error("the signature does not verify")]
    BadSignature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token is for another audience")]
    Audience,
    #[error("a required claim is missing")]
    MissingClaim,
    #[error("the token has a critical header nobody here understands")]
    CriticalHeader,
}

/// An issuer as the configuration has it by default.
#[cfg(test)]
pub(crate) fn issuer_for_tests(issuer: &str, audience: &str) -> crate::config::Issuer {
    use crate::config::{Algorithm, Issuer, KeySource};
    Issuer {
        name: "test".into(),
        issuer: issuer.into(),
        audience: audience.into(),
        algorithms: vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa],
        keys: KeySource::Discovery,
        user_claim: None,
        groups_claim: "groups".into(),
        actor_claims: ["act", "agent", "azp", "agent_version"].map(String::from).to_vec(),
        leeway: std::time::Duration::from_secs(30),
    }
}
