//! Floods of rejected entries: they displace neither other results nor other dead letters.

use sandhog_common::id::ReplyName;
use sandhog_common::submission::Routing;

use crate::desk::{Desk, success, worker};

#[tokio::test]
async fn malformed_entries_push_no_result_out_of_a_reply_stream() {
    let mut desk = Desk::shared("flood-reply").await;
    let reply: ReplyName = "victim".parse().unwrap();
    let routing = Routing {
        reply: Some(reply.clone()),
        ..Routing::default()
    };
    let victim = desk.ready(&routing).await;
    let job = desk.bound(&worker("one")).await;
    let _settled = desk
        .queue
        .finish(&job.lease, success(&victim))
        .await
        .unwrap();
    for _ in 0..1_100 {
        desk.space.add(&[("job", b"{"), ("reply", b"victim")]);
    }
    desk.admit().await;
    let key = desk.queue.keys().reply(&reply);
    let entries = desk.space.stream_now(&key);
    assert_eq!(entries.len(), 1_001);
    assert_eq!(entries[0].text("id"), victim.as_str());
    assert_eq!(desk.counter("replies_withheld").await, 100);
    // Rejections of well-formed jobs are ordinary results.
    let unique = Routing {
        unique: Some(sandhog_common::submission::Unique {
            key: "k".parse().unwrap(),
            ttl: None,
        }),
        ..routing
    };
    desk.ready(&unique).await;
    desk.ready(&unique).await;
    let entries = desk.space.stream_now(&key);
    assert_eq!(entries.last().unwrap().text("outcome"), "rejected");
    assert_eq!(entries.len(), 1_002);
}

#[tokio::test]
async fn refused_entries_push_no_other_letter_out() {
    let mut desk = Desk::shared("flood-dead").await;
    let lost = desk.ready(&Routing::default()).await;
    let job = desk.bound(&worker("one")).await;
    desk.age(&job.lease).await;
    assert_eq!(
        desk.queue
            .tick(crate::desk::LEASE, 1)
            .await
            .unwrap()
            .given_up,
        1
    );
    let mut last = None;
    for round in 0..11 {
        for _ in 0..1_000 {
            last = Some(desk.space.add(&[("job", b"{")]));
        }
        desk.admit().await;
        let letters: u64 = desk.plain(&["XLEN", &desk.queue.keys().dead()]).await;
        assert!(letters <= 10_000, "round {round}: {letters}");
    }
    let letters = desk.space.stream_now(&desk.queue.keys().dead());
    assert_eq!(letters[0].text("id"), lost.as_str());
    let newest = letters.last().unwrap();
    assert_eq!(newest.text("id"), last.unwrap().as_str());
    assert!(
        letters.len() > 9_000,
        "the rest is there: {}",
        letters.len()
    );
}
