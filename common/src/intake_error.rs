//! Reasons for which an intake entry is refused, each with a stable word for results.

use crate::id::IdError;
use crate::job::JobError;
use crate::outcome::ErrorInfo;
use crate::units::ByteCount;
use crate::wire::WireError;

/// Why an intake entry was refused.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Neither `job` nor `op`.
    #[error("the entry has neither a job nor an op field")]
    NoJob,
    /// All fields of the entry together are above a cap.
    #[error(
        "the entry of {size} is above the cap of {most} for all its fields together, each field counted with 64 bytes more than it holds"
    )]
    EntryTooLarge {
        /// Its bytes.
        size: ByteCount,
        /// The cap.
        most: ByteCount,
    },
    /// Several admitters were given the entry and none settled it.
    #[error("{deliveries} workers were given the entry and none admitted it")]
    NotAdmitted {
        /// The number of these admitters.
        deliveries: u64,
    },
    /// An unknown `op`.
    #[error("unknown op {op:?} (want cancel)")]
    UnknownOp {
        /// The op.
        op: String,
    },
    /// An `op` without its `id`.
    #[error("op {op} needs an id field")]
    OpWithoutId {
        /// The op.
        op: &'static str,
    },
    /// A routing field with a value that it may not have.
    #[error("field {field} {value:?} is not valid (want {want})")]
    Field {
        /// The field's name.
        field: &'static str,
        /// Its value, cut to a bounded length.
        value: String,
        /// The values it may have.
        want: &'static str,
    },
    /// A name that is not one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A payload in neither encoding, or malformed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A payload that asks for something impossible.
    #[error(transparent)]
    Job(#[from] JobError),
}

impl IntakeError {
    /// The stable word for this error in a result.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoJob | Self::UnknownOp { .. } | Self::OpWithoutId { .. } => "bad_entry",
            Self::Field { .. } => "bad_field",
            Self::Id(_) => "bad_id",
            Self::EntryTooLarge { .. } | Self::Wire(WireError::TooLarge { .. }) => {
                "payload_too_large"
            }
            Self::NotAdmitted { .. } => "not_admitted",
            Self::Wire(_) => "bad_payload",
            Self::Job(_) => "bad_job",
        }
    }

    /// The error as a result shows it.
    #[must_use]
    pub fn info(&self) -> ErrorInfo {
        ErrorInfo::new(self.code(), self.to_string())
    }
}
