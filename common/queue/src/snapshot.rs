//! Counts of waiting and running jobs, for people and for metrics.

use std::collections::BTreeMap;

use crate::resp::RespValue;
use crate::script::{SCRIPT_BATCH, SNAPSHOT};
use crate::{Queue, QueueError};
use sandhog_core::class::Class;
use sandhog_core::units::Millis;

/// Counts of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassDepth {
    /// The class.
    pub class: Class,
    /// Jobs that wait for a worker.
    pub ready: u64,
    /// Jobs that a worker holds.
    pub running: u64,
    /// Longest time for which the next job of a tenant has been ready, over all tenants; `None` if
    /// no job is ready.
    pub oldest: Option<Millis>,
    /// Approximate number of the ready jobs whose tickets are withheld, because their tenants are
    /// at their limits or the queue is paused.
    pub held_back: u64,
}

impl ClassDepth {
    fn empty(class: &Class) -> Self {
        Self {
            class: class.clone(),
            ready: 0,
            running: 0,
            oldest: None,
            held_back: 0,
        }
    }
}

/// Counts of the whole queue. A queue with thousands of tenants is counted in several calls, so its
/// counts are not from a single moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The classes, sorted.
    pub classes: Vec<ClassDepth>,
    /// Entries that have not been admitted yet.
    pub intake: u64,
    /// Jobs that wait for their start time.
    pub delayed: u64,
    /// Dead letters.
    pub dead: u64,
    /// Workers that announced themselves recently.
    pub workers: u64,
    /// True if the queue is paused, so that no job starts.
    pub paused: bool,
    /// Counters since the namespace was created, by name: `admitted`, `duplicates`, `retried`,
    /// `lost`, `dead`, `given_back`, `stale` (settlements rejected by the fence), and `finished_…`
    /// for each outcome.
    pub counters: BTreeMap<String, u64>,
}

impl Queue {
    /// Counts the waiting and running jobs of the queue.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn snapshot(&self) -> Result<Snapshot, QueueError> {
        let classes = self.classes().await?;
        let mut snapshot = Snapshot {
            counters: self.counters().await?,
            ..Snapshot::default()
        };
        let mut chunks: Vec<_> = classes.chunks(SCRIPT_BATCH).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let mut rest: Vec<(ClassDepth, u64)> = (chunk.iter())
                .map(|class| (ClassDepth::empty(class), 0))
                .collect();
            // The script is called even without classes, for the counts of the whole queue.
            loop {
                rest = self.count_chunk(&mut snapshot, rest).await?;
                if rest.is_empty() {
                    break;
                }
            }
        }
        snapshot.classes.sort_by(|a, b| a.class.cmp(&b.class));
        Ok(snapshot)
    }

    /// Calls the script once. Each class comes with the number of its tenants that have been
    /// counted. Returns the classes that have further tenants; the other ones are moved to the
    /// snapshot.
    async fn count_chunk(
        &self,
        snapshot: &mut Snapshot,
        classes: Vec<(ClassDepth, u64)>,
    ) -> Result<Vec<(ClassDepth, u64)>, QueueError> {
        let mut call = SNAPSHOT.call(self.keys.prefix());
        for (depth, passed) in &classes {
            call.push(depth.class.as_str());
            call.push(*passed);
        }
        let mut parts = RespValue::new("snapshot", call.run(&self.connection).await?).parts()?;
        snapshot.intake = parts.part()?.number()?;
        snapshot.delayed = parts.part()?.number()?;
        snapshot.dead = parts.part()?.number()?;
        snapshot.workers = parts.part()?.number()?;
        snapshot.paused = parts.part()?.number::<u8>()? == 1;
        let mut rest = Vec::new();
        for (mut depth, _passed) in classes {
            depth.ready += parts.part()?.number::<u64>()?;
            depth.running = parts.part()?.number()?;
            depth.oldest = depth.oldest.max(parts.part()?.maybe_number()?.map(Millis));
            depth.held_back = parts.part()?.number()?;
            match parts.part()?.maybe_number()? {
                Some(passed) => rest.push((depth, passed)),
                None => snapshot.classes.push(depth),
            }
        }
        Ok(rest)
    }

    async fn counters(&self) -> Result<BTreeMap<String, u64>, QueueError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.stats());
        let answer = self.connection.run_repeatable("HGETALL", &command).await?;
        let mut parts = RespValue::new("HGETALL", answer).parts()?;
        let mut counters = BTreeMap::new();
        while let Some(name) = parts.next() {
            counters.insert(name.text()?, parts.part()?.number()?);
        }
        Ok(counters)
    }
}
