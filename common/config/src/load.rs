//! Merges the layers, parses every key as its type, and records the origin of each value.

use std::path::PathBuf;

use config::{Config, Value as Valued, ValueKind};
use serde_json::{Map, Value};

use super::check;
use super::environment::Environment;
use super::key::{self, KeyInfo};
use super::layer::{Flag, Layer, unknown_name};
use super::mask::display_value;
use super::problem::{ConfigError, Problem};
use super::settings::Settings;

/// The sources of settings.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The environment variables.
    pub environment: Environment,
    /// The file of `--config`; it replaces every other file.
    pub file: Option<PathBuf>,
    /// The machine's file, read when it exists.
    pub system_file: PathBuf,
    /// Settings given as flags. The last flag for a key takes precedence.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// Returns the sources with this environment, the usual files and no flags.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self {
            environment,
            file: None,
            system_file: "/etc/sandhog/sandhog.toml".into(),
            flags: Vec::new(),
        }
    }
}

/// The settings in force.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Every key with its value and origin, in the order of [`Settings`].
    pub entries: Vec<SettingEntry>,
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingEntry {
    /// Its key.
    pub key: String,
    /// Its value for display: passwords are hidden.
    pub value: Value,
    /// The origin of the value: `default`, a file, a variable or a flag.
    pub origin: String,
}

/// Reads every source.
///
/// # Errors
/// Contains every problem: unreadable or malformed files, unknown keys, and values of a wrong type
/// or out of range.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let (merged, mut problems) = merge(sources);

    let mut root = serde_json::to_value(Settings::default())
        .expect("settings have string keys and no fallible serialiser");
    let mut entries = Vec::new();
    for info in key::keys() {
        let (value, origin) = match find(&merged, &info.key) {
            None => (info.default.clone(), "default".to_owned()),
            Some(found) => {
                let value = json(found);
                let origin = found.origin().unwrap_or("unknown").to_owned();
                match check_type(info, &value) {
                    Ok(()) => set_at(&mut root, &info.key, value.clone()),
                    Err(detail) => problems.push(problem(info, &value, &origin, detail)),
                }
                (value, origin)
            }
        };
        entries.push((info, value, origin));
    }

    let settings: Settings =
        serde_json::from_value(root).expect("every value was read as its type above");
    for (key, detail) in check::check_settings(&settings) {
        let found = entries.iter().find(|(info, _, _)| info.key == key);
        if let Some((info, value, origin)) = found {
            problems.push(problem(info, value, origin, detail));
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    Ok(Loaded {
        entries: entries
            .into_iter()
            .map(|(info, _, origin)| entry(info, &settings, origin))
            .collect(),
        settings,
    })
}

fn entry(info: &KeyInfo, settings: &Settings, origin: String) -> SettingEntry {
    let all = serde_json::to_value(settings)
        .expect("settings have string keys and no fallible serialiser");
    SettingEntry {
        value: display_value(&info.key, key::get_at(&all, &info.key)),
        key: info.key.clone(),
        origin,
    }
}

/// Merges the layers into one table.
fn merge(sources: &Sources) -> (Valued, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut builder = Config::builder();
    for path in files(sources) {
        match Layer::file(&path) {
            Ok(layer) => {
                // Check each file before the merge: a later layer may replace a misplaced value by
                // a table and hide the mistake.
                unknown_keys("", &layer.table(), &mut problems);
                builder = builder.add_source(layer);
            }
            Err(problem) => problems.push(problem),
        }
    }
    let (variables, wrong) = Layer::variables(&sources.environment);
    problems.extend(wrong);
    let (flags, wrong) = Layer::flags(&sources.flags);
    problems.extend(wrong);
    let config = builder
        .add_source(variables)
        .add_source(flags)
        .build()
        .expect("layers collect without error");
    (config.cache, problems)
}

/// Returns the files to read, in order of increasing precedence.
fn files(sources: &Sources) -> Vec<PathBuf> {
    let environment = &sources.environment;
    if let Some(path) = sources
        .file
        .clone()
        .or_else(|| environment.path("SANDHOG_CONFIG"))
    {
        return vec![path];
    }
    let user = environment.config_home();
    [
        Some(sources.system_file.clone()),
        user.map(|folder| folder.join("sandhog/sandhog.toml")),
    ]
    .into_iter()
    .flatten()
    .filter(|path| path.exists())
    .collect()
}

/// Reports each entry of the table that is not a setting.
fn unknown_keys(prefix: &str, value: &Valued, problems: &mut Vec<Problem>) {
    let table = match &value.kind {
        ValueKind::Table(table) if prefix.is_empty() || key::is_group(prefix) => table,
        _setting if key::find(prefix).is_some() => return,
        _group if key::is_group(prefix) => {
            problems.push(Problem {
                key: prefix.to_owned(),
                value: Some(json(value).to_string()),
                origin: value.origin().unwrap_or("unknown").to_owned(),
                detail: format!("{prefix} is a table of settings (want [{prefix}])"),
            });
            return;
        }
        _unknown => {
            problems.push(Problem {
                key: prefix.to_owned(),
                value: None,
                origin: value.origin().unwrap_or("unknown").to_owned(),
                detail: unknown_name(
                    "key",
                    prefix,
                    key::keys().iter().map(|info| info.key.as_str()),
                ),
            });
            return;
        }
    };
    let mut names: Vec<&String> = table.keys().collect();
    names.sort();
    for name in names {
        let key = match prefix {
            "" => name.clone(),
            prefix => format!("{prefix}.{name}"),
        };
        unknown_keys(&key, &table[name], problems);
    }
}

/// Checks that a value has the type of its key. All other keys have their defaults in this check,
/// so an error is about this value.
fn check_type(info: &KeyInfo, value: &Value) -> Result<(), String> {
    serde_json::from_value::<Settings>(key::nest_at(&info.key, value.clone()))
        .map(drop)
        .map_err(|e| e.to_string())
}

fn problem(info: &KeyInfo, value: &Value, origin: &str, detail: String) -> Problem {
    Problem {
        key: info.key.clone(),
        value: Some(display_value(&info.key, value).to_string()),
        origin: origin.to_owned(),
        detail,
    }
}

fn find<'a>(root: &'a Valued, key: &str) -> Option<&'a Valued> {
    key.split('.')
        .try_fold(root, |value, part| match &value.kind {
            ValueKind::Table(table) => table.get(part),
            _leaf => None,
        })
}

fn set_at(root: &mut Value, key: &str, value: Value) {
    let slot = key
        .split('.')
        .try_fold(root, |table, part| table.get_mut(part));
    if let Some(slot) = slot {
        *slot = value;
    }
}

/// Returns the value without its origin.
fn json(value: &Valued) -> Value {
    match &value.kind {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(flag) => Value::Bool(*flag),
        ValueKind::I64(n) => Value::from(*n),
        ValueKind::U64(n) => Value::from(*n),
        ValueKind::I128(n) => Value::String(n.to_string()),
        ValueKind::U128(n) => Value::String(n.to_string()),
        ValueKind::Float(n) => Value::from(*n),
        ValueKind::String(text) => Value::String(text.clone()),
        ValueKind::Table(table) => Value::Object(
            table
                .iter()
                .map(|(name, value)| (name.clone(), json(value)))
                .collect::<Map<_, _>>(),
        ),
        ValueKind::Array(items) => items.iter().map(json).collect(),
    }
}
