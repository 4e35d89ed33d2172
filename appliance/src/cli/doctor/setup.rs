//! One configuration on this host: disk, addresses, certificates, targets, credentials, issuers.

use super::{Finding, PATIENCE, certificate, readable_by_all, target};
use crate::audit::archive::key;
use crate::audit::stage;
use crate::cli::archiver::stored_keys;
use crate::cli::given;
use crate::config::{self, Config, ConfigError, Credential, Durability, Issuer, KeySource, Target};
use crate::control::client;
use crate::files;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The configuration, if it is one, and what there is to say about it.
pub fn configuration(path: &Path) -> anyhow::Result<(Option<Config>, Vec<Finding>)> {
    let check = "configuration";
    let found = match given::load(path).and_then(|config| Ok(config.servable()?)) {
        Ok(config) => {
            let mut findings = vec![Finding::ok(check, format!("{} is valid", path.display()))];
            findings.extend(config.warnings.iter().map(|warning| {
                let mend = warning.help.clone().unwrap_or_default();
                Finding::warn(check, warning.rendered.trim_end(), mend)
            }));
            (Some(config), findings)
        }
        Err(error) => {
            let error: ConfigError = error.downcast()?;
            let variables = if error.by_given { "the variables, or " } else { "" };
            (None, vec![Finding::fail(check, error.to_string(), format!("correct {variables}{}", path.display()))])
        }
    };
    Ok(found)
}

pub fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![writable(&config.server.data_dir), disk(config), memory(config, total_memory_mib())];
    let running = client::request(&config.server.data_dir, "/status", None).ok().map(|answer| answer.body);
    let own = running.as_ref().map(own_addresses).unwrap_or_default();
    let kept = ("[web]", config.web.address);
    findings.extend(config.addresses().chain([kept]).map(|(name, address)| free(name, address, &own)));
    findings.extend(config.listeners.iter().filter_map(|listener| listener.tls.as_ref()).map(certificate::check));
    for target in &config.targets {
        findings.push(target::reachable(target));
        findings.push(credential(target));
    }
    findings.extend(config.issuers.iter().map(issuer));
    findings.extend(config.sinks.iter().map(sink));
    findings.extend(proof(config));
    findings.extend(running.as_ref().and_then(waits_for_start));
    findings
}

/// Where the gateway listens that runs on this data folder.
fn own_addresses(status: &serde_json::Value) -> Vec<SocketAddr> {
    let addresses = status["addresses"].as_array().into_iter().flatten();
    addresses.filter_map(|address| address.as_str()?.parse().ok()).collect()
}

/// What a gateway that runs here was told by its file and cannot do before its next start.
fn waits_for_start(status: &serde_json::Value) -> Option<Finding> {
    let waits: Vec<_> =
        status["needs_restart"].as_array()?.iter().filter_map(|change| change["key"].as_str()).collect();
    let detail = format!("it was not started with what its file says of {}", waits.join(", "));
    (!waits.is_empty()).then(|| Finding::warn("running gateway", detail, "start it again"))
}

/// Whether its receiver answers shows when it delivers: `lockgate audit sinks`.
fn sink(sink: &config::Sink) -> Finding {
    let check = format!("sink {}", sink.name);
    match crate::audit::sinks::try_out(sink) {
        Ok(()) => Finding::ok(check, format!("{}: what it needs on this host is there", sink.kind.name())),
        Err((what, mend)) => Finding::fail(check, what, mend),
    }
}

/// The key that signs checkpoints, and where they are copied to.
fn proof(config: &Config) -> Vec<Finding> {
    let audit = &config.audit;
    if !audit.archive || audit.archiver == config::Archiver::Off {
        return Vec::new();
    }
    let mut findings = vec![checkpoint_key(config)];
    if audit.checkpoint_copies.is_empty() {
        let detail = "checkpoints stay on this host: a trail rolled back as a whole would not show";
        findings.push(Finding::warn("checkpoint copies", detail, "name a place elsewhere in audit.checkpoint_copies"));
    }
    for folder in audit.checkpoint_copies.iter().filter(|copy| !copy.contains("://")) {
        findings.push(match Path::new(folder).is_dir() {
            true => Finding::ok("checkpoint copies", format!("{folder} is there")),
            false => Finding::fail("checkpoint copies", format!("{folder} is not there"), "mount or make it"),
        });
    }
    findings
}

