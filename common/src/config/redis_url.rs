//! The address of Redis: the parsed setting `redis.url`.
//!
//! It names one server, the servers that Sentinels watch, or a cluster. Unknown schemes are errors.
//! Passwords are never shown.

use std::fmt;

use super::mask::mask_url;

/// The allowed forms of a URL, for error messages.
const WANT: &str = "want redis[s]://[user:password@]host:port[/db], unix:/path, \
                    redis[s]+sentinel://[user:password@]host:port,…/service[/db] or \
                    redis[s]+cluster://[user:password@]host:port,…";

/// A parsed URL.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RedisUrl {
    /// The topology of the servers.
    pub(crate) topology: Topology,
    /// The servers for the first connection, each a URL of its own with user, password and
    /// database: the one server, the Sentinels (without user and password), or some nodes of the
    /// cluster.
    pub(crate) seeds: Vec<String>,
    /// Set if every connection is encrypted.
    pub(crate) tls: bool,
}

/// The topology of the servers.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One server.
    Single,
    /// Sentinels, which name the current master of a service.
    Sentinel {
        /// The service's name.
        service: String,
        /// The URL of a server of that service, without its host and port.
        server: NodeUrl,
    },
    /// A cluster, whose nodes each hold a part of the keys.
    Cluster {
        /// The URL of a node, without its host and port.
        node: NodeUrl,
    },
}

/// A server's URL without its host and port.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NodeUrl {
    before: String,
    after: String,
}

impl NodeUrl {
    /// Returns the URL of the server at `host:port`.
    pub(crate) fn at(&self, place: &str) -> String {
        format!("{}{place}{}", self.before, self.after)
    }
}

/// Shows no password.
impl fmt::Debug for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_url(&self.at("…")))
    }
}

/// Shows no password.
impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.places())
    }
}

impl RedisUrl {
    /// Parses a URL.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        if url.contains('#') {
            return Err(
                "certificates are always checked: set the authority in redis.tls_ca \
                        (want no `#` in the url)"
                    .to_owned(),
            );
        }
        let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
        let (kind, tls) = match scheme {
            "redis" | "valkey" | "unix" | "redis+unix" | "valkey+unix" => (Kind::Single, false),
            "rediss" | "valkeys" => (Kind::Single, true),
            "redis+sentinel" => (Kind::Sentinel, false),
            "rediss+sentinel" => (Kind::Sentinel, true),
            "redis+cluster" => (Kind::Cluster, false),
            "rediss+cluster" => (Kind::Cluster, true),
            _unknown => return Err(WANT.to_owned()),
        };
        let rest = rest.trim_start_matches("//");
        if rest.is_empty() {
            return Err(WANT.to_owned());
        }
        let read = match kind {
            Kind::Single => Some((Topology::Single, vec![url.to_owned()])),
            Kind::Sentinel => sentinel(rest, tls),
            Kind::Cluster => cluster(rest, tls),
        };
        let (topology, seeds) = read.ok_or_else(|| WANT.to_owned())?;
        Ok(Self {
            topology,
            seeds,
            tls,
        })
    }

    /// Returns the servers for the first connection, as text for messages, without passwords.
    pub(crate) fn places(&self) -> String {
        let places: Vec<String> = self
            .seeds
            .iter()
            .map(|seed| {
                let masked = mask_url(seed);
                let shown = masked.split_once("://").map_or(&*masked, |(_, rest)| rest);
                let place = shown.rsplit_once('@').map_or(shown, |(_, place)| place);
                place.split('?').next().unwrap_or(place).to_owned()
            })
            .collect();
        places.join(",")
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Single,
    Sentinel,
    Cluster,
}

/// Parses `[user:password@]host:port,…/service[/db]`.
fn sentinel(rest: &str, tls: bool) -> Option<(Topology, Vec<String>)> {
    let (user, hosts, path) = parts(rest);
    let (service, db) = match path.split_once('/') {
        Some((service, db)) => (service, Some(db)),
        None => (path, None),
    };
    if service.is_empty() || service.contains('/') {
        return None;
    }
    let after = match db {
        None | Some("") => String::new(),
        Some(db) => format!("/{}", db.parse::<u16>().ok()?),
    };
    let scheme = scheme(tls);
    // The user is for the Redis servers. Sentinels have users of their own.
    let seeds = places(hosts, 26379)?
        .iter()
        .map(|place| format!("{scheme}://{place}"))
        .collect();
    let server = NodeUrl {
        before: format!("{scheme}://{user}"),
        after,
    };
    let service = service.to_owned();
    Some((Topology::Sentinel { service, server }, seeds))
}

