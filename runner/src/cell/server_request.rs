//! Requests of a runner for a server of its keeper's zygote.
//!
//! In a container of its own, a runner starts a zygote. In a sandbox that a keeper made, it has a
//! socket to the keeper on an inherited descriptor. It sends the keeper one request with an end of
//! a new control socket. The keeper has a *template zygote* fork a *server*, which makes clones on
//! that control socket for this sandbox alone, in the same way as a zygote of the runner.
//!
//! The request has the properties of the clones, and not the program: the worker names that.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::error::Step;
use super::{CellError, descriptors, fd_passing};

/// Variable with the number of the descriptor on which a runner has its socket to the keeper.
pub(crate) const KEEPER_FD_VARIABLE: &str = "SANDHOG_KEEPER_FD";

/// Variable that tells a runner that the keeper's trial sandbox missed no feature.
pub(crate) const TRIED_VARIABLE: &str = "SANDHOG_KEEPER_TRIED";

/// Number of that descriptor.
pub(crate) const KEEPER_FD: i32 = 3;

/// Largest request, in bytes. The template zygote reads messages of at most 64 KiB.
const MAX_REQUEST_BYTES: usize = 60 << 10;

/// Largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 512;

/// Timeout for the keeper's answer. The keeper answers before the template zygote is ready.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Path of this process's cgroup namespace.
const CGROUP_NAMESPACE: &str = "/proc/self/ns/cgroup";

/// Socket of a runner to the keeper that made its sandbox.
#[derive(Debug)]
pub(super) struct KeeperSocket {
    socket: OwnedFd,
    /// True if a runner of the same keeper has tried every step in an equal sandbox, and missed no
    /// feature.
    is_tried: bool,
}

/// The properties of a zygote's clones: the request of a runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CloneSetup {
    /// The user and the group of the clones.
    pub(crate) user: u32,
    /// The seccomp filter in hexadecimal digits, if the kernel has filters.
    pub(crate) filter: Option<String>,
    /// Flags of the namespaces that clones enter, in the order in which they are handed over.
    #[serde(rename = "spaces")]
    pub(crate) namespaces: Vec<i32>,
}

impl KeeperSocket {
    /// Takes the inherited descriptor over. `None` in a container without a keeper.
    ///
    /// # Errors
    /// Fails if the variable names a descriptor that is not open.
    #[expect(
        clippy::disallowed_methods,
        reason = "the keeper sets the variable; the runner has no configuration"
    )]
    pub(super) fn inherited() -> Result<Option<Self>, CellError> {
        if std::env::var_os(KEEPER_FD_VARIABLE).is_none() {
            return Ok(None);
        }
        let own = descriptors::inherited(KEEPER_FD).step("take over the socket to the keeper")?;
        Ok(Some(Self {
            socket: own,
            is_tried: std::env::var_os(TRIED_VARIABLE).is_some(),
        }))
    }

    /// Returns whether a runner of the same keeper has tried every step in an equal sandbox, and
    /// missed no feature. The result of a trial cannot differ here: program, kernel, container and
    /// capabilities are the same.
    pub(super) const fn is_tried(&self) -> bool {
        self.is_tried
    }

    /// Requests a server. Returns its control socket, or the reason that there is none, after which
    /// the runner has to start a zygote of its own.
    ///
    /// # Errors
    /// Fails if the kernel refuses a step.
    pub(super) fn request(
        &self,
        clones: &CloneSetup,
    ) -> Result<Result<OwnedFd, String>, CellError> {
        let step = "ask the keeper for a zygote";
        let bytes = serde_json::to_vec(clones).expect("requests have string keys");
        if bytes.len() > MAX_REQUEST_BYTES {
            let reason = format!(
                "the request has {} bytes; at most {MAX_REQUEST_BYTES} are allowed",
                bytes.len()
            );
            return Ok(Err(reason));
        }
        let (ours, theirs) = control_pair().step(step)?;
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let cgroups = open(CGROUP_NAMESPACE, flags, Mode::empty()).step(step)?;
        let handed = [theirs.as_fd(), cgroups.as_fd()];
        fd_passing::send_with_fds(self.socket.as_fd(), &bytes, &handed).step(step)?;
        drop(theirs);
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(ANSWER_TIMEOUT).unwrap_or(PollTimeout::MAX);
        if poll(&mut ready, timeout).step(step)? == 0 {
            return Ok(Err("the keeper does not answer".to_owned()));
        }
        let mut answer = [0; MAX_ANSWER_BYTES];
        let (length, _none) =
            fd_passing::recv_with_fds(self.socket.as_fd(), &mut answer).step(step)?;
        match answer.get(..length) {
            Some(b"") | None => Ok(Err("the keeper closed its socket".to_owned())),
            Some([b'+', ..]) => Ok(Ok(ours)),
            Some(reason) => Ok(Err(String::from_utf8_lossy(reason).into_owned())),
        }
    }
}

