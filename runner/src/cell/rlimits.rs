//! Resource limits of every process in a cell: the second line of defence, after the cgroup.

use std::sync::OnceLock;

use nix::errno::Errno;
use nix::libc::{RLIM_INFINITY, rlim_t};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use sandhog_protocol::frames::{Call, CellCaps};

use super::CellError;

/// Largest number of descriptors of one process.
const MAX_OPEN_FILES: rlim_t = 1024;

/// Smallest limit on the descriptors of one process, on a machine of any size.
const MIN_OPEN_FILES: rlim_t = 64;

/// Divisor for the files that a machine can have open at once (`fs.file-max`): the processes of one
/// cell together may have one part in this many.
const FILES_SHARE_DIVISOR: rlim_t = 8;

/// Value of `fs.file-max`, once it has been read.
static MACHINE_FILE_MAX: OnceLock<rlim_t> = OnceLock::new();

/// Reads how many files the machine can have open. Must be called before a cell hides that value.
/// If it cannot be read, the limits are not scaled.
pub(super) fn read_file_max() {
    let read = std::fs::read_to_string("/proc/sys/fs/file-max").ok();
    let most = read.and_then(|text| text.trim().parse().ok());
    MACHINE_FILE_MAX.get_or_init(|| most.unwrap_or(rlim_t::MAX));
}

/// Returns the limit on the descriptors of each process in a cell with `pids` processes, such that
/// all of them stay within the cell's part of the machine's files. The kernel counts the open files
/// of all users together and refuses every user when they are used up.
fn open_files(machine: rlim_t, pids: u32) -> rlim_t {
    let part = machine / FILES_SHARE_DIVISOR;
    (part / rlim_t::from(pids.max(1))).clamp(MIN_OPEN_FILES, MAX_OPEN_FILES)
}

/// Limit on a core dump, in bytes. One byte is too small for any dump, and it is the only value
/// with which the kernel also does not start the program to which `kernel.core_pattern` pipes
/// dumps. With zero the kernel starts that program, on the host and outside of every cap.
const CORE_LIMIT_BYTES: rlim_t = 1;

/// Stack of a program, in bytes, if only `RLIMIT_DATA` caps its memory. That limit counts the
/// stacks of threads, which by default are as large as this one.
const UNCOUNTED_STACK_BYTES: rlim_t = 8 << 20;

/// Stack in the caps of a job that names none, in bytes.
const DEFAULT_STACK_BYTES: rlim_t = 1 << 30;

/// Address space in bytes that is kept free for the stack of the zygote, and so of its clones, when
/// the zygote starts. It equals the largest stack that a job can have.
const ZYGOTE_STACK_BYTES: rlim_t = 64 << 30;

/// Seconds of CPU time above the call's cap. Because of them, the runner detects the cap itself, by
/// counting the whole tree.
const CPU_SLACK_SECONDS: rlim_t = 2;

/// Mechanism that caps a cell's memory and processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enforcement {
    /// A cgroup.
    Cgroup,
    /// None: the resource limits must do it.
    RlimitsOnly,
}

/// One limit of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) resource: Resource,
    /// The value in force.
    pub(super) soft: rlim_t,
    /// The value up to which a program may raise it.
    pub(super) hard: rlim_t,
}

impl Limit {
    /// Returns a limit that a program cannot raise.
    const fn fixed(resource: Resource, most: rlim_t) -> Self {
        Self {
            resource,
            soft: most,
            hard: most,
        }
    }
}

/// Returns the limits of the call's program in a cell with these caps. They are the same for a
/// program that the cell's init starts and for a clone of the zygote.
pub(super) fn rlimits(caps: &CellCaps, call: &Call, enforcement: Enforcement) -> Vec<Limit> {
    let cpu_seconds = call.caps.cpu_ms.div_ceil(1000);
    let seconds = cpu_seconds.saturating_add(CPU_SLACK_SECONDS);
    let mut limits = vec![
        Limit::fixed(Resource::RLIMIT_CORE, CORE_LIMIT_BYTES),
        Limit::fixed(
            Resource::RLIMIT_NOFILE,
            open_files(
                MACHINE_FILE_MAX.get().copied().unwrap_or(rlim_t::MAX),
                caps.pids,
            ),
        ),
        Limit::fixed(Resource::RLIMIT_FSIZE, caps.scratch_bytes),
        // A stack counts as memory, so a hard limit would gain nothing.
        Limit {
            resource: Resource::RLIMIT_STACK,
            soft: stack(caps, enforcement),
            hard: RLIM_INFINITY,
        },
        Limit::fixed(Resource::RLIMIT_MEMLOCK, 0),
        Limit::fixed(Resource::RLIMIT_CPU, seconds),
        Limit::fixed(Resource::RLIMIT_NICE, 0),
        Limit::fixed(Resource::RLIMIT_RTPRIO, 0),
    ];
    match enforcement {
        // The kernel would count processes per user over all containers, so that cells would share
        // one budget. The cgroup counts per cell.
        Enforcement::Cgroup => {}
        Enforcement::RlimitsOnly => {
            limits.push(Limit::fixed(Resource::RLIMIT_DATA, caps.memory_bytes));
            limits.push(Limit::fixed(
                Resource::RLIMIT_NPROC,
                rlim_t::from(caps.pids),
            ));
        }
    }
    limits
}