fn checkpoint_key(config: &Config) -> Finding {
    let check = "checkpoint key";
    if let Some(name) = &config.audit.checkpoint_key_credential {
        return match stored_keys(config) {
            Ok(_) => Finding::ok(check, format!("the entry {name} of the encrypted store is a key")),
            Err(error) => {
                let mend = format!("`openssl rand -hex 32 | lockgate credentials set {name}`");
                Finding::fail(check, format!("{error:#}"), mend)
            }
        };
    }
    let file = config.audit.checkpoint_key_file.clone().unwrap_or_else(|| key::path(&config.server.data_dir));
    match key::SigningKey::read(&file) {
        Ok(_) => Finding::ok(check, format!("{} is readable, by its owner alone", file.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Finding::ok(check, format!("{} is made at the first start", file.display()))
        }
        Err(error) => Finding::fail(check, error.to_string(), "a key file of its own, chmod 600"),
    }
}

/// The folder or the nearest one above it that is there: the gateway makes the rest.
fn standing(folder: &Path) -> PathBuf {
    let mut folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    while !folder.exists() && folder.pop() {}
    folder
}

fn writable(data_dir: &Path) -> Finding {
    let check = "data folder";
    let folder = standing(data_dir);
    match files::try_folder(&folder) {
        Ok(()) => Finding::ok(check, format!("{} is writable", folder.display())),
        Err(error) => Finding::fail(
            check,
            format!("{} is not writable: {error}", folder.display()),
            "give it to the user the gateway runs as, or set server.data_dir",
        ),
    }
}

/// Segments are allocated in full at the start.
fn disk(config: &Config) -> Finding {
    let check = "disk";
    let folder = standing(&config.server.data_dir);
    let audit = &config.audit;
    let wanted_mib = config.server.shards as u64 * u64::from(audit.segments_per_shard) * u64::from(audit.segment_mib);
    let (kind, free_mib) = match file_system(&folder) {
        Some(found) => found,
        None => {
            return Finding::warn(
                check,
                "free space cannot be told (no `df` here)",
                format!("{wanted_mib} MiB are wanted for audit segments"),
            );
        }
    };
    let detail = format!("{free_mib} MiB free ({kind}), {wanted_mib} MiB wanted for audit segments");
    if free_mib < wanted_mib {
        return Finding::fail(
            check,
            detail,
            "make room, or set a smaller audit.segment_mib or audit.segments_per_shard",
        );
    }
    if matches!(kind.as_str(), "tmpfs" | "ramfs") {
        return Finding::warn(check, format!("{detail}: memory, lost at a power cut"), "put server.data_dir on a disk");
    }
    if free_mib < wanted_mib * 2 {
        return Finding::warn(check, format!("{detail}: little is left for the archive"), "make room");
    }
    if audit.durability == Durability::Group && stage::is_possible(&folder).is_ok_and(|possible| !possible) {
        return Finding::ok(
            check,
            format!("{detail}; each round's records are written there, which ext4 and XFS spare"),
        );
    }
    Finding::ok(check, detail)
}

/// Receive buffers are touched when there is work for them: what does not fit is missed under load.
fn memory(config: &Config, total_mib: Option<u64>) -> Finding {
    let (check, server) = ("memory", &config.server);
    let wanted_mib = (server.shards as u64 * u64::from(server.buffers) * u64::from(server.buffer_kib)) >> 10;
    let Some(total_mib) = total_mib else {
        return Finding::warn(
            check,
            "how much there is cannot be told",
            format!("{wanted_mib} MiB are wanted for receive buffers"),
        );
    };
    let detail = format!("{total_mib} MiB, up to {wanted_mib} MiB wanted for receive buffers");
    let mend = "fewer server.shards, server.buffers or a smaller server.buffer_kib";
    match wanted_mib {
        _ if wanted_mib >= total_mib => Finding::fail(check, detail, mend),
        _ if wanted_mib > total_mib / 2 => Finding::warn(check, detail, mend),
        _ => Finding::ok(check, detail),
    }
}

fn total_memory_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let row = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(row.trim().strip_suffix(" kB")?.parse::<u64>().ok()? >> 10)
}

