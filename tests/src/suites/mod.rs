//! One file per suite; each starts what it needs and can run alone.

pub mod access;
pub mod ahead;
pub mod archiver;
pub mod audit;
pub mod bench;
pub mod cancel;
pub mod catalogue;
pub mod certificates;
pub mod clients;
pub mod commands;
pub mod crash;
pub mod demo;
pub mod disguised;
pub mod faults;
pub mod identity;
pub mod kafka;
pub mod loadgen;
pub mod masks;
pub mod names;
pub mod operations;
pub mod pipelines;
pub mod policy;
pub mod refusals;
pub mod regress;
pub mod replay;
pub mod search;
pub mod sinks;
pub mod starting;
pub mod store;
pub mod tamper;

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::harness::gateway::Setup;
use crate::harness::{Endpoint, Gateway, Issuer, PrivatePostgres, Report, Settings};

/// A suite by name, and when it runs unasked.
#[derive(Debug)]
pub struct Suite {
    pub name: &'static str,
    pub run: fn(&Settings, &mut Report) -> Result<()>,
    /// Too long for the default run.
    pub full_only: bool,
    /// Proves something with PostgreSQL alone, so that `--direct` can try it.
    pub direct: bool,
    /// Why the default run leaves it out for now; it can still be asked for by name.
    pub held_back: Option<&'static str>,
}

pub const SUITES: &[Suite] = &[
    Suite { name: "commands", run: commands::suite, full_only: false, direct: true, held_back: None },
    Suite { name: "clients", run: clients::suite, full_only: false, direct: true, held_back: None },
    Suite { name: "identity", run: identity::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "access", run: access::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "certificates", run: certificates::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "policy", run: policy::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "cancel", run: cancel::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "ahead", run: ahead::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "disguised", run: disguised::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "names", run: names::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "refusals", run: refusals::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "pipelines", run: pipelines::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "audit", run: audit::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "tamper", run: tamper::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "archiver", run: archiver::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "search", run: search::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "crash", run: crash::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "faults", run: faults::suite, full_only: false, direct: true, held_back: None },
    Suite { name: "masks", run: masks::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "catalogue", run: catalogue::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "replay", run: replay::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "operations", run: operations::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "starting", run: starting::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "sinks", run: sinks::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "loadgen", run: loadgen::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "demo", run: demo::suite, full_only: false, direct: false, held_back: None },
    Suite { name: "store", run: store::suite, full_only: true, direct: false, held_back: None },
    Suite { name: "kafka", run: kafka::suite, full_only: true, direct: false, held_back: None },
    Suite { name: "jdbc", run: clients::jdbc, full_only: true, direct: false, held_back: None },
    Suite { name: "pgx", run: clients::pgx, full_only: true, direct: false, held_back: None },
    Suite { name: "bench", run: bench::suite, full_only: true, direct: false, held_back: None },
    Suite { name: "regress", run: regress::regress, full_only: true, direct: true, held_back: None },
    Suite { name: "isolation", run: regress::isolation, full_only: true, direct: true, held_back: None },
];

impl Suite {
    pub fn runs_by_default(&self, settings: &Settings) -> bool {
        (!self.full_only || settings.full) && (self.direct || !settings.direct)
    }
}

/// One PostgreSQL, one issuer, and a gateway between them and the clients (unless the run is direct).
#[derive(Debug)]
pub struct World {
    pub gateway: Option<Gateway>,
    pub target: PrivatePostgres,
    pub issuer: Issuer,
    pub folder: PathBuf,
}

impl World {
    pub fn start(settings: &Settings, name: &str, setup: &Setup) -> Result<World> {
        World::start_with(settings, name, |_| setup.clone())
    }

    /// The same, with a setup that has to know the target: its port, its certificate.
    pub fn start_with(settings: &Settings, name: &str, setup: impl FnOnce(&PrivatePostgres) -> Setup) -> Result<World> {
        let folder = settings.run_dir.join(format!("suite-{name}"));
        fs::create_dir_all(&folder)?;
        let target = PrivatePostgres::start(&settings.run_dir, name)?;
        let issuer = Issuer::new(&folder)?;
        let gateway = match settings.direct {
            true => None,
            false => Some(Gateway::start(&settings.run_dir, &target, &issuer, &setup(&target))?),
        };
        Ok(World { gateway, target, issuer, folder })
    }

    /// Where a client of this person connects: through the gateway, or straight at PostgreSQL in a direct run.
    pub fn endpoint(&self, user: &str, groups: &[&str], tls: bool) -> Endpoint {
        match &self.gateway {
            Some(gateway) => gateway.endpoint(&self.issuer.token(user, groups), tls),
            None => self.target.endpoint(tls),
        }
    }

    /// The gateway; suites that need one are not run directly.
    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("only suites marked `direct` run without a gateway")
    }

    pub fn gateway_mut(&mut self) -> &mut Gateway {
        self.gateway.as_mut().expect("only suites marked `direct` run without a gateway")
    }
}
