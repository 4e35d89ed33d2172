//! The bundled load generator: open-loop load on PostgreSQL servers and proxies, with numbers that can be believed.

mod alarms;
mod auth;
mod check;
pub mod cli;
mod compare;
mod conn;
mod engine;
mod hlog;
mod manifest;
mod measure;
mod output;
mod pgbench;
mod process;
mod program;
mod report;
mod respond;
mod rng;
mod run;
mod saturate;
mod schedule;
mod selftest;
mod sys;
mod target;
mod transport;
mod wire;
