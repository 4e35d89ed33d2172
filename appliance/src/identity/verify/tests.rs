//! Every way a token can lie, and the few in which it tells the truth.

use super::*;
use crate::identity::development::{NewKey, SigningKey};
use crate::identity::{Principal, issuer_for_tests};
use serde_json::json;

const ISSUER: &str = "https://login.example.com";
const NOW: i64 = 1_800_000_000;

fn verifier(document: &Value) -> Verifier {
    verifier_for(document, issuer_for_tests(ISSUER, "lockgate"))
}

fn verifier_for(document: &Value, issuer: Issuer) -> Verifier {
    let keys = Jwks::parse(document.to_string().as_bytes()).expect("a key set");
    Verifier::new(vec![IssuerKeys { issuer: Arc::new(issuer), keys: Arc::new(keys), wanted: Default::default() }])
}

fn key() -> SigningKey {
    SigningKey::generate(NewKey::Es256).expect("a key")
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "lockgate", "sub": "u-17", "email": "ann@example.com", "groups": ["engineering"],
           "exp": NOW + 600, "iat": NOW})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

/// What becomes of correctly signed claims.
fn verdict(claims: Value) -> Result<Verified, TokenError> {
    let key = key();
    verifier(&key.jwks()).verify(key.token(&claims).expect("signs").as_bytes(), NOW)
}

fn refused(claims: Value, error: TokenError) {
    assert_eq!(verdict(claims.clone()).err(), Some(error), "{claims}");
}

#[test]
fn an_honest_token_of_each_key_type_names_its_owner() {
    for kind in [NewKey::Es256, NewKey::Eddsa, NewKey::Rs256] {
        let key = SigningKey::generate(kind).expect("a key");
        let token = key.token(&claims()).expect("signs");
        let verified = verifier(&key.jwks()).verify(token.as_bytes(), NOW).expect("an honest token");
        assert_eq!(verified.expires_at, NOW + 600 + 30);
        assert_eq!(
            verified.principal,
            Principal {
                user: "ann@example.com".into(),
                subject: "u-17".into(),
                issuer: ISSUER.into(),
                groups: vec!["engineering".into()],
                actor: vec![],
            }
        );
    }
}

#[test]
fn times_hold_to_the_second_with_the_leeway() {
    refused(with("exp", json!(NOW - 30)), TokenError::Expired);
    assert!(verdict(with("exp", json!(NOW - 29))).is_ok());
    assert!(verdict(with("exp", json!(NOW as f64 + 0.5))).is_ok());
    refused(with("nbf", json!(NOW + 31)), TokenError::NotYetValid);
    assert!(verdict(with("nbf", json!(NOW + 30))).is_ok());
    refused(without("exp"), TokenError::MissingClaim);
    for wrong in [json!("1900000000"), json!(null), json!([NOW]), json!(-1), json!(1e300), json!({})] {
        refused(with("exp", wrong.clone()), TokenError::Malformed);
        refused(with("nbf", wrong.clone()), TokenError::Malformed);
        refused(with("iat", wrong), TokenError::Malformed);
    }
}

#[test]
fn the_audience_must_be_ours() {
    assert!(verdict(with("aud", json!(["other", "lockgate"]))).is_ok());
    refused(with("aud", json!("other")), TokenError::Audience);
    refused(with("aud", json!("lockgate2")), TokenError::Audience);
    refused(with("aud", json!([])), TokenError::Audience);
    refused(without("aud"), TokenError::MissingClaim);
    refused(with("aud", json!(7)), TokenError::Malformed);
    refused(with("aud", json!(["lockgate", 7])), TokenError::Malformed);
}

#[test]
fn the_issuer_must_be_configured_byte_for_byte() {
    refused(with("iss", json!("https://login.example.com/")), TokenError::UnknownIssuer);
    refused(with("iss", json!("https://evil.example.com")), TokenError::UnknownIssuer);
    refused(without("iss"), TokenError::MissingClaim);
    refused(with("iss", json!([ISSUER])), TokenError::Malformed);
    refused(without("sub"), TokenError::MissingClaim);
    assert_eq!(Verifier::default().verify(b"e30.e30.", NOW), Err(TokenError::Malformed));
    let token = key().token(&claims()).expect("signs");
    assert_eq!(Verifier::default().verify(token.as_bytes(), NOW), Err(TokenError::UnknownIssuer));
}

