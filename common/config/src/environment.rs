//! The environment of the process, read once and in one place.
//!
//! An [`Environment`] is a plain value: tests construct their own, programs call
//! [`Environment::current`]. Its `Debug` output shows names only, because variables contain
//! secrets.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

/// Prefix of every setting's variable.
pub(super) const PREFIX: &str = "SANDHOG_";

/// The environment variables of a process.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Environment {
    /// Returns the current variables of this process.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one owner of the environment"
    )]
    pub fn current() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
        }
    }

    /// Returns an environment with these variables.
    #[must_use]
    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        Self {
            variables: variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }

    /// Returns a variable unchanged. An empty one counts as unset.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// Returns a variable as text. A variable that is empty or not UTF-8 counts as unset.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.raw(name).and_then(OsStr::to_str)
    }

    /// Returns a variable as a path. An empty one counts as unset.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.raw(name).map(PathBuf::from)
    }

    /// Returns every variable whose name begins with `SANDHOG_`, empty ones included, sorted by
    /// name. Variables of this project's own tests, `SANDHOG_TEST_…`, are excluded because they are
    /// not settings.
    pub(super) fn ours(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.variables
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value.as_os_str())))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .filter(|(name, _)| !name.starts_with("SANDHOG_TEST_"))
    }

    /// Returns the user's home directory.
    #[must_use]
    pub fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
    }

    /// Returns the directory of the user's settings files: `$XDG_CONFIG_HOME`, else `~/.config`.
    #[must_use]
    pub fn config_home(&self) -> Option<PathBuf> {
        self.xdg("XDG_CONFIG_HOME", ".config")
    }

    /// Returns the directory for the state of the user's programs: `$XDG_STATE_HOME`, else
    /// `~/.local/state`.
    #[must_use]
    pub fn state_home(&self) -> Option<PathBuf> {
        self.xdg("XDG_STATE_HOME", ".local/state")
    }

    /// Returns the directory for temporary files: `$TMPDIR`, else `/tmp`.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.path("TMPDIR").unwrap_or_else(|| "/tmp".into())
    }

    /// Returns whether output to a terminal may have colours: `NO_COLOR` is unset or empty, and
    /// `TERM` is not `dumb`.
    #[must_use]
    pub fn wants_colour(&self) -> bool {
        self.raw("NO_COLOR").is_none() && self.text("TERM") != Some("dumb")
    }

    /// Returns the first executable file called `program` on `$PATH`.
    #[must_use]
    pub fn find_program(&self, program: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        std::env::split_paths(self.raw("PATH")?)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(program))
            .find(|path| {
                path.metadata()
                    .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
            })
    }

    /// Returns a base directory by its variable. A relative path is ignored, as the XDG
    /// specification requires.
    fn xdg(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        self.path(variable)
            .filter(|path| path.is_absolute())
            .or_else(|| self.home().map(|home| home.join(below_home)))
    }
}

/// Returns the folder that contains this program's own file, with symbolic links resolved.
#[must_use]
pub fn program_dir() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let program = program.canonicalize().unwrap_or(program);
    program.parent().map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_directories_follow_the_variables() {
        let none = Environment::default();
        assert_eq!(none.state_home(), None);
        let home = Environment::of([("HOME", "/home/a"), ("XDG_STATE_HOME", "relative")]);
        assert_eq!(home.state_home(), Some("/home/a/.local/state".into()));
        let set = Environment::of([("HOME", "/home/a"), ("XDG_CONFIG_HOME", "/etc/x")]);
        assert_eq!(set.config_home(), Some("/etc/x".into()));
    }

    #[test]
    fn an_empty_variable_is_an_unset_one() {
        let environment = Environment::of([("NO_COLOR", ""), ("TERM", "xterm")]);
        assert!(environment.wants_colour());
        assert!(!Environment::of([("NO_COLOR", "1")]).wants_colour());
        assert!(!Environment::of([("TERM", "dumb")]).wants_colour());
    }

    #[test]
    fn debug_shows_no_values() {
        let environment = Environment::of([("SANDHOG_REDIS_URL", "redis://:hunter2@h")]);
        assert_eq!(format!("{environment:?}"), "{\"SANDHOG_REDIS_URL\"}");
    }
}
