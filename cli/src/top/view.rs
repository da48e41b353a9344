//! The screen: two lines about the whole queue, then tables of classes, workers, models, running
//! jobs and recent outcomes.
//!
//! It fits 80 columns by 24 rows, and uses more space if there is some. Colours only repeat what
//! the words say.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Row, Table};
use sandhog_core::units::Millis;
use sandhog_queue::{ClassDepth, Event, RunningJob, WorkerRecord};

use super::sample::{Rates, Sample, is_good};
use super::state::State;
use crate::output::sanitize;
use crate::quantity::format_duration;

/// Fewest rows of the tables of classes, workers, models and outcomes on a small screen, including
/// the table's head.
const TABLE_ROWS_MIN: u16 = 4;

/// Narrowest screens, in columns, with room for a job's tenant and for its class.
const TENANT_WIDTH_MIN: u16 = 80;
const CLASS_WIDTH_MIN: u16 = 75;

/// Draws the screen. Leaves out the line about keys if `has_keys` is false.
pub(crate) fn draw_view(frame: &mut Frame<'_>, sample: &Sample, state: &State, has_keys: bool) {
    let area = frame.area();
    let want = Heights::wanted(sample);
    let foot_height = u16::from(has_keys);
    let heights = want.within(area.height.saturating_sub(2 + foot_height));
    let [head, flow, classes, workers, models, running, recent, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(heights.classes),
        Constraint::Length(heights.workers),
        Constraint::Length(heights.models),
        Constraint::Fill(1),
        Constraint::Length(heights.recent),
        Constraint::Length(foot_height),
    ])
    .areas(area);
    frame.render_widget(title(sample), head);
    frame.render_widget(totals(sample.rate()), flow);
    draw_classes(frame, classes, sample);
    draw_workers(frame, workers, &sample.workers);
    draw_models(frame, models, &sample.workers);
    draw_running(frame, running, sample, state);
    draw_recent(frame, recent, sample, state);
    if has_keys {
        frame.render_widget(footer(state), foot);
    }
}

/// Returns the number of rows that show everything.
pub(crate) fn rows(sample: &Sample) -> u16 {
    let Heights {
        classes,
        workers,
        models,
        running,
        recent,
    } = Heights::wanted(sample);
    3 + classes + workers + models + running + recent
}

/// The number of rows of each table, including its head.
#[derive(Debug, Clone, Copy)]
struct Heights {
    classes: u16,
    workers: u16,
    /// Zero if no worker has a model.
    models: u16,
    running: u16,
    recent: u16,
}

impl Heights {
    fn wanted(sample: &Sample) -> Self {
        let table = |rows: usize| u16::try_from(rows.max(1) + 1).unwrap_or(u16::MAX).min(60);
        Self {
            classes: table(sample.busy_classes().len()),
            workers: table(sample.workers.len()),
            models: match sample
                .workers
                .iter()
                .map(|worker| worker.facts.models.len())
                .sum()
            {
                0 => 0,
                some => table(some),
            },
            running: table(sample.running.len()),
            recent: table(sample.outcomes().take(10).count()),
        }
    }

    /// Distributes `rows` rows to the tables. Each table gets the rows that it needs, as long as
    /// the running jobs keep a third.
    fn within(self, rows: u16) -> Self {
        let mut left = rows.saturating_sub((rows / 3).min(self.running));
        let mut share = |want: u16, parts: u16| {
            let fair = left.checked_div(parts).unwrap_or(0).max(TABLE_ROWS_MIN);
            let given = want.min(fair).min(left);
            left -= given;
            given
        };
        let recent = share(self.recent, 3 + u16::from(self.models > 0));
        let models = share(self.models, 3);
        let workers = share(self.workers, 2);
        let classes = share(self.classes, 1);
        Self {
            classes,
            workers,
            models,
            recent,
            ..self
        }
    }
}

