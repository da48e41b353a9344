//! A Redis Cluster for one test: three masters that share the slots, and a replica of the first.

use std::sync::Arc;
use std::time::Duration;

use redis::{Connection, FromRedisValue, RedisResult};
use sandhog_core::id::Namespace;
use sandhog_queue::keys::Keys;

use crate::certificates::Certificates;
use crate::eventually::eventually;
use crate::private_redis::{PrivateRedis, free_port};

/// Number of nodes that hold slots.
pub const MASTERS: usize = 3;

const SLOTS: usize = 16_384;

/// Timeout for any change of the cluster. It is generous and decides no test.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// Number of keys in one `MIGRATE`.
const MIGRATE_KEYS: usize = 16;

/// The nodes, which are killed on drop.
#[derive(Debug)]
pub struct Cluster {
    masters: Vec<PrivateRedis>,
    /// Replica of the first master.
    replica: PrivateRedis,
}

impl Cluster {
    /// Starts the nodes and waits until they agree about the cluster.
    ///
    /// # Panics
    /// Panics if they do not.
    #[must_use]
    pub fn start() -> Self {
        Self::of(&|extra| PrivateRedis::start(extra))
    }

    /// Starts a cluster in which every connection is encrypted. The nodes tell clients to reach
    /// them by `host`, a name.
    ///
    /// # Panics
    /// Panics if the nodes do not agree about the cluster.
    #[must_use]
    pub fn encrypted(certificates: &Arc<Certificates>, host: Option<&str>) -> Self {
        Self::of(&|extra| {
            let mut extra = extra.to_vec();
            if let Some(host) = host {
                extra.extend(["--cluster-announce-hostname", host]);
                extra.extend(["--cluster-preferred-endpoint-type", "hostname"]);
            }
            PrivateRedis::reached(Some(certificates), &extra)
        })
    }

