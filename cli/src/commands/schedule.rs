//! `sandhog schedule`: manages schedules, which submit jobs at the times of a cron expression.
//!
//! These commands read and write the queue directly, so they need a worker's permissions in Redis;
//! a submitter's permissions are not sufficient.

use sandhog_core::cron::{CronError, CronSchedule};
use sandhog_core::id::ScheduleName;
use sandhog_core::job::Job;
use sandhog_core::schedule::Schedule;
use sandhog_core::units::{Millis, UnixMillis};
use sandhog_core::wire::{self, Encoding};
use sandhog_queue::{ChangeReply, PutReply, Queue, ScheduleRecord, ScheduleState};
use serde_json::{Map, Value, json};

use crate::args::{ScheduleAddArgs, ScheduleCommand};
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Table, sanitize};
use crate::{job_request, quantity};

/// Runs a subcommand of `sandhog schedule`.
pub(crate) async fn schedule(
    app: &AppContext,
    command: &ScheduleCommand,
) -> Result<Exit, CliError> {
    match command {
        ScheduleCommand::Add(args) => add(app, args).await,
        ScheduleCommand::List => list(app, &connect(app).await?).await,
        ScheduleCommand::Show(args) => show(app, &connect(app).await?, &args.name).await,
        ScheduleCommand::RunNow(args) => run_now(app, &connect(app).await?, &args.name).await,
        ScheduleCommand::Remove(args) => {
            let queue = connect(app).await?;
            for name in &args.names {
                let reply = queue.remove_schedule(name).await?;
                print_done(app, name, "removed", reply)?;
            }
            Ok(Exit::Success)
        }
        ScheduleCommand::Pause(args) => {
            let queue = connect(app).await?;
            for name in &args.names {
                let reply = queue.pause_schedule(name).await?;
                print_done(app, name, "paused", reply)?;
            }
            Ok(Exit::Success)
        }
        ScheduleCommand::Resume(args) => {
            let queue = connect(app).await?;
            for name in &args.names {
                let reply = resume(&queue, name).await?;
                print_done(app, name, "resumed", reply)?;
            }
            Ok(Exit::Success)
        }
    }
}

async fn connect(app: &AppContext) -> Result<Queue, CliError> {
    let settings = app.queue_settings()?;
    Ok(Queue::connect(&settings.redis, &settings.namespace).await?)
}

/// Adds a schedule. Checks the arguments before it connects to Redis.
async fn add(app: &AppContext, args: &ScheduleAddArgs) -> Result<Exit, CliError> {
    let cron = CronSchedule::parse(&args.cron, &args.zone)?;
    let routing = job_request::program_routing(&args.options)?;
    let (job, routing) = match &args.job {
        Some(path) => job_request::read_single_job(path, &routing)?,
        None => (job_request::program_job(app, &args.options)?, routing),
    };
    let schedule = Schedule::new(
        args.name.clone(),
        cron,
        args.missed,
        args.overlap,
        routing,
        wire::encode(&job, Encoding::Json),
    )
    .map_err(|error| CliError::new(Exit::Usage, error))?;
    let queue = connect(app).await?;
    let next = next_after(schedule.cron(), queue.now().await?)?;
    let name = schedule.name();
    match queue.put_schedule(&schedule, next, args.replace).await? {
        PutReply::Added | PutReply::Replaced => {}
        PutReply::Exists => {
            return Err(CliError::message(
                Exit::Usage,
                format!("a schedule {name} already exists"),
            )
            .hint("--replace replaces it"));
        }
        PutReply::TooMany => {
            return Err(CliError::message(
                Exit::Rejected,
                "the namespace already has 10000 schedules, which is the limit",
            )
            .hint("`sandhog schedule remove` removes schedules that are no longer needed"));
        }
    }
    if app.output.is_json() {
        app.output.json(
            &json!({"name": name, "next_ms": next, "next": schedule.cron().format_local(next)}),
        )?;
    } else {
        app.output.line(&format!(
            "{name} is due next at {}",
            schedule.cron().format_local(next)
        ))?;
    }
    Ok(Exit::Success)
}

async fn list(app: &AppContext, queue: &Queue) -> Result<Exit, CliError> {
    let records = queue.schedules().await?;
    if app.output.is_json() {
        for record in &records {
            app.output.json(&object(record))?;
        }
        return Ok(Exit::Success);
    }
    if records.is_empty() {
        app.output.note("no schedules");
        return Ok(Exit::Success);
    }
    let now = queue.now().await?;
    let mut table = Table::new(["NAME", "CRON", "ZONE", "STATE", "NEXT", "FIRED", "LAST JOB"]);
    for record in &records {
        let next = record.next.map(|next| until(now, next));
        let last = record.last_id.as_ref();
        table.row([
            record.name.to_string(),
            sanitize(&record.cron),
            sanitize(&record.zone),
            record.state.as_str().to_owned(),
            next.unwrap_or_else(|| "-".to_owned()),
            record.fired.to_string(),
            last.map_or_else(|| "-".to_owned(), ToString::to_string),
        ]);
    }
    app.output.table(&table)?;
    Ok(Exit::Success)
}

