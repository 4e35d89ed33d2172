//! Who gets in, who does not, and that those who do not all read the same.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::World;
use super::clients::node;
use crate::harness::gateway::Setup;
use crate::harness::issuer::{AUDIENCE, claims, header, now, unsigned};
use crate::harness::postgres::PASSWORD;
use crate::harness::wire::{Complaint, Wire, complaint, query};
use crate::harness::{Endpoint, Gateway, Issuer, Report, Settings, audit};

const GRANTS: &str = "[[grant]]\ntargets = [\"orders\"]\ngroups = [\"engineering\"]\n\
                      [[grant]]\ntargets = [\"orders\"]\nusers = [\"zoe@example.com\"]\n";

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let setup = Setup { grants: GRANTS.into(), more: SECOND_TARGET.into(), ..Setup::default() };
    let world = World::start(settings, "identity", &setup)?;
    report.case("a right token gets in, over TLS and in plaintext", || admitted(&world));
    report.case("identity comes from the token, whatever user the client claims", || claimed_user(&world));
    report.case("wrong tokens of every kind are refused alike", || refused_alike(&world));
    report.case("no grant and no such target read the same", || no_grant(&world));
    report.case("a token that expires ends the session after the running statement", || expiry(&world));
    report.case("the true reason of a refusal is in the audit", || reasons_recorded(&world));
    report.case("the target's password appears nowhere", || password_nowhere(&world));
    discovery(settings, report, &world)
}

const SECOND_TARGET: &str = "[[target]]\nname = \"locked\"\nprotocol = \"postgres\"\naddress = \"127.0.0.1:9\"\n\
                             database = \"shop\"\nuser = \"service\"\npassword_env = \"TARGET_PASSWORD\"\ntls = \"disable\"\n";

fn admitted(world: &World) -> Result<()> {
    let mut plain = Wire::connect(&world.endpoint("ada@example.com", &["engineering"], false))?;
    ensure!(plain.value("SELECT session_user")? == "service");
    // By name rather than by group.
    let mut named = Wire::connect(&world.endpoint("zoe@example.com", &[], false))?;
    ensure!(named.value("SELECT 1")? == "1");
    Ok(())
}

fn claimed_user(world: &World) -> Result<()> {
    let endpoint = world.endpoint("ada@example.com", &["engineering"], false);
    let mut wire = Wire::connect(&Endpoint { user: "postgres".into(), ..endpoint })?;
    ensure!(wire.value("SELECT 'claims-postgres' || session_user")? == "claims-postgresservice");
    let records = audit::search(world.gateway(), &["--contains", "claims-postgres"])?;
    ensure!(!records.is_empty(), "nothing recorded");
    ensure!(records.iter().all(|record| record["user"] == "ada@example.com"), "{records:?}");
    Ok(())
}

/// Everything that is wrong with a token, by name.
fn wrong_tokens(issuer: &Issuer) -> Result<Vec<(&'static str, String)>> {
    let right = claims("ada@example.com", &["engineering"], 3_600);
    let changed = |name: &str, value: Value| {
        let mut claims = right.clone();
        claims[name] = value;
        issuer.signed(&header(), &claims)
    };
    let without = |name: &str| {
        let mut claims = right.clone();
        claims.as_object_mut().expect("claims are an object").remove(name);
        issuer.signed(&header(), &claims)
    };
    let with_header = |name: &str, value: Value| {
        let mut header = header();
        header[name] = value;
        issuer.signed(&header, &right)
    };
    let good = issuer.signed(&header(), &right);
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let mut tokens = vec![
        ("empty", String::new()),
        ("not a token", "hunter2".into()),
        ("two dots only", "..".into()),
        ("expired", changed("exp", json!(now() - 60))),
        ("expired, as a string", changed("exp", json!((now() + 3_600).to_string()))),
        ("not yet valid", changed("nbf", json!(now() + 600))),
        ("wrong issuer", changed("iss", json!("https://elsewhere.test"))),
        ("issuer with a slash", changed("iss", json!("https://issuer.test/"))),
        ("wrong audience", changed("aud", json!("somebody-else"))),
        ("wrong audiences", changed("aud", json!(["somebody", "else"]))),
        ("unsigned", unsigned(&right)),
        ("unsigned, with a signature", format!("{}{signature}", unsigned(&right))),
        ("HS256 with the public key", issuer.hs256_with_public_key(&right)),
        ("signed by a stranger", Issuer::stranger()?.signed(&header(), &right)),
        ("signature changed", format!("{signed}.{flipped}{}", &signature[1..])),
        ("signature cut", good[..good.len() - 4].to_string()),
        ("signature missing", format!("{signed}.")),
        ("unknown key id", with_header("kid", json!("no-such-key"))),
        ("another algorithm named", with_header("alg", json!("ES384"))),
        ("critical header", with_header("crit", json!(["exp"]))),
        ("10,000 characters of nothing", "x".repeat(10_000)),
    ];
    for name in ["exp", "iss", "aud", "sub"] {
        tokens.push((name, without(name)));
    }
    Ok(tokens)
}

