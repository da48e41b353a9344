//! `sandhog dead`: shows, requeues and deletes dead letters.
//!
//! These commands read and write the queue directly, so they need a worker's permissions in Redis;
//! a submitter's permissions are not sufficient.

use sandhog_core::id::JobId;
use sandhog_core::job::Job;
use sandhog_core::units::Millis;
use sandhog_core::wire;
use sandhog_queue::{DeadFilter, DeadLetter, DropReply, Queue, RequeueReply, SweepReport};
use serde_json::{Value, json};

use crate::args::{DeadCommand, DeadFilterArgs, DeadListArgs, DeadPickArgs};
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Table, sanitize};
use crate::quantity::format_duration;

/// Runs a subcommand of `sandhog dead`.
pub(crate) async fn dead(app: &AppContext, command: &DeadCommand) -> Result<Exit, CliError> {
    let settings = app.queue_settings()?;
    let queue = Queue::connect(&settings.redis, &settings.namespace).await?;
    match command {
        DeadCommand::List(args) => list(app, &queue, args).await,
        DeadCommand::Show(args) => show(app, &queue, &args.id).await,
        DeadCommand::Requeue(args) => requeue(app, &queue, args).await,
        DeadCommand::Drop(args) => drop_letters(app, &queue, args).await,
    }
}

async fn list(app: &AppContext, queue: &Queue, args: &DeadListArgs) -> Result<Exit, CliError> {
    let most = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let page = queue
        .dead_letters(&filter(&args.filter), args.before.as_ref(), most)
        .await?;
    if app.output.is_json() {
        for letter in &page.letters {
            app.output.json(&object(letter))?;
        }
        return Ok(Exit::Success);
    }
    if page.letters.is_empty() {
        app.output.note("no dead letters");
        return Ok(Exit::Success);
    }
    let now = queue.now().await?;
    let mut table = Table::new(["ID", "AGE", "REASON", "CLASS", "TENANT", "ERROR"]);
    for letter in &page.letters {
        let died_at = letter.letter.written_at();
        table.row([
            letter.id.to_string(),
            format_duration(Millis(now.0.saturating_sub(died_at.0))),
            sanitize(&letter.reason),
            letter.class.to_string(),
            letter.tenant.to_string(),
            sanitize(&letter.error),
        ]);
    }
    app.output.table(&table)?;
    if let Some(next) = page.next {
        app.output.note(&format!(
            "more dead letters: --before {next} shows the next page"
        ));
    }
    Ok(Exit::Success)
}

async fn show(app: &AppContext, queue: &Queue, id: &JobId) -> Result<Exit, CliError> {
    let letter = queue.dead_letter(id).await?.ok_or_else(|| none(id))?;
    let record = queue.job(id).await?;
    let payload = queue.payload(id).await?;
    let job = payload
        .as_deref()
        .and_then(|bytes| wire::decode::<Job>(bytes, wire::MAX_PAYLOAD).ok())
        .map(|(job, _encoding)| job);
    let mut shown = object(&letter);
    shown["attempts"] = json!(record.as_ref().map(|record| record.attempts));
    shown["lost"] = json!(record.as_ref().map(|record| record.lost));
    shown["worker"] = json!(record.as_ref().and_then(|record| record.worker.clone()));
    shown["submitted_at_ms"] = json!(record.as_ref().map(|record| record.submitted_at));
    shown["job"] = json!(job);
    if app.output.is_json() {
        app.output.json(&shown)?;
        return Ok(Exit::Success);
    }
    app.output.fields_at(queue.now().await?, &shown, 17)?;
    Ok(Exit::Success)
}

async fn requeue(app: &AppContext, queue: &Queue, args: &DeadPickArgs) -> Result<Exit, CliError> {
    if args.ids.is_empty() {
        let swept = queue.requeue_all(&filter(&args.filter)).await?;
        return print_done(app, "requeued", swept);
    }
    let mut exit = Exit::Success;
    for id in &args.ids {
        let why_not = match queue.requeue(id).await? {
            RequeueReply::Requeued => None,
            RequeueReply::NotDead => Some("is not a dead letter"),
            RequeueReply::NoPayload => {
                Some("has no payload to run again: it was rejected at admission, or deleted")
            }
            RequeueReply::KeyHeld => Some("has a unique key that another job now holds"),
            RequeueReply::Unknown => Some("is not known: its retention may have passed"),
        };
        exit = print_one(app, id, "requeued", why_not)?.unwrap_or(exit);
    }
    Ok(exit)
}

async fn drop_letters(
    app: &AppContext,
    queue: &Queue,
    args: &DeadPickArgs,
) -> Result<Exit, CliError> {
    if args.ids.is_empty() {
        let swept = queue.drop_all_dead(&filter(&args.filter)).await?;
        return print_done(app, "dropped", swept);
    }
    let mut exit = Exit::Success;
    for id in &args.ids {
        let why_not = match queue.drop_dead(id).await? {
            DropReply::Dropped => None,
            DropReply::Unknown => Some("is not a dead letter"),
        };
        exit = print_one(app, id, "dropped", why_not)?.unwrap_or(exit);
    }
    Ok(exit)
}

/// Prints whether the operation was done for one job. Returns the exit code if it was not.
fn print_one(
    app: &AppContext,
    id: &JobId,
    operation: &str,
    why_not: Option<&str>,
) -> Result<Option<Exit>, CliError> {
    if app.output.is_json() {
        app.output
            .json(&json!({"id": id, operation: why_not.is_none(), "why_not": why_not}))?;
    } else {
        match why_not {
            None => app.output.line(&format!("{operation} {id}"))?,
            Some(why_not) => app.output.note(&format!("job {id} {why_not}")),
        }
    }
    Ok(why_not.map(|_| Exit::Missing))
}

fn print_done(app: &AppContext, operation: &str, swept: SweepReport) -> Result<Exit, CliError> {
    let SweepReport { done, left } = swept;
    if app.output.is_json() {
        app.output.json(&json!({operation: done, "left": left}))?;
        return Ok(Exit::Success);
    }
    app.output.line(&format!("{operation} {done}"))?;
    if left > 0 {
        app.output.note(&format!(
            "left {left} unchanged: they have no payload to run again, or another job holds their \
             unique key"
        ));
    }
    Ok(Exit::Success)
}

fn none(id: &JobId) -> CliError {
    CliError::message(Exit::Missing, format!("job {id} is not a dead letter"))
        .hint("`sandhog dead list` lists the dead letters; `sandhog status ID` shows a job")
}

fn filter(args: &DeadFilterArgs) -> DeadFilter {
    DeadFilter {
        reason: args.reason.clone(),
        class: args.class.clone(),
        tenant: args.tenant.clone(),
    }
}

fn object(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "letter": letter.letter.as_str(),
        "reason": letter.reason,
        "error": letter.error,
        "class": letter.class,
        "tenant": letter.tenant,
        "died_at_ms": letter.letter.written_at(),
        "requeueable": letter.requeueable,
    })
}