#[test]
fn an_issuer_with_two_audiences_is_told_apart_by_audience() {
    let key = key();
    let keys = Arc::new(Jwks::parse(key.jwks().to_string().as_bytes()).expect("a key set"));
    let entry = |audience: &str, groups: &str| IssuerKeys {
        issuer: Arc::new(Issuer { groups_claim: groups.into(), ..issuer_for_tests(ISSUER, audience) }),
        keys: keys.clone(),
        wanted: Default::default(),
    };
    let verifier = Verifier::new(vec![entry("agents", "none"), entry("lockgate", "groups")]);
    let token = key.token(&claims()).expect("signs");
    assert_eq!(verifier.verify(token.as_bytes(), NOW).expect("is for the second").principal.groups, ["engineering"]);
    let token = key.token(&with("aud", json!("other"))).expect("signs");
    assert_eq!(verifier.verify(token.as_bytes(), NOW), Err(TokenError::Audience));
}

#[test]
fn unsigned_tokens_are_refused_however_they_are_written() {
    let key = key();
    for alg in ["none", "None", "NONE", "", "nOnE"] {
        let header = base64url::encode(json!({"alg": alg}).to_string().as_bytes());
        let body = base64url::encode(claims().to_string().as_bytes());
        for signature in ["", "AA"] {
            let token = format!("{header}.{body}.{signature}");
            assert_eq!(verifier(&key.jwks()).verify(token.as_bytes(), NOW), Err(TokenError::Algorithm), "{alg}");
        }
    }
    let token = key.token(&claims()).expect("signs");
    let unsigned = &token[..=token.rfind('.').expect("three parts")];
    assert_eq!(verifier(&key.jwks()).verify(unsigned.as_bytes(), NOW), Err(TokenError::BadSignature));
}

