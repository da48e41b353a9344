//! Finds the node of a cluster that owns a namespace's slot.
//!
//! Every node knows the owner, and names it when it is asked for a key that it does not own. So no
//! map of the cluster is kept, and no command is used that a user with few permissions may not use.

use std::sync::{Mutex, PoisonError};

use redis::{Client, Cmd, ErrorKind, RedisError, TlsCertificates, Value};
use sandhog_config::NodeUrl;

use super::node::{Node, NodeConnector, Unreachable, format_address, node_client};
use crate::redis_error::{self, RedisErrorRemedy as Remedy};

/// Maximum number of redirections before the owner is found.
const REDIRECTION_LIMIT: usize = 5;

/// The route to the owner of a key. Every node knows which node owns the key.
#[derive(Debug)]
pub(super) struct ClusterRoute {
    /// Nodes in the settings.
    seeds: Vec<Client>,
    node: NodeUrl,
    key: String,
    /// The node that was last reported as the owner.
    owner: Mutex<Option<Client>>,
}

impl ClusterRoute {
    /// Returns the route to the owner of `key`. `node` has the form of every node's address.
    pub(super) fn new(seeds: Vec<Client>, node: NodeUrl, key: String) -> Self {
        Self {
            seeds,
            node,
            key,
            owner: Mutex::new(None),
        }
    }

    /// Connects to the node that owns the key. It first tries the node that was last reported as
    /// the owner, and then the seeds. `addresses` are those of the seeds, for messages.
    pub(super) async fn owner(
        &self,
        connector: &NodeConnector,
        addresses: &str,
    ) -> Result<Node, Unreachable> {
        let mut failed = None;
        let begin = self
            .reported_owner()
            .into_iter()
            .chain(self.seeds.iter().cloned());
        for first in begin {
            let mut next = Some(first);
            for _ in 0..REDIRECTION_LIMIT {
                let Some(client) = next.take() else { break };
                let mut node = match connector.connect(&client).await {
                    Ok(node) => node,
                    Err(unreachable) => {
                        failed = Some(unreachable);
                        break;
                    }
                };
                let answer = node
                    .connection
                    .send_packed_command(&exists(&self.key))
                    .await;
                match answer.and_then(Value::extract_error) {
                    Ok(_) => return Ok(node),
                    Err(source) => match redis_error::remedy(&source) {
                        Remedy::Elsewhere(to) => {
                            self.note_moved(&node.address, to, &connector.tls);
                            next = self.reported_owner();
                        }
                        Remedy::OtherNode | Remedy::Wait | Remedy::Reconnect | Remedy::Late => {
                            let address = node.address;
                            failed = Some(Unreachable::Server { address, source });
                        }
                        // While a slot is being moved, its old owner still answers for it. A user
                        // who lacks the permission for this check gets the error with the first
                        // command.
                        Remedy::Asking(_) | Remedy::Final => return Ok(node),
                    },
                }
            }
        }
        Err(failed.unwrap_or_else(|| Unreachable::Server {
            address: addresses.to_owned(),
            source: RedisError::from((
                ErrorKind::ClusterConnectionNotFound,
                "the cluster's nodes disagree about which node holds the keys",
            )),
        }))
    }

    /// Records that the node at `to` owns the key, as the node at `from` reports.
    pub(super) fn note_moved(&self, from: &str, to: &str, tls: &TlsCertificates) {
        // An address that cannot be parsed is dropped: the seeds report the owner again.
        let client = self.client_at(&redirection_address(from, to), tls).ok();
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// Creates the client of the node at `address`.
    pub(super) fn client_at(
        &self,
        address: &str,
        tls: &TlsCertificates,
    ) -> Result<Client, RedisError> {
        node_client(&self.node.for_host(address), tls)
    }

    fn reported_owner(&self) -> Option<Client> {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        owner.clone()
    }
}

/// Returns a command that changes nothing and that only the owner of a key answers.
fn exists(key: &str) -> Cmd {
    let mut command = redis::cmd("EXISTS");
    command.arg(key);
    command
}

/// Returns the address of a redirection. If it names no host, its host is that of the node that
/// sent it.
pub(super) fn redirection_address(from: &str, to: &str) -> String {
    let (host, port) = to.rsplit_once(':').unwrap_or(("", to));
    let host = match host {
        "" | "?" => from.rsplit_once(':').map_or(from, |(host, _)| host),
        named => named,
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match port.parse() {
        Ok(port) => format_address(bare, port),
        Err(_no_port) => to.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirection_without_a_host_means_the_same_host() {
        for (from, to, want) in [
            ("h:1", "i:2", "i:2"),
            ("h:1", ":2", "h:2"),
            ("h:1", "?:2", "h:2"),
            ("[::1]:1", ":2", "[::1]:2"),
            ("h:1", "::1:2", "[::1]:2"),
        ] {
            assert_eq!(redirection_address(from, to), want, "{from} {to}");
        }
    }
}