/// Kind and free MiB of the file system below a folder.
fn file_system(folder: &Path) -> Option<(String, u64)> {
    let output = Command::new("df").arg("-PTk").arg("--").arg(folder).env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let columns: Vec<&str> = text.lines().nth(1)?.split_whitespace().collect();
    Some((columns.get(1)?.to_string(), columns.get(4)?.parse::<u64>().ok()? >> 10))
}

/// `own`: of the gateway that runs here.
fn free(name: &str, address: SocketAddr, own: &[SocketAddr]) -> Finding {
    let check = format!("address of {name}");
    let found = |what: &str| format!("{address}: {what}");
    match TcpListener::bind(address).map_err(|error| error.kind()) {
        Ok(_) => Finding::ok(check, found("free")),
        Err(ErrorKind::AddrInUse) if own.contains(&address) => Finding::ok(check, found("the gateway runs there")),
        Err(ErrorKind::AddrInUse) => {
            Finding::fail(check, found("in use"), format!("`ss -ltnp 'sport = :{}'` tells by whom", address.port()))
        }
        Err(ErrorKind::PermissionDenied) => Finding::fail(
            check,
            found("not permitted"),
            "a port of 1024 or above, or AmbientCapabilities=CAP_NET_BIND_SERVICE",
        ),
        Err(ErrorKind::AddrNotAvailable) => {
            Finding::fail(check, found("not an address of this host"), "`ip address` lists them")
        }
        Err(kind) => Finding::fail(check, found(&kind.to_string()), "choose another address"),
    }
}

/// Never says anything of the secret itself.
fn credential(target: &Target) -> Finding {
    let check = format!("credential of {}", target.name);
    match &target.credential {
        Credential::Env(name) => match std::env::var_os(name) {
            Some(value) if !value.is_empty() => Finding::ok(check, format!("{name} is set")),
            _ => Finding::warn(
                check,
                format!("{name} is not set here"),
                "set it for the gateway (Environment= or EnvironmentFile= in the unit)",
            ),
        },
        Credential::File(file) => match std::fs::read(file) {
            Err(error) => Finding::fail(
                check,
                format!("{}: {error}", file.display()),
                "a file with the password, readable by the gateway's user",
            ),
            Ok(text) if text.trim_ascii().is_empty() => {
                Finding::fail(check, format!("{} is empty", file.display()), "put the password in")
            }
            Ok(_) if readable_by_all(file) => {
                Finding::warn(check, format!("every user of this host can read {}", file.display()), "chmod 600")
            }
            Ok(_) => Finding::ok(check, format!("{} is readable", file.display())),
        },
        Credential::Store(name) => {
            Finding::ok(check, format!("\"{name}\" of the encrypted store, opened when the gateway starts"))
        }
    }
}

fn issuer(issuer: &Issuer) -> Finding {
    let check = format!("issuer {}", issuer.name);
    let (keys, from) = match &issuer.keys {
        KeySource::File(file) => (std::fs::read(file).map_err(|error| error.to_string()), file.display().to_string()),
        KeySource::Discovery => (discover(&issuer.issuer), issuer.issuer.clone()),
    };
    let keys =
        keys.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).map_err(|error| error.to_string()));
    let mend = match issuer.keys {
        KeySource::File(_) => "a JSON object with the public keys in `keys` (RFC 7517), readable by the gateway's user",
        KeySource::Discovery => "check `issuer` and the way from this host to it, or name its keys with `jwks_file`",
    };
    match keys.as_ref().map(|jwks| jwks["keys"].as_array().map(Vec::len)) {
        Ok(Some(0)) | Ok(None) => Finding::fail(check, format!("{from} holds no keys"), mend),
        Ok(Some(count)) => Finding::ok(check, format!("{count} keys from {from}")),
        Err(error) => Finding::fail(check, format!("{from}: {error}"), mend),
    }
}

