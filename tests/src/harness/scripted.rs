//! A target that misbehaves on purpose: a listener that plays one scripted part per connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::wire::message;

/// The part it plays for the next connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    ClosesAtOnce,
    SaysNothing,
    SaysGarbage,
    AsksForCleartext,
    AsksForUnknownLogin,
    AsksForEndlessScram,
    ProvesNothing,
    ForeignNonce,
    TellsSecrets,
    ReadyBeforeLogin,
    OverlongMessage,
    GarbageInSession,
    RowsThatLie,
    EndlessLengthInSession,
    ClosesInSession,
    LoginAgainInSession,
}

impl Behaviour {
    pub const IN_LOGIN: &[Behaviour] = &[
        Behaviour::ClosesAtOnce,
        Behaviour::SaysNothing,
        Behaviour::SaysGarbage,
        Behaviour::AsksForCleartext,
        Behaviour::AsksForUnknownLogin,
        Behaviour::AsksForEndlessScram,
        Behaviour::ProvesNothing,
        Behaviour::ForeignNonce,
        Behaviour::TellsSecrets,
        Behaviour::ReadyBeforeLogin,
        Behaviour::OverlongMessage,
    ];
    pub const IN_SESSION: &[Behaviour] = &[
        Behaviour::GarbageInSession,
        Behaviour::RowsThatLie,
        Behaviour::EndlessLengthInSession,
        Behaviour::ClosesInSession,
        Behaviour::LoginAgainInSession,
    ];

    pub fn description(self) -> &'static str {
        match self {
            Behaviour::ClosesAtOnce => "closes at once",
            Behaviour::SaysNothing => "takes the connection and says nothing",
            Behaviour::SaysGarbage => "answers the login with garbage",
            Behaviour::AsksForCleartext => "asks for the password in the clear",
            Behaviour::AsksForUnknownLogin => "asks for a login nobody knows",
            Behaviour::AsksForEndlessScram => "asks for 2^31 - 1 rounds of SCRAM",
            Behaviour::ProvesNothing => "cannot prove that it knows the password",
            Behaviour::ForeignNonce => "answers SCRAM with a nonce that is not ours",
            Behaviour::TellsSecrets => "refuses with secrets in its text",
            Behaviour::ReadyBeforeLogin => "is ready before any login",
            Behaviour::OverlongMessage => "answers the login with a message of 4 GiB",
            Behaviour::GarbageInSession => "answers a query with garbage",
            Behaviour::RowsThatLie => "sends rows whose counts lie",
            Behaviour::EndlessLengthInSession => "answers a query with a length below 4",
            Behaviour::ClosesInSession => "closes in the middle of a row",
            Behaviour::LoginAgainInSession => "asks for the password again in the session",
        }
    }
}

/// Listens until the run ends.
#[derive(Debug)]
pub struct ScriptedTarget {
    pub port: u16,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    behaviour: Behaviour,
    heard: Vec<u8>,
}

impl ScriptedTarget {
    pub fn start() -> Result<ScriptedTarget> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Mutex::new(Shared { behaviour: Behaviour::ClosesAtOnce, heard: Vec::new() }));
        let told = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let told = told.clone();
                thread::spawn(move || {
                    let behaviour = told.lock().expect("nobody panics with it").behaviour;
                    // The gateway may leave at any point of the play.
                    let _ = Player { stream, told }.play(behaviour);
                });
            }
        });
        Ok(ScriptedTarget { port, shared })
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.lock().expect("nobody panics with it") = Shared { behaviour, heard: Vec::new() };
    }

    /// Every byte the gateway sent since [`ScriptedTarget::behave`].
    pub fn heard(&self) -> Vec<u8> {
        self.shared.lock().expect("nobody panics with it").heard.clone()
    }
}

struct Player {
    stream: TcpStream,
    told: Arc<Mutex<Shared>>,
}

