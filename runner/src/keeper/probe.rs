//! The command `probe`: checks that a keeper answers on its socket.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use sandhog_protocol::keeper::{FromKeeper, Hello, MAX_REPLY, VERSION, take};

use super::error::ProbeError;
use crate::connection::retry;

/// Timeout for the keeper's first frame.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Connects to the keeper, reads its first frame and prints its facts in one line.
///
/// # Errors
/// Fails if no keeper of this version answers in time.
pub(crate) fn run_probe(arguments: &[String]) -> Result<(), ProbeError> {
    let [path] = arguments else {
        let text = format!("{} arguments instead of one", arguments.len());
        return Err(ProbeError::Usage(text));
    };
    let hello = hello_of(path)?;
    // The exit code is the answer. A caller that reads no output does not need it.
    writeln!(io::stdout(), "{}", line(&hello)).ok();
    Ok(())
}

fn hello_of(path: &str) -> Result<Hello, ProbeError> {
    let until = Instant::now() + TIMEOUT;
    let mut stream = open(path).map_err(|source| ProbeError::Connect {
        path: path.to_owned(),
        source,
    })?;
    let path = path.to_owned();
    let mut input = Vec::new();
    loop {
        match take::<FromKeeper>(&mut input, MAX_REPLY) {
            Ok(None) => {}
            Ok(Some(FromKeeper::Hello(hello))) if hello.version == VERSION => return Ok(*hello),
            Ok(Some(FromKeeper::Hello(hello))) => {
                return Err(ProbeError::Version {
                    path,
                    theirs: hello.version,
                    ours: VERSION,
                });
            }
            Ok(Some(FromKeeper::Refused { reason, .. })) => {
                return Err(ProbeError::Refused { path, reason });
            }
            Ok(Some(FromKeeper::Opened { .. } | FromKeeper::State { .. })) => {
                return Err(ProbeError::Closed { path });
            }
            Err(source) => return Err(ProbeError::NotKeeper { path, source }),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let seconds = TIMEOUT.as_secs();
            return Err(ProbeError::Timeout { path, seconds });
        }
        let mut ready = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        // An interrupted `poll` does no harm: the read does not block, and the time is bounded.
        poll(
            &mut ready,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO),
        )
        .ok();
        let mut piece = [0; 4096];
        match retry(|| stream.read(&mut piece)) {
            Ok(None) => {}
            Ok(Some(count)) if count > 0 => {
                input.extend_from_slice(piece.get(..count).unwrap_or_default());
            }
            Ok(Some(_)) | Err(_) => return Err(ProbeError::Closed { path }),
        }
    }
}

/// Connects without blocking, even if the keeper accepts nothing.
fn open(path: &str) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let own: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(own.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(own.into())
}

fn line(hello: &Hello) -> String {
    let cap = |value: Option<u64>| value.map_or("none".to_owned(), |value| value.to_string());
    let mut line = format!(
        "image {} build {} version {} runner {} cgroup {:?} memory {} cpu {} pids {} in use {} \
         sandboxes {}",
        hello.image,
        hello.build,
        hello.version,
        hello.runner_version,
        hello.cgroup,
        cap(hello.memory_max),
        cap(hello.cpu_millis),
        cap(hello.pids_max),
        cap(hello.memory_in_use),
        hello.sandboxes,
    );
    if hello.user_namespace {
        line += " user namespace";
    }
    if hello.stopping {
        line += " stopping";
    }
    if !hello.missing.is_empty() {
        line += &format!(" missing: {}", hello.missing.join("; "));
    }
    line
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use sandhog_protocol::keeper::encode;

    use super::*;

    /// Runs the probe against a server that answers with these bytes.
    fn probe_of(name: &str, answer: &[u8]) -> String {
        let path: PathBuf =
            std::env::temp_dir().join(format!("probe-{name}-{}", std::process::id()));
        std::fs::remove_file(&path).ok();
        let listener = UnixListener::bind(&path).unwrap();
        let answer = answer.to_vec();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&answer).unwrap();
        });
        let words = [path.to_str().unwrap().to_owned()];
        let result = run_probe(&words);
        server.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        result.map_or_else(|error| error.to_string(), |()| "ok".to_owned())
    }

    #[test]
    fn a_keeper_is_told_from_everything_else() {
        let hello = |version| {
            encode(&FromKeeper::Hello(Box::new(Hello {
                version,
                ..Hello::default()
            })))
        };
        let refused = encode(&FromKeeper::Refused {
            reason: "full".to_owned(),
            retryable: true,
        });
        let newer = format!("has version {}", VERSION + 1);
        for (name, answer, want) in [
            ("good", hello(VERSION), "ok"),
            ("version", hello(VERSION + 1), newer.as_str()),
            ("refused", refused, "refused the connection: full"),
            ("silent", Vec::new(), "closed the connection"),
            ("other", b"HTTP/1.1 400\r\n".to_vec(), "is not a keeper"),
        ] {
            let got = probe_of(name, &answer);
            assert!(got.contains(want), "{name}: {got}");
        }
        let missing = run_probe(&["/no/such.sock".to_owned()]).unwrap_err();
        assert!(missing.to_string().contains("no keeper listens"));
        assert!(run_probe(&[]).is_err());
    }
}
