//! The control thread against targets: a real PostgreSQL for the catalogue, scripted ones where a fault has to be made.

use super::test_postgres::{PASSWORD, Postgres};
use super::tests::{Running, config, target};
use super::*;
use crate::config::{Credential, Protocol, TargetTls};
use crate::shard::mailbox::Catalogue;
use crate::snapshot::Target;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

fn over(postgres: &Postgres, host: &str, tls: TargetTls) -> Target {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let target = crate::config::Target {
        name: "orders".into(),
        protocol: Protocol::Postgres,
        address: format!("{host}:{}", postgres.port),
        host: host.into(),
        port: postgres.port,
        database: "postgres".into(),
        user: "svc".into(),
        credential: Credential::File(password),
        tls,
        tls_ca: (tls == TargetTls::VerifyFull).then(|| postgres.ca()),
        require_auth: codecs::postgres::AuthMethod::ScramSha256,
        connection_limit: None,
    };
    let config = Config { targets: vec![target], ..config(dir.path()) };
    let built = snapshot::build(&config, 1, Default::default()).unwrap();
    let target = (*built.snapshot.targets[0]).clone();
    // `localhost` may also be ::1, where this server does not listen; the client tries them in turn.
    assert!(target.resolved.contains(&postgres.address()));
    target
}

fn read(target: &Target) -> Result<Catalogue, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(catalogue::read(target))
}

fn execute(target: &Target, sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = tokio_postgres::Config::new();
        config.user("svc").dbname("postgres").password(PASSWORD).host("127.0.0.1").port(target.resolved[0].port());
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
    });
}

fn column(catalogue: &Catalogue, schema: &str, table: &str, attribute: i16) -> Option<String> {
    let table = catalogue.tables.values().find(|found| found.schema == schema && found.name == table)?;
    table.columns.get(&attribute).cloned()
}

#[test]
fn the_catalogue_of_a_real_server_is_read_over_every_kind_of_connection() {
    let postgres = Postgres::start();
    let plain = over(&postgres, "127.0.0.1", TargetTls::Disable);
    execute(
        &plain,
        "CREATE SCHEMA billing; CREATE TABLE billing.cards (id int, gone int, \"Number\" text);
         ALTER TABLE billing.cards DROP COLUMN gone;
         CREATE VIEW numbers AS SELECT \"Number\" AS n FROM billing.cards;
         CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one;
         CREATE TABLE parts (day date) PARTITION BY RANGE (day);
         -- A search path must not redirect our own look-ups.
         CREATE SCHEMA evil; CREATE TABLE evil.pg_class (oid oid); ALTER ROLE svc SET search_path = evil, pg_catalog;",
    );
    for target in
        [plain, over(&postgres, "127.0.0.1", TargetTls::Require), over(&postgres, "localhost", TargetTls::VerifyFull)]
    {
        let catalogue = read(&target).unwrap();
        let names = |attribute| column(&catalogue, "billing", "cards", attribute);
        assert_eq!((names(1).as_deref(), names(2), names(3).as_deref()), (Some("id"), None, Some("Number")));
        assert_eq!(names(-1).as_deref(), Some("ctid"));
        assert_eq!(column(&catalogue, "public", "numbers", 1).as_deref(), Some("n"));
        assert_eq!(column(&catalogue, "public", "kept", 1).as_deref(), Some("one"));
        assert_eq!(column(&catalogue, "public", "parts", 1).as_deref(), Some("day"));
        assert_eq!(column(&catalogue, "pg_catalog", "pg_statistic", 1).as_deref(), Some("starelid"));
    }
    let other_name =
        Target { server_name: "elsewhere.example".into(), ..over(&postgres, "localhost", TargetTls::VerifyFull) };
    assert!(read(&other_name).unwrap_err().contains("certificate"), "the name is checked");
    let mut wrong = over(&postgres, "127.0.0.1", TargetTls::Disable);
    wrong.password = zeroize::Zeroizing::new(b"wrong".to_vec());
    let error = read(&wrong).unwrap_err();
    assert!(error.starts_with("28P01") && !error.contains("wrong"), "{error}");
}

