//! What sinks send to: a scripted HTTP receiver, a service that speaks AWS's protocols (moto), rsyslogd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::authority::Authority;
use super::process::{client, eventually, free_port, run};

/// Python programs on a busy machine take their time to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Python with what the receivers need, as run.sh prepared it.
fn python() -> Command {
    let mut command = Command::new(std::env::var("LOCKGATE_RECEIVERS_PYTHON").unwrap_or_else(|_| "python3".into()));
    command.arg("-B");
    command
}

/// A server of this suite, ended with it. Its id is in a `.pid` file of the run, for run.sh to end if we cannot.
#[derive(Debug)]
struct Server {
    child: Child,
    pid_file: PathBuf,
}

impl Server {
    fn start(command: &mut Command, folder: &Path) -> Result<Server> {
        let log = fs::File::create(folder.join("server.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("could not start {name}"))?;
        let pid_file = folder.join("server.pid");
        fs::write(&pid_file, child.id().to_string())?;
        Ok(Server { child, pid_file })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.pid_file);
    }
}

fn lines(text: &str) -> Result<Vec<Value>> {
    let values: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    values.context("not JSON lines")
}

/// `tests/clients/sink_receiver.py`: takes what it is sent, or fails as it is told to.
#[derive(Debug)]
pub struct Scripted {
    folder: PathBuf,
    pub port: u16,
    _server: Server,
}

impl Scripted {
    /// `kind`: webhook, splunk or otlp.
    pub fn start(run_dir: &Path, kind: &str, name: &str) -> Result<Scripted> {
        let folder = run_dir.join(format!("receiver-{name}"));
        fs::create_dir_all(&folder)?;
        let server = Server::start(python().arg(client("sink_receiver.py")).arg(kind).arg(&folder), &folder)?;
        let port = folder.join("port");
        eventually("the receiver listens", START_TIMEOUT, || port.exists())?;
        let port = fs::read_to_string(&port)?.parse()?;
        Ok(Scripted { folder, port, _server: server })
    }

    pub fn behave(&self, behaviour: &Value) -> Result<()> {
        let unfinished = self.folder.join("behaviour.tmp");
        fs::write(&unfinished, behaviour.to_string())?;
        Ok(fs::rename(unfinished, self.folder.join("behaviour.json"))?)
    }

    /// Takes everything again.
    pub fn recover(&self) -> Result<()> {
        self.behave(&json!({}))
    }

    /// The events in the order of arrival.
    pub fn accepted(&self) -> Result<Vec<Value>> {
        lines(&fs::read_to_string(self.folder.join("accepted.ndjson")).unwrap_or_default())
    }

    pub fn requests(&self) -> Result<Vec<Value>> {
        lines(&fs::read_to_string(self.folder.join("requests.ndjson")).unwrap_or_default())
    }
}

/// moto: CloudWatch Logs and S3.
#[derive(Debug)]
pub struct Aws {
    pub port: u16,
    _server: Server,
}

impl Aws {
    pub fn start(run_dir: &Path) -> Result<Aws> {
        let (folder, port) = (run_dir.join("receiver-aws"), free_port()?);
        fs::create_dir_all(&folder)?;
        let server =
            Server::start(python().args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]), &folder)?;
        eventually("moto listens", START_TIMEOUT, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        let aws = Aws { port, _server: server };
        aws.call("make")?;
        Ok(aws)
    }

    /// What was sent to `cloudwatch` or `s3`.
    pub fn events(&self, service: &str) -> Result<Vec<Value>> {
        lines(&self.call(service)?)
    }

    fn call(&self, verb: &str) -> Result<String> {
        let port = self.port.to_string();
        run(python().arg(client("sink_aws.py")).args([&port, verb]), COMMAND_TIMEOUT)?.succeeded()
    }
}

/// Debian's rsyslogd over TLS, with a configuration of its own; run.sh says in LOCKGATE_RSYSLOG where it is unpacked.
#[derive(Debug)]
pub struct Rsyslog {
    folder: PathBuf,
    pub port: u16,
    _server: Server,
}

impl Rsyslog {
    pub fn start(run_dir: &Path, authority: &Authority) -> Result<Rsyslog> {
        let (folder, port) = (run_dir.join("receiver-rsyslog"), free_port()?);
        fs::create_dir_all(&folder)?;
        let pair = authority.issue("rsyslog", "DNS:localhost")?;
        let at = folder.display();
        // Its own default would cut a message at 8 KiB.
        let config = format!(
            "global(workDirectory=\"{at}\" maxMessageSize=\"1m\" defaultNetstreamDriver=\"gtls\"\n\
               defaultNetstreamDriverCAFile=\"{ca}\" defaultNetstreamDriverCertFile=\"{cert}\"\n\
               defaultNetstreamDriverKeyFile=\"{key}\")\n\
             module(load=\"imtcp\" streamDriver.name=\"gtls\" streamDriver.mode=\"1\" streamDriver.authMode=\"anon\")\n\
             template(name=\"parts\" type=\"list\") {{ property(name=\"pri\") constant(value=\" \")\n\
               property(name=\"timestamp\" dateFormat=\"rfc3339\") constant(value=\" \") property(name=\"app-name\")\n\
               constant(value=\" \") property(name=\"msgid\") constant(value=\" \") property(name=\"msg\")\n\
               constant(value=\"\\n\") }}\n\
             input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
             action(type=\"omfile\" file=\"{at}/out.log\" template=\"parts\")\n",
            ca = authority.certificate().display(),
            cert = pair.certificate.display(),
            key = pair.key.display(),
        );
        fs::write(folder.join("rsyslog.conf"), config)?;
        let root = PathBuf::from(std::env::var("LOCKGATE_RSYSLOG").context("run.sh says where rsyslogd is")?);
        let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        let mut command = Command::new(root.join("usr/sbin/rsyslogd"));
        command.env("LD_LIBRARY_PATH", &libraries).arg("-n").arg("-M").arg(libraries.join("rsyslog"));
        command.arg("-f").arg(folder.join("rsyslog.conf")).arg("-i").arg(folder.join("rsyslogd.id"));
        let server = Server::start(&mut command, &folder)?;
        eventually("rsyslogd listens", START_TIMEOUT, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Rsyslog { folder, port, _server: server })
    }

    /// Its lines: priority, time, program, message id, message.
    pub fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("out.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
