//! The header of a hostile program: a description, its input, and the result that it must have.
//!
//! A header consists of the comment lines `# key: value` at the start of the file, up to the first
//! other line. `does` and `expect` are words; every other value is JSON. An unknown or repeated key
//! is an error, because a misspelled check would check nothing.
//!
//! | key | meaning |
//! | --- | --- |
//! | `does` | the attack, described for people; required |
//! | `expect` | the outcome; required |
//! | `limits`, `input`, `env` | as in a job |
//! | `given` | `"listener"`: `input_data` holds addresses and port of a listener on the host |
//! | `wall` | the wall that it attacks, one of [`WALLS`] |
//! | `runs` | number of runs, one after the other |
//! | `differ` | every run must print something else |
//! | `stdout`, `stderr` | the exact output; text, or `{"base64": …}` |
//! | `stdout_repeat` | `[text, count]`: exactly this text, repeated `count` times |
//! | `truncated` | the streams that lost bytes; default none; `"any"` checks nothing |
//! | `value` | the value; `null` is none |
//! | `exit_code`, `signal` | the end of the program |
//! | `expect_value` | as in a job |
//! | `completed` | the field `completed` of the result |
//! | `error` | the code of the result's error; default no error |
//! | `fetch` | as in a job |
//! | `fetch_repeat` | `[text, times, count]`: patterns; each is the text repeated, then a number |
//! | `files` | exactly the files that are returned, by path |
//! | `not_fetched` | exactly the files that are not returned, by path, with the reason |
//! | `gives_up` | instead: some folders are not fetched, each because it has too many entries |
//! | `displays` | number of displays; default none; `"any"` checks nothing |
//! | `displays_dropped` | number of displays that were dropped |
//! | `peak_at_least` | bytes of memory that its usage must at least show |

use std::collections::BTreeMap;

use sandhog_core::blob::Blob;
use sandhog_core::limits::LimitOverrides;
use sandhog_core::outcome::{JobResult, NotFetched, Outcome};
use serde_json::{Map, Value};

/// The walls between a program and everything else, by their names in headers and in
/// docs/concepts/security.md.
pub(crate) const WALLS: [&str; 11] = [
    "cgroup",
    "descriptors",
    "inodes",
    "masks",
    "namespaces",
    "network",
    "proc",
    "rlimits",
    "scratch",
    "seccomp",
    "user",
];

/// A parsed header.
#[derive(Debug)]
pub(crate) struct Header {
    /// Outcome that the program must have.
    pub(crate) expect: Outcome,
    /// Limits of the job.
    pub(crate) limits: LimitOverrides,
    /// Patterns of the files to fetch.
    pub(crate) fetch: Vec<String>,
    /// Environment of the program.
    pub(crate) env: BTreeMap<String, String>,
    /// Value of `input_data`.
    pub(crate) input: Value,
    /// The program gets the addresses of a listener on the host.
    pub(crate) listener: bool,
    /// Wall that the program attacks.
    pub(crate) wall: Option<String>,
    /// The program must return a value.
    pub(crate) expect_value: bool,
    /// Number of runs.
    pub(crate) runs: usize,
    /// Every run must print something else.
    pub(crate) differ: bool,
    stdout: Option<Blob>,
    stderr: Option<Blob>,
    truncated: Option<Vec<String>>,
    value: Option<Value>,
    completed: Option<bool>,
    error: Option<String>,
    exit_code: Option<i32>,
    signal: Option<String>,
    peak_at_least: Option<u64>,
    displays: Option<usize>,
    displays_dropped: Option<u64>,
    files: BTreeMap<String, Blob>,
    not_fetched: BTreeMap<String, NotFetched>,
    gives_up: bool,
}

