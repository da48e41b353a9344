//! The executor of production and the stages of a run.

use std::collections::BTreeSet;
use std::time::Duration;

use sandhog_core::id::ImageName;
use sandhog_core::job::{CheckedJob, Kind};
use sandhog_core::limits::Limits;
use sandhog_core::outcome::{ErrorInfo, Fault, JobResult, Outcome, Stage};
use sandhog_core::size::Size;
use sandhog_core::units::ByteCount;
use sandhog_protocol::frames::{Program, ReportFlush, StandbyPlan, Stop};
use tokio::sync::mpsc;

use super::collect::collect_and_log;
use super::compile::{Compiled, add_compiled_files, compile};
use super::outcome::{job_result, name_failed_program, out_of_memory_result, require_value};
use super::plan::Plan;
use super::program_run::check_size;
use crate::attempt::{Attempt, Execution, Executor, ExecutorError};
use crate::gpu::{GPUS_VARIABLE, Gpus, Grant};
use crate::models::{InferBrokerHandle, Models};
use crate::pool::{Pool, PooledSandbox, SandboxRequest};
use crate::sandbox::{InferChannels, Run, SandboxError, Sandboxes, Shape};
use crate::secrets::{SecretError, Secrets};
use sandhog_core::error_chain::error_chain;

/// Capacity of the channel between the container's output and the log.
const OUTPUT_QUEUE_DEPTH: usize = 32;

/// Timeout for looking up images while jobs are admitted.
const IMAGE_LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs jobs in sandboxes.
#[derive(Debug)]
pub struct SandboxExecutor {
    sandboxes: Sandboxes,
    pool: Pool,
    models: Models,
    gpus: Gpus,
    secrets: Secrets,
    /// Maximum memory of one container.
    memory: ByteCount,
    /// Maximum number of bytes in one result.
    max_result: ByteCount,
}

/// A program that is about to run in its cell.
struct ProgramStage {
    run: Run,
    /// [`Stage::Run`] if a compiler ran before.
    stage: Option<Stage>,
    /// The connection to the models, if the program may ask them.
    infer: Option<(InferChannels, InferBrokerHandle)>,
    /// `true` if the container's own cap is the only memory limit of the program.
    caps_the_job: bool,
}

/// End of the compile stage.
enum CompileStage {
    /// The program can run in this sandbox.
    Ready(Box<PooledSandbox>),
    /// The job has ended; the flag tells whether the attempt was interrupted.
    Ended(Box<JobResult>, bool),
}

impl SandboxExecutor {
    /// Creates an executor. It resolves images with `sandboxes` and takes sandboxes from `pool`,
    /// GPUs from `gpus` and the secrets of programs from `secrets`; `models` answers the inference
    /// requests of programs. `memory` is the memory of one container, which no job may exceed;
    /// `max_result` is the limit for the bytes in a result.
    #[must_use]
    pub fn new(
        sandboxes: Sandboxes,
        pool: Pool,
        models: Models,
        gpus: Gpus,
        secrets: Secrets,
        memory: ByteCount,
        max_result: ByteCount,
    ) -> Self {
        Self {
            sandboxes,
            pool,
            models,
            gpus,
            secrets,
            memory,
            max_result,
        }
    }

    /// Runs the stages of a plan. Returns the result and whether the run ended because the attempt
    /// was interrupted.
    async fn run(
        &self,
        plan: Plan,
        request: &mut SandboxRequest,
        infer: Option<(InferChannels, InferBrokerHandle)>,
        grant: Option<Grant>,
        attempt: Attempt,
    ) -> Result<(JobResult, bool), SandboxError> {
        let Plan {
            compile,
            program: mut run,
            limits,
        } = plan;
        let acquiring = attempt.trace.step("sandbox");
        let mut sandbox = match self.take(request, &limits).await {
            Ok(sandbox) => sandbox,
            Err(error) => {
                acquiring.fail(error.code());
                return Err(error);
            }
        };
        drop(acquiring);
        let lost_gpu = lost_gpu(grant.as_ref());
        if let Some(grant) = grant {
            sandbox.attach_gpus(grant);
        }
        let stage = compile.as_ref().map(|_compile| Stage::Run);
        if let Some(compile) = compile {
            sandbox = match self
                .compile(sandbox, compile, &mut run, request, &limits, &attempt)
                .await?
            {
                CompileStage::Ready(sandbox) => *sandbox,
                CompileStage::Ended(result, stopped_by_us) => return Ok((*result, stopped_by_us)),
            };
        }
        let program = ProgramStage {
            run,
            stage,
            infer,
            caps_the_job: request.shape.caps_the_job,
        };
        self.run_program(sandbox, program, lost_gpu, attempt).await
    }

