//! Connects to one server, whose address is known.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisError, TlsCertificates,
};

use crate::QueueError;

/// A connection to one server.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Address of the server.
    pub(crate) address: String,
    /// The connection.
    pub(crate) connection: MultiplexedConnection,
}

/// Reason why the server could not be reached. It can be cloned, because several callers may wait
/// for one connection.
#[derive(Debug, Clone)]
pub(crate) enum Unreachable {
    /// A server did not accept the connection.
    Server { address: String, source: RedisError },
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
            Unreachable::Server { address, source } => Self::Connect { address, source },
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

/// The settings with which a [`Node`] is connected.
#[derive(Debug)]
pub(super) struct NodeConnector {
    pub(super) tls: TlsCertificates,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
}

impl NodeConnector {
    /// Connects to a server, with a single attempt.
    pub(super) async fn connect(&self, client: &Client) -> Result<Node, Unreachable> {
        let address = client.get_connection_info().addr().to_string();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout));
        match client
            .get_multiplexed_async_connection_with_config(&config)
            .await
        {
            Ok(connection) => Ok(Node {
                address,
                connection,
            }),
            Err(source) => Err(Unreachable::Server { address, source }),
        }
    }
}

/// Creates the client of one server. It disables Nagle's algorithm, which redis-rs leaves on,
/// because small commands must not be delayed.
pub(super) fn node_client(url: &str, tls: &TlsCertificates) -> Result<Client, RedisError> {
    let info = url.into_connection_info()?;
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let info = info.set_tcp_settings(tcp);
    match info.addr() {
        ConnectionAddr::TcpTls { .. } => Client::build_with_tls(info, tls.clone()),
        _ => Client::open(info),
    }
}

/// Formats a host and a port as in a URL.
pub(super) fn format_address(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_no_password_in_its_address_and_no_nagle_delay() {
        let none = TlsCertificates {
            client_tls: None,
            root_cert: None,
        };
        let client = node_client("redis://me:secret@127.0.0.1:6380", &none).unwrap();
        let info = client.get_connection_info();
        assert_eq!(info.addr().to_string(), "127.0.0.1:6380");
        assert!(info.tcp_settings().nodelay());
    }
}
