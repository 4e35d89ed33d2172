//! `lockgate token`: development issuers and their tokens. The token alone goes to standard output, so that
//! `PGPASSWORD=$(lockgate token ...)` works.

use crate::identity::development::{NewKey, SigningKey};
use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// The issuer a development token names unless told otherwise.
pub const DEVELOPMENT_ISSUER: &str = "lockgate-development";
const KEY_FILE: &str = "issuer.pem";
const JWKS_FILE: &str = "jwks.json";
/// A token somebody minted by hand should not outlive the work it was for.
const TTL_MAX_S: u64 = 366 * 24 * 3600;

#[derive(clap::Args)]
#[command(after_help = "EXAMPLES
  lockgate token --new-issuer dev
  PGPASSWORD=$(lockgate token --issuer-key dev/issuer.pem --user ann@example.com --groups engineering) \\
    psql \"host=localhost port=6432 dbname=orders user=ann sslmode=require\"
  lockgate token --issuer-key dev/issuer.pem --user ann@example.com \\
    --claim act='{\"sub\":\"deploy-bot\"}' --claim agent_version=2.1

Never for production issuers: whoever can read the key file is whoever they say they are.")]
pub struct TokenArgs {
    /// Create a key pair and its JWKS in this folder, print the configuration that trusts it to standard error, and end
    #[arg(long, value_name = "DIR", conflicts_with_all = ["issuer_key", "user", "groups", "claims"])]
    new_issuer: Option<PathBuf>,
    /// What kind of key --new-issuer creates
    #[arg(long, value_enum, default_value = "es256", requires = "new_issuer")]
    algorithm: NewKey,
    /// The private key to sign with: PEM, EC P-256 or P-384, Ed25519 or RSA
    #[arg(long, value_name = "FILE", required_unless_present = "new_issuer")]
    issuer_key: Option<PathBuf>,
    /// Who the token is for: becomes `sub`, and `email` where it has an @
    #[arg(long, required_unless_present = "new_issuer")]
    user: Option<String>,
    /// Groups, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    groups: Vec<String>,
    /// How long it is valid: 90s, 30m, 1h, 7d
    #[arg(long, default_value = "1h", value_parser = duration_s, value_name = "TIME")]
    ttl: u64,
    /// One more claim, or another value for one of the above; JSON where it
    /// parses as JSON (fractions stay text: 2.10), else text. May be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
    /// The `iss` claim
    #[arg(long, default_value = DEVELOPMENT_ISSUER, value_name = "URL")]
    issuer: String,
    /// The `aud` claim
    #[arg(long, default_value = "lockgate")]
    audience: String,
    /// The key's name in the token's header [default: its RFC 7638 thumbprint, as in the JWKS]
    #[arg(long)]
    kid: Option<String>,
}

