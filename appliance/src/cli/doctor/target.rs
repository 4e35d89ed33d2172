//! A target, as a session would meet it before it logs in: address, SSLRequest, TLS handshake.

use super::{Finding, PATIENCE};
use crate::config::{Target, TargetTls};
use crate::distrust;
use crate::snapshot::tls;
use crate::timed::Timed;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Instant;

pub fn reachable(target: &Target) -> Finding {
    let check = format!("target {}", target.name);
    let config = match tls::client_config(target, &mut tls::Roots::default()) {
        Ok(config) => config,
        Err(error) => return Finding::fail(check, error.to_string(), "correct the target's `tls_ca` or `tls`"),
    };
    let addresses: Vec<SocketAddr> = match (target.host.as_str(), target.port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            return Finding::fail(
                check,
                format!("{} does not resolve: {error}", target.host),
                "check the name and this host's resolver",
            );
        }
    };
    let mut last = "it resolves to no address".to_owned();
    for address in addresses {
        match connect(address).and_then(|mut stream| Ok((offers_tls(&mut stream)?, stream))) {
            Ok((offers, stream)) => return answers(check, target, address, config, offers.then_some(stream)),
            Err(error) => last = format!("{address}: {}", said(&error)),
        }
    }
    Finding::fail(check, last, "check that the target runs, listens there, and that no firewall is between")
}

/// All that is asked of one address is answered within [`PATIENCE`].
fn connect(address: SocketAddr) -> io::Result<Timed> {
    let deadline = Instant::now() + PATIENCE;
    Ok(Timed { socket: TcpStream::connect_timeout(&address, PATIENCE)?, deadline })
}

/// `stream`: where it offers TLS.
fn answers(
    check: String,
    target: &Target,
    address: SocketAddr,
    config: Option<Arc<ClientConfig>>,
    stream: Option<Timed>,
) -> Finding {
    let (config, stream) = match (config, stream) {
        (None, Some(_)) => return Finding::ok(check, format!("{address} answers and offers TLS")),
        (None, None) => return Finding::ok(check, format!("{address} answers")),
        (Some(_), None) => {
            return Finding::fail(
                check,
                format!("{address} answers but offers no TLS"),
                "turn on `ssl` in postgresql.conf, or set `tls = \"disable\"` on a network you trust",
            );
        }
        (Some(config), Some(stream)) => (config, stream),
    };
    match handshake(stream, config, &target.host) {
        Ok(()) if target.tls == TargetTls::VerifyFull => {
            Finding::ok(check, format!("{address} answers, offers TLS, and its certificate is good"))
        }
        Ok(()) => Finding::ok(check, format!("{address} answers and offers TLS")),
        Err(error) => match distrust::of_io(&error) {
            Some((why, mend)) => Finding::fail(check, format!("{address}: {why}"), mend),
            None => Finding::fail(
                check,
                format!("{address} says that it offers TLS, and the handshake fails: {}", said(&error)),
                "check what answers there, and its TLS settings and log",
            ),
        },
    }
}

/// PostgreSQL's SSLRequest: eight bytes, one in return.
fn offers_tls(stream: &mut Timed) -> io::Result<bool> {
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    match answer[0] {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "whatever answers there is not PostgreSQL")),
    }
}

fn handshake(mut stream: Timed, config: Arc<ClientConfig>, host: &str) -> io::Result<()> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(())
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "it closes the connection".into(),
        _ => crate::audit::sinks::said(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use rustls::ServerConnection;
    use std::net::TcpListener;
    use std::path::Path;

    /// Answers one SSLRequest and does the rest with the socket.
    fn peer(answer: u8, rest: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
            stream.write_all(&[answer]).unwrap();
            rest(stream);
        });
        address
    }

    fn server(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> impl FnOnce(TcpStream) + Send + use<> {
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider().into();
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.unwrap().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
        let config = Arc::new(config.unwrap());
        move |mut socket| {
            let mut connection = ServerConnection::new(config).unwrap();
            while connection.is_handshaking() && connection.complete_io(&mut socket).is_ok() {}
            // Until the client has seen all of it.
            let _ = socket.read(&mut [0; 64]);
        }
    }

    fn judge(address: SocketAddr, tls: &str) -> Finding {
        let text = format!(
            "[[target]]\nname = \"a\"\nprotocol = \"postgres\"\naddress = \"localhost:{}\"\ndatabase = \"d\"\nuser = \"u\"\npassword_env = \"P\"\n{tls}\n",
            address.port()
        );
        reachable(&crate::config::parse(&text, Path::new("/gw.toml")).unwrap().targets[0])
    }

    #[test]
    fn a_peer_that_is_not_postgresql_is_told_apart() {
        for (answer, expected) in [(b'S', Ok(true)), (b'N', Ok(false)), (b'H', Err(ErrorKind::InvalidData))] {
            let mut stream = connect(peer(answer, drop)).unwrap();
            assert_eq!(offers_tls(&mut stream).map_err(|error| error.kind()), expected);
        }
    }

    #[test]
    fn a_certificate_that_a_session_would_not_believe_fails() {
        let folder = tempfile::tempdir().unwrap();
        let (key, ca) = (rcgen::KeyPair::generate().unwrap(), folder.path().join("ca.pem"));
        let verify = format!("tls = \"verify-full\"\ntls_ca = {ca:?}");
        let check = |name: &str, until: i32, state: State, words: &str| {
            let mut wishes = rcgen::CertificateParams::new(vec![name.into()]).unwrap();
            (wishes.not_before, wishes.not_after) =
                (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(until, 1, 1));
            let certificate = wishes.self_signed(&key).unwrap();
            std::fs::write(&ca, certificate.pem()).unwrap();
            let finding = judge(peer(b'S', server(&certificate, &key)), &verify);
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.detail.contains(words), "{finding:?}");
            let unchecked = judge(peer(b'S', server(&certificate, &key)), "tls = \"require\"");
            assert_eq!(unchecked.state, State::Ok, "{unchecked:?}");
        };
        check("localhost", 2999, State::Ok, "its certificate is good");
        check("localhost", 2021, State::Fail, "it expired at 2021-01-01T00:00:00Z");
        check("db.example.com", 2999, State::Fail, "subjectAltName: db.example.com");
    }

    #[test]
    fn a_peer_that_offers_tls_and_cannot_speak_it_fails() {
        let require = "tls = \"require\"";
        let garbage = peer(b'S', |mut stream| stream.write_all(&[b'x'; 64]).unwrap());
        for (address, words) in [(garbage, "the handshake fails"), (peer(b'S', drop), "the handshake fails")] {
            let finding = judge(address, require);
            assert!(finding.state == State::Fail && finding.detail.contains(words), "{finding:?}");
        }
        let silent = Timed { deadline: Instant::now(), ..connect(peer(b'S', std::mem::forget)).unwrap() };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let error = handshake(silent, Arc::new(config), "localhost").unwrap_err();
        assert_eq!(said(&error), "no answer in time");
    }
}
