//! The resource limits of every process in a cell: the second fence, behind the cgroup's.

use std::sync::OnceLock;

use nix::errno::Errno;
use nix::libc::rlim_t;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use sandhog_runner::protocol::Caps;

use super::CellError;

/// Most descriptors of one process.
const OPEN_FILES: rlim_t = 1024;

/// Least descriptors of one process, on a machine of any size.
const LEAST_OPEN_FILES: rlim_t = 64;

/// Part of the files that a machine can have open at once (`fs.file-max`) for all processes of one
/// cell: one in this many.
const CELLS_PER_MACHINE: rlim_t = 8;

/// `fs.file-max`, once it was read.
static MACHINE_FILES: OnceLock<rlim_t> = OnceLock::new();

/// Reads how many files the machine can have open, before a cell hides that. Where it cannot be
/// read, nothing is scaled.
pub(super) fn learn_the_machines_files() {
    let read = std::fs::read_to_string("/proc/sys/fs/file-max").ok();
    let most = read.and_then(|text| text.trim().parse().ok());
    MACHINE_FILES.get_or_init(|| most.unwrap_or(rlim_t::MAX));
}

/// Descriptors of each process in a cell with this many, so that all together stay within the
/// cell's part of what the machine has. The kernel counts open files of all users together, and
/// refuses every user when they are used up.
fn open_files(machine: rlim_t, pids: u32) -> rlim_t {
    let part = machine / CELLS_PER_MACHINE;
    (part / rlim_t::from(pids.max(1))).clamp(LEAST_OPEN_FILES, OPEN_FILES)
}

/// Bytes of a core dump. One is too few for any, and the one number by which the kernel also starts
/// no program that `kernel.core_pattern` pipes dumps to. With zero it starts that, on the host and
/// outside of every cap.
const CORE: rlim_t = 1;

/// Stack of a program's first thread, in bytes.
const STACK: rlim_t = 8 << 20;

/// Seconds of CPU above the cell's cap, so that the cap itself is found by counting the whole tree.
const CPU_SLACK_SECONDS: rlim_t = 2;

/// Whether something else caps a cell's memory and processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fence {
    /// A cgroup does.
    Cgroup,
    /// Nothing does: these limits must.
    Alone,
}

/// The limits, soft and hard the same.
pub(super) fn limits(caps: &Caps, fence: Fence) -> Vec<(Resource, rlim_t)> {
    let seconds = caps.cpu_ms.div_ceil(1000).saturating_add(CPU_SLACK_SECONDS);
    let mut limits = vec![
        (Resource::RLIMIT_CORE, CORE),
        (
            Resource::RLIMIT_NOFILE,
            open_files(
                MACHINE_FILES.get().copied().unwrap_or(rlim_t::MAX),
                caps.pids,
            ),
        ),
        (Resource::RLIMIT_FSIZE, caps.scratch_bytes),
        (Resource::RLIMIT_STACK, STACK),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_CPU, seconds),
        (Resource::RLIMIT_NICE, 0),
        (Resource::RLIMIT_RTPRIO, 0),
    ];
    match fence {
        // Counted per user over all containers, it would make cells share one budget; the cgroup counts per cell.
        Fence::Cgroup => {}
        Fence::Alone => {
            limits.push((Resource::RLIMIT_DATA, caps.memory_bytes));
            limits.push((Resource::RLIMIT_NPROC, rlim_t::from(caps.pids)));
        }
    }
    limits
}

/// Sets the limits on this process and all it will start.
///
/// # Errors
/// When the kernel refuses one.
pub(super) fn set(caps: &Caps, fence: Fence) -> Result<(), CellError> {
    for (resource, most) in limits(caps, fence) {
        lower(resource, most)
            .map_err(|errno| CellError::new(format!("set {resource:?} to {most}"), errno))?;
    }
    Ok(())
}

/// Sets a limit; where the container's own is as low already, that one stands.
fn lower(resource: Resource, most: rlim_t) -> nix::Result<()> {
    match setrlimit(resource, most, most) {
        Err(Errno::EPERM) if getrlimit(resource)?.1 <= most => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        wall_ms: 1000,
        cpu_ms: 1001,
        cpu_millis: 1000,
        memory_bytes: 1 << 28,
        pids: 64,
        scratch_bytes: 1 << 26,
        scratch_inodes: 100,
        output_bytes: 1,
        output_total_bytes: 1,
        grace_ms: 100,
    };

    #[test]
    fn cpu_time_is_rounded_up_and_has_slack() {
        assert!(limits(&CAPS, Fence::Cgroup).contains(&(Resource::RLIMIT_CPU, 4)));
    }

    #[test]
    fn many_processes_share_what_files_the_machine_has() {
        for (case, machine, pids, want) in [
            ("few processes", 2_466_170, 64, 1024),
            ("many processes", 2_466_170, 4000, 77),
            ("a small machine", 100_000, 4096, 64),
            ("no bound", rlim_t::MAX, 4096, 1024),
            ("no processes", 2_466_170, 0, 1024),
        ] {
            assert_eq!(open_files(machine, pids), want, "{case}");
        }
    }

    #[test]
    fn processes_are_counted_per_user_only_where_nothing_else_counts() {
        let nproc = |fence| {
            limits(&CAPS, fence)
                .iter()
                .any(|(resource, _)| *resource == Resource::RLIMIT_NPROC)
        };
        assert!(!nproc(Fence::Cgroup));
        assert!(nproc(Fence::Alone));
    }
}
