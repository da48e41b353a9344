//! `sandhog tenant`: shows and changes the settings of tenants. `sandhog pause` and
//! `sandhog resume`: pause and resume the whole queue.
//!
//! These commands write the queue directly, so they need a worker's permissions in Redis; a
//! submitter's permissions are not sufficient.

use sandhog_core::id::Tenant;
use sandhog_core::tenant_limits::{Change, TenantChange};
use sandhog_queue::{Queue, TenantRecord};
use serde_json::{Value, json};

use crate::args::{TenantCommand, TenantSetArgs};
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Table;

/// Runs a subcommand of `sandhog tenant`.
pub(crate) async fn tenant(app: &AppContext, command: &TenantCommand) -> Result<Exit, CliError> {
    let queue = connect(app).await?;
    match command {
        TenantCommand::List => list(app, &queue).await,
        TenantCommand::Show(args) => show(app, &queue, &args.name).await,
        TenantCommand::Set(args) => {
            queue.set_tenant(&args.name, &change(args)).await?;
            print_done(app, &args.name, "set")?;
            Ok(Exit::Success)
        }
        TenantCommand::Pause(args) => {
            let change = TenantChange {
                paused: Change::Set(()),
                ..TenantChange::default()
            };
            set_each(app, &queue, &args.names, change, "paused").await
        }
        TenantCommand::Resume(args) => {
            let change = TenantChange {
                paused: Change::Remove,
                ..TenantChange::default()
            };
            set_each(app, &queue, &args.names, change, "resumed").await
        }
        TenantCommand::Remove(args) => {
            set_each(
                app,
                &queue,
                &args.names,
                TenantChange::REMOVE_ALL,
                "removed",
            )
            .await
        }
    }
}

/// Pauses the whole queue.
pub(crate) async fn pause(app: &AppContext) -> Result<Exit, CliError> {
    connect(app).await?.pause().await?;
    print_queue_done(app, "paused")
}

/// Resumes the whole queue.
pub(crate) async fn resume(app: &AppContext) -> Result<Exit, CliError> {
    connect(app).await?.resume().await?;
    print_queue_done(app, "resumed")
}

async fn connect(app: &AppContext) -> Result<Queue, CliError> {
    let settings = app.queue_settings()?;
    Ok(Queue::connect(&settings.redis, &settings.namespace).await?)
}

fn print_queue_done(app: &AppContext, operation: &str) -> Result<Exit, CliError> {
    let namespace = &app.loaded.settings.namespace;
    if app.output.is_json() {
        app.output
            .json(&json!({"namespace": namespace.as_str(), "done": operation}))?;
    } else {
        app.output.line(&format!("queue {namespace} {operation}"))?;
    }
    Ok(Exit::Success)
}

async fn list(app: &AppContext, queue: &Queue) -> Result<Exit, CliError> {
    let records = queue.tenants().await?;
    if app.output.is_json() {
        for record in &records {
            app.output.json(&object(record))?;
        }
        return Ok(Exit::Success);
    }
    if records.is_empty() {
        app.output.note("no tenant has settings of its own");
        return Ok(Exit::Success);
    }
    let mut table = Table::new([
        "TENANT", "WEIGHT", "RUNNING", "READY", "RATE/S", "BURST", "RETAINED", "STATE",
    ]);
    for record in &records {
        let settings = &record.settings;
        table.row([
            record.tenant.to_string(),
            or_dash(settings.weight),
            with_limit(record.running, settings.max_running),
            with_limit(record.ready, settings.max_queued),
            or_dash(settings.rate),
            or_dash(settings.burst),
            retained(record),
            if settings.paused { "paused" } else { "active" }.to_owned(),
        ]);
    }
    app.output.table(&table)?;
    Ok(Exit::Success)
}

async fn show(app: &AppContext, queue: &Queue, tenant: &Tenant) -> Result<Exit, CliError> {
    let record = object(&queue.tenant(tenant).await?);
    if app.output.is_json() {
        app.output.json(&record)?;
        return Ok(Exit::Success);
    }
    app.output.fields(&record, 14)?;
    Ok(Exit::Success)
}

fn change(args: &TenantSetArgs) -> TenantChange {
    TenantChange {
        weight: args.weight.unwrap_or_default(),
        max_running: args.max_running.unwrap_or_default(),
        rate: args.rate.unwrap_or_default(),
        burst: args.burst.unwrap_or_default(),
        max_queued: args.max_queued.unwrap_or_default(),
        max_retained: args.max_retained.unwrap_or_default(),
        paused: Change::Keep,
    }
}

async fn set_each(
    app: &AppContext,
    queue: &Queue,
    names: &[Tenant],
    change: TenantChange,
    operation: &str,
) -> Result<Exit, CliError> {
    for name in names {
        queue.set_tenant(name, &change).await?;
        print_done(app, name, operation)?;
    }
    Ok(Exit::Success)
}

fn print_done(app: &AppContext, tenant: &Tenant, operation: &str) -> Result<(), CliError> {
    if app.output.is_json() {
        app.output
            .json(&json!({"tenant": tenant, "done": operation}))
    } else {
        app.output.line(&format!("{tenant} {operation}"))
    }
}

fn or_dash<T: ToString>(setting: Option<T>) -> String {
    setting.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Formats a number and, if there is one, its limit.
fn with_limit<T: ToString>(now: u64, most: Option<T>) -> String {
    most.map_or_else(
        || now.to_string(),
        |most| format!("{now}/{}", most.to_string()),
    )
}

/// Formats the size of the large results that are kept and, if there is one, its limit.
fn retained(record: &TenantRecord) -> String {
    let now = format!("{} MiB", record.retained.0 >> 20);
    record
        .settings
        .max_retained
        .map_or_else(|| now.clone(), |most| format!("{now}/{most}"))
}

fn object(record: &TenantRecord) -> Value {
    let settings = &record.settings;
    json!({
        "tenant": record.tenant,
        "weight": settings.weight,
        "max_running": settings.max_running,
        "rate_per_s": settings.rate,
        "burst": settings.burst,
        "max_queued": settings.max_queued,
        "max_retained": settings.max_retained,
        "paused": settings.paused,
        "running": record.running,
        "ready": record.ready,
        "retained_bytes": record.retained,
    })
}
