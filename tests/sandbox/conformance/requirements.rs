//! The requirements on a provider. Each one is a function, and `main.rs` runs all of them over each
//! provider.

use std::sync::Arc;
use std::time::Duration;

use sandhog_config::PoolSettings;
use sandhog_core::outcome::Fault;
use sandhog_core::units::{ByteCount, CpuMillis};
use sandhog_protocol::frames::{ProgramEnd, Stop};
use sandhog_testkit::eventually::eventually_async;
use sandhog_worker::pool::{Pool, Rules, SandboxRequest};
use sandhog_worker::sandbox::{ContainerResource, Digest, Image, Output, Sandbox, Shape};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::program::{run, run_script, script};
use crate::provider_fixture::{ProviderFixture, WAIT_TIMEOUT};

/// A program that prints a line and then runs for longer than any test.
const ENDLESS: &str = "echo running; sleep 600";

/// Waits until a sandbox whose container has ended is not usable.
async fn until_unusable(sandbox: &mut Sandbox) {
    eventually_async(WAIT_TIMEOUT, async || match sandbox.is_usable() {
        true => Err("it is still usable".to_owned()),
        false => Ok(()),
    })
    .await;
}

pub(crate) async fn the_facts_describe_a_machine<F: ProviderFixture>(fixture: &F) {
    let (sandboxes, image) = fixture.connected().await;
    let facts = sandboxes.facts();
    assert!(!facts.version.is_empty());
    assert!(facts.cpus > 0 && facts.memory > ByteCount(0), "{facts:?}");
    let runtime = sandboxes.runtime(&image, None).unwrap();
    assert!(facts.require_runtime(&runtime).is_ok(), "{facts:?}");
    let shape = Shape {
        runtime: "no-such-runtime".parse().unwrap(),
        ..sandboxes.shape(&image)
    };
    let error = sandboxes.start_shaped(&image, &shape).await.unwrap_err();
    assert_eq!(error.code(), "unknown_runtime", "{error}");
    fixture.until_containers(&[]).await;
}

pub(crate) async fn an_image_is_found_and_a_missing_one_is_refused<F: ProviderFixture>(
    fixture: &F,
) {
    let (sandboxes, image) = fixture.connected().await;
    assert_eq!(image.name, fixture.image());
    let listed = sandboxes.images().await.unwrap();
    let own = listed.iter().find(|stored| stored.name == image.name);
    let own = own.expect("a found image is listed");
    assert_eq!(own.digest, image.digest);
    assert_eq!(own.reference, image.reference);
    assert_eq!(own.contract, *image.contract);
    for name in ["no-such-image", "nowhere.invalid:5000/a/b", "..", "x/../y"] {
        let error = sandboxes.resolve(&name.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.code(), "unknown_image", "{name}: {error}");
        assert_eq!(error.fault(), Fault::Submitter, "{name}");
    }
}

pub(crate) async fn a_build_that_is_gone_is_replaced_by_the_present_one<F: ProviderFixture>(
    fixture: &F,
) {
    let (sandboxes, image) = fixture.connected().await;
    let stale = Image {
        digest: Digest::new(format!("sha256:{}", "0".repeat(64))),
        ..image.clone()
    };
    let sandbox = sandboxes.start(&stale).await.unwrap();
    assert_eq!(sandbox.image().digest, image.digest);
    sandbox.destroy().await;
    let gone = Image {
        name: "no-such-image".parse().unwrap(),
        ..stale
    };
    let error = sandboxes.start(&gone).await.unwrap_err();
    assert_eq!(error.code(), "unknown_image", "{error}");
    fixture.until_containers(&[]).await;
}

pub(crate) async fn programs_run_one_after_another<F: ProviderFixture>(fixture: &F) {
    let (sandboxes, image) = fixture.connected().await;
    let mut sandbox = sandboxes.start(&image).await.unwrap();
    assert_eq!(sandbox.image().digest, image.digest);
    fixture.until_containers(&[sandbox.name()]).await;
    for (text, end, stdout, stderr) in [
        ("echo one", 0, "one\n", ""),
        ("echo two >&2; exit 3", 3, "", "two\n"),
        ("exit 255", 255, "", ""),
    ] {
        assert!(sandbox.is_usable(), "before {text}");
        let ended = run_script(&mut sandbox, text).await;
        assert_eq!(ended.end, ProgramEnd::Exited(end), "{text}");
        assert_eq!(ended.stop, None, "{text}");
        assert_eq!(
            (ended.stdout.as_str(), ended.stderr.as_str()),
            (stdout, stderr),
            "{text}"
        );
        assert!(ended.clean, "{text}");
    }
    sandbox.destroy().await;
}