/// The key set behind OpenID Connect discovery.
fn discover(issuer: &str) -> Result<Vec<u8>, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime
        .block_on(async {
            let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
            let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
            let found: serde_json::Value = client.get(url).send().await?.error_for_status()?.json().await?;
            let keys = found["jwks_uri"].as_str().unwrap_or_default();
            let bytes = client.get(keys).send().await?.error_for_status()?.bytes().await?;
            Ok(bytes.to_vec())
        })
        .map_err(|error: reqwest::Error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_address_in_use_is_found() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let finding = free("[web]", address, &[]);
        assert_eq!(finding.state, State::Fail);
        assert!(finding.detail.ends_with("in use"), "{}", finding.detail);
        let status = serde_json::json!({ "addresses": [address.to_string()] });
        assert_eq!(free("[web]", address, &own_addresses(&status)).state, State::Ok, "its own gateway has it");
        assert_eq!(free("[web]", "192.0.2.1:80".parse().unwrap(), &[]).state, State::Fail);
    }

    #[test]
    fn buffers_that_memory_cannot_hold_are_found() {
        let config = |buffers: u16| {
            let text = format!("[server]\nshards = 2\nbuffers = {buffers}\nbuffer_kib = 1024\n");
            config::parse(&text, Path::new("gw.toml")).unwrap()
        };
        for (buffers, state) in [(256, State::Ok), (512, State::Warn), (1024, State::Fail)] {
            assert_eq!(memory(&config(buffers), Some(1500)).state, state, "{buffers}");
        }
        assert!(total_memory_mib().is_some_and(|mib| mib > 0));
    }

    #[test]
    fn folders_that_are_not_there_yet_are_judged_by_what_is_above() {
        let folder = tempfile::tempdir().unwrap();
        let finding = writable(&folder.path().join("a/b"));
        assert_eq!((finding.state, std::fs::read_dir(folder.path()).unwrap().count()), (State::Ok, 0));
        assert!(file_system(folder.path()).is_some_and(|(kind, _)| !kind.is_empty()));
    }

    #[test]
    fn credentials_are_judged_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let text = format!(
            "[[target]]\nname = \"a\"\nprotocol = \"postgres\"\naddress = \"127.0.0.1:1\"\ndatabase = \"d\"\nuser = \"u\"\npassword_file = {file:?}\n"
        );
        let config = config::parse(&text, &folder.path().join("gw.toml")).unwrap();
        let judge = || credential(&config.targets[0]);
        assert_eq!(judge().state, State::Fail);
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(judge().state, State::Fail);
        std::fs::write(&file, "hunter2\n").unwrap();
        for (mode, state) in [(0o644, State::Warn), (0o600, State::Ok)] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(judge().state, state);
            assert!(!format!("{:?}", judge()).contains("hunter2"));
        }
    }

    #[test]
    fn issuers_without_keys_fail() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwks.json");
        let text = format!(
            "[[issuer]]\nname = \"a\"\nissuer = \"a\"\naudience = \"b\"\nalgorithms = [\"ES256\"]\njwks_file = {file:?}\n"
        );
        let config = config::parse(&text, &folder.path().join("gw.toml")).unwrap();
        for (content, state) in
            [("{}", State::Fail), ("{\"keys\":[]}", State::Fail), ("x", State::Fail), ("{\"keys\":[{}]}", State::Ok)]
        {
            std::fs::write(&file, content).unwrap();
            assert_eq!(issuer(&config.issuers[0]).state, state, "{content}");
        }
    }
}
