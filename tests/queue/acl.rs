//! The rights a producer needs, as published: one command on one key, and no more.

use std::time::Duration;

use sandhog_common::queue::Queue;
use sandhog_common::submission::Routing;
use sandhog_tests::private_redis::PrivateRedis;

use crate::desk::{Desk, PATIENCE, payload, settings, success, worker};

impl Desk {
    /// A user with these rights, and a queue connected as it.
    async fn user(&self, name: &str, rights: &[&str]) -> Queue {
        let mut command = vec!["ACL", "SETUSER", name, "on", ">secret"];
        command.extend(rights);
        let _set: String = self.plain(&command).await;
        let url = self
            .space
            .url()
            .replace("redis://", &format!("redis://{name}:secret@"));
        Queue::connect(&settings(&url), self.space.namespace())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_producer_needs_only_xadd_on_the_intake() {
    let redis = PrivateRedis::start(&[]);
    let desk = Desk::on(&redis, "acl-producer").await;
    let intake = format!("~{}", desk.queue.keys().jobs());
    let producer = desk.user("producer", &["-@all", "+xadd", &intake]).await;
    let id = producer
        .submit(&Routing::default(), &payload())
        .await
        .unwrap();
    let many = producer
        .submit_many(&[(Routing::default(), payload())])
        .await;
    assert_eq!(many.unwrap().len(), 1);
    producer.cancel(&id).await.unwrap();
    assert_eq!(desk.admit().await.len(), 2);

    let error = producer.result(&id).await.unwrap_err();
    assert!(!error.is_transient());
    assert!(error.hint().is_some(), "{error}");
    assert!(producer.cancel_now(&id).await.is_err());
    assert!(producer.job(&id).await.is_err());
}

#[tokio::test]
async fn a_reader_needs_only_its_result_keys() {
    let redis = PrivateRedis::start(&[]);
    let desk = Desk::on(&redis, "acl-reader").await;
    let prefix = desk.queue.keys().prefix().to_owned();
    let results = format!("~{prefix}result:*");
    let reader = desk
        .user("reader", &["-@all", "+blmove", "+lrange", &results])
        .await;
    let id = desk.ready(&Routing::default()).await;
    let job = desk.bound(&worker("one")).await;
    let mut waiter = reader.result_waiter().await.unwrap();
    let nothing = waiter.wait(&id, Duration::from_millis(1)).await.unwrap();
    assert_eq!(nothing, None);
    let _settled = desk.queue.finish(&job.lease, success(&id)).await.unwrap();
    assert!(waiter.wait(&id, PATIENCE).await.unwrap().is_some());
    assert!(reader.result(&id).await.unwrap().is_some());
    assert!(
        reader
            .submit(&Routing::default(), &payload())
            .await
            .is_err()
    );
    assert!(reader.job(&id).await.is_err());
}

#[tokio::test]
async fn a_worker_needs_only_its_namespace() {
    let redis = PrivateRedis::start(&[]);
    let desk = Desk::on(&redis, "acl-worker").await;
    let keys = format!("~{}*", desk.queue.keys().prefix());
    let queue = desk
        .user(
            "worker",
            &["+@all", "-@admin", "-@dangerous", "+info", &keys],
        )
        .await;
    queue.check().await.unwrap();
    let one = worker("one");
    let id = desk.submit(&Routing::default()).await;
    let mut intake = queue.intake_reader(&one).await.unwrap();
    assert_eq!(intake.next(1, PATIENCE).await.unwrap().len(), 1);
    desk.queue
        .tick(sandhog_common::units::Millis(0), 1)
        .await
        .unwrap();
    queue
        .tick(sandhog_common::units::Millis(0), 1)
        .await
        .unwrap();
    assert_eq!(queue.job(&id).await.unwrap(), None);
}