async fn show(app: &AppContext, queue: &Queue, name: &ScheduleName) -> Result<Exit, CliError> {
    let record = queue.schedule(name).await?.ok_or_else(|| unknown(name))?;
    let payload = queue.schedule_payload(name).await?;
    let job = payload
        .as_deref()
        .and_then(|bytes| wire::decode::<Job>(bytes, wire::MAX_PAYLOAD).ok())
        .map(|(job, _encoding)| job);
    let mut shown = object(&record);
    shown["job"] = json!(job);
    if app.output.is_json() {
        app.output.json(&shown)?;
        return Ok(Exit::Success);
    }
    app.output.fields_at(queue.now().await?, &shown, 13)?;
    Ok(Exit::Success)
}

async fn run_now(app: &AppContext, queue: &Queue, name: &ScheduleName) -> Result<Exit, CliError> {
    let id = queue
        .run_schedule(name)
        .await?
        .ok_or_else(|| unknown(name))?;
    if app.output.is_json() {
        app.output.json(&json!({"id": id}))?;
    } else {
        app.output.line(id.as_str())?;
    }
    Ok(Exit::Success)
}

/// Computes the next time of a schedule and resumes it. Repeats both if the schedule was replaced
/// in the meantime.
async fn resume(queue: &Queue, name: &ScheduleName) -> Result<ChangeReply, CliError> {
    loop {
        let Some(record) = queue.schedule(name).await? else {
            return Ok(ChangeReply::Unknown);
        };
        let cron = CronSchedule::parse(&record.cron, &record.zone)?;
        let next = next_after(&cron, queue.now().await?)?;
        match queue.resume_schedule(&record, next).await? {
            ChangeReply::Stale => {}
            settled @ (ChangeReply::Done | ChangeReply::Unknown) => return Ok(settled),
        }
    }
}

fn next_after(cron: &CronSchedule, now: UnixMillis) -> Result<UnixMillis, CliError> {
    cron.next_after(now).ok_or_else(|| {
        CliError::from(CronError::Never {
            expression: cron.expression().to_owned(),
        })
    })
}

fn print_done(
    app: &AppContext,
    name: &ScheduleName,
    operation: &str,
    reply: ChangeReply,
) -> Result<(), CliError> {
    match reply {
        ChangeReply::Done if app.output.is_json() => {
            app.output.json(&json!({"name": name, operation: true}))
        }
        ChangeReply::Done => app.output.line(&format!("{operation} {name}")),
        ChangeReply::Stale | ChangeReply::Unknown => Err(unknown(name)),
    }
}

fn unknown(name: &ScheduleName) -> CliError {
    CliError::message(Exit::Missing, format!("there is no schedule {name}"))
        .hint("`sandhog schedule list` lists the schedules")
}

fn object(record: &ScheduleRecord) -> Value {
    let routing: Map<String, Value> = record
        .routing
        .iter()
        .map(|(field, value)| (field.clone(), Value::from(value.as_str())))
        .collect();
    json!({
        "name": record.name,
        "state": record.state.as_str(),
        "cron": record.cron,
        "zone": record.zone,
        "missed": record.missed,
        "overlap": record.overlap,
        "next_ms": record.next,
        "next": record.next.and_then(|next| shown(record, next)),
        "last_ms": record.last,
        "last_id": record.last_id,
        "fired": record.fired,
        "left_out": record.left_out,
        "created_at_ms": record.created_at,
        "routing": routing,
    })
}

/// Formats a time in the schedule's zone. Returns `None` if the schedule is not active, or if this
/// version cannot parse it because another version wrote it.
fn shown(record: &ScheduleRecord, moment: UnixMillis) -> Option<String> {
    if record.state != ScheduleState::Active {
        return None;
    }
    let cron = CronSchedule::parse(&record.cron, &record.zone).ok()?;
    Some(cron.format_local(moment))
}

fn until(now: UnixMillis, next: UnixMillis) -> String {
    match next.0.checked_sub(now.0) {
        Some(left) => format!("in {}", quantity::format_duration(Millis(left))),
        None => "now".to_owned(),
    }
}

impl From<CronError> for CliError {
    fn from(error: CronError) -> Self {
        let hint = error.hint();
        Self::new(Exit::Usage, error).hint(hint)
    }
}
