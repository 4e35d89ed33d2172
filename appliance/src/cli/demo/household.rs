//! What the demo starts and ends: a folder, a private PostgreSQL, the gateway. Each is ended by dropping it.

use super::people::{EVERYBODY, Person};
use super::scene::{self, Ports};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the database or the gateway may take to come up.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The folder everything lives in.
pub struct Workplace {
    dir: PathBuf,
    keep: bool,
}

impl Workplace {
    /// `dir`, which must be empty or absent; by default a fresh temporary folder.
    pub fn open(dir: Option<PathBuf>, keep: bool) -> Result<Self> {
        let (dir, keep) = match dir {
            Some(dir) => {
                let taken = fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some());
                if taken {
                    bail!("{} is not empty: give the demo a folder of its own", dir.display());
                }
                (dir, keep)
            }
            None => (std::env::temp_dir().join(format!("lockgate-demo-{}", std::process::id())), keep),
        };
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        // The database's own user must be able to pass through when root runs the demo.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        Ok(Self { dir: fs::canonicalize(&dir)?, keep })
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.keep {
            note!("kept: {}", self.dir.display());
        } else if let Err(error) = fs::remove_dir_all(&self.dir) {
            note!("lockgate demo: {} could not be removed: {error}", self.dir.display());
        }
    }
}

/// A child that is asked to end, and made to, when dropped.
struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Running {
    fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the {} ended ({status}); its last words:\n{}", self.name, last_lines(&self.log));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // PostgreSQL: INT is its fast shutdown; the gateway: TERM twice is now.
        let signals: &[&str] = if self.name == "database" { &["-INT"] } else { &["-TERM", "-TERM"] };
        for signal in signals {
            drop(Command::new("kill").args([*signal, pid.as_str()]).stderr(Stdio::null()).status());
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Everything that runs. Fields drop in order: gateway, database, folder.
pub struct Household {
    gateway: std::cell::RefCell<Running>,
    database: std::cell::RefCell<Running>,
    ports: Ports,
    program: PathBuf,
    tokens: Vec<String>,
    workplace: Workplace,
}

impl Household {
    pub fn start(workplace: Workplace, port: u16, web_port: u16, stop: &AtomicBool) -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let ports = Ports {
            listen: usable(port, "--port")?,
            web: usable(web_port, "--web-port")?,
            ops: free_port()?,
            database: free_port()?,
        };
        note!("starting a private PostgreSQL with sample customers ...");
        let (database, password) = start_database(&workplace.dir, ports.database, stop)?;
        note!("minting a development issuer and five tokens ...");
        let issuer = workplace.dir.join("issuer");
        run(Command::new(&program).arg("token").arg("--new-issuer").arg(&issuer), "lockgate token --new-issuer")?;
        let tokens = EVERYBODY.iter().map(|person| person.token(&program, &issuer)).collect::<Result<Vec<_>>>()?;
        write_private(&workplace.dir.join("tokens.sh"), &token_lines(&tokens))?;
        write_private(&workplace.dir.join("svc_shop.password"), &password)?;
        write_certificate(&workplace.dir)?;
        fs::write(workplace.dir.join("lockgate.toml"), scene::configuration(&ports))?;
        note!("starting the gateway on 127.0.0.1:{} ...", ports.listen);
        let gateway = start_gateway(&program, &workplace.dir, ports.ops, stop)?;
        Ok(Self { gateway: gateway.into(), database: database.into(), ports, program, tokens, workplace })
    }

    /// An error when something the demo needs has ended.
    pub fn check(&self) -> Result<()> {
        self.gateway.borrow_mut().check()?;
        self.database.borrow_mut().check()
    }

    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn keeps(&self) -> bool {
        self.workplace.keep
    }

    pub fn config_file(&self) -> PathBuf {
        self.workplace.dir.join("lockgate.toml")
    }

    pub fn tokens_file(&self) -> PathBuf {
        self.workplace.dir.join("tokens.sh")
    }

    pub fn token(&self, person: &Person) -> &str {
        let position = EVERYBODY.iter().position(|somebody| somebody.variable == person.variable);
        &self.tokens[position.expect("everybody has a token")]
    }
}

fn token_lines(tokens: &[String]) -> String {
    EVERYBODY.iter().zip(tokens).map(|(person, token)| format!("export {}='{token}'\n", person.variable)).collect()
}

/// The port itself when it is free; any free one for 0.
fn usable(port: u16, flag: &str) -> Result<u16> {
    if port == 0 {
        return free_port();
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("port {port} is taken: choose another with {flag} (0: any free one)"))?;
    Ok(port)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free loopback port")?.local_addr()?.port())
}

/// The newest PostgreSQL's server programs: Debian's place first, then PATH.
fn server_programs() -> Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists() && bin.join("postgres").exists())
        .collect();
    versions.sort();
    if let Some((_, bin)) = versions.pop() {
        return Ok(bin);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
        .context("PostgreSQL's server programs are not installed: apt-get install postgresql")
}

