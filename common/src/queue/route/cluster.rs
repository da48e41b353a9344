//! Finds the node of a cluster that owns a namespace's slot.
//!
//! Every node knows the owner, and names it when it is asked for a key that it does not own. So no
//! map of the cluster is kept, and no command is used that a user with few permissions may not use.

use std::sync::{Mutex, PoisonError};

use redis::{Client, Cmd, ErrorKind, RedisError, Value};

use super::{Node, Route, Unreachable, place_of};
use crate::queue::fault::{self, Remedy};

/// Maximum number of redirections before the owner is found.
const HOPS: usize = 5;

impl Route {
    /// Connects to the node that owns the key. It first tries the node that was last reported as
    /// the owner, and then the seeds.
    pub(super) async fn owner(
        &self,
        seeds: &[Client],
        key: &str,
        owner: &Mutex<Option<Client>>,
    ) -> Result<Node, Unreachable> {
        let known = || owner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut failed = None;
        let begin = known().into_iter().chain(seeds.iter().cloned());
        for first in begin {
            let mut next = Some(first);
            for _ in 0..HOPS {
                let Some(client) = next.take() else { break };
                let mut node = match self.connect(&client).await {
                    Ok(node) => node,
                    Err(unreachable) => {
                        failed = Some(unreachable);
                        break;
                    }
                };
                let answer = node.connection.send_packed_command(&exists(key)).await;
                match answer.and_then(Value::extract_error) {
                    Ok(_) => return Ok(node),
                    Err(source) => match fault::remedy(&source) {
                        Remedy::Elsewhere(to) => {
                            self.moved(&node.place, to);
                            next = known();
                        }
                        Remedy::OtherNode | Remedy::Wait | Remedy::Reconnect | Remedy::Late => {
                            let place = node.place;
                            failed = Some(Unreachable::Server { place, source });
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
            place: self.places.clone(),
            source: RedisError::from((
                ErrorKind::ClusterConnectionNotFound,
                "the cluster's nodes disagree about which node holds the keys",
            )),
        }))
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
pub(super) fn same_host(from: &str, to: &str) -> String {
    let (host, port) = to.rsplit_once(':').unwrap_or(("", to));
    let host = match host {
        "" | "?" => from.rsplit_once(':').map_or(from, |(host, _)| host),
        named => named,
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match port.parse() {
        Ok(port) => place_of(bare, port),
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
            assert_eq!(same_host(from, to), want, "{from} {to}");
        }
    }
}
