//! The catalogue of images that this command knows: those with a folder on this machine, and those
//! that ship with Sandhog.
//!
//! The catalogue chooses an image if the user names none, and suggests one if the named image does
//! not fit. It uses neither Redis nor the container engine, so it does not know which images the
//! workers have; a missing image is reported when the job runs.

use std::path::Path;

use sandhog_config::SandboxSettings;
use sandhog_core::id::ImageName;
use sandhog_core::image::{ImageContract, LanguageSpec};
use sandhog_worker::images::contracts;

/// The image of a job that names no image and whose language selects none.
const DEFAULT_IMAGE: &str = "python";

/// The shipped image that runs each language.
const SHIPPED_IMAGES: [(&str, &str); 5] = [
    ("python", "python"),
    ("bash", "python"),
    ("javascript", "node"),
    ("cpp", "cpp"),
    ("c", "cpp"),
];

/// The languages of common file extensions.
const EXTENSIONS: [(&str, &str); 10] = [
    ("py", "python"),
    ("sh", "bash"),
    ("bash", "bash"),
    ("js", "javascript"),
    ("mjs", "javascript"),
    ("cjs", "javascript"),
    ("cpp", "cpp"),
    ("cc", "cpp"),
    ("cxx", "cpp"),
    ("c", "c"),
];

/// The images that this command knows.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    contracts: Vec<ImageContract>,
}

impl Catalogue {
    /// Reads the contracts of the images that have a folder on this machine.
    #[must_use]
    pub(crate) fn read(settings: &SandboxSettings) -> Self {
        Self {
            contracts: contracts(settings),
        }
    }

    /// Returns the language of a file from its extension: a common extension, or the extension of
    /// the file to which an image on this machine writes the code of a language.
    #[must_use]
    pub(crate) fn language_of(&self, path: &Path) -> Option<String> {
        let ending = path.extension()?.to_str()?;
        if let Some((_, language)) = EXTENSIONS.iter().find(|(known, _)| *known == ending) {
            return Some((*language).to_owned());
        }
        self.contracts
            .iter()
            .flat_map(|contract| &contract.languages)
            .find(|(_, spec)| match spec {
                LanguageSpec::Harness { .. } => false,
                LanguageSpec::File { file, .. } | LanguageSpec::Compiled { file, .. } => {
                    Path::new(file).extension().is_some_and(|own| own == ending)
                }
            })
            .map(|(language, _)| language.clone())
    }

    /// Returns an image that runs a language: the shipped one, otherwise an image on this machine
    /// with this default language, otherwise any image on this machine that runs it.
    #[must_use]
    pub(crate) fn image_for(&self, language: &str) -> Option<ImageName> {
        let shipped = SHIPPED_IMAGES.iter().find(|(known, _)| *known == language);
        if let Some((_, image)) = shipped {
            return image.parse().ok();
        }
        let runs = |contract: &&ImageContract| contract.languages.contains_key(language);
        self.contracts
            .iter()
            .filter(runs)
            .find(|contract| contract.language == language)
            .or_else(|| self.contracts.iter().find(runs))
            .map(|contract| contract.name.clone())
    }

    /// Returns the image for a job that names none.
    #[must_use]
    pub(crate) fn default_image(&self, language: Option<&str>) -> ImageName {
        language
            .and_then(|language| self.image_for(language))
            .unwrap_or_else(|| {
                DEFAULT_IMAGE
                    .parse()
                    .expect("the default image's name is valid")
            })
    }

    /// Returns the sorted names of the images on this machine and of the shipped ones.
    #[must_use]
    pub(crate) fn names(&self) -> Vec<&str> {
        let own = self.contracts.iter().map(|contract| contract.name.as_str());
        let mut names: Vec<&str> = own.chain(SHIPPED_IMAGES.map(|(_, image)| image)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Catalogue {
        let contract = |name: &str, language: &str, rest: &str| {
            let text = format!(
                "contract = 1\nname = \"{name}\"\nsummary = \"\"\nlanguage = \"{language}\"\n{rest}"
            );
            ImageContract::from_toml(&text).unwrap()
        };
        let file = |language: &str, file: &str| {
            format!(
                "[languages.{language}]\nstyle = \"file\"\nfile = \"{file}\"\nargv = [\"/x\"]\n"
            )
        };
        let both = [file("perl", "main.pl"), file("ruby", "main.rb")].concat();
        Catalogue {
            contracts: vec![
                contract("many", "perl", &both),
                contract("ruby", "ruby", &file("ruby", "main.rb")),
            ],
        }
    }

    #[test]
    fn an_ending_names_a_language_and_a_language_an_image() {
        let catalogue = catalogue();
        for (file, language, image) in [
            ("a.py", Some("python"), "python"),
            ("s.sh", Some("bash"), "python"),
            ("a.js", Some("javascript"), "node"),
            ("dir/hello.cpp", Some("cpp"), "cpp"),
            ("hello.c", Some("c"), "cpp"),
            ("a.rb", Some("ruby"), "ruby"),
            ("a.pl", Some("perl"), "many"),
            ("a.unknown", None, "python"),
            ("Makefile", None, "python"),
            ("-", None, "python"),
        ] {
            let found = catalogue.language_of(Path::new(file));
            assert_eq!(found.as_deref(), language, "{file}");
            let chosen = catalogue.default_image(found.as_deref());
            assert_eq!(chosen.as_str(), image, "{file}");
        }
        assert_eq!(catalogue.image_for("cobol"), None);
        assert_eq!(catalogue.names(), ["cpp", "many", "node", "python", "ruby"]);
    }
}
