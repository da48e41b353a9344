//! A master, a replica and the Sentinels that watch them, all of one test's own.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::given;
use crate::private_redis::{PrivateRedis, free_port};

/// What the Sentinels call the master.
pub const SERVICE: &str = "main";

/// How many Sentinels there are, and how many of them must agree that the master is gone.
const SENTINELS: usize = 3;
const QUORUM: usize = 2;

/// How long anything may take to come about; it decides nothing.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two servers and three Sentinels; all killed when dropped.
#[derive(Debug)]
pub struct Watched {
    servers: [PrivateRedis; 2],
    sentinels: Vec<Sentinel>,
    manner: Manner,
}

/// How Sentinels are reached, and how they and the servers reach each other.
#[derive(Debug, Default)]
struct Manner {
    password: Option<String>,
    certificates: Option<Arc<Certificates>>,
    /// The name that stands for every server's address.
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
        // Ours, and nobody else waits for it.
        let _already_gone = self.process.kill();
        let _already_waited_for = self.process.wait();
    }
}

impl Watched {
    /// Starts everything, and waits until every Sentinel knows the replica and the other Sentinels.
    ///
    /// # Panics
    /// When a server does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::of(Manner::default())
    }

    /// The same with Sentinels that want a password.
    ///
    /// # Panics
    /// When a server does not come up.
    #[must_use]
    pub fn guarded(password: &str) -> Self {
        Self::of(Manner {
            password: Some(password.to_owned()),
            ..Manner::default()
        })
    }

    /// The same with every connection encrypted. Sentinels say how the master is reached by `name`, else by its
    /// address.
    ///
    /// # Panics
    /// When a server does not come up.
    #[must_use]
    pub fn encrypted(
        certificates: &Arc<Certificates>,
        name: Option<&str>,
        password: Option<&str>,
    ) -> Self {
        Self::of(Manner {
            password: password.map(str::to_owned),
            certificates: Some(Arc::clone(certificates)),
            name: name.map(str::to_owned),
        })
    }

    fn of(manner: Manner) -> Self {
        let host = manner.host();
        let announced = ["--replica-announce-ip", host];
        let own: &[&str] = match manner.name {
            Some(_) => &announced,
            None => &[],
        };
        let certificates = manner.certificates.as_ref();
        let master = PrivateRedis::reached(certificates, own);
        let port = master.port().to_string();
        let following = [own, &["--replicaof", host, &port]].concat();
        let replica = PrivateRedis::reached(certificates, &following);
        let sentinels = (0..SENTINELS)
            .map(|_| Sentinel::start(master.port(), &manner))
            .collect();
        let watched = Self {
            servers: [master, replica],
            sentinels,
            manner,
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

    /// The URL of the service.
    #[must_use]
    pub fn url(&self) -> String {
        let (scheme, host) = self.manner.sentinels();
        let places: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("{host}:{}", sentinel.port))
            .collect();
        format!("{scheme}+sentinel://{}/{SERVICE}", places.join(","))
    }

    /// Which of the two servers was the master at the beginning.
    #[must_use]
    pub fn first(&mut self) -> &mut PrivateRedis {
        &mut self.servers[0]
    }

    /// The other one.
    #[must_use]
    pub fn second(&mut self) -> &mut PrivateRedis {
        &mut self.servers[1]
    }

    /// Has the Sentinels make the replica the master while the master lives, and waits until they have and it is a
    /// replica: until then it takes writes that will be lost.
    ///
    /// # Panics
    /// When they do not.
    pub fn hand_over(&self) {
        let mut connection = self.sentinels[0].connect(&self.manner);
        let mut command = redis::cmd("SENTINEL");
        command.arg("FAILOVER").arg(SERVICE);
        let _ok: String = command
            .query(&mut connection)
            .expect("a failover can be asked for");
        self.wait_until_second_leads();
        self.servers[0].wait_for_info("replication", |info| info.contains("role:slave"));
    }

    /// Waits until every Sentinel names the second server.
    ///
    /// # Panics
    /// When they do not in two minutes.
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
        let deadline = Instant::now() + PATIENCE;
        for sentinel in &self.sentinels {
            let mut connection = sentinel.connect(&self.manner);
            loop {
                let mut command = redis::cmd("SENTINEL");
                command.arg("MASTER").arg(SERVICE);
                let facts = command
                    .query(&mut connection)
                    .expect("a sentinel tells what it knows");
                if holds(&facts) {
                    break;
                }
                assert!(Instant::now() < deadline, "{what}: {facts:?}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

impl Manner {
    /// What servers and Sentinels call each other's host.
    fn host(&self) -> &str {
        self.name.as_deref().unwrap_or("127.0.0.1")
    }

    /// The scheme and the host by which clients reach a Sentinel.
    fn sentinels(&self) -> (&str, &str) {
        match &self.certificates {
            None => ("redis", "127.0.0.1"),
            Some(certificates) => ("rediss", certificates.host()),
        }
    }

    /// A Sentinel's settings.
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
            // The first must stand before any name.
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
    fn start(master: u16, manner: &Manner) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let port = free_port();
        let file = folder.path().join("sentinel.conf");
        let settings = format!(
            "bind 127.0.0.1\ndir {}\nlogfile sentinel.log\n{}",
            folder.path().display(),
            manner.settings(port, master)
        );
        std::fs::write(&file, settings).expect("a temporary file can be written");
        let process = Command::new(given::redis_server())
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

    fn connect(&self, manner: &Manner) -> redis::Connection {
        let login = match &manner.password {
            Some(password) => format!(":{password}@"),
            None => String::new(),
        };
        let (scheme, host) = manner.sentinels();
        let url = format!("{scheme}://{login}{host}:{}", self.port);
        let client = match &manner.certificates {
            None => redis::Client::open(url).expect("our own URL is valid"),
            Some(certificates) => certificates.client(&url),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match client.get_connection() {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < deadline, "no sentinel: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
