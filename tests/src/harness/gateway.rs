//! The gateway under test: a configuration, a running `lockgate serve`, and its other commands.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::issuer::{AUDIENCE, ISSUER};
use super::postgres::{PASSWORD, PrivatePostgres, make_certificate};
use super::process::{Finished, built, eventually, free_port, run, signal, wait};
use super::{Endpoint, Issuer};

const START_TIMEOUT: Duration = Duration::from_secs(20);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// What a suite wants different from the plain gateway: one target `orders`, open to everyone with a valid token.
#[derive(Debug, Clone)]
pub struct Setup {
    pub durability: &'static str,
    pub shards: u32,
    /// Added to `[audit]`.
    pub audit: String,
    /// Added to `[server]`.
    pub server: String,
    /// Added at the end: rules, masks, issuers, further targets.
    pub more: String,
    /// `[[grant]]` tables.
    pub grants: String,
    /// Address of the target, where it is not the private PostgreSQL.
    pub target_address: Option<String>,
    pub database: &'static str,
    /// Name of the target: what clients give as dbname.
    pub target: &'static str,
    /// Role the gateway logs in with.
    pub role: &'static str,
    /// Whose certificates clients have to show.
    pub client_ca: Option<PathBuf>,
    /// A program and its arguments that `lockgate serve` is started by; it becomes the gateway.
    pub launcher: Vec<String>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            durability: "group",
            shards: 2,
            audit: String::new(),
            server: String::new(),
            more: String::new(),
            grants: "[[grant]]\ntargets = [\"*\"]\n".into(),
            target_address: None,
            database: "shop",
            target: "orders",
            role: "service",
            client_ca: None,
            launcher: Vec::new(),
        }
    }
}

/// A running gateway; ended when dropped.
#[derive(Debug)]
pub struct Gateway {
    home: PathBuf,
    pub port: u16,
    pub ops_port: u16,
    web_port: u16,
    launcher: Vec<String>,
    child: Option<Child>,
}

impl Gateway {
    /// Writes the configuration, starts the gateway and waits until it says it is ready.
    pub fn start(run_dir: &Path, target: &PrivatePostgres, issuer: &Issuer, setup: &Setup) -> Result<Gateway> {
        Gateway::start_after(run_dir, target, issuer, setup, |_| Ok(()))
    }

