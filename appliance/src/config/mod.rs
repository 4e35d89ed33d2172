//! File -> [`Config`]; an invalid configuration cannot be represented afterwards.

mod model;
mod pattern;

pub use model::*;
pub use pattern::{ColumnPattern, Glob, TablePattern};
