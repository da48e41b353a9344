//! The warm pool over real containers.

use std::time::{Duration, Instant};

use bollard::query_parameters::KillContainerOptionsBuilder;
use sandhog_runner::protocol::End;
use sandhog_worker::pool::Pool;

use super::ground::{Ground, PATIENCE, name, run, shell};

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_sandbox_serves_again_and_an_unclean_one_does_not() {
    let ground = Ground::new("pool-reuse").await;
    let image = ground.python().await;
    let pool = Pool::new(ground.engine.clone(), 2, LONG);
    let mut first = pool.take(&image).await.unwrap();
    let container = first.name().to_owned();
    let (report, _) = run(&mut first, shell("exit 1")).await.unwrap();
    assert_eq!(report.end, End::Exited(1));
    pool.give_back(first, report.clean);

    let second = pool.take(&image).await.unwrap();
    assert_eq!(second.name(), container, "a failed program spoils nothing");
    pool.give_back(second, false);
    let third = pool.take(&image).await.unwrap();
    assert_ne!(third.name(), container);
    pool.give_back(third, true);

    let counts = pool.counts();
    assert_eq!((counts.started, counts.reused, counts.spoiled), (2, 1, 1));
    pool.close().await;
    ground.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_containers_of_other_images_give_way() {
    let ground = Ground::new("pool-evict").await;
    let image = ground.python().await;
    let reference = "sandhog-test/other:latest";
    ground
        .build(
            reference,
            "FROM sandhog/python:latest\nLABEL other=1\n",
            &[],
        )
        .await;
    let other = ground.engine.resolve(&name(reference)).await.unwrap();
    let pool = Pool::new(ground.engine.clone(), 2, LONG);
    let older = pool.take(&image).await.unwrap();
    let newer = pool.take(&image).await.unwrap();
    let newer_name = newer.name().to_owned();
    pool.give_back(older, true);
    pool.give_back(newer, true);

    let lent = pool.take(&other).await.unwrap();
    let mut expected = vec![newer_name, lent.name().to_owned()];
    expected.sort();
    assert_eq!(
        ground.containers().await,
        expected,
        "the one used the longest time ago went, and there are never more than two"
    );
    assert_eq!(pool.counts().evicted, 1);
    pool.give_back(lent, true);
    pool.close().await;
    ground.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_died_while_idle_is_never_lent() {
    let ground = Ground::new("pool-dead").await;
    let image = ground.python().await;
    let pool = Pool::new(ground.engine.clone(), 1, LONG);
    let lent = pool.take(&image).await.unwrap();
    let container = lent.name().to_owned();
    pool.give_back(lent, true);
    let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
    ground
        .docker
        .kill_container(&container, Some(options))
        .await
        .unwrap();
    // The engine closes the streams before it removes the container.
    ground.until_empty().await;

    let mut fresh = pool.take(&image).await.unwrap();
    assert_ne!(fresh.name(), container);
    let (report, _) = run(&mut fresh, shell("true")).await.unwrap();
    assert_eq!(report.end, End::Exited(0));
    pool.give_back(fresh, true);
    assert_eq!(pool.counts().spoiled, 1);
    pool.close().await;
    ground.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_containers_are_not_kept_for_ever() {
    let ground = Ground::new("pool-sweep").await;
    let image = ground.python().await;
    let pool = Pool::new(ground.engine.clone(), 1, Duration::from_millis(1));
    let lent = pool.take(&image).await.unwrap();
    pool.give_back(lent, true);
    let deadline = Instant::now() + PATIENCE;
    while pool.sweep().await == 0 {
        assert!(Instant::now() < deadline, "it stays: {:?}", pool.counts());
    }
    assert_eq!(ground.containers().await, Vec::<String>::new());
    assert_eq!(pool.counts().expired, 1);

    let keeps_none = Pool::new(ground.engine.clone(), 1, Duration::ZERO);
    let lent = keeps_none.take(&image).await.unwrap();
    keeps_none.give_back(lent, true);
    ground.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_waits_for_a_place_and_a_dropped_loan_frees_one() {
    let ground = Ground::new("pool-full").await;
    let image = ground.python().await;
    let pool = Pool::new(ground.engine.clone(), 1, LONG);
    let lent = pool.take(&image).await.unwrap();
    let waiting = tokio::spawn({
        let (pool, image) = (pool.clone(), image.clone());
        async move { pool.take(&image).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(lent);
    let second = waiting.await.unwrap().unwrap();
    assert_eq!(ground.containers().await, [second.name()]);

    pool.close().await;
    assert_eq!(
        ground.containers().await,
        [second.name()],
        "it is out on loan"
    );
    pool.give_back(second, true);
    ground.leave().await;
}
