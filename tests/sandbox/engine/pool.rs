//! The warm pool with real containers. Unit tests of the worker cover its decisions without
//! containers.

use sandhog_testkit::eventually::eventually_async;
use std::time::Duration;

use bollard::query_parameters::KillContainerOptionsBuilder;
use sandhog_config::{PoolSettings, Reuse, WarmCount};
use sandhog_core::units::{ByteCount, CpuMillis};
use sandhog_protocol::frames::ProgramEnd;
use sandhog_worker::pool::{Pool, PoolCounts, Rules, SandboxRequest};
use sandhog_worker::sandbox::{Image, Sandboxes, Shape};

use super::fixture::{EngineFixture, WAIT_TIMEOUT, name, run, shell};

const LONG: Duration = Duration::from_secs(3600);

/// Returns a pool of at most this many containers that never drops an idle one.
fn pool(sandboxes: &Sandboxes, containers: usize) -> Pool {
    Pool::new(sandboxes.clone(), rules(sandboxes, containers))
}

fn rules(sandboxes: &Sandboxes, containers: usize) -> Rules {
    Rules {
        containers,
        idle_for: LONG,
        ..Rules::new(&PoolSettings::default(), 2, sandboxes.facts())
    }
}

fn want(sandboxes: &Sandboxes, image: &Image) -> SandboxRequest {
    SandboxRequest {
        image: image.clone(),
        shape: sandboxes.shape(image),
        namespace: "default".parse().unwrap(),
        tenant: "red".parse().unwrap(),
        memory: ByteCount::mib(64),
        cpu_millis: CpuMillis(500),
    }
}

