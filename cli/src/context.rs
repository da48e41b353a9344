//! The context of a command: settings, environment and output.

use sandhog_config::{Environment, Loaded};

use crate::output::Printer;

/// The context of a command.
#[derive(Debug)]
pub(crate) struct AppContext {
    /// The settings in force.
    pub(crate) loaded: Loaded,
    /// The environment they were read from.
    pub(crate) environment: Environment,
    /// The output streams.
    pub(crate) output: Printer,
}

impl AppContext {
    /// Returns whether this key has its default value because no source sets it.
    #[must_use]
    pub(crate) fn is_default(&self, key: &str) -> bool {
        let entry = self.loaded.entries.iter().find(|entry| entry.key == key);
        entry.is_some_and(|entry| entry.origin == "default")
    }
}
