//! A snapshot of the queue, with the rates at which jobs enter and leave it.

use std::collections::BTreeMap;

use sandhog_core::class::Class;
use sandhog_core::id::Namespace;
use sandhog_core::units::UnixMillis;
use sandhog_queue::{
    ClassDepth, Event, Queue, QueueError, RunningJob, Snapshot, Unroutable, WorkerRecord,
};
use serde_json::{Value, json};

/// Number of entries of the events stream that are read. Each holds up to eight events.
const EVENT_ENTRIES_READ: usize = 500;

/// Time over which rates are measured, in milliseconds. It is shorter if the events that were read
/// cover less.
const RATE_WINDOW_MS: u64 = 10_000;

/// Rates in jobs per second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Rates {
    /// Admitted jobs.
    pub(crate) admitted: f64,
    /// Ended jobs, with any outcome.
    pub(crate) ended: f64,
    /// Jobs that ended without success.
    pub(crate) unsuccessful: f64,
    /// Attempts that are retried or were lost with their worker.
    pub(crate) again: f64,
}

/// A snapshot of the queue.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// The namespace of the queue.
    pub(crate) namespace: Namespace,
    /// The time of the snapshot, by the clock of Redis.
    pub(crate) at: UnixMillis,
    /// The numbers of jobs in the queue.
    pub(crate) snapshot: Snapshot,
    /// Classes that no worker serves.
    pub(crate) unroutable: Vec<Unroutable>,
    /// The live workers.
    pub(crate) workers: Vec<WorkerRecord>,
    /// The running jobs, longest first.
    pub(crate) running: Vec<RunningJob>,
    /// Recent events, oldest first.
    pub(crate) events: Vec<Event>,
}

impl Sample {
    /// Reads a snapshot from the queue.
    ///
    /// # Errors
    /// Fails if Redis cannot be reached.
    pub(crate) async fn take(queue: &Queue, namespace: &Namespace) -> Result<Self, QueueError> {
        let snapshot = queue.snapshot().await?;
        let busy: Vec<Class> = snapshot
            .classes
            .iter()
            .filter(|depth| depth.running > 0)
            .map(|depth| depth.class.clone())
            .collect();
        Ok(Self {
            namespace: namespace.clone(),
            at: queue.now().await?,
            unroutable: queue.unroutable(&snapshot).await?,
            workers: queue.workers().await?,
            running: queue.running(&busy).await?,
            events: queue.recent_events(EVENT_ENTRIES_READ).await?,
            snapshot,
        })
    }

    /// Returns the rates of each class.
    pub(crate) fn rates(&self) -> BTreeMap<&Class, Rates> {
        let mut rates: BTreeMap<&Class, Rates> = BTreeMap::new();
        let since = self.at.0.saturating_sub(RATE_WINDOW_MS);
        let oldest = self.events.first().map_or(self.at, |event| event.at);
        // In a busy queue, the events that were read cover less than the window.
        let seconds = (self.at.0 - since.max(oldest.0).min(self.at.0)).max(1000);
        let one = 1000.0 / u32::try_from(seconds).map_or(f64::MAX, f64::from);
        for event in self.events.iter().filter(|event| event.at.0 >= since) {
            let rate = rates.entry(&event.class).or_default();
            match event.name.as_str() {
                "admitted" => rate.admitted += one,
                "finished" | "dead" => {
                    rate.ended += one;
                    if !is_good(event) {
                        rate.unsuccessful += one;
                    }
                }
                "retried" | "lost" => rate.again += one,
                _another => {}
            }
        }
        rates
    }

    /// Returns the classes that have jobs, or had events recently.
    pub(crate) fn busy_classes(&self) -> Vec<&ClassDepth> {
        let rates = self.rates();
        self.snapshot
            .classes
            .iter()
            .filter(|depth| {
                depth.ready + depth.running + depth.held_back > 0
                    || rates.contains_key(&depth.class)
            })
            .collect()
    }