fn refused_alike(world: &World) -> Result<()> {
    let endpoint = world.endpoint("ada@example.com", &["engineering"], false);
    let mut texts = BTreeSet::new();
    for (kind, token) in wrong_tokens(&world.issuer)? {
        let refusal = Wire::refusal(&endpoint.with_password(&token)).with_context(|| kind.to_string())?;
        ensure!(refusal.sqlstate == "28P01", "{kind}: {refusal:?}");
        ensure!(refusal.severity == "FATAL", "{kind}: {refusal:?}");
        texts.insert(format!("{} {} {}", refusal.message, refusal.detail, refusal.hint));
    }
    ensure!(texts.len() == 1, "{texts:?}");
    // The one text must not be what a right token reads.
    Wire::connect(&endpoint)?;
    Ok(())
}

fn no_grant(world: &World) -> Result<()> {
    let outsider = world.endpoint("eve@example.com", &["sales"], false);
    let insider = world.endpoint("ada@example.com", &["engineering"], false);
    let refusals = [
        ("outsider at orders", outsider.clone()),
        ("outsider at a target that does not exist", outsider.with_dbname("nosuch")),
        ("insider at a target nobody was granted", insider.with_dbname("locked")),
        ("insider at a target that does not exist", insider.with_dbname("nosuch")),
        ("nothing named", insider.with_dbname("")),
    ];
    let mut texts = BTreeSet::new();
    for (who, endpoint) in refusals {
        let Complaint { sqlstate, message, detail, hint, .. } =
            Wire::refusal(&endpoint).with_context(|| who.to_string())?;
        ensure!(sqlstate == "28000", "{who}: {sqlstate} {message}");
        let text = format!("{message} {detail} {hint}");
        let neutral = if endpoint.dbname.is_empty() { text } else { text.replace(&endpoint.dbname, "TARGET") };
        texts.insert(neutral.replace("claimed", "TARGET"));
    }
    ensure!(texts.len() == 1, "{texts:?}");
    Ok(())
}

fn expiry(world: &World) -> Result<()> {
    const TTL_S: i64 = 3;
    let token = world.issuer.token_for("ada@example.com", &["engineering"], TTL_S);
    let mut wire = Wire::connect(&world.gateway().endpoint(&token, false))?;
    wire.send(&query("SELECT 'slept' FROM pg_sleep(5)"))?;
    let mut seen = Vec::new();
    while let Some(message) = wire.read_or_end()? {
        let ready = message.tag == b'Z';
        seen.push(message);
        if ready {
            // The statement ran to its end; the next one must not start, if the session still stands.
            let _ = wire.send(&query("SELECT 'must not run'"));
        }
    }
    ensure!(seen.iter().any(|message| message.tag == b'D'), "the running statement was cut off");
    let refusal = complaint(&seen).context("closed without a word")?;
    ensure!(refusal.sqlstate == "57P01", "{refusal:?}");
    let ran = world.target.log()?.iter().any(|line| line.statement().is_some_and(|text| text.contains("must not run")));
    ensure!(!ran, "a statement started after the token expired");
    // What was sent ahead of its turn does not start either.
    let token = world.issuer.token_for("ada@example.com", &["engineering"], TTL_S);
    let mut ahead = Wire::connect(&world.gateway().endpoint(&token, false))?;
    ahead.send(&[query("SELECT pg_sleep(600)"), query("SELECT 'sent ahead'")].concat())?;
    let said: Vec<_> = std::iter::from_fn(|| ahead.read_or_end().ok().flatten()).collect();
    let refusal = complaint(&said).context("closed without a word")?;
    ensure!(refusal.sqlstate == "57P01", "{refusal:?}");
    let ran = world.target.log()?.iter().any(|line| line.statement().is_some_and(|text| text.contains("sent ahead")));
    ensure!(!ran, "a statement that was sent ahead started after the token expired");
    // An idle session ends too, by itself or at its next statement.
    let token = world.issuer.token_for("ada@example.com", &["engineering"], TTL_S);
    let mut idle = Wire::connect(&world.gateway().endpoint(&token, false))?;
    thread::sleep(Duration::from_secs(TTL_S as u64 + 1)); // what is tested is the passing of time
    let _ = idle.send(&query("SELECT 1"));
    let last = idle.read()?.complaint();
    ensure!(last.sqlstate == "57P01", "{last:?}");
    Ok(())
}

