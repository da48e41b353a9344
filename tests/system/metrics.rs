//! Health and metrics over HTTP.

use std::collections::BTreeSet;

use sandhog_core::outcome::Outcome;
use sandhog_testkit::environment;
use sandhog_testkit::jobs::python;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;
use sandhog_worker::metrics::CATALOGUE;

/// One sample of the text format: its name, its labels as written, and its value.
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

fn samples(text: &str) -> Vec<Sample> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Sample {
                name: name.to_owned(),
                labels: labels.trim_end_matches('}').to_owned(),
                value: value.parse().expect("a sample's value is a number"),
            }
        })
        .collect()
}

/// Returns the types in the text format, by metric name.
fn types(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .collect()
}

#[test]
fn metrics_count_what_happened_and_none_of_the_list_is_missing() {
    let mut space = TestNamespace::shared("metrics");
    let worker = WorkerSpec::of(&space).start();
    for _ in 0..3 {
        assert_eq!(space.run(&python("1")).outcome, Outcome::Succeeded);
    }
    assert_eq!(space.run(&python("1 / 0")).outcome, Outcome::Failed);
    let id = space.add(&[("job", b"nonsense")]);
    assert_eq!(space.result(&id).outcome, Outcome::Rejected);

    // The worker publishes a result a moment before it counts it, and measures the queue every few
    // seconds, so this waits until the metrics are up to date.
    let deadline = std::time::Instant::now() + sandhog_testkit::namespace::WAIT_TIMEOUT;
    let text = loop {
        let (status, text) = worker.get("/metrics").expect("the worker serves metrics");
        assert_eq!(status, 200);
        let finished: f64 = samples(&text)
            .iter()
            .filter(|sample| sample.name == "sandhog_jobs_finished_total")
            .map(|sample| sample.value)
            .sum();
        let served: BTreeSet<&str> = types(&text).into_iter().map(|(name, _)| name).collect();
        let missing: Vec<&str> = CATALOGUE
            .iter()
            // No job requests a model here; tests/infer covers those metrics.
            .filter(|metric| !metric.is_of_models())
            .filter(|metric| !metric.is_of_gpus())
            .map(|metric| metric.name)
            .filter(|name| !served.contains(name))
            .collect();
        let waiting = samples(&text)
            .iter()
            .any(|sample| sample.name == "sandhog_pool_waiting_jobs" && sample.value > 0.0);
        if finished >= 4.0 && missing.is_empty() && !waiting {
            break text;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "without {missing:?}\n{text}"
        );
    };
    let samples = samples(&text);
    let pool_places = if environment::uses_keepers() {
        256.0
    } else {
        8.0
    };
    for (name, label, want) in [
        ("sandhog_jobs_admitted_total", "", 4.0),
        ("sandhog_jobs_rejected_total", "code=\"bad_payload\"", 1.0),
        ("sandhog_jobs_finished_total", "outcome=\"succeeded\"", 3.0),
        ("sandhog_jobs_finished_total", "outcome=\"failed\"", 1.0),
        ("sandhog_attempts_started_total", "", 4.0),
        ("sandhog_worker_slots", "", 2.0),
        ("sandhog_pool_waiting_jobs", "", 0.0),
        ("sandhog_pool_places", "", pool_places),
    ] {
        let got = samples
            .iter()
            .find(|sample| sample.name == name && sample.labels == label)
            .map(|sample| sample.value);
        assert_eq!(got, Some(want), "{name}{{{label}}} in\n{text}");
    }

    for (name, kind) in types(&text) {
        let listed = CATALOGUE.iter().find(|metric| metric.name == name);
        let listed = listed.unwrap_or_else(|| panic!("{name} is served and not listed"));
        assert_eq!(listed.kind.as_str(), kind, "{name}");
    }
    for state in ["busy", "idle", "starting", "leaving"] {
        let label = format!("state=\"{state}\"");
        assert!(
            samples
                .iter()
                .any(|s| s.name == "sandhog_worker_sandboxes" && s.labels == label),
            "{state} containers are counted:\n{text}"
        );
    }
    assert!(
        samples
            .iter()
            .any(|s| s.name == "sandhog_run_time_seconds_bucket"),
        "durations are histograms that can be added up over workers:\n{text}"
    );
}

#[test]
fn nothing_else_is_served() {
    let space = TestNamespace::shared("metrics");
    let worker = WorkerSpec::of(&space).start();
    let status = |path: &str| worker.get(path).map(|(status, _)| status);
    assert_eq!(status("/health"), Some(200));
    assert_eq!(status("/live"), Some(200));
    for path in ["/", "/jobs", "/metrics/", "/../etc/passwd"] {
        assert_eq!(status(path), Some(404), "{path}");
    }
}