#[test]
fn a_public_key_is_never_a_shared_secret() {
    use aws_lc_rs::hmac;
    for kind in [NewKey::Es256, NewKey::Eddsa, NewKey::Rs256] {
        let key = SigningKey::generate(kind).expect("a key");
        let jwk = key.jwk();
        let member = jwk.get("x").or_else(|| jwk.get("n")).and_then(Value::as_str).expect("a public part");
        let secrets = [
            key.jwks().to_string().into_bytes(),
            jwk.to_string().into_bytes(),
            member.as_bytes().to_vec(),
            base64url::decode(member.as_bytes()).expect("base64url"),
        ];
        for (alg, algorithm) in
            [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
        {
            for secret in &secrets {
                let header = json!({"alg": alg, "kid": key.kid()}).to_string();
                let body = claims().to_string();
                let signed = format!("{}.{}", base64url::encode(header.as_bytes()), base64url::encode(body.as_bytes()));
                let tag = hmac::sign(&hmac::Key::new(algorithm, secret), signed.as_bytes());
                let token = format!("{signed}.{}", base64url::encode(tag.as_ref()));
                assert_eq!(verifier(&key.jwks()).verify(token.as_bytes(), NOW), Err(TokenError::Algorithm));
            }
        }
    }
}

#[test]
fn the_key_is_the_one_the_kid_names() {
    let (ours, theirs) = (key(), key());
    let both = json!({"keys": [ours.jwk(), theirs.jwk()]});
    let header = |key: &SigningKey, kid: Option<&str>| {
        let mut header = json!({"alg": key.algorithm()});
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        header
    };
    let check = |signer: &SigningKey, kid: Option<&str>, keys: &Value| {
        let token = signer.token_with_header(&header(signer, kid), &claims()).expect("signs");
        verifier(keys).verify(token.as_bytes(), NOW).err()
    };
    assert_eq!(check(&ours, Some(&ours.kid()), &both), None);
    assert_eq!(check(&ours, Some(&theirs.kid()), &both), Some(TokenError::BadSignature));
    assert_eq!(check(&ours, Some("nobody"), &both), Some(TokenError::UnknownKey));
    assert_eq!(check(&ours, Some(""), &both), Some(TokenError::UnknownKey));
    assert_eq!(check(&ours, Some("../../../dev/null"), &both), Some(TokenError::UnknownKey));
    assert_eq!(check(&ours, None, &both), Some(TokenError::UnknownKey), "two keys of that algorithm");
    assert_eq!(check(&ours, None, &ours.jwks()), None, "the only key");
    assert_eq!(check(&theirs, None, &ours.jwks()), Some(TokenError::BadSignature));
    let ed = SigningKey::generate(NewKey::Eddsa).expect("a key");
    assert_eq!(check(&ours, None, &json!({"keys": [ours.jwk(), ed.jwk()]})), None, "the only key of that algorithm");
    assert_eq!(check(&ed, Some(&ours.kid()), &both), Some(TokenError::Algorithm), "that key is not for EdDSA");
}

#[test]
fn a_key_without_a_name_serves_only_tokens_that_name_none() {
    let key = key();
    let mut jwk = key.jwk();
    jwk.as_object_mut().expect("an object").remove("kid");
    let verifier = verifier(&json!({"keys": [jwk]}));
    let named = key.token(&claims()).expect("signs");
    let unnamed = key.token_with_header(&json!({"alg": "ES256"}), &claims()).expect("signs");
    assert_eq!(verifier.verify(named.as_bytes(), NOW), Err(TokenError::UnknownKey));
    assert!(verifier.verify(unnamed.as_bytes(), NOW).is_ok());
}

#[test]
fn an_unknown_key_is_asked_for_and_a_known_one_is_not() {
    let (ours, theirs) = (key(), key());
    let verifier = verifier(&ours.jwks());
    let wanted = || verifier.issuers[0].wanted.load(Ordering::Relaxed);
    assert!(verifier.verify(ours.token(&claims()).expect("signs").as_bytes(), NOW).is_ok());
    assert!(!wanted());
    assert!(verifier.verify(theirs.token(&claims()).expect("signs").as_bytes(), NOW).is_err());
    assert!(wanted());
}

#[test]
fn keys_in_the_header_are_not_looked_at() {
    let (ours, theirs) = (key(), key());
    for (name, value) in [
        ("jwk", theirs.jwk()),
        ("jku", json!("https://evil.example.com/jwks.json")),
        ("x5u", json!("https://evil.example.com/cert.pem")),
        ("x5c", json!(["MIIB"])),
    ] {
        for kid in [ours.kid(), theirs.kid()] {
            let mut header = json!({"alg": "ES256", "kid": kid});
            header[name] = value.clone();
            let forged = theirs.token_with_header(&header, &claims()).expect("signs");
            assert!(verifier(&ours.jwks()).verify(forged.as_bytes(), NOW).is_err(), "{name}");
        }
        let mut header = json!({"alg": "ES256", "kid": ours.kid()});
        header[name] = value;
        let honest = ours.token_with_header(&header, &claims()).expect("signs");
        assert!(verifier(&ours.jwks()).verify(honest.as_bytes(), NOW).is_ok(), "{name} is ignored, not fatal");
    }
}

#[test]
fn headers_nobody_understands_refuse_the_token() {
    let key = key();
    let check = |header: Value| {
        let token = key.token_with_header(&header, &claims()).expect("signs");
        verifier(&key.jwks()).verify(token.as_bytes(), NOW).err()
    };
    assert_eq!(check(json!({"alg": "ES256", "crit": ["b64"], "b64": false})), Some(TokenError::CriticalHeader));
    assert_eq!(check(json!({"alg": "ES256", "crit": []})), Some(TokenError::CriticalHeader));
    assert_eq!(check(json!({"alg": "ES256", "typ": "logout+jwt"})), Some(TokenError::Malformed));
    assert_eq!(check(json!({"alg": "ES256", "typ": 7})), Some(TokenError::Malformed));
    assert_eq!(check(json!({"alg": ["ES256"]})), Some(TokenError::Malformed));
    assert_eq!(check(json!({"typ": "JWT"})), Some(TokenError::Malformed));
    assert_eq!(check(json!({"alg": "ES256", "kid": 7})), Some(TokenError::Malformed));
    assert_eq!(check(json!({"alg": "ES384"})), Some(TokenError::Algorithm));
    assert_eq!(check(json!({"alg": "es256"})), Some(TokenError::Algorithm));
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        assert_eq!(check(json!({"alg": "ES256", "typ": typ})), None);
    }
}

#[test]
fn algorithms_are_the_issuers_not_the_tokens() {
    let key = key();
    let only_rsa = Issuer { algorithms: vec![Algorithm::Rs256], ..issuer_for_tests(ISSUER, "lockgate") };
    let token = key.token(&claims()).expect("signs");
    assert_eq!(verifier_for(&key.jwks(), only_rsa).verify(token.as_bytes(), NOW), Err(TokenError::Algorithm));
}

