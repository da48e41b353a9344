//! Finds the master of a service, which the Sentinels name.
//!
//! The first Sentinel that names a master is trusted, and the named server is asked whether it is a
//! master, because a Sentinel may not have noticed a failover yet.

use redis::{Client, RedisError, Value};
use sandhog_config::{NodeUrl, RedisSettings};

use super::node::{Node, NodeConnector, Unreachable, format_address, node_client};
use crate::redis_error;

/// The route to the master of a service.
#[derive(Debug)]
pub(super) struct SentinelRoute {
    sentinels: Vec<Client>,
    service: String,
    server: NodeUrl,
}

impl SentinelRoute {
    /// Returns the route to the master of `service`. `server` has the form of a server's address.
    pub(super) fn new(
        sentinels: Vec<Client>,
        service: String,
        server: NodeUrl,
        settings: &RedisSettings,
    ) -> Result<Self, RedisError> {
        Ok(Self {
            sentinels: sentinels
                .into_iter()
                .map(|client| with_sentinel_login(client, settings))
                .collect::<Result<Vec<_>, _>>()?,
            service,
            server,
        })
    }

    /// Connects to the master of the service. `addresses` are those of the Sentinels, for messages.
    pub(super) async fn master(
        &self,
        connector: &NodeConnector,
        addresses: &str,
    ) -> Result<Node, Unreachable> {
        let mut unreachable_master = None;
        let mut sentinel_error = None;
        for sentinel in &self.sentinels {
            let named = self.named_master(connector, sentinel).await;
            let address = match named {
                Ok(Some(address)) => address,
                Ok(None) => continue,
                Err(source) => {
                    sentinel_error = Some(source);
                    continue;
                }
            };
            let found = match node_client(&self.server.for_host(&address), &connector.tls) {
                Ok(client) => connector.connect(&client).await,
                Err(source) => Err(Unreachable::Server { address, source }),
            };
            match found {
                Ok(mut node) => {
                    if is_master(&mut node).await {
                        return Ok(node);
                    }
                    // This Sentinel has not noticed the failover yet.
                }
                Err(unreachable) => unreachable_master = Some(unreachable),
            }
        }
        Err(unreachable_master.unwrap_or_else(|| Unreachable::NoMaster {
            service: self.service.clone(),
            sentinels: addresses.to_owned(),
            source: sentinel_error,
        }))
    }

    /// Returns the address of the master that a Sentinel names, if it names one.
    async fn named_master(
        &self,
        connector: &NodeConnector,
        sentinel: &Client,
    ) -> Result<Option<String>, RedisError> {
        let mut node = match connector.connect(sentinel).await {
            Ok(node) => node,
            Err(Unreachable::Server { source, .. }) => return Err(source),
            Err(Unreachable::NoMaster { source, .. }) => {
                return source.map_or(Ok(None), Err);
            }
        };
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        let answer: Option<(String, u16)> = command.query_async(&mut node.connection).await?;
        Ok(answer.map(|(host, port)| format_address(&host, port)))
    }
}

/// Returns whether a server accepts writes. A server that forbids the question is taken for a
/// master.
async fn is_master(node: &mut Node) -> bool {
    let answer = node
        .connection
        .send_packed_command(&redis::cmd("ROLE"))
        .await
        .and_then(Value::extract_error);
    match answer {
        Ok(Value::Array(parts)) => match parts.first() {
            Some(Value::BulkString(role)) => role == b"master",
            Some(_) | None => false,
        },
        Ok(_) => false,
        Err(error) => redis_error::is_forbidden(&error),
    }
}

/// Returns the same client, with the login for the Sentinels.
fn with_sentinel_login(client: Client, settings: &RedisSettings) -> Result<Client, RedisError> {
    let info = client.get_connection_info().clone();
    let mut login = info.redis_settings().clone();
    if let Some(user) = &settings.sentinel_user {
        login = login.set_username(user);
    }
    if let Some(password) = &settings.sentinel_password {
        login = login.set_password(password);
    }
    Client::open(info.set_redis_settings(login))
}
