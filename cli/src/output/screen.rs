//! Full-screen output for `sandhog top`.

use std::io::{self, IsTerminal as _};

use ratatui::DefaultTerminal;

use crate::error::CliError;
use crate::exit::Exit;

/// The terminal in full-screen mode: alternate screen, no echo, no cursor. Dropping it restores the
/// terminal, also after a panic.
#[derive(Debug)]
pub(crate) struct Screen(DefaultTerminal);

impl Screen {
    /// Returns whether standard output and standard input are terminals.
    #[must_use]
    pub(crate) fn is_there() -> bool {
        io::stdout().is_terminal() && io::stdin().is_terminal()
    }

    /// Switches the terminal to full-screen mode.
    ///
    /// # Errors
    /// Fails if the terminal does not support it.
    pub(crate) fn enter() -> Result<Self, CliError> {
        ratatui::try_init().map(Self).map_err(terminal_error)
    }

    /// Draws the next picture.
    ///
    /// # Errors
    /// Fails if the terminal is closed.
    pub(crate) fn draw(
        &mut self,
        picture: impl FnOnce(&mut ratatui::Frame<'_>),
    ) -> Result<(), CliError> {
        self.0.draw(picture).map(drop).map_err(terminal_error)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is closed, there is nothing to restore.
        let _unseen = ratatui::try_restore();
    }
}

fn terminal_error(error: io::Error) -> CliError {
    let error = anyhow::Error::new(error).context("the terminal cannot be used");
    CliError::new(Exit::Output, error)
}