fn title(sample: &Sample) -> Line<'static> {
    let snapshot = &sample.snapshot;
    let paused = if snapshot.paused { "  paused" } else { "" };
    let (busy, slots) = sample.workers.iter().fold((0, 0), |(busy, slots), worker| {
        (busy + worker.facts.busy, slots + worker.facts.slots)
    });
    Line::from(vec![
        Span::styled("sandhog top", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!(
            "  queue {}{paused}  slots {busy}/{slots}  intake {}  delayed {}  dead {}",
            sample.namespace, snapshot.intake, snapshot.delayed, snapshot.dead
        )),
    ])
}

fn totals(rates: Rates) -> Line<'static> {
    Line::from(format!(
        "per second: {} in, {} ended ({} unsuccessful), {} retried or lost",
        rate(rates.admitted),
        rate(rates.ended),
        rate(rates.unsuccessful),
        rate(rates.again),
    ))
}

fn rate(number: f64) -> String {
    if number >= 100.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.1}")
    }
}

fn head<const N: usize>(cells: [&'static str; N]) -> Row<'static> {
    Row::new(cells).style(Style::new().add_modifier(Modifier::REVERSED))
}

fn draw_classes(frame: &mut Frame<'_>, area: Rect, sample: &Sample) {
    let rates = sample.rates();
    // Classes that no worker serves come first, then those with the most jobs, so that the classes
    // that do not fit are the least important.
    let unserved = |depth: &ClassDepth| sample.unroutable.iter().any(|u| u.class == depth.class);
    let mut classes = sample.busy_classes();
    classes.sort_by_key(|depth| (!unserved(depth), u64::MAX - depth.ready - depth.running));
    let no_worker = if area.width < TENANT_WIDTH_MIN {
        "no worker"
    } else {
        "no worker serves it"
    };
    let notice = |depth: &ClassDepth| {
        if unserved(depth) {
            no_worker.to_owned()
        } else if depth.held_back > 0 {
            format!("{} held back", depth.held_back)
        } else {
            String::new()
        }
    };
    let longest = classes.iter().map(|depth| notice(depth).len()).max();
    let notice_width = u16::try_from(longest.unwrap_or(0)).unwrap_or(0);
    let rows = classes.into_iter().map(|depth| {
        let rates = rates.get(&depth.class).copied().unwrap_or_default();
        let row = Row::new([
            depth.class.to_string(),
            depth.ready.to_string(),
            depth.running.to_string(),
            depth.oldest.map_or_else(|| "-".to_owned(), format_duration),
            rate(rates.admitted),
            rate(rates.ended),
            notice(depth),
        ]);
        if unserved(depth) {
            row.style(Style::new().fg(Color::Yellow))
        } else {
            row
        }
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(notice_width),
    ];
    let head = head(["CLASS", "READY", "RUNNING", "OLDEST", "IN/S", "OUT/S", ""]);
    frame.render_widget(Table::new(rows, widths).header(head), area);
}

fn draw_workers(frame: &mut Frame<'_>, area: Rect, workers: &[WorkerRecord]) {
    let mut rows: Vec<Row<'static>> = workers
        .iter()
        .map(|WorkerRecord { facts, .. }| {
            let tags: Vec<&str> = facts.tags.iter().map(|tag| tag.as_str()).collect();
            Row::new([
                facts.id.to_string(),
                format!("{}/{}", facts.busy, facts.slots),
                facts.pool.map_or_else(
                    || "-".to_owned(),
                    |pool| format!("{}+{}/{}", pool.busy, pool.idle, pool.containers_max),
                ),
                sanitize(&tags.join(",")),
                if facts.draining {
                    "draining"
                } else {
                    "serving"
                }
                .to_owned(),
            ])
        })
        .collect();
    if rows.is_empty() {
        rows.push(Row::new(["no workers"]).style(Style::new().fg(Color::Yellow)));
    }
    let widths = [
        Constraint::Fill(3),
        Constraint::Length(7),
        Constraint::Length(10),
        Constraint::Fill(2),
        Constraint::Length(9),
    ];
    let head = head(["WORKER", "SLOTS", "SANDBOXES", "TAGS", "STATE"]);
    frame.render_widget(Table::new(rows, widths).header(head), area);
}

fn draw_models(frame: &mut Frame<'_>, area: Rect, workers: &[WorkerRecord]) {
    let rows = workers.iter().flat_map(|WorkerRecord { facts, .. }| {
        facts.models.iter().map(|model| {
            Row::new([
                model.image.to_string(),
                model.state.as_str().to_owned(),
                format!("{}+{}", model.running, model.waiting),
                model.calls.to_string(),
                format!("{} MiB", model.memory.0 >> 20),
                format!("{}/{}", model.loads, model.deaths),
                facts.id.to_string(),
            ])
        })
    });
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(12),
        Constraint::Fill(2),
    ];
    let head = head([
        "MODEL",
        "STATE",
        "RUN+WAIT",
        "CALLS",
        "MEMORY",
        "LOADS/DEATHS",
        "WORKER",
    ]);
    frame.render_widget(Table::new(rows, widths).header(head), area);
}

fn draw_running(frame: &mut Frame<'_>, area: Rect, sample: &Sample, state: &State) {
    let picked = state.pick(&sample.running);
    let shown = usize::from(area.height.saturating_sub(1));
    let first = state.scrolled.min(picked.len().saturating_sub(shown));
    let rows = picked.iter().skip(first).map(|job| {
        let RunningJob {
            id,
            class,
            tenant,
            worker,
            attempts,
            age,
        } = job;
        Row::new(fitting(
            area.width,
            [
                id.to_string(),
                class.to_string(),
                tenant.to_string(),
                format_duration(*age),
                attempts.to_string(),
                worker.to_string(),
            ],
        ))
    });
    let titles = ["RUNNING JOB", "CLASS", "TENANT", "AGE", "TRY", "WORKER"];
    draw_jobs(frame, area, rows, titles);
}

fn draw_recent(frame: &mut Frame<'_>, area: Rect, sample: &Sample, state: &State) {
    let rows = sample
        .outcomes()
        .filter(|event| state.shows(event))
        .take(usize::from(area.height))
        .map(|event| {
            let age = Millis(sample.at.0.saturating_sub(event.at.0));
            let row = Row::new(fitting(
                area.width,
                [
                    sanitize(&event.id),
                    event.class.to_string(),
                    sanitize(&event.tenant),
                    format_duration(age),
                    mark(event),
                    outcome(event),
                ],
            ));
            if is_good(event) {
                row
            } else {
                row.style(Style::new().fg(Color::Red))
            }
        });
    let titles = ["ENDED", "CLASS", "TENANT", "AGO", "", "OUTCOME"];
    draw_jobs(frame, area, rows, titles);
}

fn outcome(event: &Event) -> String {
    sanitize(event.fact("outcome").unwrap_or(&event.name))
}

/// Returns the mark of a job that became a dead letter.
fn mark(event: &Event) -> String {
    let is_dead = event.name == "dead";
    if is_dead { "dead" } else { "" }.to_owned()
}

/// Draws the table of running jobs, or of ended ones. Both use the same columns, because they are
/// below each other. An id that the client generates has 32 characters.
fn draw_jobs<'a>(
    frame: &mut Frame<'_>,
    area: Rect,
    rows: impl IntoIterator<Item = Row<'a>>,
    titles: [&'static str; 6],
) {
    let widths = [
        Constraint::Min(32),
        Constraint::Length(9),
        Constraint::Length(10),
        Constraint::Length(6),
        Constraint::Length(4),
        Constraint::Fill(1),
    ];
    let head =
        Row::new(fitting(area.width, titles)).style(Style::new().add_modifier(Modifier::REVERSED));
    let widths = fitting(area.width, widths);
    frame.render_widget(Table::new(rows, widths).header(head), area);
}

/// Returns the columns of a job that fit on a screen of this width. The tenant is left out first,
/// then the class.
fn fitting<T>(width: u16, columns: [T; 6]) -> Vec<T> {
    let [id, class, tenant, age, attempt, end] = columns;
    let class = (width >= CLASS_WIDTH_MIN).then_some(class);
    let tenant = (width >= TENANT_WIDTH_MIN).then_some(tenant);
    let before = [Some(id), class, tenant].into_iter().flatten();
    before.chain([age, attempt, end]).collect()
}

fn footer(state: &State) -> Line<'static> {
    if let Some(refresh_error) = &state.refresh_error {
        let text = format!("refresh failed: {}", sanitize(refresh_error));
        return Line::styled(text, Style::new().fg(Color::Red));
    }
    if state.typing {
        return Line::from(format!("show only rows that contain: {}_", state.filter));
    }
    let order = if state.reversed { ", reversed" } else { "" };
    let mut text = format!(
        "q quit  s sort ({}{order})  r reverse  / filter  p freeze",
        state.sort.name()
    );
    if !state.filter.is_empty() {
        text.push_str(&format!("  [{}; Esc shows all]", sanitize(&state.filter)));
    }
    if state.paused {
        text.push_str("  [frozen]");
    }
    Line::from(text)
}

/// Returns the tables as text, for output that is not a terminal: without the line about keys, and
/// without empty lines.
pub(crate) fn render_view(sample: &Sample, width: u16) -> String {
    let drawn = text(sample, &State::default(), (width, rows(sample)), false);
    let lines = drawn.lines().filter(|line| !line.is_empty());
    lines.map(|line| format!("{line}\n")).collect()
}

/// Returns one screen as text.
fn text(sample: &Sample, state: &State, (width, height): (u16, u16), has_keys: bool) -> String {
    let backend = ratatui::backend::TestBackend::new(width, height);
    let Ok(mut terminal) = ratatui::Terminal::new(backend);
    let Ok(_drawn) = terminal.draw(|frame| draw_view(frame, sample, state, has_keys));
    let buffer = terminal.backend().buffer();
    let columns = usize::from(width);
    buffer
        .content()
        .chunks(columns)
        .map(|row| {
            let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
            format!("{}\n", line.trim_end())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::busy;
    use super::*;

    #[test]
    fn a_small_terminal_shows_some_of_everything() {
        insta::assert_snapshot!(text(&busy(), &State::default(), (80, 24), true));
    }

    #[test]
    fn a_wide_one_shows_all_of_it() {
        let state = State {
            filter: "box-1".to_owned(),
            reversed: true,
            paused: true,
            ..State::default()
        };
        insta::assert_snapshot!(text(&busy(), &state, (120, rows(&busy())), true));
    }

    #[test]
    fn an_empty_queue_and_one_without_news() {
        let mut sample = busy();
        sample.snapshot = Default::default();
        sample.workers.clear();
        sample.running.clear();
        sample.events.clear();
        let state = State {
            refresh_error: Some("redis does not answer\u{1b}[2J".to_owned()),
            ..State::default()
        };
        insta::assert_snapshot!(text(&sample, &state, (80, 24), true));
    }

    #[test]
    fn a_narrow_one_keeps_outcomes_and_workers_readable() {
        insta::assert_snapshot!(render_view(&busy(), 70));
    }

    #[test]
    fn classes_in_which_nothing_happens_are_left_out() {
        let mut sample = busy();
        let mut idle = sample.snapshot.classes[2].clone();
        idle.class = "nosuch".parse().unwrap();
        idle.running = 0;
        sample.snapshot.classes.push(idle);
        assert!(!render_view(&sample, 80).contains("nosuch"));
    }

    #[test]
    fn no_size_is_too_small() {
        for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
            let drawn = text(&busy(), &State::default(), (width, height), true);
            assert_eq!(drawn.lines().count(), usize::from(height));
        }
    }
}