/// Returns the stack that a program starts with. It is never unlimited: with an unlimited stack the
/// kernel would lay out memory from bottom to top, and the C library would give threads 2 MiB.
fn stack(caps: &CellCaps, enforcement: Enforcement) -> rlim_t {
    match enforcement {
        Enforcement::RlimitsOnly if caps.stack_bytes >= DEFAULT_STACK_BYTES => {
            UNCOUNTED_STACK_BYTES.min(caps.memory_bytes)
        }
        Enforcement::RlimitsOnly | Enforcement::Cgroup => caps.stack_bytes.min(caps.memory_bytes),
    }
}

/// Sets the call's limits on this process and on all processes that it starts.
///
/// # Errors
/// Fails if the kernel refuses a limit.
pub(super) fn set_rlimits(
    caps: &CellCaps,
    call: &Call,
    enforcement: Enforcement,
) -> Result<(), CellError> {
    for limit in rlimits(caps, call, enforcement) {
        lower(limit).map_err(|errno| {
            CellError::new(format!("set {:?} to {}", limit.resource, limit.soft), errno)
        })?;
    }
    Ok(())
}

/// Sets a limit. If the container's own limit is already as low, that one stays.
fn lower(limit: Limit) -> nix::Result<()> {
    let Limit {
        resource,
        soft,
        hard,
    } = limit;
    match setrlimit(resource, soft, hard) {
        Err(Errno::EPERM) => {
            let (current, most) = getrlimit(resource)?;
            let soft = soft.min(most);
            if most > hard {
                return Err(Errno::EPERM);
            }
            // gVisor refuses every change of a limit that it does not support, even to the value in
            // force.
            if current == soft {
                return Ok(());
            }
            setrlimit(resource, soft, most)
        }
        other => other,
    }
}

/// Makes the kernel keep address space free below the stack of the program that this process
/// executes next.
///
/// # Errors
/// Fails if the kernel refuses.
pub(super) fn reserve_stack_space() -> nix::Result<()> {
    let most = getrlimit(Resource::RLIMIT_STACK)?.1;
    setrlimit(Resource::RLIMIT_STACK, ZYGOTE_STACK_BYTES.min(most), most)
}

#[cfg(test)]
mod tests {
    use sandhog_protocol::frames::{CallCaps, CallId, Program};

    use super::*;

    const CAPS: CellCaps = CellCaps {
        cpu_millis: 1000,
        memory_bytes: 1 << 28,
        stack_bytes: 1 << 30,
        pids: 64,
        scratch_bytes: 1 << 26,
        scratch_inodes: 100,
    };

    /// Returns a call with this cap on its CPU time, in milliseconds.
    fn call(cpu_ms: u64) -> Call {
        let caps = CallCaps {
            wall_ms: 1000,
            cpu_ms,
            output_bytes: 1,
            output_total_bytes: 1,
            grace_ms: 0,
        };
        Call::new(CallId(1), Program::Argv { argv: Vec::new() }, caps)
    }

    #[test]
    fn cpu_time_is_rounded_up_and_has_slack() {
        let cpu = Limit::fixed(Resource::RLIMIT_CPU, 4);
        assert!(rlimits(&CAPS, &call(1001), Enforcement::Cgroup).contains(&cpu));
    }

    #[test]
    fn a_stack_is_as_large_as_the_memory_unless_threads_count_against_that() {
        let wish = |stack_bytes| CellCaps {
            stack_bytes,
            ..CAPS
        };
        for (case, caps, counted, alone) in [
            ("none", wish(DEFAULT_STACK_BYTES), 1 << 28, 8 << 20),
            ("above the memory", wish(1 << 29), 1 << 28, 1 << 28),
            ("below it", wish(1 << 26), 1 << 26, 1 << 26),
        ] {
            assert_eq!(stack(&caps, Enforcement::Cgroup), counted, "{case}");
            assert_eq!(stack(&caps, Enforcement::RlimitsOnly), alone, "{case}");
        }
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
        let nproc = |enforcement| {
            rlimits(&CAPS, &call(1000), enforcement)
                .iter()
                .any(|limit| limit.resource == Resource::RLIMIT_NPROC)
        };
        assert!(!nproc(Enforcement::Cgroup));
        assert!(nproc(Enforcement::RlimitsOnly));
    }
}
