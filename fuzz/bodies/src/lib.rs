//! Properties that hold for any bytes: a decoder returns a value or an error, and its values agree
//! with its encoder.
//!
//! Each function panics if its property does not hold. The suite `tests/fuzz` calls them with
//! damaged seeds, for a short time and always the same; the targets in `fuzz/` call them with the
//! inputs of libFuzzer.

pub mod displays;
pub mod frames;
pub mod names;
pub mod wire;

/// Returns the valid inputs of a target of libFuzzer; none if there is no such target.
#[must_use]
pub fn seeds(target: &str) -> Option<Vec<Vec<u8>>> {
    let groups = match target {
        "wire" => vec![
            wire::payload_seeds(),
            wire::result_seeds(),
            wire::identifier_seeds(),
        ],
        "frames" => vec![frames::from_runner_seeds(), frames::to_runner_seeds()],
        "names" => vec![names::file_name_seeds(), names::pattern_seeds()],
        "displays" => vec![displays::display_seeds()],
        _ => return None,
    };
    Some(groups.concat())
}
