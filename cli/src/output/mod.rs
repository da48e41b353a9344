//! Output to the terminal. All commands print through this module.
//!
//! Results go to standard output; progress, notes and errors go to standard error. Colours and
//! progress bars appear only on a terminal, and never if `NO_COLOR` is set. If the reader closes
//! the pipe, the process ends without a message.

mod progress;
mod screen;
mod table;

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use sandhog_common::config::Environment;
use sandhog_common::units::UnixMillis;
use serde::Serialize;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::fault::Fault;
use crate::quantity::distance;

pub(crate) use progress::Progress;
pub(crate) use screen::Screen;
pub(crate) use table::Table;

/// One of the two output streams of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output, for results.
    Out,
    /// Standard error, for everything else.
    Err,
}

/// For standard output and for standard error: true if the last byte written was not a line end.
static OPEN: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

impl Stream {
    fn is_open(self) -> bool {
        OPEN[self as usize].load(Ordering::Relaxed)
    }

    /// Records whether a write left a line without its end. Streams that go to the same terminal,
    /// file or pipe share this state.
    fn wrote(self, bytes: &[u8]) {
        let Some(last) = bytes.last() else {
            return;
        };
        for stream in [Self::Out, Self::Err] {
            if stream == self || go_to_one_place() {
                OPEN[stream as usize].store(*last != b'\n', Ordering::Relaxed);
            }
        }
    }
}

/// Returns whether both streams go to one terminal, file or pipe.
fn go_to_one_place() -> bool {
    static ONE: OnceLock<bool> = OnceLock::new();
    *ONE.get_or_init(|| {
        let place = |stream: &dyn AsFd| {
            let stat = nix::sys::stat::fstat(stream.as_fd()).ok()?;
            Some((stat.st_dev, stat.st_ino))
        };
        let out = place(&io::stdout());
        out.is_some() && out == place(&io::stderr())
    })
}

/// Printer for results, notes and errors, with the options of the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    colours: bool,
    live: bool,
}

impl Output {
    /// Creates the printer for the streams of this process.
    #[must_use]
    pub(crate) fn new(environment: &Environment, json: bool, quiet: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        Self {
            json,
            quiet,
            colours: environment.wants_colour(),
            live: terminal && !quiet && environment.text("TERM") != Some("dumb"),
        }
    }

    /// Returns whether results are printed as JSON.
    #[must_use]
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Writes bytes unchanged.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn bytes(self, stream: Stream, bytes: &[u8]) -> Result<(), Fault> {
        match stream {
            Stream::Out => write(io::stdout().lock(), bytes),
            Stream::Err => write(io::stderr().lock(), bytes),
        }?;
        stream.wrote(bytes);
        Ok(())
    }

    /// Writes text of `sandhog` itself, which ends with a line end. Starts a new line if the
    /// program's last line has no end.
    fn own_lines(self, stream: Stream, text: &str) -> Result<(), Fault> {
        let before = if stream.is_open() { "\n" } else { "" };
        self.bytes(stream, format!("{before}{text}").as_bytes())
    }