/// Waits until `such` accepts the pool's counts.
async fn until(pool: &Pool, such: impl Fn(&PoolCounts) -> bool) -> PoolCounts {
    eventually_async(WAIT_TIMEOUT, async || {
        let counts = pool.counts();
        if such(&counts) {
            return Ok(counts);
        }
        pool.sweep();
        Err(format!("it stays: {counts:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_sandbox_serves_again_and_an_unclean_one_does_not() {
    let fixture = EngineFixture::new("pool-reuse").await;
    let want = want(&fixture.sandboxes, &fixture.python().await);
    let pool = pool(&fixture.sandboxes, 2);
    let mut first = pool.take(&want).await.unwrap();
    let container = first.name().to_owned();
    let (report, _) = run(&mut first, shell("exit 1")).await.unwrap();
    assert_eq!(report.end, ProgramEnd::Exited(1));
    pool.give_back(first, report.clean, report.container_memory_bytes);

    let second = pool.take(&want).await.unwrap();
    assert_eq!(
        second.name(),
        container,
        "a failed program does not make the container unusable"
    );
    pool.give_back(second, false, None);
    let third = pool.take(&want).await.unwrap();
    assert_ne!(third.name(), container);
    pool.give_back(third, true, None);

    let counts = pool.counts();
    assert_eq!((counts.started, counts.lent, counts.spoiled), (2, 3, 1));
    pool.close().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_have_containers_of_their_own() {
    let fixture = EngineFixture::new("pool-tenants").await;
    let red = want(&fixture.sandboxes, &fixture.python().await);
    let blue = SandboxRequest {
        tenant: "blue".parse().unwrap(),
        ..red.clone()
    };
    let pool = pool(&fixture.sandboxes, 4);
    let first = pool.take(&red).await.unwrap();
    let container = first.name().to_owned();
    pool.give_back(first, true, None);
    let other = pool.take(&blue).await.unwrap();
    assert_ne!(other.name(), container);
    let again = pool.take(&red).await.unwrap();
    assert_eq!(again.name(), container);
    pool.give_back(other, true, None);
    pool.give_back(again, true, None);
    pool.close().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_serves_once_is_gone_and_the_next_one_ready() {
    let fixture = EngineFixture::new("pool-never").await;
    let want = want(&fixture.sandboxes, &fixture.python().await);
    let once = Rules {
        reuse: Reuse::Never,
        ahead: 1,
        ..rules(&fixture.sandboxes, 4)
    };
    let pool = Pool::new(fixture.sandboxes.clone(), once);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut lent = pool.take(&want).await.unwrap();
        seen.push(lent.name().to_owned());
        let (report, _) = run(&mut lent, shell("true")).await.unwrap();
        pool.give_back(lent, report.clean, report.container_memory_bytes);
        until(&pool, |counts| counts.idle == 1).await;
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "each served one job");
    let counts = until(&pool, |counts| counts.leaving == 0).await;
    assert_eq!((counts.retired, counts.busy, counts.started), (3, 0, 4));
    let left = fixture.containers().await;
    assert!(!left.iter().any(|name| seen.contains(name)), "{left:?}");
    pool.close().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_containers_are_kept_warm() {
    let fixture = EngineFixture::new("pool-warm").await;
    let want = want(&fixture.sandboxes, &fixture.python().await);
    let pool = pool(&fixture.sandboxes, 4);
    let warm: Vec<WarmCount> = vec![
        "python=2".parse().unwrap(),
        "no-such-image".parse().unwrap(),
    ];
    pool.keep_warm(&warm).await;
    until(&pool, |counts| counts.idle == 2).await;
    let names = fixture.containers().await;
    let lent = pool.take(&want).await.unwrap();
    assert!(names.contains(&lent.name().to_owned()), "it was there");
    until(&pool, |counts| counts.idle == 2).await;
    pool.give_back(lent, true, None);
    assert_eq!(pool.counts().started, 3);
    pool.close().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_holds_more_than_before_does_not_serve_again() {
    let fixture = EngineFixture::new("pool-grown").await;
    let image = fixture.python().await;
    let want = SandboxRequest {
        shape: Shape {
            memory: ByteCount::mib(32),
            ..fixture.sandboxes.shape(&image)
        },
        ..want(&fixture.sandboxes, &image)
    };
    let pool = pool(&fixture.sandboxes, 2);
    let mut lent = pool.take(&want).await.unwrap();
    let mut busy = shell("head --bytes 6M /dev/zero >/dev/shm/a; head --bytes 6M /dev/zero >b");
    busy.caps.cell.memory_bytes = 16 << 20;
    let (report, _) = run(&mut lent, busy).await.unwrap();
    assert_eq!(report.end, ProgramEnd::Exited(0));
    let container = lent.name().to_owned();
    pool.give_back(lent, report.clean, report.container_memory_bytes);
    let mut lent = pool.take(&want).await.unwrap();
    assert_eq!(lent.name(), container, "the memory of the job is released");

    let before = report.container_memory_bytes.expect("it can be told");
    let hoard = "(python3 -c 'kept = b\"x\" * (8 << 20); print(1, flush=True); input()' < <(sleep \
                 600) &) | head -n 1";
    assert_eq!(fixture.look_inside(&lent, hoard).await, "1\n");
    let (report, _) = run(&mut lent, shell("true")).await.unwrap();
    assert!(report.clean);
    let after = report.container_memory_bytes.expect("it can be told");
    assert!(after > before + (4 << 20), "{before} then {after} bytes");
    pool.give_back(lent, report.clean, report.container_memory_bytes);
    let counts = until(&pool, |counts| counts.leaving == 0).await;
    assert_eq!((counts.grown, counts.idle), (1, 0));
    pool.close().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_containers_of_other_images_give_way() {
    let fixture = EngineFixture::new("pool-evict").await;
    let image = want(&fixture.sandboxes, &fixture.python().await);
    let reference = "sandhog-test/other:latest";
    fixture
        .build(
            reference,
            "FROM sandhog/python:latest\nLABEL other=1\n",
            &[],
        )
        .await;
    let other = fixture.sandboxes.resolve(&name(reference)).await.unwrap();
    let other = want(&fixture.sandboxes, &other);
    let pool = pool(&fixture.sandboxes, 2);
    let older = pool.take(&image).await.unwrap();
    let newer = pool.take(&image).await.unwrap();
    let newer_name = newer.name().to_owned();
    pool.give_back(older, true, None);
    pool.give_back(newer, true, None);

    let lent = pool.take(&other).await.unwrap();
    let mut expected = vec![newer_name, lent.name().to_owned()];
    expected.sort();
    assert_eq!(
        fixture.containers().await,
        expected,
        "the one used the longest time ago went, and there are never more than two"
    );
    assert_eq!(pool.counts().evicted, 1);
    pool.give_back(lent, true, None);
    pool.close().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_died_while_idle_is_never_lent() {
    let fixture = EngineFixture::new("pool-dead").await;
    let want = want(&fixture.sandboxes, &fixture.python().await);
    let pool = pool(&fixture.sandboxes, 1);
    let lent = pool.take(&want).await.unwrap();
    let container = lent.name().to_owned();
    pool.give_back(lent, true, None);
    let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
    fixture
        .docker
        .kill_container(&container, Some(options))
        .await
        .unwrap();
    // The engine closes the streams before it removes the container.
    fixture.until_empty().await;

    let mut fresh = pool.take(&want).await.unwrap();
    assert_ne!(fresh.name(), container);
    let (report, _) = run(&mut fresh, shell("true")).await.unwrap();
    assert_eq!(report.end, ProgramEnd::Exited(0));
    pool.give_back(fresh, true, None);
    assert_eq!(pool.counts().spoiled, 1);
    pool.close().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_containers_are_not_kept_for_ever() {
    let fixture = EngineFixture::new("pool-sweep").await;
    let want = want(&fixture.sandboxes, &fixture.python().await);
    let soon = Rules {
        idle_for: Duration::from_millis(1),
        ..rules(&fixture.sandboxes, 1)
    };
    let pool = Pool::new(fixture.sandboxes.clone(), soon);
    let lent = pool.take(&want).await.unwrap();
    pool.give_back(lent, true, None);
    until(&pool, |counts| counts.expired == 1 && counts.leaving == 0).await;
    assert_eq!(fixture.containers().await, Vec::<String>::new());

    let none = Rules {
        idle_for: Duration::ZERO,
        ..rules(&fixture.sandboxes, 1)
    };
    let keeps_none = Pool::new(fixture.sandboxes.clone(), none);
    let lent = keeps_none.take(&want).await.unwrap();
    keeps_none.give_back(lent, true, None);
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_waits_for_a_place_and_a_dropped_loan_frees_one() {
    let fixture = EngineFixture::new("pool-full").await;
    let want = want(&fixture.sandboxes, &fixture.python().await);
    let pool = pool(&fixture.sandboxes, 1);
    let lent = pool.take(&want).await.unwrap();
    let waiting = tokio::spawn({
        let (pool, want) = (pool.clone(), want.clone());
        async move { pool.take(&want).await }
    });
    until(&pool, |counts| counts.waiting == 1).await;
    assert!(!waiting.is_finished());
    drop(lent);
    let second = waiting.await.unwrap().unwrap();
    assert_eq!(fixture.containers().await, [second.name()]);

    let impatient = tokio::spawn({
        let (pool, want) = (pool.clone(), want.clone());
        async move { pool.take(&want).await }
    });
    until(&pool, |counts| counts.waiting == 1).await;
    impatient.abort();
    until(&pool, |counts| counts.waiting == 0).await;

    pool.close().await;
    assert_eq!(
        fixture.containers().await,
        [second.name()],
        "the second container is checked out"
    );
    pool.give_back(second, true, None);
    fixture.leave().await;
}
