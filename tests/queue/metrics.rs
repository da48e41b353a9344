//! The metrics: the catalogue, the page that a worker serves, the table in the docs and the
//! dashboard must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use sandhog_core::cron::CronSchedule;
use sandhog_core::outcome::Outcome;
use sandhog_core::schedule::{Missed, Overlap, Schedule};
use sandhog_core::submission::Routing;
use sandhog_core::units::UnixMillis;
use sandhog_core::wire::{self, Encoding};
use sandhog_testkit::environment;
use sandhog_worker::metrics::CATALOGUE;
use serde_json::Value;

use crate::fixture::{QueueFixture, WAIT_TIMEOUT, payload, soon};
use crate::in_process_worker;
use crate::scripted_worker::{ending, start, stop, worker_settings};

/// Returns the names in the catalogue: all of them, or those that a worker without containers and
/// GPUs serves.
fn listed(all: bool) -> BTreeSet<&'static str> {
    let picked = CATALOGUE
        .iter()
        .filter(|metric| all || !(metric.is_of_containers() || metric.is_of_gpus()));
    picked.map(|metric| metric.name).collect()
}

/// Returns the served metrics by name: the kind of each, and the labels of one of its series.
fn served(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            found.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((series, rest)) = line.split_once('{') {
            let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
            let names = labels.split(',').filter_map(|pair| pair.split_once('='));
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| series.strip_suffix(end))
                .filter(|base| found.contains_key(*base))
                .unwrap_or(series);
            if let Some((_, known)) = found.get_mut(base) {
                known.extend(names.map(|(name, _)| name.to_owned()));
                known.remove("le");
            }
        }
    }
    found
}

impl QueueFixture {
    async fn put_to_work(&self, how: &str) -> Outcome {
        let payload = wire::encode(&ending(how), Encoding::Json);
        let id = self.queue.submit(&Routing::default(), &payload).await;
        let id = id.unwrap();
        let mut waiter = self.queue.result_waiter().await.unwrap();
        let found = soon(waiter.wait(&id, WAIT_TIMEOUT)).await.unwrap();
        assert!(found.is_some(), "job {id} ends");
        self.result(&id).await.outcome
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_serves_what_is_listed_and_nothing_else() {
    let fixture = QueueFixture::shared("metrics").await;
    let mut settings = worker_settings(&fixture);
    settings.worker.http = "127.0.0.1:0".to_owned();
    let worker = start(&settings).await;
    assert_eq!(fixture.put_to_work("succeeded").await, Outcome::Succeeded);
    assert_eq!(fixture.put_to_work("rejected").await, Outcome::Rejected);
    let deadline = Instant::now() + WAIT_TIMEOUT;
    let text = loop {
        let text = in_process_worker::metrics(&worker);
        let names: BTreeSet<String> = served(&text).into_keys().collect();
        let missing: Vec<_> = listed(false)
            .into_iter()
            .filter(|name| !names.contains(*name))
            .collect();
        if missing.is_empty() {
            break text;
        }
        assert!(Instant::now() < deadline, "not served: {missing:?}\n{text}");
        tokio::task::yield_now().await;
    };
    stop(worker).await;

    for (name, (kind, labels)) in served(&text) {
        let metric = CATALOGUE.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is served and not listed"));
        assert_eq!(metric.kind.as_str(), kind, "{name}");
        let want: BTreeSet<String> = metric.labels.iter().map(|l| (*l).to_owned()).collect();
        assert_eq!(labels, want, "{name}");
    }
    assert!(
        text.contains("sandhog_jobs_finished_total{outcome=\"lost\"} 0\n"),
        "counters start at zero:\n{text}"
    );
}

#[test]
fn names_have_one_scheme_and_none_is_listed_twice() {
    assert_eq!(listed(true).len(), CATALOGUE.len());
    for metric in CATALOGUE {
        let name = metric.name;
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(
            name.starts_with("sandhog_") && name.chars().all(plain),
            "{name}"
        );
        assert_eq!(
            name.ends_with("_total"),
            metric.kind.as_str() == "counter",
            "{name}"
        );
        let units = [
            "_total",
            "_seconds",
            "_bytes",
            "_millis",
            "_jobs",
            "_entries",
            "_letters",
            "_workers",
            "_slots",
            "_busy",
            "_sandboxes",
            "_places",
            "_servers",
            "_ratio",
            // Suffixes of values that are only 1 or 0.
            "_info",
            "_paused",
            "_healthy",
        ];
        assert!(
            units.iter().any(|unit| name.ends_with(unit)),
            "{name} ends with a unit"
        );
        assert!(
            !metric.help.is_empty() && !metric.help.ends_with('.'),
            "{name}"
        );
    }
}

#[test]
fn the_table_in_the_docs_is_the_list() {
    let mut table = "| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for metric in CATALOGUE {
        table.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            metric.name,
            metric.kind.as_str(),
            metric.labels.join(", "),
            metric.help
        ));
    }
    let path = environment::checkout().join("docs/reference/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- begin metrics -->\n", "<!-- end metrics -->");
    let (before, rest) = page.split_once(begin).expect("the table begins");
    let (found, after) = rest.split_once(end).expect("the table ends");
    if environment::writes() {
        std::fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
    } else {
        assert_eq!(found, table, "run cargo xtask docs");
    }
}

