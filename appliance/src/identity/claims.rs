//! From a token's claims to who somebody is: user, groups and the chain of actors.
//!
//! **User.** The claim named by `user_claim`. By default `email`, else `sub`. Where there is a claim `email_verified`, only `true` verifies:
//! some issuers let people write any address into their profile, and say no in ways of their own (`0`, `"no"`, null).
//!
//! **Groups.** The claim named by `groups_claim` (default `groups`): a string or an array of strings. A name with dots
//! is first a claim of exactly that name, else a path into nested objects (`realm_access.roles`).
//!
//! **Actors**, nearest first, each `name` or `name@version`:
//! 1. If `act` is among `actor_claims`: the chain of nested `act` objects (RFC 8693 section 4.1). The name is `sub`, else
//!    `client_id`; the version is the object's own `agent_version`, else `version`.
//! 2. Then each other claim of `actor_claims`, in that order: a string, or an array of strings.
//! 3. `agent_version` is no actor: it describes whoever presents the token, so it is joined to every name the token has
//!    for that party and that carries no version yet: the nearest `act`, `agent` and `azp`. With none of them it stands
//!    alone as `@version`. Names that come out equal are recorded once.
//!
//! The version is what is behind the last `@`: one that holds an `@` is refused, and so is a name with an `@` that gets a version, but for an
//! e-mail address. `bot@2.0` with the version 1.4 would be met by what is granted to `bot@2.*`.

use super::{Principal, TokenError};
use crate::config::Issuer;
use serde_json::{Map, Value};

/// Actors of one token. Beyond: refused as malformed.
pub const ACTORS_MAX: usize = 16;
/// Groups of one token. Beyond: refused as malformed.
pub const GROUPS_MAX: usize = 2048;
/// Seconds of 9999-12-31: no honest date is later, and sums stay far from overflow.
const DATE_MAX: f64 = 253_402_300_799.0;

const VERSION_CLAIM: &str = "agent_version";

type Claims = Map<String, Value>;

/// The principal of claims whose signature, times and audience hold.
pub(super) fn principal(claims: &Claims, issuer: &Issuer) -> Result<Principal, TokenError> {
    let subject = required_name(claims, "sub")?;
    Ok(Principal {
        user: user(claims, issuer)?,
        subject,
        issuer: issuer.issuer.clone(),
        groups: groups(claims, &issuer.groups_claim)?,
        actor: actors(claims, &issuer.actor_claims)?,
    })
}

/// The actors, but for those that `azp` names.
pub(super) fn agents(claims: &Claims, issuer: &Issuer) -> Result<Vec<String>, TokenError> {
    let wanted: Vec<_> = issuer.actor_claims.iter().filter(|claim| *claim != "azp").cloned().collect();
    actors(claims, &wanted)
}

/// A NumericDate: whole seconds, fractions cut.
pub(super) fn date(claims: &Claims, name: &str) -> Result<Option<i64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(seconds) if (0.0..=DATE_MAX).contains(&seconds) => Ok(Some(seconds as i64)),
            _ => Err(TokenError::Malformed),
        },
        Some(_) => Err(TokenError::Malformed),
    }
}

/// Is `audience` the `aud` claim, or one of its members?
pub(super) fn is_for(claims: &Claims, audience: &str) -> Result<bool, TokenError> {
    match claims.get("aud") {
        None => Err(TokenError::MissingClaim),
        Some(Value::String(one)) => Ok(one == audience),
        Some(Value::Array(several)) => {
            if several.iter().any(|one| !one.is_string()) {
                return Err(TokenError::Malformed);
            }
            Ok(several.iter().any(|one| one == audience))
        }
        Some(_) => Err(TokenError::Malformed),
    }
}

fn user(claims: &Claims, issuer: &Issuer) -> Result<String, TokenError> {
    if let Some(claim) = &issuer.user_claim {
        return name(lookup(claims, claim).ok_or(TokenError::MissingClaim)?);
    }
    let verified = claims.get("email_verified").is_none_or(|verified| verified == true || verified == "true");
    match claims.get("email") {
        Some(email) if verified && email != "" => name(email),
        _ => required_name(claims, "sub"),
    }
}