    /// Runs the compiler and adds its output to the program's run.
    async fn compile(
        &self,
        mut sandbox: PooledSandbox,
        compiler: Run,
        program: &mut Run,
        request: &mut SandboxRequest,
        limits: &Limits,
        attempt: &Attempt,
    ) -> Result<CompileStage, SandboxError> {
        let compiling = attempt.trace.step("compile");
        let token = attempt.interrupted.token();
        let ended = |result: JobResult, stopped_by_us| {
            let result = JobResult {
                stage: Some(Stage::Compile),
                ..result
            };
            Ok(CompileStage::Ended(Box::new(result), stopped_by_us))
        };
        match compile(&mut sandbox, compiler, token).await {
            Ok(Compiled::Built(built)) => {
                add_compiled_files(program, built);
                if let Err(error) = check_size(program) {
                    self.pool.give_back(sandbox, false, None);
                    let id = attempt.id.clone();
                    return ended(JobResult::with_error(id, Outcome::Failed, error), false);
                }
            }
            Ok(Compiled::Failed(report, captured)) => {
                let memory = report.container_memory_bytes;
                self.pool.give_back(sandbox, report.clean, memory);
                let stopped_by_us = report.stop == Some(Stop::Cancelled);
                let result = job_result(attempt.id.clone(), *report, captured);
                return ended(result, stopped_by_us);
            }
            Err(error) => {
                compiling.fail(error.code());
                self.pool.give_back(sandbox, false, None);
                return Err(error);
            }
        }
        if !sandbox.is_usable() {
            // Under a runtime whose containers serve only once, the program gets a container of its
            // own.
            let gpus = sandbox.detach_gpus();
            self.pool.give_back(sandbox, false, None);
            sandbox = self.take(request, limits).await?;
            gpus.into_iter().for_each(|gpus| sandbox.attach_gpus(gpus));
        }
        Ok(CompileStage::Ready(Box::new(sandbox)))
    }

    /// Runs the program in its cell.
    async fn run_program(
        &self,
        mut sandbox: PooledSandbox,
        program: ProgramStage,
        lost_gpu: impl Future<Output = String>,
        attempt: Attempt,
    ) -> Result<(JobResult, bool), SandboxError> {
        let ProgramStage {
            mut run,
            stage,
            infer,
            caps_the_job,
        } = program;
        let cell = attempt.trace.step("cell");
        cell.add_to_environment(&mut run.env);
        if attempt.follows {
            run.report_flush = ReportFlush::WithCleanup;
        }
        if !sandbox.expects_reuse() {
            run.standby = StandbyPlan::Omit;
        }
        let has_harness = match run.program {
            Program::Harness { .. } => true,
            Program::Argv { .. } | Program::File { .. } | Program::Server { .. } => false,
        };
        let (sender, chunks) = mpsc::channel(OUTPUT_QUEUE_DEPTH);
        let Attempt {
            id,
            interrupted,
            output,
            occupancy,
            ..
        } = attempt;
        let captured = tokio::spawn(collect_and_log(chunks, output));
        let (channels, broker) = infer.unzip();
        let token = interrupted.token();
        let ended = tokio::select! {
            ended = sandbox.execute(run, &sender, channels, token) => ended,
            why = lost_gpu => Err(SandboxError::GpuLost {
                container: sandbox.name().to_owned(),
                why,
            }),
        };
        drop(sender);
        let infer_usage = match broker {
            Some(broker) => Some(broker.finish().await),
            None => None,
        };
        match ended {
            Ok(report) => {
                drop(cell);
                // Only the next attempt in this slot must wait until the cell is removed; the
                // result need not.
                let (pool, report_is_clean) = (self.pool.clone(), report.clean);
                self.sandboxes.spawn_background(async move {
                    let cleared = sandbox.clear().await;
                    let clean = cleared.clean && report_is_clean;
                    pool.give_back(sandbox, clean, cleared.container_memory_bytes);
                    drop(occupancy);
                });
                let captured = captured.await.unwrap_or_default();
                let stopped_by_us = report.stop == Some(Stop::Cancelled);
                let completed = has_harness.then_some(report.answer.completed);
                let mut result = JobResult {
                    completed,
                    stage,
                    ..job_result(id, report, captured)
                };
                if let Some(usage) = &mut result.usage {
                    usage.infer = infer_usage;
                }
                Ok((result, stopped_by_us))
            }
            Err(error) => {
                // If the container's cap is the only memory limit of the program, reaching it kills
                // the container.
                let is_out_of_memory = caps_the_job && self.sandboxes.oom_of(sandbox.name()).await;
                cell.fail(if is_out_of_memory {
                    Outcome::OutOfMemory.as_str()
                } else {
                    error.code()
                });
                self.pool.give_back(sandbox, false, None);
                let captured = captured.await.unwrap_or_default();
                if is_out_of_memory {
                    Ok((out_of_memory_result(id, captured), false))
                } else {
                    Err(error)
                }
            }
        }
    }

