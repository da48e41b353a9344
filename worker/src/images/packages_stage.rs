//! The stage that adds the Python packages of an `image.toml`: pip works in a stage of its own, and
//! only the packages go on.

use sandhog_common::image::{ImageContract, LanguageSpec};

use super::context::File;
use super::source::DOCKERFILE;

/// The program that installs them, run by the image's own interpreter.
const INSTALL: &str = include_str!("install.py");

/// The interpreter of an image whose contract names none.
const PYTHON: &str = "/usr/bin/python3";

/// The file of the building machine's authorities, which is copied where it is there.
const OPTIONAL_AUTHORITIES: &str = "host-certificates.cr[t]";

/// The files of the stage, its Dockerfile included. It starts from the image `from`.
pub(super) fn files(contract: &ImageContract, from: &str) -> Vec<File> {
    let requirements = contract.python.packages.join("\n") + "\n";
    vec![
        File::text(DOCKERFILE, dockerfile(interpreter(contract), from)),
        File::text("install.py", INSTALL),
        File::text("requirements.txt", requirements),
    ]
}

/// The program of the language `python`.
fn interpreter(contract: &ImageContract) -> &str {
    let argv = match contract.languages.get("python") {
        Some(LanguageSpec::Harness { argv, .. } | LanguageSpec::File { argv, .. }) => argv,
        Some(LanguageSpec::Compiled { .. }) | None => return PYTHON,
    };
    argv.first().map_or(PYTHON, String::as_str)
}

/// pip is fetched before the requirements are copied, so that the engine need not fetch it again
/// for others.
fn dockerfile(python: &str, from: &str) -> String {
    format!(
        "FROM {from} AS packages\n\
         USER 0:0\n\
         RUN apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends \
         python3-pip-whl\n\
         COPY install.py requirements.txt {OPTIONAL_AUTHORITIES} /build/\n\
         RUN [\"{python}\", \"-s\", \"/build/install.py\"]\n\
         FROM {from}\n\
         USER 0:0\n\
         COPY --from=packages /built/ /\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_uses_the_languages_own_interpreter() {
        let contract = ImageContract::from_toml(
            "contract = 1\nname = \"a\"\nsummary = \"\"\nlanguage = \"python\"\n\
             python = { packages = [\"b==1\", \"c\"] }\n\
             [languages.python]\nstyle = \"harness\"\nargv = [\"/opt/python\", \"harness.py\"]\n",
        )
        .unwrap();
        let files = files(&contract, "sha256:1");
        let text = |name: &str| {
            let file = files.iter().find(|file| file.path == name).unwrap();
            String::from_utf8(file.bytes.clone()).unwrap()
        };
        assert_eq!(text("requirements.txt"), "b==1\nc\n");
        let dockerfile = text("Dockerfile");
        assert!(
            dockerfile.contains("RUN [\"/opt/python\", \"-s\""),
            "{dockerfile}"
        );
        assert!(
            dockerfile.contains("host-certificates.cr[t] /build/"),
            "{dockerfile}"
        );
        assert_eq!(dockerfile.matches("FROM sha256:1").count(), 2);
    }
}
