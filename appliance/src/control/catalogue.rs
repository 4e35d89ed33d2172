//! What the tables and columns of a target are called: read through a connection of our own, kept with its time.
//!
//! A request names the oldest reading it accepts. Requests that come while a target is being read wait for the next
//! reading unless this one is new enough; readings of one target start at most every [`CATALOGUE_INTERVAL`].

use super::limits::{CATALOGUE_COLUMNS_MAX, CATALOGUE_INTERVAL, CATALOGUE_TIMEOUT};
use super::login_guard::LoginGuard;
use super::target_link::{self, Handshake};
use crate::shard::mailbox::{Catalogue, CatalogueTable, RelayId};
use crate::snapshot::Target;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, NoTls};

/// Somebody who waits, and the oldest reading that will do.
struct Waiter {
    shard: usize,
    relay: RelayId,
    not_before_us: i64,
}

#[derive(Default)]
struct Entry {
    latest: Option<(i64, Arc<Catalogue>)>,
    waiting: Vec<Waiter>,
    /// When the last reading was started.
    started_us: Option<i64>,
    reading: bool,
}

/// A target as far as its catalogue goes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    name: String,
    address: String,
    database: String,
    user: String,
}

impl Place {
    pub fn of(target: &Target) -> Self {
        Self {
            name: target.name.clone(),
            address: target.address.clone(),
            database: target.database.clone(),
            user: target.user.clone(),
        }
    }
}

/// Start a reading after this delay, then call [`Catalogues::read`] with what [`Catalogues::begin`] said.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub after: Duration,
}

#[derive(Default)]
pub struct Catalogues {
    entries: HashMap<Place, Entry>,
}

impl Catalogues {
    /// `Ok`: the answer is at hand. `Err(Some)`: start a reading. `Err(None)`: one is under way.
    pub fn want(
        &mut self,
        place: Place,
        (shard, relay): (usize, RelayId),
        not_before_us: i64,
        now_us: i64,
    ) -> Result<(i64, Arc<Catalogue>), Option<Start>> {
        let entry = self.entries.entry(place).or_default();
        if let Some((time_us, catalogue)) = &entry.latest
            && *time_us >= not_before_us
        {
            return Ok((*time_us, catalogue.clone()));
        }
        entry.waiting.push(Waiter { shard, relay, not_before_us });
        Err(entry.start(now_us))
    }

    /// The reading begins now. Its time is at least what everybody who already waits asks for: it starts after they
    /// asked, whatever their clock said.
    pub fn begin(&mut self, place: &Place, now_us: i64) -> i64 {
        let Some(entry) = self.entries.get_mut(place) else { return now_us };
        entry.started_us = Some(now_us);
        entry.waiting.iter().map(|waiter| waiter.not_before_us).fold(now_us, i64::max)
    }

    /// A reading is through: who gets it, and whether another one has to follow.
    pub fn read(
        &mut self,
        place: &Place,
        time_us: i64,
        result: &Result<Arc<Catalogue>, String>,
        now_us: i64,
    ) -> (Vec<(usize, RelayId)>, Option<Start>) {
        let Some(entry) = self.entries.get_mut(place) else { return (Vec::new(), None) };
        entry.reading = false;
        if let Ok(catalogue) = result {
            entry.latest = Some((time_us, catalogue.clone()));
        }
        // An error is everybody's: who asked meanwhile would only learn the same a little later.
        let (told, waiting) = std::mem::take(&mut entry.waiting)
            .into_iter()
            .partition(|waiter| result.is_err() || waiter.not_before_us <= time_us);
        entry.waiting = waiting;
        let next = if entry.waiting.is_empty() { None } else { entry.start(now_us) };
        let told: Vec<Waiter> = told;
        (told.iter().map(|waiter| (waiter.shard, waiter.relay)).collect(), next)
    }

    /// Forgets places that no target has any more.
    pub fn keep_only(&mut self, targets: &[Arc<Target>]) {
        self.entries.retain(|place, entry| entry.reading || targets.iter().any(|target| Place::of(target) == *place));
    }
}

impl Entry {
    fn start(&mut self, now_us: i64) -> Option<Start> {
        if std::mem::replace(&mut self.reading, true) {
            return None;
        }
        let interval_us = CATALOGUE_INTERVAL.as_micros() as i64;
        let wait_us = self.started_us.map_or(0, |started| (started + interval_us - now_us).clamp(0, interval_us));
        Some(Start { after: Duration::from_micros(wait_us as u64) })
    }
}

/// Everything that can be selected from: tables, views, materialized views, foreign and partitioned tables, sequences,
/// TOAST. System columns (negative numbers) too: a result may carry them.
const QUERY: &str = "\
    SELECT c.oid, n.nspname, c.relname, a.attnum, a.attname \
    FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid \
    WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v,m,f,p,S,t}'::pg_catalog.\"char\"[]) \
    AND NOT a.attisdropped LIMIT $1";

/// Reads the catalogue as the target's own user. The error is for the audit and the log.
pub async fn read(target: &Target) -> Result<Catalogue, String> {
    match timeout(CATALOGUE_TIMEOUT, connect_and_read(target)).await {
        Ok(result) => result,
        Err(_) => Err(format!("the catalogue was not read within {} s", CATALOGUE_TIMEOUT.as_secs())),
    }
}

async fn connect_and_read(target: &Target) -> Result<Catalogue, String> {
    let stream = target_link::connect(target).await.map_err(|error| format!("no connection: {error}"))?;
    let mut config = tokio_postgres::Config::new();
    config
        .user(&target.user)
        .dbname(&target.database)
        .password(target.password.as_slice())
        .application_name("lockgate");
    let client = match &target.tls {
        None => {
            let login = config
                .ssl_mode(SslMode::Disable)
                .connect_raw(LoginGuard::new(stream, target.require_auth, false), NoTls);
            let (client, connection) = login.await.map_err(describe)?;
            tokio::spawn(connection);
            client
        }
        Some(tls) => {
            let handshake = Handshake {
                config: tls.clone(),
                server_name: target.server_name.clone(),
                require_auth: target.require_auth,
            };
            let login = config.ssl_mode(SslMode::Require).connect_raw(stream, handshake);
            let (client, connection) = login.await.map_err(describe)?;
            tokio::spawn(connection);
            client
        }
    };
    tables(&client).await
}

async fn tables(client: &Client) -> Result<Catalogue, String> {
    let limit = CATALOGUE_COLUMNS_MAX as i64 + 1;
    let rows = client.query(QUERY, &[&limit]).await.map_err(describe)?;
    if rows.len() > CATALOGUE_COLUMNS_MAX {
        return Err(format!("the target has more than {CATALOGUE_COLUMNS_MAX} columns"));
    }
    let mut catalogue = Catalogue::default();
    for row in &rows {
        let table = catalogue.tables.entry(row.get(0)).or_insert_with(|| CatalogueTable {
            schema: row.get(1),
            name: row.get(2),
            columns: HashMap::new(),
        });
        table.columns.insert(row.get(3), row.get(4));
    }
    Ok(catalogue)
}

/// The server's own words where it said something, else what failed and why.
fn describe(error: tokio_postgres::Error) -> String {
    use std::error::Error;
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => format!("{}: {}", db.code().code(), db.message()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
