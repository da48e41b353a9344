//! The terminal: the one place that prints.
//!
//! What a command is asked for goes to standard output; progress, notes and errors go to standard error. Colours and
//! progress bars appear on a terminal only, and never where `NO_COLOR` is set. A reader that goes away is not an
//! error worth words: the process ends quietly.

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

/// One of our two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// What was asked for.
    Out,
    /// Everything else.
    Err,
}

/// True where the last byte written to standard output, or to standard error, left a line open.
static OPEN: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

impl Stream {
    fn is_open(self) -> bool {
        OPEN[self as usize].load(Ordering::Relaxed)
    }

    /// Records whether a write left a line open. Where both streams go to one place, they share its
    /// line.
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

/// How to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    colours: bool,
    live: bool,
}

impl Output {
    /// Prints for whoever reads this process' streams now.
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

    /// Whether results are printed as JSON.
    #[must_use]
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Bytes as they are.
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

    /// Text of our own, ending with a line end, on lines of its own: a program's last line may be
    /// open.
    fn own_lines(self, stream: Stream, text: &str) -> Result<(), Fault> {
        let before = if stream.is_open() { "\n" } else { "" };
        self.bytes(stream, format!("{before}{text}").as_bytes())
    }

    /// A line of what was asked for.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn line(self, text: &str) -> Result<(), Fault> {
        self.own_lines(Stream::Out, &format!("{text}\n"))
    }

    /// A JSON document on one line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Fault> {
        let text = serde_json::to_string(value).map_err(|e| Fault::new(Exit::Fault, e))?;
        self.line(&text)
    }

    /// The lines of a table.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn table(self, table: &Table) -> Result<(), Fault> {
        table.lines().iter().try_for_each(|line| self.line(line))
    }

    /// One thing's fields, a line for each that has a value, with names as wide as `width`.
    ///
    /// # Errors
    /// Fails when they cannot be written.
    pub(crate) fn fields(self, object: &Value, width: usize) -> Result<(), Fault> {
        self.all_fields(object, width, None)
    }

    /// The same, for a thing with moments: members whose names end in `_ms`. They are shown with
    /// their distance from `now`.
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

    /// A note for the person at the terminal, on standard error. Nothing hangs on it.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            // Nobody is left to tell when standard error is gone.
            let _unread = self.own_lines(Stream::Err, &format!("{text}\n"));
        }
    }

    /// What is to be known beside the program's output, on standard error, with advice; `--quiet` does not hide it.
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

    /// What goes on right now: a spinner on a terminal, single lines elsewhere.
    #[must_use]
    pub(crate) fn progress(self) -> Progress {
        Progress::new(self)
    }

    /// An error and, after it, what to do about it. One that only says that our reader went away is not printed.
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
        // Nobody is left to tell when standard error is gone.
        let _unread = self.own_lines(Stream::Err, &text);
    }

    /// Whether colours are wanted on a stream.
    #[must_use]
    pub(crate) fn is_coloured(self, stream: Stream) -> bool {
        self.colours
            && match stream {
                Stream::Out => io::stdout().is_terminal(),
                Stream::Err => io::stderr().is_terminal(),
            }
    }

    /// Text in a colour, where colours are wanted on that stream.
    #[must_use]
    pub(crate) fn paint(self, stream: Stream, colour: Colour, text: &str) -> String {
        if self.is_coloured(stream) {
            format!("\x1b[{}m{text}\x1b[0m", colour.code())
        } else {
            text.to_owned()
        }
    }
}

/// The few colours in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Good.
    Green,
    /// Worth a look.
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

/// Hostile text on one line: control characters, which could rewrite the terminal, are shown as `�`.
#[must_use]
pub(crate) fn tame(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// The most lines of hostile text that are shown after its first.
const MOST_LINES: usize = 40;

/// Hostile text of several lines, such as the end of a log: its first line and the last ones, each
/// as [`tame`] has it. All but the first are indented, so that none looks like a line of our own.
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