fn reasons_recorded(world: &World) -> Result<()> {
    let token = world.issuer.signed(&header(), &claims("late@example.com", &["engineering"], -60));
    Wire::refusal(&world.gateway().endpoint(&token, false).with_dbname("orders"))?;
    let records = audit::search(world.gateway(), &[])?;
    let told = records.iter().any(|record| {
        let text = record.to_string().to_lowercase();
        text.contains("28p01") && text.contains("expired")
    });
    ensure!(told, "no record of a login refused because its token had expired");
    Ok(())
}

fn password_nowhere(world: &World) -> Result<()> {
    let gateway = world.gateway();
    let told = format!("{}{:?}", gateway.log(), audit::search(gateway, &[])?);
    ensure!(!told.contains(PASSWORD), "the target's password is in the log or the audit");
    for (file, bytes) in audit::contents(&gateway.home().join("data"))? {
        ensure!(!audit::holds(&bytes, PASSWORD), "the target's password is in {}", file.display());
    }
    Ok(())
}

fn discovery(settings: &Settings, report: &mut Report, world: &World) -> Result<()> {
    let mut real = RealIssuer::start()?;
    let setup = Setup {
        grants: GRANTS.into(),
        more: format!(
            "[[issuer]]\nname = \"corp\"\nissuer = \"{}\"\naudience = \"{AUDIENCE}\"\nalgorithms = [\"RS256\"]\n",
            real.url
        ),
        ..Setup::default()
    };
    let gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &setup)?;
    let claims = json!({"sub": "u1", "email": "ada@example.com", "groups": ["engineering"], "aud": AUDIENCE});
    report.case("keys are found by OIDC discovery at a real issuer", || {
        let mut wire = Wire::connect(&gateway.endpoint(&real.token(&claims.to_string())?, false))?;
        ensure!(wire.value("SELECT 1")? == "1");
        Ok(())
    });
    report.case("a key the issuer made later is fetched", || {
        let token = real.token(&format!("rotate {claims}"))?;
        crate::harness::process::eventually("the new key is known", Duration::from_secs(15), || {
            Wire::connect(&gateway.endpoint(&token, false)).is_ok()
        })
    });
    report.case("a token for another audience is refused, from a discovered issuer too", || {
        let mut other = claims.clone();
        other["aud"] = json!("somebody-else");
        let refusal = Wire::refusal(&gateway.endpoint(&real.token(&other.to_string())?, false))?;
        ensure!(refusal.sqlstate == "28P01", "{refusal:?}");
        Ok(())
    });
    report.case("with the issuer down, known keys go on", || {
        let token = real.token(&claims.to_string())?;
        real.stop()?;
        Wire::connect(&gateway.endpoint(&token, false)).map(drop)
    });
    Ok(())
}

/// The npm issuer, running.
struct RealIssuer {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    url: String,
}

impl RealIssuer {
    fn start() -> Result<RealIssuer> {
        let mut child = node("issuer.cjs").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("no output")?);
        let mut issuer = RealIssuer { child, stdin, stdout, url: String::new() };
        issuer.url = issuer.answer("url")?;
        Ok(issuer)
    }

    fn token(&mut self, wish: &str) -> Result<String> {
        writeln!(self.stdin.as_mut().context("it was stopped")?, "{wish}")?;
        self.answer("token")
    }

    fn stop(&mut self) -> Result<()> {
        self.stdin = None;
        crate::harness::process::wait(&mut self.child, Duration::from_secs(10)).map(drop)
    }

    fn answer(&mut self, what: &str) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        match line.trim().split_once(' ') {
            Some((word, value)) if word == what => Ok(value.to_string()),
            _ => bail!("the issuer said {line:?}"),
        }
    }
}

impl Drop for RealIssuer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
