//! The frames from the worker to the keeper.

use serde::{Deserialize, Serialize};

/// The most bytes in a frame from the worker to the keeper, without the length prefix.
pub const MAX_REQUEST: usize = 64 << 10;

/// The largest [`ZygoteProgram::size`].
pub const MAX_ZYGOTE: usize = 60 << 10;

/// The most bytes that a text takes in a frame in addition to its own.
const TEXT_OVERHEAD: usize = 5;

/// The most bytes in the name of a sandbox.
pub const MAX_NAME: usize = 64;

/// The most GPUs in an [`Open`].
pub const MAX_GPUS: usize = 16;

/// A frame from the worker to the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToKeeper {
    /// Makes a sandbox and gives it this connection.
    Open(Open),
    /// Requests the state of a sandbox. The keeper sends
    /// [`FromKeeper::State`](super::FromKeeper::State).
    Ask {
        /// The name from [`FromKeeper::Opened`](super::FromKeeper::Opened).
        sandbox: String,
    },
}

/// The caps of a sandbox, and the zygote that it uses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Open {
    /// Memory of the sandbox with all its cells, in bytes.
    pub memory_bytes: u64,
    /// CPU share, in thousandths of a core.
    pub cpu_millis: u64,
    /// Processes and threads that may exist at the same time, the runner's included.
    pub pids: u32,
    /// UUIDs of the GPUs that the sandbox gets.
    #[serde(default)]
    pub gpus: Vec<String>,
    /// The zygote that the worker will have the runner start, if the sandbox is to share the
    /// keeper's.
    #[serde(default)]
    pub zygote: Option<ZygoteProgram>,
}

/// The program of a keeper's zygote. The keeper starts it for the first sandbox that has one.
/// Sandboxes with the same program share it. A runner whose sandbox has another program, or none,
/// starts a zygote of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ZygoteProgram {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The environment, in addition to a cell's own.
    pub env: Vec<(String, String)>,
    /// The modules that the zygote imports.
    pub imports: Vec<String>,
    /// CPU share of most programs, in thousandths of a core. It determines how many threads the
    /// libraries of the zygote prepare.
    pub cpu_millis: u64,
}

impl ToKeeper {
    /// Checks the sizes and ranges that decoding leaves open.
    ///
    /// # Errors
    /// With the field, its value and the allowed values.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Ask { sandbox } if sandbox.len() > MAX_NAME => Err(format!(
                "`sandbox` has {} bytes; at most {MAX_NAME} are allowed",
                sandbox.len()
            )),
            Self::Ask { .. } => Ok(()),
            Self::Open(open) => open.check(),
        }
    }
}

impl Open {
    /// The least memory of a sandbox, in bytes. A runner and a small cell fit into it.
    pub const MIN_MEMORY: u64 = 8 << 20;

    /// The fewest processes of a sandbox: the runner, the init of a cell, and its program.
    pub const MIN_PIDS: u32 = 4;

    fn check(&self) -> Result<(), String> {
        let least = |name: &str, value: u64, least: u64| {
            if value < least {
                Err(format!("`{name}` is {value}; at least {least} is required"))
            } else {
                Ok(())
            }
        };
        least("memory_bytes", self.memory_bytes, Self::MIN_MEMORY)?;
        least("cpu_millis", self.cpu_millis, 1)?;
        least("pids", self.pids.into(), Self::MIN_PIDS.into())?;
        if self.gpus.len() > MAX_GPUS {
            return Err(format!(
                "`gpus` has {} entries; at most {MAX_GPUS} are allowed",
                self.gpus.len()
            ));
        }
        self.zygote.as_ref().map_or(Ok(()), ZygoteProgram::check)
    }
}

impl ZygoteProgram {
    /// Returns the most bytes that its texts take in a frame.
    #[must_use]
    pub fn size(&self) -> usize {
        let env = self.env.iter().flat_map(|(name, value)| [name, value]);
        let texts = self.argv.iter().chain(env).chain(&self.imports);
        texts.map(|text| text.len() + TEXT_OVERHEAD).sum()
    }

    fn check(&self) -> Result<(), String> {
        if self.argv.is_empty() {
            return Err("`zygote.argv` is empty; the program is required".to_owned());
        }
        let bytes = self.size();
        if bytes > MAX_ZYGOTE {
            return Err(format!(
                "`zygote` has {bytes} bytes; at most {MAX_ZYGOTE} are allowed"
            ));
        }
        Ok(())
    }
}
