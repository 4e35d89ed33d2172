//! Showing the password: in the clear, as md5, or by SCRAM-SHA-256, computed as the gateway computes it for its targets.

use crate::conn::Fault;
use crate::target::Target;
use crate::wire;
use aws_lc_rs::rand;
use codecs::postgres::ScramKeys;
use codecs::postgres::scram::{self, Binding, Scram};
use std::fmt::Display;

const MECHANISM: &[u8] = b"SCRAM-SHA-256";

/// Derived keys, kept because deriving them costs a millisecond and churn would measure nothing else.
#[derive(Default)]
pub struct KeyCache(Option<(Vec<u8>, u32, ScramKeys)>);

impl std::fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyCache")
    }
}

impl KeyCache {
    fn keys(&mut self, password: &str, salt: Vec<u8>, iterations: u32) -> &ScramKeys {
        let known = matches!(&self.0, Some((known, count, _)) if *known == salt && *count == iterations);
        if !known {
            let keys = scram::derive(password.as_bytes(), &salt, iterations);
            self.0 = Some((salt, iterations, keys));
        }
        &self.0.as_ref().expect("it was just derived").2
    }
}

/// How one connection shows the password it has, whatever way the server asks for it.
#[derive(Debug, Default)]
pub struct Login {
    scram: Option<Scram>,
    keys: KeyCache,
}

impl Login {
    /// Forgets an earlier connection's exchange; keys stay.
    pub fn begin(&mut self) {
        self.scram = None;
    }

    /// Reads an authentication request and appends what answers it, if anything does.
    pub fn answer(&mut self, target: &Target, request: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let Some((code, data)) = request.split_first_chunk::<4>() else {
            return Err(Fault::new("protocol", "an authentication request is malformed"));
        };
        let code = u32::from_be_bytes(*code);
        if code == 0 {
            let unproved = self.scram.as_ref().is_some_and(|scram| !scram.proved);
            return if unproved {
                Err(failed("it let us in without proof that it knows the password"))
            } else {
                Ok(())
            };
        }
        let password = target.password.as_deref().ok_or_else(|| {
            Fault::new("login", "the server asks for a password or token: set PGPASSWORD, or use --password-file")
        })?;
        match code {
            3 => wire::message(out, b'p', |out| wire::text(out, password)),
            5 => {
                let answer = scram::md5_password(target.user.as_bytes(), password.as_bytes(), data);
                wire::message(out, b'p', |out| out.extend_from_slice(&[&answer[..], &[0]].concat()));
            }
            10 if data.split(|&byte| byte == 0).any(|mechanism| mechanism == MECHANISM) => {
                let first = self.start_scram()?;
                wire::message(out, b'p', |out| {
                    out.extend_from_slice(MECHANISM);
                    out.push(0);
                    out.extend_from_slice(&(first.len() as u32).to_be_bytes());
                    out.extend_from_slice(&first);
                });
            }
            11 | 12 => {
                let scram = self.scram.as_mut().ok_or_else(|| Fault::new("protocol", "SCRAM was not begun"))?;
                if code == 12 {
                    return scram.server_final(data).map_err(failed);
                }
                let (salt, iterations) = scram.server_first(data).map_err(failed)?;
                let answer = scram.client_final(self.keys.keys(password, salt, iterations));
                wire::message(out, b'p', |out| out.extend_from_slice(&answer));
            }
            other => {
                let known = "password, md5 and SCRAM-SHA-256 are known here";
                return Err(Fault::new("login", format!("the server wants authentication method {other}; {known}")));
            }
        }
        Ok(())
    }

    /// Without channel binding. Returns the client-first message.
    fn start_scram(&mut self) -> Result<Vec<u8>, Fault> {
        let mut nonce = [0; 18];
        rand::fill(&mut nonce).map_err(|_| Fault::new("login", "the system has no randomness to give"))?;
        let (scram, first) = Scram::start(Binding::None, &nonce);
        self.scram = Some(scram);
        Ok(first)
    }
}

fn failed(what: impl Display) -> Fault {
    Fault::new("login", format!("the server's side of SCRAM: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target::parse("postgres://u:p@127.0.0.1/d", None).expect("it is well formed")
    }

    fn request(code: u32, data: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], data].concat()
    }

    #[test]
    fn keys_are_derived_once_for_a_salt_and_again_for_another() {
        let mut cache = KeyCache::default();
        let first = cache.keys("secret", b"salt".to_vec(), 4096).client_key;
        assert_eq!(cache.keys("never looked at", b"salt".to_vec(), 4096).client_key, first);
        assert_ne!(cache.keys("secret", b"tlas".to_vec(), 4096).client_key, first);
        assert_ne!(cache.keys("secret", b"salt".to_vec(), 4097).client_key, first);
    }

    #[test]
    fn a_server_that_does_not_prove_itself_is_refused() {
        let begin = || {
            let (mut login, mut out) = (Login::default(), Vec::new());
            login.answer(&target(), &request(10, b"SCRAM-SHA-256\0\0"), &mut out).expect("it is offered");
            let nonce = out.split(|&byte| byte == b'=').next_back().map(<[u8]>::to_vec);
            let nonce = String::from_utf8(nonce.expect("there is one")).expect("it is text");
            (login, format!("r={nonce}xyz,s=c2FsdHNhbHQ=,i=4096"))
        };
        let (mut login, _) = begin();
        let mut out = Vec::new();
        assert!(login.answer(&target(), &request(11, begin().1.as_bytes()), &mut out).is_err(), "another's nonce");
        let (mut login, challenge) = begin();
        login.answer(&target(), &request(11, challenge.as_bytes()), &mut out).expect("it is well formed");
        assert!(String::from_utf8_lossy(&out[5..]).starts_with("c=biws,r="));
        assert!(login.answer(&target(), &request(0, b""), &mut out).is_err(), "no proof at all");
        let false_proof = request(12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        assert!(login.answer(&target(), &false_proof, &mut out).is_err());
    }

    #[test]
    fn md5_and_plain_passwords_are_messages_of_their_own() {
        let (mut login, mut out) = (Login::default(), Vec::new());
        login.answer(&target(), &request(5, &[1, 2, 3, 4]), &mut out).expect("it is well formed");
        // md5(md5(password user) salt), as another implementation computed it.
        assert_eq!(out, [&b"p\0\0\0\x28"[..], b"md5facdc455923b0a58efea84a6d9ee0e76\0"].concat());
        out.clear();
        login.answer(&target(), &request(3, b""), &mut out).expect("it is well formed");
        assert_eq!(out, b"p\0\0\0\x06p\0");
    }
}
