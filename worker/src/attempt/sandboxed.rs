//! The production executor: runs each job in a fresh cell of a warm sandbox.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use sandhog_common::id::ImageName;
use sandhog_common::image::FitError;
use sandhog_common::job::{Job, Kind};
use sandhog_common::limits::Limits;
use sandhog_common::outcome::{ErrorInfo, Fault, JobResult, Outcome, Stage};
use sandhog_common::queue::LogStream;
use sandhog_common::size::Size;
use sandhog_common::units::ByteCount;
use sandhog_runner::protocol::{Hurry, Program, Questions, Run, Stop, Stream};
use tokio::sync::mpsc;

use super::compile::{self, Compiled};
use super::executor::{Attempt, Execution, Executor, ExecutorError};
use super::request::{check_size, request};
use super::verdict::{self, Kept};
use crate::causes::with_causes;
use crate::gpu::{GPUS_VARIABLE, Gpus, Grant};
use crate::models::{Answering, Models};
use crate::pool::{Lent, Pool, Want};
use crate::sandbox::{Desk, Engine, SandboxError, Shape};
use crate::secrets::{SecretError, Secrets};

/// Capacity of the channel between the container's output and the log.
const OUTPUT_WAITING: usize = 32;

/// Timeout for looking up images while jobs are admitted.
const LOOK: Duration = Duration::from_secs(1);

/// Runs jobs in sandboxes.
#[derive(Debug)]
pub struct SandboxExecutor {
    engine: Engine,
    pool: Pool,
    models: Models,
    gpus: Gpus,
    secrets: Secrets,
    /// Maximum memory of one container.
    memory: ByteCount,
    /// Maximum number of bytes in one result.
    max_result: ByteCount,
}

/// The runs that one job needs.
#[derive(Debug)]
struct Stages {
    /// The compiler's run, if the language has a compiler.
    build: Option<Run>,
    /// The program's run.
    run: Run,
}

impl SandboxExecutor {
    /// Creates an executor. It takes sandboxes from `pool`, GPUs from `gpus` and the secrets of
    /// programs from `secrets`, and `models` answers the inference requests of programs. `memory`
    /// is the memory of one container, which no job may exceed; `max_result` is the limit for the
    /// bytes in a result.
    #[must_use]
    pub fn new(
        engine: Engine,
        pool: Pool,
        models: Models,
        gpus: Gpus,
        secrets: Secrets,
        memory: ByteCount,
        max_result: ByteCount,
    ) -> Self {
        Self {
            engine,
            pool,
            models,
            gpus,
            secrets,
            memory,
            max_result,
        }
    }

