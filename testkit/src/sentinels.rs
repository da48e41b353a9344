//! A master, a replica and the Sentinels that watch them, for one test.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::environment;
use crate::eventually::eventually;
use crate::private_redis::{PrivateRedis, free_port};

/// Name of the master for the Sentinels.
pub const SERVICE: &str = "main";

/// Number of Sentinels, and number of them that must agree that the master is down.
const SENTINEL_COUNT: usize = 3;
const QUORUM: usize = 2;

/// Timeout for any change of the servers. It is generous and decides no test.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// Two servers and three Sentinels, which are killed on drop.
#[derive(Debug)]
pub struct SentinelSetup {
    servers: [PrivateRedis; 2],
    sentinels: Vec<Sentinel>,
    access: AccessConfig,
}

/// Access to the Sentinels, and addresses that they and the servers use for each other.
#[derive(Debug, Default)]
struct AccessConfig {
    password: Option<String>,
    certificates: Option<Arc<Certificates>>,
    /// Name that replaces every server's address.
    name: Option<String>,
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    process: Child,
    _folder: TempDir,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Nothing else waits for this child process.
        let _already_gone = self.process.kill();
        let _already_waited_for = self.process.wait();
    }
}

impl SentinelSetup {
    /// Starts everything, and waits until every Sentinel knows the replica and the other Sentinels.
    ///
    /// # Panics
    /// Panics if a server does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::of(AccessConfig::default())
    }

    /// Starts the same with Sentinels that require a password.
    ///
    /// # Panics
    /// Panics if a server does not start.
    #[must_use]
    pub fn guarded(password: &str) -> Self {
        Self::of(AccessConfig {
            password: Some(password.to_owned()),
            ..AccessConfig::default()
        })
    }

    /// Starts the same with every connection encrypted. The Sentinels give clients `name` as the
    /// master's host, or else its address.
    ///
    /// # Panics
    /// Panics if a server does not start.
    #[must_use]
    pub fn encrypted(
        certificates: &Arc<Certificates>,
        name: Option<&str>,
        password: Option<&str>,
    ) -> Self {
        Self::of(AccessConfig {
            password: password.map(str::to_owned),
            certificates: Some(Arc::clone(certificates)),
            name: name.map(str::to_owned),
        })
    }

    fn of(access: AccessConfig) -> Self {
        let host = access.host();
        let announced = ["--replica-announce-ip", host];
        let own: &[&str] = match access.name {
            Some(_) => &announced,
            None => &[],
        };
        let certificates = access.certificates.as_ref();
        let master = PrivateRedis::reached(certificates, own);
        let port = master.port().to_string();
        let following = [own, &["--replicaof", host, &port]].concat();
        let replica = PrivateRedis::reached(certificates, &following);
        let sentinels = (0..SENTINEL_COUNT)
            .map(|_| Sentinel::start(master.port(), &access))
            .collect();
        let watched = Self {
            servers: [master, replica],
            sentinels,
            access,
        };
        watched.wait_until("the sentinels know each other", |facts| {
            facts.get("num-other-sentinels").map(String::as_str) == Some("2")
                && facts.get("num-slaves").map(String::as_str) == Some("1")
                && facts.get("flags").map(String::as_str) == Some("master")
        });
        let link = |info: &str| info.contains("master_link_status:up");
        watched.servers[1].wait_for_info("replication", link);
        watched
    }

    /// Returns the URL of the service.
    #[must_use]
    pub fn url(&self) -> String {
        let (scheme, host) = self.access.sentinels();
        let places: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("{host}:{}", sentinel.port))
            .collect();
        format!("{scheme}+sentinel://{}/{SERVICE}", places.join(","))
    }

    /// Returns the server that was the master at the beginning.
    #[must_use]
    pub fn first(&mut self) -> &mut PrivateRedis {
        &mut self.servers[0]
    }

    /// Returns the server that was the replica at the beginning.
    #[must_use]
    pub fn second(&mut self) -> &mut PrivateRedis {
        &mut self.servers[1]
    }

    /// Makes the Sentinels fail over to the replica while the master is alive, and waits until the
    /// old master has become a replica. Until then the old master accepts writes that will be lost.
    ///
    /// # Panics
    /// Panics if the failover does not complete.
    pub fn hand_over(&self) {
        let mut connection = self.sentinels[0].connect(&self.access);
        let mut command = redis::cmd("SENTINEL");
        command.arg("FAILOVER").arg(SERVICE);
        let _ok: String = command
            .query(&mut connection)
            .expect("a failover can be asked for");
        self.wait_until_second_leads();
        self.servers[0].wait_for_info("replication", |info| info.contains("role:slave"));
    }

    /// Waits until every Sentinel names the second server as the master.
    ///
    /// # Panics
    /// Panics if they do not within two minutes.
    pub fn wait_until_second_leads(&self) {
        let port = self.servers[1].port().to_string();
        self.wait_until("the replica is the master", |facts| {
            facts.get("port") == Some(&port)
        });
    }

    fn wait_until(
        &self,
        what: &str,
        holds: impl Fn(&std::collections::HashMap<String, String>) -> bool,
    ) {
        for sentinel in &self.sentinels {
            let mut connection = sentinel.connect(&self.access);
            eventually(WAIT_TIMEOUT, || {
                let mut command = redis::cmd("SENTINEL");
                command.arg("MASTER").arg(SERVICE);
                let facts = command
                    .query(&mut connection)
                    .expect("a sentinel tells what it knows");
                if holds(&facts) {
                    return Ok(());
                }
                Err(format!("{what}: {facts:?}"))
            });
        }
    }
}

