//! Jobs that print nothing: the result wakes a follower of the log at once.

use sandhog_core::submission::Routing;
use sandhog_producer::Client;
use sandhog_queue::{LogEntry, LogPosition, Queue};
use sandhog_testkit::eventually::eventually_async;
use sandhog_testkit::private_redis::PrivateRedis;

use crate::fixture::{QueueFixture, WAIT_TIMEOUT, settings, success, worker};

impl QueueFixture {
    /// Returns a queue connected as a user with only these rights.
    async fn with_rights(&self, redis: &PrivateRedis, rights: &[&str]) -> Queue {
        let mut line = vec![
            "ACL",
            "SETUSER",
            "some",
            "on",
            ">some",
            "resetkeys",
            "-@all",
        ];
        line.extend(rights);
        let _set: String = self.plain(&line).await;
        let url = redis.url_of("some", "some");
        Queue::connect(&settings(&url), self.space.namespace())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_follower_is_woken_by_the_result_and_brings_it_along() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "silent").await;
    let client = Client::from_queue(fixture.queue.clone());
    let id = fixture.ready(&Routing::default()).await;
    let job = fixture.bound(&worker("one")).await;
    let mut follow = client.follow(&id).await.unwrap();
    let following = tokio::spawn(async move {
        let chunk = follow.next().await.unwrap();
        (chunk, follow.outcome(), follow.take_result().await.unwrap())
    });
    // Both waits of the follower have begun.
    let waits = async |command: &str| {
        let clients: String = fixture.plain(&["CLIENT", "LIST"]).await;
        clients.contains(&format!("cmd={command}"))
    };
    eventually_async(WAIT_TIMEOUT, async || {
        if waits("xread").await && waits("blmove").await {
            return Ok(());
        }
        Err("the follower does not wait".to_owned())
    })
    .await;
    let looks = fixture.calls_of("exists").await;
    let _settled = fixture
        .queue
        .finish(&job.lease, success(&id))
        .await
        .unwrap();
    let (chunk, outcome, result) = following.await.unwrap();
    assert_eq!((chunk, outcome), (None, None));
    assert_eq!(result, Some(fixture.result(&id).await));
    assert_eq!(
        fixture.calls_of("exists").await,
        looks,
        "no result was polled for"
    );
}

#[tokio::test]
async fn a_reader_that_may_not_read_results_looks_whether_one_is_there() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "silent-reader").await;
    let reader = fixture
        .with_rights(&redis, &["+exists", "+xread", "%R~*"])
        .await;
    let id = fixture.ready(&Routing::default()).await;
    let job = fixture.bound(&worker("one")).await;
    let mut log = reader.log_reader(&id).await.unwrap();
    let ended =
        tokio::spawn(async move { log.next(&LogPosition::start(), WAIT_TIMEOUT).await.unwrap() });
    eventually_async(WAIT_TIMEOUT, async || {
        if fixture.calls_of("exists").await > 1 {
            return Ok(());
        }
        Err("the reader does not look for the result".to_owned())
    })
    .await;
    let _settled = fixture
        .queue
        .finish(&job.lease, success(&id))
        .await
        .unwrap();
    assert_eq!(ended.await.unwrap(), [LogEntry::End { outcome: None }]);
}

impl QueueFixture {
    /// Returns the number of calls of a command that the server has counted.
    async fn calls_of(&self, command: &str) -> u64 {
        let info: String = self.plain(&["INFO", "commandstats"]).await;
        let prefix = format!("cmdstat_{command}:calls=");
        let line = info.lines().find_map(|line| line.strip_prefix(&prefix));
        line.and_then(|rest| rest.split(',').next())
            .map_or(0, |calls| calls.parse().unwrap())
    }
}
