//! `sandhog run`: runs one program to its end, with a worker of the queue or with a private one.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use sandhog_common::config::{RedisSettings, Settings, WorkerSettings};
use sandhog_common::id::JobId;
use sandhog_common::job::Job;
use sandhog_common::outcome::JobResult;
use sandhog_common::submission::Routing;
use sandhog_common::units::Millis;
use sandhog_producer::Client;
use sandhog_worker::Worker;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::away::left_behind;
use super::conclude::{Conclusion, conclude};
use super::follow;
use super::save::{self, Saving};
use crate::app::App;
use crate::args::RunArgs;
use crate::embedded::{Keep, PrivateRedis, connect_engine, ensure_images};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Colour, Output};
use crate::session;
use crate::signals::Signals;
use crate::submission::{self, Order};

/// Prefix of the name of a run's temporary folder. The process id follows it.
const FOLDER: &str = "sandhog-run-";

/// Time within which the queue must accept a cancellation. After it, this command ends without one.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);

/// Options for the parts of a result that are not the program's output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
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
pub(crate) async fn run(app: &App, args: &RunArgs) -> Result<Exit, Fault> {
    let job = submission::job(app, &args.program, &args.caps)?;
    let routing = Routing {
        trace: submission::trace(&app.environment),
        ..submission::routing(&args.routing, Some(&args.schedule), Some(&args.caps))?
    };
    let order = (job, routing);
    let shown = Shown {
        value: args.value,
        save: args.save.as_deref(),
        force: args.force,
    };
    carry_out(app, &order, shown).await
}

/// Runs a job to its end and prints its result.
pub(super) async fn carry_out(app: &App, order: &Order, shown: Shown<'_>) -> Result<Exit, Fault> {
    let mut signals = Signals::listen()?;
    match app.reachable() {
        Some(settings) => {
            let client = session::connect(&settings).await?;
            one(app, &client, order, shown, &mut signals).await
        }
        None => alone(app, order, shown, &mut signals).await,
    }
}

/// Submits a job, follows it and prints its result. A signal cancels the job.
async fn one(
    app: &App,
    client: &Client,
    (job, routing): &Order,
    shown: Shown<'_>,
    signals: &mut Signals,
) -> Result<Exit, Fault> {
    let output = app.output;
    let id = client.submit(job, routing.clone()).await?;
    let followed = tokio::select! {
        followed = to_the_end(output, client, &id) => followed,
        stop = signals.next() => {
            interrupted(output, client, &id, signals).await?;
            return Ok(stop.exit());
        }
    };
    match followed {
        Ok(result) => finish(app, job, &result, shown),
        Err(fault) => {
            // The reader of the output has closed the pipe, so the job's result is not needed.
            if matches!(fault.exit, Exit::Closed | Exit::Output) {
                client.cancel(&id).await?;
            }
            Err(fault)
        }
    }
}

