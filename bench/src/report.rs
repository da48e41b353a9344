//! Samples, their medians, and the output of a benchmark.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Times of one contender.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    /// Name of the contender.
    pub(crate) name: &'static str,
    times: Vec<Duration>,
}

impl Samples {
    /// Returns samples without times.
    pub(crate) fn of(name: &'static str) -> Self {
        Self {
            name,
            times: Vec::new(),
        }
    }

    /// Returns the same samples under another name.
    pub(crate) fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// Adds one time.
    pub(crate) fn add(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// Adds all times of `others`.
    pub(crate) fn append(&mut self, mut others: Self) {
        self.times.append(&mut others.times);
    }

    /// Returns the time that `share` (0 to 1) of all samples do not exceed, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a short list, rounded on purpose"
        )]
        let index = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
        sorted
            .get(index.min(sorted.len().saturating_sub(1)))
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// Returns the median, in milliseconds.
    pub(crate) fn median_ms(&self) -> f64 {
        self.quantile_ms(0.5)
    }
}

/// Prints the progress of a run to standard error, because a minute without output looks like a
/// hang.
#[expect(
    clippy::print_stderr,
    reason = "standard output is for the table and the figures"
)]
pub(crate) fn progress(done: u64, of: u64, what: &str) {
    eprintln!("==> {what} {done} of {of}");
}

/// One target of a benchmark and the measured figure.
#[derive(Debug)]
pub(crate) struct Aim {
    /// Name of the figure.
    pub(crate) what: &'static str,
    /// The measured figure.
    pub(crate) figure: f64,
    /// The bound.
    pub(crate) bound: Bound,
}

/// Bound of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    /// The figure must be at most this.
    AtMost(f64),
    /// The figure must be at least this.
    AtLeast(f64),
}

impl Aim {
    fn met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.figure <= most,
            Bound::AtLeast(least) => self.figure >= least,
        }
    }

    fn shown(&self) -> Value {
        let (side, bound) = match self.bound {
            Bound::AtMost(most) => ("at_most", most),
            Bound::AtLeast(least) => ("at_least", least),
        };
        json!({ "figure": rounded(self.figure), side: bound, "met": self.met() })
    }
}

/// Prints the targets and then, last, the JSON line.
#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
pub(crate) fn print_report(bench: &str, figures: Map<String, Value>, aims: &[Aim]) {
    println!();
    for aim in aims {
        let verdict = if aim.met() { "met   " } else { "MISSED" };
        println!(
            "{verdict} {}: {:.2} ({:?})",
            aim.what, aim.figure, aim.bound
        );
    }
    let shown: Map<String, Value> = aims
        .iter()
        .map(|aim| (aim.what.to_owned(), aim.shown()))
        .collect();
    let met = aims.iter().all(Aim::met);
    println!(
        "{}",
        json!({ "bench": bench, "figures": figures, "aims": shown, "met": met })
    );
}

/// Prints a table of p50 and p99, each beside the first contender's median.
#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
pub(crate) fn table(contenders: &[Samples]) -> Map<String, Value> {
    let base = contenders.first().map_or(f64::NAN, Samples::median_ms);
    println!(
        "{:<44} {:>6} {:>9} {:>9} {:>7}",
        "", "n", "p50 ms", "p99 ms", "ratio"
    );
    let mut figures = Map::new();
    for contender in contenders {
        let (p50, p99) = (contender.median_ms(), contender.quantile_ms(0.99));
        println!(
            "{:<44} {:>6} {:>9.2} {:>9.2} {:>7.2}",
            contender.name,
            contender.times.len(),
            p50,
            p99,
            p50 / base
        );
        figures.insert(
            contender.name.to_owned(),
            json!({ "n": contender.times.len(), "p50_ms": rounded(p50), "p99_ms": rounded(p99) }),
        );
    }
    figures
}

/// Rounds to three decimals, which is more than the precision of a noisy machine.
pub(crate) fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

/// Returns `many` in `seconds` as a rate for one second.
pub(crate) fn per_second(many: usize, seconds: f64) -> f64 {
    count(many) / seconds
}

/// Converts a count to a figure.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn count(count: usize) -> f64 {
    count as f64
}

/// Returns the median.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
