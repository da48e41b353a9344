//! Conversion of a GPU's product name to the tag that jobs ask for: `NVIDIA H100 80GB HBM3` becomes
//! `h100`.

use sandhog_core::id::Tag;

/// Words that name the vendor, the form factor or the memory size, and not the model.
const IGNORED_WORDS: [&str; 12] = [
    "nvidia",
    "geforce",
    "quadro",
    "tesla",
    "graphics",
    "device",
    "gpu",
    "generation",
    "pcie",
    "nvl",
    "oem",
    "with",
];

/// Maximum length of a tag.
const MAX_TAG_LENGTH: usize = 32;

/// Returns the tag of the model called `name`; `None` if no significant word is left.
pub(super) fn model_tag(name: &str) -> Option<Tag> {
    let lower = name.to_ascii_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty() && !IGNORED_WORDS.contains(word))
        .filter(|word| !is_memory(word) && !is_socket(word))
        .collect();
    let mut tag = words.join("-");
    tag.truncate(MAX_TAG_LENGTH);
    tag.trim_end_matches('-').parse().ok()
}

/// Matches `80gb`, `hbm3` and `hbm2e`.
fn is_memory(word: &str) -> bool {
    let amount = word.strip_suffix("gb");
    amount.is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()))
        || word.starts_with("hbm")
}

/// Matches `sxm4`.
fn is_socket(word: &str) -> bool {
    word.starts_with("sxm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_tags_that_people_would_write() {
        for (name, want) in [
            ("NVIDIA H100 80GB HBM3", Some("h100")),
            ("NVIDIA H100 PCIe", Some("h100")),
            ("NVIDIA A100-SXM4-80GB", Some("a100")),
            ("NVIDIA A100 80GB PCIe", Some("a100")),
            ("NVIDIA GH200 480GB", Some("gh200")),
            ("NVIDIA L40S", Some("l40s")),
            ("Tesla T4", Some("t4")),
            ("Tesla V100-SXM2-16GB", Some("v100")),
            ("NVIDIA GeForce RTX 4090", Some("rtx-4090")),
            ("NVIDIA GeForce RTX 3080 Ti", Some("rtx-3080-ti")),
            ("NVIDIA RTX A6000", Some("rtx-a6000")),
            ("NVIDIA RTX 6000 Ada Generation", Some("rtx-6000-ada")),
            ("Quadro RTX 8000", Some("rtx-8000")),
            ("NVIDIA Graphics Device", None),
            ("日本 ÄÖ", None),
            ("", None),
        ] {
            let found = model_tag(name);
            assert_eq!(found.as_ref().map(Tag::as_str), want, "{name:?}");
        }
        let long = "x".repeat(80);
        assert_eq!(model_tag(&long).unwrap().as_str().len(), MAX_TAG_LENGTH);
    }
}
