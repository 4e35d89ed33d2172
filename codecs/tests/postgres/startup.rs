//! Encryption requests, start-up messages, cancellation.

use crate::rig::*;
use crate::wire::*;
use lockgate_codecs::Side;
use lockgate_codecs::postgres::ProtocolError;

fn ann() -> Vec<u8> {
    startup(0, &[("user", "ann"), ("database", "orders")])
}

#[test]
fn encryption_requests_come_in_any_order_and_more_than_once() {
    for order in [vec![SSL, GSSENC], vec![GSSENC, SSL], vec![SSL, SSL], vec![GSSENC, GSSENC, SSL]] {
        let mut turns: Vec<_> = order.iter().map(|&code| c(&[packet(code, b"")])).collect();
        turns.push(c(&[ann()]));
        let came = check(&Manner::default(), &turns);
        assert_eq!(came.error, None);
        assert!(came.to_client.starts_with(&vec![b'N'; order.len()]), "one N for each");
        assert!(came.client_log.contains("login user=ann database=orders"));
    }
}

#[test]
fn encryption_requests_without_end_are_an_error() {
    let turns: Vec<_> = (0..9).map(|_| c(&[packet(GSSENC, b"")])).collect();
    assert_eq!(check(&Manner::default(), &turns).error, Some(ProtocolError::TooManyNegotiations));
}

#[test]
fn tls_is_answered_and_the_start_up_comes_encrypted() {
    let manner = Manner { secure: true, ..Manner::default() };
    let came = check(&manner, &[c(&[packet(SSL, b"")]), Turn::ClientSecured, c(&[ann()])]);
    assert_eq!(
        came.client_log,
        "secure?\nlogin user=ann database=orders application= replication=false oauth=false parameters=0\n"
    );
    assert_eq!(came.to_client, [b"S".as_slice(), &authentication(3, b"")].concat());
}

#[test]
fn plaintext_behind_an_ssl_request_is_an_attack() {
    let manner = Manner { secure: true, ..Manner::default() };
    // In one piece: no `S` is sent. In several: it was sent before they came, and they are no handshake.
    for chunk in [100, 1] {
        let mut rig = Rig::new(manner.clone());
        rig.take(&c(&[packet(SSL, b""), ann()]), &mut |_| chunk);
        assert_eq!(rig.came.error, Some(ProtocolError::BytesBehindSecure { side: Side::Client }));
        assert_eq!(rig.came.client_log, "secure?\n");
        assert_eq!(rig.came.to_client, if chunk == 1 { b"S".as_slice() } else { b"" });
    }
}

#[test]
fn a_second_ssl_request_inside_tls_is_an_error_but_gssenc_is_answered() {
    let manner = Manner { encrypted: true, ..Manner::default() };
    assert_eq!(check(&manner, &[c(&[packet(SSL, b"")])]).error, Some(ProtocolError::SecureTwice));
    assert_eq!(check(&manner, &[c(&[packet(GSSENC, b"")])]).to_client, b"N");
}

#[test]
fn a_start_up_packet_has_bounds() {
    for length in [0u32, 7, 10_001, u32::MAX, 0x4745_5420] {
        let came = check(&Manner::default(), &[Turn::Client(length.to_be_bytes().to_vec())]);
        assert_eq!(came.error, Some(ProtocolError::StartupLength { length }));
    }
    let long = "x".repeat(9_900);
    let came = check(&Manner::default(), &[c(&[startup(0, &[("user", "ann"), ("options", &long)])])]);
    assert_eq!(came.error, None);
}

#[test]
fn parameters_end_where_the_length_says() {
    for body in [&b"user\0ann\0"[..], b"user\0ann", b"user\0ann\0\0x", b"", b"user\0"] {
        let came = check(&Manner::default(), &[c(&[packet(3 << 16, body)])]);
        assert_eq!(came.error, Some(ProtocolError::StartupMalformed), "{body:?}");
    }
}

#[test]
fn other_protocols_are_refused() {
    let came = check(&Manner::default(), &[c(&[packet(2 << 16, &[0; 292])])]);
    assert_eq!(came.error, Some(ProtocolError::UnsupportedProtocol { major: 2, minor: 0 }));
}

#[test]
fn user_and_database_are_read_as_the_server_reads_them() {
    let login = |parameters: &[(&str, &str)]| check(&Manner::default(), &[c(&[startup(0, parameters)])]);
    let start = |user: &str, database: &str| format!("login user={user} database={database} ");
    assert!(login(&[("user", "ann")]).client_log.starts_with(&start("ann", "ann")));
    assert!(login(&[("user", "ann"), ("database", "")]).client_log.starts_with(&start("ann", "ann")));
    let twice = [("user", "ann"), ("database", "a"), ("user", "bob"), ("database", "b")];
    assert!(login(&twice).client_log.starts_with(&start("bob", "b")));
    for nobody in [&[("database", "orders")][..], &[("user", "")]] {
        let came = login(nobody);
        assert_eq!(came.client_said(), "E(FATAL 28000 no PostgreSQL user name specified in startup packet)");
        assert!(came.closed && came.error.is_none());
    }
}

