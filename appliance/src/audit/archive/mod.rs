//! The archive: the trail of all shards in Parquet files that any tool reads. FORMAT.md draws the bytes.

pub mod read;
pub mod schema;
mod seal;
pub mod write;

#[cfg(test)]
mod tests;
