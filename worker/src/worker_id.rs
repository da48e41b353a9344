//! The worker's id.

use sandhog_config::WorkerSettings;
use sandhog_core::id::WorkerId;

/// Returns the configured id, or else the host's name, the process id and a random part. So two
/// workers never have the same id, and a worker that restarts has a new one.
pub(crate) fn worker_id(settings: &WorkerSettings) -> WorkerId {
    if let Some(id) = &settings.id {
        return id.clone();
    }
    let host = host_name();
    format!(
        "{host}-{}-{:06x}",
        std::process::id(),
        rand::random::<u32>() & 0x00ff_ffff
    )
    .parse()
    .expect("each part is short and has only characters that an id may contain")
}

/// Returns the host's name without the characters that a worker id may not contain.
pub(crate) fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        .take(40)
        .collect();
    if host.is_empty() {
        "worker".to_owned()
    } else {
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_a_set_one_stands() {
        let settings = WorkerSettings::default();
        assert_ne!(worker_id(&settings), worker_id(&settings));
        let named = WorkerSettings {
            id: Some("w1".parse().unwrap()),
            ..settings
        };
        assert_eq!(worker_id(&named).as_str(), "w1");
    }
}
