//! Where the load goes: a `postgres://` URL, taken apart.

use crate::sys::Address;
use anyhow::{Context, Result, bail, ensure};
use std::net::ToSocketAddrs;
use std::path::Path;

/// Whether the connection is encrypted, as in libpq's `sslmode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsMode {
    Disable,
    /// Encrypted, the certificate not checked.
    Require,
    /// Encrypted, certificate and name checked.
    VerifyFull,
}

#[derive(Clone, Debug)]
pub struct Target {
    pub address: Address,
    /// As given, for TLS and for people.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    pub password: Option<String>,
    pub tls: TlsMode,
    pub tls_ca: Option<String>,
}

const SHAPE: &str = "postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?sslmode=disable|require|verify-full][&sslrootcert=FILE]\
                     [&host=SOCKET_DIRECTORY]";

impl Target {
    /// Reads a URL. The password comes from it, else from `password`.
    pub fn parse(url: &str, password: Option<&str>) -> Result<Target> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.with_context(|| format!("`{}` is no target; one looks like {SHAPE}", redact(url)))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, inline) = login.split_once(':').map_or((login, None), |(user, word)| (user, Some(word)));
        let (host, port) = split_port(place)?;
        let user = if user.is_empty() { std::env::var("USER").unwrap_or("postgres".into()) } else { decode(user)? };
        let mut target = Target {
            address: Address::Unix(Path::new("").into()),
            host: decode(host)?,
            port,
            database: if database.is_empty() { user.clone() } else { decode(database)? },
            user,
            password: inline.map(decode).transpose()?.or(password.map(str::to_string)),
            tls: TlsMode::Disable,
            tls_ca: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            target.option(key, decode(value)?)?;
        }
        let checks = target.tls == TlsMode::VerifyFull;
        ensure!(checks || target.tls_ca.is_none(), "sslrootcert is for sslmode=verify-full: nothing else looks at it");
        if target.host.is_empty() {
            target.host = "localhost".into();
        }
        target.address = resolve(&target.host, target.port)?;
        Ok(target)
    }

    fn option(&mut self, key: &str, value: String) -> Result<()> {
        match (key, value.as_str()) {
            ("host", _) => self.host = value,
            ("port", _) => self.port = value.parse().with_context(|| format!("port `{value}` is no number"))?,
            ("user", _) => self.user = value,
            ("sslmode", "disable") => self.tls = TlsMode::Disable,
            ("sslmode", "require") => self.tls = TlsMode::Require,
            ("sslmode", "verify-full") => self.tls = TlsMode::VerifyFull,
            ("sslmode", other) => bail!("sslmode `{other}` is not known here: disable, require or verify-full"),
            ("sslrootcert", _) => self.tls_ca = Some(value),
            (other, _) => bail!("the target's option `{other}` is not known here; a target looks like {SHAPE}"),
        }
        Ok(())
    }

    /// For people and reports: without the password.
    pub fn shown(&self) -> String {
        let tls = match self.tls {
            TlsMode::Disable => "",
            TlsMode::Require => "?sslmode=require",
            TlsMode::VerifyFull => "?sslmode=verify-full",
        };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("postgres://{}@{host}:{}/{}{tls}", self.user, self.port, self.database)
    }
}

/// An argument without the password in it, whether it is a URL, one that was mistyped, or libpq's `key=value`.
pub fn redact(argument: &str) -> String {
    let argument = &redact_setting(argument);
    let start = match argument.find("://") {
        Some(at) => at + 3,
        // No URL, nor one that was mistyped: SQL, say.
        None if argument.contains(char::is_whitespace) => return argument.clone(),
        None => 0,
    };
    // A password may hold what ends it elsewhere: everything up to the last `@` counts.
    let (Some(first), Some(last)) = (argument[start..].find('@'), argument[start..].rfind('@')) else {
        return argument.clone();
    };
    match argument[start..start + first].find(':') {
        Some(colon) => format!("{}:***{}", &argument[..start + colon], &argument[start + last..]),
        None => argument.clone(),
    }
}

