//! Limits of the whole machine that the jobs of one worker could use up together, and settings
//! whose effect goes beyond a cell.
//!
//! The kernel counts some resources for all users together: open files, processes, machine code of
//! seccomp filters. A cell's own caps bound the use of one cell, but not the sum over all cells, so
//! the machine's limits must be higher than that sum. The worker only reads these limits; the
//! operator sets them.

use std::path::Path;

use sandhog_common::config::Settings;
use sandhog_common::units::ByteCount;

use crate::doctor::{Finding, Health};
use crate::pool::Rules;
use crate::sandbox::EngineFacts;
use crate::supervise;

/// Minimum kernel memory of an open file, in bytes. It is charged to the file's job, so it bounds
/// the number of files that a job can open, by any method.
const FILE_BYTES: u64 = 256;

/// Limit of filter machine code, in bytes, below which jobs and other users of the machine could
/// get in each other's way.
const LEAST_FILTER_CODE: u64 = 32 << 20;

/// Maximum resources that the jobs of a worker can use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Number of concurrent jobs.
    pub slots: u64,
    /// Maximum number of processes and threads in one container.
    pub pids: u64,
    /// Memory of all jobs and containers together.
    pub memory: ByteCount,
}

impl Demand {
    fn of(settings: &Settings, engine: &EngineFacts) -> Self {
        let slots = supervise::slots(&settings.worker);
        Self {
            slots: u64::try_from(slots).unwrap_or(u64::MAX),
            pids: u64::from(settings.sandbox.pids),
            memory: Rules::new(&settings.pool, slots, engine).memory,
        }
    }
}

/// Checks the limits of this machine. Returns nothing unless the engine has a local socket, because
/// otherwise it may run on another machine.
#[must_use]
pub fn judge(settings: &Settings, engine: &EngineFacts) -> Vec<Finding> {
    if settings.sandbox.engine.starts_with("unix:") {
        Limits::read(Path::new("/proc/sys")).judge(Demand::of(settings, engine))
    } else {
        Vec::new()
    }
}

/// Logs a warning for each limit that is too low.
pub(crate) fn warn(settings: &Settings, engine: &EngineFacts) {
    for finding in judge(settings, engine) {
        let Finding {
            subject,
            health,
            detail,
            hint,
        } = finding;
        if health != Health::Ok {
            tracing::warn!(
                subject,
                detail,
                hint,
                "jobs could use up a limit of the machine"
            );
        }
    }
}

/// Limits as the kernel states them. A limit that the kernel does not state is not checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Open files of all users, `fs.file-max`.
    pub files: Option<u64>,
    /// Maximum process and thread ids, `kernel.pid_max`.
    pub pids: Option<u64>,
    /// Processes and threads, `kernel.threads-max`.
    pub threads: Option<u64>,
    /// Bytes of machine code for the filters of all unprivileged users, `net.core.bpf_jit_limit`.
    pub filter_code: Option<u64>,
    /// Name of core dumps, or the program that they are piped to, `kernel.core_pattern`.
    pub core_pattern: Option<String>,
}

impl Limits {
    /// Reads the limits below `root`, which is `/proc/sys`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let text = |name: &str| std::fs::read_to_string(root.join(name)).ok();
        let number = |name: &str| text(name).and_then(|text| text.trim().parse().ok());
        Self {
            files: number("fs/file-max"),
            pids: number("kernel/pid_max"),
            threads: number("kernel/threads-max"),
            filter_code: number("net/core/bpf_jit_limit"),
            core_pattern: text("kernel/core_pattern").map(|text| text.trim().to_owned()),
        }
    }

    /// Compares the limits with the resources that jobs could use together.
    #[must_use]
    pub fn judge(&self, demand: Demand) -> Vec<Finding> {
        let mut found = Vec::new();
        found.extend(self.files.map(|most| files(most, demand)));
        let pids = self.pids.into_iter().chain(self.threads).min();
        found.extend(pids.map(|most| processes(most, demand)));
        found.extend(self.filter_code.map(filter_code));
        let pattern = self.core_pattern.as_deref();
        found.extend(pattern.and_then(core_pattern));
        found
    }
}

