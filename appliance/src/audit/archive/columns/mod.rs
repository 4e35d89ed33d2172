//! Columns of a row group in Parquet's encodings, made as the records come: a page at a time, so that little is held.
//!
//! ```text
//! values -> Dictionary | numbers | plain  -> pages: hybrid, delta, plain -> zstd -> ColumnChunk::close -> row group
//! nulls, lists -> levels as runs          /
//! ```
//!
//! The parquet crate has the file, its metadata, its indexes and everything that reads. It encodes value by value; a trail's
//! columns mostly repeat themselves or are null, which costs nothing here.

mod chunk;
mod delta;
mod dictionary;
mod hybrid;
mod pages;
mod values;

pub use chunk::ColumnChunk;
pub use pages::LEVEL;

#[cfg(test)]
mod tests;