    fn of(server: &dyn Fn(&[&str]) -> PrivateRedis) -> Self {
        let (masters, buses): (Vec<_>, Vec<_>) = (0..MASTERS).map(|_| node(server)).unzip();
        let (replica, replica_bus) = node(server);
        let cluster = Self { masters, replica };
        let step = SLOTS / MASTERS;
        for (n, master) in cluster.masters.iter().enumerate() {
            let first = n * step;
            let last = if n + 1 == MASTERS {
                SLOTS - 1
            } else {
                first + step - 1
            };
            let epoch = (n + 1).to_string();
            ask::<String>(master, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            ask::<String>(
                master,
                &[
                    "CLUSTER",
                    "ADDSLOTSRANGE",
                    &first.to_string(),
                    &last.to_string(),
                ],
            );
        }
        let others = cluster.masters[1..].iter().zip(&buses[1..]);
        for (other, bus) in others.chain([(&cluster.replica, &replica_bus)]) {
            let (port, bus) = (other.port().to_string(), bus.to_string());
            ask::<String>(
                &cluster.masters[0],
                &["CLUSTER", "MEET", "127.0.0.1", &port, &bus],
            );
        }
        for node in cluster.nodes() {
            cluster.wait_for(node, "all nodes are known and all slots served", |node| {
                let info: String = try_ask(node, &["CLUSTER", "INFO"])?;
                Ok(info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4"))
            });
        }
        let first = cluster.id(0);
        ask::<String>(&cluster.replica, &["CLUSTER", "REPLICATE", &first]);
        let up = |info: &str| info.contains("master_link_status:up");
        cluster.replica.wait_for_info("replication", up);
        for node in cluster.nodes() {
            cluster.wait_for(node, "all nodes know the replica", |node| {
                let nodes: String = try_ask(node, &["CLUSTER", "NODES"])?;
                Ok(nodes.contains(&format!("slave {first}")))
            });
        }
        cluster
    }

    /// Returns the URL of the cluster, which lists every node.
    #[must_use]
    pub fn url(&self) -> String {
        let urls: Vec<String> = self.nodes().map(PrivateRedis::url).collect();
        let (schemes, places): (Vec<_>, Vec<_>) =
            urls.iter().filter_map(|url| url.split_once("://")).unzip();
        format!("{}+cluster://{}", schemes[0], places.join(","))
    }

    /// Returns a namespace whose keys belong to the master `n`.
    ///
    /// # Panics
    /// Panics if no such name is found.
    #[must_use]
    pub fn namespace_at(&self, n: usize) -> Namespace {
        (0..1_000)
            .map(|try_| format!("at-{n}-{try_}").parse().expect("a plain name"))
            .find(|namespace| self.slot(namespace) * MASTERS / SLOTS == n)
            .expect("slots are spread evenly")
    }

    /// Returns the master `n`.
    #[must_use]
    pub fn master(&mut self, n: usize) -> &mut PrivateRedis {
        &mut self.masters[n]
    }

    /// Returns the number of keys of a master.
    #[must_use]
    pub fn keys_at(&self, n: usize) -> usize {
        ask(&self.masters[n], &["DBSIZE"])
    }

    /// Waits until the first master's replica has become the master.
    ///
    /// # Panics
    /// Panics if it has not within two minutes.
    pub fn wait_until_replica_leads(&self) {
        self.replica
            .wait_for_info("replication", |info| info.contains("role:master"));
        for node in self.masters[1..].iter().chain([&self.replica]) {
            self.wait_for(node, "the slots are served again", |node| {
                let info: String = try_ask(node, &["CLUSTER", "INFO"])?;
                Ok(info.contains("cluster_state:ok"))
            });
        }
    }

    /// Moves a namespace from one master to another, as `redis-cli --cluster reshard` does. Calls
    /// `midway` when about half of its keys are at each.
    ///
    /// # Panics
    /// Panics if a node rejects a command.
    pub fn move_namespace(
        &self,
        namespace: &Namespace,
        from: usize,
        to: usize,
        midway: impl FnOnce(),
    ) {
        let slot = self.slot(namespace).to_string();
        let (source, target) = (self.id(from), self.id(to));
        let set = |n: usize, words: &[&str]| {
            let words = [&["CLUSTER", "SETSLOT", &slot], words].concat();
            ask::<String>(&self.masters[n], &words);
        };
        set(to, &["IMPORTING", &source]);
        set(from, &["MIGRATING", &target]);
        let count: usize = ask(&self.masters[from], &["CLUSTER", "COUNTKEYSINSLOT", &slot]);
        let mut moved = 0;
        let mut midway = Some(midway);
        loop {
            let most = MIGRATE_KEYS.min((count / 2).max(1)).to_string();
            let keys: Vec<String> = ask(
                &self.masters[from],
                &["CLUSTER", "GETKEYSINSLOT", &slot, &most],
            );
            if keys.is_empty() {
                break;
            }
            moved += keys.len();
            let port = self.masters[to].port().to_string();
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            ask::<String>(&self.masters[from], &words);
            if moved >= count / 2
                && let Some(midway) = midway.take()
            {
                midway();
            }
        }
        set(to, &["NODE", &target]);
        set(from, &["NODE", &target]);
    }

    fn nodes(&self) -> impl Iterator<Item = &PrivateRedis> {
        self.masters.iter().chain([&self.replica])
    }

    fn id(&self, n: usize) -> String {
        ask(&self.masters[n], &["CLUSTER", "MYID"])
    }

    fn slot(&self, namespace: &Namespace) -> usize {
        let key = Keys::new(namespace).identity();
        ask(&self.masters[0], &["CLUSTER", "KEYSLOT", &key])
    }

    fn wait_for(
        &self,
        node: &PrivateRedis,
        what: &str,
        holds: impl Fn(&PrivateRedis) -> RedisResult<bool>,
    ) {
        eventually(WAIT_TIMEOUT, || {
            if holds(node).unwrap_or(false) {
                return Ok(());
            }
            Err(format!("{what} at {}", node.url()))
        });
    }
}

/// Starts a node that does not know any other node. Also returns its port for the connections
/// between nodes.
fn node(server: &dyn Fn(&[&str]) -> PrivateRedis) -> (PrivateRedis, u16) {
    let bus = free_port();
    let node = server(&[
        "--cluster-enabled",
        "yes",
        "--cluster-config-file",
        "nodes.conf",
        "--cluster-node-timeout",
        "2000",
        "--cluster-port",
        &bus.to_string(),
    ]);
    (node, bus)
}

fn ask<T: FromRedisValue>(node: &PrivateRedis, words: &[&str]) -> T {
    try_ask(node, words).unwrap_or_else(|error| panic!("{words:?} at {}: {error}", node.url()))
}

fn try_ask<T: FromRedisValue>(node: &PrivateRedis, words: &[&str]) -> RedisResult<T> {
    let mut connection: Connection = node.client().get_connection()?;
    let mut command = redis::Cmd::new();
    command.arg(words);
    command.query(&mut connection)
}
