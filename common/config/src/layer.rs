//! One layer of settings, each value with its origin: a file, the environment variables, or the
//! flags.

use std::path::{Path, PathBuf};

use config::{File, FileFormat, Map, Source, Value as Valued, ValueKind};
use serde_json::Value;

use super::environment::Environment;
use super::key::{self, KeyInfo};
use super::mask::mask_url;
use super::problem::Problem;
use sandhog_core::suggestion::suggestion;

/// Maximum size of a file with a secret, in bytes.
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

/// One setting given as a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The setting's key.
    pub key: String,
    /// Its value, as the user typed it.
    pub value: String,
    /// The flag, as the user typed it: `--redis`.
    pub name: String,
}

/// Values by key, in the form that the merge needs.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer(Map<String, Valued>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Valued>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

impl Layer {
    /// Reads a TOML file.
    pub(super) fn file(path: &Path) -> Result<Self, Problem> {
        let problem = |detail: String| Problem {
            key: path.display().to_string(),
            value: None,
            origin: "settings file".to_owned(),
            detail,
        };
        let text = std::fs::read_to_string(path).map_err(|e| problem(e.to_string()))?;
        let table = File::from_str(&text, FileFormat::Toml)
            .collect()
            .map_err(|e| problem(e.to_string().trim_end().to_owned()))?;
        let origin = path.display().to_string();
        Ok(Self(
            table
                .into_iter()
                .map(|(name, value)| (name, with_origin(value, &origin)))
                .collect(),
        ))
    }

    /// Returns all values as one table.
    pub(super) fn table(&self) -> Valued {
        Valued::new(None, ValueKind::Table(self.0.clone()))
    }

    /// Reads the `SANDHOG_…` variables.
    pub(super) fn variables(environment: &Environment) -> (Self, Vec<Problem>) {
        let mut layer = Self::default();
        let mut problems = Vec::new();
        if let Some((name, endpoint)) = standard_otlp(environment) {
            let info = key::find("telemetry.otlp").expect("it is a setting");
            layer.set(info, endpoint, name);
        }
        for (name, value) in environment.ours() {
            let takes_empty = variable(name).is_some_and(|info| info.takes_empty);
            if name == "SANDHOG_CONFIG" || (value.is_empty() && !takes_empty) {
                continue;
            }
            let found = match (
                variable(name),
                name.strip_suffix("_FILE").and_then(variable),
            ) {
                (Some(info), _) => match value.to_str() {
                    Some(text) => Ok((info, text.to_owned(), name.to_owned())),
                    None => Err("the value is not UTF-8 text".to_owned()),
                },
                (None, Some(info)) if environment.raw(&info.variable).is_some() => {
                    Err(format!("{} is set too (want one of them)", info.variable))
                }
                (None, Some(info)) => {
                    let path = PathBuf::from(value);
                    secret(&path).map(|text| (info, text, format!("{name}, {}", path.display())))
                }
                (None, None) => Err(unknown_name(
                    "variable",
                    name,
                    key::keys().iter().map(|info| info.variable.as_str()),
                )),
            };
            match found {
                Ok((info, text, origin)) => layer.set(info, &text, &origin),
                Err(detail) => problems.push(Problem {
                    key: name.to_owned(),
                    value: None,
                    origin: "environment".to_owned(),
                    detail,
                }),
            }
        }
        (layer, problems)
    }

    /// Reads the flags.
    pub(super) fn flags(flags: &[Flag]) -> (Self, Vec<Problem>) {
        let mut layer = Self::default();
        let mut problems = Vec::new();
        for flag in flags {
            match key::find(&flag.key) {
                Some(info) => layer.set(info, &flag.value, &flag.name),
                None => problems.push(Problem {
                    key: flag.key.clone(),
                    value: Some(format!("{:?}", mask_url(&flag.value))),
                    origin: flag.name.clone(),
                    detail: unknown_name(
                        "key",
                        &flag.key,
                        key::keys().iter().map(|info| info.key.as_str()),
                    ),
                }),
            }
        }
        (layer, problems)
    }

    /// Sets a key from text. The type of the key's default determines how the text is parsed: as a
    /// number, as a comma-separated list, or as plain text.
    fn set(&mut self, info: &KeyInfo, text: &str, origin: &str) {
        let origin = origin.to_owned();
        let kind = match &info.default {
            Value::Number(_) => text
                .trim()
                .parse::<i64>()
                .map_or_else(|_text| ValueKind::from(text), ValueKind::from),
            Value::Array(_) => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                ValueKind::Array(items.map(|item| Valued::new(Some(&origin), item)).collect())
            }
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Object(_) => {
                ValueKind::from(text)
            }
        };
        self.0
            .insert(info.key.clone(), Valued::new(Some(&origin), kind));
    }
}

/// Formats the message for an unknown name, with the most similar known name.
pub(super) fn unknown_name<'a>(
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    match suggestion(name, known) {
        Some(near) => format!("unknown {what} (did you mean {near}?)"),
        None => format!("unknown {what} (`sandhog config keys` lists them)"),
    }
}

/// Returns the destination for spans that the standard OpenTelemetry variables set, and the name of
/// the variable that set it.
fn standard_otlp(environment: &Environment) -> Option<(&'static str, &str)> {
    if environment.text("OTEL_SDK_DISABLED") == Some("true") {
        return None;
    }
    [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ]
    .into_iter()
    .find_map(|name| Some((name, environment.text(name)?)))
}

fn variable(name: &str) -> Option<&'static KeyInfo> {
    key::keys().iter().find(|info| info.variable == name)
}

/// Reads a secret from a file, without the line break that editors add at the end.
fn secret(path: &Path) -> Result<String, String> {
    let size = path
        .metadata()
        .map_err(|e| format!("cannot read {}: {e}", path.display()))?
        .len();
    if size > SECRET_FILE_BYTES_MAX {
        return Err(format!(
            "{} has {size} bytes (want at most {SECRET_FILE_BYTES_MAX})",
            path.display()
        ));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Returns the value with `origin` set on it and on all nested values.
fn with_origin(value: Valued, origin: &String) -> Valued {
    let kind = match value.kind {
        ValueKind::Table(table) => ValueKind::Table(
            table
                .into_iter()
                .map(|(name, value)| (name, with_origin(value, origin)))
                .collect(),
        ),
        plain => plain,
    };
    Valued::new(Some(origin), kind)
}