#[test]
fn every_parameter_is_forwarded_in_order() {
    let parameters = [
        ("user", "ann"),
        ("options", "-c geqo=off -c search_path=a\\ b"),
        ("database", "orders"),
        ("application_name", "psql"),
        ("client_encoding", "UTF8"),
        ("replication", "off"),
        ("options", "--twice=1"),
        ("search_path", "evil"),
    ];
    let came = check(&Manner::default(), &[c(&[startup(0, &parameters)]), c(&[password("t")])]);
    let mut expected = vec![("user", "svc"), ("database", "shop")];
    expected.extend(parameters.iter().filter(|(name, _)| !matches!(*name, "user" | "database")));
    assert_eq!(came.to_target, startup(0, &expected));
    assert!(came.client_log.contains("application=psql replication=false oauth=false parameters=6"));
}

#[test]
fn replication_is_noticed_whatever_its_spelling() {
    for (value, asked) in [
        ("database", true),
        ("true", true),
        ("ON", true),
        ("1", true),
        ("yes", true),
        ("weird", true),
        ("off", false),
        ("f", false),
        ("0", false),
        ("no", false),
    ] {
        let came = check(&Manner::default(), &[c(&[startup(0, &[("user", "ann"), ("replication", value)])])]);
        assert!(came.client_log.contains(&format!("replication={asked} ")), "{value}");
        assert!(came.client_log.contains("parameters=1"), "{value}: it is forwarded too");
    }
}

#[test]
fn newer_versions_and_unknown_protocol_options_are_negotiated() {
    let negotiation = |minor, options: &[(&str, &str)]| {
        let parameters = [&[("user", "ann")], options].concat();
        check(&Manner::default(), &[c(&[startup(minor, &parameters)]), c(&[password("t")])])
    };
    let expected = |minor: u32, names: &[&str]| {
        let mut body = (3 << 16 | minor).to_be_bytes().to_vec();
        body.extend((names.len() as u32).to_be_bytes());
        names.iter().for_each(|name| body.extend(text(name)));
        [message(b'v', &body), authentication(3, b"")].concat()
    };
    assert_eq!(negotiation(99, &[]).to_client, expected(2, &[]));
    assert_eq!(
        negotiation(0, &[("_pq_.new", "1"), ("_pq_.other", "2")]).to_client,
        expected(0, &["_pq_.new", "_pq_.other"])
    );
    for minor in [0, 2] {
        assert_eq!(negotiation(minor, &[]).to_client, authentication(3, b""), "3.{minor} is spoken");
    }
    let came = negotiation(2, &[("_pq_.new", "1")]);
    assert_eq!(came.to_target, startup(0, &[("user", "svc"), ("database", "shop")]), "3.0 towards the target");
}

#[test]
fn oauth_is_asked_for_in_two_ways_and_the_target_sees_neither() {
    let asks =
        |name: &str, value: &str| check(&Manner::default(), &[c(&[startup(0, &[("user", "ann"), (name, value)])])]);
    let offered = authentication(10, b"OAUTHBEARER\0\0");
    let came = asks("_pq_.lockgate_auth", "oauthbearer");
    assert!(came.client_log.ends_with("oauth=true parameters=0\n"));
    assert_eq!(came.to_client, offered);
    for (options, left) in [
        ("-c lockgate.auth=oauthbearer", 0),
        ("-clockgate.auth=oauthbearer", 0),
        ("--lockgate.auth=oauthbearer -c geqo=off", 1),
    ] {
        let came = asks("options", options);
        assert!(came.client_log.ends_with(&format!("oauth=true parameters={left}\n")), "{options}");
        assert_eq!(came.to_client, offered);
    }
    assert!(asks("options", "-c lockgate.auth=password").client_log.ends_with("oauth=false parameters=1\n"));
}

#[test]
fn a_cancel_request_is_reported_and_ends_the_connection() {
    let came = check(&Manner::default(), &[c(&[packet(CANCEL, &[0, 0, 0, 7, 1, 2, 3, 4])])]);
    assert_eq!(came.client_log, "cancel 7 [1, 2, 3, 4]\n");
    assert!(came.closed && came.to_client.is_empty());
    let long = [&[0, 0, 0, 7][..], &[9; 256]].concat();
    assert!(check(&Manner::default(), &[c(&[packet(CANCEL, &long)])]).closed);
    for bad in [&[0, 0, 0, 7][..], &[&[0, 0, 0, 7][..], &[9; 257]].concat()] {
        assert_eq!(
            check(&Manner::default(), &[c(&[packet(CANCEL, bad)])]).error,
            Some(ProtocolError::StartupMalformed)
        );
    }
}