    /// The same, with something to be done once the configuration is written.
    pub fn start_after(
        run_dir: &Path,
        target: &PrivatePostgres,
        issuer: &Issuer,
        setup: &Setup,
        before: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Gateway> {
        let home = run_dir.join(format!("gateway.{}", free_port()?));
        fs::create_dir_all(&home)?;
        make_certificate(&home, "gateway")?;
        let (port, ops_port, web_port) = (free_port()?, free_port()?, free_port()?);
        let launcher = setup.launcher.clone();
        let mut gateway = Gateway { home, port, ops_port, web_port, launcher, child: None };
        gateway.configure(target, issuer, setup)?;
        before(&gateway.config())?;
        gateway.start_again()?;
        Ok(gateway)
    }

    /// Writes another configuration in place of the one it has; [`Gateway::reload`] or a restart applies it.
    pub fn configure(&self, target: &PrivatePostgres, issuer: &Issuer, setup: &Setup) -> Result<()> {
        let Setup { durability, shards, audit, server, more, grants, database, target: name, role, .. } = setup;
        let client_ca = setup.client_ca.as_ref().map(|ca| format!(", client_ca = \"{}\"", ca.display()));
        let client_ca = client_ca.unwrap_or_default();
        let home = self.home.display();
        let address = setup.target_address.clone().unwrap_or_else(|| format!("127.0.0.1:{}", target.port));
        let text = format!(
            "[server]\nshards = {shards}\ndata_dir = \"{home}/data\"\npin = false\n{server}\n\
             [ops]\naddress = \"127.0.0.1:{ops}\"\n[web]\naddress = \"127.0.0.1:{web}\"\n\
             [[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:{port}\"\n\
             tls = {{ cert = \"{home}/gateway.crt\", key = \"{home}/gateway.key\"{client_ca} }}\n\
             [[issuer]]\nname = \"test\"\nissuer = \"{ISSUER}\"\naudience = \"{AUDIENCE}\"\nalgorithms = [\"ES256\"]\n\
             jwks_file = \"{jwks}\"\n\
             [[target]]\nname = \"{name}\"\nprotocol = \"postgres\"\naddress = \"{address}\"\ndatabase = \"{database}\"\n\
             user = \"{role}\"\npassword_env = \"TARGET_PASSWORD\"\ntls = \"disable\"\n\
             [audit]\ndurability = \"{durability}\"\n{audit}\n{grants}\n{more}\n",
            ops = self.ops_port,
            web = self.web_port,
            port = self.port,
            jwks = issuer.jwks_file.display(),
        );
        fs::write(self.config(), text)?;
        Ok(())
    }

    /// Starts it on the files it has: the first time, or after [`Gateway::kill`].
    pub fn start_again(&mut self) -> Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.home.join("gateway.log"))?;
        let program = built("lockgate")?;
        let mut command = Command::new(self.launcher.first().map_or(program.as_path(), Path::new));
        command.args(self.launcher.iter().skip(1)).args(self.launcher.first().map(|_| &program));
        command.arg("serve").arg("--config").arg(self.config()).env("TARGET_PASSWORD", PASSWORD);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("could not start {}", program.display()))?;
        fs::write(self.home.join("gateway.pid"), child.id().to_string())?;
        self.child = Some(child);
        let ready = eventually("the gateway is ready", START_TIMEOUT, || self.is_ready() || self.has_ended());
        if ready.is_err() || self.has_ended() {
            bail!("the gateway did not become ready; it said:\n{}", self.log());
        }
        Ok(())
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// TERM, and its exit status.
    pub fn terminate(&mut self) -> Result<Option<i32>> {
        let Some(mut child) = self.child.take() else { bail!("it is not running") };
        signal(&child, "TERM")?;
        let ended = wait(&mut child, START_TIMEOUT);
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        ended
    }

    pub fn reload(&self) -> Result<()> {
        signal(self.child.as_ref().context("it is not running")?, "HUP")
    }

    pub fn endpoint(&self, token: &str, tls: bool) -> Endpoint {
        Endpoint {
            host: "localhost".into(),
            port: self.port,
            dbname: "orders".into(),
            user: "claimed".into(),
            password: token.into(),
            tls_ca: tls.then(|| self.home.join("gateway.crt")),
        }
    }

    /// Runs `lockgate ARGUMENTS --config FILE`.
    pub fn command(&self, arguments: &[&str]) -> Result<Finished> {
        run(Command::new(built("lockgate")?).args(arguments).arg("--config").arg(self.config()), COMMAND_TIMEOUT)
    }

    /// Runs a command with `-o json` and reads the objects it prints, one a line.
    pub fn json(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let printed = self.command(&[arguments, &["-o", "json"]].concat())?.succeeded()?;
        let objects: Result<Vec<Value>, _> = printed.lines().map(serde_json::from_str).collect();
        objects.with_context(|| format!("lockgate {} printed something else: {printed}", arguments.join(" ")))
    }

    /// Body of a page of the ops listener; an error unless it answers 200.
    pub fn ops(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ops_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("{path}: {}", head.lines().next().unwrap_or_default());
        }
        Ok(body.to_string())
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    pub fn config(&self) -> PathBuf {
        self.home.join("lockgate.toml")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("gateway.log")).unwrap_or_default()
    }

    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("it is not running")?.id())
    }

    /// Resident memory in KiB, from /proc.
    pub fn resident_kib(&self) -> Result<u64> {
        let child = self.child.as_ref().context("it is not running")?;
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    fn is_ready(&self) -> bool {
        self.ops("/readyz").is_ok()
    }

    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Nothing more can be done about an error here.
        let _ = self.kill();
        let _ = fs::remove_file(self.home.join("gateway.pid"));
        // A trail's segments have their size from the beginning.
        if std::env::var_os("LOCKGATE_KEEP").is_none() {
            let _ = fs::remove_dir_all(self.home.join("data"));
        }
    }
}