/// A command that runs as the database's own user (PostgreSQL refuses root) and ends with this program.
fn as_database_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig").arg("INT");
    if is_root() {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]);
    }
    command.arg("--").arg(program);
    command
}

fn is_root() -> bool {
    // The owner of our own /proc entry is our effective user.
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn start_database(dir: &Path, port: u16, stop: &AtomicBool) -> Result<(Running, String)> {
    let bin = server_programs()?;
    let home = dir.join("postgres");
    fs::create_dir_all(&home)?;
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700))?;
    if is_root() {
        run(Command::new("chown").arg("postgres:postgres").arg(&home), "chown")?;
    }
    let data = home.join("data");
    let mut init = as_database_user(&bin.join("initdb"));
    init.arg("-D").arg(&data).args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "-N"]);
    // The superuser logs in through the socket of its own folder only; `trust` there keeps no password around.
    init.arg("--auth-local=trust");
    run(init.current_dir(&home), "initdb")?;
    let log = dir.join("postgres.log");
    let mut server = as_database_user(&bin.join("postgres"));
    server.arg("-D").arg(&data).arg("-k").arg(&home).args([
        "-p",
        &port.to_string(),
        "-c",
        "listen_addresses=127.0.0.1",
    ]);
    server.args(["-c", "fsync=off", "-c", "password_encryption=scram-sha-256"]);
    let child = spawn(server.current_dir(&home), &log).context("start postgres")?;
    let mut database = Running { name: "database", child, log };
    wait_until(stop, &mut database, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
    let password = random_password()?;
    seed(&home, port, &password, stop, &mut database)?;
    Ok((database, password))
}

fn seed(home: &Path, port: u16, password: &str, stop: &AtomicBool, database: &mut Running) -> Result<()> {
    let psql = |name: &str, sql: &str| {
        let mut command = as_database_user(Path::new("psql"));
        command.args([
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-p",
            &port.to_string(),
            "-d",
            name,
            "-c",
            sql,
        ]);
        command
            .arg("-h")
            .arg(home)
            .current_dir(home)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    };
    wait_until(stop, database, || {
        psql("postgres", "SELECT 1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })?;
    run(&mut psql("postgres", &format!("CREATE ROLE svc_shop LOGIN PASSWORD '{password}'")), "psql")?;
    run(&mut psql("postgres", "CREATE DATABASE shop OWNER svc_shop"), "psql")?;
    run(
        &mut psql(
            "shop",
            &format!(
                "SET ROLE svc_shop; SET search_path = public; RESET ROLE; GRANT ALL ON SCHEMA public TO svc_shop; SET ROLE svc_shop; {}",
                scene::SEED
            ),
        ),
        "psql",
    )
}

fn start_gateway(program: &Path, dir: &Path, ops: u16, stop: &AtomicBool) -> Result<Running> {
    let log = dir.join("gateway.log");
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM", "--"])
        .arg(program)
        .arg("serve")
        .arg("--config")
        .arg(dir.join("lockgate.toml"));
    let child = spawn(command.current_dir(dir), &log).context("start the gateway")?;
    let mut gateway = Running { name: "gateway", child, log };
    wait_until(stop, &mut gateway, || is_ready(ops))?;
    Ok(gateway)
}

/// GET /readyz answers 200.
fn is_ready(ops: u16) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, ops)) else { return false };
    let mut answer = [0; 12];
    stream.set_read_timeout(Some(Duration::from_secs(2))).is_ok()
        && stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.ends_with(b"200")
}

fn wait_until(stop: &AtomicBool, running: &mut Running, mut done: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    while !done() {
        running.check()?;
        if stop.load(Ordering::Relaxed) {
            bail!("stopped");
        }
        if Instant::now() > deadline {
            bail!(
                "the {} did not come up within {START_TIMEOUT:?}; its last words:\n{}",
                running.name,
                last_lines(&running.log)
            );
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Ok(())
}

fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let file = fs::File::create(log)?;
    // Of a process group of its own: a Ctrl-C on the terminal reaches the demo, which ends its children in order.
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    Ok(command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?)
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {what}"))?;
    if !output.status.success() {
        bail!("{what} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn random_password() -> Result<String> {
    let mut bytes = [0; 18];
    aws_lc_rs::rand::fill(&mut bytes).ok().context("the system gives no randomness")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// A self-signed certificate for the listener: `sslmode=require` encrypts and does not verify.
fn write_certificate(dir: &Path) -> Result<()> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_string(), "127.0.0.1".to_string()])?;
    fs::write(dir.join("gateway.pem"), certified.cert.pem())?;
    write_private(&dir.join("gateway.key"), &certified.signing_key.serialize_pem())
}
