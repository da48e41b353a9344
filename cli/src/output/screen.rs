//! The whole terminal as one picture, for as long as somebody watches.

use std::io::{self, IsTerminal as _};

use ratatui::DefaultTerminal;

use crate::exit::Exit;
use crate::fault::Fault;

/// The terminal, taken over: its own page, no echo, no cursor. Dropping it gives everything back, also in a panic.
#[derive(Debug)]
pub(crate) struct Screen(DefaultTerminal);

impl Screen {
    /// Whether there is somebody to watch, and somebody to press keys.
    #[must_use]
    pub(crate) fn is_there() -> bool {
        io::stdout().is_terminal() && io::stdin().is_terminal()
    }

    /// Takes the terminal over.
    ///
    /// # Errors
    /// When it will not have that.
    pub(crate) fn enter() -> Result<Self, Fault> {
        ratatui::try_init().map(Self).map_err(unusable)
    }

    /// Draws another picture.
    ///
    /// # Errors
    /// When the terminal has gone.
    pub(crate) fn draw(
        &mut self,
        picture: impl FnOnce(&mut ratatui::Frame<'_>),
    ) -> Result<(), Fault> {
        self.0.draw(picture).map(drop).map_err(unusable)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to see it when the terminal has gone.
        let _unseen = ratatui::try_restore();
    }
}

fn unusable(error: io::Error) -> Fault {
    let error = anyhow::Error::new(error).context("the terminal cannot be used");
    Fault::new(Exit::Output, error)
}
