//! The running control thread with shards that only remember what they were told.

use super::*;
use crate::approval::{Ruling, Ticket, TicketId};
use crate::audit::SealerTrouble;
use crate::config;
use crate::snapshot::{Snapshot, Target};
use serde_json::{Value, json};
use std::sync::mpsc;
use std::time::Duration;

pub fn target(name: &str) -> Target {
    Target {
        name: name.into(),
        address: "127.0.0.1:5432".into(),
        resolved: vec!["127.0.0.1:5432".parse().unwrap()],
        database: "shop".into(),
        user: "svc".into(),
        password: zeroize::Zeroizing::new(b"secret".to_vec()),
        tls: None,
        server_name: "127.0.0.1".into(),
        require_auth: codecs::postgres::AuthMethod::Trust,
        connection_limit: None,
    }
}

pub fn config(data_dir: &std::path::Path) -> Config {
    let loopback = "127.0.0.1:0".parse().unwrap();
    Config {
        hash: String::new(),
        given: String::new(),
        path: "lockgate.toml".into(),
        server: config::Server {
            shards: 1,
            data_dir: data_dir.to_owned(),
            pin: false,
            balance: true,
            spin_us: 0,
            vault_key_file: None,
            ring_entries: 64,
            buffers: 64,
            buffer_kib: 16,
            login_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            drain_timeout: None,
        },
        ops: config::Ops { address: loopback },
        web: config::Web { address: loopback },
        listeners: vec![],
        issuers: vec![],
        targets: vec![],
        grants: vec![],
        rules: vec![],
        masks: vec![],
        audit: config::Audit {
            durability: config::Durability::Group,
            commit_interval: Duration::from_millis(5),
            segment_mib: 1,
            segments_per_shard: 2,
            payloads: config::Payloads::None,
            payload_kib: 0,
            retention: Duration::from_secs(1),
            archive: false,
            archiver: config::Archiver::Off,
            archive_file_mib: 1,
            archive_file_age: Duration::from_secs(1),
            archive_small_file_age: Duration::from_secs(1),
            keep_segments: true,
            checkpoint_key_file: None,
            checkpoint_key_credential: None,
            checkpoint_copies: vec![],
            archive_url: None,
            archive_credentials_file: None,
        },
        sinks: vec![],
        warnings: vec![],
    }
}

const ISSUER: &str = "https://issuer.example";

/// One issuer whose keys are in a file of the folder, as soon as somebody writes it.
fn with_issuer(data_dir: &std::path::Path) -> Config {
    let issuer = crate::identity::issuer_for_tests(ISSUER, "lockgate");
    let keys = config::KeySource::File(data_dir.join("jwks.json"));
    Config { issuers: vec![config::Issuer { keys, ..issuer }], ..config(data_dir) }
}

type Edit = fn(&mut Config);

/// A control thread, one shard's mailbox and its voice.
pub struct Running {
    dir: tempfile::TempDir,
    handle: Option<ControlHandle>,
    to_control: UnboundedSender<ToControl>,
    shard: mpsc::Receiver<ToShard>,
    sealer: SealerTrouble,
    /// What the next reload reads: a configuration, changed in this way.
    reload: Arc<std::sync::Mutex<Result<Edit, String>>>,
}

/// Long enough for a loaded machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

impl Running {
    pub fn new(targets: Vec<Target>) -> Self {
        Self::started(targets, |_| {})
    }