    /// Returns the size of a job. A job that does not fit its image gets the default size; the
    /// worker that claims the job rejects it.
    fn size(&self, job: &CheckedJob) -> Size {
        let Some(image) = self.sandboxes.last_resolved(&job.image) else {
            return job.size();
        };
        match Plan::container_limits(job, &image) {
            Ok(limits) if limits.memory <= self.memory => job.size_under(&limits),
            Ok(_) | Err(_) => Size::DEFAULT,
        }
    }

    /// Checks limits against those of this worker.
    fn check_limits(&self, limits: &Limits) -> Result<(), ErrorInfo> {
        if limits.memory > self.memory {
            return Err(ErrorInfo::new(
                "bad_limits",
                format!(
                    "limit memory {} is above the {} of one container here",
                    limits.memory, self.memory
                ),
            ));
        }
        let bytes = limits.result_bytes();
        if bytes > self.max_result {
            let Limits {
                output,
                fetch_bytes,
                display_total,
                ..
            } = limits;
            return Err(ErrorInfo::new(
                "bad_limits",
                format!(
                    "limits output {output} (twice), fetch_bytes {fetch_bytes} and display_total \
                     {display_total} allow a result of {bytes}, above the {} of this worker \
                     (worker.max_result)",
                    self.max_result
                ),
            ));
        }
        Ok(())
    }

    /// Takes a sandbox that fits. The shape that a runtime requires is known only after its first
    /// container has started, so that container may not fit and a second one is taken.
    async fn take(
        &self,
        request: &mut SandboxRequest,
        limits: &Limits,
    ) -> Result<PooledSandbox, SandboxError> {
        let sandbox = self.pool.take(request).await?;
        let shape = Shape {
            gpus: request.shape.gpus.clone(),
            ..self.sandboxes.shape_for(&request.shape.runtime, limits)
        };
        if shape == request.shape {
            return Ok(sandbox);
        }
        drop(sandbox);
        request.shape = shape;
        self.pool.take(request).await
    }
}

impl Executor for SandboxExecutor {
    /// Returns the sizes from the limits that the images grant. If the engine does not return an
    /// image in time, its jobs get the size from their own limits.
    async fn sizes(&self, jobs: &[&CheckedJob]) -> Vec<Size> {
        let unseen: BTreeSet<&ImageName> = jobs
            .iter()
            .filter(|job| job.limits.memory.is_some() || job.limits.cpu_millis.is_some())
            .map(|job| &job.image)
            .filter(|name| self.sandboxes.last_resolved(name).is_none())
            .collect();
        if !unseen.is_empty() {
            let lookups = unseen.into_iter().map(|name| self.sandboxes.resolve(name));
            // Images that are found are cached; those that are not found do not matter here.
            drop(
                tokio::time::timeout(
                    IMAGE_LOOKUP_TIMEOUT,
                    futures_util::future::join_all(lookups),
                )
                .await,
            );
        }
        jobs.iter().map(|job| self.size(job)).collect()
    }

