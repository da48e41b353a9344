//! CPU, memory and commands that Redis reports.

use std::collections::HashMap;

use anyhow::Context;
use redis::Connection;

/// A connection that reads the statistics of one server.
pub(crate) struct RedisCost {
    connection: Connection,
}

impl RedisCost {
    pub(crate) fn of(url: &str) -> anyhow::Result<Self> {
        let connection = redis::Client::open(url)?.get_connection()?;
        Ok(Self { connection })
    }

    /// Returns the CPU seconds of the server process since it started.
    pub(crate) fn cpu_seconds(&mut self) -> anyhow::Result<f64> {
        let info = self.info("cpu")?;
        Ok(number(&info, "used_cpu_user")? + number(&info, "used_cpu_sys")?)
    }

    /// Returns the number of commands since the server started, including those of scripts.
    pub(crate) fn commands_processed(&mut self) -> anyhow::Result<f64> {
        number(&self.info("stats")?, "total_commands_processed")
    }

    /// Returns the bytes that the server has allocated, including its key table.
    pub(super) fn memory(&mut self) -> anyhow::Result<f64> {
        number(&self.info("memory")?, "used_memory")
    }

    /// Returns the microseconds spent in these commands.
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

    /// Runs any command.
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
