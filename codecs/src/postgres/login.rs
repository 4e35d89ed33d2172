//! Our own login at the target: encryption, start-up, authentication.

use super::compose;
use super::frame::{HEADER_BYTES, Header, REPLY_BYTES_MAX, Reader};
use super::results;
use super::scram::{self, Binding, Scram};
use super::session::{Session, Stream};
use super::target::{malformed, unexpected};
use super::{AuthMethod, Event, ProtocolError, ScramKeys, SmallKey, Step, TargetLogin, Watch};
use crate::{Pipes, Side};
use std::rc::Rc;
use zeroize::Zeroizing;

const SASL_PLAIN: &[u8] = b"SCRAM-SHA-256";
const SASL_BOUND: &[u8] = b"SCRAM-SHA-256-PLUS";

/// What the target's next bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LoginStage {
    /// Not connected.
    Absent,
    /// SSLRequest was sent: one byte.
    AwaitSecureReply,
    /// The caller runs the handshake, or decides whether to go on without.
    AskedSecure,
    AwaitAuthentication,
    /// Keys are being derived.
    AskedKeys,
    /// The target's ErrorResponse was reported.
    AskedRefusal,
    /// AuthenticationOk has passed: settings, key, notices, then ReadyForQuery.
    AwaitReady,
    Open,
}

/// A login under way.
#[derive(Debug)]
pub(super) struct Login {
    user: String,
    database: String,
    password: Rc<Zeroizing<Vec<u8>>>,
    weakest: AuthMethod,
    nonce: [u8; 18],
    encrypted: bool,
    binding: Option<Vec<u8>>,
    /// The strongest method the target has asked for and we have answered.
    used: AuthMethod,
    scram: Option<Scram>,
    pub client_process: i32,
    pub client_secret: SmallKey,
}