/// `password=` and what follows it, in a query or among settings.
fn redact_setting(argument: &str) -> String {
    const KEY: &str = "password=";
    let Some(at) = argument.to_ascii_lowercase().find(KEY).map(|at| at + KEY.len()) else {
        return argument.to_string();
    };
    let ends = |character: char| character == '&' || character.is_whitespace();
    let end = if argument[at..].starts_with(['\'', '"']) { None } else { argument[at..].find(ends) };
    format!("{}***{}", &argument[..at], end.map_or("", |end| &argument[at + end..]))
}

fn split_port(place: &str) -> Result<(&str, u16)> {
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    // Not shown: what stands where the port ought to may be a part of a password.
    let port = port.map_or(Ok(5432), str::parse).context(
        "the target's port is no number (in a password `/`, `?`, `@` and `:` are written %2F, %3F, %40 and %3A)",
    )?;
    Ok((host, port))
}

fn resolve(host: &str, port: u16) -> Result<Address> {
    if host.starts_with('/') {
        return Ok(Address::Unix(Path::new(host).join(format!(".s.PGSQL.{port}"))));
    }
    let found = (host, port).to_socket_addrs().with_context(|| format!("cannot resolve host `{host}`"))?;
    // IPv4 first: `localhost` gives both, and most servers here listen on 127.0.0.1 alone.
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|address| address.is_ipv6());
    Ok(Address::Inet(*found.first().with_context(|| format!("host `{host}` has no address"))?))
}

/// Undoes percent encoding.
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.context("a `%` in the target is not followed by two hexadecimal digits")?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).context("the target is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("postgres://ann:p%40ss@127.0.0.1:6432/orders?sslmode=require", Some("other"));
        let target = target.expect("it is well formed");
        assert_eq!((target.user.as_str(), target.database.as_str(), target.port), ("ann", "orders", 6432));
        assert_eq!((target.password.as_deref(), target.tls), (Some("p@ss"), TlsMode::Require));
        assert_eq!(target.shown(), "postgres://ann@127.0.0.1:6432/orders?sslmode=require");
        let socket = Target::parse("postgres://u@/db?host=/run/pg&port=5433", Some("x")).expect("it is well formed");
        assert_eq!(socket.address, Address::Unix("/run/pg/.s.PGSQL.5433".into()));
        assert_eq!(socket.password.as_deref(), Some("x"));
        let six = Target::parse("postgres://u@[::1]:7/db", None).expect("it is well formed");
        assert_eq!(six.address, Address::Inet("[::1]:7".parse().expect("it is an address")));
        assert_eq!(six.shown(), "postgres://u@[::1]:7/db");
    }

    #[test]
    fn nonsense_is_refused_and_passwords_are_never_shown() {
        for bad in [
            "mysql://x",
            "postgres://h:port/x",
            "postgres://u@h/x?sslmode=maybe",
            "postgres://u%4@h/x",
            "postgres://u@127.0.0.1/x?sslmode=require&sslrootcert=ca.pem",
        ] {
            assert!(Target::parse(bad, None).is_err(), "{bad}");
        }
        assert_eq!(redact("gw=postgres://u:secret@h:1/d?a=b"), "gw=postgres://u:***@h:1/d?a=b");
        for (given, shown) in [
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://u@h:5432/d", "postgres://u@h:5432/d"),
            ("postgres://u:S3/cr?et@h/d", "postgres://u:***@h/d"),
            ("postgres://u:S3@cret@h/d", "postgres://u:***@h/d"),
            ("postgres:/u:S3cret@h/d", "postgres:***@h/d"),
            ("u:S3cret@127.0.0.1:5432/db", "u:***@127.0.0.1:5432/db"),
            ("host=h Password=S3cret user=u", "host=h Password=*** user=u"),
            ("host=h password='S3 cret' user=u", "host=h password=***"),
            ("postgres://u@h/d?password=S3cret&x=1", "postgres://u@h/d?password=***&x=1"),
            ("SELECT 'a:b@c'", "SELECT 'a:b@c'"),
        ] {
            assert_eq!(redact(given), shown);
        }
    }
}
