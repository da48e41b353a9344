//! Containers of workers that died.

use sandhog_common::id::WorkerId;

use super::ground::Ground;

fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_dead_workers_left_is_removed() {
    let ground = Ground::new("reap").await;
    let image = ground.python().await;
    let dead = ground.as_worker("dead").await;
    let alive = ground.as_worker("alive").await;
    let own = ground.engine.start(&image).await.unwrap();
    let theirs = alive.start(&image).await.unwrap();
    let left = dead.start(&image).await.unwrap();
    let left_too = dead.start(&image).await.unwrap();
    let elsewhere = Ground::new("reap-elsewhere").await;
    let not_ours = elsewhere.sandbox().await;

    assert_eq!(ground.engine.reap(&[worker("alive")]).await.unwrap(), 2);
    let mut expected = vec![own.name().to_owned(), theirs.name().to_owned()];
    expected.sort();
    assert_eq!(ground.containers().await, expected);
    assert_eq!(elsewhere.containers().await, [not_ours.name()]);
    assert_eq!(ground.engine.reap(&[worker("alive")]).await.unwrap(), 0);

    let listed = ground.engine.list().await.unwrap();
    let of_alive = listed.iter().find(|c| c.worker == "alive").unwrap();
    assert_eq!(of_alive.name, theirs.name());
    assert_eq!(
        (of_alive.image.as_str(), of_alive.state.as_str()),
        ("python", "running")
    );

    // What is gone already is as good as destroyed.
    left.destroy().await;
    drop(left_too);
    dead.settle().await;
    own.destroy().await;
    theirs.destroy().await;
    not_ours.destroy().await;
    ground.until_empty().await;
    elsewhere.until_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_comes_back_removes_what_it_left_itself() {
    let ground = Ground::new("own").await;
    let left = ground.sandbox().await;
    let other = ground.as_worker("other").await;
    let kept = other.start(&ground.python().await).await.unwrap();

    let again = ground.as_worker("one").await;
    assert_eq!(again.reap_own().await.unwrap(), 1);
    assert_eq!(ground.containers().await, [kept.name()]);
    // The same worker id starts containers again, whatever names the earlier process used.
    let fresh = again.start(&ground.python().await).await.unwrap();
    assert_ne!(fresh.name(), left.name());
    fresh.destroy().await;
    kept.destroy().await;
    drop(left);
    ground.until_empty().await;
}
