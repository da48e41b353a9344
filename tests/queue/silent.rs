//! Jobs that print nothing: the result wakes a follower of the log at once.

use std::time::Duration;

use sandhog_common::queue::{LogEntry, LogPosition, Queue};
use sandhog_common::submission::Routing;
use sandhog_producer::Client;
use sandhog_tests::private_redis::PrivateRedis;

use crate::desk::{Desk, PATIENCE, settings, success, worker};

impl Desk {
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
    let desk = Desk::on(&redis, "silent").await;
    let client = Client::over(desk.queue.clone());
    let id = desk.ready(&Routing::default()).await;
    let job = desk.bound(&worker("one")).await;
    let mut follow = client.follow(&id).await.unwrap();
    let following = tokio::spawn(async move {
        let chunk = follow.next().await.unwrap();
        (chunk, follow.outcome(), follow.take_result().await.unwrap())
    });
    // Both waits of the follower have begun.
    let waits = async |command: &str| {
        let clients: String = desk.plain(&["CLIENT", "LIST"]).await;
        clients.contains(&format!("cmd={command}"))
    };
    while !(waits("xread").await && waits("blmove").await) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let looks = desk.calls_of("exists").await;
    let _settled = desk.queue.finish(&job.lease, success(&id)).await.unwrap();
    let (chunk, outcome, result) = following.await.unwrap();
    assert_eq!((chunk, outcome), (None, None));
    assert_eq!(result, Some(desk.result(&id).await));
    assert_eq!(
        desk.calls_of("exists").await,
        looks,
        "no result was polled for"
    );
}

#[tokio::test]
async fn a_reader_that_may_not_read_results_looks_whether_one_is_there() {
    let redis = PrivateRedis::start(&[]);
    let desk = Desk::on(&redis, "silent-reader").await;
    let reader = desk
        .with_rights(&redis, &["+exists", "+xread", "%R~*"])
        .await;
    let id = desk.ready(&Routing::default()).await;
    let job = desk.bound(&worker("one")).await;
    let mut log = reader.log_reader(&id).await.unwrap();
    let ended =
        tokio::spawn(async move { log.next(&LogPosition::start(), PATIENCE).await.unwrap() });
    let polled = async || desk.calls_of("exists").await > 1;
    while !polled().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _settled = desk.queue.finish(&job.lease, success(&id)).await.unwrap();
    assert_eq!(ended.await.unwrap(), [LogEntry::End { outcome: None }]);
}

impl Desk {
    /// Returns the number of calls of a command that the server has counted.
    async fn calls_of(&self, command: &str) -> u64 {
        let info: String = self.plain(&["INFO", "commandstats"]).await;
        let prefix = format!("cmdstat_{command}:calls=");
        let line = info.lines().find_map(|line| line.strip_prefix(&prefix));
        line.and_then(|rest| rest.split(',').next())
            .map_or(0, |calls| calls.parse().unwrap())
    }
}
