//! `sandhog config`: shows the settings in force and lists all settings.

use sandhog_common::config::{KeyInfo, keys};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::args::ConfigCommand;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::Table;

/// Runs a subcommand of `sandhog config`.
pub(crate) fn config(app: &App, command: &ConfigCommand) -> Result<Exit, Fault> {
    match command {
        ConfigCommand::Show(args) => show(app, args.origin),
        ConfigCommand::Keys => list(app),
    }
}

fn show(app: &App, origin: bool) -> Result<Exit, Fault> {
    let entries = &app.loaded.entries;
    if app.output.is_json() {
        let object: Map<String, Value> = entries
            .iter()
            .map(|entry| {
                let shown = json!({"value": entry.value, "origin": entry.origin});
                (entry.key.clone(), shown)
            })
            .collect();
        app.output.json(&object)?;
    } else if origin {
        let mut table = Table::new(["KEY", "VALUE", "ORIGIN"]);
        for entry in entries {
            table.row([entry.key.clone(), plain(&entry.value), entry.origin.clone()]);
        }
        app.output.table(&table)?;
    } else {
        for entry in entries {
            app.output
                .line(&format!("{} = {}", entry.key, plain(&entry.value)))?;
        }
    }
    Ok(Exit::Success)
}

fn list(app: &App) -> Result<Exit, Fault> {
    for info in keys() {
        let KeyInfo {
            key,
            variable,
            default,
            description,
            takes_empty: _,
        } = info;
        if app.output.is_json() {
            app.output.json(&json!({
                "key": key,
                "variable": variable,
                "default": default,
                "description": description,
            }))?;
        } else {
            app.output.line(&format!(
                "{key}  ({variable}, default {})\n    {description}",
                plain(default)
            ))?;
        }
    }
    Ok(Exit::Success)
}

/// Formats a value as TOML does. TOML has no null; it is shown as `(none)`.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        other => other.to_string(),
    }
}