    async fn execute(
        &self,
        job: &CheckedJob,
        attempt: Attempt,
    ) -> Result<Execution, ExecutorError> {
        let image = self
            .sandboxes
            .resolve(&job.image)
            .await
            .map_err(|error| map_sandbox_error(&error))?;
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
        let limits = image.contract.limits(job)?;
        self.check_limits(&limits)
            .map_err(ExecutorError::Rejected)?;
        let mut plan = Plan::new(job, &image, &limits)?;
        check_size(&plan.program).map_err(ExecutorError::Rejected)?;
        plan.program.secrets = self
            .secrets
            .of(job, &attempt.tenant)
            .await
            .map_err(|error| map_secret_error(&error))?;
        let limits = &plan.limits;
        attempt.slot.resize(limits.memory, limits.cpu_millis);
        let runtime = self
            .sandboxes
            .runtime(&image, job.runtime.as_ref())
            .map_err(|error| map_sandbox_error(&error))?;
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
                match stop.run_until_cancelled(self.gpus.acquire(demand)).await {
                    Some(granted) => Some(granted.map_err(|unmet| ExecutorError::Fault {
                        message: unmet.to_string(),
                    })?),
                    None => return Ok(cancelled(attempt.id)),
                }
            }
        };
        let gpus = grant.as_ref().map_or(&[][..], Grant::uuids).to_vec();
        let mut request = SandboxRequest {
            shape: Shape {
                gpus: gpus.clone(),
                ..self.sandboxes.shape_for(&runtime, limits)
            },
            image,
            namespace: attempt.namespace.clone(),
            tenant: attempt.tenant.clone(),
            memory: limits.memory,
            cpu_millis: limits.cpu_millis,
        };
        if !gpus.is_empty() {
            let variable = (GPUS_VARIABLE.to_owned(), gpus.join(","));
            plan.program.env.push(variable);
        }
        let infer = self
            .models
            .program_infer(job, &gpus)
            .map(|(quota, channels, broker)| {
                plan.program.infer_quota = Some(quota);
                (channels, broker)
            });
        match self.run(plan, &mut request, infer, grant, attempt).await {
            Ok((mut result, stopped_by_us)) => {
                if job.expect_value {
                    require_value(&mut result);
                }
                name_failed_program(&mut result, job.argv.as_deref());
                result.image = Some(job.image.clone());
                result.image_digest = Some(request.image.digest.to_string());
                result.runtime = Some(request.shape.runtime.to_string());
                result.gpus = gpus;
                Ok(Execution {
                    result,
                    stopped_by_us,
                })
            }
            Err(error) => Err(map_sandbox_error(&error)),
        }
    }
}

/// Waits until one of these GPUs fails. Returns the GPU and the reason.
fn lost_gpu(grant: Option<&Grant>) -> impl Future<Output = String> + use<> {
    let lost = grant.map(Grant::lost);
    async move {
        match lost {
            Some(lost) => lost.await,
            None => std::future::pending().await,
        }
    }
}

/// Maps a secret error to its fault: a secret that the job may not have is the submitter's fault, a
/// secret that cannot be read is a fault of the system.
fn map_secret_error(error: &SecretError) -> ExecutorError {
    let message = error_chain(error);
    match error.fault() {
        Fault::Submitter => ExecutorError::Rejected(ErrorInfo::new("secret_refused", message)),
        Fault::Service | Fault::Program | Fault::Nobody => ExecutorError::Fault { message },
    }
}

/// Maps a sandbox error by its fault: a missing image is the submitter's fault, a failure of the
/// engine is a fault of the system.
fn map_sandbox_error(error: &SandboxError) -> ExecutorError {
    let message = error_chain(error);
    match error.fault() {
        Fault::Submitter => ExecutorError::Rejected(ErrorInfo::new(error.code(), message)),
        Fault::Service if error.is_of_the_machine() => ExecutorError::Full { message },
        Fault::Service if error.is_keeper_away() => ExecutorError::Away { message },
        Fault::Service | Fault::Program | Fault::Nobody => ExecutorError::Fault { message },
    }
}
