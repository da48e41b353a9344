//! A short chaos run: workers and Redis die, workers freeze, jobs are submitted twice and
//! cancelled. `scripts/chaos` is the long version.

use std::time::Duration;

use sandhog_testkit::chaos::{self, ChaosPlan, ChaosWorkers};

#[test]
fn a_storm_loses_nothing_and_doubles_nothing() {
    let plan = ChaosPlan {
        workers_of: ChaosWorkers::Noop(env!("CARGO_BIN_EXE_sandhog-noop-worker").into()),
        jobs: 1000,
        span: Duration::from_secs(15),
        workers: 4,
        slots: 8,
        lease: Duration::from_secs(1),
        most_sleep: Duration::from_millis(300),
        kill_every: Duration::from_secs(1),
        redis_kills: 1,
        frozen_percent: 2,
        seed: 1,
    };
    let verdict = chaos::run(&plan, |line| println!("{line}"));
    assert_eq!(verdict.lost, 0, "{verdict:?}");
    assert_eq!(verdict.duplicates, 0, "{verdict:?}");
    assert_eq!(verdict.cap_violations, 0, "{verdict:?}");
    assert_eq!(verdict.left_behind, Vec::<String>::new(), "{verdict:?}");
    assert!(verdict.kept(), "{verdict:?}");
    assert!(verdict.stormed(), "{verdict:?}");
}
