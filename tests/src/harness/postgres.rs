//! A private PostgreSQL 15: own data folder, free port, TLS, and a csvlog of every statement.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::process::{free_port, run};
use super::{Endpoint, csvlog};

/// Debian's own binaries; another `postgres` may be first in PATH.
pub const BIN: &str = "/usr/lib/postgresql/15/bin";

/// Password of every role the harness makes.
pub const PASSWORD: &str = "not-a-secret";

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Ended, with its folder, when dropped.
#[derive(Debug)]
pub struct PrivatePostgres {
    home: PathBuf,
    bin: PathBuf,
    pub port: u16,
    pub ca: PathBuf,
}

impl PrivatePostgres {
    /// Roles: `postgres` (superuser), `service` (SCRAM, what a gateway logs in as), `direct` (cleartext password over
    /// any connection, what a client of a gateway would see). Database `shop`.
    pub fn start(run_dir: &Path, name: &str) -> Result<PrivatePostgres> {
        PrivatePostgres::start_with(Path::new(BIN), run_dir, name)
    }

    /// The same with the binaries of another folder.
    pub fn start_with(bin: &Path, run_dir: &Path, name: &str) -> Result<PrivatePostgres> {
        let server = PrivatePostgres::create(bin, run_dir, name)?;
        server.execute(
            "postgres",
            &format!(
                "ALTER ROLE postgres PASSWORD '{PASSWORD}'; CREATE ROLE service LOGIN SUPERUSER PASSWORD '{PASSWORD}'; \
                 CREATE ROLE direct LOGIN SUPERUSER PASSWORD '{PASSWORD}';"
            ),
        )?;
        server.execute("postgres", "CREATE DATABASE shop")?;
        Ok(server)
    }

    fn create(bin: &Path, run_dir: &Path, name: &str) -> Result<PrivatePostgres> {
        let home = run_dir.join(format!("{name}.{}", free_port()?));
        fs::create_dir_all(&home)?;
        let server = PrivatePostgres { ca: home.join("server.crt"), home, bin: bin.into(), port: free_port()? };
        make_certificate(&server.home, "server")?;
        hand_to_postgres(&server.home)?;
        let data = server.data();
        server.as_server_user(
            "initdb",
            &["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
        )?;
        fs::write(server.home.join("data/pg_hba.conf"), HBA)?;
        fs::OpenOptions::new()
            .append(true)
            .open(server.home.join("data/postgresql.conf"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, server.configuration().as_bytes()))?;
        server.start_again()?;
        Ok(server)
    }

    fn configuration(&self) -> String {
        let home = self.home.display();
        format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{home}'\nmax_connections = 300\n\
             fsync = off\nssl = on\nssl_cert_file = '{home}/server.crt'\nssl_key_file = '{home}/server.key'\n\
             password_encryption = 'scram-sha-256'\nlogging_collector = on\nlog_destination = 'csvlog'\n\
             log_directory = '{home}/data/log'\nlog_filename = 'server.log'\nlog_rotation_size = 0\nlog_rotation_age = 0\n\
             log_statement = 'all'\nauthentication_timeout = 3s\nclient_connection_check_interval = 500ms\nlog_connections = on\nlog_file_mode = 0644\n",
            self.port
        )
    }

    /// Starts the server on the folder it has: the first time, or after [`PrivatePostgres::kill`].
    pub fn start_again(&self) -> Result<()> {
        let (data, log) = (self.data(), self.home.join("start.log").display().to_string());
        let began = self.as_server_user("pg_ctl", &["-D", &data, "-l", &log, "-w", "-s", "start"]);
        began.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(())
    }

    /// Ends every server process at once, as a crash would.
    pub fn kill(&self) -> Result<()> {
        self.as_server_user("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-s", "stop"]).map(drop)
    }

    /// Logs in as a client of the gateway would, with a cleartext password, straight at the server.
    pub fn endpoint(&self, tls: bool) -> Endpoint {
        Endpoint {
            host: "localhost".into(),
            port: self.port,
            dbname: "shop".into(),
            user: "direct".into(),
            password: PASSWORD.into(),
            tls_ca: tls.then(|| self.ca.clone()),
        }
    }

    /// Runs SQL as the superuser over the server's own socket and returns its unaligned output.
    pub fn execute(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = Command::new(format!("{BIN}/psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql]);
        psql.env("PGHOST", &self.home).env("PGPORT", self.port.to_string());
        run(&mut psql, START_TIMEOUT)?.succeeded()
    }

    /// Every line logged so far. Anything a client was answered before this call is in it.
    pub fn log(&self) -> Result<Vec<csvlog::Line>> {
        csvlog::settled(&self.home.join("data/log/server.csv"), |marker| {
            self.execute("postgres", &format!("SELECT '{marker}'")).map(drop)
        })
    }

    pub fn socket_dir(&self) -> &Path {
        &self.home
    }

    fn data(&self) -> String {
        self.home.join("data").display().to_string()
    }

    fn as_server_user(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(
            as_server_user(&self.bin.join(program).display().to_string()).args(arguments).current_dir(&self.home),
            START_TIMEOUT,
        )?
        .succeeded()
        .with_context(|| format!("{program} {}", arguments.join(" ")))
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        // It may be down already: a case killed it.
        let _ = self.kill();
        if std::env::var_os("LOCKGATE_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.home);
        }
    }
}

const HBA: &str = "\
local all all trust
host all direct 127.0.0.1/32 password
host all direct ::1/128 password
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
";

/// A command that runs as the user a server may run as: PostgreSQL refuses to be root.
pub fn as_server_user(program: &str) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--", program]);
    command
}

/// Gives a folder to the user the server runs as.
pub fn hand_to_postgres(folder: &Path) -> Result<()> {
    if is_root() {
        let status = Command::new("chown").args(["-R", "postgres:"]).arg(folder).status()?;
        if !status.success() {
            bail!("could not give {} to the user postgres", folder.display());
        }
    }
    Ok(())
}

/// A self-signed certificate for localhost: `NAME.crt` and `NAME.key`.
pub fn make_certificate(folder: &Path, name: &str) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.arg("-keyout").arg(folder.join(format!("{name}.key"))).arg("-out").arg(folder.join(format!("{name}.crt")));
    run(&mut openssl, START_TIMEOUT)?.succeeded().context("openssl req")?;
    Ok(())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
