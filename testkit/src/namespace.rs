//! A fresh namespace on a Redis server, and operations that any client can perform in it with plain
//! commands.
//!
//! This module does not use the client library: the suites that use it show that the wire contract
//! alone is enough.

use std::time::Duration;

use redis::{Commands, Connection, FromRedisValue, Value};
use sandhog_core::id::{JobId, Namespace};
use sandhog_core::job::Job;
use sandhog_core::outcome::JobResult;
use sandhog_core::units::ByteCount;
use sandhog_core::wire::{self, Encoding};
use sandhog_queue::keys::Keys;

use crate::environment;
use crate::private_redis::PrivateRedis;

/// Timeout of any wait in a test. It is long because it decides nothing: a healthy run never gets
/// near it.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(180);

/// A namespace whose keys are deleted when it is dropped.
pub struct TestNamespace {
    url: String,
    namespace: Namespace,
    keys: Keys,
    connection: Connection,
}

impl std::fmt::Debug for TestNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestNamespace")
            .field("url", &self.url)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl TestNamespace {
    /// A fresh namespace on the Redis that all tests share.
    ///
    /// # Panics
    /// Panics if that Redis does not answer.
    #[must_use]
    pub fn shared(name: &str) -> Self {
        Self::at(environment::redis_url(), name)
    }

    /// A fresh namespace on the test's private server.
    #[must_use]
    pub fn on(redis: &PrivateRedis, name: &str) -> Self {
        Self::at(redis.url(), name)
    }

    fn at(url: String, name: &str) -> Self {
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let namespace: Namespace = format!("test-{name}-{unique}")
            .parse()
            .expect("a test's name is short and plain");
        let connection = connect(&url);
        Self {
            keys: Keys::new(&namespace),
            url,
            namespace,
            connection,
        }
    }

    /// Returns the server's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The namespace's keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns a new connection, for blocking reads beside other commands.
    #[must_use]
    pub fn connection(&self) -> Connection {
        connect(&self.url)
    }

    /// Connects again, after the server was killed.
    ///
    /// # Panics
    /// Panics if it does not answer.
    pub fn reconnect(&mut self) {
        self.connection = connect(&self.url);
    }

    /// Adds one entry with exactly these fields to the intake. Returns the entry's id.
    ///
    /// # Panics
    /// Panics if Redis rejects the entry.
    pub fn add(&mut self, fields: &[(&str, &[u8])]) -> JobId {
        let entry: String = self
            .connection
            .xadd(self.keys.jobs(), "*", fields)
            .expect("redis takes the entry");
        entry.parse().expect("a stream id is a job id")
    }

    /// Submits a job as JSON without routing fields.
    pub fn submit(&mut self, job: &Job) -> JobId {
        self.submit_with(job, &[])
    }

    /// Submits a job as JSON with these routing fields. Returns the job's id: the `id` of
    /// `routing`, or else the entry's.
    ///
    /// # Panics
    /// Panics if Redis rejects the entry, or `routing` holds an invalid id.
    pub fn submit_with(&mut self, job: &Job, routing: &[(&str, &str)]) -> JobId {
        let payload = wire::encode(job, Encoding::Json);
        let mut fields: Vec<(&str, &[u8])> = vec![("job", &payload)];
        fields.extend(
            routing
                .iter()
                .map(|(name, value)| (*name, value.as_bytes())),
        );
        let entry = self.add(&fields);
        routing
            .iter()
            .find(|(name, _)| *name == "id")
            .map_or(entry, |(_, id)| {
                id.parse().expect("the test's own id is valid")
            })
    }

    /// Requests the cancellation of a job.
    pub fn cancel(&mut self, id: &JobId) {
        self.add(&[("op", b"cancel"), ("id", id.as_str().as_bytes())]);
    }

    /// Waits for a job's result and returns its bytes.
    ///
    /// # Panics
    /// Panics if there is none within [`WAIT_TIMEOUT`].
    pub fn result_bytes(&mut self, id: &JobId) -> Vec<u8> {
        let key = self.keys.result(id);
        let bytes: Option<Vec<u8>> = redis::cmd("BLMOVE")
            .arg(&key)
            .arg(&key)
            .arg("LEFT")
            .arg("LEFT")
            .arg(WAIT_TIMEOUT.as_secs())
            .query(&mut self.connection)
            .expect("redis waits for the result");
        bytes.unwrap_or_else(|| panic!("no result of job {id} within {WAIT_TIMEOUT:?}"))
    }

    /// Waits for a job's result.
    ///
    /// # Panics
    /// Panics if there is none within [`WAIT_TIMEOUT`], or it is invalid.
    pub fn result(&mut self, id: &JobId) -> JobResult {
        decode(&self.result_bytes(id))
    }

    /// Submits a job and waits for its result.
    pub fn run(&mut self, job: &Job) -> JobResult {
        let id = self.submit(job);
        self.result(&id)
    }

    /// Reads a stream's entries after `after`, and waits until there are some. Returns each entry's
    /// id and fields.
    ///
    /// # Panics
    /// Panics if none comes within [`WAIT_TIMEOUT`].
    pub fn read_stream(&mut self, key: &str, after: &str) -> Vec<StreamItem> {
        let timeout = u64::try_from(WAIT_TIMEOUT.as_millis()).expect("a few minutes fit");
        let reply: Value = redis::cmd("XREAD")
            .arg("BLOCK")
            .arg(timeout)
            .arg("STREAMS")
            .arg(key)
            .arg(after)
            .query(&mut self.connection)
            .expect("redis reads the stream");
        let streams: Option<Vec<(String, Vec<RawEntry>)>> =
            FromRedisValue::from_redis_value(reply).expect("XREAD answers streams of entries");
        let (_, entries) = streams
            .and_then(|streams| streams.into_iter().next())
            .unwrap_or_else(|| panic!("nothing new in {key} within {WAIT_TIMEOUT:?}"));
        entries.into_iter().map(StreamItem::from).collect()
    }

    /// Reads a stream from its beginning until it has `count` entries.
    ///
    /// # Panics
    /// Panics if an entry does not arrive within [`WAIT_TIMEOUT`] of the one before.
    pub fn read_stream_until(&mut self, key: &str, count: usize) -> Vec<StreamItem> {
        let mut entries: Vec<StreamItem> = Vec::new();
        while entries.len() < count {
            let after = entries.last().map_or("0", |entry| &entry.id).to_owned();
            entries.extend(self.read_stream(key, &after));
        }
        entries
    }

    /// Returns a stream's current entries, without waiting.
    ///
    /// # Panics
    /// Panics if the command fails.
    pub fn stream_now(&mut self, key: &str) -> Vec<StreamItem> {
        let entries: Vec<RawEntry> = redis::cmd("XRANGE")
            .arg(key)
            .arg("-")
            .arg("+")
            .query(&mut self.connection)
            .expect("redis reads the stream");
        entries.into_iter().map(StreamItem::from).collect()
    }

    /// Returns each key of the namespace with its value, as text.
    ///
    /// # Panics
    /// Panics if a command fails, or a key has an unsupported type.
    pub fn all_values(&mut self) -> Vec<String> {
        let pattern = format!("{}*", self.keys.prefix());
        let keys: Vec<String> = self
            .connection
            .scan_match(pattern)
            .expect("redis lists keys")
            .filter_map(Result::ok)
            .collect();
        let mut values = Vec::new();
        for key in keys {
            let kind: String = redis::cmd("TYPE")
                .arg(&key)
                .query(&mut self.connection)
                .expect("redis returns the type of a key");
            let (command, range): (&str, &[&str]) = match kind.as_str() {
                "none" => continue,
                "string" => ("GET", &[]),
                "list" => ("LRANGE", &["0", "-1"]),
                "set" => ("SMEMBERS", &[]),
                "zset" => ("ZRANGE", &["0", "-1"]),
                "hash" => ("HGETALL", &[]),
                "stream" => ("XRANGE", &["-", "+"]),
                other => panic!("{key} is a {other}"),
            };
            let value: redis::Value = redis::cmd(command)
                .arg(&key)
                .arg(range)
                .query(&mut self.connection)
                .expect("redis reads its keys");
            let mut text = key;
            flatten(&value, &mut text);
            values.push(text);
        }
        values
    }
}