    fn started(targets: Vec<Target>, edit: Edit) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), targets, edit)
    }

    fn in_folder(dir: tempfile::TempDir, targets: Vec<Target>, edit: Edit) -> Self {
        let (to_control, inbox) = unbounded_channel();
        let (post, shard) = mpsc::channel();
        let reload: Arc<std::sync::Mutex<Result<Edit, String>>> = Arc::new(std::sync::Mutex::new(Ok(|_| {})));
        let sealer = SealerTrouble::default();
        let snapshot = Snapshot { targets: targets.into_iter().map(Arc::new).collect(), ..Snapshot::empty() };
        let (next, mut used) = (reload.clone(), with_issuer(dir.path()));
        edit(&mut used);
        let options = ControlOptions {
            claim: Claim::take(dir.path()).unwrap(),
            config: used.clone(),
            snapshot: Arc::new(snapshot),
            keys: KeyKeeper::new(&used.issuers),
            load: Some(Box::new(move || {
                let mut config = used.clone();
                next.lock().unwrap().clone()?(&mut config);
                Ok(config)
            })),
            certificates: Certificates::default(),
            shards: vec![Box::new(move |message| drop(post.send(message)))],
            counters: vec![Arc::default()],
            sockets: vec![Arc::default()],
            inbox,
            archive: None,
            signals: None,
            sinks: Arc::new(Sinks::start(dir.path(), "0000000000000000", &[]).unwrap()),
            sealer: sealer.clone(),
        };
        let doors = Doors::open(options.config.ops.address, &options.claim).unwrap();
        let handle = Some(start(options, doors).unwrap());
        Self { dir, handle, to_control, shard, sealer, reload }
    }

    pub fn tell(&self, message: ToControl) {
        self.to_control.send(message).unwrap();
    }

    pub fn told(&self) -> ToShard {
        self.shard.recv_timeout(PATIENCE).expect("the shard is told something")
    }

    /// What the trail is told.
    fn recorded(&self) -> String {
        match self.told() {
            ToShard::Record(detail) => detail,
            _ => panic!("a record was due"),
        }
    }

    fn ruling(&self) -> (u64, String, Ruling) {
        match self.told() {
            ToShard::Ruling { relay, ticket, ruling } => (relay, ticket.0, ruling),
            _ => panic!("a ruling was due"),
        }
    }

    fn get(&self, path: &str) -> client::Answer {
        client::request(self.dir.path(), path, None).unwrap()
    }

    fn post(&self, path: &str, body: Value) -> client::Answer {
        client::request(self.dir.path(), path, Some(&body)).unwrap()
    }

    /// Messages and requests travel different ways: asks until the answer is as it should be.
    fn get_until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let body = self.get(path).body;
            if wanted(&body) {
                return body;
            }
            assert!(std::time::Instant::now() < deadline, "{path} stays {body}");
            std::thread::yield_now();
        }
    }

    pub fn ops(&self, path: &str) -> (String, String) {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.handle.as_ref().unwrap().ops_address()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    fn end(&mut self, fault: Option<String>) -> Result<(), String> {
        self.tell(ToControl::Ended { shard: 0, fault });
        self.handle.take().unwrap().wait()
    }
}

fn ticket(id: &str, approvers: &[&str]) -> Box<Ticket> {
    let now = time::now_us();
    Box::new(Ticket {
        id: TicketId(id.into()),
        shard: 0,
        relay: 42,
        session: "s-1".into(),
        digest: [1; 32],
        user: "alice@example.com".into(),
        groups: vec!["engineering".into()],
        actor: vec!["agent@2".into()],
        target: "orders".into(),
        statement: "DELETE FROM orders WHERE id = $1".into(),
        binds: vec![Some("7".into())],
        rule: "deletes".into(),
        approvers: approvers.iter().map(|approver| approver.to_string()).collect(),
        count: 1,
        own: false,
        asked_at_us: now,
        expires_at_us: now + 600_000_000,
    })
}

