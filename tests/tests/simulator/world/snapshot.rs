//! What the simulated gateway works from: one target, one grant, a rule of each kind, one mask. Keys are made once a run.

use lockgate::config;
use lockgate::identity::development::{NewKey, SigningKey};
use lockgate::identity::{IssuerKeys, Jwks, Verifier};
use lockgate::policy::Policy;
use lockgate::snapshot::{Snapshot, Target};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Unix seconds at which every simulation begins.
pub const NOW_S: i64 = 1_790_000_000;

const CONFIG: &str = r#"
[[listener]]
protocol = "postgres"
address = "127.0.0.1:6432"
[[issuer]]
name = "sim"
issuer = "https://sim.example"
audience = "lockgate"
algorithms = ["ES256"]
jwks_file = "jwks.json"
[[target]]
name = "vault"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "vault"
user = "svc"
password_env = "SIM_PASSWORD"
tls = "disable"
[[grant]]
targets = ["vault"]
[[rule]]
name = "no-drop"
targets = ["vault"]
classes = ["drop"]
action = "deny"
[[rule]]
name = "ask"
targets = ["vault"]
classes = ["delete"]
action = "approve"
approvers = ["leads"]
"#;

const MASK: &str = r#"
[[mask]]
targets = ["vault"]
columns = ["vault.secret"]
style = "fill"
"#;

/// The snapshot, and a token that opens its one target.
pub fn build(no_mask: bool) -> (Arc<Snapshot>, String) {
    static MADE: OnceLock<[(Arc<Snapshot>, String); 2]> = OnceLock::new();
    let [masked, open] = MADE.get_or_init(|| [make(MASK), make("")]);
    if no_mask { open.clone() } else { masked.clone() }
}

fn make(masks: &str) -> (Arc<Snapshot>, String) {
    let config =
        config::parse(&format!("{CONFIG}{masks}"), Path::new("sim.toml")).expect("the simulator's configuration");
    let key = SigningKey::generate(NewKey::Es256).expect("a key pair");
    let keys = Arc::new(Jwks::parse(key.jwks().to_string().as_bytes()).expect("our own key set"));
    let issuer = Arc::new(config.issuers[0].clone());
    let claims = serde_json::json!({
        "iss": "https://sim.example", "aud": "lockgate", "sub": "sim", "email": "sim@example.org", "exp": NOW_S + 3600,
    });
    let target = Target {
        name: "vault".into(),
        address: "127.0.0.1:5432".into(),
        resolved: vec!["127.0.0.1:5432".parse().expect("an address")],
        database: "vault".into(),
        user: "svc".into(),
        password: Vec::new().into(),
        tls: None,
        server_name: "localhost".into(),
        require_auth: codecs::postgres::AuthMethod::Trust,
        connection_limit: None,
    };
    let snapshot = Snapshot {
        version: 1,
        rules: 1,
        targets: vec![Arc::new(target)],
        policy: Policy::compile(&config),
        verifier: Verifier::new(vec![IssuerKeys { issuer, keys, wanted: Arc::default() }]),
        token_key: masking::style::TokenKey([7; 32]),
    };
    (Arc::new(snapshot), key.token(&claims).expect("a token"))
}
