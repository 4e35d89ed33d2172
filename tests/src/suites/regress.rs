//! PostgreSQL's own suites through the gateway, nothing refused: whatever a client may say and a server may answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::gateway::Setup;
use crate::harness::postgres::{PASSWORD, as_server_user, hand_to_postgres};
use crate::harness::process::{run, tail};
use crate::harness::{Endpoint, Gateway, Issuer, PrivatePostgres, Report, Settings};

const REGRESS_TESTS: u32 = 217;
const ISOLATION_TESTS: u32 = 115;
const DEADLINE: Duration = Duration::from_secs(1_200);

pub fn regress(settings: &Settings, report: &mut Report) -> Result<()> {
    let kit = Kit::unpacked()?;
    let place = Place::start(settings, &kit, "regression")?;
    report.case(&format!("pg_regress: {REGRESS_TESTS} of {REGRESS_TESTS}"), || {
        let folder = kit.0.join("source/src/test/regress");
        let arguments = ["--dlpath".into(), kit.path("modules"), "--max-concurrent-tests=20".into()];
        kit.judge("regress/pg_regress", &folder, "parallel_schedule", &arguments, &place, REGRESS_TESTS)
    });
    if let Some(gateway) = &place.gateway {
        report.case("the audit joined with the target's log over that run", || {
            super::audit::Joined::of(gateway, &place.server, "regression", "postgres")?.agree(5_000)
        });
    }
    Ok(())
}

pub fn isolation(settings: &Settings, report: &mut Report) -> Result<()> {
    let kit = Kit::unpacked()?;
    let place = Place::start(settings, &kit, "isolation_regression")?;
    report.case(&format!("isolationtester: {ISOLATION_TESTS} of {ISOLATION_TESTS}"), || {
        let folder = kit.0.join("source/src/test/isolation");
        kit.judge("isolation/pg_isolation_regress", &folder, "isolation_schedule", &[], &place, ISOLATION_TESTS)
    });
    Ok(())
}

/// What run.sh unpacked: `server/`, `source/` and `modules/`.
struct Kit(PathBuf);

impl Kit {
    fn unpacked() -> Result<Kit> {
        let folder = std::env::var_os("LOCKGATE_POSTGRES_SUITES").context("run it through tests/run.sh")?;
        hand_to_postgres(Path::new(&folder))?;
        Ok(Kit(folder.into()))
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn bin(&self) -> PathBuf {
        self.0.join("server/usr/lib/postgresql/15/bin")
    }

    /// Runs one of the two drivers; all its tests must pass, and be as many as we know there are.
    fn judge(
        &self,
        driver: &str,
        folder: &Path,
        schedule: &str,
        more: &[String],
        place: &Place,
        count: u32,
    ) -> Result<()> {
        let output = self.0.join(format!("output-{}", place.database));
        fs::create_dir_all(&output)?;
        hand_to_postgres(&output)?;
        let driver = self.path(&format!("server/usr/lib/postgresql/15/lib/pgxs/src/test/{driver}"));
        let mut command = as_server_user("env");
        command.args(place.endpoint.environment().iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(driver).args(["--use-existing", "--dbname", place.database]);
        command.args(["--host", &place.endpoint.host, "--port", &place.endpoint.port.to_string()]);
        command.args(["--user", &place.endpoint.user]).arg("--bindir").arg(self.bin());
        command.arg("--inputdir").arg(folder).arg("--outputdir").arg(&output);
        command.arg("--schedule").arg(folder.join(schedule)).args(more).current_dir(&output);
        let finished = run(&mut command, DEADLINE)?;
        let wanted = format!("All {count} tests passed");
        let failed: Vec<&str> = finished.stdout.lines().filter(|line| line.contains("FAILED")).collect();
        let diffs = fs::read_to_string(output.join("regression.diffs")).unwrap_or_default();
        ensure!(
            finished.stdout.contains(&wanted),
            "{}\n{}\nbeginning of regression.diffs:\n{}",
            failed.join("\n"),
            tail(finished.everything().trim_end()).lines().rev().take(8).collect::<Vec<_>>().join("\n"),
            diffs.lines().map(|line| line.get(..200).unwrap_or(line)).take(120).collect::<Vec<_>>().join("\n")
        );
        Ok(())
    }
}

/// A server of the suites' own version with the database they want, and the way to it.
struct Place {
    database: &'static str,
    endpoint: Endpoint,
    gateway: Option<Gateway>,
    server: PrivatePostgres,
}

impl Place {
    fn start(settings: &Settings, kit: &Kit, database: &'static str) -> Result<Place> {
        let server = PrivatePostgres::start_with(&kit.bin(), &settings.run_dir, database)?;
        // As pg_regress makes it when it makes it itself: create_database in pg_regress.c.
        server.execute("postgres", &format!("CREATE DATABASE {database} TEMPLATE = template0"))?;
        for (name, value) in [
            ("lc_messages", "C"),
            ("lc_monetary", "C"),
            ("lc_numeric", "C"),
            ("lc_time", "C"),
            ("bytea_output", "hex"),
            ("timezone_abbreviations", "Default"),
        ] {
            server.execute("postgres", &format!("ALTER DATABASE {database} SET {name} TO '{value}'"))?;
        }
        let direct = Endpoint {
            dbname: database.into(),
            user: "postgres".into(),
            password: PASSWORD.into(),
            ..server.endpoint(false)
        };
        if settings.direct {
            return Ok(Place { database, endpoint: direct, gateway: None, server });
        }
        let issuer = Issuer::new(server.socket_dir())?;
        let setup = Setup { database, target: database, role: "postgres", ..Setup::default() };
        let gateway = Gateway::start(&settings.run_dir, &server, &issuer, &setup)?;
        let endpoint = Endpoint {
            dbname: database.into(),
            user: "postgres".into(),
            ..gateway.endpoint(&issuer.token("regress@example.com", &[]), false)
        };
        Ok(Place { database, endpoint, gateway: Some(gateway), server })
    }
}
