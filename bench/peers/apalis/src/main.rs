//! apalis: `worker CONCURRENCY` runs a worker, `produce` runs the producer.

use std::time::Duration;

use apalis::prelude::{
    BackendExt, BoxDynError, ParallelizeExt, TaskSink, WorkerBuilder, WorkerBuilderExt,
};
use apalis_redis::{Config, RedisStorage};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Number of tasks in one push.
const PUSH_BATCH: usize = 256;

/// Largest number of tasks that the worker fetches in one call.
const FETCH_BATCH: usize = 100;

/// Interval at which an idle worker looks for tasks, and the producer for the end of its tasks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() -> Result<(), BoxDynError> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["worker", concurrency] => work(concurrency.parse()?).await,
        ["produce"] => answer().await,
        _ => Err("want `worker CONCURRENCY` or `produce`".into()),
    }
}

async fn storage() -> Result<RedisStorage<u32>, BoxDynError> {
    let url = std::env::var("PEER_REDIS_URL")?;
    let connection = apalis_redis::connect(format!("{url}/6")).await?;
    let config = Config::default().queue("peer").batch_size(FETCH_BATCH);
    Ok(RedisStorage::new(connection).with_config(config))
}

async fn noop(_number: u32) -> Result<u32, BoxDynError> {
    Ok(1)
}

async fn work(concurrency: usize) -> Result<(), BoxDynError> {
    // apalis rejects a second worker of the same name until the first has missed its heartbeats.
    let name = format!("peer-{}", std::process::id());
    // By itself, an idle worker looks for tasks only with its heartbeat, every 30 seconds.
    let storage = storage().await?.poll_with_interval(POLL_INTERVAL);
    WorkerBuilder::new(name)
        .backend(storage)
        .concurrency(concurrency)
        .parallelize(tokio::spawn)
        .build(noop)
        .run()
        .await?;
    Ok(())
}

/// Runs a turn for each line of input, which is its number of tasks.
async fn answer() -> Result<(), BoxDynError> {
    let mut storage = storage().await?;
    produce(&mut storage, 1).await?;
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        produce(&mut storage, line.parse()?).await?;
        println!("done");
    }
    Ok(())
}

/// Pushes this many tasks and waits until as many more are done.
async fn produce(storage: &mut RedisStorage<u32>, count: usize) -> Result<(), BoxDynError> {
    let before = done(storage).await?;
    for first in (0..count).step_by(PUSH_BATCH) {
        let tasks = vec![0; PUSH_BATCH.min(count - first)];
        storage.push_bulk(tasks).await?;
    }
    while done(storage).await? < before + count {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Returns the number of tasks that are done.
async fn done(storage: &mut RedisStorage<u32>) -> Result<usize, BoxDynError> {
    let key = storage.get_config().done_jobs_set();
    let connection = storage.get_connection();
    Ok(redis::cmd("SCARD").arg(key).query_async(connection).await?)
}
