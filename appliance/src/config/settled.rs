//! What a process settles at its start. A reload cannot change it: what the file says of it by then waits for the next start, and
//! every reload tells.

use super::model::*;
use super::units::show_duration;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Every such key, with the value that the process runs with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settled(Vec<(&'static str, String)>);

/// A key that the file has changed since the start.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Change {
    pub key: &'static str,
    pub running: String,
    pub configured: String,
}

impl Settled {
    pub fn of(config: &Config) -> Self {
        // Without `..`, as below: a table that is added has to be put on one side or the other.
        let Config {
            server,
            ops,
            web,
            listeners,
            audit,
            issuers: _,
            targets: _,
            grants: _,
            rules: _,
            masks: _,
            sinks: _,
            path: _,
            hash: _,
            given: _,
            warnings: _,
        } = config;
        let mut all = Vec::new();
        server.settle(&mut all);
        ops.settle(&mut all);
        web.settle(&mut all);
        all.push(("listener", listeners.iter().map(listens).collect::<Vec<_>>().join(", ")));
        audit.settle(&mut all);
        Self(all)
    }

    /// What a process that runs with these would have to be started again for.
    pub fn changes(&self, config: &Config) -> Vec<Change> {
        let new = Self::of(config);
        let both = self.0.iter().zip(new.0).filter(|(old, new)| **old != *new);
        both.map(|((key, running), (_, configured))| Change { key, running: running.clone(), configured }).collect()
    }
}

impl Config {
    /// With what the process runs with in place of what it cannot change: half of a setting would be worse than the old one.
    pub fn settled_as(self, running: &Config) -> Self {
        // The store is opened anew at each reload, with the key that the file names by then.
        let vault_key_file = self.server.vault_key_file;
        let server = Server { vault_key_file, ..running.server.clone() };
        let (ops, web, audit) = (running.ops.clone(), running.web.clone(), running.audit.clone());
        Self { server, ops, web, audit, ..self }
    }
}

/// Names each key of a table once. One that is added and not named here does not compile.
macro_rules! settled {
    ($($Table:ident $place:literal { $($key:ident)* } reloaded { $($free:ident)* })*) => {
        $(impl $Table {
            fn settle(&self, all: &mut Vec<(&'static str, String)>) {
                let Self { $($key,)* $($free: _,)* } = self;
                $(all.push((concat!($place, ".", stringify!($key)), $key.show()));)*
            }
        })*

        /// Those of these tables that a reload takes.
        #[cfg(test)]
        const RELOADED: &[&str] = &[$($(concat!($place, ".", stringify!($free)),)*)*];
    };
}

settled! {
    Server "server" {
        shards data_dir pin balance spin_us ring_entries buffers buffer_kib login_timeout connect_timeout drain_timeout
    } reloaded { vault_key_file }
    Ops "ops" { address } reloaded {}
    Web "web" { address } reloaded {}
    Audit "audit" {
        durability commit_interval segment_mib segments_per_shard payloads payload_kib retention archive archiver
        archive_file_mib archive_file_age archive_small_file_age keep_segments checkpoint_key_file
        checkpoint_key_credential checkpoint_copies archive_url archive_credentials_file
    } reloaded {}
}

/// The certificates behind `tls` are reloaded; that there are any is not.
fn listens(listener: &Listener) -> String {
    let Listener { protocol: Protocol::Postgres, address, tls, allow_plaintext, proxy_protocol } = listener;
    let with = [
        (tls.is_some(), " with tls"),
        (*allow_plaintext, " with allow_plaintext"),
        (*proxy_protocol, " with proxy_protocol"),
    ];
    let with: String = with.iter().filter_map(|(is, what)| is.then_some(*what)).collect();
    format!("{address}{with}")
}

/// Different values are shown differently: they are compared by it.
trait Show {
    fn show(&self) -> String;
}

macro_rules! show {
    ($($Type:ty => $show:expr,)*) => {
        $(impl Show for $Type {
            fn show(&self) -> String {
                let show: fn(&$Type) -> String = $show;
                show(self)
            }
        })*
    };
}

show! {
    usize => usize::to_string,
    u32 => u32::to_string,
    u16 => u16::to_string,
    bool => bool::to_string,
    String => |text| super::given::without_secrets(text),
    SocketAddr => SocketAddr::to_string,
    Duration => |duration| show_duration(*duration),
    // Not `display`, for which all that is not UTF-8 is one.
    PathBuf => |path| path.to_str().map_or_else(|| format!("{path:?}"), str::to_owned),
    Vec<String> => |list| list.iter().map(Show::show).collect::<Vec<_>>().join(","),
    Durability => choice,
    Payloads => choice,
    Archiver => choice,
}

impl<T: Show> Show for Option<T> {
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), Show::show)
    }
}

