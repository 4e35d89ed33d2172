//! Any text that is given a shape has the tokens that PostgreSQL's scanner finds.
#![no_main]

#[path = "../../tests/shapes/oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    oracle::compare(text);
});
