//! Facts about a machine, from the keepers on it.

use sandhog_core::id::RuntimeName;
use sandhog_core::units::ByteCount;
use sandhog_protocol::frames::CgroupSupport;
use sandhog_protocol::keeper::Hello;

use crate::sandbox::EngineFacts;

/// Returns the facts of these keepers: the sum of their containers' caps, at most the machine's.
/// `runtime` is the runtime of the settings; keepers do not know their runtime.
pub(super) fn keeper_facts<'a>(
    keepers: impl Iterator<Item = &'a Hello> + Clone,
    runtime: &RuntimeName,
    directory: &str,
) -> EngineFacts {
    let machine_memory = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_memory(&text))
        .unwrap_or(u64::MAX);
    let machine_cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let machine_cpus = u32::try_from(machine_cpus).unwrap_or(u32::MAX);
    let sum = |caps: &dyn Fn(&Hello) -> Option<u64>, most: u64| {
        keepers.clone().fold(0_u64, |sum, hello| {
            sum.saturating_add(caps(hello).unwrap_or(most)).min(most)
        })
    };
    let cpu_millis = sum(&|hello| hello.cpu_millis, 1000 * u64::from(machine_cpus));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let is_v2 = keepers
        .clone()
        .any(|hello| hello.cgroup == CgroupSupport::V2);
    EngineFacts {
        version: format!("keepers in {directory}: {}", keepers.clone().count()),
        kernel: kernel.trim().to_owned(),
        runtimes: vec![runtime.to_string()],
        cgroup_version: if is_v2 { 2 } else { 1 },
        cpus: u32::try_from(cpu_millis.div_ceil(1000))
            .unwrap_or(machine_cpus)
            .max(1),
        memory: ByteCount(sum(&|hello| hello.memory_max, machine_memory)),
        is_local: true,
        machine: 0,
        has_keepers: true,
    }
}

/// Returns the machine's memory in bytes, from the text of `/proc/meminfo`.
fn total_memory(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caps_of_keepers_are_added_up() {
        let keeper = |memory: u64| Hello {
            memory_max: Some(memory),
            cpu_millis: Some(500),
            ..Hello::default()
        };
        let keepers = [keeper(64 << 20), keeper(32 << 20)];
        let facts = keeper_facts(keepers.iter(), &"runc".parse().unwrap(), "/run/sandhog");
        assert_eq!(facts.memory, ByteCount::mib(96));
        assert_eq!(facts.cpus, 1);
        assert_eq!(facts.version, "keepers in /run/sandhog: 2");
        let uncapped = [Hello::default(), Hello::default()];
        let facts = keeper_facts(uncapped.iter(), &"runc".parse().unwrap(), "/run/sandhog");
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        assert_eq!(Some(facts.memory.0), total_memory(&text), "the machine's");
    }
}
