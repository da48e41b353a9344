//! Resource usage of a cell without a cgroup, read from the process table.
//!
//! This is coarser than a cgroup and always a little late: a process that lived between two
//! readings is missed, and shared memory is left out. The runner uses it only if the runtime gives
//! it no cgroups, and the sandbox reports that.

use std::fs;

use nix::unistd::{Pid, SysconfVar, sysconf};

/// Resources that the cell's live processes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ProcUsage {
    /// CPU time of the live processes and of the children they reaped, in microseconds.
    pub(super) cpu_us: u64,
    /// Memory that the processes do not share, in bytes.
    pub(super) memory_bytes: u64,
    /// Number of processes and threads.
    pub(super) threads: u64,
}

/// Counts every process of the container except the runner and the cell's init. While a cell runs,
/// all other processes belong to it.
pub(super) fn sample_proc_usage(init: Pid) -> ProcUsage {
    let unit = |name| {
        sysconf(name)
            .ok()
            .flatten()
            .and_then(|n| u64::try_from(n).ok())
    };
    let ticks_per_second = unit(SysconfVar::CLK_TCK).unwrap_or(100).max(1);
    let page = unit(SysconfVar::PAGE_SIZE).unwrap_or(4096);
    let mut usage = ProcUsage::default();
    for pid in processes() {
        if pid == init || pid == Pid::this() {
            continue;
        }
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((ticks, threads)) = parse_stat(&stat) else {
            continue;
        };
        usage.cpu_us += ticks.saturating_mul(1_000_000 / ticks_per_second);
        usage.threads += threads;
        usage.memory_bytes += fs::read_to_string(format!("/proc/{pid}/statm"))
            .ok()
            .and_then(|statm| parse_statm(&statm))
            .unwrap_or(0)
            .saturating_mul(page);
    }
    usage
}

fn processes() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
}

/// Returns the clock ticks used by the process and its reaped children, and its number of threads.
fn parse_stat(stat: &str) -> Option<(u64, u64)> {
    // The name, in parentheses, may hold any character, so the fields start after the last closing
    // parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let field = |number: usize| fields.split_ascii_whitespace().nth(number - 3);
    let mut ticks = 0_u64;
    for number in 14..=17 {
        ticks = ticks.saturating_add(field(number)?.parse().unwrap_or(0));
    }
    Some((ticks, field(20)?.parse().ok()?))
}

/// Returns the number of resident pages that are not shared.
fn parse_statm(statm: &str) -> Option<u64> {
    let mut fields = statm.split_ascii_whitespace().skip(1);
    let resident: u64 = fields.next()?.parse().ok()?;
    let shared: u64 = fields.next()?.parse().ok()?;
    Some(resident.saturating_sub(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_forge_the_numbers() {
        let stat = "7 (a) R 9 9 9) S 1 7 7 0 -1 4194560 100 0 0 0 5 6 7 8 20 0 3 0 100 0 0";
        assert_eq!(parse_stat(stat), Some((5 + 6 + 7 + 8, 3)));
        assert_eq!(parse_stat("7 (x"), None);
        assert_eq!(parse_statm("900 500 120 1 0 2 0"), Some(380));
    }
}