    /// Returns the rates of the whole queue.
    pub(crate) fn rate(&self) -> Rates {
        self.rates()
            .into_values()
            .fold(Rates::default(), |sum, rate| Rates {
                admitted: sum.admitted + rate.admitted,
                ended: sum.ended + rate.ended,
                unsuccessful: sum.unsuccessful + rate.unsuccessful,
                again: sum.again + rate.again,
            })
    }

    /// Returns the events about ended jobs and attempts, newest first.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &Event> {
        let ends = ["finished", "dead", "retried", "lost"];
        self.events
            .iter()
            .rev()
            .filter(move |event| ends.contains(&event.name.as_str()))
    }

    /// Returns the snapshot as JSON.
    pub(crate) fn object(&self, queue: Value) -> Value {
        let rates: BTreeMap<&str, Value> = self
            .rates()
            .into_iter()
            .map(|(class, rate)| (class.as_str(), per_second(rate)))
            .collect();
        let running: Vec<Value> = self
            .running
            .iter()
            .map(|job| {
                json!({
                    "id": job.id,
                    "class": job.class,
                    "tenant": job.tenant,
                    "worker": job.worker,
                    "attempts": job.attempts,
                    "age_ms": job.age,
                })
            })
            .collect();
        let recent: Vec<Value> = self
            .outcomes()
            .take(50)
            .map(|event| {
                json!({
                    "at_ms": event.at,
                    "event": event.name,
                    "id": event.id,
                    "class": event.class,
                    "tenant": event.tenant,
                    "outcome": event.fact("outcome"),
                    "worker": event.fact("worker"),
                })
            })
            .collect();
        json!({
            "at_ms": self.at,
            "queue": queue,
            "rates_per_second": rates,
            "running": running,
            "recent": recent,
        })
    }
}

fn per_second(rate: Rates) -> Value {
    let rounded = |number: f64| (number * 10.0).round() / 10.0;
    json!({
        "admitted": rounded(rate.admitted),
        "ended": rounded(rate.ended),
        "unsuccessful": rounded(rate.unsuccessful),
        "again": rounded(rate.again),
    })
}

/// Returns whether an event says that a job succeeded.
pub(crate) fn is_good(event: &Event) -> bool {
    event.name == "finished" && event.fact("outcome") == Some("succeeded")
}

#[cfg(test)]
pub(crate) mod tests {
    use sandhog_core::units::Millis;
    use sandhog_queue::{Lack, ModelFacts, ModelState, PoolFacts, WorkerFacts};

    use super::*;

