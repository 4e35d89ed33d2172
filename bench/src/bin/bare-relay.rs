//! A shard that only carries bytes: what a relay costs before the product does anything. Usage: bare-relay LISTEN TARGET
//! [--spin-us N]. Runs until killed.

use lockgate::shard::{self, BareRelay, ListenerOptions, NoLog, ShardOptions};
use lockgate::snapshot::{Snapshot, Target};
use std::net::ToSocketAddrs;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, target, rest @ ..] = &args[..] else {
        return Err("usage: bare-relay LISTEN TARGET [--spin-us N]".into());
    };
    let spin_us = match rest {
        [flag, value] if flag == "--spin-us" => value.parse()?,
        [] => 0,
        _ => return Err("usage: bare-relay LISTEN TARGET [--spin-us N]".into()),
    };
    let listener = ListenerOptions { address: listen.parse()?, tls: None, allow_plaintext: true };
    let options = ShardOptions { listeners: vec![listener], spin_us, ..ShardOptions::default() };
    let target = Arc::new(Target {
        name: "bench".into(),
        address: target.clone(),
        resolved: target.to_socket_addrs()?.collect(),
        database: String::new(),
        user: String::new(),
        password: zeroize::Zeroizing::new(Vec::new()),
        tls: None,
        server_name: String::new(),
        require_auth: codecs::postgres::AuthMethod::Trust,
        connection_limit: None,
    });
    let (to_control, _news) = tokio::sync::mpsc::unbounded_channel();
    let snapshot = Arc::new(Snapshot::empty());
    let log = Box::new(NoLog::default());
    let shard = shard::start(options, snapshot, log, to_control, move |_, _| BareRelay::new(target.clone()))?;
    shard.join().map_err(|_| "the shard panicked".into())
}
