//! The address of Redis: the parsed setting `redis.url`.
//!
//! It names one server, the servers that Sentinels watch, or a cluster. Unknown schemes are errors.
//! Passwords are never shown.

use std::fmt;

use super::mask::mask_url;

/// The allowed forms of a URL, for error messages.
const ALLOWED_FORMS: &str = "want redis[s]://[user:password@]host:port[/db], unix:/path, \
                    redis[s]+sentinel://[user:password@]host:port,…/service[/db] or \
                    redis[s]+cluster://[user:password@]host:port,…";

/// A parsed URL.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// The topology of the servers.
    pub topology: Topology,
    /// The servers for the first connection, each a URL of its own with user, password and
    /// database: the one server, the Sentinels (without user and password), or some nodes of the
    /// cluster.
    pub seeds: Vec<String>,
    /// Set if every connection is encrypted.
    pub tls: bool,
}

/// The topology of the servers.
#[derive(Clone, PartialEq, Eq)]
pub enum Topology {
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
pub struct NodeUrl {
    prefix: String,
    suffix: String,
}

impl NodeUrl {
    /// Returns the URL of the server at `host:port`.
    pub fn for_host(&self, host: &str) -> String {
        format!("{}{host}{}", self.prefix, self.suffix)
    }
}

/// Shows no password.
impl fmt::Debug for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_url(&self.for_host("…")))
    }
}

/// Shows no password.
impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hosts())
    }
}

impl RedisUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// Returns the allowed forms if the URL has none of them.
    pub fn parse(url: &str) -> Result<Self, String> {
        if url.contains('#') {
            return Err(
                "certificates are always checked: set the authority in redis.tls_ca \
                        (want no `#` in the url)"
                    .to_owned(),
            );
        }
        let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
        let (kind, tls) = match scheme {
            "redis" | "valkey" | "unix" | "redis+unix" | "valkey+unix" => (UrlKind::Single, false),
            "rediss" | "valkeys" => (UrlKind::Single, true),
            "redis+sentinel" => (UrlKind::Sentinel, false),
            "rediss+sentinel" => (UrlKind::Sentinel, true),
            "redis+cluster" => (UrlKind::Cluster, false),
            "rediss+cluster" => (UrlKind::Cluster, true),
            _unknown => return Err(ALLOWED_FORMS.to_owned()),
        };
        let rest = rest.trim_start_matches("//");
        if rest.is_empty() {
            return Err(ALLOWED_FORMS.to_owned());
        }
        let read = match kind {
            UrlKind::Single => Some((Topology::Single, vec![url.to_owned()])),
            UrlKind::Sentinel => sentinel(rest, tls),
            UrlKind::Cluster => cluster(rest, tls),
        };
        let (topology, seeds) = read.ok_or_else(|| ALLOWED_FORMS.to_owned())?;
        Ok(Self {
            topology,
            seeds,
            tls,
        })
    }

    /// Returns the servers for the first connection, as text for messages, without passwords.
    pub fn hosts(&self) -> String {
        let hosts: Vec<String> = self
            .seeds
            .iter()
            .map(|seed| {
                let masked = mask_url(seed);
                let shown = masked.split_once("://").map_or(&*masked, |(_, rest)| rest);
                let host = shown.rsplit_once('@').map_or(shown, |(_, host)| host);
                host.split('?').next().unwrap_or(host).to_owned()
            })
            .collect();
        hosts.join(",")
    }
}

#[derive(Clone, Copy)]
enum UrlKind {
    Single,
    Sentinel,
    Cluster,
}

/// Parses `[user:password@]host:port,…/service[/db]`.
fn sentinel(rest: &str, tls: bool) -> Option<(Topology, Vec<String>)> {
    let (user, hosts, path) = split_authority(rest);
    let (service, db) = match path.split_once('/') {
        Some((service, db)) => (service, Some(db)),
        None => (path, None),
    };
    if service.is_empty() || service.contains('/') {
        return None;
    }
    let suffix = match db {
        None | Some("") => String::new(),
        Some(db) => format!("/{}", db.parse::<u16>().ok()?),
    };
    let scheme = scheme(tls);
    // The user is for the Redis servers. Sentinels have users of their own.
    let seeds = parse_hosts(hosts, 26379)?
        .iter()
        .map(|host| format!("{scheme}://{host}"))
        .collect();
    let server = NodeUrl {
        prefix: format!("{scheme}://{user}"),
        suffix,
    };
    let service = service.to_owned();
    Some((Topology::Sentinel { service, server }, seeds))
}

/// Parses `[user:password@]host:port,…`. A cluster has no databases.
fn cluster(rest: &str, tls: bool) -> Option<(Topology, Vec<String>)> {
    let (user, hosts, path) = split_authority(rest);
    if !matches!(path, "" | "0") {
        return None;
    }
    let node = NodeUrl {
        prefix: format!("{}://{user}", scheme(tls)),
        suffix: String::new(),
    };
    let seeds = parse_hosts(hosts, 6379)?
        .iter()
        .map(|host| node.for_host(host))
        .collect();
    Some((Topology::Cluster { node }, seeds))
}

fn scheme(tls: bool) -> &'static str {
    if tls { "rediss" } else { "redis" }
}

/// Splits the text into the user with password and `@`, the hosts, and the path. A password may
/// contain a `/` or an `@` that was not escaped.
fn split_authority(rest: &str) -> (&str, &str, &str) {
    let (user, rest) = match rest.rfind('@') {
        Some(at) => rest.split_at(at + 1),
        None => ("", rest),
    };
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    (user, hosts, path)
}

/// Parses comma-separated hosts, and adds the default port where there is none.
fn parse_hosts(hosts: &str, port: u16) -> Option<Vec<String>> {
    hosts
        .split(',')
        .map(|host| {
            // An IPv6 address stands in brackets, so a colon after the last bracket begins a port.
            let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
            match behind.rsplit_once(':') {
                Some((_, given)) if given.parse::<u16>().is_err() => None,
                Some(_) => (!host.starts_with(':')).then(|| host.to_owned()),
                None => (!host.is_empty()).then(|| format!("{host}:{port}")),
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
        assert_eq!(server.for_host("h:6"), "redis://u:p@h:6/2");
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
    fn passwords_are_not_among_the_hosts() {
        for (url, want) in [
            ("redis+cluster://u:s@a:1,b:2", "a:1,b:2"),
            ("rediss://u:s@a:1/4", "a:1/4"),
            ("unix:/run/r.sock?pass=s", "unix:/run/r.sock"),
        ] {
            assert_eq!(RedisUrl::parse(url).unwrap().hosts(), want);
        }
    }
}
