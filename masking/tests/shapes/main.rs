//! Shapes of texts are held to PostgreSQL's own scanner over damaged statements, and what is remembered by shape to what
//! each text does by itself.

mod damage;
mod meanings;
mod oracle;
mod seeds;

use damage::Damage;
use lockgate_masking::sql::{Pattern, shape};

/// Compares over `inputs` damaged texts; answers how many of them had a shape.
fn agree(inputs: u64, seed: u64) -> u64 {
    let mut damage = Damage::new(seed);
    (0..inputs).filter(|_| oracle::compare(&damage.text())).count() as u64
}

#[test]
fn shapes_are_those_of_postgresqls_scanner() {
    for statement in seeds::STATEMENTS {
        oracle::compare(statement);
    }
    let shaped = agree(100_000, 1);
    assert!(shaped > 30_000, "only {shaped} texts had a shape: too much is left to the parser, or to this test");
}

/// `INPUTS=10000000 SEED=2 cargo test --release -p lockgate-masking --test shapes -- --ignored --nocapture`
#[test]
#[ignore = "long: for whoever changes the lexer"]
fn shapes_agree_over_many_inputs() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (inputs, seed) = (number("INPUTS", 10_000_000), number("SEED", 2));
    let shaped = agree(inputs, seed);
    println!("{inputs} inputs from seed {seed}: {shaped} had a shape, none another than PostgreSQL's");
    let fitted = fitting(inputs, seed);
    println!("{fitted} fitted the pattern of another, and had its shape");
}

/// A text that fits another's pattern has its shape. Answers how many fitted, the same texts not counted.
fn fitting(inputs: u64, seed: u64) -> u64 {
    let mut damage = Damage::new(seed);
    let mut fitted = 0;
    for _ in 0..inputs {
        let known = damage.text();
        let Some(pattern) = Pattern::of(known.as_bytes()) else { continue };
        for _ in 0..4 {
            let text = damage.of(&known);
            if text != known && pattern.fits(known.as_bytes(), text.as_bytes()) {
                let (mut one, mut other) = ([0; 4096], [0; 4096]);
                let known_shape = shape(known.as_bytes(), &mut one).expect("a text with a pattern has a shape");
                assert_eq!(shape(text.as_bytes(), &mut other), Some(known_shape), "{known:?} {text:?}");
                fitted += 1;
            }
        }
    }
    fitted
}

#[test]
fn what_fits_a_pattern_has_its_shape() {
    let fitted = fitting(100_000, 3);
    assert!(fitted > 5_000, "only {fitted} texts fitted: too much is left to the shape, or to this test");
}

#[test]
fn the_comparison_notices_a_difference() {
    assert_ne!(oracle::expected("SELECT a=-1"), oracle::expected("SELECT a =- 2.5"));
    assert_ne!(oracle::expected("SELECT \"A\""), oracle::expected("SELECT \"a\""));
    assert_eq!(oracle::expected("SELECT 'a'"), oracle::expected("select/**/$$b$$"));
    assert_eq!(oracle::expected("SELECT 'a"), None);
}
