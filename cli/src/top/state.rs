//! The user's choices for the view, and the keys that change them.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use sandhog_queue::{Event, RunningJob};

/// Longest filter that the user can type, in bytes.
const FILTER_LENGTH_MAX: usize = 64;

/// The order of the running jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sort {
    /// Longest first.
    #[default]
    Age,
    /// By tenant.
    Tenant,
    /// By class.
    Class,
    /// By worker.
    Worker,
}

impl Sort {
    /// Returns its name on the screen.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Tenant => "tenant",
            Self::Class => "class",
            Self::Worker => "worker",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Age => Self::Tenant,
            Self::Tenant => Self::Class,
            Self::Class => Self::Worker,
            Self::Worker => Self::Age,
        }
    }
}

/// An action that a key requests beyond a change of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyAction {
    /// Nothing.
    None,
    /// Ends the command.
    Quit,
}

/// The user's choices for the view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// The order of the running jobs.
    pub(crate) sort: Sort,
    /// True if the order is reversed.
    pub(crate) reversed: bool,
    /// Only rows that contain this text are listed.
    pub(crate) filter: String,
    /// True while the user types the filter.
    pub(crate) typing: bool,
    /// True while the screen is frozen.
    pub(crate) paused: bool,
    /// Number of running jobs that are scrolled past.
    pub(crate) scrolled: usize,
    /// Error of the last refresh, if it failed.
    pub(crate) refresh_error: Option<String>,
}

impl State {
    /// Handles a key.
    pub(crate) fn press(&mut self, key: KeyEvent) -> KeyAction {
        if key.kind == KeyEventKind::Release {
            return KeyAction::None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'd') => KeyAction::Quit,
                _other => KeyAction::None,
            };
        }
        if self.typing {
            self.write(key.code);
            return KeyAction::None;
        }
        match key.code {
            KeyCode::Char('q') => return KeyAction::Quit,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Down | KeyCode::Char('j') => self.scrolled = self.scrolled.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::PageDown => self.scrolled = self.scrolled.saturating_add(10),
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(10),
            KeyCode::Home => self.scrolled = 0,
            _other => {}
        }
        KeyAction::None
    }

    fn write(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) if self.filter.len() < FILTER_LENGTH_MAX => {
                self.filter.push(letter)
            }
            _other => {}
        }
        self.scrolled = 0;
    }

    /// Returns the running jobs to list, in the chosen order.
    pub(crate) fn pick<'a>(&self, jobs: &'a [RunningJob]) -> Vec<&'a RunningJob> {
        let mut picked: Vec<&RunningJob> = jobs
            .iter()
            .filter(|job| {
                self.fits(&[
                    job.id.as_str(),
                    job.tenant.as_str(),
                    job.class.as_str(),
                    job.worker.as_str(),
                ])
            })
            .collect();
        // The jobs are sorted by age, longest first; a stable sort keeps this order among equals.
        match self.sort {
            Sort::Age => {}
            Sort::Tenant => picked.sort_by(|a, b| a.tenant.cmp(&b.tenant)),
            Sort::Class => picked.sort_by(|a, b| a.class.cmp(&b.class)),
            Sort::Worker => picked.sort_by(|a, b| a.worker.cmp(&b.worker)),
        }
        if self.reversed {
            picked.reverse();
        }
        picked
    }

    /// Returns whether an event is listed.
    pub(crate) fn shows(&self, event: &Event) -> bool {
        self.fits(&[
            &event.id,
            &event.tenant,
            event.class.as_str(),
            event.fact("worker").unwrap_or_default(),
            event.fact("outcome").unwrap_or(&event.name),
        ])
    }

    fn fits(&self, texts: &[&str]) -> bool {
        self.filter.is_empty() || texts.iter().any(|text| text.contains(&self.filter))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::busy;
    use super::*;

    fn press(state: &mut State, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                letter => KeyCode::Char(letter),
            };
            assert_eq!(state.press(code.into()), KeyAction::None);
        }
    }

    fn ids(state: &State) -> Vec<String> {
        let sample = busy();
        let picked = state.pick(&sample.running);
        picked.iter().map(|job| job.id.to_string()).collect()
    }

    #[test]
    fn keys_sort_turn_round_and_filter() {
        let mut state = State::default();
        let (long, gpu, short) = ("cron:nightly:1795425600000", "1795425649921-0", "short");
        assert_eq!(ids(&state), [long, gpu, short]);
        press(&mut state, "r");
        assert_eq!(ids(&state), [short, gpu, long]);
        press(&mut state, "rs");
        assert_eq!(
            (state.sort, ids(&state)),
            (Sort::Tenant, vec![long.into(), short.into(), gpu.into()])
        );
        press(&mut state, "s");
        assert_eq!(
            (state.sort, ids(&state)),
            (Sort::Class, vec![long.into(), short.into(), gpu.into()])
        );
        press(&mut state, "ss/gpq\u{8}u\n");
        assert_eq!((state.sort, state.filter.as_str()), (Sort::Age, "gpu"));
        assert_eq!(ids(&state), [gpu]);
        let sample = busy();
        let shown: Vec<&str> = sample
            .outcomes()
            .filter(|event| state.shows(event))
            .map(|event| event.id.as_str())
            .collect();
        assert_eq!(shown, ["done-2"]);
        press(&mut state, "\u{1b}");
        assert_eq!(ids(&state).len(), 3, "escape removes the filter");
        press(&mut state, "p");
        assert!(state.paused);
    }

    #[test]
    fn typed_letters_are_no_commands() {
        let mut state = State::default();
        press(&mut state, "/qsr");
        assert_eq!((state.filter.as_str(), state.sort), ("qsr", Sort::Age));
        press(&mut state, "\u{1b}");
        assert_eq!(state, State::default());
        for key in ["q", "c"] {
            let mut event = KeyEvent::from(KeyCode::Char(key.chars().next().unwrap()));
            if key == "c" {
                event.modifiers = KeyModifiers::CONTROL;
            }
            assert_eq!(state.press(event), KeyAction::Quit);
        }
    }
}
