//! Tests of precedence, origins and problems, with files made for each test.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Environment, Flag, Sources, load};

/// A temporary folder of one test, removed when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sandhog-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn sources(environment: Environment, system_file: &Path) -> Sources {
    Sources {
        system_file: system_file.to_owned(),
        ..Sources::new(environment)
    }
}

fn origin(sources: &Sources, key: &str) -> (String, String) {
    let loaded = load(sources).unwrap();
    let entry = loaded.entries.iter().find(|e| e.key == key).unwrap();
    (entry.value.to_string(), entry.origin.clone())
}

#[test]
fn each_layer_goes_over_the_one_before() {
    let folder = Folder::new("layers");
    let none = folder.0.join("absent.toml");
    let system = folder.file("system.toml", "[worker]\nslots = 1\nmax_lost = 9\n");
    let user = folder.file("config/sandhog/sandhog.toml", "[worker]\nslots = 2\n");
    let named = folder.file("named.toml", "[worker]\nslots = 3\n");
    let config_home = folder.0.join("config");
    let config_home = config_home.to_str().unwrap();
    let flag = |value: &str| Flag {
        key: "worker.slots".into(),
        value: value.into(),
        name: "--slots".into(),
    };

    let mut all = sources(Environment::default(), &none);
    assert_eq!(origin(&all, "worker.slots"), ("0".into(), "default".into()));
    all.system_file = system.clone();
    let system = system.display().to_string();
    assert_eq!(origin(&all, "worker.slots"), ("1".into(), system.clone()));
    all.environment = Environment::of([("XDG_CONFIG_HOME", config_home)]);
    let user = user.display().to_string();
    assert_eq!(origin(&all, "worker.slots"), ("2".into(), user));
    assert_eq!(
        origin(&all, "worker.max_lost"),
        ("9".into(), system),
        "files are merged key by key"
    );
    all.environment = Environment::of([
        ("XDG_CONFIG_HOME", config_home),
        ("SANDHOG_CONFIG", named.to_str().unwrap()),
    ]);
    let named = named.display().to_string();
    assert_eq!(origin(&all, "worker.slots"), ("3".into(), named));
    assert_eq!(
        origin(&all, "worker.max_lost"),
        ("3".into(), "default".into()),
        "a named file takes the place of the others"
    );
    all.environment = Environment::of([("SANDHOG_WORKER_SLOTS", "4")]);
    assert_eq!(
        origin(&all, "worker.slots"),
        ("4".into(), "SANDHOG_WORKER_SLOTS".into())
    );
    all.flags = vec![flag("5"), flag("6")];
    assert_eq!(origin(&all, "worker.slots"), ("6".into(), "--slots".into()));
}

#[test]
fn a_secret_is_read_from_its_file_and_never_shown() {
    let folder = Folder::new("secret");
    let secret = folder.file("url", "redis://:hunter2@h:1\n");
    let none = folder.0.join("absent.toml");
    let environment = Environment::of([("SANDHOG_REDIS_URL_FILE", secret.to_str().unwrap())]);
    let sources = sources(environment, &none);
    let loaded = load(&sources).unwrap();
    assert_eq!(
        loaded.settings.redis.url.as_deref(),
        Some("redis://:hunter2@h:1")
    );
    assert_eq!(
        origin(&sources, "redis.url"),
        (
            "\"redis://:***@h:1\"".into(),
            format!("SANDHOG_REDIS_URL_FILE, {}", secret.display())
        )
    );
}