fn groups(claims: &Claims, claim: &str) -> Result<Vec<String>, TokenError> {
    match lookup(claims, claim) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => names(value, GROUPS_MAX),
    }
}

fn actors(claims: &Claims, wanted: &[String]) -> Result<Vec<String>, TokenError> {
    let wants = |claim: &str| wanted.iter().any(|wanted| wanted == claim);
    let token_version = match claims.get(VERSION_CLAIM) {
        Some(value) if wants(VERSION_CLAIM) => Some(version(value)?),
        _ => None,
    };
    let mut joined = false;
    let mut actors = Vec::new();
    if wants("act") {
        let mut next = claims.get("act");
        while let Some(act) = next {
            let act = act.as_object().ok_or(TokenError::Malformed)?;
            let name = required_name(act, if act.contains_key("sub") { "sub" } else { "client_id" })?;
            let own = act.get(VERSION_CLAIM).or_else(|| act.get("version")).map(version).transpose()?;
            let presenter = actors.is_empty();
            joined |= presenter && own.is_none();
            push(&mut actors, with_version(name, own.as_ref().or(token_version.as_ref().filter(|_| presenter)))?)?;
            next = act.get("act");
        }
    }
    for claim in wanted.iter().filter(|claim| *claim != "act" && *claim != VERSION_CLAIM) {
        let Some(value) = lookup(claims, claim) else { continue };
        let presenter = claim == "azp" || claim == "agent";
        for name in names(value, ACTORS_MAX)? {
            joined |= presenter;
            push(&mut actors, with_version(name, token_version.as_ref().filter(|_| presenter))?)?;
        }
    }
    if let Some(version) = token_version.filter(|_| !joined) {
        push(&mut actors, format!("@{version}"))?;
    }
    Ok(actors)
}

fn push(actors: &mut Vec<String>, actor: String) -> Result<(), TokenError> {
    if !actors.contains(&actor) {
        actors.push(actor);
    }
    if actors.len() > ACTORS_MAX { Err(TokenError::Malformed) } else { Ok(()) }
}

fn with_version(name: String, version: Option<&String>) -> Result<String, TokenError> {
    match version {
        Some(_) if name.contains('@') && !is_address(&name) => Err(TokenError::Malformed),
        Some(version) => Ok(format!("{name}@{version}")),
        None => Ok(name),
    }
}

/// An e-mail address whose domain nobody takes for a version: unlike `v2.beta` it begins with two letters, and it ends in letters.
fn is_address(name: &str) -> bool {
    let Some((local, domain)) = name.split_once('@') else { return false };
    let letter = |c: char| c.is_ascii_alphabetic();
    let of_domains = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    !local.is_empty()
        && domain.contains('.')
        && domain.chars().all(of_domains)
        && domain.chars().take(2).all(letter)
        && domain.rsplit('.').next().is_some_and(|last| last.len() >= 2 && last.chars().all(letter))
}

/// Versions are often written as numbers.
fn version(value: &Value) -> Result<String, TokenError> {
    match value {
        Value::Number(number) => Ok(number.to_string()),
        Value::String(text) if text.contains('@') => Err(TokenError::Malformed),
        other => name(other),
    }
}

/// A claim of exactly that name, else a path of nested objects separated by dots.
fn lookup<'a>(claims: &'a Claims, claim: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(claim) {
        return Some(value);
    }
    let (first, rest) = claim.split_once('.')?;
    lookup(claims.get(first)?.as_object()?, rest)
}

fn names(value: &Value, max: usize) -> Result<Vec<String>, TokenError> {
    match value {
        // By way of a box, which has room for no more than there are.
        Value::Array(several) if several.len() <= max => {
            several.iter().map(name).collect::<Result<Box<[_]>, _>>().map(Vec::from)
        }
        Value::Array(_) => Err(TokenError::Malformed),
        one => Ok(vec![name(one)?]),
    }
}

fn required_name(claims: &Claims, claim: &str) -> Result<String, TokenError> {
    name(claims.get(claim).ok_or(TokenError::MissingClaim)?)
}