pub(crate) async fn output_arrives_complete_and_in_order<F: ProviderFixture>(fixture: &F) {
    let (sandboxes, image) = fixture.connected().await;
    let mut sandbox = sandboxes.start(&image).await.unwrap();
    let lines = |word: &str| -> Vec<String> { (0..200).map(|n| format!("{word} {n}")).collect() };
    let (to_stdout, to_stderr) = (lines("out"), lines("error"));
    let text: String = to_stdout
        .iter()
        .zip(&to_stderr)
        .map(|(out, error)| format!("echo {out}; echo {error} >&2; "))
        .collect();
    let ended = run_script(&mut sandbox, &text).await;
    assert!(ended.stdout.lines().eq(&to_stdout), "{}", ended.stdout);
    assert!(ended.stderr.lines().eq(&to_stderr), "{}", ended.stderr);

    let mut large = script("cat");
    large.stdin = b"abcdefghijklmnopqrstuvwxy".repeat(36_000);
    let wanted = large.stdin.clone();
    let ended = run(&mut sandbox, large).await;
    assert!(
        ended.stdout.as_bytes() == wanted,
        "{} bytes",
        ended.stdout.len()
    );
    sandbox.destroy().await;
}

pub(crate) async fn a_closed_receiver_of_output_is_no_error<F: ProviderFixture>(fixture: &F) {
    let (sandboxes, image) = fixture.connected().await;
    let mut sandbox = sandboxes.start(&image).await.unwrap();
    let (sender, pieces) = mpsc::channel::<Output>(1);
    drop(pieces);
    let never = CancellationToken::new();
    let program = script("echo a; echo b; exit 4");
    let report = sandbox.run(program, &sender, &never).await.unwrap();
    assert_eq!(report.end, ProgramEnd::Exited(4));
    assert!(sandbox.is_usable());
    sandbox.destroy().await;
}

pub(crate) async fn a_program_is_cancelled_and_the_next_one_runs<F: ProviderFixture>(fixture: &F) {
    let (sandboxes, image) = fixture.connected().await;
    let mut sandbox = sandboxes.start(&image).await.unwrap();
    let (sender, mut pieces) = mpsc::channel::<Output>(4);
    let cancel = CancellationToken::new();
    let ask = async {
        pieces.recv().await.expect("it says that it runs");
        cancel.cancel();
    };
    let (ended, ()) = tokio::join!(sandbox.run(script(ENDLESS), &sender, &cancel), ask);
    let report = ended.unwrap();
    assert_eq!(report.stop, Some(Stop::Cancelled));
    assert!(report.clean && sandbox.is_usable());
    let ended = run_script(&mut sandbox, "exit 3").await;
    assert_eq!(ended.end, ProgramEnd::Exited(3));
    sandbox.destroy().await;
}

pub(crate) async fn a_program_is_stopped_at_its_time_limit<F: ProviderFixture>(fixture: &F) {
    let (sandboxes, image) = fixture.connected().await;
    let mut sandbox = sandboxes.start(&image).await.unwrap();
    let mut program = script(ENDLESS);
    program.caps.call.wall_ms = 200;
    let ended = run(&mut sandbox, program).await;
    assert_eq!(ended.stop, Some(Stop::WallClock));
    assert!(ended.clean && sandbox.is_usable());
    sandbox.destroy().await;
}

pub(crate) async fn a_sandbox_is_usable_again_only_after_its_cell_is_cleared<F: ProviderFixture>(
    fixture: &F,
) {
    let (sandboxes, image) = fixture.connected().await;
    let mut sandbox = sandboxes.start(&image).await.unwrap();
    let (sender, _pieces) = mpsc::channel::<Output>(4);
    let never = CancellationToken::new();
    let report = sandbox
        .execute(script("echo a"), &sender, None, &never)
        .await;
    assert_eq!(report.unwrap().end, ProgramEnd::Exited(0));
    assert!(!sandbox.is_usable(), "its cell is not cleared");
    assert!(sandbox.clear().await.clean);
    assert!(sandbox.is_usable());
    assert!(sandbox.clear().await.clean, "it is clean already");
    sandbox.destroy().await;
}

pub(crate) async fn a_sandbox_whose_run_was_dropped_is_not_usable<F: ProviderFixture>(fixture: &F) {
    let (sandboxes, image) = fixture.connected().await;
    let mut sandbox = sandboxes.start(&image).await.unwrap();
    let (sender, mut pieces) = mpsc::channel::<Output>(4);
    let never = CancellationToken::new();
    tokio::select! {
        _ = sandbox.run(script(ENDLESS), &sender, &never) => panic!("it runs on"),
        _ = pieces.recv() => {}
    }
    assert!(!sandbox.is_usable(), "its program may still run");
    drop(sandbox);
    fixture.until_containers(&[]).await;
}

pub(crate) async fn a_sandbox_that_ended_is_an_error_and_the_next_one_works<F: ProviderFixture>(
    fixture: &F,
) {
    let (sandboxes, image) = fixture.connected().await;
    let mut idle = sandboxes.start(&image).await.unwrap();
    fixture.kill(idle.name()).await;
    until_unusable(&mut idle).await;
    idle.destroy().await;

    let mut busy = sandboxes.start(&image).await.unwrap();
    let name = busy.name().to_owned();
    let (sender, mut pieces) = mpsc::channel::<Output>(4);
    let never = CancellationToken::new();
    let kill = async {
        pieces.recv().await.expect("it says that it runs");
        fixture.kill(&name).await;
    };
    let (ended, ()) = tokio::join!(busy.run(script(ENDLESS), &sender, &never), kill);
    let error = ended.unwrap_err();
    assert_eq!(error.code(), "sandbox_died", "{error}");
    assert!(error.is_retryable());
    assert!(!busy.is_usable());
    busy.destroy().await;

    let mut fresh = sandboxes.start(&image).await.unwrap();
    assert_eq!(run_script(&mut fresh, "echo again").await.stdout, "again\n");
    fresh.destroy().await;
}

