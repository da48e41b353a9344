//! `sandhog top`: shows a live view of the queue.

use std::time::Duration;

use crossterm::event::{Event, EventStream};
use futures_util::StreamExt as _;
use sandhog_config::Settings;
use sandhog_queue::Queue;
use tokio::time::{Instant, MissedTickBehavior};

use super::status::queue_object;
use crate::args::TopArgs;
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;
use crate::signals::SignalStream;
use crate::top::sample::Sample;
use crate::top::state::{KeyAction, State};
use crate::top::view;

/// Width in columns if neither a terminal nor `$COLUMNS` gives one.
const DEFAULT_WIDTH: u16 = 80;

/// Shows the queue until the user quits. Without a terminal, prints the tables once.
pub(crate) async fn top(app: &AppContext, args: &TopArgs) -> Result<Exit, CliError> {
    let settings = app.queue_settings()?;
    let queue = Queue::connect(&settings.redis, &settings.namespace).await?;
    let sample = Sample::take(&queue, &settings.namespace).await?;
    if app.output.is_json() {
        let whole = queue_object(
            settings.namespace.as_str(),
            &sample.snapshot,
            &sample.workers,
            &sample.unroutable,
        );
        app.output.json(&sample.object(whole))?;
        return Ok(Exit::Success);
    }
    if args.once || !Screen::is_there() {
        let width = app.environment.text("COLUMNS").and_then(|n| n.parse().ok());
        let width = width.unwrap_or(DEFAULT_WIDTH).clamp(20, 500);
        let picture = view::render_view(&sample, width);
        app.output
            .bytes(crate::output::OutputStream::Out, picture.as_bytes())?;
        return Ok(Exit::Success);
    }
    watch(&queue, &settings, sample, args.interval.duration()).await
}

async fn watch(
    queue: &Queue,
    settings: &Settings,
    mut sample: Sample,
    interval: Duration,
) -> Result<Exit, CliError> {
    let mut signals = SignalStream::listen()?;
    let mut screen = Screen::enter()?;
    let mut keys = EventStream::new();
    let mut state = State::default();
    let mut refreshes = tokio::time::interval_at(Instant::now() + interval, interval);
    refreshes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        screen.draw(|frame| view::draw_view(frame, &sample, &state, true))?;
        tokio::select! {
            _ = refreshes.tick(), if !state.paused => {
                match Sample::take(queue, &settings.namespace).await {
                    Ok(newer) => {
                        sample = newer;
                        state.refresh_error = None;
                    }
                    Err(error) if error.is_transient() => {
                        state.refresh_error = Some(error.to_string());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) => {
                    if state.press(key) == KeyAction::Quit {
                        return Ok(Exit::Success);
                    }
                }
                // Another event, such as a new size or pasted text: the loop draws the screen
                // again.
                Some(Ok(_other)) => {}
                Some(Err(error)) => return Err(CliError::new(Exit::Output, error)),
                None => return Ok(Exit::Success),
            },
            stop = signals.next() => return Ok(stop.exit()),
        }
    }
}
