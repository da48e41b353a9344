//! The outer wall, checked from inside a container: only the effective state counts, not the
//! request to the engine.

use std::path::PathBuf;

use sandhog_protocol::frames::ProgramEnd;
use sandhog_protocol::install::RUNNER_CAPABILITIES;
use sandhog_worker::sandbox::{CONTAINER_MEMORY, Sandbox};

use super::fixture::{EngineFixture, labels, run, settings, shell};

/// Returns the number of a capability, for those that a runner may have.
fn number(capability: &str) -> u32 {
    match capability {
        "KILL" => 5,
        "SETGID" => 6,
        "SETUID" => 7,
        "SETPCAP" => 8,
        "NET_ADMIN" => 12,
        "SYS_CHROOT" => 18,
        "SYS_ADMIN" => 21,
        other => panic!("no runner may have the capability {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runner_has_its_few_capabilities_and_no_way_to_more() {
    let fixture = EngineFixture::new("capabilities").await;
    let sandbox = fixture.sandbox().await;
    let status = fixture.look_inside(&sandbox, "cat /proc/1/status").await;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let wanted = RUNNER_CAPABILITIES
        .iter()
        .fold(0, |bits, name| bits | 1_u64 << number(name));
    for set in ["CapBnd:", "CapEff:", "CapPrm:"] {
        let bits = u64::from_str_radix(&field(set), 16).unwrap();
        assert_eq!(bits & !wanted, 0, "{set} {bits:x}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2", "the engine's own filter is on");
    sandbox.destroy().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_processes_and_cpu_are_capped() {
    let fixture = EngineFixture::new("resources").await;
    let sandbox = fixture.sandbox().await;
    let settings = settings();
    let kernel = Kernel::of(&fixture, &sandbox).await;
    let memory = (settings.memory.0 + CONTAINER_MEMORY.0).to_string();
    assert_eq!(
        kernel.reads("memory", "memory.max", "memory.limit_in_bytes"),
        memory
    );
    let swap = kernel.reads("memory", "memory.swap.max", "memory.memsw.limit_in_bytes");
    assert_eq!(swap, if kernel.v2 { "0".to_owned() } else { memory });
    let pids = kernel.reads("pids", "pids.max", "pids.max");
    assert_eq!(pids, settings.pids.to_string());
    let (quota, period) = if kernel.v2 {
        let both = kernel.reads("cpu", "cpu.max", "");
        let (quota, period) = both.split_once(' ').unwrap();
        (quota.to_owned(), period.to_owned())
    } else {
        (
            kernel.reads("cpu", "", "cpu.cfs_quota_us"),
            kernel.reads("cpu", "", "cpu.cfs_period_us"),
        )
    };
    let share = quota.parse::<u64>().unwrap() * 1000 / period.parse::<u64>().unwrap();
    let cores = u64::from(fixture.sandboxes.facts().cpus);
    assert_eq!(share, settings.cpu_millis.0.min(cores * 1000));
    let limits = fixture.look_inside(&sandbox, "cat /proc/1/limits").await;
    for (name, most) in [
        ("Max core file size", "1"),
        ("Max locked memory", "0"),
        ("Max open files", "8192"),
    ] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        assert_eq!(
            line.trim_start_matches(name).split_whitespace().nth(1),
            Some(most),
            "{line}"
        );
    }
    let oom = fixture
        .look_inside(&sandbox, "cat /proc/1/oom_score_adj")
        .await;
    assert_eq!(
        oom.trim(),
        "0",
        "the runner is exempt from the out-of-memory killer"
    );
    sandbox.destroy().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_network_and_no_disk_to_write_to() {
    let fixture = EngineFixture::new("walls").await;
    let sandbox = fixture.sandbox().await;
    let interfaces = fixture.look_inside(&sandbox, "cat /proc/1/net/dev").await;
    let names: Vec<_> = interfaces
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim())
        .collect();
    assert_eq!(names, ["lo"]);
    let written = fixture
        .look_inside(
            &sandbox,
            "for d in / /usr /etc /var /work /root /home /opt /srv /usr/lib/sandhog; do \
             touch $d/x 2>/dev/null && echo $d; done",
        )
        .await;
    assert_eq!(written, "", "these could be written to");
    let room = fixture
        .look_inside(
            &sandbox,
            "df --output=size --block-size=1 /tmp /dev/shm | tail -n +2",
        )
        .await;
    for size in room.split_whitespace() {
        assert!(
            size.parse::<u64>().unwrap() <= 4 << 20,
            "scratch of {size} bytes"
        );
    }
    let host = fixture.look_inside(&sandbox, "hostname").await;
    assert_eq!(host.trim(), "sandhog");
    sandbox.destroy().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_sends_is_nowhere_in_what_the_engine_shows() {
    let fixture = EngineFixture::new("inspect").await;
    let mut sandbox = fixture.sandbox().await;
    let secret = "xyzzy-secret";
    let mut job = shell(&format!("echo {secret} $TOKEN; cat"));
    job.env = vec![("TOKEN".to_owned(), secret.to_owned())];
    job.stdin = secret.as_bytes().to_vec();
    let (report, stdout) = run(&mut sandbox, job).await.unwrap();
    assert_eq!(report.end, ProgramEnd::Exited(0));
    assert_eq!(stdout, format!("{secret} {secret}\n{secret}"));

    let inspected = fixture
        .docker
        .inspect_container(sandbox.name(), None)
        .await
        .unwrap();
    let shown = serde_json::to_string(&inspected).unwrap();
    assert!(!shown.contains(secret), "{shown}");
    let log = inspected.host_config.unwrap().log_config.unwrap();
    assert_eq!(
        log.typ.as_deref(),
        Some("none"),
        "nothing is logged to disk"
    );
    let labels = labels(&fixture.docker, sandbox.name()).await;
    assert_eq!(labels["sandhog.worker"], "one");
    assert_eq!(labels["sandhog.image"], "python");
    assert!(labels["sandhog.namespace"].starts_with("test-inspect-"));
    assert!(sandbox.name().starts_with("sandhog-one-"));
    sandbox.destroy().await;
    fixture.leave().await;
}

/// Values that the kernel holds for a container's cgroup. The runner hides the cgroup from
/// everything inside.
struct Kernel {
    v2: bool,
    /// The container's part of the path below each controller.
    path: String,
}

impl Kernel {
    async fn of(fixture: &EngineFixture, sandbox: &Sandbox) -> Self {
        let inspected = fixture.docker.inspect_container(sandbox.name(), None).await;
        let inspected = inspected.unwrap();
        let (id, pid) = (inspected.id.unwrap(), inspected.state.unwrap().pid.unwrap());
        let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .expect("the engine runs on this machine");
        let line = cgroups.lines().find(|line| line.contains(&id)).unwrap();
        let path = line.rsplit(':').next().unwrap();
        // The runner may have moved itself to a child group.
        let own: Vec<_> = path
            .split_inclusive('/')
            .scan(false, |passed, part| {
                let above = !*passed;
                *passed = *passed || part.contains(&id);
                above.then_some(part)
            })
            .collect();
        Self {
            v2: line.starts_with("0::"),
            path: own.concat(),
        }
    }

    fn reads(&self, controller: &str, v2: &str, v1: &str) -> String {
        let root = PathBuf::from("/sys/fs/cgroup");
        let (root, file) = if self.v2 {
            (root, v2)
        } else {
            (root.join(controller), v1)
        };
        let file = root.join(self.path.trim_start_matches('/')).join(file);
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        text.trim().to_owned()
    }
}
