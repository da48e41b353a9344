//! Health and metrics over HTTP.

use std::collections::BTreeSet;

use sandhog_common::outcome::Outcome;
use sandhog_tests::jobs::python;
use sandhog_tests::space::Space;
use sandhog_tests::worker::WorkerSpec;

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

/// The types of the text format by metric name.
fn types(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .collect()
}

#[test]
fn metrics_count_what_happened_under_names_of_one_scheme() {
    let mut space = Space::shared("metrics");
    let worker = WorkerSpec::of(&space).start();
    for _ in 0..3 {
        assert_eq!(space.run(&python("1")).outcome, Outcome::Succeeded);
    }
    assert_eq!(space.run(&python("1 / 0")).outcome, Outcome::Failed);
    let id = space.add(&[("job", b"nonsense")]);
    assert_eq!(space.result(&id).outcome, Outcome::Rejected);

    // A result is published a moment before the worker counts it, so this waits for the counters to catch up.
    let deadline = std::time::Instant::now() + sandhog_tests::space::PATIENCE;
    let text = loop {
        let (status, text) = worker.get("/metrics").expect("the worker serves metrics");
        assert_eq!(status, 200);
        let finished: f64 = samples(&text)
            .iter()
            .filter(|sample| sample.name == "sandhog_jobs_finished_total")
            .map(|sample| sample.value)
            .sum();
        if finished >= 4.0 {
            break text;
        }
        assert!(std::time::Instant::now() < deadline, "{text}");
    };
    let samples = samples(&text);
    for (name, label, want) in [
        ("sandhog_jobs_admitted_total", "", 4.0),
        ("sandhog_jobs_rejected_total", "code=\"bad_payload\"", 1.0),
        ("sandhog_jobs_finished_total", "outcome=\"succeeded\"", 3.0),
        ("sandhog_jobs_finished_total", "outcome=\"failed\"", 1.0),
        ("sandhog_attempts_started_total", "", 4.0),
        ("sandhog_worker_slots", "", 2.0),
        ("sandhog_worker_sandboxes", "state=\"leaving\"", 0.0),
        ("sandhog_pool_waiting_jobs", "", 0.0),
        ("sandhog_pool_places", "", 8.0),
    ] {
        let got = samples
            .iter()
            .find(|sample| sample.name == name && sample.labels == label)
            .map(|sample| sample.value);
        assert_eq!(got, Some(want), "{name}{{{label}}} in\n{text}");
    }

    let allowed = |c: char| c.is_ascii_lowercase() || c == '_';
    let units = [
        "_seconds",
        "_bytes",
        "_slots",
        "_busy",
        "_sandboxes",
        "_places",
        "_millis",
        "_jobs",
        "_entries",
        "_letters",
        "_workers",
    ];
    let mut seen = BTreeSet::new();
    for (name, kind) in types(&text) {
        assert!(
            name.starts_with("sandhog_") && name.chars().all(allowed),
            "{name} is not sandhog_<noun>_<unit>[_total]"
        );
        match kind {
            "counter" => assert!(name.ends_with("_total"), "counter {name} ends with _total"),
            "gauge" | "histogram" | "summary" => assert!(
                units.iter().any(|unit| name.ends_with(unit)),
                "{kind} {name} ends with a unit"
            ),
            other => panic!("{name} has the unknown type {other}"),
        }
        assert!(seen.insert(name), "{name} is described twice");
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
    let space = Space::shared("metrics");
    let worker = WorkerSpec::of(&space).start();
    let status = |path: &str| worker.get(path).map(|(status, _)| status);
    assert_eq!(status("/health"), Some(200));
    assert_eq!(status("/live"), Some(200));
    for path in ["/", "/jobs", "/metrics/", "/../etc/passwd"] {
        assert_eq!(status(path), Some(404), "{path}");
    }
}
