//! The base image: a minimal Debian 12, built from Debian's own packages.
//!
//! No container registry is involved: `mmdebstrap` downloads signed packages from Debian's mirrors,
//! and the builder imports the tree. An operator who prefers another base gives it this name: an
//! image without this module's label is left as it is.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::output_tail::OutputTail;
use super::{BuildEvent, ImageError};
use crate::sandbox::{Digest, ImageBuilder};

/// The base's reference, as Dockerfiles name it.
pub(super) const BASE_REFERENCE: &str = "sandhog/base-bookworm:latest";

/// Label for the hash of the recipe that it was built from.
const RECIPE_LABEL: &str = "sandhog.base";

/// Program that makes the tree.
const TOOL: &str = "mmdebstrap";

/// Note shown to people when the base is built.
const BASE_NOTE: &str = "made from Debian 12 packages with mmdebstrap, since no container registry \
                    is used; this takes a minute and is done once";

/// The recipe: its own hash in the first line, then one argument of the tool per line. It is a file
/// because `scripts/quickstart` also builds the base from it, while this program is still being
/// compiled.
///
/// The arguments select a minimal Debian, without manuals, translations and documentation except
/// the licences. The excluded files stay excluded when a Dockerfile installs more packages.
const RECIPE: &str = include_str!("base.recipe");

/// Returns the base's digest. Builds the base if it is missing or was built from another recipe.
pub(super) async fn ensure_base(
    builder: &dyn ImageBuilder,
    progress: &mut (dyn FnMut(BuildEvent) + Send),
) -> Result<Digest, ImageError> {
    let recipe = recipe_hash();
    if let Some(found) = builder.labelled(BASE_REFERENCE).await? {
        let has_other_recipe = found
            .labels
            .get(RECIPE_LABEL)
            .is_some_and(|label| label != recipe);
        if !has_other_recipe {
            return Ok(found.digest);
        }
    }
    progress(BuildEvent::Base {
        reference: BASE_REFERENCE.to_owned(),
        note: BASE_NOTE.to_owned(),
    });
    let dir = tempfile::Builder::new()
        .prefix("sandhog-base-")
        .tempdir()
        .map_err(|source| ImageError::Read {
            path: std::env::temp_dir(),
            source,
        })?;
    let archive = dir.path().join("base.tar");
    make_tree(&archive, progress).await?;
    let changes = vec![
        format!("LABEL {RECIPE_LABEL}={recipe}"),
        "CMD [\"/bin/bash\"]".to_owned(),
    ];
    builder.import(&archive, BASE_REFERENCE, changes).await?;
    match builder.labelled(BASE_REFERENCE).await? {
        Some(made) => Ok(made.digest),
        None => Err(ImageError::Base {
            detail: "the engine has no such image after importing it".to_owned(),
            missing_tool: false,
        }),
    }
}

/// Returns the hash of the recipe, which the image's label repeats.
fn recipe_hash() -> &'static str {
    RECIPE.lines().next().unwrap_or_default()
}

/// Returns the tool's arguments.
fn tool_arguments() -> impl Iterator<Item = &'static str> {
    RECIPE.lines().skip(1)
}

/// Makes the tree of the base as a tar archive.
async fn make_tree(
    archive: &Path,
    progress: &mut (dyn FnMut(BuildEvent) + Send),
) -> Result<(), ImageError> {
    let mut tool = Command::new(TOOL)
        .args(tool_arguments())
        .arg("bookworm")
        .arg(archive)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| ImageError::Base {
            detail: format!("{TOOL} could not be started: {error}"),
            missing_tool: error.kind() == std::io::ErrorKind::NotFound,
        })?;
    let mut tail = OutputTail::default();
    if let Some(stderr) = tool.stderr.take() {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            tail.push(&line);
            progress(BuildEvent::Line { name: None, line });
        }
    }
    match tool.wait().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(ImageError::Base {
            detail: format!("{TOOL} ended with {status}{tail}"),
            missing_tool: false,
        }),
        Err(error) => Err(ImageError::Base {
            detail: format!("{TOOL} could not be waited for: {error}"),
            missing_tool: false,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::Fingerprint;
    use super::*;

    #[test]
    fn the_recipe_states_its_own_hash() {
        let hash = tool_arguments()
            .fold(Fingerprint::default(), |sum, argument| {
                sum.part("argument", argument.as_bytes())
            })
            .finish();
        assert_eq!(
            recipe_hash(),
            hash,
            "the first line of base.recipe is the hash of the others"
        );
    }
}
