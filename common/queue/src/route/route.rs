//! The route to the server that holds the queue.

use redis::{Client, ErrorKind, RedisError, TlsCertificates};
use sandhog_config::{RedisSettings, RedisUrl, Topology};

use super::cluster::{ClusterRoute, redirection_address};
use super::node::{Node, NodeConnector, Unreachable, node_client};
use super::sentinel::SentinelRoute;
use crate::QueueError;
use crate::tls::tls_certificates;

/// The route to the server that holds the queue.
#[derive(Debug)]
pub(crate) struct Route {
    topology: RouteTopology,
    connector: NodeConnector,
    /// Addresses in the settings, for messages.
    addresses: String,
}

/// The servers that may hold the queue.
#[derive(Debug)]
enum RouteTopology {
    /// A single server.
    Single(Client),
    /// The master of a service that Sentinels watch.
    Sentinel(SentinelRoute),
    /// A cluster.
    Cluster(ClusterRoute),
}

impl Route {
    /// Reads the settings, without connecting. `key` is one of the queue's keys.
    pub(crate) fn new(settings: &RedisSettings, key: &str) -> Result<Self, QueueError> {
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
            tls_certificates(settings)?
        } else {
            TlsCertificates {
                client_tls: None,
                root_cert: None,
            }
        };
        let addresses = url.hosts();
        let mut clients = url
            .seeds
            .iter()
            .map(|seed| node_client(seed, &tls).map_err(refuse))
            .collect::<Result<Vec<_>, _>>()?;
        let topology = match url.topology {
            Topology::Single => match clients.pop() {
                Some(client) => RouteTopology::Single(client),
                None => return Err(QueueError::NoAddress),
            },
            Topology::Sentinel { service, server } => RouteTopology::Sentinel(
                SentinelRoute::new(clients, service, server, settings).map_err(refuse)?,
            ),
            Topology::Cluster { node } => {
                RouteTopology::Cluster(ClusterRoute::new(clients, node, key.to_owned()))
            }
        };
        Ok(Self {
            topology,
            connector: NodeConnector {
                tls,
                connect_timeout: settings.connect_timeout_ms.duration(),
                response_timeout: settings.response_timeout_ms.duration(),
            },
            addresses,
        })
    }

    /// Finds the server and connects to it, with a single attempt.
    pub(crate) async fn node(&self) -> Result<Node, Unreachable> {
        match &self.topology {
            RouteTopology::Single(client) => self.connector.connect(client).await,
            RouteTopology::Sentinel(sentinel) => {
                sentinel.master(&self.connector, &self.addresses).await
            }
            RouteTopology::Cluster(cluster) => {
                cluster.owner(&self.connector, &self.addresses).await
            }
        }
    }

    /// Records that the keys are elsewhere, as the node at `from` reports. `to` is `host:port`, or
    /// `:port` for the same host.
    pub(crate) fn note_moved(&self, from: &str, to: &str) {
        if let RouteTopology::Cluster(cluster) = &self.topology {
            cluster.note_moved(from, to, &self.connector.tls);
        }
    }

    /// Connects to the node at `to` that is taking over the keys, as the node at `from` reports.
    pub(crate) async fn node_at(&self, from: &str, to: &str) -> Result<Node, Unreachable> {
        let address = redirection_address(from, to);
        let RouteTopology::Cluster(cluster) = &self.topology else {
            return Err(Unreachable::Server {
                address,
                source: RedisError::from((
                    ErrorKind::ClusterConnectionNotFound,
                    "redirected by a server that is not part of a cluster",
                )),
            });
        };
        let client = cluster
            .client_at(&address, &self.connector.tls)
            .map_err(|source| Unreachable::Server { address, source })?;
        self.connector.connect(&client).await
    }
}

/// Returns an invalid address for a message, without a part that may be a password: only the text
/// after the last `@`.
fn without_password(url: &str) -> String {
    let shown = match url.rsplit_once('@') {
        Some((_secret, address)) => format!("…@{address}"),
        None => url.to_owned(),
    };
    sandhog_core::id::clip(&shown, 160)
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
    }
}
