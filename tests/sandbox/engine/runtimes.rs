//! Runtimes: the rules for choosing one, and the limits of a job under each.

use sandhog_config::{PoolSettings, SandboxSettings};
use sandhog_core::id::RuntimeName;
use sandhog_core::image::ImageContract;
use sandhog_core::limits::Limits;
use sandhog_core::units::{ByteCount, CpuMillis};
use sandhog_protocol::frames::{CgroupSupport, ProgramEnd};
use sandhog_worker::pool::{Pool, Rules, SandboxRequest};
use sandhog_worker::sandbox::{Image, SandboxError, Shape};

use super::fixture::{EngineFixture, run, settings, shell};

fn runsc() -> RuntimeName {
    "runsc".parse().unwrap()
}

/// Returns the image as if its contract named this runtime.
fn naming(image: &Image, runtime: &str) -> Image {
    let contract = ImageContract {
        runtime: Some(runtime.parse().unwrap()),
        ..(*image.contract).clone()
    };
    Image {
        contract: std::sync::Arc::new(contract),
        ..image.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_choose_only_what_a_setting_lets_them() {
    let fixture = EngineFixture::new("runtime-choice").await;
    let image = fixture.python().await;
    let named = naming(&image, "runsc");
    let open = SandboxSettings {
        job_runtimes: vec![runsc()],
        ..settings()
    };
    let open = fixture.with_settings(&open).await;
    let closed = &fixture.sandboxes;
    let runc: RuntimeName = "runc".parse().unwrap();
    for (case, sandboxes, image, wish, want) in [
        ("nothing said", closed, &image, None, Some("runc")),
        ("the image says", closed, &named, None, Some("runsc")),
        (
            "the same said",
            closed,
            &named,
            Some(runsc()),
            Some("runsc"),
        ),
        ("not allowed", closed, &image, Some(runsc()), None),
        ("down from the image's", closed, &named, Some(runc), None),
        ("allowed", &open, &image, Some(runsc()), Some("runsc")),
    ] {
        let chosen = sandboxes.runtime(image, wish.as_ref());
        assert_eq!(
            chosen.as_ref().ok().map(RuntimeName::as_str),
            want,
            "case {case}"
        );
        if let Err(error) = chosen {
            assert_eq!(error.code(), "runtime_refused", "case {case}");
            assert!(!error.is_retryable(), "case {case}");
        }
    }
    let lost = naming(&image, "no-such-runtime");
    assert!(matches!(
        closed.start(&lost).await,
        Err(SandboxError::UnknownRuntime { .. })
    ));
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_gvisor_the_containers_caps_are_the_jobs() {
    let fixture = EngineFixture::new("runtime-caps").await;
    let sandboxes = &fixture.sandboxes;
    let image = fixture.python().await;
    let limits = Limits {
        memory: ByteCount::mib(96),
        cpu_millis: CpuMillis(500),
        ..Limits::DEFAULT
    };
    let before = sandboxes.shape_for(&runsc(), &limits);
    assert!(!before.caps_the_job, "nothing is known yet");
    let first = sandboxes.start_shaped(&image, &before).await.unwrap();
    assert_eq!(first.features().cgroup, CgroupSupport::None);
    first.destroy().await;

    let shape = sandboxes.shape_for(&runsc(), &limits);
    assert!(shape.caps_the_job);
    let mut sandbox = sandboxes.start_shaped(&image, &shape).await.unwrap();
    let seen = fixture
        .docker
        .inspect_container(sandbox.name(), None)
        .await
        .unwrap();
    let host = seen.host_config.unwrap();
    assert_eq!(host.runtime.as_deref(), Some("runsc"));
    assert_eq!(host.memory, Some(160 << 20), "96 MiB and gVisor's own");
    assert_eq!(host.memory_swap, host.memory);
    assert_eq!(host.nano_cpus, Some(500_000_000));

    let (_, kernel) = run(&mut sandbox, shell("cat /proc/version")).await.unwrap();
    assert!(kernel.contains("4.4.0"), "gVisor's kernel says {kernel:?}");
    assert!(!sandbox.is_usable(), "a container serves one job there");
    sandbox.destroy().await;

    // All children together exceed the limit, so no limit of a single process stops them. The
    // runner, which measures them now and then, gets a cap that they never reach, so that the
    // container's own cap stops them.
    let mut sandbox = sandboxes.start_shaped(&image, &shape).await.unwrap();
    let child = "python3 -c 'kept = b\"x\" * (60 << 20); input()'";
    let mut bomb = shell(&format!(
        "sleep 600 | (for i in 1 2 3 4 5 6; do {child} & done; wait)"
    ));
    bomb.caps.cell.memory_bytes = 1 << 30;
    let ended = run(&mut sandbox, bomb).await;
    assert!(ended.is_err(), "{ended:?}");
    assert!(sandboxes.oom_of(sandbox.name()).await);
    sandbox.destroy().await;

    // A container that was killed through the engine has not run out of memory.
    let sandbox = sandboxes.start_shaped(&image, &shape).await.unwrap();
    fixture
        .docker
        .kill_container(sandbox.name(), None)
        .await
        .unwrap();
    assert!(!sandboxes.oom_of(sandbox.name()).await);
    sandbox.destroy().await;
    let roomy = sandboxes.shape_for(&"runc".parse().unwrap(), &limits);
    assert!(!roomy.caps_the_job, "runc's cells have caps of their own");
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_whose_containers_serve_once_has_them_ready_ahead() {
    let fixture = EngineFixture::new("runtime-ahead").await;
    let sandboxes = &fixture.sandboxes;
    let image = fixture.python().await;
    let settings = PoolSettings {
        ahead: 1,
        ..PoolSettings::default()
    };
    let rules = Rules::new(&settings, 1, sandboxes.facts());
    let pool = Pool::new(sandboxes.clone(), rules);
    let want = SandboxRequest {
        shape: Shape {
            runtime: runsc(),
            ..sandboxes.shape(&image)
        },
        image,
        namespace: "default".parse().unwrap(),
        tenant: "red".parse().unwrap(),
        memory: ByteCount::mib(64),
        cpu_millis: CpuMillis(500),
    };
    for served in 1..=3 {
        let mut lent = pool.take(&want).await.unwrap();
        let (report, _) = run(&mut lent, shell("true")).await.unwrap();
        assert_eq!((report.end, report.clean), (ProgramEnd::Exited(0), false));
        pool.give_back(lent, report.clean, report.container_memory_bytes);
        let counts = pool.counts();
        assert_eq!(counts.spoiled, served);
        let ahead = usize::from(served >= 2);
        assert_eq!(counts.idle + counts.starting, ahead, "{counts:?}");
    }
    pool.close().await;
    fixture.leave().await;
}
