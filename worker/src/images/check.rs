//! Check of an image: its own check program, run in a real sandbox.

use std::time::{Duration, Instant};

use sandhog_config::SandboxSettings;
use sandhog_core::id::{ImageName, clip};
use sandhog_core::image::ImageContract;
use sandhog_core::job::Job;
use sandhog_protocol::frames::{Features, ProgramEnd};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ImageError;
use crate::execute::{self, Compiled, Plan};
use crate::models;
use crate::sandbox::{Image, Output, Report, Run, Sandbox, SandboxError, Sandboxes};

/// Capacity of the channel for pieces of output.
const OUTPUT_QUEUE_DEPTH: usize = 16;

/// Maximum length of a failed check's output in the error, in characters.
const MAX_SHOWN_OUTPUT: usize = 2000;

/// Result of a check.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckReport {
    /// The image.
    pub image: Image,
    /// The features of kernel and runtime that its sandbox has.
    pub features: Features,
    /// Time until the container was ready.
    pub start: Duration,
    /// Time that the check program took, measured by the worker; `None` if the contract has none.
    pub run: Option<Duration>,
    /// The report of the check program; `None` if the contract has none.
    pub report: Option<Report>,
}

/// Loads the image's model once, as a worker would, and sends its warm-up. Returns the time taken;
/// `None` for an image without a model, or whose model needs a GPU.
///
/// # Errors
/// If the model does not load.
pub async fn check_model(
    sandboxes: &Sandboxes,
    image: &Image,
) -> Result<Option<Duration>, ImageError> {
    match &image.contract.serve {
        Some(serving) if image.contract.gpu.is_none() => {
            let loaded = models::load_once(sandboxes, image, serving).await;
            loaded.map(Some).map_err(|detail| ImageError::Model {
                name: image.name.clone(),
                detail,
            })
        }
        Some(_) | None => Ok(None),
    }
}

/// Checks that the jobs of an image fit into this worker's containers.
///
/// # Errors
/// If the memory of a job that states no limit is above that of a container.
pub fn check_size(contract: &ImageContract, settings: &SandboxSettings) -> Result<(), ImageError> {
    let wanted = contract.default_limits().map(|limits| limits.memory);
    match wanted {
        Ok(wanted) if wanted > settings.memory => Err(ImageError::TooLarge {
            name: contract.name.clone(),
            wanted,
            most: settings.memory,
        }),
        // Limits above the image's own ceiling are reported when a job runs.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Starts a sandbox of the image and runs its contract's check program in it.
///
/// # Errors
/// If the image cannot be used, the sandbox does not start, or the check program does not succeed.
pub async fn check(sandboxes: &Sandboxes, name: &ImageName) -> Result<CheckReport, ImageError> {
    let image = sandboxes.resolve(name).await?;
    let began = Instant::now();
    let mut sandbox = sandboxes.start(&image).await?;
    let start = began.elapsed();
    let features = sandbox.features().clone();
    let ran = match image.contract.check.clone() {
        None => Ok(None),
        Some(source) => {
            let job = Job::code(image.name.clone(), source);
            run_program(&mut sandbox, &image, job).await.map(Some)
        }
    };
    sandbox.destroy().await;
    let (run, report) = ran?.map(|(took, report, _printed)| (took, report)).unzip();
    Ok(CheckReport {
        image,
        features,
        start,
        run,
        report,
    })
}

/// Runs a program that must succeed. Returns the time taken, its report and everything that it
/// printed.
pub(super) async fn run_program(
    sandbox: &mut Sandbox,
    image: &Image,
    job: Job,
) -> Result<(Duration, Report, Vec<u8>), ImageError> {
    let unfit = |error: &dyn std::fmt::Display| ImageError::Check {
        name: image.name.clone(),
        detail: error.to_string(),
    };
    let job = job.check().map_err(|error| unfit(&error))?;
    let limits = image.contract.limits(&job).map_err(|error| unfit(&error))?;
    let plan = Plan::new(&job, image, &limits).map_err(|error| unfit(&error))?;
    let mut run = plan.program;
    if let Some(compiler) = plan.compile {
        match execute::compile(sandbox, compiler, &CancellationToken::new()).await? {
            Compiled::Built(built) => execute::add_compiled_files(&mut run, built),
            Compiled::Failed(report, kept) => {
                let said = String::from_utf8_lossy(&kept.stderr);
                return Err(unfit(&format!(
                    "the compiler ended with {:?}, stopped by {:?}\n{}",
                    report.end,
                    report.stop,
                    clip(&said, MAX_SHOWN_OUTPUT)
                )));
            }
        }
    }
    let began = Instant::now();
    let (report, printed) = run_capturing(sandbox, run).await?;
    let took = began.elapsed();
    if report.end == ProgramEnd::Exited(0)
        && report.stop.is_none()
        && report.answer.exception.is_none()
    {
        return Ok((took, report, printed));
    }
    let exception = report
        .answer
        .exception
        .as_ref()
        .map(|exception| exception.traceback.clone())
        .unwrap_or_default();
    Err(unfit(&format!(
        "it ended with {:?}, stopped by {:?}\n{}",
        report.end,
        report.stop,
        clip(
            &format!("{exception}{}", String::from_utf8_lossy(&printed)),
            MAX_SHOWN_OUTPUT
        ),
    )))
}

/// Runs a program and collects its output, both streams together.
async fn run_capturing(sandbox: &mut Sandbox, run: Run) -> Result<(Report, Vec<u8>), SandboxError> {
    let (sender, mut pieces) = mpsc::channel::<Output>(OUTPUT_QUEUE_DEPTH);
    let never = CancellationToken::new();
    let capture = async {
        let mut printed = Vec::new();
        while let Some((_stream, piece)) = pieces.recv().await {
            printed.extend_from_slice(&piece);
        }
        printed
    };
    let run = async {
        let ended = sandbox.run(run, &sender, &never).await;
        drop(sender);
        ended
    };
    let (ended, printed) = tokio::join!(run, capture);
    Ok((ended?, printed))
}
