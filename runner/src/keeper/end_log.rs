//! The ends of sandboxes, kept for a bounded time and number.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sandhog_protocol::keeper::SandboxEnd;

/// Time for which the end of a sandbox is kept.
const KEEP_TIME: Duration = Duration::from_secs(600);

/// Largest number of ends that are kept.
const MAX_ENDS: usize = 1024;

/// The ends of sandboxes, oldest first.
#[derive(Debug, Default)]
pub(super) struct EndLog(VecDeque<(Instant, String, SandboxEnd)>);

impl EndLog {
    /// Adds the end of a sandbox. Forgets the oldest ends.
    pub(super) fn add(&mut self, now: Instant, sandbox: String, end: SandboxEnd) {
        self.forget(now);
        if self.0.len() == MAX_ENDS {
            self.0.pop_front();
        }
        self.0.push_back((now, sandbox, end));
    }

    /// Returns the end of a sandbox, if it is kept.
    pub(super) fn find(&mut self, now: Instant, sandbox: &str) -> Option<&SandboxEnd> {
        self.forget(now);
        let mut latest = self.0.iter().rev();
        latest
            .find(|(_, name, _)| name == sandbox)
            .map(|(_, _, end)| end)
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, _, _)) = self.0.front()
            && now.saturating_duration_since(*at) > KEEP_TIME
        {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandhog_protocol::keeper::EndStatus;

    fn end(code: i32) -> SandboxEnd {
        SandboxEnd {
            status: EndStatus::Exited(code),
            oom: false,
            killed: false,
            stderr: String::new(),
        }
    }

    #[test]
    fn ends_are_kept_for_a_bounded_time_and_number() {
        let mut log = EndLog::default();
        let start = Instant::now();
        log.add(start, "a".to_owned(), end(1));
        let later = start + KEEP_TIME;
        log.add(later, "b".to_owned(), end(2));
        assert_eq!(log.find(later, "a"), Some(&end(1)));
        let late = later + Duration::from_secs(1);
        assert_eq!(log.find(late, "a"), None);
        assert_eq!(log.find(late, "b"), Some(&end(2)));
        for number in 0..MAX_ENDS {
            log.add(late, number.to_string(), end(0));
        }
        assert_eq!(log.find(late, "b"), None);
        assert_eq!(log.0.len(), MAX_ENDS);
    }
}
