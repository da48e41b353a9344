//! Suggestions for names that a caller mistyped.

/// Returns the name in `known` that is closest to `typed`, if at most a third of its letters
/// differ.
pub fn suggestion<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::levenshtein(typed, name), name))
        .filter(|(edits, name)| *edits * 3 <= name.len().max(typed.len()))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        let known = ["worker.slots", "worker.tags", "redis.url"];
        assert_eq!(suggestion("worker.slot", known), Some("worker.slots"));
        assert_eq!(suggestion("redis.ulr", known), Some("redis.url"));
        assert_eq!(suggestion("colour", known), None);
    }
}
