//! The GPUs that a job or an image requests, and the GPUs that a worker reports.
//!
//! A job's class selects the workers that may run it: by the tag [`GPU_TAG`], and by a model's tag
//! if the model matters. This module holds the number of GPUs and the memory of each. It names no
//! device: the worker chooses which GPU a job gets.

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::id::Tag;
use crate::units::ByteCount;

/// Tag of workers that have a GPU, and of jobs that need one.
pub const GPU_TAG: &str = "gpu";

/// Maximum number of GPUs for one job.
pub const MAX_GPUS: u32 = 16;

/// The GPUs that a job or an image requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuNeed {
    /// Number of GPUs, 1 to 16. Default 1.
    #[serde(default = "one")]
    pub count: u32,
    /// Memory of each GPU that the job uses, in bytes. Where the worker shares its GPUs, jobs that
    /// set this may share one GPU; a job that leaves it out has its GPUs to itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteCount>,
}

const fn one() -> u32 {
    1
}

impl Default for GpuNeed {
    fn default() -> Self {
        Self {
            count: one(),
            memory: None,
        }
    }
}

/// An invalid [`GpuNeed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuNeedError {
    /// The number of GPUs is zero or above the maximum.
    #[error("gpu.count {count} is not valid (want 1 to {MAX_GPUS})")]
    Count {
        /// The number that was requested.
        count: u32,
    },
    /// The memory is zero.
    #[error("gpu.memory is 0 (want at least 1 byte; leave it out for whole GPUs)")]
    NoMemory,
    /// The job or its image needs a GPU, but workers without a GPU may claim its class.
    #[error("the job or its image needs a GPU, but class {class} does not have the tag {GPU_TAG}")]
    NotRouted {
        /// The job's class.
        class: Class,
    },
}

impl GpuNeedError {
    /// Returns the stable error code for results.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Count { .. } | Self::NoMemory => "bad_gpu",
            Self::NotRouted { .. } => "gpu_not_routed",
        }
    }
}

impl GpuNeed {
    /// Checks the number of GPUs and their memory.
    ///
    /// # Errors
    /// Names the first invalid value.
    pub fn check(&self) -> Result<(), GpuNeedError> {
        if !(1..=MAX_GPUS).contains(&self.count) {
            return Err(GpuNeedError::Count { count: self.count });
        }
        if self.memory == Some(ByteCount(0)) {
            return Err(GpuNeedError::NoMemory);
        }
        Ok(())
    }
}

/// Returns the tag [`GPU_TAG`].
///
/// # Panics
/// Never: the text is a literal.
#[must_use]
pub fn gpu_tag() -> Tag {
    GPU_TAG.parse().expect("a literal tag is valid")
}

/// Returns the class of jobs that need a GPU and nothing else.
///
/// # Panics
/// Never: the text is a literal.
#[must_use]
pub fn gpu_class() -> Class {
    GPU_TAG.parse().expect("a literal tag is a class")
}

/// One GPU, as its worker reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuFacts {
    /// The driver's name for the GPU. It is unique in this machine and stays the same after a
    /// restart.
    pub uuid: String,
    /// The product name.
    pub name: String,
    /// The tag of its model, such as `h100`; none if the product name yields no tag.
    pub tag: Option<Tag>,
    /// Total memory.
    pub memory: ByteCount,
    /// Memory in use, by any process.
    pub memory_used: ByteCount,
    /// Share of the last sampling period in which the GPU computed, in percent; none if the driver
    /// does not report it.
    pub utilisation_percent: Option<u32>,
    /// Number of jobs and model servers that hold the GPU.
    pub assigned: u32,
    /// Reason why the worker no longer assigns the GPU; none while it is healthy.
    pub failure: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_reads_and_is_checked() {
        let parse = |json: &str| serde_json::from_str::<GpuNeed>(json).unwrap();
        assert_eq!(parse("{}"), GpuNeed::default());
        let shared = parse(r#"{"memory":"4GiB"}"#);
        assert_eq!(
            (shared.count, shared.memory),
            (1, Some(ByteCount::mib(4096)))
        );
        assert_eq!(shared.check(), Ok(()));
        for (case, json, want) in [
            ("none", r#"{"count":0}"#, GpuNeedError::Count { count: 0 }),
            ("many", r#"{"count":17}"#, GpuNeedError::Count { count: 17 }),
            ("no memory", r#"{"memory":0}"#, GpuNeedError::NoMemory),
        ] {
            assert_eq!(parse(json).check(), Err(want), "case {case}");
        }
        let class: Class = "cpu".parse().unwrap();
        let error = GpuNeedError::NotRouted { class };
        assert_eq!(error.code(), "gpu_not_routed");
        assert!(error.to_string().contains("class cpu"), "{error}");
    }
}
