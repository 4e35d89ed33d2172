//! Lockgate, the appliance: see ARCHITECTURE.md for the map.

pub mod address;
pub mod approval;
pub mod audit;
pub mod cli;
pub mod config;
pub mod control;
pub mod distrust;
pub mod files;
pub mod gate;
pub mod gateway;
pub mod identity;
pub mod limits;
pub mod lull;
pub mod metrics;
pub mod open_files;
pub mod pem;
pub mod policy;
pub mod shard;
pub mod snapshot;
pub mod threads;
pub mod timed;
pub mod vault;
pub mod web;
pub mod workers;
