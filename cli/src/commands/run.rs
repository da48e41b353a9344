//! `sandhog run`: runs one program to its end, with a worker of the queue or with a private one.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use sandhog_config::{RedisSettings, SandboxSettings, SandboxUnit, Settings, WorkerSettings};
use sandhog_core::id::JobId;
use sandhog_core::job::Job;
use sandhog_core::outcome::JobResult;
use sandhog_core::submission::Routing;
use sandhog_core::units::Millis;
use sandhog_producer::Client;
use sandhog_worker::Worker;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::conclude::{Conclusion, conclude};
use super::follow;
use super::outage::job_remains_hint;
use super::save::{self, SaveOptions};
use crate::args::RunArgs;
use crate::context::AppContext;
use crate::embedded::{EmbeddedRedis, Persistence, connect_engine, ensure_images};
use crate::error::CliError;
use crate::exit::Exit;
use crate::job_request::{self, JobRequest};
use crate::output::{Colour, Printer, Progress};
use crate::signals::SignalStream;
use crate::target::connect_target;

/// Prefix of the name of a run's temporary folder. The process id follows it.
const FOLDER_PREFIX: &str = "sandhog-run-";

/// Time within which the queue must accept a cancellation. After it, this command ends without one.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// Options for the parts of a result that are not the program's output.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResultOptions<'a> {
    /// Prints the value.
    pub(super) value: bool,
    /// The folder for fetched files and displays. If it is `None`, fetched files go to the working
    /// directory.
    pub(super) save: Option<&'a Path>,
    /// Overwrites files that exist.
    pub(super) force: bool,
}

/// Runs one job. If a queue can be reached, its workers run the job. Otherwise the command starts a
/// private Redis and a private worker for this job and removes them afterwards.
pub(crate) async fn run(app: &AppContext, args: &RunArgs) -> Result<Exit, CliError> {
    let job = job_request::program_job(app, &args.options)?;
    let routing = Routing {
        trace: job_request::trace_context(&app.environment),
        ..job_request::program_routing(&args.options)?
    };
    let request = (job, routing);
    let shown = ResultOptions {
        value: args.value,
        save: args.save.as_deref(),
        force: args.force,
    };
    run_job(app, &request, shown).await
}

/// Runs a job to its end and prints its result.
pub(super) async fn run_job(
    app: &AppContext,
    request: &JobRequest,
    shown: ResultOptions<'_>,
) -> Result<Exit, CliError> {
    let mut signals = SignalStream::listen()?;
    match app.find_queue() {
        Some(settings) => {
            let client = connect_target(&settings).await?;
            submit_and_follow(app, &client, request, shown, &mut signals).await
        }
        None => run_standalone(app, request, shown, &mut signals).await,
    }
}

/// Submits a job, follows it and prints its result. A signal cancels the job.
async fn submit_and_follow(
    app: &AppContext,
    client: &Client,
    (job, routing): &JobRequest,
    shown: ResultOptions<'_>,
    signals: &mut SignalStream,
) -> Result<Exit, CliError> {
    let output = app.output;
    let id = client.submit(job, routing.clone()).await?;
    let followed = tokio::select! {
        followed = follow_to_end(output, client, &id) => followed,
        stop = signals.next() => {
            cancel_interrupted(output, client, &id, signals).await?;
            return Ok(stop.exit());
        }
    };
    match followed {
        Ok(result) => finish(app, job, &result, shown),
        Err(error) => {
            // The reader of the output has closed the pipe, so the job's result is not needed.
            if matches!(error.exit, Exit::Closed | Exit::Output) {
                client.cancel(&id).await?;
            }
            Err(error)
        }
    }
}

/// Saves the files of a result and prints the rest of it.
fn finish(
    app: &AppContext,
    job: &Job,
    result: &JobResult,
    shown: ResultOptions<'_>,
) -> Result<Exit, CliError> {
    let output = app.output;
    let saved = match shown.save {
        None if output.is_json() => save::report_unsaved(&job.fetch, result),
        folder => {
            let options = SaveOptions {
                folder: folder.unwrap_or(Path::new(".")),
                patterns: &job.fetch,
                displays: folder.is_some(),
                force: shown.force,
            };
            save::save(&options, result)?
        }
    };
    if !output.is_json() {
        let conclusion = Conclusion {
            value: shown.value,
            job: Some(job),
            saved: &saved,
        };
        return conclude(app, result, conclusion);
    }
    output.json(result)?;
    let exit = saved.exit(Exit::of(result));
    match saved.to_error() {
        Some(error) if exit == Exit::NotSaved => Err(error),
        Some(_) | None => Ok(exit),
    }
}

