//! Printer for results, notes and errors.

use std::io::{self, IsTerminal, Write};

use sandhog_config::Environment;
use sandhog_core::units::UnixMillis;
use serde::Serialize;
use serde_json::{Value, json};

use super::colour::Colour;
use super::sanitize::sanitize;
use super::stream::OutputStream;
use super::table::Table;
use crate::error::CliError;
use crate::exit::Exit;
use crate::quantity::format_distance;

/// Printer for results, notes and errors, with the options of the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    json: bool,
    quiet: bool,
    colours: bool,
    live: bool,
}

impl Printer {
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

    /// Returns whether progress is shown as a spinner.
    #[must_use]
    pub(super) const fn is_live(self) -> bool {
        self.live
    }

    /// Returns whether results are printed as JSON.
    #[must_use]
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Writes bytes unchanged.
    ///
    /// # Errors
    /// Fails if they cannot be written.
    pub(crate) fn bytes(self, stream: OutputStream, bytes: &[u8]) -> Result<(), CliError> {
        match stream {
            OutputStream::Out => write(io::stdout().lock(), bytes),
            OutputStream::Err => write(io::stderr().lock(), bytes),
        }?;
        stream.wrote(bytes);
        Ok(())
    }

    /// Writes text of `sandhog` itself, which ends with a line end. Starts a new line if the
    /// program's last line has no end.
    fn own_lines(self, stream: OutputStream, text: &str) -> Result<(), CliError> {
        let before = if stream.is_open() { "\n" } else { "" };
        self.bytes(stream, format!("{before}{text}").as_bytes())
    }

    /// Prints one line of a result.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub(crate) fn line(self, text: &str) -> Result<(), CliError> {
        self.own_lines(OutputStream::Out, &format!("{text}\n"))
    }

    /// Prints a JSON document on one line.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|e| CliError::new(Exit::Fault, e))?;
        self.line(&text)
    }

    /// Prints the lines of a table.
    ///
    /// # Errors
    /// Fails if they cannot be written.
    pub(crate) fn table(self, table: &Table) -> Result<(), CliError> {
        table.lines().iter().try_for_each(|line| self.line(line))
    }

    /// Prints the fields of an object, one on each line, with names padded to `width`. Leaves out
    /// fields that are null.
    ///
    /// # Errors
    /// Fails when they cannot be written.
    pub(crate) fn fields(self, object: &Value, width: usize) -> Result<(), CliError> {
        self.all_fields(object, width, None)
    }

    /// Prints the fields of an object as [`Printer::fields`] does. Fields whose names end in `_ms`
    /// are times; they are shown with their distance from `now`.
    ///
    /// # Errors
    /// Fails when they cannot be written.
    pub(crate) fn fields_at(
        self,
        now: UnixMillis,
        object: &Value,
        width: usize,
    ) -> Result<(), CliError> {
        self.all_fields(object, width, Some(now))
    }

    fn all_fields(
        self,
        object: &Value,
        width: usize,
        now: Option<UnixMillis>,
    ) -> Result<(), CliError> {
        for (name, value) in object.as_object().into_iter().flatten() {
            let (name, text) = match (now, name.strip_suffix("_ms"), value) {
                (_, _, Value::Null) => continue,
                (Some(now), Some(name), Value::Number(at)) => {
                    let at = UnixMillis(at.as_u64().unwrap_or_default());
                    (
                        name,
                        format!("{} ({})", at.iso8601(), format_distance(at, now)),
                    )
                }
                (_, _, Value::String(text)) => (name.as_str(), sanitize(text)),
                (_, _, other) => (name.as_str(), sanitize(&other.to_string())),
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
            let _unread = self.own_lines(OutputStream::Err, &format!("{text}\n"));
        }
    }

    /// Prints an important message about the job on standard error, with optional advice. `--quiet`
    /// does not hide it.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub(crate) fn warn(
        self,
        colour: Colour,
        text: &str,
        advice: Option<&str>,
    ) -> Result<(), CliError> {
        let mut lines = format!(
            "{} {text}\n",
            self.paint(OutputStream::Err, colour, "sandhog:")
        );
        if let Some(advice) = advice {
            let hint = self.paint(OutputStream::Err, Colour::Cyan, "hint:");
            lines.push_str(&format!("{hint} {advice}\n"));
        }
        self.own_lines(OutputStream::Err, &lines)
    }

    /// Prints an error and its hint. Prints nothing for [`Exit::Closed`], because the reader has
    /// closed the pipe.
    pub(crate) fn error(self, error: &CliError) {
        if error.exit == Exit::Closed {
            return;
        }
        let text = if self.json {
            let object = json!({
                "error": {
                    "message": error.chain(),
                    "hint": error.hint,
                    "exit_code": error.exit.code(),
                }
            });
            format!("{object}\n")
        } else {
            let mut text = format!(
                "{} {}\n",
                self.paint(OutputStream::Err, Colour::Red, "error:"),
                error.chain()
            );
            if let Some(hint) = &error.hint {
                text.push_str(&format!(
                    "{} {hint}\n",
                    self.paint(OutputStream::Err, Colour::Cyan, "hint:")
                ));
            }
            text
        };
        // If standard error is closed, the failure cannot be reported.
        let _unread = self.own_lines(OutputStream::Err, &text);
    }

    /// Returns whether text on this stream is coloured.
    #[must_use]
    pub(crate) fn is_coloured(self, stream: OutputStream) -> bool {
        self.colours
            && match stream {
                OutputStream::Out => io::stdout().is_terminal(),
                OutputStream::Err => io::stderr().is_terminal(),
            }
    }

    /// Returns the text in a colour if this stream is coloured, otherwise the text itself.
    #[must_use]
    pub(crate) fn paint(self, stream: OutputStream, colour: Colour, text: &str) -> String {
        if self.is_coloured(stream) {
            format!("\x1b[{}m{text}\x1b[0m", colour.code())
        } else {
            text.to_owned()
        }
    }
}

fn write(mut to: impl Write, bytes: &[u8]) -> Result<(), CliError> {
    to.write_all(bytes)
        .and_then(|()| to.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::new(Exit::Closed, error),
            _other => CliError::new(
                Exit::Output,
                anyhow::Error::new(error).context("could not write the output"),
            ),
        })
}