    fn event(ago: u64, name: &str, id: &str, class: &str, facts: &[(&str, &str)]) -> Event {
        Event {
            at: UnixMillis(1_000_000 - ago),
            name: name.to_owned(),
            id: id.to_owned(),
            class: class.parse().unwrap(),
            tenant: "acme".to_owned(),
            facts: facts
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    fn worker(id: &str, tags: &[&str], busy: u32, draining: bool) -> WorkerRecord {
        WorkerRecord {
            facts: WorkerFacts {
                id: id.parse().unwrap(),
                tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
                slots: 4,
                busy,
                draining,
                version: "0.1.0".to_owned(),
                host: "host-\u{1b}[31mred".to_owned(),
                pid: 7,
                started_at: UnixMillis(10),
                pool: (!draining).then(|| PoolFacts {
                    busy,
                    idle: 2,
                    starting: 1,
                    containers_max: 8,
                    ..PoolFacts::default()
                }),
                max_payload: None,
                largest: None,
                reserved_for: None,
                models: (!draining)
                    .then(|| ModelFacts {
                        image: "smollm2".parse().unwrap(),
                        state: ModelState::Busy,
                        running: 1,
                        waiting: 4,
                        calls: 1_234,
                        loads: 2,
                        deaths: 1,
                        memory: sandhog_core::units::ByteCount::mib(512),
                    })
                    .into_iter()
                    .collect(),
                gpus: Vec::new(),
            },
            seen_at: UnixMillis(999_000),
        }
    }

    fn job(id: &str, class: &str, tenant: &str, worker: &str, age: u64) -> RunningJob {
        RunningJob {
            id: id.parse().unwrap(),
            class: class.parse().unwrap(),
            tenant: tenant.parse().unwrap(),
            worker: worker.parse().unwrap(),
            attempts: 1,
            age: Millis(age),
        }
    }

    /// Returns a snapshot in which every table has rows.
    pub(crate) fn busy() -> Sample {
        let depth = |class: &str, ready, running, oldest: Option<u64>| ClassDepth {
            class: class.parse().unwrap(),
            ready,
            running,
            oldest: oldest.map(Millis),
            held_back: 0,
        };
        let mut events: Vec<Event> = (0..20)
            .map(|n| event(9_000 - n * 100, "admitted", "a", "cpu", &[]))
            .collect();
        events.insert(0, event(20_000, "admitted", "old", "cpu", &[]));
        let worker_1 = ("worker", "box-1");
        events.extend([
            event(
                5_000,
                "finished",
                "done-1",
                "cpu",
                &[("outcome", "succeeded"), worker_1],
            ),
            event(
                3_000,
                "retried",
                "again-1",
                "cpu",
                &[worker_1, ("attempt", "1")],
            ),
            event(
                2_000,
                "finished",
                "done-2",
                "gpu",
                &[("outcome", "timed_out"), worker_1],
            ),
            event(1_000, "dead", "dead-1", "cpu", &[("outcome", "lost")]),
            event(500, "started", "now", "cpu", &[worker_1]),
        ]);
        Sample {
            namespace: Namespace::default(),
            at: UnixMillis(1_000_000),
            snapshot: Snapshot {
                classes: vec![
                    depth("a100+gpu", 3, 0, Some(7_400_000)),
                    depth("cpu", 12_345, 2, Some(4_200)),
                    depth("gpu", 0, 1, None),
                ],
                intake: 1,
                delayed: 4,
                dead: 5,
                workers: 2,
                paused: false,
                counters: BTreeMap::new(),
            },
            unroutable: vec![Unroutable {
                class: "a100+gpu".parse().unwrap(),
                jobs: 3,
                lack: Lack::Tags,
                since: None,
            }],
            workers: vec![
                worker("box-1-4722-acc790", &["cpu", "gpu"], 3, false),
                worker("box-2-99-b0b0b0", &["cpu"], 0, true),
            ],
            running: vec![
                job(
                    "cron:nightly:1795425600000",
                    "cpu",
                    "acme",
                    "box-1-4722-acc790",
                    192_000,
                ),
                job(
                    "1795425649921-0",
                    "gpu",
                    "default",
                    "box-1-4722-acc790",
                    12_500,
                ),
                job("short", "cpu", "beta", "box-1-4722-acc790", 850),
            ],
            events,
        }
    }

    #[test]
    fn rates_are_of_the_last_ten_seconds() {
        let sample = busy();
        let rates = sample.rates();
        let cpu = rates[&"cpu".parse::<Class>().unwrap()];
        let close = |a: f64, b: f64| (a - b).abs() < 0.01;
        assert!(close(cpu.admitted, 2.0), "{cpu:?}");
        assert!(
            close(cpu.ended, 0.2) && close(cpu.unsuccessful, 0.1),
            "{cpu:?}"
        );
        assert!(close(cpu.again, 0.1));
        assert!(close(sample.rate().ended, 0.3));
    }

    #[test]
    fn rates_of_a_busy_queue_are_of_what_was_read() {
        let mut sample = busy();
        sample.events.retain(|event| event.at.0 >= 998_000);
        let gpu = sample.rates()[&"gpu".parse::<Class>().unwrap()];
        assert!(
            (gpu.ended - 0.5).abs() < 0.01,
            "one in two seconds: {gpu:?}"
        );
        sample.events.clear();
        assert_eq!(sample.rate(), Rates::default());
    }

    #[test]
    fn a_program_gets_all_of_it() {
        let object = busy().object(json!({}));
        assert_eq!(object["rates_per_second"]["cpu"]["admitted"], 2.0);
        assert_eq!(object["running"][0]["age_ms"], 192_000);
        assert_eq!(object["recent"][0]["outcome"], "lost");
        assert_eq!(object["recent"].as_array().unwrap().len(), 4);
    }
}
