//! The reasons for which an intake entry is rejected, each with a stable error code for results.

use crate::id::IdError;
use crate::job::JobError;
use crate::outcome::ErrorInfo;
use crate::units::ByteCount;
use crate::wire::WireError;

/// The reason why an intake entry is rejected.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The entry has neither `job` nor `op`.
    #[error("the entry has neither a job nor an op field")]
    NoJob,
    /// The fields of the entry together are larger than the cap.
    #[error(
        "the entry's fields have {size} in total, 64 bytes added for each (want at most {most})"
    )]
    EntryTooLarge {
        /// The size of all fields, with 64 bytes added for each.
        size: ByteCount,
        /// The cap.
        most: ByteCount,
    },
    /// The entry was delivered to several admitters, and none settled it.
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
    /// A routing field has an invalid value.
    #[error("field {field} {value:?} is not valid (want {want})")]
    Field {
        /// The field's name.
        field: &'static str,
        /// Its value, cut to a bounded length.
        value: String,
        /// The values it may have.
        want: &'static str,
    },
    /// A name is invalid.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The payload is in neither encoding, too large or malformed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The payload parses, but the job is invalid.
    #[error(transparent)]
    Job(#[from] JobError),
}

impl IntakeError {
    /// Returns the stable error code for results.
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

    /// Returns the error as it stands in a result.
    #[must_use]
    pub fn info(&self) -> ErrorInfo {
        ErrorInfo::new(self.code(), self.to_string())
    }
}