/// Saves the files of a result and prints the rest of it.
fn finish(app: &App, job: &Job, result: &JobResult, shown: Shown<'_>) -> Result<Exit, Fault> {
    let output = app.output;
    let saved = match shown.save {
        None if output.is_json() => save::unsaved(&job.fetch, result),
        folder => {
            let saving = Saving {
                folder: folder.unwrap_or(Path::new(".")),
                patterns: &job.fetch,
                displays: folder.is_some(),
                force: shown.force,
            };
            save::save(&saving, result)?
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
    match saved.fault() {
        Some(fault) if exit == Exit::NotSaved => Err(fault),
        Some(_) | None => Ok(exit),
    }
}

/// Cancels the job of a command that was interrupted. Ends without the cancellation after a second
/// signal, or if the queue does not answer in time.
async fn interrupted(
    output: Output,
    client: &Client,
    id: &JobId,
    signals: &mut Signals,
) -> Result<(), Fault> {
    if !output.is_json() {
        output.note(&format!("sandhog: interrupted; cancelling job {id}"));
    }
    let asked = tokio::select! {
        asked = tokio::time::timeout(CANCEL_WITHIN, client.cancel(id)) =>
            matches!(asked, Ok(Ok(()))),
        _again = signals.next() => false,
    };
    if asked || output.is_json() {
        return Ok(());
    }
    let line = "the job was not cancelled: the queue does not answer";
    output.remark(Colour::Yellow, line, Some(&left_behind(id)))
}

async fn to_the_end(output: Output, client: &Client, id: &JobId) -> Result<JobResult, Fault> {
    if output.is_json() {
        follow::result(output, client, id).await
    } else {
        follow::follow(client, id, output).await
    }
}

/// Runs one job with a private Redis and a private worker, and removes both afterwards.
async fn alone(
    app: &App,
    order: &Order,
    shown: Shown<'_>,
    signals: &mut Signals,
) -> Result<Exit, Fault> {
    let stage = tokio::select! {
        stage = Stage::set(app, order) => stage?,
        stop = signals.next() => return Ok(stop.exit()),
    };
    let ended = one(app, &stage.client, order, shown, signals).await;
    stage.strike().await?;
    ended
}

/// A private Redis and its worker, in a temporary folder.
struct Stage {
    client: Client,
    worker: Worker,
    // Declared before the folder, because fields are dropped in order: the server must end before
    // its files are removed.
    redis: PrivateRedis,
    folder: TempDir,
}

impl Stage {
    async fn set(app: &App, order: &Order) -> Result<Self, Fault> {
        let folder = folder(app)?;
        let redis = PrivateRedis::start(&app.environment, folder.path(), Keep::Nothing).await?;
        let settings = settings(app, &redis, order)?;
        let engine = connect_engine(&settings).await?;
        ensure_images(
            &engine,
            &settings,
            std::slice::from_ref(&order.0.image),
            &app.output.progress(),
        )
        .await?;
        let worker = Worker::start(&settings).await?;
        Ok(Self {
            client: session::connect(&settings).await?,
            worker,
            redis,
            folder,
        })
    }

    /// Stops the worker with its containers, then Redis, then removes the folder.
    async fn strike(self) -> Result<(), Fault> {
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
            .map_err(|e| Fault::new(Exit::Fault, e))
    }
}

fn folder(app: &App) -> Result<TempDir, Fault> {
    let place = app.environment.temporary();
    remove_forgotten(&place);
    tempfile::Builder::new()
        .prefix(&format!("{FOLDER}{}-", std::process::id()))
        .tempdir_in(&place)
        .with_context(|| format!("could not create a folder in {}", place.display()))
        .map_err(|e| Fault::new(Exit::Fault, e))
}

/// Removes the temporary folders of earlier runs that were killed. Skips folders of other users and
/// of running processes.
fn remove_forgotten(place: &Path) {
    let Ok(entries) = std::fs::read_dir(place) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(FOLDER))
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        let ours = entry
            .metadata()
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw());
        let forgotten = pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if ours
            && forgotten
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, "folder of an earlier run not removed");
        }
    }
}

/// Returns the settings of a worker for this one job: the job's tags, one slot, no HTTP port, and a
/// namespace that no other worker serves.
fn settings(app: &App, redis: &PrivateRedis, (_, routing): &Order) -> Result<Settings, Fault> {
    let settings = app.loaded.settings.clone();
    let fault = |e| Fault::new(Exit::Fault, anyhow::Error::new(e));
    let tags: Result<BTreeSet<_>, _> = routing.class.tags().map(str::parse).collect();
    let unique = uuid::Uuid::now_v7().simple().to_string();
    Ok(Settings {
        namespace: format!("run-{unique}").parse().map_err(fault)?,
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
            tags: tags.map_err(fault)?,
            http: String::new(),
            grace_ms: Millis(0),
            ..settings.worker
        },
        ..settings
    })
}
