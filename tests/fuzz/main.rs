//! Hostile bytes: for any input, a decoder returns a value or an error, and its values agree with
//! its encoder. The properties are those of `sandhog_fuzz_bodies`, which libFuzzer checks for
//! longer (`scripts/fuzz`).
//!
//! Each target gets valid bytes that were damaged at random, and random bytes. A run is short and
//! always the same; `SANDHOG_TEST_FUZZ_ROUNDS` makes it longer and `SANDHOG_TEST_FUZZ_SEED` changes
//! its seed. A failure prints the seed and the bytes.

mod damage;
mod displays;
mod frames;
mod names;
mod wire;

use damage::Damage;

/// Default number of inputs for each target.
const ROUNDS: u64 = 5_000;

/// Calls `target` with damaged copies of `seeds`, and with random bytes.
fn feed(name: &str, seeds: &[Vec<u8>], target: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let rounds = number("SANDHOG_TEST_FUZZ_ROUNDS").unwrap_or(ROUNDS);
    let first = number("SANDHOG_TEST_FUZZ_SEED").unwrap_or(1);
    for seed in first..first + rounds {
        let bytes = Damage::of(seed).input(seeds);
        let ran = std::panic::catch_unwind(|| target(&bytes));
        assert!(
            ran.is_ok(),
            "target {name} fails at seed {seed} with {} bytes: {}",
            bytes.len(),
            bytes.escape_ascii()
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the length of a run is a setting of the suite, not of the product"
)]
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number of rounds, or a seed"))
}