#[test]
fn every_problem_is_told_at_once() {
    let folder = Folder::new("problems");
    let file = folder.file(
        "sandhog.toml",
        "redis = 5\ncolour = true\n[worker]\nslot = 2\nslots = \"many\"\ntags = [\"CPU\"]\n\
         lease_ms = 10\nmax_lost = 1.5\n",
    );
    let environment = Environment::of([
        ("SANDHOG_WORKER_HTTP", "nowhere"),
        ("SANDHOG_WORKER_SLOT", "2"),
        ("SANDHOG_SANDBOX_MEMORY", "1XB"),
        ("SANDHOG_LOG_FORMAT", "text"),
        ("SANDHOG_LOG_FORMAT_FILE", "/nonexistent"),
    ]);
    let mut sources = sources(environment, &folder.0.join("absent.toml"));
    sources.file = Some(file.clone());
    sources.flags.push(Flag {
        key: "redis.url".into(),
        value: "http://u:hunter2@h".into(),
        name: "--redis".into(),
    });
    let error = load(&sources).unwrap_err();
    let told = error
        .to_string()
        .replace(&file.display().to_string(), "FILE");
    let mut lines: Vec<&str> = told.lines().map(str::trim).collect();
    lines.sort_unstable();
    let want = [
        "12 problems in the settings:",
        "SANDHOG_LOG_FORMAT_FILE (environment): SANDHOG_LOG_FORMAT is set too (want one of them)",
        "SANDHOG_WORKER_SLOT (environment): unknown variable (did you mean SANDHOG_WORKER_SLOTS?)",
        "colour (FILE): unknown key (`sandhog config keys` lists them)",
        "redis = 5 (FILE): redis is a table of settings (want [redis])",
        "redis.url = \"http://u:***@h\" (--redis): want \
         redis[s]://[user:password@]host:port[/db], unix:/path, \
         redis[s]+sentinel://[user:password@]host:port,…/service[/db] or \
         redis[s]+cluster://[user:password@]host:port,…",
        "sandbox.memory = \"1XB\" (SANDHOG_SANDBOX_MEMORY): \"1XB\" is not a size (want a number \
         of bytes, or a number with a unit such as 64K, 64M, 1.5G or 1T; M, MB, Mi and MiB are \
         the same, in either case: 1024 times 1024 bytes)",
        "worker.http = \"nowhere\" (SANDHOG_WORKER_HTTP): want host:port, or nothing to turn it \
         off",
        "worker.lease_ms = 10 (FILE): want at least 1000",
        "worker.max_lost = 1.5 (FILE): invalid type: floating point `1.5`, expected u32",
        "worker.slot (FILE): unknown key (did you mean worker.slots?)",
        "worker.slots = \"many\" (FILE): invalid type: string \"many\", expected u32",
        "worker.tags = [\"CPU\"] (FILE): tag \"CPU\" is not valid (want 1 to 32 of a-z 0-9 . _ -)",
    ];
    assert_eq!(lines, want);
}

#[test]
fn the_standard_variables_say_where_spans_go() {
    let folder = Folder::new("otlp");
    let system = folder.file("system.toml", "[telemetry]\notlp = \"http://file:1\"\n");
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:1");
    let spans = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://spans:1");
    let ours = ("SANDHOG_TELEMETRY_OTLP", "http://ours:1");
    let off = ("OTEL_SDK_DISABLED", "true");
    for (environment, want) in [
        (Environment::default(), "http://file:1"),
        (Environment::of([base]), "http://all:1"),
        (Environment::of([base, spans]), "http://spans:1"),
        (Environment::of([base, spans, ours]), "http://ours:1"),
        (Environment::of([base, ("SANDHOG_TELEMETRY_OTLP", "")]), ""),
        (Environment::of([base, off]), "http://file:1"),
    ] {
        let (value, origin) = origin(&sources(environment, &system), "telemetry.otlp");
        assert_eq!(value, format!("{want:?}"), "{origin}");
    }
    for bad in ["here", "http://", "grpc://h:1"] {
        let environment = Environment::of([("SANDHOG_TELEMETRY_OTLP", bad)]);
        let error = load(&sources(environment, &system)).unwrap_err();
        assert!(error.to_string().contains("telemetry.otlp"), "{error}");
    }
}

#[test]
fn an_empty_variable_turns_off_what_an_empty_text_turns_off_and_is_unset_elsewhere() {
    let folder = Folder::new("empty");
    let system = folder.file(
        "system.toml",
        "[worker]\nhttp = \"127.0.0.1:1\"\nslots = 3\ntags = [\"gpu\"]\n[sandbox]\n\
         engine = \"unix:///e\"\n",
    );
    let from = |variable: &str, key: &str| {
        let environment = Environment::of([(variable, "")]);
        origin(&sources(environment, &system), key)
    };
    let file = system.display().to_string();
    for (variable, key, value, source) in [
        (
            "SANDHOG_WORKER_HTTP",
            "worker.http",
            "\"\"",
            "SANDHOG_WORKER_HTTP",
        ),
        (
            "SANDHOG_WORKER_HTTP_FILE",
            "worker.http",
            "\"127.0.0.1:1\"",
            &file,
        ),
        ("SANDHOG_WORKER_SLOTS", "worker.slots", "3", &file),
        ("SANDHOG_WORKER_TAGS", "worker.tags", "[\"gpu\"]", &file),
        (
            "SANDHOG_SANDBOX_ENGINE",
            "sandbox.engine",
            "\"unix:///e\"",
            &file,
        ),
    ] {
        let want = (value.to_owned(), source.to_owned());
        assert_eq!(from(variable, key), want, "{variable}");
    }
}
