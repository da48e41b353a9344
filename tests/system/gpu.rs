//! Jobs for GPUs, through real workers and containers, with a fake of the driver's library.
//!
//! No test uses a real device: `gpu.attach` is `none`, so a program only gets the list of its GPUs.
//! That other settings reach the engine is shown by the engine's own error.

use sandhog_core::gpu::GpuNeed;
use sandhog_core::id::JobId;
use sandhog_core::job::Job;
use sandhog_core::limits::LimitOverrides;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::units::CpuMillis;
use sandhog_testkit::environment;
use sandhog_testkit::jobs::python;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::nvml::{FakeNvml, H100, T4};
use sandhog_testkit::worker::{WorkerProcess, WorkerSpec};

/// A program that returns the list of its GPUs.
const WHICH: &str = "import os; os.environ.get('SANDHOG_GPUS')";

/// A program that prints the list of its GPUs at once, and ends only on the T4.
const UNTIL_T4: &str = "
import os, time
mine = os.environ['SANDHOG_GPUS']
print(mine, flush=True)
while not mine.startswith('GPU-1111'):
    time.sleep(0.05)
mine
";

const FOR_GPUS: [(&str, &str); 2] = [("class", "gpu"), ("backoff_ms", "1")];

fn with_gpus(space: &TestNamespace, nvml: &FakeNvml) -> WorkerSpec {
    WorkerSpec::of(space)
        .set("GPU_LIBRARY", &nvml.setting())
        .set("GPU_ATTACH", "none")
        .set("GPU_CHECK_MS", "50")
        .set("WORKER_TAGS", "gpu")
}

/// Returns the worker of the result, and its GPUs.
fn of(result: &JobResult) -> (&str, Vec<&str>) {
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    let worker = result
        .worker
        .as_ref()
        .expect("a job that ran has a worker")
        .as_str();
    (worker, result.gpus.iter().map(String::as_str).collect())
}

/// Waits until a job has printed something, and returns it.
fn says(space: &mut TestNamespace, id: &JobId) -> String {
    let log = space.keys().log(id);
    let said = space.read_stream(&log, "0");
    said[0].text("data").trim().to_owned()
}

