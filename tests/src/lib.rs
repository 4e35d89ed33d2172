//! Integration tests: the harness that starts real servers and clients, and the suites that judge the gateway with them.

pub mod harness;
pub mod suites;
