//! Finds the master of a service, which the Sentinels name.
//!
//! The first Sentinel that names a master is trusted, and the named server is asked whether it is a
//! master, because a Sentinel may not have noticed a failover yet.

use redis::{Client, RedisError, Value};

use super::{Node, Route, Unreachable, client, place_of};
use crate::config::{NodeUrl, RedisSettings};
use crate::queue::fault;

impl Route {
    /// Connects to the master of a service.
    pub(super) async fn master(
        &self,
        sentinels: &[Client],
        service: &str,
        server: &NodeUrl,
    ) -> Result<Node, Unreachable> {
        let mut refused = None;
        let mut silent = None;
        for sentinel in sentinels {
            let named = self.ask_sentinel(sentinel, service).await;
            let place = match named {
                Ok(Some(place)) => place,
                Ok(None) => continue,
                Err(source) => {
                    silent = Some(source);
                    continue;
                }
            };
            let found = match client(&server.at(&place), &self.tls) {
                Ok(client) => self.connect(&client).await,
                Err(source) => Err(Unreachable::Server { place, source }),
            };
            match found {
                Ok(mut node) => {
                    if is_master(&mut node).await {
                        return Ok(node);
                    }
                    // This Sentinel has not noticed the failover yet.
                }
                Err(unreachable) => refused = Some(unreachable),
            }
        }
        Err(refused.unwrap_or_else(|| Unreachable::NoMaster {
            service: service.to_owned(),
            sentinels: self.places.clone(),
            source: silent,
        }))
    }

    async fn ask_sentinel(
        &self,
        sentinel: &Client,
        service: &str,
    ) -> Result<Option<String>, RedisError> {
        let mut node = match self.connect(sentinel).await {
            Ok(node) => node,
            Err(Unreachable::Server { source, .. }) => return Err(source),
            Err(Unreachable::NoMaster { source, .. }) => {
                return source.map_or(Ok(None), Err);
            }
        };
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let answer: Option<(String, u16)> = command.query_async(&mut node.connection).await?;
        Ok(answer.map(|(host, port)| place_of(&host, port)))
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
        Err(error) => fault::is_forbidden(&error),
    }
}

/// Returns the same client, with the login for the Sentinels.
pub(super) fn sentinel_login(
    client: Client,
    settings: &RedisSettings,
) -> Result<Client, RedisError> {
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