/// Cancels the job of a command that was interrupted. Ends without the cancellation after a second
/// signal, or if the queue does not answer in time.
async fn cancel_interrupted(
    output: Printer,
    client: &Client,
    id: &JobId,
    signals: &mut SignalStream,
) -> Result<(), CliError> {
    if !output.is_json() {
        output.note(&format!("sandhog: interrupted; cancelling job {id}"));
    }
    let asked = tokio::select! {
        asked = tokio::time::timeout(CANCEL_TIMEOUT, client.cancel(id)) =>
            matches!(asked, Ok(Ok(()))),
        _again = signals.next() => false,
    };
    if asked || output.is_json() {
        return Ok(());
    }
    let line = "the job was not cancelled: the queue does not answer";
    output.warn(Colour::Yellow, line, Some(&job_remains_hint(id)))
}

async fn follow_to_end(
    output: Printer,
    client: &Client,
    id: &JobId,
) -> Result<JobResult, CliError> {
    if output.is_json() {
        follow::result(output, client, id).await
    } else {
        follow::follow(client, id, output).await
    }
}

/// Runs one job with a private Redis and a private worker, and removes both afterwards.
async fn run_standalone(
    app: &AppContext,
    request: &JobRequest,
    shown: ResultOptions<'_>,
    signals: &mut SignalStream,
) -> Result<Exit, CliError> {
    let stack = tokio::select! {
        stack = EphemeralStack::start(app, request) => stack?,
        stop = signals.next() => return Ok(stop.exit()),
    };
    let ended = submit_and_follow(app, &stack.client, request, shown, signals).await;
    stack.stop().await?;
    ended
}

/// A private Redis and its worker, in a temporary folder.
struct EphemeralStack {
    client: Client,
    worker: Worker,
    // Declared before the folder, because fields are dropped in order: the server must end before
    // its files are removed.
    redis: EmbeddedRedis,
    folder: TempDir,
}

impl EphemeralStack {
    async fn start(app: &AppContext, request: &JobRequest) -> Result<Self, CliError> {
        let folder = create_folder(app)?;
        let redis =
            EmbeddedRedis::start(&app.environment, folder.path(), Persistence::None).await?;
        let settings = worker_settings(app, &redis, request)?;
        let engine = connect_engine(&settings).await?;
        ensure_images(
            &engine,
            &settings,
            std::slice::from_ref(&request.0.image),
            &Progress::start(app.output),
        )
        .await?;
        let worker = Worker::start(&settings).await?;
        Ok(Self {
            client: connect_target(&settings).await?,
            worker,
            redis,
            folder,
        })
    }

    /// Stops the worker with its containers, then Redis, then removes the folder.
    async fn stop(self) -> Result<(), CliError> {
        let hurry = CancellationToken::new();
        // Running jobs are not waited for, because this command no longer needs their results.
        hurry.cancel();
        self.worker.stop(hurry).await;
        drop(self.client);
        self.redis.stop().await;
        let path = self.folder.path().to_owned();
        self.folder
            .close()
            .with_context(|| format!("could not remove {}", path.display()))
            .map_err(|e| CliError::new(Exit::Fault, e))
    }
}

fn create_folder(app: &AppContext) -> Result<TempDir, CliError> {
    let place = app.environment.temporary();
    remove_stale_folders(&place);
    tempfile::Builder::new()
        .prefix(&format!("{FOLDER_PREFIX}{}-", std::process::id()))
        .tempdir_in(&place)
        .with_context(|| format!("could not create a folder in {}", place.display()))
        .map_err(|e| CliError::new(Exit::Fault, e))
}

/// Removes the temporary folders of earlier runs that were killed. Skips folders of other users and
/// of running processes.
fn remove_stale_folders(place: &Path) {
    let Ok(entries) = std::fs::read_dir(place) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(FOLDER_PREFIX))
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        let ours = entry
            .metadata()
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw());
        let is_stale = pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if ours
            && is_stale
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, "folder of an earlier run not removed");
        }
    }
}

/// Returns the settings of a worker for this one job: the job's tags, one slot, no HTTP port, and a
/// namespace that no other worker serves.
fn worker_settings(
    app: &AppContext,
    redis: &EmbeddedRedis,
    (_, routing): &JobRequest,
) -> Result<Settings, CliError> {
    let settings = app.loaded.settings.clone();
    let internal = |e| CliError::new(Exit::Fault, anyhow::Error::new(e));
    let tags: Result<BTreeSet<_>, _> = routing.class.tags().map(str::parse).collect();
    let unique = uuid::Uuid::now_v7().simple().to_string();
    Ok(Settings {
        namespace: format!("run-{unique}").parse().map_err(internal)?,
        redis: RedisSettings {
            wait_replicas: 0,
            url: Some(redis.url()),
            ..settings.redis
        },
        worker: WorkerSettings {
            namespaces: Vec::new(),
            slots: 1,
            // With place for one model only, an image's `min_warm` keeps no other model loaded.
            models: 1,
            tags: tags.map_err(internal)?,
            http: String::new(),
            grace_ms: Millis(0),
            ..settings.worker
        },
        sandbox: SandboxSettings {
            // A keeper would not pay for one job.
            unit: match settings.sandbox.unit {
                SandboxUnit::Auto => SandboxUnit::Container,
                set => set,
            },
            ..settings.sandbox
        },
        ..settings
    })
}
