//! Limits of the whole machine that the jobs of one worker could use up together, and settings
//! whose effect goes beyond a cell.
//!
//! The kernel counts some resources for all users together: open files, processes, machine code of
//! seccomp filters. A cell's own caps bound the use of one cell, but not the sum over all cells, so
//! the machine's limits must be higher than that sum. The worker only reads these limits; the
//! operator sets them.

use std::path::Path;

use sandhog_config::Settings;
use sandhog_core::units::ByteCount;

use super::{Finding, Severity};
use crate::attempt::slot_count;
use crate::pool::Rules;
use crate::sandbox::EngineFacts;

/// Minimum kernel memory of an open file, in bytes. It is charged to the file's job, so it bounds
/// the number of files that a job can open, by any method.
const MIN_FILE_BYTES: u64 = 256;

/// Limit of filter machine code, in bytes, below which jobs and other users of the machine could
/// get in each other's way.
const MIN_FILTER_CODE_BYTES: u64 = 32 << 20;

/// Maximum resources that the jobs of a worker can use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MachineDemand {
    /// Number of concurrent jobs.
    slots: u64,
    /// Maximum number of processes and threads in one container.
    pids: u64,
    /// Memory of all jobs and containers together.
    memory: ByteCount,
}

impl MachineDemand {
    fn of(settings: &Settings, engine: &EngineFacts) -> Self {
        let slots = slot_count(&settings.worker);
        Self {
            slots: u64::try_from(slots).unwrap_or(u64::MAX),
            pids: u64::from(settings.sandbox.pids),
            memory: Rules::new(&settings.pool, slots, engine).memory,
        }
    }
}

/// Checks the limits of this machine. Returns nothing if the engine may run on another machine.
pub(super) fn check_machine_limits(settings: &Settings, engine: &EngineFacts) -> Vec<Finding> {
    if engine.is_local {
        MachineLimits::read(Path::new("/proc/sys")).compare(MachineDemand::of(settings, engine))
    } else {
        Vec::new()
    }
}

/// Logs a warning for each limit that is too low.
pub(crate) fn warn_of_low_limits(settings: &Settings, engine: &EngineFacts) {
    for finding in check_machine_limits(settings, engine) {
        let Finding {
            subject,
            health,
            detail,
            hint,
        } = finding;
        if health != Severity::Ok {
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
struct MachineLimits {
    /// Open files of all users, `fs.file-max`.
    files: Option<u64>,
    /// Maximum process and thread ids, `kernel.pid_max`.
    pids: Option<u64>,
    /// Processes and threads, `kernel.threads-max`.
    threads: Option<u64>,
    /// Bytes of machine code for the filters of all unprivileged users, `net.core.bpf_jit_limit`.
    filter_code: Option<u64>,
    /// Name of core dumps, or the program that they are piped to, `kernel.core_pattern`.
    core_pattern: Option<String>,
}

impl MachineLimits {
    /// Reads the limits below `root`, which is `/proc/sys`.
    fn read(root: &Path) -> Self {
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
    fn compare(&self, demand: MachineDemand) -> Vec<Finding> {
        let mut found = Vec::new();
        found.extend(self.files.map(|limit| files_finding(limit, demand)));
        let pids = self.pids.into_iter().chain(self.threads).min();
        found.extend(pids.map(|limit| processes_finding(limit, demand)));
        found.extend(self.filter_code.map(filter_code_finding));
        let pattern = self.core_pattern.as_deref();
        found.extend(pattern.and_then(core_pattern_finding));
        found
    }
}

fn files_finding(limit: u64, demand: MachineDemand) -> Finding {
    let needed = demand.memory.0 / MIN_FILE_BYTES;
    let finding = Finding::ok("open files", format!("fs.file-max is {limit}"));
    if limit >= needed {
        return finding;
    }
    let finding = Finding::ok(
        "open files",
        format!(
            "fs.file-max is {limit}; jobs with all of {} MiB could hold {needed}",
            demand.memory.0 >> 20
        ),
    );
    finding.warn(
        "`sysctl -w fs.file-max=9223372036854775807`, as systemd does: each job's files are then \
         bounded by its memory alone, and no job can keep others from opening files",
    )
}

fn processes_finding(limit: u64, demand: MachineDemand) -> Finding {
    let needed = demand.slots.saturating_mul(demand.pids);
    let detail = format!(
        "the machine has {limit}; {} containers could have {needed}",
        demand.slots
    );
    let finding = Finding::ok("processes", detail);
    // A quarter is reserved for the host.
    if needed <= limit / 4 * 3 {
        finding
    } else {
        finding.warn(
            "raise kernel.pid_max and kernel.threads-max, or lower sandbox.pids: jobs could keep \
             the host from starting processes",
        )
    }
}

fn filter_code_finding(limit: u64) -> Finding {
    let detail = format!("net.core.bpf_jit_limit is {} MiB", limit >> 20);
    let finding = Finding::ok("filter code", detail);
    if limit >= MIN_FILTER_CODE_BYTES {
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
fn core_pattern_finding(pattern: &str) -> Option<Finding> {
    let program = pattern.strip_prefix('|')?;
    let detail = format!("piped to {program}; cells are exempt by their limit of 1 byte");
    Some(Finding::ok("core dumps", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: MachineDemand = MachineDemand {
        slots: 8,
        pids: 4352,
        memory: ByteCount::mib(1 << 10),
    };

    fn compared(limits: &MachineLimits) -> Vec<(String, Severity)> {
        let found = limits.compare(DEMAND).into_iter();
        found.map(|each| (each.subject, each.health)).collect()
    }

    #[test]
    fn a_machine_must_have_more_than_its_jobs_can_take_together() {
        let roomy = MachineLimits {
            files: Some(9_223_372_036_854_775_807),
            pids: Some(4_194_304),
            threads: Some(190_000),
            filter_code: Some(528_482_304),
            core_pattern: Some("core".to_owned()),
        };
        let tight = MachineLimits {
            files: Some(2_466_170),
            pids: Some(32_768),
            filter_code: Some(1 << 20),
            ..roomy.clone()
        };
        let all = ["open files", "processes", "filter code"];
        let want = |health| all.map(|subject| (subject.to_owned(), health)).to_vec();
        assert_eq!(compared(&roomy), want(Severity::Ok));
        assert_eq!(compared(&tight), want(Severity::Warn));
        let unknown = MachineLimits::default();
        assert_eq!(compared(&unknown), []);
    }

    #[test]
    fn what_is_wrong_says_what_is_enough() {
        let tight = MachineLimits {
            files: Some(2_466_170),
            ..MachineLimits::default()
        };
        let found = tight.compare(DEMAND);
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
        let limits = MachineLimits::read(&root);
        std::fs::remove_dir_all(&root).unwrap();
        let want = MachineLimits {
            files: Some(2_466_170),
            pids: Some(32_768),
            core_pattern: Some("|/usr/bin/collect %P".to_owned()),
            ..MachineLimits::default()
        };
        assert_eq!(limits, want);
        assert_eq!(limits.compare(DEMAND).len(), 3);
    }
}
