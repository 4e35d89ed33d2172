//! Listeners, issuers and targets: who connects to us, whom we believe, what we open.

use super::*;
use crate::config::units::parse_host_port;
use codecs::postgres::AuthMethod;

/// The chain of RFC 8693, the client a token was issued to, and the version of the agent that presents it.
const ACTOR_CLAIMS_DEFAULT: [&str; 3] = ["act", "azp", "agent_version"];

impl Check<'_> {
    pub(super) fn listener(&mut self, raw: &At<raw::Listener>) -> Listener {
        let address = self.socket(&raw.address);
        let tls = raw.tls.as_ref().map(|tls| ListenerTls {
            cert: self.path(&tls.cert),
            key: self.path(&tls.key),
            client_ca: tls.client_ca.as_ref().map(|file| self.path(file)),
        });
        let allow_plaintext = raw.allow_plaintext.as_ref().is_some_and(|allow| **allow);
        if !address.ip().is_loopback() && tls.is_none() && !allow_plaintext {
            self.warn(
                raw.address.span(),
                "nobody beyond this host can log in here: tokens are not accepted unencrypted",
                "add `tls = { cert = ..., key = ... }`",
            );
        }
        if let Some(at) = raw.allow_plaintext.as_ref().filter(|allow| ***allow && !address.ip().is_loopback()) {
            self.warn(at.span(), "tokens will cross the network readable for everyone on the way", "prefer `tls`");
        }
        if let (Some(true), Some(ca)) =
            (raw.allow_plaintext.as_deref(), raw.tls.as_ref().and_then(|tls| tls.client_ca.as_ref()))
        {
            self.error(
                ca.span(),
                "`client_ca` and `allow_plaintext` exclude each other: a certificate is shown over TLS only",
                "take one of them out",
            );
        }
        let proxy_protocol = raw.proxy_protocol.unwrap_or(false);
        if proxy_protocol {
            self.error(
                raw.address.span(),
                "`proxy_protocol` is not available in this version: the balancer's header would be refused as garbage",
                "take the key out, and let the balancer pass connections through",
            );
        }
        Listener { protocol: protocol(raw.protocol), address, tls, allow_plaintext, proxy_protocol }
    }

    pub(super) fn issuer(&mut self, raw: &At<raw::Issuer>) -> Issuer {
        let keys = match &raw.jwks_file {
            Some(file) => KeySource::File(self.path(file)),
            None => {
                self.discoverable(&raw.issuer);
                KeySource::Discovery
            }
        };
        let actor_claims = self.texts("actor_claims", &raw.actor_claims);
        let leeway_max = Duration::from_secs(LEEWAY_S_MAX);
        Issuer {
            name: self.text("name", &raw.name),
            issuer: self.text("issuer", &raw.issuer),
            audience: self.text("audience", &raw.audience),
            algorithms: self.algorithms(&raw.algorithms),
            keys,
            user_claim: raw.user_claim.as_ref().map(|claim| self.text("user_claim", claim)),
            groups_claim: raw.groups_claim.as_ref().map_or("groups".into(), |claim| self.text("groups_claim", claim)),
            actor_claims: if actor_claims.is_empty() {
                ACTOR_CLAIMS_DEFAULT.map(str::to_string).to_vec()
            } else {
                actor_claims
            },
            leeway: self.duration("leeway", raw.leeway.as_ref(), Duration::ZERO, (Duration::ZERO, leeway_max)),
        }
    }

    fn algorithms(&mut self, list: &At<Vec<At<raw::AlgorithmName>>>) -> Vec<Algorithm> {
        if list.is_empty() {
            self.error(
                list.span(),
                "`algorithms` is empty: no token could be checked",
                "for example [\"RS256\", \"ES256\"]",
            );
        }
        let mut algorithms = Vec::new();
        for algorithm in list.iter().filter_map(|name| name.meaning()) {
            if !algorithms.contains(&algorithm) {
                algorithms.push(algorithm);
            }
        }
        algorithms
    }

    /// Keys that come over an unprotected network are anybody's keys.
    fn discoverable(&mut self, issuer: &At<String>) {
        let authority = |rest: &str| rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned();
        let loopback = |authority: &str| {
            let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
            host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        };
        let right = "or name the issuer's public keys with `jwks_file`";
        if let Some(rest) = issuer.strip_prefix("https://") {
            if authority(rest).is_empty() {
                self.error(issuer.span(), "this URL has no host", right);
            }
        } else if let Some(rest) = issuer.strip_prefix("http://") {
            if !loopback(&authority(rest)) {
                self.error(issuer.span(), "keys are fetched over https only (http on loopback)", right);
            }
        } else {
            self.error(
                issuer.span(),
                "without `jwks_file` the issuer must be an https URL, where discovery starts",
                right,
            );
        }
    }

    pub(super) fn target(&mut self, raw: &At<raw::Target>) -> Target {
        let (host, port) = parse_host_port(&raw.address).unwrap_or_else(|(what, right)| {
            self.error(raw.address.span(), what, right);
            ("localhost".into(), 0)
        });
        if raw.name.contains(['*', '?']) {
            self.error(
                raw.name.span(),
                "the name of a target cannot hold `*` or `?`",
                "they are globs where targets are named",
            );
        }
        let tls = match raw.tls.as_ref().map_or(raw::TargetTls::VerifyFull, |tls| **tls) {
            raw::TargetTls::Disable => TargetTls::Disable,
            raw::TargetTls::Require => TargetTls::Require,
            raw::TargetTls::VerifyFull => TargetTls::VerifyFull,
        };
        let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        self.target_tls(raw, tls, local);
        Target {
            name: self.text("name", &raw.name),
            protocol: protocol(raw.protocol),
            address: raw.address.to_string(),
            host,
            port,
            database: self.text("database", &raw.database),
            user: self.text("user", &raw.user),
            credential: self.credential(raw),
            tls,
            tls_ca: raw.tls_ca.as_ref().map(|file| self.path(file)),
            require_auth: self.require_auth(raw, local),
            connection_limit: raw.connection_limit.as_ref().map(bounded),
        }
    }

    fn require_auth(&mut self, raw: &raw::Target, local: bool) -> AuthMethod {
        let Some(given) = &raw.require_auth else { return AuthMethod::ScramSha256 };
        let method = match **given {
            raw::RequireAuth::None => AuthMethod::Trust,
            raw::RequireAuth::Password => AuthMethod::Cleartext,
            raw::RequireAuth::Md5 => AuthMethod::Md5,
            raw::RequireAuth::ScramSha256 => AuthMethod::ScramSha256,
        };
        if !local && method < AuthMethod::ScramSha256 {
            let what = "whoever stands in the target's place may ask for the password in a way that gives it away, or for none";
            self.warn(given.span(), what, "prefer \"scram-sha-256\", the default");
        }
        method
    }

    fn target_tls(&mut self, raw: &raw::Target, tls: TargetTls, local: bool) {
        if let (Some(ca), TargetTls::Disable | TargetTls::Require) = (&raw.tls_ca, tls) {
            self.error(
                ca.span(),
                "`tls_ca` has no effect: the certificate is not checked",
                "set `tls = \"verify-full\"`, or leave `tls_ca` out",
            );
        }
        let Some(at) = raw.tls.as_ref().filter(|_| !local) else { return };
        match tls {
            TargetTls::Disable => self.warn(
                at.span(),
                "the target's credential and data cross the network readable",
                "prefer \"verify-full\"",
            ),
            TargetTls::Require => self.warn(
                at.span(),
                "the target's certificate is not checked: anybody on the way can pose as it",
                "prefer \"verify-full\"",
            ),
            TargetTls::VerifyFull => {}
        }
    }

    /// Exactly one source.
    fn credential(&mut self, raw: &At<raw::Target>) -> Credential {
        let right = "exactly one of `password_env`, `password_file` and `credential`";
        let given: Vec<&At<String>> =
            [&raw.password_env, &raw.password_file, &raw.credential].into_iter().flatten().collect();
        match given.as_slice() {
            [] => self.error(
                raw.name.span(),
                format!("target \"{}\" has no credential", raw.name.escape_debug()),
                format!("add {right}"),
            ),
            [_] => {}
            [_, more, ..] => self.error(
                more.span(),
                format!("target \"{}\" has more than one credential", raw.name.escape_debug()),
                right,
            ),
        }
        match (&raw.password_env, &raw.password_file, &raw.credential) {
            (Some(name), ..) => {
                self.variable(name);
                Credential::Env(name.to_string())
            }
            (None, Some(file), _) => Credential::File(self.path(file)),
            (None, None, name) => {
                Credential::Store(name.as_ref().map_or(String::new(), |name| self.text("credential", name)))
            }
        }
    }
}

fn protocol(raw: raw::Protocol) -> Protocol {
    match raw {
        raw::Protocol::Postgres => Protocol::Postgres,
    }
}