fn flatten(value: &redis::Value, text: &mut String) {
    text.push(' ');
    match value {
        redis::Value::BulkString(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
        redis::Value::Array(values) => values.iter().for_each(|value| flatten(value, text)),
        other => text.push_str(&format!("{other:?}")),
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        // The test may have killed the server; then its keys are gone too.
        let Ok(mut connection) =
            redis::Client::open(self.url.as_str()).and_then(|client| client.get_connection())
        else {
            return;
        };
        let pattern = format!("{}*", self.keys.prefix());
        let found: Vec<String> = match connection.scan_match(pattern) {
            Ok(keys) => keys.filter_map(Result::ok).collect(),
            Err(_gone) => return,
        };
        for some in found.chunks(256) {
            let _gone_with_the_server: Result<(), _> = connection.unlink(some);
        }
    }
}

type RawEntry = (String, Vec<(Vec<u8>, Vec<u8>)>);

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamItem {
    /// The entry's stream id.
    pub id: String,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl StreamItem {
    /// Returns a field's bytes.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.fields
            .iter()
            .find(|(field, _)| field == name.as_bytes())
            .map(|(_, value)| value.as_slice())
    }

    /// Returns the names of the entry's fields, in order.
    ///
    /// # Panics
    /// Panics if a name is not UTF-8.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields
            .iter()
            .map(|(name, _)| std::str::from_utf8(name).expect("the name is text"))
    }

    /// Returns a field that must be present, as text.
    ///
    /// # Panics
    /// Panics if it is missing or is not UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        let bytes = self
            .bytes(name)
            .unwrap_or_else(|| panic!("entry {self:?} has no field {name}"));
        std::str::from_utf8(bytes).expect("the field is text")
    }
}

impl From<RawEntry> for StreamItem {
    fn from((id, fields): RawEntry) -> Self {
        Self { id, fields }
    }
}

/// Decodes a published result in either encoding.
///
/// # Panics
/// Panics if it is invalid.
#[must_use]
pub fn decode(bytes: &[u8]) -> JobResult {
    let cap = ByteCount::mib(256);
    wire::decode(bytes, cap)
        .unwrap_or_else(|error| {
            panic!(
                "a published result is invalid: {error}\n{}",
                String::from_utf8_lossy(bytes)
            )
        })
        .0
}

fn connect(url: &str) -> Connection {
    redis::Client::open(url)
        .and_then(|client| client.get_connection())
        .unwrap_or_else(|error| {
            panic!(
                "redis at {url} does not answer: {error}\nhint: start redis-server, run \
                 scripts/test, or name another \
                 server in SANDHOG_TEST_REDIS_URL"
            )
        })
}