const LOGIN_OK: &[u8] = &[b'R', 0, 0, 0, 8, 0, 0, 0, 0];
const READY: &[u8] = &[b'Z', 0, 0, 0, 5, b'I'];

impl Player {
    fn play(mut self, behaviour: Behaviour) -> std::io::Result<()> {
        if behaviour == Behaviour::ClosesAtOnce {
            return Ok(());
        }
        self.stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        self.hear()?; // the start-up message
        match behaviour {
            Behaviour::ClosesAtOnce => {}
            Behaviour::SaysNothing => {}
            Behaviour::SaysGarbage => self.say(&[0xff; 300])?,
            Behaviour::AsksForCleartext => self.say(&message(b'R', &[0, 0, 0, 3]))?,
            Behaviour::AsksForUnknownLogin => self.say(&message(b'R', &[0, 0, 0, 99]))?,
            Behaviour::AsksForEndlessScram => self.scram("c2FsdA==", 2_147_483_647, true)?,
            Behaviour::ProvesNothing => self.scram("c2FsdA==", 4_096, true)?,
            Behaviour::ForeignNonce => self.scram("c2FsdA==", 4_096, false)?,
            Behaviour::TellsSecrets => self.say(&message(
                b'E',
                b"SFATAL\0VFATAL\0C28P01\0Mpassword not-a-secret for user service at this address is wrong\0\0",
            ))?,
            Behaviour::ReadyBeforeLogin => self.say(READY)?,
            Behaviour::OverlongMessage => self.say(&[b'R', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])?,
            Behaviour::GarbageInSession => self.session(&[0xfe; 300])?,
            Behaviour::RowsThatLie => {
                let shape = message(b'T', b"\0\x01n\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
                let row = message(b'D', b"\x7f\xff\0\0\0\x04abcd");
                self.session(&[&shape[..], &row, &message(b'C', b"SELECT 1\0"), READY].concat())?;
            }
            Behaviour::EndlessLengthInSession => self.session(&[b'T', 0, 0, 0, 1])?,
            Behaviour::ClosesInSession => {
                self.session(&[b'D', 0, 0, 1, 0, 0, 1])?;
                return Ok(());
            }
            Behaviour::LoginAgainInSession => self.session(&message(b'R', &[0, 0, 0, 3]))?,
        }
        // Whatever comes is only listened to, until the gateway leaves.
        while self.hear()? > 0 {}
        Ok(())
    }

    fn scram(&mut self, salt: &str, rounds: u32, our_nonce: bool) -> std::io::Result<()> {
        self.say(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"))?;
        let before = self.told.lock().expect("nobody panics with it").heard.len();
        self.hear()?;
        let heard = self.told.lock().expect("nobody panics with it").heard[before..].to_vec();
        let first = String::from_utf8_lossy(&heard).into_owned();
        let nonce = first.split("r=").nth(1).unwrap_or_default().split(',').next().unwrap_or_default().to_string();
        let nonce = if our_nonce { nonce } else { "stranger".into() };
        let challenge = format!("r={nonce}andmore,s={salt},i={rounds}");
        self.say(&message(b'R', &[&[0, 0, 0, 11][..], challenge.as_bytes()].concat()))?;
        self.hear()?;
        let proof = b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        self.say(&[message(b'R', &[&[0, 0, 0, 12][..], proof].concat()), LOGIN_OK.to_vec(), READY.to_vec()].concat())
    }

    /// Lets the gateway in without a login, and answers its first query with these bytes.
    fn session(&mut self, answer: &[u8]) -> std::io::Result<()> {
        let key = message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]);
        self.say(&[LOGIN_OK, &key, READY].concat())?;
        self.hear()?;
        self.say(answer)
    }

    fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn hear(&mut self) -> std::io::Result<usize> {
        let mut buffer = [0; 65_536];
        let count = self.stream.read(&mut buffer)?;
        self.told.lock().expect("nobody panics with it").heard.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}