pub(crate) async fn a_lack_of_memory_is_told_from_other_ends<F: ProviderFixture>(fixture: &F) {
    let (sandboxes, image) = fixture.connected().await;
    // The worker asks only about containers whose caps are those of the job.
    let shape = Shape {
        caps_the_job: true,
        ..sandboxes.shape(&image)
    };
    let mut short = sandboxes.start_shaped(&image, &shape).await.unwrap();
    fixture.run_out_of_memory(short.name()).await;
    until_unusable(&mut short).await;
    assert!(sandboxes.oom_of(short.name()).await);
    short.destroy().await;

    let mut killed = sandboxes.start_shaped(&image, &shape).await.unwrap();
    fixture.kill(killed.name()).await;
    until_unusable(&mut killed).await;
    assert!(!sandboxes.oom_of(killed.name()).await);
    killed.destroy().await;
    assert!(!sandboxes.oom_of("no-such-container").await);
    fixture.until_containers(&[]).await;
}

pub(crate) async fn a_removed_container_releases_its_resource<F: ProviderFixture>(fixture: &F) {
    let (sandboxes, image) = fixture.connected().await;
    let shape = sandboxes.shape(&image);
    let start = async || {
        let resource: ContainerResource = Arc::new(());
        let held = Arc::downgrade(&resource);
        let started = sandboxes.start_with_resource(&image, &shape, Some(resource));
        (started.await.unwrap(), held)
    };
    let (sandbox, held) = start().await;
    assert!(held.upgrade().is_some(), "the container holds it");
    sandbox.destroy().await;
    assert!(held.upgrade().is_none(), "the container is gone");
    assert!(fixture.containers().await.is_empty());

    let (sandbox, held) = start().await;
    drop(sandbox);
    sandboxes.wait_for_removals().await;
    assert!(held.upgrade().is_none());
    assert!(fixture.containers().await.is_empty());
}

pub(crate) async fn a_start_that_is_dropped_leaves_nothing<F: ProviderFixture>(fixture: &F) {
    let (sandboxes, image) = fixture.connected().await;
    for wait in [0, 1, 20] {
        let starting = sandboxes.start(&image);
        drop(tokio::time::timeout(Duration::from_millis(wait), starting).await);
    }
    // Meanwhile the dropped starts reach the point at which they have made a container.
    sandboxes.start(&image).await.unwrap().destroy().await;
    fixture.until_containers(&[]).await;
}

pub(crate) async fn only_containers_of_dead_workers_are_reaped<F: ProviderFixture>(fixture: &F) {
    let (sandboxes, image) = fixture.connected().await;
    let (alive, dead) = (
        fixture.connect("alive").await,
        fixture.connect("dead").await,
    );
    let own = sandboxes.start(&image).await.unwrap();
    let theirs = alive.start(&image).await.unwrap();
    let left = dead.start(&image).await.unwrap();
    let left_too = dead.start(&image).await.unwrap();
    let workers = ["alive".parse().unwrap()];
    assert_eq!(sandboxes.reap(&workers).await.unwrap(), 2);
    fixture.until_containers(&[own.name(), theirs.name()]).await;
    assert_eq!(sandboxes.reap(&workers).await.unwrap(), 0);

    // The removal of a container that is already gone succeeds.
    left.destroy().await;
    drop(left_too);
    dead.wait_for_removals().await;
    own.destroy().await;
    theirs.destroy().await;
    assert!(fixture.containers().await.is_empty());
}

pub(crate) async fn a_pool_keeps_and_removes_its_sandboxes<F: ProviderFixture>(fixture: &F) {
    let (sandboxes, image) = fixture.connected().await;
    let rules = Rules::new(&PoolSettings::default(), 2, sandboxes.facts());
    let pool = Pool::new(sandboxes.clone(), rules);
    let request = SandboxRequest {
        shape: sandboxes.shape(&image),
        image,
        namespace: "default".parse().unwrap(),
        tenant: "red".parse().unwrap(),
        memory: ByteCount::mib(64),
        cpu_millis: CpuMillis(500),
    };
    let mut first = pool.take(&request).await.unwrap();
    let container = first.name().to_owned();
    let ended = run_script(&mut first, "exit 1").await;
    pool.give_back(first, ended.clean, ended.container_memory_bytes);
    let second = pool.take(&request).await.unwrap();
    assert_eq!(
        second.name(),
        container,
        "a container serves one job after another"
    );
    pool.give_back(second, false, None);
    let third = pool.take(&request).await.unwrap();
    assert_ne!(
        third.name(),
        container,
        "a container that is not clean serves no other job"
    );
    pool.give_back(third, true, None);
    pool.close().await;
    assert!(fixture.containers().await.is_empty());
}
