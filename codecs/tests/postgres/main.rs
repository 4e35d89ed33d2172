//! The PostgreSQL session against scripted peers: each case whole, byte by byte, at random splits, with trailing bytes.

mod copy;
mod extended;
mod kept;
mod login;
mod random;
mod refusals;
mod rig;
mod rows;
mod simple;
mod startup;
mod transcripts;
mod wire;