fn choice<T: clap::ValueEnum>(value: &T) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn parse(text: &str) -> Config {
        crate::config::parse(text, Path::new("/etc/gw.toml")).unwrap()
    }

    fn changed(old: &str, new: &str) -> Vec<(&'static str, String, String)> {
        let changes = Settled::of(&parse(old)).changes(&parse(new));
        changes.into_iter().map(|change| (change.key, change.running, change.configured)).collect()
    }

    /// It has one value.
    const NEVER_CHANGES: &str = "audit.on_full";
    const RELOADED_TABLES: [&str; 6] = ["issuer", "target", "grant", "rule", "mask", "sink"];

    #[test]
    fn each_key_of_the_schema_is_reloaded_or_told_of() {
        let schema = crate::config::schema();
        let mut keys = BTreeSet::new();
        for (table, of) in schema["properties"].as_object().unwrap() {
            let definition = of["$ref"].as_str().map(|path| path.rsplit('/').next().unwrap());
            match definition {
                Some(definition) => {
                    let properties = schema["$defs"][definition]["properties"].as_object().unwrap();
                    keys.extend(properties.keys().map(|key| format!("{table}.{key}")));
                }
                None => drop(keys.insert(table.clone())),
            }
        }
        assert!(keys.len() > 30, "{keys:?}");
        let settled = Settled::of(&parse("")).0;
        let known = settled.iter().map(|(key, _)| *key).chain(RELOADED.iter().copied()).chain(RELOADED_TABLES);
        assert_eq!(keys, known.chain([NEVER_CHANGES]).map(str::to_owned).collect());
    }

    /// With `payloads = "none"` responses were recorded all the same, and nobody was told.
    #[test]
    fn what_a_reload_cannot_change_is_named_with_both_values() {
        let new = "[server]\npin = false\nlogin_timeout = \"1m\"\n[audit]\npayloads = \"none\"\nretention = \"30d\"\n";
        let found = changed("[server]\nbuffers = 512\n", new);
        let found: Vec<_> = found.iter().map(|(key, old, new)| (*key, &**old, &**new)).collect();
        assert_eq!(
            found,
            [
                ("server.pin", "true", "false"),
                ("server.buffers", "512", "1024"),
                ("server.login_timeout", "15s", "1m"),
                ("audit.payloads", "masked", "none"),
                ("audit.retention", "400d", "30d"),
            ]
        );
        assert_eq!(changed(new, new), []);
    }

    #[test]
    fn a_listener_is_settled_but_for_its_certificates() {
        let listener = |more: &str| format!("[[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:1\"\n{more}");
        let tls = |file: &str| listener(&format!("tls = {{ cert = \"{file}\", key = \"{file}\" }}\n"));
        assert_eq!(changed(&tls("a"), &tls("b")), []);
        let found = changed(&tls("a"), &listener(""));
        assert_eq!(found, [("listener", "127.0.0.1:1 with tls".into(), "127.0.0.1:1".into())]);
        assert_eq!(changed(&tls("a"), "").len(), 1);
    }

    #[test]
    fn a_reload_works_on_with_what_the_process_runs_with() {
        let (running, new) = (parse(""), parse("[server]\ndata_dir = \"/d\"\nvault_key_file = \"/k\"\nshards = 7\n"));
        let config = new.settled_as(&running);
        assert_eq!(Settled::of(&running).changes(&config), []);
        assert_eq!(config.server.vault_key_file.as_deref(), Some(Path::new("/k")));
    }
}
