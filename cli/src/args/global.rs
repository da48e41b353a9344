//! Options of every command.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use sandhog_config::Flag;

use super::key_value::parse_key_value;

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Read settings only from this file [default: /etc/sandhog/sandhog.toml, then the file in the
    /// user's ~/.config/sandhog]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Use this Redis: redis://[user:password@]host:port[/db] or unix:/path
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// Use the queue of this namespace
    #[arg(long, short, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Change any setting, such as worker.lease_ms=5000 (`sandhog config keys` lists them)
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Log filter, such as debug or sandhog_worker=debug
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Print JSON: one object, or one object per line for each item
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Do not print progress and notes
    #[arg(long, short, global = true, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

impl GlobalArgs {
    /// Returns the flags that change settings.
    #[must_use]
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let named = [
            ("redis.url", &self.redis, "--redis"),
            ("namespace", &self.namespace, "--namespace"),
            ("log.filter", &self.log, "--log"),
        ];
        let named = named
            .into_iter()
            .filter_map(|(key, value, name)| Some((key.to_owned(), value.clone()?, name)));
        let set = self
            .set
            .iter()
            .cloned()
            .map(|(key, value)| (key, value, "--set"));
        set.chain(named)
            .map(|(key, value, name)| Flag {
                key,
                value,
                name: name.to_owned(),
            })
            .collect()
    }
}