impl Header {
    /// Parses the header of `text`.
    ///
    /// # Panics
    /// Panics with `name` if the header is invalid.
    pub(crate) fn read(name: &str, text: &str) -> Self {
        let mut words = Map::new();
        for line in text.lines() {
            let Some(line) = line.strip_prefix("# ") else {
                break;
            };
            let (key, value) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("{name}: {line:?} is not `key: value`"));
            let value = match key {
                "does" | "expect" => Value::from(value),
                _ => serde_json::from_str(value)
                    .unwrap_or_else(|error| panic!("{name}: {key} is not JSON: {error}")),
            };
            let before = words.insert(key.to_owned(), value);
            assert!(before.is_none(), "{name}: {key} is given twice");
        }
        let mut header = RemainingKeys { name, words };
        let does: String = header.take("does").unwrap_or_default();
        assert!(!does.is_empty(), "{name}: `does` is missing");
        let stdout = header.take("stdout");
        let repeated = header.take("stdout_repeat");
        assert!(
            stdout.is_none() || repeated.is_none(),
            "{name}: stdout is given twice"
        );
        let given: Option<String> = header.take("given");
        let wall: Option<String> = header.take("wall");
        let read = Self {
            expect: header
                .take("expect")
                .unwrap_or_else(|| panic!("{name}: `expect` is missing")),
            limits: header.take("limits").unwrap_or_default(),
            env: header.take("env").unwrap_or_default(),
            input: header.take("input").unwrap_or_default(),
            listener: given.as_deref() == Some("listener"),
            runs: header.take("runs").unwrap_or(1),
            differ: header.take("differ").unwrap_or(false),
            stdout: stdout.or_else(|| repeated.map(repeat)),
            stderr: header.take("stderr"),
            truncated: match header.words.remove("truncated") {
                None => Some(Vec::new()),
                Some(Value::String(any)) if any == "any" => None,
                Some(streams) => Some(header.convert("truncated", streams)),
            },
            value: header.words.remove("value"),
            expect_value: header.take("expect_value").unwrap_or(false),
            completed: header.take("completed"),
            error: header.take("error"),
            exit_code: header.take("exit_code"),
            signal: header.take("signal"),
            peak_at_least: header.take("peak_at_least"),
            displays: match header.words.remove("displays") {
                None => Some(0),
                Some(Value::String(any)) if any == "any" => None,
                Some(count) => Some(header.convert("displays", count)),
            },
            displays_dropped: header.take("displays_dropped"),
            fetch: match header.take("fetch_repeat") {
                Some(repeated) => patterns(repeated),
                None => header.take("fetch").unwrap_or_default(),
            },
            files: header.take("files").unwrap_or_default(),
            not_fetched: header.take("not_fetched").unwrap_or_default(),
            gives_up: header.take("gives_up").unwrap_or_default(),
            wall,
        };
        assert!(
            given.is_none() || read.listener,
            "{name}: given is none of [\"listener\"]"
        );
        if let Some(wall) = &read.wall {
            assert!(
                WALLS.contains(&wall.as_str()),
                "{name}: wall {wall} is none of {WALLS:?}"
            );
        }
        let left: Vec<_> = header.words.keys().collect();
        assert!(left.is_empty(), "{name}: unknown keys {left:?}");
        read
    }

    /// Returns every part of the result that differs from the header.
    pub(crate) fn differences(&self, result: &JobResult) -> Vec<String> {
        self.compared(result, self.peak_at_least)
    }

    /// Returns the differences for a runtime under which a container that runs out of memory may
    /// end as a whole. The runner ends with it, so there is no usage to compare.
    pub(crate) fn differences_if_counted(&self, result: &JobResult) -> Vec<String> {
        let whole = result.outcome == Outcome::OutOfMemory && result.usage.is_none();
        self.compared(result, self.peak_at_least.filter(|_| !whole))
    }

    fn compared(&self, result: &JobResult, peak_at_least: Option<u64>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut compare = |what: &str, same: bool, want: &dyn std::fmt::Debug| {
            if !same {
                wrong.push(format!("{what} is not {want:.200?}"));
            }
        };
        compare("outcome", result.outcome == self.expect, &self.expect);
        let error = result.error.as_ref().map(|error| error.code.as_str());
        compare("error", error == self.error.as_deref(), &self.error);
        if let Some(completed) = self.completed {
            compare("completed", result.completed == Some(completed), &completed);
        }
        compare("attempts", result.attempts == 1, &1);
        if let Some(stdout) = &self.stdout {
            compare("stdout", result.stdout == *stdout, stdout);
        }
        if let Some(stderr) = &self.stderr {
            compare("stderr", result.stderr == *stderr, stderr);
        }
        if let Some(streams) = &self.truncated {
            let has = |name: &str| streams.iter().any(|stream| stream == name);
            let same = result.truncated.stdout == has("stdout")
                && result.truncated.stderr == has("stderr");
            compare("truncated", same, streams);
        }
        if let Some(value) = &self.value {
            let same = result.value.as_ref().unwrap_or(&Value::Null) == value;
            compare("value", same, value);
        }
        if let Some(code) = self.exit_code {
            compare("exit code", result.exit_code == Some(code), &code);
        }
        if let Some(signal) = &self.signal {
            compare("signal", result.signal.as_ref() == Some(signal), signal);
        }
        compare("files", result.files == self.files, &self.files);
        let left = &self.not_fetched;
        if self.gives_up {
            let mut reasons = result.not_fetched.values();
            let one = !result.not_fetched.is_empty();
            let given_up = one && reasons.all(|why| *why == NotFetched::TooManySeen);
            compare("giving up", given_up, &result.not_fetched);
        } else {
            compare("not_fetched", result.not_fetched == *left, left);
        }
        if let Some(count) = self.displays {
            compare("displays", result.displays.len() == count, &count);
        }
        if let Some(count) = self.displays_dropped {
            let dropped = result.displays_dropped;
            compare("displays dropped", dropped == count, &count);
        }
        if let Some(least) = peak_at_least {
            let peak = result.usage.as_ref().map_or(0, |usage| usage.memory_peak.0);
            compare("peak of memory", peak >= least, &least);
        }
        wrong
    }
}

/// The keys of a header that have not been read yet.
struct RemainingKeys<'a> {
    name: &'a str,
    words: Map<String, Value>,
}

impl RemainingKeys<'_> {
    fn take<T: serde::de::DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.words.remove(key)?;
        Some(self.convert(key, value))
    }

    fn convert<T: serde::de::DeserializeOwned>(&self, key: &str, value: Value) -> T {
        serde_json::from_value(value).unwrap_or_else(|error| {
            panic!("{}: the value of `{key}` is invalid: {error}", self.name)
        })
    }
}

fn patterns((text, times, count): (String, usize, usize)) -> Vec<String> {
    let each = |number: usize| format!("{}{number}", text.repeat(times));
    (0..count).map(each).collect()
}

fn repeat((text, count): (String, usize)) -> Blob {
    Blob::from(text.repeat(count).into_bytes())
}
