//! Hostile bytes: whatever comes in, a decoder answers with a value or an error, and both agree with its encoder.
//!
//! Each target takes bytes that were valid once and are damaged at random, and bytes that never were. A run is short and
//! always the same; `SANDHOG_TEST_FUZZ_ROUNDS` makes it longer and `SANDHOG_TEST_FUZZ_SEED` another one. What fails
//! prints the seed and the bytes.

mod damage;
mod frames;
mod names;
mod wire;

use damage::Damage;

/// Inputs that each target is given when nothing else is asked for.
const ROUNDS: u64 = 5_000;

/// Gives `target` damaged copies of `seeds`, and noise.
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
    reason = "how long a run of this suite is, is the business of whoever starts it"
)]
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number of rounds, or a seed"))
}
