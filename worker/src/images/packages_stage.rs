//! Build stage that adds the Python packages of an `image.toml`. pip runs in a separate stage, and
//! only the packages are copied into the image.

use sandhog_core::image::{ImageContract, LanguageSpec};

use super::context::ContextFile;
use super::source::DOCKERFILE;

/// Program that installs the packages, run by the image's own interpreter.
const INSTALL: &str = include_str!("install.py");

/// Interpreter of an image whose contract names none.
const PYTHON: &str = "/usr/bin/python3";

/// Pattern for the file with the certificate authorities of the building machine. A pattern, so
/// that the copy does not fail if the file does not exist.
const OPTIONAL_AUTHORITIES: &str = "host-certificates.cr[t]";

/// Returns the files of the stage, including its Dockerfile. The stage starts from the image
/// `from`.
pub(super) fn packages_stage(contract: &ImageContract, from: &str) -> Vec<ContextFile> {
    let requirements = contract.python.packages.join("\n") + "\n";
    vec![
        ContextFile::text(DOCKERFILE, dockerfile(interpreter(contract), from)),
        ContextFile::text("install.py", INSTALL),
        ContextFile::text("requirements.txt", requirements),
    ]
}

/// Returns the interpreter of the language `python`.
fn interpreter(contract: &ImageContract) -> &str {
    let argv = match contract.languages.get("python") {
        Some(LanguageSpec::Harness { argv, .. } | LanguageSpec::File { argv, .. }) => argv,
        Some(LanguageSpec::Compiled { .. }) | None => return PYTHON,
    };
    argv.first().map_or(PYTHON, String::as_str)
}

/// Returns the stage's Dockerfile. It installs pip before it copies the requirements, so that the
/// engine's cached step serves other requirements too.
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
        let files = packages_stage(&contract, "sha256:1");
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
