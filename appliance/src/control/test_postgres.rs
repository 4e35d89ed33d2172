//! A private PostgreSQL for tests: a fresh cluster in a folder of its own, on a loopback port, gone with the value.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const BIN: &str = "/usr/lib/postgresql/15/bin";
pub const PASSWORD: &str = "not a secret";

pub struct Postgres {
    pub port: u16,
    dir: tempfile::TempDir,
    server: Child,
}

impl Postgres {
    /// User `svc` with [`PASSWORD`] over SCRAM, database `postgres`, TLS with a certificate for `localhost`.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(dir.path().join("server.crt"), pair.cert.pem()).unwrap();
        std::fs::write(dir.path().join("server.key"), pair.signing_key.serialize_pem()).unwrap();
        std::fs::write(dir.path().join("password"), PASSWORD).unwrap();
        run(Command::new("chmod").args(["0600"]).arg(dir.path().join("server.key")));
        if is_root() {
            run(Command::new("chown").arg("-R").arg("postgres:postgres").arg(dir.path()));
        }
        let data = dir.path().join("data");
        let mut initdb = as_postgres("initdb");
        initdb.args(["-N", "-U", "svc", "-A", "scram-sha-256", "--no-locale", "-E", "UTF8"]);
        initdb.arg(format!("--pwfile={}", dir.path().join("password").display())).arg("-D").arg(&data);
        run(&mut initdb);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = |name: &str| dir.path().join(name).display().to_string();
        let mut server = as_postgres("postgres");
        server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k", &file("")]);
        for setting in [
            "listen_addresses=127.0.0.1".to_string(),
            "fsync=off".into(),
            "ssl=on".into(),
            format!("ssl_cert_file={}", file("server.crt")),
            format!("ssl_key_file={}", file("server.key")),
        ] {
            server.args(["-c", &setting]);
        }
        let mut server = server.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        wait_until_ready(&mut server);
        Self { port, dir, server }
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("server.crt")
    }

    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate shutdown: nothing here is worth keeping, and no child stays behind.
        let _ = Command::new("kill").args(["-QUIT", &self.server.id().to_string()]).status();
        let _ = self.server.wait();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// PostgreSQL refuses to run as root; `setpriv` becomes the program, so that the child we hold is the server itself.
fn as_postgres(program: &str) -> Command {
    let program = Path::new(BIN).join(program);
    assert!(program.exists(), "{} is missing: apt-get install postgresql-15", program.display());
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Reads the server's log until it says so, and goes on reading it for as long as the server runs.
fn wait_until_ready(server: &mut Child) {
    let mut log = BufReader::new(server.stderr.take().unwrap());
    let mut said = String::new();
    loop {
        let from = said.len();
        assert!(log.read_line(&mut said).unwrap() > 0, "the server ended: {said}");
        if said[from..].contains("ready to accept connections") {
            break;
        }
    }
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
}