    /// Prints one line of a result.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn line(self, text: &str) -> Result<(), Fault> {
        self.own_lines(Stream::Out, &format!("{text}\n"))
    }

    /// Prints a JSON document on one line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Fault> {
        let text = serde_json::to_string(value).map_err(|e| Fault::new(Exit::Fault, e))?;
        self.line(&text)
    }

    /// Prints the lines of a table.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn table(self, table: &Table) -> Result<(), Fault> {
        table.lines().iter().try_for_each(|line| self.line(line))
    }

    /// Prints the fields of an object, one on each line, with names padded to `width`. Leaves out
    /// fields that are null.
    ///
    /// # Errors
    /// Fails when they cannot be written.
    pub(crate) fn fields(self, object: &Value, width: usize) -> Result<(), Fault> {
        self.all_fields(object, width, None)
    }

    /// Prints the fields of an object as [`Output::fields`] does. Fields whose names end in `_ms`
    /// are times; they are shown with their distance from `now`.
    ///
    /// # Errors
    /// Fails when they cannot be written.
    pub(crate) fn fields_at(
        self,
        now: UnixMillis,
        object: &Value,
        width: usize,
    ) -> Result<(), Fault> {
        self.all_fields(object, width, Some(now))
    }

    fn all_fields(
        self,
        object: &Value,
        width: usize,
        now: Option<UnixMillis>,
    ) -> Result<(), Fault> {
        for (name, value) in object.as_object().into_iter().flatten() {
            let (name, text) = match (now, name.strip_suffix("_ms"), value) {
                (_, _, Value::Null) => continue,
                (Some(now), Some(name), Value::Number(at)) => {
                    let at = UnixMillis(at.as_u64().unwrap_or_default());
                    (name, format!("{} ({})", at.iso8601(), distance(at, now)))
                }
                (_, _, Value::String(text)) => (name.as_str(), tame(text)),
                (_, _, other) => (name.as_str(), tame(&other.to_string())),
            };
            self.line(&format!("{name:<width$} {text}"))?;
        }
        Ok(())
    }

    /// Prints a note for the user on standard error, unless `--quiet` is set. A failure to write it
    /// is ignored.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            // If standard error is closed, the failure cannot be reported.
            let _unread = self.own_lines(Stream::Err, &format!("{text}\n"));
        }
    }

    /// Prints an important message about the job on standard error, with optional advice. `--quiet`
    /// does not hide it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn remark(
        self,
        colour: Colour,
        text: &str,
        advice: Option<&str>,
    ) -> Result<(), Fault> {
        let mut lines = format!("{} {text}\n", self.paint(Stream::Err, colour, "sandhog:"));
        if let Some(advice) = advice {
            let hint = self.paint(Stream::Err, Colour::Cyan, "hint:");
            lines.push_str(&format!("{hint} {advice}\n"));
        }
        self.own_lines(Stream::Err, &lines)
    }

    /// Starts a display of progress: a spinner on a terminal, otherwise single lines.
    #[must_use]
    pub(crate) fn progress(self) -> Progress {
        Progress::new(self)
    }

    /// Prints an error and its hint. Prints nothing for [`Exit::Closed`], because the reader has
    /// closed the pipe.
    pub(crate) fn fault(self, fault: &Fault) {
        if fault.exit == Exit::Closed {
            return;
        }
        let text = if self.json {
            let object = json!({
                "error": {
                    "message": fault.chain(),
                    "hint": fault.hint,
                    "exit_code": fault.exit.code(),
                }
            });
            format!("{object}\n")
        } else {
            let mut text = format!(
                "{} {}\n",
                self.paint(Stream::Err, Colour::Red, "error:"),
                fault.chain()
            );
            if let Some(hint) = &fault.hint {
                text.push_str(&format!(
                    "{} {hint}\n",
                    self.paint(Stream::Err, Colour::Cyan, "hint:")
                ));
            }
            text
        };
        // If standard error is closed, the failure cannot be reported.
        let _unread = self.own_lines(Stream::Err, &text);
    }

    /// Returns whether text on this stream is coloured.
    #[must_use]
    pub(crate) fn is_coloured(self, stream: Stream) -> bool {
        self.colours
            && match stream {
                Stream::Out => io::stdout().is_terminal(),
                Stream::Err => io::stderr().is_terminal(),
            }
    }

    /// Returns the text in a colour if this stream is coloured, otherwise the text itself.
    #[must_use]
    pub(crate) fn paint(self, stream: Stream, colour: Colour, text: &str) -> String {
        if self.is_coloured(stream) {
            format!("\x1b[{}m{text}\x1b[0m", colour.code())
        } else {
            text.to_owned()
        }
    }
}

/// The colours in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Good.
    Green,
    /// Warning.
    Yellow,
    /// Bad.
    Red,
    /// Advice.
    Cyan,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "1;31",
            Self::Cyan => "36",
        }
    }
}

/// Makes untrusted text safe to print on one line. Replaces control characters, which could rewrite
/// the terminal, by `�`.
#[must_use]
pub(crate) fn tame(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Most lines of untrusted text that are shown after its first line.
const MOST_LINES: usize = 40;

/// Makes untrusted text of several lines safe to print, such as the end of a log. Keeps its first
/// line and its last lines, each passed through [`tame`]. All lines but the first are indented, so
/// that none looks like a line of `sandhog` itself.
#[must_use]
pub(crate) fn tame_lines(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let rest: Vec<&str> = lines.collect();
    let left_out = rest.len().saturating_sub(MOST_LINES);
    let mut shown = tame(first);
    if left_out > 0 {
        shown.push_str(&format!("\n  … {left_out} lines are left out"));
    }
    for line in rest.iter().skip(left_out) {
        shown.push_str("\n  ");
        shown.push_str(&tame(&line.replace('\t', "    ")));
    }
    shown
}

fn write(mut to: impl Write, bytes: &[u8]) -> Result<(), Fault> {
    to.write_all(bytes)
        .and_then(|()| to.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Fault::new(Exit::Closed, error),
            _other => Fault::new(
                Exit::Output,
                anyhow::Error::new(error).context("could not write the output"),
            ),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_log_stay_lines_and_cannot_pass_for_ours() {
        let log = "its log ends:\r\n\tat\u{1b}[2J x\nerror: no\u{7}\n";
        assert_eq!(
            tame_lines(log),
            "its log ends:\n      at\u{fffd}[2J x\n  error: no\u{fffd}"
        );
        assert_eq!(tame_lines(""), "");
        let long: String = (0..100).map(|i| format!("{i}\n")).collect();
        let shown = tame_lines(&long);
        assert_eq!(shown.lines().count(), 2 + MOST_LINES);
        assert!(
            shown.starts_with("0\n  … 59 lines are left out\n  60\n"),
            "{shown}"
        );
        assert!(shown.ends_with("\n  99"), "{shown}");
    }
}
