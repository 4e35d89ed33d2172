//! What a statement means and what a value gives away: the SQL analysis, the content detectors and the mask styles.
//! Pure: no I/O, no clock, no randomness; a key comes in as an argument.

pub mod detect;
pub mod sql;
pub mod style;
