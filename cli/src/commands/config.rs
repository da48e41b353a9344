//! `sandhog config`: shows the settings in force and lists all settings.

use sandhog_config::{KeyInfo, keys};
use serde_json::{Map, Value, json};

use crate::args::ConfigCommand;
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Table;

/// Runs a subcommand of `sandhog config`.
pub(crate) fn config(app: &AppContext, command: &ConfigCommand) -> Result<Exit, CliError> {
    match command {
        ConfigCommand::Show(args) => show(app, args.origin),
        ConfigCommand::Keys => list(app),
    }
}

fn show(app: &AppContext, origin: bool) -> Result<Exit, CliError> {
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
            table.row([
                entry.key.clone(),
                toml_text(&entry.value),
                entry.origin.clone(),
            ]);
        }
        app.output.table(&table)?;
    } else {
        for entry in entries {
            app.output
                .line(&format!("{} = {}", entry.key, toml_text(&entry.value)))?;
        }
    }
    Ok(Exit::Success)
}

fn list(app: &AppContext) -> Result<Exit, CliError> {
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
                toml_text(default)
            ))?;
        }
    }
    Ok(Exit::Success)
}

/// Formats a value as TOML does. TOML has no null; it is shown as `(none)`.
fn toml_text(value: &Value) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        other => other.to_string(),
    }
}