#[test]
fn a_shard_gets_a_catalogue_that_is_new_enough_and_an_error_in_words() {
    let postgres = Postgres::start();
    let target = Arc::new(over(&postgres, "127.0.0.1", TargetTls::Disable));
    let running = Running::new(vec![]);
    let ask = |not_before_us| ToControl::Catalogue { shard: 0, relay: 3, target: target.clone(), not_before_us };
    let told = |running: &Running| match running.told() {
        ToShard::Catalogue { relay: 3, catalogue } => catalogue,
        _ => panic!("a catalogue was due"),
    };
    running.tell(ask(0));
    let (first_us, first) = told(&running).unwrap();
    running.tell(ask(first_us));
    assert!(Arc::ptr_eq(&told(&running).unwrap().1, &first), "not read again");
    execute(&target, "CREATE TABLE later (x int)");
    running.tell(ask(first_us + 1));
    let (second_us, second) = told(&running).unwrap();
    assert!(second_us > first_us && column(&second, "public", "later", 1).is_some());

    drop(postgres);
    running.tell(ask(second_us + 1));
    assert!(told(&running).unwrap_err().starts_with("no connection"));
}

/// A target that hands everything it is sent to the test, then closes.
fn scripted() -> (TcpListener, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target { resolved: vec![listener.local_addr().unwrap()], ..target("orders") };
    (listener, target)
}

#[test]
fn a_cancel_request_reaches_the_target_with_the_targets_key_and_no_other_does() {
    let (listener, target) = scripted();
    let running = Running::new(vec![target]);
    running.tell(ToControl::SessionOpened(Box::new(sessions::tests::info("s-1", 7, *b"aaaa"))));
    // These are ignored: wrong secret, wrong process, empty.
    for (process, secret) in [(7, &b"aaab"[..]), (8, b"aaaa"), (7, b"")] {
        running.tell(ToControl::Cancel { process, secret: secret.to_vec(), waiter: Some((0, 5)) });
        assert!(matches!(running.told(), ToShard::Cancelled { relay: 5 }));
    }
    running.tell(ToControl::Cancel { process: 7, secret: b"aaaa".to_vec(), waiter: Some((0, 6)) });
    // The shard says when the statement has gone to the target.
    let ToShard::Cancel { cancel, .. } = running.told() else { panic!("the shard is to be asked") };
    running.tell(ToControl::PassCancel(cancel));
    let (mut stream, _) = listener.accept().unwrap();
    let mut message = [0; 16];
    stream.read_exact(&mut message).unwrap();
    let key: Vec<u8> = [7i32.to_be_bytes(), [1, 2, 3, 4]].concat();
    assert_eq!(message[..], [&[0, 0, 0, 16, 4, 210, 22, 46][..], &key].concat());
    drop(stream);
    assert!(matches!(running.told(), ToShard::Cancelled { relay: 6 }));
    let text = running.ops("/metrics").1;
    assert!(
        text.contains("\nlockgate_cancels_total 1\n") && text.contains("\nlockgate_cancels_unknown_total 3\n"),
        "{text}"
    );
}

#[test]
fn a_cancel_request_is_encrypted_where_the_target_is() {
    let postgres = Postgres::start();
    let target = over(&postgres, "localhost", TargetTls::VerifyFull);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The server takes it, does not know the key, and closes.
    runtime.block_on(cancel::send(&target, 7, &[1, 2, 3, 4])).unwrap();

    let (listener, scripted) = scripted();
    let refusing = Target { tls: target.tls.clone(), ..scripted };
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(b"N").unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        (request, rest)
    });
    assert!(runtime.block_on(cancel::send(&refusing, 7, &[1, 2, 3, 4])).is_err());
    let (request, rest) = server.join().unwrap();
    assert_eq!((request, rest), ([0, 0, 0, 8, 4, 210, 22, 47], vec![]), "the key is never sent in plain text");
}

#[test]
fn a_target_that_asks_for_the_password_in_clear_text_does_not_get_it() {
    let (listener, target) = scripted();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut startup).unwrap();
        stream.write_all(b"R\0\0\0\x08\0\0\0\x03").unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest
    });
    assert!(read(&target).unwrap_err().contains("clear text"));
    let sent = server.join().unwrap();
    assert!(!sent.windows(6).any(|window| window == b"secret"), "{sent:?}");
}

#[test]
fn a_target_that_is_not_there_is_an_error_without_its_address() {
    let (listener, target) = scripted();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert!(TcpStream::connect(address).is_err());
    let error = read(&target).unwrap_err();
    assert!(error.starts_with("no connection") && !error.contains(&address.port().to_string()), "{error}");
}