    async fn run(
        &self,
        want: &mut Want,
        limits: &Limits,
        Stages { build, mut run }: Stages,
        desk: Option<(Questions, Desk, Answering)>,
        grant: Option<Grant>,
        attempt: Attempt,
    ) -> Result<(JobResult, bool), SandboxError> {
        let acquiring = attempt.trace.step("sandbox");
        let mut sandbox = match self.take(want, limits).await {
            Ok(sandbox) => sandbox,
            Err(error) => {
                acquiring.fail(error.code());
                return Err(error);
            }
        };
        drop(acquiring);
        let lost = lost(grant.as_ref());
        if let Some(grant) = grant {
            sandbox.keep(grant);
        }
        let stage = build.as_ref().map(|_build| Stage::Run);
        if let Some(build) = build {
            let compiling = attempt.trace.step("compile");
            let compiled = compile::compile(&mut sandbox, build, attempt.interrupted.token()).await;
            match compiled {
                Ok(Compiled::Built(built)) => {
                    compile::hand_over(&mut run, built);
                    if let Err(error) = check_size(&run) {
                        self.pool.give_back(sandbox, false, None);
                        let result = JobResult {
                            stage: Some(Stage::Compile),
                            ..JobResult::with_error(attempt.id, Outcome::Failed, error)
                        };
                        return Ok((result, false));
                    }
                }
                Ok(Compiled::Failed(report, kept)) => {
                    let holds = report.container_memory_bytes;
                    self.pool.give_back(sandbox, report.clean, holds);
                    let stopped_by_us = report.stop == Some(Stop::Cancelled);
                    let result = JobResult {
                        stage: Some(Stage::Compile),
                        ..verdict::result(attempt.id, *report, kept)
                    };
                    return Ok((result, stopped_by_us));
                }
                Err(error) => {
                    compiling.fail(error.code());
                    self.pool.give_back(sandbox, false, None);
                    return Err(error);
                }
            }
            if !sandbox.is_usable() {
                // Under a runtime whose containers serve only once, the program gets a container of
                // its own.
                let gpus = sandbox.leave();
                self.pool.give_back(sandbox, false, None);
                sandbox = self.take(want, limits).await?;
                gpus.into_iter().for_each(|gpus| sandbox.keep(gpus));
            }
        }
        let cell = attempt.trace.step("cell");
        cell.tell(&mut run.env);
        if attempt.follows {
            run.hurry = Hurry::WhenGone;
        }
        let has_harness = match run.program {
            Program::Harness { .. } => true,
            Program::Argv { .. } | Program::File { .. } | Program::Server { .. } => false,
        };
        let (sender, pieces) = mpsc::channel(OUTPUT_WAITING);
        let Attempt {
            id,
            interrupted,
            output,
            place,
            ..
        } = attempt;
        let kept = tokio::spawn(keep(pieces, output));
        let (desk, answering) = match desk {
            Some((questions, desk, answering)) => {
                run.questions = Some(questions);
                (Some(desk), Some(answering))
            }
            None => (None, None),
        };
        let token = interrupted.token();
        let ended = tokio::select! {
            ended = sandbox.execute(run, &sender, desk, token) => ended,
            why = lost => Err(SandboxError::GpuLost {
                container: sandbox.name().to_owned(),
                why,
            }),
        };
        drop(sender);
        let asked = match answering {
            Some(answering) => Some(answering.finish().await),
            None => None,
        };
        match ended {
            Ok(report) => {
                drop(cell);
                // Only the next attempt in this place must wait until the cell is removed; the
                // result need not.
                let (pool, report_is_clean) = (self.pool.clone(), report.clean);
                self.engine.finish_later(async move {
                    let cleared = sandbox.clear().await;
                    let clean = cleared.clean && report_is_clean;
                    pool.give_back(sandbox, clean, cleared.container_memory_bytes);
                    drop(place);
                });
                let kept = kept.await.unwrap_or_default();
                let stopped_by_us = report.stop == Some(Stop::Cancelled);
                let completed = has_harness.then_some(report.answer.completed);
                let mut result = JobResult {
                    completed,
                    stage,
                    ..verdict::result(id, report, kept)
                };
                if let Some(usage) = &mut result.usage {
                    usage.infer = asked;
                }
                Ok((result, stopped_by_us))
            }
            Err(error) => {
                // If the container's cap is the only memory limit of the program, reaching it kills
                // the container.
                let starved =
                    want.shape.caps_the_job && self.engine.ran_out_of_memory(sandbox.name()).await;
                cell.fail(if starved {
                    Outcome::OutOfMemory.as_str()
                } else {
                    error.code()
                });
                self.pool.give_back(sandbox, false, None);
                let kept = kept.await.unwrap_or_default();
                if starved {
                    let result = verdict::out_of_memory(id, kept);
                    Ok((result, false))
                } else {
                    Err(error)
                }
            }
        }
    }
}

impl SandboxExecutor {
    /// Returns the size of a job. A job that does not fit its image gets the default size; the
    /// worker that claims the job rejects it.
    fn size(&self, job: &Job) -> Size {
        let Some(image) = self.engine.seen_before(&job.image) else {
            return job.size();
        };
        let caps = image.contract.limits(job).and_then(|limits| {
            let build = compile::limits(job, &image)?;
            Ok(build.map_or(limits.clone(), |build| limits.at_least(&build)))
        });
        match caps {
            Ok(caps) if caps.memory <= self.memory => job.size_under(&caps),
            Ok(_) | Err(_) => Size::ORDINARY,
        }
    }

