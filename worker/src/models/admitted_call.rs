//! Admission of one inference request: checks it against the contract of its image.

use sandhog_core::image::FitError;
use sandhog_core::infer::{Call, InferError, Serving};
use sandhog_core::job::CheckedJob;
use sandhog_core::limits::Limits;
use sandhog_core::outcome::ErrorInfo;
use sandhog_core::units::ByteCount;
use serde_json::Value;

use crate::attempt::ExecutorError;
use crate::sandbox::Image;

/// An inference request that an image can answer.
#[derive(Debug)]
pub(super) struct AdmittedCall<'a> {
    pub(super) call: Call,
    /// The job's input after the image's contract was applied to it.
    pub(super) input: Value,
    pub(super) limits: Limits,
    pub(super) serving: &'a Serving,
}

impl<'a> AdmittedCall<'a> {
    /// Checks the request of `job` against `image`. `memory` is the memory of one container, and
    /// `serves` tells whether this worker serves models at all.
    ///
    /// # Errors
    /// If the image does not serve the request of the job, or this worker serves no models.
    pub(super) fn new(
        image: &'a Image,
        job: &CheckedJob,
        memory: ByteCount,
        serves: bool,
    ) -> Result<Self, ExecutorError> {
        let refuse = |error: InferError| reject(&error.into());
        let call = image.contract.call(job).map_err(refuse)?;
        let limits = image.contract.limits(job).map_err(|error| reject(&error))?;
        if limits.memory > memory {
            return Err(ExecutorError::Rejected(ErrorInfo::new(
                "bad_limits",
                format!(
                    "image {} wants {} of memory, above the {} of one container here",
                    image.name, limits.memory, memory
                ),
            )));
        }
        match &image.contract.serve {
            Some(serving) if serves => Ok(Self {
                call,
                input: serving
                    .input(&image.name, job.input.clone())
                    .map_err(refuse)?,
                limits,
                serving,
            }),
            Some(_) | None => Err(ExecutorError::Fault {
                message: "this worker serves no models (worker.models is 0)".to_owned(),
            }),
        }
    }
}

fn reject(error: &FitError) -> ExecutorError {
    ExecutorError::Rejected(ErrorInfo::new(error.code(), error.to_string()))
}