/// Returns the value of the first series that begins with this text.
fn metric(worker: &WorkerProcess, series: &str) -> Option<f64> {
    let (_, text) = worker.get("/metrics")?;
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn a_worker_with_gpus_and_one_without_each_get_only_their_jobs() {
    let mut space = TestNamespace::shared("gpu-each");
    let nvml = FakeNvml::build();
    let cpu = WorkerSpec::of(&space)
        .set("LOG_FILTER", "info,sandhog_worker::gpu=debug")
        .start();
    // No worker serves a class for GPUs yet, and the worker logs that.
    let early = space.submit_with(&python(WHICH), &[("class", "gpu")]);
    let deadline = std::time::Instant::now() + sandhog_testkit::namespace::WAIT_TIMEOUT;
    while !cpu.log().contains("no worker serves this class") {
        assert!(std::time::Instant::now() < deadline, "{}", cpu.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let gpu = with_gpus(&space, &nvml).start();
    let mut jobs = vec![("gpu", early)];
    for class in ["cpu", "gpu", "gpu+t4", "cpu", "gpu+h100", "gpu", "cpu"] {
        jobs.push((
            class,
            space.submit_with(&python(WHICH), &[("class", class)]),
        ));
    }
    for (class, id) in &jobs {
        let result = space.result(id);
        let (worker, gpus) = of(&result);
        let told = result.value.as_ref().and_then(|value| value.as_str());
        if *class == "cpu" {
            assert_eq!((worker, told), (cpu.id(), None));
            assert!(gpus.is_empty());
        } else {
            assert_eq!((worker, told), (gpu.id(), Some(gpus[0])), "class {class}");
            assert_eq!(gpus.len(), 1);
        }
        match *class {
            "gpu+h100" => assert_eq!(gpus, [H100]),
            "gpu+t4" => assert_eq!(gpus, [T4]),
            _any => {}
        }
    }
    // A job that requests a GPU only in its payload could go to either worker, and each must reject
    // it.
    let unrouted = Job {
        gpu: Some(GpuNeed::default()),
        ..python(WHICH)
    };
    let result = space.run(&unrouted);
    assert_eq!(result.outcome, Outcome::Rejected);
    assert_eq!(result.error.unwrap().code, "gpu_not_routed");

    assert!(
        cpu.log().contains("no gpus: jobs run on cpus"),
        "{}",
        cpu.log()
    );
    assert_eq!(gpu.log().matches("gpu found").count(), 2, "{}", gpu.log());
    let memory = format!("sandhog_gpu_memory_bytes{{gpu=\"{T4}\",model=\"t4\"}}");
    assert_eq!(metric(&gpu, &memory), Some(f64::from(1 << 30) * 16.0));
    let healthy = format!("sandhog_gpu_healthy{{gpu=\"{H100}\",model=\"h100\"}}");
    assert_eq!(metric(&gpu, &healthy), Some(1.0));
    assert_eq!(metric(&cpu, "sandhog_gpu_"), None);
    let status = status(&space);
    assert!(
        status.contains(H100) && status.contains("Tesla T4"),
        "{status}"
    );
}

fn status(space: &TestNamespace) -> String {
    said(space, &["status"])
}

/// Runs the command on this namespace and returns its output.
fn said(space: &TestNamespace, words: &[&str]) -> String {
    let output = environment::sandhog_command()
        .args(words)
        .env("SANDHOG_REDIS_URL", space.url())
        .env("SANDHOG_NAMESPACE", space.namespace().as_str())
        .output()
        .expect("the program starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn two_jobs_have_two_gpus_and_the_third_is_left_in_the_queue() {
    let mut space = TestNamespace::shared("gpu-three");
    let nvml = FakeNvml::build();
    let worker = with_gpus(&space, &nvml)
        .set("WORKER_TAGS", "cpu,gpu")
        .start();
    let forever = "
import os, time
print(os.environ['SANDHOG_GPUS'], flush=True)
while True:
    time.sleep(0.05)
";
    // Small enough to leave the CPU to other jobs.
    let limits = LimitOverrides {
        cpu_millis: Some(CpuMillis(100)),
        ..LimitOverrides::default()
    };
    let forever = Job {
        limits,
        ..python(forever)
    };
    let running = [0, 1].map(|_| space.submit_with(&forever, &FOR_GPUS));
    let mut had = running.each_ref().map(|id| says(&mut space, id));
    let freed = had[0].clone();
    had.sort();
    assert_eq!(had, [H100, T4]);
    let third = space.submit_with(&python(WHICH), &FOR_GPUS);
    // Jobs without a GPU run in the meantime, because the worker has more slots than GPUs.
    for _ in 0..3 {
        assert_eq!(of(&space.run(&python("1"))).0, worker.id());
    }
    let record = said(&space, &["status", third.as_str()]);
    assert!(record.contains("queued"), "{record}");
    space.cancel(&running[0]);
    let result = space.result(&third);
    assert_eq!(of(&result).1, [freed.as_str()]);
    space.cancel(&running[1]);
    assert_eq!(space.result(&running[1]).outcome, Outcome::Cancelled);
}

#[test]
fn a_gpu_that_fails_in_mid_job_loses_the_job_to_another() {
    for elsewhere in [false, true] {
        let mut space = TestNamespace::shared("gpu-lost");
        let nvml = FakeNvml::build();
        let spec = with_gpus(&space, &nvml);
        let first = if elsewhere {
            spec.set("GPU_DEVICES", "0")
        } else {
            spec
        }
        .start();
        let routing = [&FOR_GPUS[..], &[("reply", "all"), ("max_attempts", "1")]].concat();
        let id = space.submit_with(&python(UNTIL_T4), &routing);
        assert_eq!(says(&mut space, &id), H100);
        let other = FakeNvml::build();
        let second = elsewhere.then(|| with_gpus(&space, &other).set("GPU_DEVICES", "1").start());
        nvml.set_faults("0 lost");

        let result = space.result(&id);
        let to = second.as_ref().unwrap_or(&first);
        assert_eq!(of(&result), (to.id(), vec![T4]), "{}", first.log());
        assert_eq!(
            (result.attempts, result.stdout.lossy()),
            (2, format!("{T4}\n").into())
        );
        let replies = space.keys().reply(&"all".parse().unwrap());
        // A second result of the first job would come before the result of this job.
        let last = space.submit_with(&python(WHICH), &routing);
        assert_eq!(of(&space.result(&last)).1, [T4]);
        let ids: Vec<String> = space
            .read_stream_until(&replies, 2)
            .iter()
            .map(|entry| entry.text("id").to_owned())
            .collect();
        assert_eq!(ids, [id.as_str(), last.as_str()], "one result each");

        assert!(
            first.log().contains("the driver has lost it"),
            "{}",
            first.log()
        );
        let healthy = format!("sandhog_gpu_healthy{{gpu=\"{H100}\"");
        let deadline = std::time::Instant::now() + sandhog_testkit::namespace::WAIT_TIMEOUT;
        while metric(&first, &healthy) != Some(0.0) {
            assert!(
                std::time::Instant::now() < deadline,
                "measured every half second"
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(metric(&first, "sandhog_gpus_lost_total"), Some(1.0));
    }
}

#[test]
fn jobs_share_a_gpu_by_what_they_say_they_use() {
    let mut space = TestNamespace::shared("gpu-share");
    let nvml = FakeNvml::build();
    let _worker = with_gpus(&space, &nvml)
        .set("GPU_SHARE", "4")
        .set("GPU_DEVICES", "1")
        .start();
    let part = |gib: u64, code: &str| Job {
        gpu: serde_json::from_value(serde_json::json!({"memory": gib << 30})).unwrap(),
        ..python(code)
    };
    let forever = "
import os, time
print(os.environ['SANDHOG_GPUS'], flush=True)
while True:
    time.sleep(0.05)
";
    let running = space.submit_with(&part(10, forever), &FOR_GPUS);
    assert_eq!(says(&mut space, &running), T4);
    let beside = space.submit_with(&part(6, WHICH), &FOR_GPUS);
    assert_eq!(of(&space.result(&beside)).1, [T4]);
    let alone = space.submit_with(&python(WHICH), &FOR_GPUS);
    space.cancel(&running);
    assert_eq!(of(&space.result(&alone)).1, [T4]);
    let too_much = space.submit_with(&part(17, WHICH), &FOR_GPUS);
    let result = space.result(&too_much);
    assert_eq!(result.outcome, Outcome::Lost, "{result:?}");
    let why = result.error.unwrap().message;
    assert!(
        why.contains("1 GPUs with 17GiB are wanted, and this worker has 0"),
        "{why}"
    );
}

#[test]
fn a_worker_for_gpus_alone_does_not_start_without_any() {
    let space = TestNamespace::shared("gpu-none");
    let mut worker = WorkerSpec::of(&space).set("WORKER_TAGS", "gpu").spawn();
    assert!(!worker.wait().success());
    assert!(
        worker
            .log()
            .contains("worker.tags offers gpu alone, and no such gpu was found"),
        "{}",
        worker.log()
    );
}

#[test]
fn the_doctor_tells_what_there_is_and_whether_a_container_gets_it() {
    let nvml = FakeNvml::build();
    let lines = |variables: &[(&str, &str)]| {
        let output = environment::sandhog_command()
            .arg("doctor")
            .envs(variables.iter().copied())
            .env("SANDHOG_SANDBOX_IMAGES_DIR", "/nowhere")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let about = |line: &&str| line.get(6..).is_some_and(|line| line.starts_with("gpu"));
        text.lines()
            .filter(about)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let library = nvml.setting();
    let there = [
        ("SANDHOG_GPU_LIBRARY", library.as_str()),
        ("SANDHOG_GPU_ATTACH", "none"),
    ];
    // Both runs of the doctor start a container of every image, one after another, so they run at
    // the same time.
    let (found, refused) = std::thread::scope(|scope| {
        let refused = scope.spawn(|| lines(&there[..1]));
        (lines(&there), refused.join().expect("the doctor was run"))
    });
    assert_eq!(found[0], "ok    gpus: 2 by driver 550.54.15");
    assert_eq!(
        found[1],
        format!("ok    gpu 0: NVIDIA H100 80GB HBM3, 81920 MiB, {H100}, offered as gpu+h100")
    );
    assert_eq!(
        found[3],
        "warn  gpus in a sandbox: not given (gpu.attach is none)"
    );
    // This machine has no NVIDIA runtime, and the engine's error shows that it was asked for one.
    assert!(
        refused[3].starts_with("fail  gpus in a sandbox: "),
        "{refused:?}"
    );
    assert!(
        refused[3].contains("could not select device driver \"nvidia\""),
        "{refused:?}"
    );

    // The report without a GPU does not depend on images, so none is available here.
    let no_images = ("SANDHOG_SANDBOX_IMAGE_REFERENCE", "nobody/has-{name}");
    let none = lines(&[no_images]);
    assert_eq!(none.len(), 1, "{none:?}");
    assert!(
        none[0].starts_with("ok    gpus: none: no libnvidia-ml.so.1 to load"),
        "{none:?}"
    );
    let wanted = lines(&[no_images, ("SANDHOG_WORKER_TAGS", "cpu,gpu")]);
    assert!(wanted[0].starts_with("fail  gpus: none: "), "{wanted:?}");
}
