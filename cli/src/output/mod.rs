//! Output to the terminal. All commands print through this module.
//!
//! Results go to standard output; progress, notes and errors go to standard error. Colours and
//! progress bars appear only on a terminal, and never if `NO_COLOR` is set. If the reader closes
//! the pipe, the process ends without a message.

mod colour;
mod printer;
mod progress;
mod sanitize;
mod screen;
mod stream;
mod table;

pub(crate) use colour::Colour;
pub(crate) use printer::Printer;
pub(crate) use progress::Progress;
pub(crate) use sanitize::{sanitize, sanitize_lines};
pub(crate) use screen::Screen;
pub(crate) use stream::OutputStream;
pub(crate) use table::Table;
