//! Sends many jobs through one worker and measures the resources that it holds in between. A leak
//! shows as a rising line.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandhog_core::job::Job;
use sandhog_core::outcome::Outcome;

use crate::containers::{Engine, WORKER_LABEL};
use crate::jobs::{bash, python};
use crate::namespace::TestNamespace;
use crate::worker::WorkerProcess;

/// Number of jobs that are kept queued.
const QUEUED_JOBS: usize = 64;

/// Time that a worker may take to become idle. Cells end after their results, and threads of
/// blocking work end later still.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Resources that a worker and its containers hold while no job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResourceUsage {
    /// Resident memory of the worker, in bytes.
    pub worker_memory: u64,
    /// Open descriptors of the worker.
    pub descriptors: usize,
    /// Threads of the worker.
    pub threads: usize,
    /// Number of its containers.
    pub containers: usize,
    /// Number of processes in all containers.
    pub processes: usize,
    /// Number of mounts outside of cells, in all containers.
    pub mounts: usize,
    /// Number of control groups below those of the containers.
    pub cgroups: usize,
    /// Memory that the containers' control groups count, without file cache, in bytes.
    pub container_memory: u64,
}

/// A stream of jobs of every kind for one worker.
#[derive(Debug)]
pub struct Soak {
    engine: Engine,
    tenants: usize,
    next: usize,
}

impl Soak {
    /// Returns a stream of one tenant that has submitted nothing yet.
    ///
    /// # Panics
    /// Panics if the engine does not answer.
    #[must_use]
    pub fn new() -> Self {
        Self::of_tenants(1)
    }

    /// Returns a stream in which this many tenants take turns, and which has submitted nothing yet.
    ///
    /// # Panics
    /// Panics if the engine does not answer.
    #[must_use]
    pub fn of_tenants(tenants: usize) -> Self {
        Self {
            engine: Engine::connect(),
            tenants: tenants.max(1),
            next: 0,
        }
    }

    /// Runs this many jobs to their ends.
    ///
    /// # Panics
    /// Panics if a job does not end as its kind must.
    pub fn run(&mut self, space: &mut TestNamespace, jobs: usize) {
        let mut waiting = VecDeque::new();
        let mut left = jobs;
        while left > 0 || !waiting.is_empty() {
            while left > 0 && waiting.len() < QUEUED_JOBS {
                let (job, end) = kind(self.next);
                let tenant = format!("tenant-{}", self.next % self.tenants);
                let routing = [("keep_s", "60"), ("tenant", tenant.as_str())];
                waiting.push_back((space.submit_with(&job, &routing), end));
                self.next += 1;
                left -= 1;
            }
            if let Some((id, end)) = waiting.pop_front() {
                let result = space.result(&id);
                assert_eq!(result.outcome, end, "{result:?}");
            }
        }
    }

    /// Returns the resources that the worker holds once the last job is cleaned up and every
    /// standby cell is made, which is when its containers have looked the same for a second. Values
    /// that fluctuate by themselves are the minimum of that second.
    #[must_use]
    pub fn resource_usage(&self, worker: &WorkerProcess) -> ResourceUsage {
        let until = Instant::now() + IDLE_TIMEOUT;
        let mut steady = self.measure(worker);
        let mut same = 0;
        while same < 10 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.measure(worker);
            if now.in_containers() == steady.in_containers() {
                same += 1;
                steady.descriptors = steady.descriptors.min(now.descriptors);
                steady.threads = steady.threads.min(now.threads);
                steady.container_memory = steady.container_memory.min(now.container_memory);
            } else {
                (steady, same) = (now, 0);
            }
        }
        steady
    }

    fn measure(&self, worker: &WorkerProcess) -> ResourceUsage {
        let own = PathBuf::from(format!("/proc/{}", worker.pid()));
        let ids = self.engine.containers_with_label(WORKER_LABEL, worker.id());
        let mut holding = ResourceUsage {
            worker_memory: resident(&own),
            descriptors: entries(&own.join("fd")),
            threads: entries(&own.join("task")),
            containers: ids.len(),
            ..ResourceUsage::default()
        };
        for id in &ids {
            let Some(group) = memory_group(id) else {
                continue;
            };
            let pids = read(&runners(&group).join("cgroup.procs"));
            holding.processes += pids.lines().count();
            // The init of a cell sees more mounts than the container itself has.
            let seen = |pid| read(&PathBuf::from(format!("/proc/{pid}/mountinfo")));
            let mounts = pids.lines().map(|pid| seen(pid).lines().count());
            holding.mounts += mounts.filter(|count| *count > 0).min().unwrap_or(0);
            holding.cgroups += folders(&group);
            holding.container_memory += counted(&group);
        }
        holding
    }
}

impl ResourceUsage {
    /// Returns the counts of containers and of the things in them.
    fn in_containers(&self) -> [usize; 4] {
        [self.containers, self.processes, self.mounts, self.cgroups]
    }
}

impl Default for Soak {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the job of this number and the outcome that it must have.
fn kind(number: usize) -> (Job, Outcome) {
    match number % 100 {
        7 => (python("raise ValueError(7)"), Outcome::Failed),
        20 => (
            python("import os; os.write(1, b'x' * 1_000_000)"),
            Outcome::Succeeded,
        ),
        33 => (bash("sleep 1000 & exit 0"), Outcome::Succeeded),
        51 => {
            let job = Job {
                fetch: vec!["*".to_owned()],
                ..python("open('out', 'w').write('x' * 100_000)")
            };
            (job, Outcome::Succeeded)
        }
        68 => (python("kept = b'x' * (64 << 20)"), Outcome::Succeeded),
        84 => (
            bash("for i in 1 2 3 4 5 6 7 8; do true & done; wait"),
            Outcome::Succeeded,
        ),
        _ => (python("print(1)"), Outcome::Succeeded),
    }
}

/// Returns the folder of the container's control group that counts memory.
fn memory_group(id: &str) -> Option<PathBuf> {
    let places = [
        format!("/sys/fs/cgroup/memory/docker/{id}"),
        format!("/sys/fs/cgroup/docker/{id}"),
        format!("/sys/fs/cgroup/system.slice/docker-{id}.scope"),
    ];
    places
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_dir())
}

/// Returns the control group of the runner. In version 2 it is a leaf, because no group has both
/// processes and child groups with limits.
fn runners(group: &Path) -> PathBuf {
    let leaf = group.join("runner");
    if leaf.is_dir() {
        leaf
    } else {
        group.to_owned()
    }
}

/// Returns memory without file cache, for either version of control groups.
fn counted(group: &Path) -> u64 {
    let whole = ["memory.usage_in_bytes", "memory.current"]
        .iter()
        .find_map(|name| {
            std::fs::read_to_string(group.join(name))
                .ok()?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0_u64);
    let stat = read(&group.join("memory.stat"));
    let keys = if stat.contains("total_active_file") {
        ["total_active_file ", "total_inactive_file "]
    } else {
        ["active_file ", "inactive_file "]
    };
    let cache = stat.lines().filter_map(|line| {
        let value = keys.iter().find_map(|key| line.strip_prefix(key))?;
        value.trim().parse::<u64>().ok()
    });
    whole.saturating_sub(cache.sum())
}

fn folders(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| 1 + folders(&entry.path()))
        .sum()
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

fn resident(process: &Path) -> u64 {
    let kib = read(&process.join("status")).lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()
    });
    kib.unwrap_or(0_u64) << 10
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
