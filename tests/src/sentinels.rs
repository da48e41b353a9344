//! A master, a replica and the Sentinels that watch them, all of one test's own.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

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
    password: Option<String>,
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
        Self::guarded(None)
    }

    /// The same with Sentinels that want a password.
    ///
    /// # Panics
    /// When a server does not come up.
    #[must_use]
    pub fn guarded(password: Option<&str>) -> Self {
        let master = PrivateRedis::start(&[]);
        let port = master.port().to_string();
        let replica = PrivateRedis::start(&["--replicaof", "127.0.0.1", &port]);
        let sentinels = (0..SENTINELS)
            .map(|_| Sentinel::start(master.port(), password))
            .collect();
        let watched = Self {
            servers: [master, replica],
            sentinels,
            password: password.map(str::to_owned),
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
        let places: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        format!("redis+sentinel://{}/{SERVICE}", places.join(","))
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
        let mut connection = self.sentinels[0].connect(self.password.as_deref());
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
            let mut connection = sentinel.connect(self.password.as_deref());
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

impl Sentinel {
    fn start(master: u16, password: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let port = free_port();
        let file = folder.path().join("sentinel.conf");
        let guard = password.map_or(String::new(), |password| {
            format!("requirepass {password}\nsentinel sentinel-pass {password}\n")
        });
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nlogfile sentinel.log\n{guard}\
             sentinel monitor {SERVICE} 127.0.0.1 {master} {QUORUM}\n\
             sentinel down-after-milliseconds {SERVICE} 1000\n\
             sentinel failover-timeout {SERVICE} 5000\n",
            folder.path().display()
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

    fn connect(&self, password: Option<&str>) -> redis::Connection {
        let login = password.map_or(String::new(), |password| format!(":{password}@"));
        let url = format!("redis://{login}127.0.0.1:{}", self.port);
        let client = redis::Client::open(url).expect("our own URL is valid");
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
