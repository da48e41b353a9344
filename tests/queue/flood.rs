//! Floods of rejected entries: they displace neither other results nor other dead letters.

use sandhog_core::id::ReplyName;
use sandhog_core::submission::Routing;

use crate::fixture::{QueueFixture, success, worker};

#[tokio::test]
async fn malformed_entries_push_no_result_out_of_a_reply_stream() {
    let mut fixture = QueueFixture::shared("flood-reply").await;
    let reply: ReplyName = "victim".parse().unwrap();
    let routing = Routing {
        reply: Some(reply.clone()),
        ..Routing::default()
    };
    let victim = fixture.ready(&routing).await;
    let job = fixture.bound(&worker("one")).await;
    let _settled = fixture
        .queue
        .finish(&job.lease, success(&victim))
        .await
        .unwrap();
    for _ in 0..1_100 {
        fixture.space.add(&[("job", b"{"), ("reply", b"victim")]);
    }
    fixture.admit().await;
    let key = fixture.queue.keys().reply(&reply);
    let entries = fixture.space.stream_now(&key);
    assert_eq!(entries.len(), 1_001);
    assert_eq!(entries[0].text("id"), victim.as_str());
    assert_eq!(fixture.counter("replies_withheld").await, 100);
    // Rejections of well-formed jobs are ordinary results.
    let unique = Routing {
        unique: Some(sandhog_core::submission::Unique {
            key: "k".parse().unwrap(),
            ttl: None,
        }),
        ..routing
    };
    fixture.ready(&unique).await;
    fixture.ready(&unique).await;
    let entries = fixture.space.stream_now(&key);
    assert_eq!(entries.last().unwrap().text("outcome"), "rejected");
    assert_eq!(entries.len(), 1_002);
}

#[tokio::test]
async fn refused_entries_push_no_other_letter_out() {
    let mut fixture = QueueFixture::shared("flood-dead").await;
    let lost = fixture.ready(&Routing::default()).await;
    let job = fixture.bound(&worker("one")).await;
    fixture.age(&job.lease).await;
    assert_eq!(
        fixture
            .queue
            .maintain_fully(crate::fixture::LEASE, 1)
            .await
            .unwrap()
            .given_up,
        1
    );
    let mut last = None;
    for round in 0..11 {
        for _ in 0..1_000 {
            last = Some(fixture.space.add(&[("job", b"{")]));
        }
        fixture.admit().await;
        let letters: u64 = fixture.plain(&["XLEN", &fixture.queue.keys().dead()]).await;
        assert!(letters <= 10_000, "round {round}: {letters}");
    }
    let letters = fixture.space.stream_now(&fixture.queue.keys().dead());
    assert_eq!(letters[0].text("id"), lost.as_str());
    let newest = letters.last().unwrap();
    assert_eq!(newest.text("id"), last.unwrap().as_str());
    assert!(
        letters.len() > 9_000,
        "the rest is there: {}",
        letters.len()
    );
}
