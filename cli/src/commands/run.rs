//! `sandhog run`: one program to its end, here or wherever a worker is.

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

/// What the folder of a run is called; its process id follows.
const FOLDER: &str = "sandhog-run-";

/// Time for the queue to take a cancellation before this command ends without one.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);

/// What is made of a result besides passing on the program's output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    /// Whether the value is printed.
    pub(super) value: bool,
    /// The folder that fetched files and displays go to; without one, fetched files go to the working directory.
    pub(super) save: Option<&'a Path>,
    /// Overwrites files that exist.
    pub(super) force: bool,
}

/// Runs one job. With a queue in reach its workers run it; else everything it needs is started for it alone, and
/// nothing of that is left behind.
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

/// Runs an order to its end, wherever a worker is, and shows what comes of it.
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

/// Submits, follows and concludes. A signal cancels the job.
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
            // The output has no reader any more, so nothing waits for the job.
            if matches!(fault.exit, Exit::Closed | Exit::Output) {
                client.cancel(&id).await?;
            }
            Err(fault)
        }
    }
}

/// Saves a result's files and shows the rest of it.
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

/// Cancels the job of a command that is told to stop. Another signal, or a queue that does not
/// answer, ends that.
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
        asked = tokio::time::timeout(CANCEL_WITHIN, client.cancel(id)) => matches!(asked, Ok(Ok(()))),
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

/// Everything one job needs, and nothing of it left behind.
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

/// A private Redis with a worker on it, in a temporary folder.
struct Stage {
    client: Client,
    worker: Worker,
    // Before the folder: should this be dropped, the server is gone before its files are.
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

    /// Ends the worker and its containers, then Redis, then removes the folder.
    async fn strike(self) -> Result<(), Fault> {
        let hurry = CancellationToken::new();
        // What still runs has no one left to run for.
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
        .with_context(|| format!("could not make a folder in {}", place.display()))
        .map_err(|e| Fault::new(Exit::Fault, e))
}

/// Removes the folders of runs that were killed before they could do so themselves. What is somebody else's stays.
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
            tracing::debug!(%error, "forgotten folder not removed");
        }
    }
}

/// A worker for this one job: its tags, one slot, no port, a namespace that nobody else's worker looks after.
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
            // One place leaves none for models that are kept loaded for others.
            models: 1,
            tags: tags.map_err(fault)?,
            http: String::new(),
            grace_ms: Millis(0),
            ..settings.worker
        },
        ..settings
    })
}
