//! An `image.toml` that extends another image's contract: it contains only the differences.

use serde::Deserialize;
use toml::{Table, Value};

use super::contract::{ContractError, ImageContract, syntax};
use crate::id::ImageName;

/// Keys of a contract that are never inherited.
const OWN_KEYS: [&str; 3] = ["name", "summary", "python"];

/// Key that names the image whose contract is extends.
const EXTENDS: &str = "extends";

/// Returns the image whose contract this `image.toml` extends, if it extends one.
///
/// # Errors
/// Fails if the text is not TOML, or `extends` is not the name of an image.
pub fn extends(text: &str) -> Result<Option<ImageName>, ContractError> {
    #[derive(Deserialize)]
    struct Head {
        extends: Option<ImageName>,
    }
    let head: Head = toml::from_str(text).map_err(|error| syntax(&error))?;
    Ok(head.extends)
}

impl ImageContract {
    /// Parses an `image.toml` that extends `parent`. Each key that it leaves out has the parent's
    /// value, except the name, the summary and the packages. The parent's check program is
    /// inherited only if the default language is.
    ///
    /// # Errors
    /// Fails if the text does not parse or the contract is inconsistent.
    pub fn from_toml_extending(text: &str, parent: &Self) -> Result<Self, ContractError> {
        let mut own: Table = toml::from_str(text).map_err(|error| syntax(&error))?;
        own.remove(EXTENDS);
        let mut whole = Table::try_from(parent).map_err(|error| syntax(&error))?;
        for key in OWN_KEYS {
            whole.remove(key);
        }
        if own.contains_key("language") {
            whole.remove("check");
        }
        whole.insert("summary".to_owned(), Value::String(summary(&own, parent)));
        merge(&mut whole, own);
        let contract: Self = whole.try_into().map_err(|error| syntax(&error))?;
        contract.checked()
    }
}

/// Returns the summary of an image that sets none.
fn summary(own: &Table, parent: &ImageContract) -> String {
    let packages: Vec<&str> = own
        .get("python")
        .and_then(|python| python.get("packages")?.as_array())
        .map(|packages| packages.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if packages.is_empty() {
        format!("{}, changed", parent.summary)
    } else {
        format!("{}; and {}", parent.summary, packages.join(", "))
    }
}

/// Merges `own` into `whole`, table by table. A table with a `style` replaces the parent's table as
/// a whole, because its other keys depend on the style.
fn merge(whole: &mut Table, own: Table) {
    for (key, value) in own {
        match (whole.get_mut(&key), value) {
            (Some(Value::Table(whole)), Value::Table(own)) if !own.contains_key("style") => {
                merge(whole, own);
            }
            (_, value) => {
                whole.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::LanguageSpec;

    fn parent() -> ImageContract {
        ImageContract::from_toml(
            r#"
            contract = 1
            name = "datascience"
            summary = "Python with numpy"
            language = "python"
            check = "import numpy"
            python = { packages = ["numpy"] }
            [languages.python]
            style = "harness"
            argv = ["/usr/bin/python3", "/usr/lib/sandhog/harness.py"]
            zygote = { argv = ["/usr/bin/python3", "/usr/lib/sandhog/zygote.py"], imports = ["numpy"] }
            [languages.bash]
            style = "file"
            file = "main.sh"
            argv = ["/bin/bash", "main.sh"]
            [env]
            MPLBACKEND = "Agg"
            OMP_NUM_THREADS = "1"
            [limits]
            memory = "1GiB"
            [ceiling]
            memory = "2GiB"
            "#,
        )
        .unwrap()
    }

    fn child(text: &str) -> Result<ImageContract, ContractError> {
        let text = format!("contract = 1\nname = \"geo\"\nextends = \"datascience\"\n{text}");
        assert_eq!(
            extends(&text).unwrap(),
            Some("datascience".parse().unwrap())
        );
        ImageContract::from_toml_extending(&text, &parent())
    }

    #[test]
    fn a_child_has_all_of_its_parent_but_its_identity() {
        let geo = child("python = { packages = [\"shapely==2.1\"] }").unwrap();
        assert_eq!(geo.name.as_str(), "geo");
        assert_eq!(geo.summary, "Python with numpy; and shapely==2.1");
        assert_eq!(geo.python.packages, ["shapely==2.1"]);
        let parent = parent();
        assert_eq!(geo.languages, parent.languages);
        assert_eq!(geo.env, parent.env);
        assert_eq!(geo.check, parent.check);
        assert_eq!((geo.limits, geo.ceiling), (parent.limits, parent.ceiling));
        let plain = child("summary = \"mine\"").unwrap();
        assert_eq!(plain.summary, "mine");
        assert!(plain.python.packages.is_empty());
    }

    #[test]
    fn a_child_changes_single_keys() {
        let geo = child(
            "[languages.python.zygote]\nimports = [\"numpy\", \"shapely\"]\n\
             [env]\nOMP_NUM_THREADS = \"2\"\n[limits]\nmemory = \"512MiB\"",
        )
        .unwrap();
        let (zygote, _) = geo.zygote().unwrap();
        assert_eq!(zygote.imports, ["numpy", "shapely"]);
        assert_eq!(
            zygote.argv,
            ["/usr/bin/python3", "/usr/lib/sandhog/zygote.py"]
        );
        assert_eq!(geo.env["MPLBACKEND"], "Agg");
        assert_eq!(geo.env["OMP_NUM_THREADS"], "2");
        assert_ne!(geo.limits, parent().limits);
        assert_eq!(geo.ceiling, parent().ceiling);
    }

    #[test]
    fn a_style_of_its_own_replaces_the_parents_language() {
        let geo = child(
            "[languages.python]\nstyle = \"file\"\nfile = \"main.py\"\n\
             argv = [\"/usr/bin/python3\", \"main.py\"]",
        )
        .unwrap();
        assert!(matches!(geo.languages["python"], LanguageSpec::File { .. }));
        let other = child("language = \"bash\"").unwrap();
        assert_eq!(other.check, None, "it is written in the parent's language");
    }

    #[test]
    fn a_child_that_does_not_hold_together_is_refused() {
        for (case, text, said) in [
            ("unknown key", "sumary = \"\"", "unknown field `sumary`"),
            ("wrong type", "env = 1", "env"),
            ("no such language", "language = \"perl\"", "\"perl\""),
            (
                "an option of pip",
                "python = { packages = [\"--index-url=x\"] }",
                "\"--index-url=x\"",
            ),
            (
                "two in one",
                "python = { packages = [\"a\\nb\"] }",
                "\"a\\nb\"",
            ),
            (
                "unknown key of python",
                "python = { package = [] }",
                "package",
            ),
        ] {
            let error = child(text).unwrap_err().to_string();
            assert!(error.contains(said), "case {case}: {error}");
        }
    }
}
