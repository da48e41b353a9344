//! Display of progress while the user waits.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::printer::Printer;
use super::sanitize::sanitize;
use super::stream::OutputStream;

/// A spinner with a text on a terminal; elsewhere each step is a line on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    output: Printer,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts a display of progress.
    #[must_use]
    pub(crate) fn start(output: Printer) -> Self {
        let bar = output.is_live().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = if output.is_coloured(OutputStream::Err) {
                "{spinner:.cyan} {wide_msg} {elapsed:.dim}"
            } else {
                "{spinner} {wide_msg} {elapsed}"
            };
            bar.set_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_bad_template| ProgressStyle::default_spinner()),
            );
            bar
        });
        Self { output, bar }
    }

    /// Shows that a new step has begun.
    pub(crate) fn step(&self, text: &str) {
        match &self.bar {
            Some(bar) => {
                if bar.is_finished() {
                    bar.reset();
                }
                bar.set_message(sanitize(text));
                bar.enable_steady_tick(Duration::from_millis(100));
            }
            None => self.output.note(&sanitize(text)),
        }
    }

    /// Shows a detail of the current step, on a terminal only.
    pub(crate) fn detail(&self, step: &str, detail: &str) {
        if let Some(bar) = &self.bar {
            let line: String = sanitize(detail).chars().take(60).collect();
            bar.set_message(format!("{step}: {line}"));
        }
    }

    /// Prints a line that remains on the screen.
    pub(crate) fn done(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.note(&sanitize(text))),
            None => self.output.note(&sanitize(text)),
        }
    }

    /// Removes the spinner.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
