//! Rules for the values of settings, beyond their types.

use std::collections::BTreeSet;

use tracing_subscriber::EnvFilter;

use super::redis_url::RedisUrl;
use super::sandbox_unit::SandboxUnit;
use super::settings::{ENGINE_ADDRESSES, NO_ENGINE, RedisSettings, SandboxSettings, Settings};
use sandhog_core::limits::Limits;
use sandhog_core::units::ByteCount;
use sandhog_core::wire::{LARGEST_PAYLOAD, MAX_RESULT};

/// Shortest lease that leaves time for two missed heartbeats.
const MIN_LEASE_MS: u64 = 1_000;

/// Docker rejects containers with less memory.
const MIN_MEMORY: ByteCount = ByteCount::mib(6);

/// Maximum result of a job with the default limits.
const MIN_RESULT: ByteCount = Limits::DEFAULT.result_bytes();

/// Returns every violated rule: the key and the fault.
pub(super) fn check_settings(settings: &Settings) -> Vec<(&'static str, String)> {
    let Settings {
        namespace: _,
        redis,
        worker,
        sandbox,
        gpu,
        pool,
        log,
        telemetry,
        state: _,
    } = settings;
    let rules = [
        (
            "redis.url",
            (redis.url.as_deref()).and_then(|url| RedisUrl::parse(url).err()),
        ),
        (
            "redis.tls_ca",
            redis.tls_ca.as_ref().and_then(|_| check_tls(redis)),
        ),
        (
            "redis.tls_cert",
            redis.tls_cert.as_ref().and_then(|_| check_tls(redis)),
        ),
        ("redis.tls_key", check_cert_pair(redis)),
        (
            "redis.response_timeout_ms",
            check_nonzero(redis.response_timeout_ms.0),
        ),
        (
            "redis.connect_timeout_ms",
            check_nonzero(redis.connect_timeout_ms.0),
        ),
        ("worker.namespaces", check_unique(settings)),
        (
            "worker.tags",
            (worker.tags.is_empty()).then(|| "a worker without tags runs nothing".to_owned()),
        ),
        (
            "worker.lease_ms",
            (worker.lease_ms.0 < MIN_LEASE_MS).then(|| format!("want at least {MIN_LEASE_MS}")),
        ),
        ("worker.http", check_address(&worker.http)),
        (
            "worker.max_payload",
            (worker.max_payload.0 == 0 || worker.max_payload > LARGEST_PAYLOAD)
                .then(|| format!("want 1 byte to {LARGEST_PAYLOAD}")),
        ),
        (
            "worker.max_result",
            (worker.max_result < MIN_RESULT || worker.max_result > MAX_RESULT)
                .then(|| format!("want {MIN_RESULT} to {MAX_RESULT}")),
        ),
        (
            "worker.program_calls_at_once",
            check_nonzero(u64::from(worker.program_calls_at_once)),
        ),
        ("sandbox.engine", check_engine(&sandbox.engine)),
        ("sandbox.unit", check_unit(sandbox)),
        (
            "sandbox.sockets_dir",
            (sandbox.sockets_dir.as_ref())
                .filter(|dir| !dir.is_absolute())
                .map(|_| "want an absolute path".to_owned()),
        ),
        (
            "sandbox.image_reference",
            (!sandbox.image_reference.contains("{name}"))
                .then(|| "want {name} where the image's name goes".to_owned()),
        ),
        (
            "sandbox.memory",
            (sandbox.memory < MIN_MEMORY).then(|| format!("want at least {MIN_MEMORY}")),
        ),
        ("sandbox.cpu_millis", check_nonzero(sandbox.cpu_millis.0)),
        ("sandbox.pids", check_nonzero(u64::from(sandbox.pids))),
        ("pool.workers", check_nonzero(u64::from(pool.workers))),
        ("gpu.share", check_nonzero(u64::from(gpu.share))),
        ("gpu.check_ms", check_nonzero(gpu.check_ms.0)),
        (
            "telemetry.otlp",
            telemetry.otlp.as_deref().and_then(check_otlp_url),
        ),
        ("log.filter", log.filter.as_deref().and_then(check_filter)),
    ];
    rules
        .into_iter()
        .filter_map(|(key, wrong)| Some((key, wrong?)))
        .collect()
}

fn check_nonzero(value: u64) -> Option<String> {
    (value == 0).then(|| "want at least 1".to_owned())
}

/// Checks that no namespace is listed twice.
fn check_unique(settings: &Settings) -> Option<String> {
    let mut seen = BTreeSet::new();
    settings
        .served()
        .into_iter()
        .find(|namespace| !seen.insert(namespace.to_string()))
        .map(|namespace| format!("{namespace} is listed twice (`namespace` itself counts)"))
}

/// Checks that TLS settings are only used with an encrypted connection.
fn check_tls(redis: &RedisSettings) -> Option<String> {
    let encrypted = redis
        .url
        .as_deref()
        .and_then(|url| RedisUrl::parse(url).ok())
        .is_none_or(|url| url.tls);
    (!encrypted).then(|| "redis.url does not begin with rediss, so nothing is encrypted".to_owned())
}

/// Checks that a certificate has its key, and the reverse.
fn check_cert_pair(redis: &RedisSettings) -> Option<String> {
    (redis.tls_cert.is_some() != redis.tls_key.is_some())
        .then(|| "set both redis.tls_cert and redis.tls_key, or neither".to_owned())
}

fn check_address(http: &str) -> Option<String> {
    let valid = http.is_empty()
        || http
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    (!valid).then(|| "want host:port, or nothing to turn it off".to_owned())
}

fn check_engine(url: &str) -> Option<String> {
    let named = ENGINE_ADDRESSES.iter().any(|form| {
        let scheme = form.find("://").and_then(|at| form.get(..at + 3));
        let rest = scheme.and_then(|scheme| url.strip_prefix(scheme));
        rest.is_some_and(|rest| !rest.is_empty())
    });
    let directory = url.strip_prefix("keepers://");
    let is_relative = directory.is_some_and(|path| !path.starts_with('/'));
    ((!named || is_relative) && url != NO_ENGINE)
        .then(|| format!("want {} or {NO_ENGINE}", ENGINE_ADDRESSES.join(", ")))
}

/// Checks that the worker can reach the sockets of the keepers that it starts.
fn check_unit(sandbox: &SandboxSettings) -> Option<String> {
    (sandbox.unit == SandboxUnit::Sandbox && sandbox.engine.starts_with("tcp://"))
        .then(|| "sandbox needs sandbox.engine unix:///path, an engine on this machine".to_owned())
}

fn check_otlp_url(url: &str) -> Option<String> {
    let named = ["http://", "https://"].iter().any(|scheme| {
        url.strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
    });
    (!named && !url.is_empty())
        .then(|| "want http://host:port or https://host:port, or nothing to turn it off".to_owned())
}

fn check_filter(directives: &str) -> Option<String> {
    EnvFilter::try_new(directives).err().map(|e| e.to_string())
}