#[test]
fn changed_bytes_and_second_spellings_are_refused() {
    let key = key();
    let verifier = verifier(&key.jwks());
    let token = key.token(&claims()).expect("signs").into_bytes();
    assert!(verifier.verify(&token, NOW).is_ok());
    for place in 0..token.len() {
        let mut changed = token.clone();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        assert!(verifier.verify(&changed, NOW).is_err(), "byte {place}");
        let mut shorter = token.clone();
        shorter.remove(place);
        assert!(verifier.verify(&shorter, NOW).is_err(), "without byte {place}");
    }
    for suffix in ["=", "==", "\n", " ", ".", "A", "\0"] {
        let longer = [&token[..], suffix.as_bytes()].concat();
        assert!(verifier.verify(&longer, NOW).is_err(), "{suffix:?}");
    }
    for bad in [&b"a.b"[..], b"..", b"...", b"a", b"\xff\xfe", b"eyJ.e30.AA", b"{}.{}.{}"] {
        assert_eq!(verifier.verify(bad, NOW), Err(TokenError::Malformed), "{bad:?}");
    }
    assert_eq!(verifier.verify(b"", NOW), Err(TokenError::Missing));
    assert_eq!(verifier.verify(&vec![b'a'; TOKEN_BYTES_MAX + 1], NOW), Err(TokenError::TooLong));
}

#[test]
fn claims_named_twice_are_refused() {
    let key = key();
    let body = claims().to_string().replacen('{', "{\"sub\":\"root\",", 1);
    let header = json!({"alg": "ES256", "kid": key.kid()}).to_string();
    let signed = format!("{}.{}", base64url::encode(header.as_bytes()), base64url::encode(body.as_bytes()));
    let token = format!("{signed}.{}", base64url::encode(&key.sign(signed.as_bytes()).expect("signs")));
    assert_eq!(verifier(&key.jwks()).verify(token.as_bytes(), NOW), Err(TokenError::Malformed));
}

/// RFC 8037 appendix A.4: an Ed25519 signature over a payload that is no claim set. Signature first, then the claims.
#[test]
fn the_rfc_8037_signature_verifies() {
    let jwk = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
    let keys = Jwks::parse(jwk.to_string().as_bytes()).expect("a key set");
    let signed = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(keys.keys[0].verifies(Algorithm::EdDsa, signed.as_bytes(), signature));
    assert!(!keys.keys[0].verifies(Algorithm::EdDsa, &signed.as_bytes()[1..], signature));
}

/// RFC 7515 appendices A.2 (RS256) and A.3 (ES256): the same claims, which have expired long ago.
#[test]
fn the_rfc_7515_tokens_verify_up_to_their_claims() {
    const CLAIMS: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let rsa = json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
    let ec = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let keys = json!({"keys": [rsa, ec]});
    let verifier = verifier_for(&keys, issuer_for_tests("joe", "lockgate"));
    for (header, signature) in [
        (
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
    ] {
        let token = format!("{header}.{CLAIMS}.{signature}");
        assert_eq!(verifier.verify(token.as_bytes(), NOW), Err(TokenError::Expired));
        assert_eq!(verifier.verify(token.as_bytes(), 1_300_819_379), Err(TokenError::MissingClaim), "it has no aud");
        let forged = token.replacen('.', ".A", 1);
        assert!(verifier.verify(forged.as_bytes(), NOW).is_err());
    }
}

/// Deterministic, so a failure comes back: the seed is the test's own.
#[test]
fn mangled_tokens_never_panic_and_never_pass() {
    let key = key();
    let verifier = verifier(&key.jwks());
    let honest = key.token(&claims()).expect("signs").into_bytes();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..20_000 {
        let mut token = honest.clone();
        for _ in 0..=random(4) {
            let place = random(token.len());
            match random(4) {
                0 => token[place] = random(256) as u8,
                1 => token.truncate(place.max(1)),
                2 => token.insert(place, b".A=_-\0{\""[random(8)]),
                _ => {
                    let piece = token[place..].to_vec();
                    token.extend_from_slice(&piece);
                }
            }
        }
        assert!(token == honest || verifier.verify(&token, NOW).is_err());
    }
}