/// Makes both ends of a zygote's control socket.
///
/// # Errors
/// Fails if the kernel refuses.
pub(crate) fn control_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    /// Send buffer in bytes, large enough for the first message to the zygote, which holds the
    /// filter.
    const SEND_BUFFER_BYTES: usize = 1 << 20;
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    // The size is a hint. If the kernel does not grant it, the first message may not fit, and the
    // send reports that error.
    setsockopt(&ours, sockopt::SndBuf, &SEND_BUFFER_BYTES).ok();
    Ok((ours, theirs))
}

/// A request as the keeper receives it, with its descriptors.
#[derive(Debug)]
pub(crate) struct ServerRequest {
    /// The properties of the clones.
    pub(crate) clones: CloneSetup,
    /// The server's end of the control socket.
    pub(crate) control: OwnedFd,
    /// The cgroup namespace of the sandbox.
    pub(crate) cgroups: OwnedFd,
}

/// Receives the request of a runner, in the keeper. `None` if the runner is gone or has sent
/// nothing.
///
/// # Errors
/// With the reason, if the request is not valid.
pub(crate) fn receive_request(socket: BorrowedFd<'_>) -> Result<Option<ServerRequest>, String> {
    let mut buffer = vec![0; MAX_REQUEST_BYTES];
    let (length, descriptors) = match fd_passing::recv_with_fds(socket, &mut buffer) {
        Ok(received) => received,
        Err(Errno::EAGAIN | Errno::ECONNRESET) => return Ok(None),
        Err(errno) => return Err(format!("the request cannot be received: {}", errno.desc())),
    };
    if length == 0 {
        return Ok(None);
    }
    let bytes = buffer.get(..length).unwrap_or_default();
    let clones: CloneSetup = serde_json::from_slice(bytes)
        .map_err(|error| format!("the request cannot be decoded: {error}"))?;
    if clones.user == 0 {
        return Err("the clones' user is 0; only an unprivileged user is allowed".to_owned());
    }
    let given = descriptors.len();
    let Ok([control, cgroups]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return Err(format!("the request has {given} descriptors instead of 2"));
    };
    Ok(Some(ServerRequest {
        clones,
        control,
        cgroups,
    }))
}

/// Answers the request of a runner, in the keeper. A runner that is gone receives nothing.
pub(crate) fn answer_request(socket: BorrowedFd<'_>, answer: Result<(), &str>) {
    let text = answer.map_or_else(str::as_bytes, |()| b"+".as_slice());
    let text = text.get(..MAX_ANSWER_BYTES).unwrap_or(text);
    fd_passing::send_with_fds(socket, text, &[]).ok();
}

/// Sends a runner, in place of its server, the step that failed. A runner that is gone receives
/// nothing.
pub(crate) fn fail_server(control: BorrowedFd<'_>, error: &CellError) {
    let message = serde_json::json!({"failed": error.step, "errno": error.errno as i32});
    fd_passing::send_with_fds(control, message.to_string().as_bytes(), &[]).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CloneSetup {
        CloneSetup {
            user: 1_000_001,
            filter: Some("00".to_owned()),
            namespaces: vec![1, 2],
        }
    }

    fn answered(request: &CloneSetup) -> Result<Option<ServerRequest>, String> {
        let (ours, theirs) = control_pair().unwrap();
        let keeper = std::thread::spawn(move || {
            let received = receive_request(theirs.as_fd());
            let answer = received.as_ref().map(|_| ()).map_err(String::as_str);
            answer_request(theirs.as_fd(), answer);
            received
        });
        let answer = KeeperSocket {
            socket: ours,
            is_tried: false,
        }
        .request(request)
        .unwrap();
        let received = keeper.join().unwrap();
        assert_eq!(answer.is_ok(), received.is_ok());
        received
    }

    #[test]
    fn a_request_arrives_with_its_descriptors() {
        let received = answered(&request()).unwrap().unwrap();
        assert_eq!(received.clones, request());
    }

    #[test]
    fn clones_of_root_are_refused() {
        let mut root = request();
        root.user = 0;
        assert!(answered(&root).unwrap_err().contains("unprivileged"));
    }

    #[test]
    fn a_request_without_descriptors_is_refused() {
        let (ours, theirs) = control_pair().unwrap();
        let bytes = serde_json::to_vec(&request()).unwrap();
        fd_passing::send_with_fds(ours.as_fd(), &bytes, &[]).unwrap();
        assert!(receive_request(theirs.as_fd()).is_err());
        fd_passing::send_with_fds(ours.as_fd(), b"{}", &[]).unwrap();
        assert!(receive_request(theirs.as_fd()).is_err());
        drop(ours);
        assert!(receive_request(theirs.as_fd()).unwrap().is_none());
    }
}
