//! GPUs: what a job or an image asks for, and what a worker says of those it has.
//!
//! Which worker may be asked is routing, and stands in a job's class: the tag [`GPU_TAG`], with a model's tag beside it
//! where the model matters. This says how many, and how much of each. It refuses to name a device: which one a job gets
//! is for its worker to say.

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::id::Tag;
use crate::units::ByteCount;

/// The tag of workers that have a GPU, and of jobs that want one.
pub const GPU_TAG: &str = "gpu";

/// The most GPUs one job may ask for.
pub const MAX_GPUS: u32 = 16;

/// What a job or an image asks for of GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuNeed {
    /// How many, 1 to 16; 1 when left out.
    #[serde(default = "one")]
    pub count: u32,
    /// The memory of each that it uses, in bytes. Where the worker shares its GPUs, jobs that say so may share one; a
    /// job that says nothing has its GPUs to itself.
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

/// A need that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuNeedError {
    /// None, or more than one job may have.
    #[error("gpu.count {count} is not valid (want 1 to {MAX_GPUS})")]
    Count {
        /// What was asked for.
        count: u32,
    },
    /// No memory at all.
    #[error("gpu.memory is 0 (want at least 1 byte; leave it out for whole GPUs)")]
    NoMemory,
    /// A GPU is wanted, and the class may be claimed by workers that have none.
    #[error(
        "image or job wants a GPU, and class {class} does not ask for one (want the tag {GPU_TAG} in it)"
    )]
    NotRouted {
        /// The job's class.
        class: Class,
    },
}

impl GpuNeedError {
    /// The stable word for this error in a result.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Count { .. } | Self::NoMemory => "bad_gpu",
            Self::NotRouted { .. } => "gpu_not_routed",
        }
    }
}

impl GpuNeed {
    /// Checks the numbers.
    ///
    /// # Errors
    /// Names the first that cannot be meant.
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

/// The tag [`GPU_TAG`].
///
/// # Panics
/// Never: it is a literal.
#[must_use]
pub fn gpu_tag() -> Tag {
    GPU_TAG.parse().expect("a literal tag is valid")
}

/// The class of jobs that want a GPU and nothing else.
///
/// # Panics
/// Never: it is a literal.
#[must_use]
pub fn gpu_class() -> Class {
    GPU_TAG.parse().expect("a literal tag is a class")
}

/// One GPU of a worker, as it says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuFacts {
    /// What the driver calls it, in this machine and after a restart too.
    pub uuid: String,
    /// What its maker calls it.
    pub name: String,
    /// The tag of its model, such as `h100`; none where the name gives none.
    pub tag: Option<Tag>,
    /// Its memory.
    pub memory: ByteCount,
    /// How much of it is in use, by whomever.
    pub memory_used: ByteCount,
    /// How much of the last moment it computed, in percent; none where the driver does not say.
    pub utilisation_percent: Option<u32>,
    /// Jobs and model servers that have it.
    pub assigned: u32,
    /// Why it is given to nobody any more; none while it is well.
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
