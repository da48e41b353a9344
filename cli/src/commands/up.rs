//! `sandhog up`: runs Redis and a worker on this machine until Ctrl-C.

use std::net::TcpListener;

use sandhog_config::{RedisSettings, Settings, mask_url};
use sandhog_core::id::ImageName;
use sandhog_queue::keys::Keys;
use sandhog_worker::Worker;
use sandhog_worker::images::ImageSources;
use serde_json::json;

use super::worker::drain;
use crate::context::AppContext;
use crate::embedded::{
    EmbeddedError, EmbeddedRedis, InstanceRecord, Persistence, StateDir, StateLock, connect_engine,
    ensure_images,
};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Progress;
use crate::signals::SignalStream;

/// Starts a Redis if no address is set, builds missing images and starts a worker. At the end,
/// stops the worker first and then Redis.
pub(crate) async fn up(app: &AppContext) -> Result<Exit, CliError> {
    let mut signals = SignalStream::listen()?;
    let mut managed = ManagedRedis::start(app, &mut signals).await?;
    let mut settings = app.loaded.settings.clone();
    if let ManagedRedis::Redis { redis, .. } = &managed {
        settings.redis.url = Some(redis.url());
        settings.redis.wait_replicas = 0;
    }
    let started = tokio::select! {
        started = start(app, &mut settings) => started,
        stop = signals.next() => {
            managed.stop().await;
            return Ok(stop.exit());
        }
    };
    let worker = match started {
        Ok(worker) => worker,
        Err(error) => {
            managed.stop().await;
            return Err(error);
        }
    };
    let mut ended = Ok(Exit::Success);
    match announce(app, &managed, &settings, &worker) {
        Ok(()) => tokio::select! {
            _ = signals.next() => {}
            error = managed.redis_ended() => ended = Err(error),
        },
        Err(error) => ended = Err(error),
    }
    app.output.note(&format!(
        "stopping: waiting up to {:.0} s for running jobs; Ctrl-C again ends the wait",
        settings.worker.grace_ms.duration().as_secs_f64()
    ));
    drain(worker, &mut signals).await;
    managed.stop().await;
    ended
}

/// The Redis server that this command has started, if any.
#[derive(Debug)]
enum ManagedRedis {
    /// None, because a Redis address is set.
    Nothing,
    /// A Redis with its data in the state directory.
    Redis {
        redis: Box<EmbeddedRedis>,
        lock: StateLock,
    },
}

impl ManagedRedis {
    async fn start(app: &AppContext, signals: &mut SignalStream) -> Result<Self, CliError> {
        if app.loaded.settings.redis.url.is_some() {
            return Ok(Self::Nothing);
        }
        let state = StateDir::of(&app.loaded.settings, &app.environment)?;
        let lock = state.lock()?;
        let folder = state.path().join("redis");
        let redis = tokio::select! {
            redis = EmbeddedRedis::start(&app.environment, &folder, Persistence::AppendOnly) =>
                Box::new(redis?),
            stop = signals.next() =>
                return Err(CliError::message(stop.exit(), "stopped while Redis was starting")),
        };
        Ok(Self::Redis { redis, lock })
    }

    /// Completes when the Redis of this command has ended by itself. Returns the error that says
    /// so.
    async fn redis_ended(&mut self) -> CliError {
        match self {
            Self::Nothing => std::future::pending().await,
            Self::Redis { redis, .. } => {
                redis.ended().await;
                EmbeddedError::Server {
                    what: "ended",
                    log_tail: String::new(),
                }
                .into()
            }
        }
    }

    async fn stop(self) {
        match self {
            Self::Nothing => {}
            Self::Redis { redis, lock } => {
                redis.stop().await;
                drop(lock);
            }
        }
    }
}

async fn start(app: &AppContext, settings: &mut Settings) -> Result<Worker, CliError> {
    let engine = connect_engine(settings).await?;
    let images = own_images(settings);
    ensure_images(&engine, settings, &images, &Progress::start(app.output)).await?;
    // The default address is replaced by a free port if it is in use. An address that the user has
    // set is kept.
    if app.is_default("worker.http") && TcpListener::bind(&settings.worker.http).is_err() {
        settings.worker.http = "127.0.0.1:0".to_owned();
    }
    Ok(Worker::start(settings).await?)
}

/// Returns the images that `up` builds: those that programs run in. Images with a model are large;
/// they are built only by name.
fn own_images(settings: &Settings) -> Vec<ImageName> {
    let Ok(sources) = ImageSources::find(&settings.sandbox) else {
        return Vec::new();
    };
    let mut names = sources.names().unwrap_or_default();
    // An image with an invalid contract is kept, so that its build reports the error.
    names.retain(|name| {
        sources
            .contract(name)
            .map_or(true, |contract| contract.serve.is_none())
    });
    names
}

/// Records for other commands how to reach this instance, and prints for the user how to use it.
fn announce(
    app: &AppContext,
    managed: &ManagedRedis,
    settings: &Settings,
    worker: &Worker,
) -> Result<(), CliError> {
    let RedisSettings { url, .. } = &settings.redis;
    let url = url.clone().unwrap_or_default();
    let namespace = settings.namespace.as_str();
    let images = own_images(settings);
    let images: Vec<&str> = images.iter().map(|name| name.as_str()).collect();
    let sandboxes = worker.sandbox_source().map(ToString::to_string);
    let http = worker.http().map(|address| format!("http://{address}"));
    let redis_cli = match managed {
        ManagedRedis::Nothing => format!("redis-cli -u {}", mask_url(&url)),
        ManagedRedis::Redis { redis, lock } => {
            lock.announce(&InstanceRecord {
                pid: std::process::id(),
                redis: url.clone(),
                namespace: namespace.to_owned(),
            })?;
            format!("redis-cli -s {}", redis.socket().display())
        }
    };
    if app.output.is_json() {
        return app.output.json(&json!({
            "redis": mask_url(&url),
            "namespace": namespace,
            "worker": worker.id(),
            "images": images,
            "sandboxes": sandboxes,
            "http": http,
        }));
    }
    let jobs = Keys::new(&settings.namespace).jobs();
    let shown = [
        "sandhog is up; Ctrl-C stops all of it.".to_owned(),
        String::new(),
        format!("  redis    {}", mask_url(&url)),
        format!("  worker   {}", worker.id()),
        format!("  images   {}", images.join(", ")),
        format!("  sandbox  {}", sandboxes.unwrap_or_default()),
        format!("  health   {}", http.unwrap_or_else(|| "off".to_owned())),
        String::new(),
        "From another terminal:".to_owned(),
        String::new(),
        "  sandhog run -c 'print(6*7)'".to_owned(),
        format!(
            "  {redis_cli} XADD '{jobs}' '*' job '{{\"image\":\"python\",\"code\":\"print(6*7)\"}}'"
        ),
        String::new(),
        "From another program:".to_owned(),
        String::new(),
        format!("  SANDHOG_REDIS_URL={}", mask_url(&url)),
    ];
    shown.iter().try_for_each(|line| app.output.line(line))
}
