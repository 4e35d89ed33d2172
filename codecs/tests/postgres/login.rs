//! The client's credential and our own login at the target.

use crate::rig::*;
use crate::wire::*;
use lockgate_codecs::Side;
use lockgate_codecs::postgres::{AuthMethod, ProtocolError};

fn ann() -> Turn {
    c(&[startup(0, &[("user", "ann"), ("database", "orders")])])
}

/// The turns up to where the target has our start-up message.
fn admitted() -> Vec<Turn> {
    vec![ann(), c(&[password("token")])]
}

fn with_target(manner: &Manner, turns: &[Turn]) -> Came {
    check(manner, &[&admitted()[..], turns].concat())
}

fn sasl(message: &[u8]) -> Vec<u8> {
    crate::wire::message(b'p', message)
}

fn initial(data: &[u8]) -> Vec<u8> {
    sasl(&[b"OAUTHBEARER\0", &(data.len() as i32).to_be_bytes()[..], data].concat())
}

fn oauth() -> Turn {
    c(&[startup(0, &[("user", "ann"), ("_pq_.lockgate_auth", "oauthbearer")])])
}

#[test]
fn the_password_is_shown_once_and_goes_nowhere() {
    let came = check(&Manner::default(), &admitted());
    assert!(came.client_log.ends_with("credential token\n"));
    assert_eq!(came.to_client, authentication(3, b""));
    assert_eq!(came.to_target, startup(0, &[("user", "svc"), ("database", "shop")]));
}

#[test]
fn a_refused_credential_ends_the_connection() {
    let came = check(&Manner { admit: false, ..Manner::default() }, &admitted());
    assert!(came.client_said().ends_with("E(FATAL 28P01 who are you)"));
    assert!(came.closed && came.to_target.is_empty());
}

#[test]
fn a_credential_must_be_a_password_message() {
    let after = |bytes: Vec<u8>| check(&Manner::default(), &[ann(), Turn::Client(bytes)]).error;
    assert_eq!(after(query("select 1")), Some(ProtocolError::ExpectedCredential { kind: b'Q' }));
    assert_eq!(after(message(b'p', b"no nul")), Some(ProtocolError::CredentialMalformed));
    assert_eq!(after(message(b'p', b"two\0nuls\0")), Some(ProtocolError::CredentialMalformed));
    let huge = after([b"p".as_slice(), &70_000u32.to_be_bytes()].concat());
    assert_eq!(huge, Some(ProtocolError::TooLarge { side: Side::Client, kind: b'p', length: 70_001 }));
}

#[test]
fn a_bearer_token_is_found_in_its_envelope() {
    for data in [
        &b"n,,\x01auth=Bearer abc.def-_~+/==\x01\x01"[..],
        b"y,,\x01host=h\x01auth=bearer   abc.def-_~+/==\x01port=1\x01\x01",
    ] {
        let came = check(&Manner::default(), &[oauth(), c(&[initial(data)])]);
        assert!(came.client_log.ends_with("credential abc.def-_~+/==\n"), "{}", came.client_log);
    }
}

#[test]
fn a_bearer_envelope_that_is_not_well_formed_is_refused() {
    let malformed = Some(ProtocolError::CredentialMalformed);
    for data in [
        &b""[..],
        b"n,,",
        b"p=tls-unique,,\x01auth=Bearer a\x01\x01",
        b"n,a=ann,\x01auth=Bearer a\x01\x01",
        b"n,,\x01auth=Bearer a\x01",
        b"n,,\x01auth=Bearer a\x01\x01x",
        b"n,,\x01host=h\x01\x01",
        b"n,,\x01auth=Basic a\x01\x01",
        b"n,,\x01auth=Bearer a b\x01\x01",
        b"n,,\x01auth=Bearer =\x01\x01",
        b"n,,\x01auth=Bearer a\x01auth=Bearer b\x01\x01",
    ] {
        assert_eq!(check(&Manner::default(), &[oauth(), c(&[initial(data)])]).error, malformed, "{data:?}");
    }
    let other = sasl(b"SCRAM-SHA-256\0\0\0\0\0");
    assert_eq!(check(&Manner::default(), &[oauth(), c(&[other])]).error, Some(ProtocolError::UnknownMechanism));
    let lying = sasl(b"OAUTHBEARER\0\0\0\0\x09n,,");
    assert_eq!(check(&Manner::default(), &[oauth(), c(&[lying])]).error, malformed);
}

