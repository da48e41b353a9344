//! Finds the server that holds the queue, and connects to it.
//!
//! All keys of a namespace are in one hash slot, so one server holds all of them: the configured
//! server, the master that the Sentinels name, or the cluster node that owns the slot. A route
//! finds this server, and finds it again when it changes. It follows the answers of the servers and
//! keeps no map of the cluster.

mod cluster;
mod sentinel;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError,
    TlsCertificates,
};

use super::{QueueError, tls};
use cluster::same_host;
use sentinel::sentinel_login;

use crate::config::{NodeUrl, RedisSettings, RedisUrl, Topology};

/// The route to the server that holds the queue.
#[derive(Debug)]
pub(super) struct Route {
    way: Way,
    tls: TlsCertificates,
    /// Addresses in the settings, for messages.
    places: String,
    connect_timeout: Duration,
    response_timeout: Duration,
}

#[derive(Debug)]
enum Way {
    /// A single server.
    Single(Client),
    /// Several Sentinels. The first one that names a master is trusted, and the named server is
    /// asked whether it is a master.
    Sentinel {
        sentinels: Vec<Client>,
        service: String,
        server: NodeUrl,
    },
    /// A cluster. Every node knows which node owns the key.
    Cluster {
        seeds: Vec<Client>,
        node: NodeUrl,
        key: String,
        /// The node that was last reported as the owner.
        owner: Mutex<Option<Client>>,
    },
}

/// A connection to the server that holds the queue.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Address of the server.
    pub(super) place: String,
    /// The connection.
    pub(super) connection: MultiplexedConnection,
}

/// Reason why the server could not be reached. It can be cloned, because several callers may wait
/// for one connection.
#[derive(Debug, Clone)]
pub(super) enum Unreachable {
    /// A server did not accept the connection.
    Server { place: String, source: RedisError },
    /// No Sentinel named a master.
    NoMaster {
        service: String,
        sentinels: String,
        source: Option<RedisError>,
    },
}

impl From<Unreachable> for QueueError {
    fn from(unreachable: Unreachable) -> Self {
        match unreachable {
            Unreachable::Server { place, source } => Self::Connect {
                address: place,
                source,
            },
            Unreachable::NoMaster {
                service,
                sentinels,
                source,
            } => Self::NoMaster {
                service,
                sentinels,
                source,
            },
        }
    }
}

impl Route {
    /// Reads the settings, without connecting. `key` is one of the queue's keys.
    pub(super) fn new(settings: &RedisSettings, key: &str) -> Result<Self, QueueError> {
        let text = settings.url.as_deref().ok_or(QueueError::NoAddress)?;
        let refuse = |source| QueueError::Address {
            address: without_password(text),
            source,
        };
        let url = RedisUrl::parse(text).map_err(|want| {
            let kind = ErrorKind::InvalidClientConfig;
            refuse(RedisError::from((kind, "not understood", want)))
        })?;
        let tls = if url.tls {
            tls::certificates(settings)?
        } else {
            TlsCertificates {
                client_tls: None,
                root_cert: None,
            }
        };
        let places = url.places();
        let mut clients = url
            .seeds
            .iter()
            .map(|seed| client(seed, &tls).map_err(refuse))
            .collect::<Result<Vec<_>, _>>()?;
        let way = match url.topology {
            Topology::Single => match clients.pop() {
                Some(client) => Way::Single(client),
                None => return Err(QueueError::NoAddress),
            },
            Topology::Sentinel { service, server } => Way::Sentinel {
                sentinels: clients
                    .into_iter()
                    .map(|client| sentinel_login(client, settings).map_err(refuse))
                    .collect::<Result<Vec<_>, _>>()?,
                service,
                server,
            },
            Topology::Cluster { node } => Way::Cluster {
                seeds: clients,
                node,
                key: key.to_owned(),
                owner: Mutex::new(None),
            },
        };
        Ok(Self {
            way,
            tls,
            places,
            connect_timeout: settings.connect_timeout_ms.duration(),
            response_timeout: settings.response_timeout_ms.duration(),
        })
    }

    /// Finds the server and connects to it, with a single attempt.
    pub(super) async fn node(&self) -> Result<Node, Unreachable> {
        match &self.way {
            Way::Single(client) => self.connect(client).await,
            Way::Sentinel {
                sentinels,
                service,
                server,
            } => self.master(sentinels, service, server).await,
            Way::Cluster {
                seeds, key, owner, ..
            } => self.owner(seeds, key, owner).await,
        }
    }

    /// Records that the keys are elsewhere, as the node at `from` reports. `to` is `host:port`, or
    /// `:port` for the same host.
    pub(super) fn moved(&self, from: &str, to: &str) {
        let Way::Cluster { node, owner, .. } = &self.way else {
            return;
        };
        // An address that cannot be parsed is dropped: the seeds report the owner again.
        let client = client(&node.at(&same_host(from, to)), &self.tls).ok();
        *owner.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// Connects to the node at `to` that is taking over the keys, as the node at `from` reports.
    pub(super) async fn beside(&self, from: &str, to: &str) -> Result<Node, Unreachable> {
        let place = same_host(from, to);
        let Way::Cluster { node, .. } = &self.way else {
            return Err(Unreachable::Server {
                place,
                source: RedisError::from((
                    ErrorKind::ClusterConnectionNotFound,
                    "redirected by a server that is not part of a cluster",
                )),
            });
        };
        let client = client(&node.at(&place), &self.tls)
            .map_err(|source| Unreachable::Server { place, source })?;
        self.connect(&client).await
    }

    async fn connect(&self, client: &Client) -> Result<Node, Unreachable> {
        let place = client.get_connection_info().addr().to_string();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout));
        match client
            .get_multiplexed_async_connection_with_config(&config)
            .await
        {
            Ok(connection) => Ok(Node { place, connection }),
            Err(source) => Err(Unreachable::Server { place, source }),
        }
    }
}

/// Creates the client of one server. It disables Nagle's algorithm, which redis-rs leaves on,
/// because small commands must not be delayed.
fn client(url: &str, tls: &TlsCertificates) -> Result<Client, RedisError> {
    let info = url.into_connection_info()?;
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let info = info.set_tcp_settings(tcp);
    match info.addr() {
        ConnectionAddr::TcpTls { .. } => Client::build_with_tls(info, tls.clone()),
        _ => Client::open(info),
    }
}

/// Formats a host and a port as in a URL.
fn place_of(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Returns an invalid address for a message, without a part that may be a password: only the text
/// after the last `@`.
fn without_password(url: &str) -> String {
    let shown = match url.rsplit_once('@') {
        Some((_secret, place)) => format!("…@{place}"),
        None => url.to_owned(),
    };
    crate::id::clip(&shown, 160)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_out_of_messages() {
        for (case, url, want) in [
            ("password", "redis://me:secret@host:1/x/y", "…@host:1/x/y"),
            ("plain", "host:1", "host:1"),
        ] {
            assert_eq!(without_password(url), want, "case {case}");
        }
        let none = TlsCertificates {
            client_tls: None,
            root_cert: None,
        };
        let client = client("redis://me:secret@127.0.0.1:6380", &none).unwrap();
        let info = client.get_connection_info();
        assert_eq!(info.addr().to_string(), "127.0.0.1:6380");
        assert!(info.tcp_settings().nodelay());
    }
}
