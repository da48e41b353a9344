//! Runs `sandhog` with only the environment that a test sets.

use std::path::Path;
use std::process::{Output, Stdio};

use sandhog_testkit::environment;
use tempfile::TempDir;

/// A user without settings, with an empty home folder.
pub(crate) struct User {
    home: TempDir,
    variables: Vec<(String, String)>,
}

impl User {
    pub(crate) fn new() -> Self {
        Self {
            home: tempfile::tempdir().expect("a temporary folder can be made"),
            variables: Vec::new(),
        }
    }

    /// Sets a variable. `~` in its value is replaced by the home folder.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        let value = value.replace('~', self.home_text());
        self.variables.push((name.to_owned(), value));
        self
    }

    /// Writes a file in the home folder.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        let path = self.home.path().join(name);
        let folder = path.parent().expect("a file in the home is in a folder");
        std::fs::create_dir_all(folder).expect("folders can be made in the home");
        std::fs::write(path, text).expect("files can be written in the home");
        self
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Returns the home folder as text.
    pub(crate) fn home_text(&self) -> &str {
        self.home
            .path()
            .to_str()
            .expect("temporary folders have plain names")
    }

    /// Runs `sandhog`. `~` in the words is replaced by the home folder.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        let home = self.home_text();
        environment::sandhog_command()
            .args(words.iter().map(|word| word.replace('~', home)))
            .env_clear()
            .env("HOME", home)
            .env("TMPDIR", home)
            .env("COLUMNS", "100")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(home)
            .stdin(Stdio::null())
            .output()
            .expect("sandhog starts")
    }

    /// Runs `sandhog` and returns the exit code and all output, with the home folder as `~`.
    pub(crate) fn shown(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let mut shown = format!(
            "$ sandhog {}\nexit code {}\n",
            words.join(" "),
            output.status.code().expect("no signal ended it")
        );
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                let text = String::from_utf8_lossy(bytes);
                shown.push_str(&format!("--- {name}\n{text}"));
            }
        }
        shown.replace(self.home_text(), "~")
    }

    /// Runs a command that must succeed, and returns its standard output.
    pub(crate) fn prints(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).expect("sandhog prints text")
    }
}
