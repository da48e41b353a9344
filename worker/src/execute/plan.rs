//! The runs and limits of one job in one image.

use sandhog_core::image::FitError;
use sandhog_core::job::CheckedJob;
use sandhog_core::limits::Limits;

use super::compile::{compile_limits, compile_run};
use super::program_run::program_run;
use crate::sandbox::{Image, Run};

/// The runs of one job, and the limits of the container that they need.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The compiler's run, if the language has a compiler.
    pub(crate) compile: Option<Run>,
    /// The program's run. For a compiled language, the compiler's output is added later.
    pub(crate) program: Run,
    /// The larger of the program's and the compiler's limits: both run in the same container, one
    /// after the other.
    pub(crate) limits: Limits,
}

impl Plan {
    /// Plans a job that has these limits in this image.
    ///
    /// # Errors
    /// If the job does not fit the image.
    pub(crate) fn new(job: &CheckedJob, image: &Image, limits: &Limits) -> Result<Self, FitError> {
        let invocation = image.contract.invocation(job)?;
        let compile_limits = compile_limits(&invocation)?;
        let compile_limits = compile_limits.as_ref();
        Ok(Self {
            compile: compile_limits.and_then(|own| compile_run(job, image, &invocation, own)),
            program: program_run(job, image, &invocation, limits),
            limits: container_limits(limits, compile_limits),
        })
    }

    /// Returns the limits that the container of a job needs in this image.
    ///
    /// # Errors
    /// If the job does not fit the image.
    pub(super) fn container_limits(job: &CheckedJob, image: &Image) -> Result<Limits, FitError> {
        let limits = image.contract.limits(job)?;
        let compile_limits = compile_limits(&image.contract.invocation(job)?)?;
        Ok(container_limits(&limits, compile_limits.as_ref()))
    }
}

fn container_limits(program: &Limits, compile: Option<&Limits>) -> Limits {
    match compile {
        Some(compile) => program.at_least(compile),
        None => program.clone(),
    }
}
