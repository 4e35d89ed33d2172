//! Real servers, real clients, and the books of what passed.

pub mod archived;
pub mod audit;
pub mod authority;
pub mod csvlog;
pub mod gateway;
pub mod issuer;
pub mod postgres;
pub mod process;
pub mod random;
pub mod receivers;
pub mod report;
pub mod scripted;
pub mod trail;
pub mod wire;

use std::path::PathBuf;

pub use gateway::Gateway;
pub use issuer::Issuer;
pub use postgres::PrivatePostgres;
pub use report::Report;

/// What the command line asked for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Run the long rounds too.
    pub full: bool,
    /// Straight at PostgreSQL, without a gateway: tries the tests themselves.
    pub direct: bool,
    /// Everything the suites write lives below it.
    pub run_dir: PathBuf,
}

/// Where a client connects and as whom: the same suite runs at PostgreSQL or through the gateway.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub dbname: String,
    pub user: String,
    pub password: String,
    /// The certificate to verify the server with; absent: connect in plaintext.
    pub tls_ca: Option<PathBuf>,
}

impl Endpoint {
    /// The libpq environment that leads a client here.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("PGHOST", self.host.clone()),
            ("PGPORT", self.port.to_string()),
            ("PGDATABASE", self.dbname.clone()),
            ("PGUSER", self.user.clone()),
            ("PGPASSWORD", self.password.clone()),
            ("PGCONNECT_TIMEOUT", "20".into()),
        ];
        match &self.tls_ca {
            Some(ca) => {
                variables.push(("PGSSLMODE", "verify-full".into()));
                variables.push(("PGSSLROOTCERT", ca.display().to_string()));
            }
            None => variables.push(("PGSSLMODE", "disable".into())),
        }
        variables.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    pub fn with_password(&self, password: &str) -> Endpoint {
        Endpoint { password: password.into(), ..self.clone() }
    }

    pub fn with_dbname(&self, dbname: &str) -> Endpoint {
        Endpoint { dbname: dbname.into(), ..self.clone() }
    }
}
