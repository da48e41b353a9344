//! Removal of containers whose worker has died.

use sandhog_core::id::WorkerId;
use sandhog_worker::sandbox::{Output, Sandboxes};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fixture::{EngineFixture, settings, shell};

fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_dead_workers_left_is_removed() {
    let fixture = EngineFixture::new("reap").await;
    let image = fixture.python().await;
    let dead = fixture.as_worker("dead").await;
    let alive = fixture.as_worker("alive").await;
    let own = fixture.sandboxes.start(&image).await.unwrap();
    let theirs = alive.start(&image).await.unwrap();
    let left = dead.start(&image).await.unwrap();
    let left_too = dead.start(&image).await.unwrap();
    let elsewhere = EngineFixture::new("reap-elsewhere").await;
    let not_ours = elsewhere.sandbox().await;

    assert_eq!(fixture.sandboxes.reap(&[worker("alive")]).await.unwrap(), 2);
    let mut expected = vec![own.name().to_owned(), theirs.name().to_owned()];
    expected.sort();
    assert_eq!(fixture.containers().await, expected);
    assert_eq!(elsewhere.containers().await, [not_ours.name()]);
    assert_eq!(fixture.sandboxes.reap(&[worker("alive")]).await.unwrap(), 0);

    let listed = fixture.engine.list().await.unwrap();
    let of_alive = listed.iter().find(|c| c.worker == "alive").unwrap();
    assert_eq!(of_alive.name, theirs.name());
    assert_eq!(
        (of_alive.image.as_str(), of_alive.state.as_str()),
        ("python", "running")
    );

    // Destroying a container that is already gone succeeds.
    left.destroy().await;
    drop(left_too);
    dead.wait_for_removals().await;
    own.destroy().await;
    theirs.destroy().await;
    not_ours.destroy().await;
    fixture.leave().await;
    elsewhere.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_the_same_name_on_another_redis_is_left_alone() {
    let fixture = EngineFixture::new("twins").await;
    let image = fixture.python().await;
    let (here, there) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    let ours = fixture.as_worker_of("ours", here).await;
    let theirs = fixture.as_worker_of("theirs", there).await;
    let dead = fixture.as_worker_of("dead", here).await;
    let kept = theirs.start(&image).await.unwrap();
    let left = dead.start(&image).await.unwrap();

    assert_eq!(ours.reap(&[]).await.unwrap(), 1);
    assert_eq!(fixture.containers().await, [kept.name()]);

    left.destroy().await;
    kept.destroy().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_comes_back_removes_what_it_left_itself() {
    let fixture = EngineFixture::new("own").await;
    let left = fixture.sandbox().await;
    let other = fixture.as_worker("other").await;
    let kept = other.start(&fixture.python().await).await.unwrap();

    let again = fixture.as_engine("one").await;
    assert_eq!(again.reap_own().await.unwrap(), 1);
    let again = Sandboxes::new(again.parts(), &settings());
    assert_eq!(fixture.containers().await, [kept.name()]);
    // The same worker id starts containers again, under names that differ from those of the earlier
    // process.
    let fresh = again.start(&fixture.python().await).await.unwrap();
    assert_ne!(fresh.name(), left.name());
    fresh.destroy().await;
    kept.destroy().await;
    drop(left);
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_vanishes_in_mid_job_leaves_nothing_even_without_a_reaper() {
    let fixture = EngineFixture::new("vanished").await;
    let vanishing = fixture.as_worker("vanishing").await;
    let image = fixture.python().await;
    let (running, is_running) = tokio::sync::oneshot::channel();
    // A separate runtime: when it is dropped, its connections break, and no code runs that could
    // remove anything.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.spawn(async move {
        let mut sandbox = vanishing.start(&image).await.unwrap();
        let (sender, mut pieces) = mpsc::channel::<Output>(4);
        let never = CancellationToken::new();
        let tell = async {
            pieces.recv().await.expect("it says that it runs");
            running.send(()).unwrap();
            std::future::pending::<()>().await;
        };
        let job = shell("trap '' TERM HUP INT; echo running; while :; do sleep 1; done");
        tokio::join!(sandbox.run(job, &sender, &never), tell)
    });
    is_running.await.unwrap();
    assert_eq!(fixture.containers().await.len(), 1);
    runtime.shutdown_background();
    fixture.leave().await;
}
