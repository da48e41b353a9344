//! The end of a command that waited for one job. It prints the parts of the result that are not in
//! the program's output.

use sandhog_core::job::Job;
use sandhog_core::outcome::{JobResult, Outcome, Usage};

use super::advice::advice;
use super::displays;
use super::save::SaveReport;
use super::verdict::verdict;
use crate::catalogue::Catalogue;
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Colour, OutputStream, sanitize, sanitize_lines};
use crate::quantity::format_size;

/// Options for printing the rest of a result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conclusion<'a> {
    /// Prints the value.
    pub(crate) value: bool,
    /// The job, if the command has it.
    pub(crate) job: Option<&'a Job>,
    /// The report on its files.
    pub(crate) saved: &'a SaveReport,
}

/// Prints the parts of a result that the program's output does not show: its value if requested,
/// its exception, its displays and files, and the reason for its end. Returns the exit code.
///
/// # Errors
/// Fails when the output of this command cannot be written.
pub(crate) fn conclude(
    app: &AppContext,
    result: &JobResult,
    conclusion: Conclusion<'_>,
) -> Result<Exit, CliError> {
    let output = app.output;
    // A missing value is reported only if the result says why it was dropped or the job succeeded.
    // For any other job, the reason for its end is printed below.
    if conclusion.value {
        match (&result.value, &result.value_dropped) {
            (Some(value), _) => output.json(value)?,
            (None, Some(dropped)) => {
                output.note(&sanitize(&format!("sandhog: no value: {dropped}")))
            }
            (None, None) if result.outcome == Outcome::Succeeded => {
                output.note("sandhog: no value: the program returned none");
            }
            (None, None) => {}
        }
    }
    if let Some(exception) = &result.exception {
        // The harness does not print the traceback. It is not repeated if the program has printed
        // it itself.
        let told = result.stderr.lossy();
        if !without_note(&told).ends_with(exception.traceback.trim_end()) {
            let text = format!("{}\n", exception.traceback.trim_end());
            output.bytes(OutputStream::Err, text.as_bytes())?;
        }
    }
    for cut in cut_streams(result) {
        output.note(&cut);
    }
    displays::print_displays(output, result);
    if let Some(pace) = result.usage.and_then(pace) {
        output.note(&pace);
    }
    conclusion.saved.print(output)?;
    ending(app, result, conclusion.job)?;
    Ok(conclusion.saved.exit(Exit::of(result)))
}

/// Returns standard error without the line about the sandbox that a harness may print after a
/// traceback.
fn without_note(stderr: &str) -> &str {
    let text = stderr.trim_end();
    match text.rsplit_once('\n') {
        Some((before, note)) if note.starts_with("note: ") => before.trim_end(),
        Some(_) | None => text,
    }
}

/// Prints the reason for a job's end with advice, if the job's output does not show it. `job` is
/// the job, if the command has it.
///
/// # Errors
/// Fails when the output of this command cannot be written.
pub(crate) fn ending(
    app: &AppContext,
    result: &JobResult,
    job: Option<&Job>,
) -> Result<(), CliError> {
    let Some(verdict) = verdict(result) else {
        return Ok(());
    };
    let line = sanitize_lines(&verdict);
    if result.outcome == Outcome::Failed && result.error.is_none() && result.signal.is_none() {
        // The exit code shows this too, so `--quiet` may hide the line.
        app.output.note(&format!("sandhog: {line}"));
        return Ok(());
    }
    let advice = result.error.as_ref().and_then(|_| {
        let catalogue = Catalogue::read(&app.loaded.settings.sandbox);
        advice(&catalogue, result, job)
    });
    let colour = match result.outcome {
        Outcome::Lost | Outcome::Rejected => Colour::Red,
        _the_programs_own => Colour::Yellow,
    };
    app.output.warn(colour, &line, advice.as_deref())
}

/// Returns a line for each stream whose output was cut at its limit.
fn cut_streams(result: &JobResult) -> Vec<String> {
    let usage = result.usage.unwrap_or_default();
    let streams = [
        (
            "standard output",
            result.truncated.stdout,
            &result.stdout,
            usage.stdout_bytes,
        ),
        (
            "standard error",
            result.truncated.stderr,
            &result.stderr,
            usage.stderr_bytes,
        ),
    ];
    streams
        .into_iter()
        .filter(|(_, is_cut, ..)| *is_cut)
        .map(|(name, _, kept, written)| {
            format!(
                "sandhog: {name} was cut: {} of {} are kept (--output SIZE raises the limit)",
                format_size(kept.0.len() as u64),
                format_size(written.0)
            )
        })
        .collect()
}

/// Returns a line with the time to the first piece of a streamed answer and its number of tokens.
/// Returns `None` if the answer was not streamed.
fn pace(usage: Usage) -> Option<String> {
    let first = usage.first_token_ms?;
    let tokens = usage.tokens.map_or_else(String::new, |tokens| {
        format!(", {} tokens", tokens.completion)
    });
    Some(format!(
        "sandhog: first token after {first}{tokens}, all in {}",
        usage.wall_ms
    ))
}