impl<T: Clone + 'static> Session<T> {
    pub(super) fn start_login(&mut self, login: TargetLogin, pipes: &mut Pipes<'_>) {
        let tls = login.tls;
        self.target_login = Some(Box::new(Login {
            user: login.user,
            database: login.database,
            password: login.password,
            weakest: login.weakest,
            nonce: login.nonce,
            encrypted: false,
            binding: None,
            used: AuthMethod::Trust,
            scram: None,
            client_process: login.client_process,
            client_secret: login.client_secret,
        }));
        if tls {
            self.login = LoginStage::AwaitSecureReply;
            pipes.to_target.compose(|out| compose::counted(out, |out| out.extend(compose::SSL_REQUEST.to_be_bytes())));
        } else {
            self.send_startup(pipes);
        }
    }

    pub(super) fn go_on_with_login(&mut self, encrypted: bool, binding: Option<Vec<u8>>, pipes: &mut Pipes<'_>) {
        if self.login != LoginStage::AskedSecure {
            return;
        }
        if let Some(login) = &mut self.target_login {
            login.encrypted = encrypted;
            login.binding = binding;
        }
        self.send_startup(pipes);
    }

    /// Protocol 3.0, our user and database, and the client's own parameters, all of them, in order.
    fn send_startup(&mut self, pipes: &mut Pipes<'_>) {
        let login = self.target_login.as_ref().expect("a login was started");
        let parameters = self.startup.as_ref().map(|startup| startup.parameters.as_slice()).unwrap_or_default();
        pipes.to_target.compose(|out| {
            compose::counted(out, |out| {
                out.extend_from_slice(&compose::PROTOCOL_3_0.to_be_bytes());
                let mut pair = |name: &[u8], value: &[u8]| {
                    compose::text(out, name);
                    compose::text(out, value);
                };
                pair(b"user", login.user.as_bytes());
                pair(b"database", login.database.as_bytes());
                parameters.iter().for_each(|(name, value)| pair(name, value));
                out.push(0);
            });
        });
        self.login = LoginStage::AwaitAuthentication;
    }

    pub(super) fn step_login(
        &mut self,
        stage: LoginStage,
        pipes: &mut Pipes<'_>,
        watch: &mut dyn Watch<T>,
    ) -> Result<Step, ProtocolError> {
        match stage {
            LoginStage::AwaitSecureReply => self.step_secure_reply(pipes),
            LoginStage::AwaitAuthentication => self.step_authentication(pipes, watch),
            LoginStage::AwaitReady | LoginStage::Open => self.step_results(pipes, watch),
            LoginStage::Absent | LoginStage::AskedSecure | LoginStage::AskedKeys | LoginStage::AskedRefusal => {
                Ok(Step::Held)
            }
        }
    }

    /// `S` or `N`, and nothing behind an `S` (CVE-2021-23222).
    fn step_secure_reply(&mut self, pipes: &mut Pipes<'_>) -> Result<Step, ProtocolError> {
        let secure = match *pipes.target.undecided() {
            [] => return Ok(Step::NeedBytes),
            [b'S'] => true,
            [b'S', ..] => return Err(ProtocolError::BytesBehindSecure { side: Side::Target }),
            [b'N', ..] => false,
            [byte, ..] => return Err(ProtocolError::SecureReply { byte }),
        };
        pipes.target.skip(1);
        self.login = LoginStage::AskedSecure;
        Ok(Step::Event(Event::TargetSecure(secure)))
    }

    /// Messages before AuthenticationOk. None passes to the client.
    fn step_authentication(&mut self, pipes: &mut Pipes<'_>, watch: &mut dyn Watch<T>) -> Result<Step, ProtocolError> {
        loop {
            if self.target_stream.left > 0 {
                let len = self.target_stream.left.min(pipes.target.undecided().len());
                pipes.target.skip(len);
                self.target_stream.left -= len;
                if self.target_stream.left > 0 {
                    return Ok(Step::NeedBytes);
                }
            }
            let Some(header) = Header::peek(pipes.target.undecided(), Side::Target)? else {
                return Ok(Step::NeedBytes);
            };
            match header.kind {
                b'R' => {}
                b'E' => return self.take_login_error(header, pipes),
                b'N' | b'v' => {
                    self.target_stream = Stream { left: header.total, drop: true, keep: false };
                    continue;
                }
                kind => return Err(unexpected(kind)),
            }
            let Some(message) = header.whole(pipes.target.undecided(), Side::Target, REPLY_BYTES_MAX)? else {
                return Ok(Step::NeedBytes);
            };
            let mut reader = Reader::new(message, HEADER_BYTES);
            let method = reader.u32().ok_or(malformed(b'R'))?;
            let data = reader.rest();
            match method {
                0 => {
                    self.check_admission(data)?;
                    if self.admitted_early {
                        pipes.target.skip(header.total);
                    } else {
                        pipes.target.clear(header.total, pipes.to_client);
                    }
                    self.login = LoginStage::AwaitReady;
                    return self.step_results(pipes, watch);
                }
                11 => {
                    let (salt, iterations) = self.scram()?.server_first(data)?;
                    pipes.target.skip(header.total);
                    self.login = LoginStage::AskedKeys;
                    return Ok(Step::Event(Event::DeriveKeys { salt, iterations }));
                }
                12 => self.scram()?.server_final(data)?,
                method => {
                    let reply = self.authenticate(method, data)?;
                    pipes.to_target.compose(|out| compose::message(out, b'p', |out| out.extend_from_slice(&reply)));
                }
            }
            pipes.target.skip(header.total);
        }
    }

    fn login_mut(&mut self) -> &mut Login {
        self.target_login.as_mut().expect("a login was started")
    }

    fn scram(&mut self) -> Result<&mut Scram, ProtocolError> {
        self.login_mut().scram.as_mut().ok_or(ProtocolError::ScramMalformed)
    }

    /// AuthenticationOk is believed only if the target asked for enough, and proved itself where it can.
    fn check_admission(&mut self, data: &[u8]) -> Result<(), ProtocolError> {
        let login = self.login_mut();
        if !data.is_empty() {
            return Err(malformed(b'R'));
        }
        match &login.scram {
            Some(scram) if !scram.proved => Err(ProtocolError::ScramServerProof),
            _ if login.used < login.weakest => Err(ProtocolError::WeakAuthentication),
            _ => Ok(()),
        }
    }

    /// The body of our answer to a request for a password or a SASL exchange. One request a connection, as servers do.
    fn authenticate(&mut self, method: u32, data: &[u8]) -> Result<Zeroizing<Vec<u8>>, ProtocolError> {
        let login = self.login_mut();
        let used = match method {
            3 => AuthMethod::Cleartext,
            5 => AuthMethod::Md5,
            10 => AuthMethod::ScramSha256,
            method => return Err(ProtocolError::UnsupportedAuthentication { method }),
        };
        if used < login.weakest {
            return Err(ProtocolError::WeakAuthentication);
        }
        if login.used != AuthMethod::Trust {
            return Err(unexpected(b'R'));
        }
        login.used = used;
        match used {
            AuthMethod::ScramSha256 => login.start_scram(data),
            AuthMethod::Md5 if data.len() == 4 => {
                let mut reply = scram::md5_password(login.user.as_bytes(), &login.password, data);
                reply.push(0);
                Ok(Zeroizing::new(reply))
            }
            AuthMethod::Cleartext if !login.encrypted => Err(ProtocolError::CleartextWithoutTls),
            AuthMethod::Cleartext if data.is_empty() => {
                let mut reply = Zeroizing::new(Vec::with_capacity(login.password.len() + 1));
                reply.extend_from_slice(&login.password);
                reply.push(0);
                Ok(reply)
            }
            AuthMethod::Md5 | AuthMethod::Cleartext | AuthMethod::Trust => Err(malformed(b'R')),
        }
    }

    pub(super) fn answer_keys(&mut self, keys: &ScramKeys, pipes: &mut Pipes<'_>) {
        assert!(self.login == LoginStage::AskedKeys, "keys answer DeriveKeys");
        let scram = self.login_mut().scram.as_mut().expect("keys were asked for in a SCRAM exchange");
        let reply = scram.client_final(keys);
        pipes.to_target.compose(|out| compose::message(out, b'p', |out| out.extend_from_slice(&reply)));
        self.login = LoginStage::AwaitAuthentication;
    }

    /// The target's ErrorResponse before the session is open. The client never reads it: it may name the target.
    pub(super) fn take_login_error(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Step, ProtocolError> {
        let Some(message) = header.whole(pipes.target.undecided(), Side::Target, REPLY_BYTES_MAX)? else {
            return Ok(Step::NeedBytes);
        };
        let sqlstate = results::sqlstate(&message[HEADER_BYTES..]);
        pipes.target.skip(header.total);
        self.login = LoginStage::AskedRefusal;
        Ok(Step::Event(Event::TargetRefused { sqlstate }))
    }
}

impl Login {
    /// SASLInitialResponse: the strongest mechanism we share.
    fn start_scram(&mut self, data: &[u8]) -> Result<Zeroizing<Vec<u8>>, ProtocolError> {
        let offered = |name: &[u8]| data.split(|&byte| byte == 0).any(|mechanism| mechanism == name);
        let binding = self.binding.as_deref().filter(|_| self.encrypted);
        let (mechanism, binding) = match binding {
            Some(binding) if offered(SASL_BOUND) => (SASL_BOUND, Binding::ServerEndPoint(binding)),
            Some(_) if offered(SASL_PLAIN) => (SASL_PLAIN, Binding::NotOffered),
            None if offered(SASL_PLAIN) => (SASL_PLAIN, Binding::None),
            _ => return Err(ProtocolError::UnsupportedAuthentication { method: 10 }),
        };
        let (scram, first) = Scram::start(binding, &self.nonce);
        self.scram = Some(scram);
        let mut reply = Zeroizing::new(Vec::new());
        compose::text(&mut reply, mechanism);
        reply.extend_from_slice(&(first.len() as u32).to_be_bytes());
        reply.extend_from_slice(&first);
        Ok(reply)
    }
}
