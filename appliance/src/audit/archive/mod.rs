//! The archive: the trail of all shards in Parquet files that any tool reads, chained by a manifest, signed by checkpoints.
//! FORMAT.md draws the bytes.

mod age;
pub mod archiver;
pub mod catalogue;
pub mod check;
pub mod check_signed;
pub mod checkpoint;
mod columns;
pub mod covered;
pub mod deliver;
pub mod find;
mod follow;
pub mod holds;
pub mod key;
pub mod lines;
pub mod manifest;
mod merge;
mod mirror;
pub mod publish;
pub mod read;
pub mod retention;
pub mod schema;
mod seal;
pub mod status;
mod steady;
pub mod store;
pub mod supervise;
mod whose;
pub mod write;

#[cfg(test)]
mod archiver_tests;
#[cfg(test)]
mod find_tests;
#[cfg(test)]
mod retention_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod verify_tests;
