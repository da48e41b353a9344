//! Puts the layers together, reads every key as its type, and keeps where each value came from.

use std::path::PathBuf;

use config::{Config, Value as Valued, ValueKind};
use serde_json::{Map, Value};

use super::check;
use super::environment::Environment;
use super::key::{self, KeyInfo};
use super::layer::{Flag, Layer, unknown};
use super::mask::shown;
use super::problem::{ConfigError, Problem};
use super::settings::Settings;

/// Where settings are looked for.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The variables.
    pub environment: Environment,
    /// The file of `--config`; it takes the place of every other file.
    pub file: Option<PathBuf>,
    /// The machine's file, read when it exists.
    pub system_file: PathBuf,
    /// Settings given as flags; the last of a key wins.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// This environment with the usual files and no flags.
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
    pub entries: Vec<Entry>,
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value as it may be shown: passwords are hidden.
    pub value: Value,
    /// Where it came from: `default`, a file, a variable or a flag.
    pub origin: String,
}

/// Reads every source.
///
/// # Errors
/// Holds every problem there is: files that do not read, unknown keys, values of a wrong type or out of range.
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
                match fits(info, &value) {
                    Ok(()) => put(&mut root, &info.key, value.clone()),
                    Err(detail) => problems.push(problem(info, &value, &origin, detail)),
                }
                (value, origin)
            }
        };
        entries.push((info, value, origin));
    }

    let settings: Settings =
        serde_json::from_value(root).expect("every value was read as its type above");
    for (key, detail) in check::broken_rules(&settings) {
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

fn entry(info: &KeyInfo, settings: &Settings, origin: String) -> Entry {
    let all = serde_json::to_value(settings)
        .expect("settings have string keys and no fallible serialiser");
    Entry {
        value: shown(&info.key, key::pick(&all, &info.key)),
        key: info.key.clone(),
        origin,
    }
}

/// The layers on top of each other, as one table.
fn merge(sources: &Sources) -> (Valued, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut builder = Config::builder();
    for path in files(sources) {
        match Layer::file(&path) {
            Ok(layer) => {
                // Each file by itself: a later layer may put a table over a value that should be one.
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

/// The files to read, the least important first.
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

/// Finds what stands in the table and is no setting.
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
                detail: unknown(
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

/// Whether a value reads as its key's type. The other keys keep their defaults meanwhile, so an error is this one's.
fn fits(info: &KeyInfo, value: &Value) -> Result<(), String> {
    serde_json::from_value::<Settings>(key::nest(&info.key, value.clone()))
        .map(drop)
        .map_err(|e| e.to_string())
}

fn problem(info: &KeyInfo, value: &Value, origin: &str, detail: String) -> Problem {
    Problem {
        key: info.key.clone(),
        value: Some(shown(&info.key, value).to_string()),
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

fn put(root: &mut Value, key: &str, value: Value) {
    let slot = key
        .split('.')
        .try_fold(root, |table, part| table.get_mut(part));
    if let Some(slot) = slot {
        *slot = value;
    }
}

/// The value alone.
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
