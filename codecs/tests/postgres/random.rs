//! Whatever either side sends: no panic, nothing past a decision, and what was sent stays in order.

use crate::rig::*;
use crate::transcripts::recordings;
use lockgate_codecs::Side;
use proptest::prelude::*;

/// A session opened by the usual turns.
fn opened(manner: Manner) -> Rig {
    let mut rig = Rig::new(manner);
    opening().iter().for_each(|turn| rig.take(turn, &mut |len| len));
    rig
}

/// Every byte of `part` occurs in `whole` in that order.
fn is_subsequence(part: &[u8], whole: &[u8]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|byte| rest.any(|other| other == byte))
}

fn flip(bytes: &mut Vec<u8>, dice: &mut Dice) {
    if bytes.is_empty() {
        return;
    }
    let at = dice.roll(bytes.len());
    match dice.roll(4) {
        0 => bytes[at] ^= 1 << dice.roll(8),
        1 => drop(bytes.remove(at)),
        2 => bytes.insert(at, dice.roll(256) as u8),
        _ => bytes.truncate(at),
    }
}

#[test]
fn damaged_sessions_never_panic_and_forward_only_what_came() {
    for (name, pieces) in recordings() {
        for seed in 1..=150u64 {
            let mut dice = Dice::new(seed);
            let mut rig = opened(Manner { describe: false, watch_texts: seed % 2 == 0, ..Manner::default() });
            let before = rig.came.to_target.len();
            let mut sent = Vec::new();
            for (side, bytes) in &pieces {
                let mut bytes = bytes.clone();
                if dice.roll(3) == 0 {
                    flip(&mut bytes, &mut dice);
                }
                let turn = match side {
                    Side::Client => {
                        sent.extend_from_slice(&bytes);
                        Turn::Client(bytes)
                    }
                    Side::Target => Turn::Target(bytes),
                };
                rig.take(&turn, &mut |len| 1 + dice.roll(len));
            }
            assert!(is_subsequence(&rig.came.to_target[before..], &sent), "{name} with seed {seed}");
        }
    }
}

fn messages(kinds: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        Just(vec![]),
        Just(vec![0]),
        Just(b"I".to_vec()),
        Just(b"Ss\0".to_vec()),
        Just(b"P\0".to_vec()),
        Just(b"\0\0\0\0\0".to_vec()),
        Just(b"\0\0\0\0\0\0\0\0".to_vec()),
        Just(b"s\0select\0\0\0".to_vec()),
        Just(b"DENY\0".to_vec()),
        Just(b"SELECT 1\0".to_vec()),
        Just(b"C22012\0\0".to_vec()),
        Just(b"\0\x01mask\0\0\0\0\0\0\0\0\0\0\x19\0\0\0\0\0\0\0\0".to_vec()),
        Just(b"\0\x01\0\0\0\x01x".to_vec()),
        Just(b"\0\0\x01\0\0".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..12),
    ];
    (proptest::sample::select(kinds), body).prop_map(|(kind, body)| crate::wire::message(kind, &body))
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        4 => messages(b"QPBDECSHXFdcf").prop_map(Turn::Client),
        5 => messages(b"123ZCDTtnIsEGHWdcNASVRK").prop_map(Turn::Target),
        1 => Just(Turn::Notice),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Turn::Client),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Turn::Target),
    ];
    proptest::collection::vec(turn, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_messages_never_panic(turns in turns(), describe in any::<bool>(), watch_texts in any::<bool>()) {
        let mut rig = opened(Manner { describe, watch_texts, ..Manner::default() });
        for turn in &turns {
            rig.take(turn, &mut |len| len);
        }
        // Every way to end it is open in every state.
        rig.take(&Turn::Fail, &mut |len| len);
    }

    #[test]
    fn random_first_bytes_never_panic(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..4),
        code in proptest::sample::select(&[80_877_103u32, 80_877_104, 80_877_102, 196_608, 196_610, 196_707, 131_072][..]),
        secure in any::<bool>(),
    ) {
        let mut rig = Rig::new(Manner { secure, ..Manner::default() });
        for body in packets {
            rig.take(&Turn::Client(crate::wire::packet(code, &body)), &mut |len| len);
            rig.take(&Turn::Client(body), &mut |len| len);
        }
    }

    #[test]
    fn random_logins_never_panic(
        replies in proptest::collection::vec((messages(b"RREKSNvZ"), proptest::sample::select(&[0u32, 3, 5, 10, 11, 12, 7][..])), 0..6),
        tls in any::<bool>(),
    ) {
        let mut rig = Rig::new(Manner { tls, ..Manner::default() });
        opening()[..2].iter().for_each(|turn| rig.take(turn, &mut |len| len));
        for (mut reply, method) in replies {
            if reply[0] == b'R' && reply.len() >= 9 {
                reply[5..9].copy_from_slice(&method.to_be_bytes());
            }
            rig.take(&Turn::Target(reply), &mut |len| len);
        }
    }
}

/// The property is only worth something if breaking it is noticed.
#[test]
fn the_subsequence_check_notices_a_byte_out_of_order() {
    assert!(is_subsequence(b"ac", b"abc"));
    assert!(!is_subsequence(b"ca", b"abc"));
    assert!(!is_subsequence(b"abcd", b"abc"));
}