fn files(most: u64, demand: Demand) -> Finding {
    let needed = demand.memory.0 / FILE_BYTES;
    let finding = Finding::ok("open files", format!("fs.file-max is {most}"));
    if most >= needed {
        return finding;
    }
    let finding = Finding::ok(
        "open files",
        format!(
            "fs.file-max is {most}; jobs with all of {} MiB could hold {needed}",
            demand.memory.0 >> 20
        ),
    );
    finding.warn(
        "`sysctl -w fs.file-max=9223372036854775807`, as systemd does: each job's files are then \
         bounded by its memory alone, and no job can keep others from opening files",
    )
}

fn processes(most: u64, demand: Demand) -> Finding {
    let needed = demand.slots.saturating_mul(demand.pids);
    let detail = format!(
        "the machine has {most}; {} containers could have {needed}",
        demand.slots
    );
    let finding = Finding::ok("processes", detail);
    // A quarter is reserved for the host.
    if needed <= most / 4 * 3 {
        finding
    } else {
        finding.warn(
            "raise kernel.pid_max and kernel.threads-max, or lower sandbox.pids: jobs could keep \
             the host from starting processes",
        )
    }
}

fn filter_code(most: u64) -> Finding {
    let detail = format!("net.core.bpf_jit_limit is {} MiB", most >> 20);
    let finding = Finding::ok("filter code", detail);
    if most >= LEAST_FILTER_CODE {
        finding
    } else {
        finding.warn(
            "raise net.core.bpf_jit_limit to 33554432 or more: each cell installs a seccomp \
             filter, and no cell can start once the limit is used up",
        )
    }
}

/// Reports the program to which core dumps are piped, if there is one. Dumps of cells never reach
/// it; those of the machine's other programs do.
fn core_pattern(pattern: &str) -> Option<Finding> {
    let program = pattern.strip_prefix('|')?;
    let detail = format!("piped to {program}; cells are exempt by their limit of 1 byte");
    Some(Finding::ok("core dumps", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand {
        slots: 8,
        pids: 4352,
        memory: ByteCount::mib(1 << 10),
    };

    fn judged(limits: &Limits) -> Vec<(String, Health)> {
        let found = limits.judge(DEMAND).into_iter();
        found.map(|each| (each.subject, each.health)).collect()
    }

    #[test]
    fn a_machine_must_have_more_than_its_jobs_can_take_together() {
        let roomy = Limits {
            files: Some(9_223_372_036_854_775_807),
            pids: Some(4_194_304),
            threads: Some(190_000),
            filter_code: Some(528_482_304),
            core_pattern: Some("core".to_owned()),
        };
        let tight = Limits {
            files: Some(2_466_170),
            pids: Some(32_768),
            filter_code: Some(1 << 20),
            ..roomy.clone()
        };
        let all = ["open files", "processes", "filter code"];
        let want = |health| all.map(|subject| (subject.to_owned(), health)).to_vec();
        assert_eq!(judged(&roomy), want(Health::Ok));
        assert_eq!(judged(&tight), want(Health::Warn));
        let unknown = Limits::default();
        assert_eq!(judged(&unknown), []);
    }

    #[test]
    fn what_is_wrong_says_what_is_enough() {
        let tight = Limits {
            files: Some(2_466_170),
            ..Limits::default()
        };
        let found = tight.judge(DEMAND);
        assert_eq!(
            found[0].detail,
            "fs.file-max is 2466170; jobs with all of 1024 MiB could hold 4194304"
        );
    }

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let root = std::env::temp_dir().join(format!("limits-{}", std::process::id()));
        for (name, text) in [
            ("fs/file-max", "2466170\n"),
            ("kernel/pid_max", "32768\n"),
            ("kernel/core_pattern", "|/usr/bin/collect %P\n"),
        ] {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let limits = Limits::read(&root);
        std::fs::remove_dir_all(&root).unwrap();
        let want = Limits {
            files: Some(2_466_170),
            pids: Some(32_768),
            core_pattern: Some("|/usr/bin/collect %P".to_owned()),
            ..Limits::default()
        };
        assert_eq!(limits, want);
        assert_eq!(limits.judge(DEMAND).len(), 3);
    }
}