#[test]
fn a_held_statement_is_listed_and_a_local_ruling_reaches_its_relay() {
    let running = Running::new(vec![]);
    running.tell(ToControl::Ask(ticket("0-1-a", &["local"])));
    let listed = running.get_until("/approvals", |body| body["approvals"].as_array().unwrap().len() == 1);
    let case = &listed["approvals"][0];
    assert_eq!(
        (&case["id"], &case["state"], &case["user"]),
        (&json!("0-1-a"), &json!("pending"), &json!("alice@example.com"))
    );
    assert_eq!((&case["binds"], &case["actor"]), (&json!(["7"]), &json!(["agent@2"])));

    let answer = running.post("/approvals/0-1-a/approve", json!({ "reason": "looks right" }));
    assert_eq!((answer.status, &answer.body["state"]), (200, &json!("approved")));
    let (relay, id, ruling) = running.ruling();
    assert_eq!((relay, id.as_str()), (42, "0-1-a"));
    let Ruling::Approved { by, reason } = ruling else { panic!("approved") };
    assert_eq!((by[0].starts_with("local:"), reason.as_str()), (true, "looks right"));

    assert_eq!(running.post("/approvals/0-1-a/reject", json!({})).status, 409);
    assert_eq!(running.get("/approvals").body["approvals"], json!([]));
    assert_eq!(running.get("/approvals?all=true").body["approvals"][0]["state"], "approved");
}

/// 24 MB of statements were 300 MB a request, made while nobody else could have the core.
#[test]
fn a_list_has_the_beginning_of_a_statement_and_one_ticket_all_of_it() {
    let running = Running::new(vec![]);
    let statement = format!("DELETE FROM orders WHERE id IN ({}0)", "1, ".repeat(100_000));
    let binds = vec![Some("x".repeat(100_000)); 50];
    running.tell(ToControl::Ask(Box::new(Ticket {
        statement: statement.clone(),
        binds,
        ..*ticket("0-1-a", &["dba"])
    })));
    let listed = running.get_until("/approvals", |body| body["approvals"].as_array().unwrap().len() == 1);
    let listed = &listed["approvals"][0];
    assert!(listed.to_string().len() < 2_000, "{listed}");
    let beginning = listed["statement"].as_str().unwrap();
    assert!(
        beginning.starts_with(&statement[..200]) && beginning.ends_with("(cut, 300034 bytes in all)"),
        "{beginning}"
    );
    let whole = running.get("/approvals/0-1-a").body;
    assert_eq!((&whole["statement"], whole["binds"].as_array().unwrap().len()), (&json!(statement), 50));
    assert_eq!(
        (&listed["statement_bytes"], &whole["statement_bytes"]),
        (&json!(statement.len()), &json!(statement.len()))
    );
}

#[test]
fn a_ruling_needs_the_right_person() {
    let running = Running::new(vec![]);
    running.tell(ToControl::Ask(ticket("0-1-a", &["dba"])));
    running.get_until("/approvals", |body| body["approvals"].as_array().unwrap().len() == 1);
    for (path, body, status) in [
        ("/approvals/0-1-a/approve", json!({}), 403),
        ("/approvals/0-1-a/approve", json!({ "token": "not.a.token" }), 401),
        ("/approvals/0-1-a/approve", json!({ "reason": "x".repeat(5_000) }), 400),
        ("/approvals/0-1-a/approve", json!({ "surprise": 1 }), 422),
        ("/approvals/0-9-z/approve", json!({}), 404),
    ] {
        let answer = running.post(path, body);
        assert_eq!(answer.status, status, "{:?}", answer.body);
    }
    let answer = running.post("/approvals/0-1-a/approve", json!({ "token": "" }));
    assert_eq!((answer.status, &answer.body["error"]), (401, &json!("the token was not accepted: no token was given")));
    assert_eq!(running.get("/approvals/0-1-a").body["state"], "pending");
    assert_eq!(running.get("/approvals/0-9-z").status, 404);
    let recorded = running.recorded();
    assert!(recorded.starts_with("ticket 0-1-a: local:") && recorded.contains(" may not approve it: "), "{recorded}");
    assert!(running.shard.try_recv().is_err(), "nothing else was posted");
}