pub fn run(args: TokenArgs) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &args.new_issuer {
        new_issuer(folder, args.algorithm, &args.issuer, &args.audience)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (Some(path), Some(user)) = (&args.issuer_key, &args.user) else {
        bail!("--issuer-key and --user are needed");
    };
    let pem = zeroize::Zeroizing::new(
        std::fs::read(path).with_context(|| format!("could not read the issuer key {}", path.display()))?,
    );
    let key = SigningKey::from_pem(&pem).with_context(|| format!("{} cannot sign tokens", path.display()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs();
    let mut claims = claims(user, &args.groups, &args.issuer, &args.audience, now, args.ttl);
    claims.extend(args.claims);
    let kid = args.kid.unwrap_or_else(|| key.kid());
    let header = json!({"alg": key.algorithm(), "kid": kid, "typ": "JWT"});
    let token = key.token_with_header(&header, &Value::Object(claims))?;
    note!("lockgate: a development token: use it only where the gateway trusts a development issuer");
    super::print(&format!("{token}\n"))
}

/// The claims of a development token. `now` and `ttl_s` in seconds.
pub fn claims(user: &str, groups: &[String], issuer: &str, audience: &str, now: u64, ttl_s: u64) -> Map<String, Value> {
    let mut claims = Map::new();
    claims.insert("iss".into(), json!(issuer));
    claims.insert("aud".into(), json!(audience));
    claims.insert("sub".into(), json!(user));
    if user.contains('@') {
        claims.insert("email".into(), json!(user));
    }
    if !groups.is_empty() {
        claims.insert("groups".into(), json!(groups));
    }
    claims.insert("iat".into(), json!(now));
    claims.insert("exp".into(), json!(now + ttl_s));
    claims
}

/// Writes `issuer.pem` and `jwks.json`. An existing key is never replaced: tokens were signed with it.
pub fn new_issuer(folder: &Path, kind: NewKey, issuer: &str, audience: &str) -> anyhow::Result<SigningKey> {
    let key = SigningKey::generate(kind)?;
    std::fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    let path = folder.join(KEY_FILE);
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(key.to_pem().as_bytes()))
        .with_context(|| format!("could not create {}", path.display()))?;
    let jwks = folder.join(JWKS_FILE);
    let document = serde_json::to_string_pretty(&key.jwks())? + "\n";
    std::fs::write(&jwks, document).with_context(|| format!("could not write {}", jwks.display()))?;
    note!(
        "lockgate: a development issuer, never for production: whoever reads {} can be anybody.\n\
         Trust it in a configuration with\n\n\
         [[issuer]]\n\
         name = \"development\"\n\
         issuer = {issuer:?}\n\
         audience = {audience:?}\n\
         algorithms = [{:?}]\n\
         jwks_file = {:?}\n",
        path.display(),
        key.algorithm(),
        std::path::absolute(&jwks).unwrap_or(jwks),
    );
    Ok(key)
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("a claim is NAME=VALUE")?;
    let value = match serde_json::from_str(value) {
        // 2.10 is a version, and another one than 2.1.
        Ok(Value::Number(number)) if number.is_f64() => json!(value),
        Ok(value) => value,
        Err(_) => json!(value),
    };
    Ok((name.to_owned(), value))
}

/// Seconds of `90s`, `30m`, `1h`, `7d`; a bare number is seconds.
fn duration_s(text: &str) -> Result<u64, String> {
    let wrong = || format!("a time is a number and one of s, m, h, d (at most {} days), as in 1h", TTL_MAX_S / 86400);
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
    seconds.filter(|seconds| (1..=TTL_MAX_S).contains(seconds)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{IssuerKeys, Jwks, Verifier};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    #[test]
    fn times_are_numbers_with_a_unit() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604_800)] {
            assert_eq!(duration_s(text), Ok(seconds));
        }
        for text in ["", "h", "0s", "-1h", "1w", "1hh", "1 h", "99999d", "18446744073709551615d"] {
            assert!(duration_s(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn claims_are_json_where_they_look_like_it() {
        assert_eq!(claim("azp=deploy-bot"), Ok(("azp".into(), json!("deploy-bot"))));
        assert_eq!(claim("agent_version=2.10"), Ok(("agent_version".into(), json!("2.10"))));
        assert_eq!(claim("exp=7"), Ok(("exp".into(), json!(7))));
        assert_eq!(claim(r#"act={"sub":"b"}"#), Ok(("act".into(), json!({"sub": "b"}))));
        assert_eq!(claim("x=a=b"), Ok(("x".into(), json!("a=b"))));
        assert!(claim("azp").is_err() && claim("=x").is_err());
    }

    #[test]
    fn a_minted_token_is_believed_by_a_gateway_that_trusts_the_new_issuer() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("dev");
        new_issuer(&folder, NewKey::Eddsa, DEVELOPMENT_ISSUER, "lockgate").expect("created");
        let mode = std::fs::metadata(folder.join(KEY_FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(new_issuer(&folder, NewKey::Eddsa, DEVELOPMENT_ISSUER, "lockgate").is_err(), "never replaced");
        let key = SigningKey::from_pem(&std::fs::read(folder.join(KEY_FILE)).expect("reads")).expect("a key");
        let keys = Jwks::parse(&std::fs::read(folder.join(JWKS_FILE)).expect("reads")).expect("a key set");
        let verifier = Verifier::new(vec![IssuerKeys {
            issuer: Arc::new(crate::identity::issuer_for_tests(DEVELOPMENT_ISSUER, "lockgate")),
            keys: Arc::new(keys),
            wanted: Default::default(),
        }]);
        let mut claims = claims("ann@example.com", &["dev".into()], DEVELOPMENT_ISSUER, "lockgate", 1_000, 60);
        claims.insert("azp".into(), json!("bot"));
        let token = key.token(&Value::Object(claims)).expect("signs");
        let who = verifier.verify(token.as_bytes(), 1_010).expect("believed").principal;
        assert_eq!(
            (who.user.as_str(), who.groups, who.actor),
            ("ann@example.com", vec!["dev".into()], vec!["bot".into()])
        );
        assert!(verifier.verify(token.as_bytes(), 1_090).is_err(), "expired");
    }
}
