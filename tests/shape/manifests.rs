//! Every crate inherits the lints of the workspace.

use sandhog_testkit::environment::checkout;

use crate::tree::{members, text};

/// Returns whether a manifest asks for the workspace's lints. A crate has them only then.
fn inherits_lints(manifest: &str) -> bool {
    manifest.contains("[lints]\nworkspace = true")
}

#[test]
fn every_crate_inherits_the_lints() {
    for folder in members() {
        let manifest = text(&checkout().join(&folder).join("Cargo.toml"));
        assert!(
            inherits_lints(&manifest),
            "{folder}/Cargo.toml does not inherit the workspace's lints"
        );
    }
}

#[test]
fn a_manifest_without_the_lints_is_found() {
    assert!(inherits_lints("[package]\n\n[lints]\nworkspace = true\n"));
    assert!(!inherits_lints("[package]\nversion.workspace = true\n"));
}