#[test]
fn the_dashboard_asks_for_what_is_listed() {
    let path = environment::checkout().join("docs/reference/grafana.json");
    let board: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let panels = board["panels"].as_array().unwrap();
    assert!(panels.len() > 5);
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let asked = target["expr"].as_str().unwrap();
            for name in names_in(asked) {
                let base = name.trim_end_matches("_bucket");
                assert!(listed(true).contains(base), "{name} in {}", panel["title"]);
            }
        }
    }
}

/// Returns the names of metrics in an expression.
fn names_in(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("sandhog_"))
}

#[test]
fn the_alerts_ask_for_what_is_listed() {
    let path = environment::checkout().join("deploy/prometheus/alerts.yml");
    let rules = std::fs::read_to_string(path).unwrap();
    let asked: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .flat_map(names_in)
        .collect();
    assert!(asked.len() > 5, "{asked:?}");
    for name in asked {
        assert!(listed(true).contains(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_fires_schedules_by_itself() {
    let fixture = QueueFixture::shared("metrics-cron").await;
    let mut settings = worker_settings(&fixture);
    settings.worker.http = "127.0.0.1:0".to_owned();
    let worker = start(&settings).await;
    let schedule = Schedule::new(
        "often".parse().unwrap(),
        CronSchedule::parse("* * * * * *", "UTC").unwrap(),
        Missed::Skip,
        Overlap::Allow,
        Routing {
            reply: Some("fired".parse().unwrap()),
            ..Routing::default()
        },
        payload(),
    )
    .unwrap();
    let next = UnixMillis(fixture.queue.now().await.unwrap().0 + 1);
    let _put = fixture
        .queue
        .put_schedule(&schedule, next, false)
        .await
        .unwrap();
    let key = fixture.queue.keys().reply(&"fired".parse().unwrap());
    let mut space = fixture.space;
    let entries = tokio::task::spawn_blocking(move || {
        let entries = space.read_stream_until(&key, 2);
        (entries, space)
    });
    let (entries, _space) = entries.await.unwrap();
    assert!(
        entries
            .iter()
            .all(|e| e.text("id").starts_with("cron:often:"))
    );
    assert_eq!(entries[0].text("outcome"), "succeeded");
    let text = in_process_worker::metrics(&worker);
    let fired = text
        .lines()
        .find_map(|line| line.strip_prefix("sandhog_jobs_scheduled_total "))
        .unwrap();
    assert!(fired.parse::<u64>().unwrap() >= 2, "{fired}");
    stop(worker).await;
}