    /// Takes a sandbox that fits. The shape that a runtime requires is known only after its first
    /// container has started, so that container may not fit and a second one is taken.
    async fn take(&self, want: &mut Want, limits: &Limits) -> Result<Lent, SandboxError> {
        let sandbox = self.pool.take(want).await?;
        let shape = Shape {
            gpus: want.shape.gpus.clone(),
            ..self.engine.shape_for(&want.shape.runtime, limits)
        };
        if shape == want.shape {
            return Ok(sandbox);
        }
        drop(sandbox);
        want.shape = shape;
        self.pool.take(want).await
    }
}

impl Executor for SandboxExecutor {
    /// Returns the sizes from the limits that the images grant. If the engine does not return an
    /// image in time, its jobs get the size from their own limits.
    async fn sizes(&self, jobs: &[&Job]) -> Vec<Size> {
        let unseen: BTreeSet<&ImageName> = jobs
            .iter()
            .filter(|job| job.limits.memory.is_some() || job.limits.cpu_millis.is_some())
            .map(|job| &job.image)
            .filter(|name| self.engine.seen_before(name).is_none())
            .collect();
        if !unseen.is_empty() {
            let looks = unseen.into_iter().map(|name| self.engine.resolve(name));
            // Images that are found are cached; those that are not found do not matter here.
            drop(tokio::time::timeout(LOOK, futures_util::future::join_all(looks)).await);
        }
        jobs.iter().map(|job| self.size(job)).collect()
    }

    async fn execute(&self, job: &Job, attempt: Attempt) -> Result<Execution, ExecutorError> {
        let image = self
            .engine
            .resolve(&job.image)
            .await
            .map_err(|error| explain(&error))?;
        let demand = self
            .gpus
            .demand(job.gpu, image.contract.gpu, &attempt.class)
            .map_err(|error| {
                ExecutorError::Rejected(ErrorInfo::new(error.code(), error.to_string()))
            })?;
        match job.kind {
            Kind::Exec => {}
            Kind::Infer => return self.models.infer(&image, job, attempt).await,
        }
        let limits = image.contract.limits(job).map_err(|error| reject(&error))?;
        if limits.memory > self.memory {
            return Err(ExecutorError::Rejected(ErrorInfo::new(
                "bad_limits",
                format!(
                    "limit memory {} is above the {} of one container here",
                    limits.memory, self.memory
                ),
            )));
        }
        let bytes = limits.result_bytes();
        if bytes > self.max_result {
            let Limits {
                output,
                fetch_bytes,
                display_total,
                ..
            } = limits;
            return Err(ExecutorError::Rejected(ErrorInfo::new(
                "bad_limits",
                format!(
                    "limits output {output} (twice), fetch_bytes {fetch_bytes} and display_total \
                     {display_total} allow a result of {bytes}, above the {} of this worker \
                     (worker.max_result)",
                    self.max_result
                ),
            )));
        }
        let mut run = request(job, &image, &limits).map_err(|error| reject(&error))?;
        check_size(&run).map_err(ExecutorError::Rejected)?;
        run.secrets = self
            .secrets
            .of(job, &attempt.tenant)
            .await
            .map_err(|error| withhold(&error))?;
        let build = compile::request(job, &image).map_err(|error| reject(&error))?;
        let (build, build_limits) = build.unzip();
        // The compiler and the program run in the same container, one after the other, so it needs
        // the larger of the two limits.
        let limits = build_limits.map_or(limits.clone(), |build| limits.at_least(&build));
        attempt.slot.correct(limits.memory, limits.cpu_millis);
        let runtime = self
            .engine
            .runtime(&image, job.runtime.as_ref())
            .map_err(|error| explain(&error))?;
        let cancelled = |id| Execution {
            result: JobResult::bare(id, Outcome::Cancelled),
            stopped_by_us: true,
        };
        if attempt.interrupted.why().is_some() {
            return Ok(cancelled(attempt.id));
        }
        let grant = match demand {
            None => None,
            Some(demand) => {
                let stop = attempt.interrupted.token();
                match stop.run_until_cancelled(self.gpus.take(demand)).await {
                    Some(granted) => Some(granted.map_err(|unmet| ExecutorError::Fault {
                        message: unmet.to_string(),
                    })?),
                    None => return Ok(cancelled(attempt.id)),
                }
            }
        };
        let gpus = grant.as_ref().map_or(&[][..], Grant::uuids).to_vec();
        if !gpus.is_empty() {
            run.env.push((GPUS_VARIABLE.to_owned(), gpus.join(",")));
        }
        let mut want = Want {
            shape: Shape {
                gpus: gpus.clone(),
                ..self.engine.shape_for(&runtime, &limits)
            },
            image,
            namespace: attempt.namespace.clone(),
            tenant: attempt.tenant.clone(),
            memory: limits.memory,
            cpu_millis: limits.cpu_millis,
        };
        let stages = Stages { build, run };
        let desk = self.models.desk(job, &gpus);
        match self
            .run(&mut want, &limits, stages, desk, grant, attempt)
            .await
        {
            Ok((mut result, stopped_by_us)) => {
                if job.expect_value {
                    verdict::demand_value(&mut result);
                }
                verdict::name_program(&mut result, job.argv.as_deref());
                result.image = Some(job.image.clone());
                result.image_digest = Some(want.image.digest.to_string());
                result.runtime = Some(want.shape.runtime.to_string());
                result.gpus = gpus;
                Ok(Execution {
                    result,
                    stopped_by_us,
                })
            }
            Err(error) => Err(explain(&error)),
        }
    }
}

