//! What Redis says it has spent.

use std::collections::HashMap;

use anyhow::Context;
use redis::Connection;

/// Asks one server.
pub(crate) struct RedisCost {
    connection: Connection,
}

impl RedisCost {
    pub(crate) fn of(url: &str) -> anyhow::Result<Self> {
        let connection = redis::Client::open(url)?.get_connection()?;
        Ok(Self { connection })
    }

    /// CPU seconds of the server process since it started.
    pub(crate) fn cpu_seconds(&mut self) -> anyhow::Result<f64> {
        let info = self.info("cpu")?;
        Ok(number(&info, "used_cpu_user")? + number(&info, "used_cpu_sys")?)
    }

    /// Commands it has run since it started, those of scripts included.
    pub(crate) fn commands_processed(&mut self) -> anyhow::Result<f64> {
        number(&self.info("stats")?, "total_commands_processed")
    }

    /// Bytes it has allocated, its key table included.
    pub(super) fn memory(&mut self) -> anyhow::Result<f64> {
        number(&self.info("memory")?, "used_memory")
    }

    /// Microseconds spent in these commands, and how often they were called.
    pub(super) fn commands(&mut self, names: &[&str]) -> anyhow::Result<f64> {
        let info = self.info("commandstats")?;
        let mut spent = 0.0;
        for name in names {
            let Some(stat) = info.get(&format!("cmdstat_{name}")) else {
                continue;
            };
            let usec = stat.split(',').find_map(|part| part.strip_prefix("usec="));
            spent += usec.context("a command's time is told")?.parse::<f64>()?;
        }
        Ok(spent)
    }

    /// Any command.
    pub(crate) fn ask<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> anyhow::Result<T> {
        let (command, rest) = words.split_first().context("a command has a name")?;
        Ok(redis::cmd(command).arg(rest).query(&mut self.connection)?)
    }

    fn info(&mut self, section: &str) -> anyhow::Result<HashMap<String, String>> {
        let text: String = self.ask(&["INFO", section])?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect())
    }
}

fn number(info: &HashMap<String, String>, name: &str) -> anyhow::Result<f64> {
    info.get(name)
        .with_context(|| format!("redis does not tell {name}"))?
        .parse()
        .with_context(|| format!("{name} is a number"))
}