#[test]
fn reviewers_are_believed_by_their_tokens_from_the_moment_their_issuers_key_is_known() {
    use crate::identity::development::{NewKey, SigningKey};
    let running = Running::new(vec![]);
    running.tell(ToControl::Ask(Box::new(Ticket { count: 2, ..*ticket("0-1-a", &["dba"]) })));
    running.get_until("/approvals", |body| body["approvals"].as_array().unwrap().len() == 1);
    let key = SigningKey::generate(NewKey::Es256).unwrap();
    let now = time::now_us() / 1_000_000;
    let token = |user: &str, groups: &[&str], ttl_s: i64| {
        let claims = json!({ "iss": ISSUER, "aud": "lockgate", "sub": user, "groups": groups, "exp": now + ttl_s });
        key.token(&claims).unwrap()
    };
    let approve = |token: String| {
        let answer = running.post("/approvals/0-1-a/approve", json!({ "token": token, "reason": "checked" }));
        (answer.status, answer.body["state"].as_str().unwrap_or_default().to_owned())
    };
    let state = |name: &str| (200, name.to_owned());
    let refused = |status: u16| (status, String::new());
    assert_eq!(approve(token("bob", &["dba"], 600)), refused(401), "nobody knows the key yet");

    let written = running.dir.path().join("jwks.new");
    std::fs::write(&written, key.jwks().to_string()).unwrap();
    std::fs::rename(written, running.dir.path().join("jwks.json")).unwrap();
    let ToShard::Snapshot(snapshot) = running.told() else { panic!("new keys make a new snapshot") };
    assert_eq!((snapshot.version, snapshot.rules), (1, 0), "the rules are the old ones");
    assert_eq!(snapshot.verifier.verify(token("bob", &[], 600).as_bytes(), now).unwrap().principal.user, "bob");

    assert_eq!(approve(token("bob", &["dba"], -600)), refused(401), "expired");
    assert_eq!(approve(token("eve", &["engineering"], 600)), refused(403), "another group");
    assert_eq!(approve(token("alice@example.com", &["dba"], 600)), refused(403), "the requester");
    let agent = json!({ "iss": ISSUER, "aud": "lockgate", "sub": "bob", "groups": ["dba"], "exp": now + 600, "act": { "sub": "bot" } });
    assert_eq!(approve(key.token(&agent).unwrap()), refused(403), "an agent of bob's");
    assert_eq!(approve(token("bob", &["dba"], 600)), state("pending"));
    assert_eq!(approve(token("bob", &["dba"], 900)), refused(409), "one person, two tokens");
    assert_eq!(approve(token("carol", &["dba"], 600)), state("approved"));
    for expected in [
        "eve may not approve it: eve is not among the approvers: dba",
        "alice@example.com may not approve it: the requester may not rule on their own statement",
        "bob via bot may not approve it: bob via bot speaks through an agent: a person rules with a token of their own",
        "approved by bob, 1 of 2: checked",
        "bob may not approve it: bob has approved this ticket already; another person has to",
    ] {
        assert_eq!(running.recorded(), format!("ticket 0-1-a: {expected}"));
    }
    let by = vec!["bob".to_string(), "carol".to_string()];
    assert_eq!(running.ruling().2, Ruling::Approved { by, reason: "checked; checked".into() });
}

#[test]
fn a_ticket_expires_by_itself() {
    let running = Running::new(vec![]);
    let mut brief = ticket("0-1-a", &["local"]);
    brief.expires_at_us = time::now_us() + 50_000;
    running.tell(ToControl::Ask(brief));
    assert_eq!(running.ruling(), (42, "0-1-a".into(), Ruling::Expired));
}

#[test]
fn a_requester_who_leaves_ends_the_ticket_and_a_taken_id_is_refused() {
    let running = Running::new(vec![]);
    running.tell(ToControl::Ask(ticket("0-1-a", &["local"])));
    running.tell(ToControl::Ask(ticket("0-1-a", &["local"])));
    assert!(matches!(running.ruling().2, Ruling::Rejected { by, .. } if by == "lockgate"));
    running.tell(ToControl::Abandon(TicketId("0-1-a".into())));
    assert_eq!(running.ruling().2, Ruling::Abandoned);
}

#[test]
fn a_cancel_request_for_what_is_held_ends_it_before_it_is_answered() {
    let running = Running::new(vec![]);
    running.tell(ToControl::Ask(ticket("0-1-a", &["local"])));
    running.tell(ToControl::CancelHeld { ticket: TicketId("0-1-a".into()), waiter: Some((0, 9)) });
    assert_eq!(running.ruling().2, Ruling::Abandoned);
    assert!(matches!(running.told(), ToShard::Cancelled { relay: 9 }));
}