/// Waits until one of these GPUs fails. Returns the GPU and the reason.
fn lost(grant: Option<&Grant>) -> impl Future<Output = String> + use<> {
    let lost = grant.map(Grant::lost);
    async move {
        match lost {
            Some(lost) => lost.await,
            None => std::future::pending().await,
        }
    }
}

/// Collects the program's output and passes it on to the log. The runner has already cut each
/// stream to its limit.
async fn keep(mut pieces: mpsc::Receiver<(Stream, Bytes)>, mut output: super::OutputLog) -> Kept {
    let mut kept = Kept::default();
    while let Some((stream, data)) = pieces.recv().await {
        let (into, log) = match stream {
            Stream::Stdout => (&mut kept.stdout, LogStream::Stdout),
            Stream::Stderr => (&mut kept.stderr, LogStream::Stderr),
        };
        into.extend_from_slice(&data);
        output.write(log, data).await;
    }
    output.finish().await;
    kept
}

fn reject(error: &FitError) -> ExecutorError {
    ExecutorError::Rejected(ErrorInfo::new(error.code(), error.to_string()))
}

/// Maps a secret error to its fault: a secret that the job may not have is the submitter's fault, a
/// secret that cannot be read is a fault of the system.
fn withhold(error: &SecretError) -> ExecutorError {
    let message = with_causes(error);
    match error.fault() {
        Fault::Submitter => ExecutorError::Rejected(ErrorInfo::new("secret_refused", message)),
        Fault::Service | Fault::Program | Fault::Nobody => ExecutorError::Fault { message },
    }
}

/// Maps a sandbox error by its fault: a missing image is the submitter's fault, a failure of the
/// engine is a fault of the system.
fn explain(error: &SandboxError) -> ExecutorError {
    let message = with_causes(error);
    match error.fault() {
        Fault::Submitter => ExecutorError::Rejected(ErrorInfo::new(error.code(), message)),
        Fault::Service if error.is_of_the_machine() => ExecutorError::Full { message },
        Fault::Service | Fault::Program | Fault::Nobody => ExecutorError::Fault { message },
    }
}