/// A name goes into records, rules and terminals: not empty, no control characters.
fn name(value: &Value) -> Result<String, TokenError> {
    match value {
        Value::String(text) if !text.is_empty() && !text.chars().any(char::is_control) => Ok(text.clone()),
        _ => Err(TokenError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn issuer() -> Issuer {
        crate::identity::issuer_for_tests("https://issuer.example", "lockgate")
    }

    fn of(claims: Value, issuer: &Issuer) -> Result<Principal, TokenError> {
        let mut claims = claims.as_object().expect("an object").clone();
        claims.entry("sub").or_insert(json!("s-1"));
        principal(&claims, issuer)
    }

    #[test]
    fn the_user_is_the_verified_email_else_the_subject() {
        let user = |claims| of(claims, &issuer()).map(|principal| principal.user);
        assert_eq!(user(json!({"email": "ann@x"})).as_deref(), Ok("ann@x"));
        assert_eq!(user(json!({"email": "ann@x", "email_verified": true})).as_deref(), Ok("ann@x"));
        assert_eq!(user(json!({"email": "ann@x", "email_verified": "true"})).as_deref(), Ok("ann@x"));
        for no in
            [json!(false), json!("false"), json!(0), json!(1), json!("no"), json!("False"), json!(null), json!([true])]
        {
            let claims = json!({"email": "boss@x", "email_verified": no});
            assert_eq!(user(claims).as_deref(), Ok("s-1"), "{no}");
        }
        assert_eq!(user(json!({})).as_deref(), Ok("s-1"));
        assert_eq!(user(json!({"email": ["ann@x"]})), Err(TokenError::Malformed));
        assert_eq!(user(json!({"email": "ann@x\n28P01"})), Err(TokenError::Malformed));
        assert_eq!(user(json!({"sub": 7})), Err(TokenError::Malformed));
        let named = Issuer { user_claim: Some("preferred.name".into()), ..issuer() };
        assert_eq!(of(json!({"preferred": {"name": "ann"}}), &named).map(|who| who.user).as_deref(), Ok("ann"));
        assert_eq!(of(json!({"email": "ann@x"}), &named), Err(TokenError::MissingClaim));
    }

    #[test]
    fn groups_come_from_a_string_an_array_or_a_path() {
        let check = |claim: &str, claims: Value, expected: Result<&[&str], TokenError>| {
            let issuer = Issuer { groups_claim: claim.to_owned(), ..issuer() };
            let expected = expected.map(|names| names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
            assert_eq!(of(claims, &issuer).map(|who| who.groups), expected);
        };
        check("groups", json!({"groups": ["a", "b"]}), Ok(&["a", "b"]));
        check("groups", json!({"groups": "a"}), Ok(&["a"]));
        check("groups", json!({"groups": []}), Ok(&[]));
        check("groups", json!({"groups": null}), Ok(&[]));
        check("groups", json!({}), Ok(&[]));
        check("groups", json!({"groups": ["a", 1]}), Err(TokenError::Malformed));
        check("groups", json!({"groups": {"a": 1}}), Err(TokenError::Malformed));
        check("groups", json!({"groups": vec!["a"; GROUPS_MAX + 1]}), Err(TokenError::Malformed));
        check("realm_access.roles", json!({"realm_access": {"roles": ["dba"]}}), Ok(&["dba"]));
        check("https://x.example/groups", json!({"https://x.example/groups": ["dba"]}), Ok(&["dba"]));
        check("a.b", json!({"a.b": "exact", "a": {"b": "path"}}), Ok(&["exact"]));
        check("a.b", json!({"a": "text"}), Ok(&[]));
    }

    #[test]
    fn actors_come_nearest_first_with_their_versions() {
        let check = |claims: Value, expected: Result<&[&str], TokenError>| {
            let expected = expected.map(|names| names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
            assert_eq!(of(claims.clone(), &issuer()).map(|who| who.actor), expected, "{claims}");
        };
        check(json!({}), Ok(&[]));
        check(json!({"azp": "web"}), Ok(&["web"]));
        check(json!({"azp": "deploy-bot", "agent_version": "2.1"}), Ok(&["deploy-bot@2.1"]));
        check(json!({"agent": "deploy-bot", "agent_version": 3}), Ok(&["deploy-bot@3"]));
        check(json!({"act": {"sub": "deploy-bot"}, "agent_version": "2.1"}), Ok(&["deploy-bot@2.1"]));
        check(
            json!({"act": {"sub": "deploy-bot"}, "azp": "deploy-bot", "agent_version": "2.1"}),
            Ok(&["deploy-bot@2.1"]),
        );
        check(
            json!({"act": {"sub": "near", "version": "1", "act": {"client_id": "far"}}, "azp": "web"}),
            Ok(&["near@1", "far", "web"]),
        );
        check(json!({"act": {"sub": "near", "agent_version": "1"}, "agent_version": "9"}), Ok(&["near@1", "@9"]));
        check(json!({"agent_version": "9"}), Ok(&["@9"]));
        check(json!({"act": "bot"}), Err(TokenError::Malformed));
        check(json!({"act": {"sub": ["bot"]}}), Err(TokenError::Malformed));
        check(json!({"act": {}}), Err(TokenError::MissingClaim));
        check(json!({"azp": {"sub": "x"}}), Err(TokenError::Malformed));
        let mut chain = json!({"sub": "a0"});
        for depth in 1..=ACTORS_MAX {
            chain = json!({"sub": format!("a{depth}"), "act": chain});
        }
        check(json!({"act": chain}), Err(TokenError::Malformed));
    }

    #[test]
    fn a_version_is_always_behind_the_last_at_sign() {
        let check = |claims: Value, expected: Result<&str, TokenError>| {
            let expected = expected.map(|name| vec![name.to_owned()]);
            assert_eq!(of(claims.clone(), &issuer()).map(|who| who.actor), expected, "{claims}");
        };
        check(json!({"act": {"sub": "bot@2.0"}}), Ok("bot@2.0"));
        check(json!({"act": {"sub": "bot@2.0"}, "agent_version": "1.4"}), Err(TokenError::Malformed));
        check(json!({"act": {"sub": "bot@2.0", "version": "1.4"}}), Err(TokenError::Malformed));
        check(json!({"azp": "bot@2.0", "agent_version": 1}), Err(TokenError::Malformed));
        check(json!({"act": {"sub": "bot"}, "agent_version": "2.0@1.4"}), Err(TokenError::Malformed));
        check(json!({"agent_version": "bot@1"}), Err(TokenError::Malformed));
        check(json!({"act": {"sub": "bot@agents.example.com", "version": "1.4"}}), Ok("bot@agents.example.com@1.4"));
        check(json!({"azp": "bot@acme-7.iam.example.com", "agent_version": 2}), Ok("bot@acme-7.iam.example.com@2"));
        for name in [
            "bot@2.example.com",
            "bot@beta",
            "bot@v2.0",
            "bot@v2.beta",
            "bot@a@corp.com",
            "@corp.com",
            "bot@",
            "bot@corp.com@",
            "bot@corp.*",
            "bot@corp",
        ] {
            check(json!({"azp": name, "agent_version": "1"}), Err(TokenError::Malformed));
        }
    }

    /// Keycloak, Google and others put `azp` into every person's token.
    #[test]
    fn an_application_alone_makes_nobody_an_agent() {
        let check = |claims: Value, expected: &[&str]| {
            let found = agents(claims.as_object().expect("an object"), &issuer()).expect("well formed");
            assert_eq!(found, expected, "{claims}");
        };
        check(json!({}), &[]);
        check(json!({"azp": "web"}), &[]);
        check(json!({"azp": "deploy-bot", "agent_version": "2.1"}), &["@2.1"]);
        check(json!({"azp": "web", "act": {"sub": "deploy-bot"}}), &["deploy-bot"]);
        check(json!({"agent": "deploy-bot"}), &["deploy-bot"]);
    }

    #[test]
    fn only_named_actor_claims_count() {
        let none = Issuer { actor_claims: vec!["robot".into()], ..issuer() };
        let claims = json!({"act": {"sub": "x"}, "azp": "y", "agent_version": "1", "robot": ["r1", "r2"]});
        assert_eq!(of(claims, &none).map(|who| who.actor), Ok(vec!["r1".to_owned(), "r2".to_owned()]));
    }
}