#[test]
fn a_missing_initial_response_gets_an_empty_challenge() {
    let nothing = sasl(b"OAUTHBEARER\0\xff\xff\xff\xff");
    let came = check(&Manner::default(), &[oauth(), c(&[nothing]), c(&[sasl(b"n,,\x01auth=Bearer abc\x01\x01")])]);
    assert!(came.client_log.ends_with("credential abc\n"));
    assert!(came.to_client.ends_with(&authentication(11, b"")));
}

#[test]
fn a_token_that_is_not_accepted_gets_the_error_challenge_then_the_end() {
    let refuses = Manner { admit: false, ..Manner::default() };
    let challenge = authentication(11, br#"{"status":"invalid_token"}"#);
    for data in [&b"n,,\x01auth=Bearer abc\x01\x01"[..], b"n,,\x01auth=\x01\x01"] {
        let asked = [oauth(), c(&[initial(data)])];
        let came = check(&refuses, &asked);
        assert!(came.client_log.contains("credential") && came.to_client.ends_with(&challenge) && !came.closed);
        let came = check(&refuses, &[&asked[..], &[c(&[sasl(b"\x01")])]].concat());
        assert!(came.client_said().ends_with("R R E(FATAL 28P01 who are you)"), "{}", came.client_said());
        assert!(came.closed && came.to_target.is_empty());
        for other in [&b""[..], b"\x01\x01", b"n,,\x01auth=Bearer abc\x01\x01"] {
            let came = check(&refuses, &[&asked[..], &[c(&[sasl(other)])]].concat());
            assert_eq!(came.error, Some(ProtocolError::CredentialMalformed), "{other:?}");
        }
    }
}

#[test]
fn a_client_that_waits_for_a_persons_word_reads_notices_and_one_admission() {
    let waits = Manner { hold_admission: true, ..Manner::default() };
    let came = check(&waits, &admitted());
    assert_eq!(came.client_said(), "R R N(NOTICE 42501 ask somebody)");
    let target = [authentication(0, b""), key(5, &[9; 4]), ready(b'I')];
    let came = with_target(&waits, &[t(&target)]);
    assert_eq!(came.client_said(), "R R N(NOTICE 42501 ask somebody) K ZI");
    assert!(came.idle);
}

#[test]
fn a_trusting_target_opens_the_session() {
    let target = [authentication(0, b""), setting("server_version", "15"), notice("hi"), key(5, &[9; 4]), ready(b'I')];
    let came = with_target(&Manner::default(), &[t(&target)]);
    assert_eq!(came.target_log, "setting server_version=15\nopened\nready Idle\n");
    let mut expected = target.clone();
    expected[3] = key(77, &[1, 2, 3, 4]);
    assert_eq!(came.to_client, [authentication(3, b""), expected.concat()].concat());
    assert!(came.idle);
}

#[test]
fn nothing_passes_before_the_target_admits_us() {
    let came = with_target(&Manner::default(), &[t(&[notice("secret banner"), message(b'v', &[0; 8])])]);
    assert_eq!((came.to_client, came.error), (authentication(3, b""), None));
    for early in [row(&[Some("x")]), ready(b'I'), setting("a", "b"), key(1, &[0; 4])] {
        let kind = early[0];
        let came = with_target(&Manner::default(), &[t(&[early])]);
        assert_eq!(came.error, Some(ProtocolError::UnexpectedMessage { side: Side::Target, kind }));
    }
}

#[test]
fn the_targets_refusal_is_not_shown_to_the_client() {
    for before in [vec![], vec![authentication(0, b"")]] {
        let refused = error("28P01", "password authentication failed for user \"svc\"");
        let came = with_target(&Manner::default(), &[t(&[before, vec![refused]].concat())]);
        assert!(came.target_log.ends_with("target refused 28P01\n"));
        assert!(came.client_said().ends_with("E(FATAL 42501 the target refused)"));
        assert!(!String::from_utf8_lossy(&came.to_client).contains("svc"));
        assert!(came.closed);
    }
}

#[test]
fn an_md5_password_is_hashed_as_the_manual_says() {
    let came = with_target(&Manner::default(), &[t(&[authentication(5, &[1, 2, 3, 4])]), t(&[authentication(0, b"")])]);
    assert_eq!(came.error, None);
    // echo -n md5; (printf %s "$(printf secretsvc | md5sum | cut -c-32)"; printf '\1\2\3\4') | md5sum
    assert!(came.to_target.ends_with(&password("md518681c010dc8cfdc87c519c86b5e4024")));
}

#[test]
fn a_cleartext_password_goes_over_tls_only() {
    let ask = t(&[authentication(3, b"")]);
    let plain = with_target(&Manner::default(), std::slice::from_ref(&ask));
    assert_eq!(plain.error, Some(ProtocolError::CleartextWithoutTls));
    let manner = Manner { tls: true, ..Manner::default() };
    let came = with_target(&manner, &[Turn::Target(vec![b'S']), Turn::TargetSecured(None), ask.clone()]);
    assert!(came.to_target.ends_with(&password("secret")));
    let came = with_target(&manner, &[Turn::Target(vec![b'N']), Turn::TargetPlain, ask]);
    assert_eq!(came.error, Some(ProtocolError::CleartextWithoutTls));
}

#[test]
fn bytes_behind_the_targets_tls_reply_are_an_attack() {
    let manner = Manner { tls: true, ..Manner::default() };
    // Byte by byte the caller would have begun the handshake: only what came together can be told apart.
    let mut rig = Rig::new(manner);
    for turn in admitted().iter().chain(&[t(&[vec![b'S'], authentication(0, b"")])]) {
        rig.take(turn, &mut |len| len);
    }
    assert_eq!(rig.came.error, Some(ProtocolError::BytesBehindSecure { side: Side::Target }));
    let came = with_target(&Manner { tls: true, ..Manner::default() }, &[Turn::Target(vec![b'E'])]);
    assert_eq!(came.error, Some(ProtocolError::SecureReply { byte: b'E' }));
}

#[test]
fn weaker_methods_than_configured_are_refused() {
    let scram = Manner { weakest: AuthMethod::ScramSha256, ..Manner::default() };
    for weak in [authentication(0, b""), authentication(3, b""), authentication(5, &[0; 4])] {
        assert_eq!(with_target(&scram, &[t(&[weak])]).error, Some(ProtocolError::WeakAuthentication));
    }
    let md5 = Manner { weakest: AuthMethod::Md5, ..Manner::default() };
    assert_eq!(with_target(&md5, &[t(&[authentication(3, b"")])]).error, Some(ProtocolError::WeakAuthentication));
    assert_eq!(with_target(&md5, &[t(&[authentication(5, &[0; 4])])]).error, None);
    for method in [2, 7, 9, 13] {
        let came = with_target(&Manner::default(), &[t(&[authentication(method, b"")])]);
        assert_eq!(came.error, Some(ProtocolError::UnsupportedAuthentication { method }));
    }
}

#[test]
fn scram_without_a_proof_is_not_an_admission() {
    let offer = authentication(10, b"SCRAM-SHA-256\0\0");
    // The nonce of the rig is eighteen bytes of 3.
    let first = authentication(11, b"r=AwMDAwMDAwMDAwMDAwMDAwMDAwMDmore,s=c2FsdA==,i=4096");
    let manner = Manner { weakest: AuthMethod::ScramSha256, ..Manner::default() };
    let came = with_target(
        &manner,
        &[t(std::slice::from_ref(&offer)), t(std::slice::from_ref(&first)), t(&[authentication(0, b"")])],
    );
    assert_eq!(came.error, Some(ProtocolError::ScramServerProof));
    assert!(came.target_log.contains("derive 4 4096"));
    let forged = authentication(12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let came = with_target(&manner, &[t(std::slice::from_ref(&offer)), t(&[first]), t(&[forged])]);
    assert_eq!(came.error, Some(ProtocolError::ScramServerProof));
    let came = with_target(&manner, &[t(&[offer]), t(&[authentication(0, b"")])]);
    assert_eq!(came.error, Some(ProtocolError::ScramServerProof), "admitted before the exchange");
    let unasked = with_target(&manner, &[t(&[authentication(12, b"v=AAAA")])]);
    assert_eq!(unasked.error, Some(ProtocolError::ScramMalformed));
}

#[test]
fn scram_binds_the_channel_where_both_can() {
    let manner = Manner { tls: true, ..Manner::default() };
    let offer = |names: &[u8]| t(&[authentication(10, names)]);
    let first = |binding: Option<Vec<u8>>, names: &[u8]| {
        let turns = [Turn::Target(vec![b'S']), Turn::TargetSecured(binding), offer(names)];
        with_target(&manner, &turns)
    };
    let both = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    let bound = first(Some(vec![1, 2, 3]), both);
    let sent = |came: &Came| String::from_utf8_lossy(&came.to_target).into_owned();
    assert!(sent(&bound).contains("SCRAM-SHA-256-PLUS\0"));
    assert!(sent(&bound).contains("p=tls-server-end-point,,n=,r="));
    let unbound = first(None, both);
    assert!(sent(&unbound).contains("SCRAM-SHA-256\0"));
    assert!(sent(&unbound).contains("n,,n=,r="), "we could not have bound it");
    let stripped = first(Some(vec![1, 2, 3]), b"SCRAM-SHA-256\0\0");
    assert!(sent(&stripped).contains("y,,n=,r="), "says that we could have");
    let other = first(None, b"OTHER\0\0");
    assert_eq!(other.error, Some(ProtocolError::UnsupportedAuthentication { method: 10 }));
}

/// PostgreSQL 15's own words to a client with this nonce: role `svc`, password `secret`.
#[test]
fn a_real_servers_scram_exchange_is_completed() {
    let manner = Manner { weakest: AuthMethod::ScramSha256, ..Manner::default() };
    let first = b"r=AwMDAwMDAwMDAwMDAwMDAwMDiguhXQmiuEVKMNymog3nRY5N,s=8al+5PaNlIk/ZWI7TcRVFg==,i=4096";
    let last = b"v=0FeG049fhh279FS7WU+3qskma1O5WsYP7sH/wziZ2vY=";
    let turns = [
        t(&[authentication(10, b"SCRAM-SHA-256\0\0")]),
        t(&[authentication(11, first)]),
        t(&[authentication(12, last), authentication(0, b""), ready(b'I')]),
    ];
    let came = with_target(&manner, &turns);
    let proof =
        b"c=biws,r=AwMDAwMDAwMDAwMDAwMDAwMDiguhXQmiuEVKMNymog3nRY5N,p=tOe1yKfyeGqEaQt9JfmhbbKw+d7hW2p4V4uK6PKsHaE=";
    assert!(came.to_target.ends_with(&message(b'p', proof)));
    assert_eq!((came.error, came.idle), (None, true));
    assert_eq!(came.to_client, [authentication(3, b""), authentication(0, b""), ready(b'I')].concat());
}

#[test]
fn the_targets_process_id_is_kept_when_ours_is_none() {
    let manner = Manner { client_process: 0, ..Manner::default() };
    let came = with_target(&manner, &[t(&[authentication(0, b""), key(4242, &[9; 4]), ready(b'I')])]);
    assert!(came.to_client.ends_with(&[key(4242, &[1, 2, 3, 4]), ready(b'I')].concat()), "its secret never");
    let twice = with_target(&manner, &[t(&[authentication(0, b""), key(1, &[9; 4]), key(2, &[9; 4])])]);
    assert_eq!(twice.error, Some(ProtocolError::UnexpectedMessage { side: Side::Target, kind: b'K' }));
}