#[test]
fn a_restart_turns_what_waited_into_expired() {
    let mut running = Running::new(vec![]);
    running.tell(ToControl::Ask(ticket("0-1-a", &["local"])));
    running.get_until("/approvals", |body| body["approvals"].as_array().unwrap().len() == 1);
    // As after kill -9: the file as it stands now is what the next gateway finds.
    let found = std::fs::read(running.dir.path().join("tickets.ndjson")).unwrap();
    running.end(None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tickets.ndjson"), found).unwrap();
    let next = Running::in_folder(dir, vec![], |_| {});
    assert_eq!(next.get("/approvals/0-1-a").body["state"], "expired");
    assert_eq!(next.post("/approvals/0-1-a/approve", json!({})).status, 409);
}

#[test]
fn sessions_are_listed_without_their_keys_and_killed_by_id() {
    let running = Running::new(vec![]);
    let info = sessions::tests::info("s-1", 7, *b"aaaa");
    let key = info.key;
    running.tell(ToControl::SessionOpened(Box::new(info)));
    let listed = running.get_until("/sessions", |body| !body["sessions"].as_array().unwrap().is_empty());
    assert_eq!(listed["sessions"][0]["user"], "alice");
    assert!(!listed.to_string().contains("key") && !listed.to_string().contains("secret"));
    assert_eq!(running.post("/sessions/nobody/kill", json!({})).status, 404);
    assert_eq!(running.post("/sessions/s-1/kill", json!({})).status, 200);
    assert!(matches!(running.told(), ToShard::Kill { relay: 5, session } if session == "s-1"));
    running.tell(ToControl::SessionClosed(key));
    running.get_until("/sessions", |body| body["sessions"] == json!([]));
}

#[test]
fn keys_are_derived_and_refused_beyond_the_bound() {
    let running = Running::new(vec![]);
    let target = Arc::new(target("orders"));
    let ask =
        |iterations| ToControl::Derive { shard: 0, relay: 9, target: target.clone(), salt: vec![1; 16], iterations };
    running.tell(ask(u32::MAX));
    assert!(matches!(running.told(), ToShard::Keys { relay: 9, keys: Err(_) }));
    let expected = codecs::postgres::Session::<()>::derive(b"secret", &[1; 16], 4096);
    for _ in 0..2 {
        running.tell(ask(4096));
        let ToShard::Keys { relay: 9, keys: Ok(keys) } = running.told() else { panic!("keys") };
        assert_eq!((keys.client_key, keys.server_key), (expected.client_key, expected.server_key));
    }
}

#[test]
fn a_wrong_configuration_changes_nothing_and_says_so() {
    let running = Running::new(vec![]);
    *running.reload.lock().unwrap() = Err("line 3: no such key".into());
    let answer = running.post("/reload", json!({}));
    assert_eq!((answer.status, &answer.body["error"]), (422, &json!("line 3: no such key")));
    assert_eq!(running.get("/status").body["last_reload"]["error"], "line 3: no such key");
    assert!(matches!(running.told(), ToShard::Record(detail) if detail == "reload refused: line 3: no such key"));
    assert!(running.shard.try_recv().is_err(), "the old snapshot stays");

    *running.reload.lock().unwrap() = Ok(|_| {});
    assert_eq!(running.post("/reload", json!({})).body, json!({ "snapshot": 1, "needs_restart": [] }));
    assert!(matches!(running.told(), ToShard::Record(detail) if detail.starts_with("reloaded: configuration ")));
    assert!(matches!(running.told(), ToShard::Snapshot(snapshot) if snapshot.version == 1));
    let status = running.get("/status").body;
    assert_eq!((&status["snapshot"], &status["last_reload"]["error"]), (&json!(1), &Value::Null));
}

/// Responses were recorded on while the trail said "reloaded", and the second reload was silent.
#[test]
fn each_reload_tells_what_waits_for_a_restart() {
    let running = Running::new(vec![]);
    let reload = |edit: Edit| {
        *running.reload.lock().unwrap() = Ok(edit);
        running.post("/reload", json!({})).body["needs_restart"].clone()
    };
    let recorded = || {
        let ToShard::Record(detail) = running.told() else { panic!("a record") };
        assert!(matches!(running.told(), ToShard::Snapshot(_)));
        detail
    };
    let waits = json!([
        { "key": "server.spin_us", "running": "0", "configured": "7" },
        { "key": "audit.payloads", "running": "none", "configured": "masked" },
    ]);
    for _ in 0..2 {
        let told = reload(|config| {
            config.server.spin_us = 7;
            config.audit.payloads = config::Payloads::Masked;
        });
        assert_eq!(told, waits);
        assert!(recorded().ends_with("; needs a restart: server.spin_us, audit.payloads"));
        assert_eq!(running.get("/status").body["needs_restart"], waits);
        assert!(running.ops("/metrics").1.contains("\nlockgate_restart_needed 1"));
    }
    // One that is refused changes nothing, this included.
    *running.reload.lock().unwrap() = Err("line 3: no such key".into());
    assert_eq!(running.post("/reload", json!({})).status, 422);
    assert!(matches!(running.told(), ToShard::Record(_)));
    assert_eq!(running.get("/status").body["needs_restart"], waits);

    assert_eq!(reload(|_| {}), json!([]));
    assert!(!recorded().contains("restart"));
    assert!(running.ops("/metrics").1.contains("\nlockgate_restart_needed 0"));
}

#[test]
fn ops_tell_alive_ready_and_numbers() {
    let running = Running::new(vec![]);
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(running.ops(path), ("HTTP/1.1 200 OK".into(), "ok\n".into()), "{path}");
    }
    let (status, text) = running.ops("/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(text.contains("lockgate_build_info{version=") && text.ends_with("# EOF\n"));
    assert!(text.contains("\nlockgate_audit_sealer_up 1"));
    running.sealer.set(Some("no room on disk".into()));
    assert_eq!(running.ops("/readyz"), ("HTTP/1.1 503 Service Unavailable".into(), "no room on disk\n".into()));
    assert!(running.ops("/metrics").1.contains("\nlockgate_audit_sealer_up 0"));
    running.sealer.set(None);
    running.handle.as_ref().unwrap().drain(false);
    assert!(matches!(running.told(), ToShard::Drain { now: false }));
    assert_eq!(running.ops("/readyz"), ("HTTP/1.1 503 Service Unavailable".into(), "draining\n".into()));
    assert_eq!(running.ops("/livez").0, "HTTP/1.1 200 OK");
}

#[test]
fn draining_goes_from_idle_to_now_and_ends_with_the_last_shard() {
    let mut running = Running::new(vec![]);
    let handle = running.handle.as_ref().unwrap();
    handle.drain(false);
    handle.drain(false);
    handle.drain(true);
    assert!(matches!(running.told(), ToShard::Drain { now: false }));
    assert!(matches!(running.told(), ToShard::Drain { now: true }));
    assert_eq!(running.end(None), Ok(()));
    assert!(!socket::socket_path(running.dir.path()).exists());
}

#[test]
fn a_drain_whose_time_is_over_ends_what_is_left() {
    let mut running = Running::started(vec![], |config| config.server.drain_timeout = Some(Duration::from_millis(50)));
    running.handle.as_ref().unwrap().drain(false);
    assert!(matches!(running.told(), ToShard::Drain { now: false }));
    assert!(matches!(running.told(), ToShard::Drain { now: true }));
    assert_eq!(running.end(None), Ok(()));
}

#[test]
fn a_shards_fault_ends_the_gateway_with_its_reason() {
    let mut running = Running::new(vec![]);
    assert_eq!(running.end(Some("the journal failed".into())), Err("shard 0: the journal failed".into()));
}