impl AccessConfig {
    /// Returns the host by which servers and Sentinels reach each other.
    fn host(&self) -> &str {
        self.name.as_deref().unwrap_or("127.0.0.1")
    }

    /// Returns the scheme and the host by which clients reach a Sentinel.
    fn sentinels(&self) -> (&str, &str) {
        match &self.certificates {
            None => ("redis", "127.0.0.1"),
            Some(certificates) => ("rediss", certificates.host()),
        }
    }

    /// Returns the configuration file of a Sentinel.
    fn settings(&self, port: u16, master: u16) -> String {
        let mut lines = Vec::new();
        match &self.certificates {
            None => lines.push(format!("port {port}")),
            Some(certificates) => {
                lines.push("port 0\ntls-replication yes".to_owned());
                for pair in certificates.server_arguments(port).chunks(2) {
                    lines.push(pair.join(" ").trim_start_matches("--").to_owned());
                }
            }
        }
        if self.name.is_some() {
            // This line must come before any line with a name.
            lines.push("sentinel resolve-hostnames yes".to_owned());
            lines.push("sentinel announce-hostnames yes".to_owned());
            lines.push(format!("sentinel announce-ip {}", self.host()));
        }
        if let Some(password) = &self.password {
            lines.push(format!("requirepass {password}"));
            lines.push(format!("sentinel sentinel-pass {password}"));
        }
        lines.push(format!(
            "sentinel monitor {SERVICE} {} {master} {QUORUM}\n\
             sentinel down-after-milliseconds {SERVICE} 1000\n\
             sentinel failover-timeout {SERVICE} 5000\n",
            self.host()
        ));
        lines.join("\n")
    }
}

impl Sentinel {
    fn start(master: u16, access: &AccessConfig) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let port = free_port();
        let file = folder.path().join("sentinel.conf");
        let settings = format!(
            "bind 127.0.0.1\ndir {}\nlogfile sentinel.log\n{}",
            folder.path().display(),
            access.settings(port, master)
        );
        std::fs::write(&file, settings).expect("a temporary file can be written");
        let process = Command::new(environment::redis_server())
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("redis-server did not start: {error}\nhint: apt-get install redis-server")
            });
        Self {
            port,
            process,
            _folder: folder,
        }
    }

    fn connect(&self, access: &AccessConfig) -> redis::Connection {
        let login = match &access.password {
            Some(password) => format!(":{password}@"),
            None => String::new(),
        };
        let (scheme, host) = access.sentinels();
        let url = format!("{scheme}://{login}{host}:{}", self.port);
        let client = match &access.certificates {
            None => redis::Client::open(url).expect("our own URL is valid"),
            Some(certificates) => certificates.client(&url),
        };
        eventually(WAIT_TIMEOUT, || {
            client
                .get_connection()
                .map_err(|error| format!("no sentinel: {error}"))
        })
    }
}