/// Parses `[user:password@]host:port,…`. A cluster has no databases.
fn cluster(rest: &str, tls: bool) -> Option<(Topology, Vec<String>)> {
    let (user, hosts, path) = parts(rest);
    if !matches!(path, "" | "0") {
        return None;
    }
    let node = NodeUrl {
        before: format!("{}://{user}", scheme(tls)),
        after: String::new(),
    };
    let seeds = places(hosts, 6379)?
        .iter()
        .map(|place| node.at(place))
        .collect();
    Some((Topology::Cluster { node }, seeds))
}

fn scheme(tls: bool) -> &'static str {
    if tls { "rediss" } else { "redis" }
}

/// Splits the text into the user with password and `@`, the hosts, and the path. A password may
/// contain a `/` or an `@` that was not escaped.
fn parts(rest: &str) -> (&str, &str, &str) {
    let (user, rest) = match rest.rfind('@') {
        Some(at) => rest.split_at(at + 1),
        None => ("", rest),
    };
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    (user, hosts, path)
}

/// Parses comma-separated hosts, and adds the default port where there is none.
fn places(hosts: &str, port: u16) -> Option<Vec<String>> {
    hosts
        .split(',')
        .map(|place| {
            // An IPv6 address stands in brackets, so a colon after the last bracket begins a port.
            let behind = place.rsplit_once(']').map_or(place, |(_, behind)| behind);
            match behind.rsplit_once(':') {
                Some((_, given)) if given.parse::<u16>().is_err() => None,
                Some(_) => (!place.starts_with(':')).then(|| place.to_owned()),
                None => (!place.is_empty()).then(|| format!("{place}:{port}")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_reach_redis_is_read() {
        for (case, url, seeds, tls) in [
            ("one", "redis://h:1/2", vec!["redis://h:1/2"], false),
            (
                "socket",
                "unix:/run/r.sock",
                vec!["unix:/run/r.sock"],
                false,
            ),
            ("encrypted", "rediss://u:p@h", vec!["rediss://u:p@h"], true),
            (
                "sentinel",
                "redis+sentinel://u:p@a:1,b,[::1]:3/main/2",
                vec!["redis://a:1", "redis://b:26379", "redis://[::1]:3"],
                false,
            ),
            (
                "cluster",
                "rediss+cluster://:p@a:1,[::1]",
                vec!["rediss://:p@a:1", "rediss://:p@[::1]:6379"],
                true,
            ),
        ] {
            let read = RedisUrl::parse(url).unwrap();
            assert_eq!(
                (read.seeds, read.tls),
                (seeds.iter().map(|&s| s.to_owned()).collect(), tls),
                "case {case}"
            );
        }
        let read = RedisUrl::parse("redis+sentinel://u:p@a:1/main/2").unwrap();
        let Topology::Sentinel { service, server } = read.topology else {
            panic!("sentinels");
        };
        assert_eq!(service, "main");
        assert_eq!(server.at("h:6"), "redis://u:p@h:6/2");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for url in [
            "http://h",
            "redis:",
            "redis+sentinel://h:1",
            "redis+sentinel://h:1/",
            "redis+sentinel://h:1/main/x",
            "redis+sentinel:///main",
            "redis+cluster://h:1/3",
            "redis+cluster://h:port",
            "redis+cluster://h,,i",
            "rediss://h#insecure",
        ] {
            assert!(RedisUrl::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn passwords_are_not_among_the_places() {
        for (url, want) in [
            ("redis+cluster://u:s@a:1,b:2", "a:1,b:2"),
            ("rediss://u:s@a:1/4", "a:1/4"),
            ("unix:/run/r.sock?pass=s", "unix:/run/r.sock"),
        ] {
            assert_eq!(RedisUrl::parse(url).unwrap().places(), want);
        }
    }
}
