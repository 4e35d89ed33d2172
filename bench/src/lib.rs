//! Benches and the side-by-side harness

pub mod gate;
pub mod records;
pub mod texts;
pub mod trail;
