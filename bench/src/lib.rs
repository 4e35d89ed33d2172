//! Benches and the side-by-side harness

pub mod gate;
pub mod records;
