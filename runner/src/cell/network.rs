//! Network namespaces that are kept for another cell because they are unused.
//!
//! A network namespace is the most expensive part of a cell to make and to remove, and most
//! programs never use theirs. A namespace in which nothing was ever sent or refused, and in which
//! no socket is left, is equivalent to a new one. The init of the next cell verifies this by the
//! kernel's counters before it uses the namespace. A namespace that was used is dropped, never
//! cleaned.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use super::loopback;

/// Largest number of kept namespaces: one of the cell that ends, one of the standby cell beside it.
const MAX_POOLED_NETWORKS: usize = 2;

/// Counters of packets, refusals and errors, of IPv4 and of IPv6.
const COUNTERS_FILE: &str = "/proc/self/net/snmp";
const COUNTERS_FILE_IPV6: &str = "/proc/self/net/snmp6";

/// Number of sockets in use.
const SOCKETS_FILE: &str = "/proc/self/net/sockstat";

/// Flow labels, which stay for some seconds after their socket is closed.
const FLOW_LABELS_FILE: &str = "/proc/self/net/ip6_flowlabel";

/// Usual and largest size of these files, in bytes. A file that was cut off proves nothing.
const USUAL_FILE_BYTES: usize = 8 << 10;
const MAX_FILE_BYTES: usize = 1 << 20;

/// Names in the tables of counters that are settings.
const SETTING_NAMES: [&str; 6] = [
    "Forwarding",
    "DefaultTTL",
    "RtoAlgorithm",
    "RtoMin",
    "RtoMax",
    "MaxConn",
];

/// Network namespaces of finished cells.
#[derive(Debug, Default)]
pub(super) struct NetworkPool(RefCell<Vec<OwnedFd>>);

impl NetworkPool {
    /// Returns a namespace for the next cell, which must enter it by [`enter_or_replace`].
    pub(super) fn take(&self) -> Option<OwnedFd> {
        self.0.borrow_mut().pop()
    }

    /// Keeps the namespace of a cell whose processes are all dead, if there is room.
    pub(super) fn put(&self, network: OwnedFd) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < MAX_POOLED_NETWORKS {
            kept.push(network);
        }
    }
}

/// Enters a kept namespace, or a new one if the kept one was used after all.
///
/// # Errors
/// Fails if the kernel refuses a new one, or its loopback does not come up.
pub(super) fn enter_or_replace(kept: BorrowedFd<'_>) -> Result<(), Errno> {
    if setns(kept.as_fd(), CloneFlags::CLONE_NEWNET).is_ok() && is_unused().unwrap_or(false) {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNET)?;
    loopback::bring_up_loopback()
}

/// Returns whether this process's network namespace is equivalent to a new one.
fn is_unused() -> io::Result<bool> {
    Ok(no_sockets(&read(SOCKETS_FILE)?)
        && all_zero(&read(COUNTERS_FILE)?)
        && all_zero_by_line(&read_optional(COUNTERS_FILE_IPV6)?)
        && read_optional(FLOW_LABELS_FILE)?.lines().count() <= 1)
}

/// Reads all of a small kernel file, whose length is unknown before it is read.
fn read(path: &str) -> io::Result<String> {
    let mut text = String::with_capacity(USUAL_FILE_BYTES);
    let length = File::open(path)?
        .take(MAX_FILE_BYTES as u64)
        .read_to_string(&mut text)?;
    if length == MAX_FILE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// Reads a file that does not exist if the kernel has no IPv6. A missing file counts as empty.
fn read_optional(path: &str) -> io::Result<String> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

/// Returns whether no socket of any family is left. The memory counts below the first line are
/// those of the machine and are ignored.
fn no_sockets(table: &str) -> bool {
    table.lines().next() == Some("sockets: used 0")
}

/// Returns whether every counter is zero, in a table in which each line of names precedes a line of
/// values.
fn all_zero(table: &str) -> bool {
    let lines: Vec<&str> = table.lines().collect();
    let (pairs, rest) = lines.as_chunks::<2>();
    let zero = |[names, values]: &[&str; 2]| {
        // Both lines begin with the protocol.
        let names = names.split_ascii_whitespace();
        let values = values.split_ascii_whitespace();
        names.clone().count() == values.clone().count()
            && names
                .zip(values)
                .skip(1)
                .all(|(name, value)| value == "0" || SETTING_NAMES.contains(&name))
    };
    !pairs.is_empty() && rest.is_empty() && pairs.iter().all(zero)
}

/// Returns whether every counter is zero, in a table with one name and one value in each line.
fn all_zero_by_line(table: &str) -> bool {
    table
        .lines()
        .all(|line| line.split_ascii_whitespace().nth(1) == Some("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "Ip: Forwarding DefaultTTL InReceives OutNoRoutes\nIp: 1 64 0 0\n\
                       Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens\n\
                       Tcp: 1 200 120000 -1 0\n";

    #[test]
    fn settings_are_no_counts() {
        assert!(all_zero(NEW));
    }

    #[test]
    fn one_packet_one_refusal_or_one_connection_is_use() {
        for (unused, used) in [
            ("1 64 0 0", "1 64 1 0"),
            ("1 64 0 0", "1 64 0 1"),
            ("-1 0", "-1 1"),
        ] {
            assert!(!all_zero(&NEW.replace(unused, used)), "{used}");
        }
        assert!(all_zero_by_line("Ip6InReceives \t0\nIp6OutRequests \t0\n"));
        assert!(!all_zero_by_line("Ip6InReceives \t0\nIp6OutRequests \t2\n"));
    }

    #[test]
    fn what_cannot_be_read_is_no_proof() {
        for odd in [
            "",
            "Ip: InReceives\n",
            "Ip: InReceives OutRequests\nIp: 0\n",
        ] {
            assert!(!all_zero(odd), "{odd:?}");
        }
        assert!(!all_zero_by_line("Ip6InReceives\n"));
        assert!(!no_sockets(""));
    }

    #[test]
    fn a_socket_that_is_left_is_use() {
        assert!(no_sockets(
            "sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 13 mem 0\n"
        ));
        assert!(!no_sockets(
            "sockets: used 1\nTCP: inuse 0 orphan 0 tw 0 alloc 13 mem 0\n"
        ));
    }
}
