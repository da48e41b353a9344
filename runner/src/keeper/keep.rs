//! The command `keep`: the main loop of a keeper.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_dumpable;
use nix::unistd::{getuid, read};

use sandhog_protocol::frames::CgroupSupport;
use sandhog_protocol::keeper::{
    EndStatus, FromKeeper, Hello, Open, SandboxEnd, SandboxState, ToKeeper,
};

use super::end_log::EndLog;
use super::error::KeepError;
use super::facts::read_facts;
use super::options::Options;
use super::peer::{FromPeer, Peer};
use super::sandbox::{EndedSandbox, Sandbox, SandboxSpec};
use super::template::TemplateSlot;
use super::trial::run_trial;
use crate::cell::{
    CellError, Ended, SandboxCgroup, SandboxCgroups, SandboxMounts, Step, answer_request,
    lower_oom_score, pin_malloc_thresholds, reap_all, receive_request,
};
use crate::signals::{SignalEvent, Signals};

/// The most connections that have not become a sandbox.
const MAX_PEERS: usize = 64;

/// The most sandboxes at the same time.
const MAX_SANDBOXES: usize = 1024;

/// The most frames of one peer that are handled before the others get their turn.
const FRAMES_PER_TURN: usize = 16;

/// Time between two attempts to remove a cgroup whose last process is about to end.
const REMOVAL_INTERVAL: Duration = Duration::from_millis(5);

/// Time after which the keeper stops trying to remove a cgroup. Its name stays taken.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for which nothing is accepted after the kernel had no descriptor left for it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for which a reading of the container's memory is used.
const MEMORY_AGE: Duration = Duration::from_millis(100);

/// Bytes of the standard input that are read at once.
const READ_BYTES: usize = 4096;

/// Permissions of the socket. The keeper checks the user of each peer.
const SOCKET_MODE: u32 = 0o666;

/// Serves workers until SIGTERM, and then until the last sandbox has ended. With `--while-stdin`
/// the end of the standard input stops the keeper and kills its sandboxes.
///
/// # Errors
/// Fails if the arguments or the files of the image are not valid, or if the container cannot hold
/// sandboxes.
pub(crate) fn run_keeper(arguments: &[String]) -> Result<(), KeepError> {
    let options = Options::parse(arguments, getuid().as_raw())?;
    // First of all, so that no sandbox ever has the network of the container.
    unshare(CloneFlags::CLONE_NEWNET)
        .step("leave the container's network")
        .map_err(KeepError::Prepare)?;
    let mut keeper = Keeper::prepare(options)?;
    keeper.serve();
    fs::remove_file(&keeper.options.socket).ok();
    Ok(())
}

/// The state of a keeper.
struct Keeper {
    options: Options,
    signals: Signals,
    listener: UnixListener,
    hello: Hello,
    cgroups: SandboxCgroups,
    mounts: SandboxMounts,
    /// True if the trial sandbox missed no feature.
    is_tried: bool,
    /// First part of the name of each sandbox, which tells this keeper from others.
    prefix: String,
    opened: u64,
    peers: Vec<Peer>,
    sandboxes: Vec<Sandbox>,
    removals: Vec<Removal>,
    ends: EndLog,
    template: TemplateSlot,
    accept_from: Option<Instant>,
    /// The last reading of the container's memory, with its time.
    memory: Option<(Instant, KeeperMemory)>,
    /// The standard input, while its end is to stop the keeper.
    stdin: Option<OwnedFd>,
    /// The time at which the remaining sandboxes are killed, once the keeper is stopping.
    stop_at: Option<Instant>,
}

/// Memory of the keeper's container, in bytes. `None` where it cannot be measured.
#[derive(Debug, Clone, Copy)]
struct KeeperMemory {
    /// Memory that the whole container uses.
    in_use: Option<u64>,
    /// Part of it that belongs to the keeper and its zygote.
    own: Option<u64>,
}

/// A cgroup that could not be removed yet.
struct Removal {
    cgroup: SandboxCgroup,
    until: Instant,
}

/// A descriptor to which something happened.
#[derive(Debug, Clone, Copy)]
enum PollSource {
    Signals,
    Stdin,
    Listener,
    Peer(usize),
    Connection(usize),
    Stderr(usize),
    Requests(usize),
    Template,
}

impl Keeper {
    fn prepare(options: Options) -> Result<Self, KeepError> {
        pin_malloc_thresholds();
        let prepare = KeepError::Prepare;
        set_dumpable(false)
            .step("make the keeper undumpable")
            .map_err(prepare)?;
        lower_oom_score();
        let signals = Signals::watch().map_err(KeepError::Signals)?;
        let (cgroups, no_cgroup) = SandboxCgroups::open().map_err(prepare)?;
        let mut hello = read_facts(&cgroups, no_cgroup)?;
        let folder = options.socket.parent().unwrap_or(Path::new("/"));
        let stdin = options
            .while_stdin
            .then(|| io::stdin().as_fd().try_clone_to_owned())
            .transpose()
            .step("open the standard input")
            .map_err(prepare)?;
        let (mounts, no_overlays) =
            SandboxMounts::of_container(folder.display().to_string()).map_err(prepare)?;
        hello.missing.extend(no_overlays);
        let is_tried = run_trial(&cgroups, &mounts)?;
        Ok(Self {
            prefix: random_prefix().map_err(prepare)?,
            listener: listen(&options.socket)?,
            options,
            signals,
            hello,
            cgroups,
            mounts,
            is_tried,
            opened: 0,
            peers: Vec::new(),
            sandboxes: Vec::new(),
            removals: Vec::new(),
            ends: EndLog::default(),
            template: TemplateSlot::default(),
            accept_from: None,
            memory: None,
            stdin,
            stop_at: None,
        })
    }

    fn serve(&mut self) {
        loop {
            let stopped = self.sandboxes.is_empty() && self.removals.is_empty();
            if self.stop_at.is_some() && stopped {
                return;
            }
            let mut peers = Vec::new();
            for (source, flags) in self.wait() {
                match source {
                    PollSource::Signals => self.take_signals(),
                    PollSource::Stdin => self.read_stdin(),
                    PollSource::Listener => self.accept(),
                    PollSource::Peer(index) => peers.push((index, flags)),
                    PollSource::Connection(index) => {
                        if let Some(sandbox) = self.sandboxes.get_mut(index) {
                            sandbox.kill();
                        }
                    }
                    PollSource::Stderr(index) => {
                        if let Some(sandbox) = self.sandboxes.get_mut(index) {
                            sandbox.read_stderr();
                        }
                    }
                    PollSource::Requests(index) => self.take_request(index),
                    PollSource::Template => self.template.advance(),
                }
            }
            self.serve_peers(&peers);
            self.reap();
            self.pass_time();
        }
    }

    /// Waits until something happens or a deadline is reached.
    fn wait(&self) -> Vec<(PollSource, PollFlags)> {
        let mut all = vec![(
            PollSource::Signals,
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        )];
        let mut add = |source, fd| all.push((source, fd));
        if let Some(stdin) = &self.stdin {
            add(
                PollSource::Stdin,
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            );
        }
        if self.accept_from.is_none() {
            add(
                PollSource::Listener,
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            );
        }
        for (index, peer) in self.peers.iter().enumerate() {
            let (fd, writes) = peer.interest();
            let flags = if writes {
                PollFlags::POLLOUT
            } else {
                PollFlags::POLLIN
            };
            add(PollSource::Peer(index), PollFd::new(fd, flags));
        }
        for (index, sandbox) in self.sandboxes.iter().enumerate() {
            if let Some(fd) = sandbox.connection() {
                // The kernel always reports that the other side has hung up.
                add(
                    PollSource::Connection(index),
                    PollFd::new(fd, PollFlags::empty()),
                );
            }
            if let Some(fd) = sandbox.stderr() {
                add(
                    PollSource::Stderr(index),
                    PollFd::new(fd, PollFlags::POLLIN),
                );
            }
            if let Some(fd) = sandbox.requests() {
                add(
                    PollSource::Requests(index),
                    PollFd::new(fd, PollFlags::POLLIN),
                );
            }
        }
        if let Some((fd, writes)) = self.template.interest() {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, writes);
            add(PollSource::Template, PollFd::new(fd, flags));
        }
        let (sources, mut fds): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        // An interrupted call needs no handling: no descriptor is ready then.
        poll(&mut fds, self.timeout()).ok();
        let flags = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let ready = sources.into_iter().zip(flags);
        ready.filter(|(_, flags)| !flags.is_empty()).collect()
    }

    fn timeout(&self) -> PollTimeout {
        let now = Instant::now();
        let removal = (!self.removals.is_empty()).then(|| now + REMOVAL_INTERVAL);
        let first = self
            .peers
            .iter()
            .map(Peer::deadline)
            .chain(removal)
            .chain(self.template.deadline())
            .chain(self.accept_from)
            .chain(self.stop_at)
            .min();
        first.map_or(PollTimeout::NONE, |first| {
            // Rounded up, so that the deadline has passed when the call returns.
            let left = first.saturating_duration_since(now) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        })
    }

    fn take_signals(&mut self) {
        if self.signals.take() != SignalEvent::Shutdown {
            return;
        }
        let now = Instant::now();
        match self.stop_at {
            None => {
                note("stopping: no new sandboxes; running ones continue until their worker closes");
                self.stop_at = Some(now + self.options.grace);
            }
            Some(_) => self.stop_at = Some(now),
        }
    }

    /// Reads the standard input and drops the bytes. Its end means that the process which started
    /// the container is gone, so the sandboxes end at once.
    fn read_stdin(&mut self) {
        let Some(stdin) = &self.stdin else {
            return;
        };
        let mut dropped = [0; READ_BYTES];
        match read(stdin, &mut dropped) {
            Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(0) | Err(_) => {
                note("stopping at once: the standard input has ended");
                self.stdin = None;
                self.stop_at = Some(Instant::now());
            }
        }
    }

    fn accept(&mut self) {
        match self.listener.accept() {
            Ok((stream, _)) => self.greet(stream),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                note(&format!("cannot accept a connection: {error}"));
                self.accept_from = Some(Instant::now() + ACCEPT_PAUSE);
            }
        }
    }

    fn greet(&mut self, stream: UnixStream) {
        let Ok(mut peer) = Peer::new(stream) else {
            return;
        };
        let waiting = self.peers.iter().filter(|peer| !peer.is_closing()).count();
        match peer.user() {
            Ok(user) if !self.options.peers.contains(&user) => peer.refuse_and_close(
                format!(
                    "the user {user} may not use this keeper; allowed are {:?}, and --peer adds \
                     one",
                    self.options.peers
                ),
                false,
            ),
            Ok(_) if waiting >= MAX_PEERS => peer.refuse_and_close(
                format!("{waiting} connections wait already; at most {MAX_PEERS} are allowed"),
                true,
            ),
            Ok(_) => {
                let memory = self.memory();
                let hello = Hello {
                    memory_in_use: memory.in_use,
                    own_memory: memory.own,
                    sandboxes: u32::try_from(self.sandboxes.len()).unwrap_or(u32::MAX),
                    stopping: self.stop_at.is_some(),
                    ..self.hello.clone()
                };
                peer.send(&FromKeeper::Hello(Box::new(hello)));
            }
            Err(error) => {
                peer.refuse_and_close(format!("the peer's user is unknown: {error}"), false);
            }
        }
        if !peer.is_done() {
            self.peers.push(peer);
        }
    }

    /// Returns the memory of the container. The kernel adds up its counters for each reading, so
    /// one reading serves all connections of a moment.
    fn memory(&mut self) -> KeeperMemory {
        let now = Instant::now();
        match self.memory {
            Some((at, memory)) if now < at + MEMORY_AGE => memory,
            Some(_) | None => {
                let memory = KeeperMemory {
                    in_use: self.cgroups.memory_in_use(),
                    own: self.cgroups.own_memory(),
                };
                self.memory = Some((now, memory));
                memory
            }
        }
    }

    fn serve_peers(&mut self, ready: &[(usize, PollFlags)]) {
        if ready.is_empty() {
            return;
        }
        for (index, mut peer) in std::mem::take(&mut self.peers).into_iter().enumerate() {
            if !ready.iter().any(|(which, _)| *which == index) {
                self.peers.push(peer);
                continue;
            }
            peer.flush();
            if let Some(peer) = self.serve_peer(peer) {
                self.peers.push(peer);
            }
        }
    }

    /// Handles the frames of a peer. Returns the peer, unless its connection is closed or has
    /// become that of a sandbox.
    fn serve_peer(&mut self, mut peer: Peer) -> Option<Peer> {
        for _ in 0..FRAMES_PER_TURN {
            if peer.is_done() {
                return None;
            }
            // A peer gets no further answers before it has read the last one.
            if peer.is_closing() || peer.interest().1 {
                return Some(peer);
            }
            match peer.receive() {
                FromPeer::Incomplete => return Some(peer),
                FromPeer::Closed => return None,
                FromPeer::Invalid(reason) => peer.refuse_and_close(reason, false),
                FromPeer::Frame(ToKeeper::Ask { sandbox }) => {
                    let state = self.state_of(&sandbox);
                    peer.send(&FromKeeper::State { sandbox, state });
                }
                FromPeer::Frame(ToKeeper::Open(open)) => peer = self.open(peer, &open)?,
            }
        }
        Some(peer)
    }

    fn state_of(&mut self, name: &str) -> SandboxState {
        if self.sandboxes.iter().any(|sandbox| sandbox.name() == name) {
            return SandboxState::Running;
        }
        match self.ends.find(Instant::now(), name) {
            Some(end) => SandboxState::Ended(end.clone()),
            None => SandboxState::Unknown,
        }
    }

    /// Makes a sandbox and gives it the peer's connection. Returns the peer if the request is
    /// refused.
    fn open(&mut self, mut peer: Peer, open: &Open) -> Option<Peer> {
        let made = self.check(open).and_then(|()| {
            self.cgroups
                .make(open)
                .map_err(|error| (error.line(), true))
        });
        let cgroup = match made {
            Ok(cgroup) => cgroup,
            Err((reason, retryable)) => {
                peer.send(&FromKeeper::Refused { reason, retryable });
                return Some(peer);
            }
        };
        self.opened += 1;
        let name = format!("{}-{}", self.prefix, self.opened);
        peer.send(&FromKeeper::Opened {
            sandbox: name.clone(),
        });
        if peer.interest().1 {
            // The peer has not read its earlier frames. The runner's frames could not follow.
            return None;
        }
        let spec = SandboxSpec {
            name: name.clone(),
            cgroup,
            zygote: open.zygote.clone(),
            mounts: &self.mounts,
            is_tried: self.is_tried,
        };
        match Sandbox::start(spec, peer.into_stream()) {
            Ok(sandbox) => {
                self.sandboxes.push(sandbox);
                // Without cgroups no runner requests a server.
                if let Some(program) = &open.zygote
                    && self.hello.cgroup != CgroupSupport::None
                {
                    self.template.prepare(program);
                }
            }
            Err(error) => {
                let end = SandboxEnd {
                    status: EndStatus::NotStarted(error.line()),
                    oom: false,
                    killed: false,
                    stderr: String::new(),
                };
                self.ends.add(Instant::now(), name, end);
            }
        }
        None
    }

    /// Checks a request against the container. The error says also whether a retry may succeed.
    fn check(&self, open: &Open) -> Result<(), (String, bool)> {
        if self.stop_at.is_some() {
            return Err(("the keeper is stopping".to_owned(), true));
        }
        let count = self.sandboxes.len();
        if count >= MAX_SANDBOXES {
            let text = format!("{count} sandboxes exist; at most {MAX_SANDBOXES} are allowed");
            return Err((text, true));
        }
        for (name, value, most) in [
            ("memory_bytes", open.memory_bytes, self.hello.memory_max),
            ("pids", open.pids.into(), self.hello.pids_max),
        ] {
            if let Some(most) = most.filter(|most| value > *most) {
                let text = format!("`{name}` is {value}; the container allows at most {most}");
                return Err((text, false));
            }
        }
        let known = &self.hello.gpus;
        if let Some(gpu) = open.gpus.iter().find(|gpu| !known.contains(gpu)) {
            let text = format!("unknown GPU {gpu:?}; this keeper has: {}", known.join(", "));
            return Err((text, false));
        }
        Ok(())
    }

    /// Takes the request of a sandbox's runner for a server of the zygote. A runner may send one.
    fn take_request(&mut self, index: usize) {
        let Some(sandbox) = self.sandboxes.get_mut(index) else {
            return;
        };
        let Some(socket) = sandbox.requests() else {
            return;
        };
        match receive_request(socket) {
            // The runner is gone, or has closed the socket.
            Ok(None) => {}
            Ok(Some(received)) => {
                let answer = self.template.request(sandbox.zygote(), received);
                answer_request(socket, answer.as_ref().copied().map_err(String::as_str));
            }
            Err(reason) => answer_request(socket, Err(&reason)),
        }
        sandbox.close_requests();
    }

    /// Reaps dead children: sandboxes, the template zygote, and orphans.
    fn reap(&mut self) {
        let mut dead = Vec::new();
        reap_all(|ended| dead.push(ended));
        for Ended { pid, end } in dead {
            let mut all = self.sandboxes.iter();
            if let Some(index) = all.position(|sandbox| sandbox.is_process(pid)) {
                let ended = self.sandboxes.swap_remove(index).end(end);
                self.record_end(ended);
            } else {
                self.template.note_reaped(pid);
            }
        }
    }

    fn record_end(&mut self, ended: EndedSandbox) {
        let EndedSandbox {
            name,
            end,
            connection,
            cgroup,
        } = ended;
        let now = Instant::now();
        self.ends.add(now, name, end);
        drop(connection);
        if let Some(mut cgroup) = cgroup
            && !cgroup.remove()
        {
            let until = now + REMOVAL_TIMEOUT;
            self.removals.push(Removal { cgroup, until });
        }
    }

    /// Does what is due at this time.
    fn pass_time(&mut self) {
        let now = Instant::now();
        self.removals
            .retain_mut(|removal| !removal.cgroup.remove() && now < removal.until);
        self.accept_from = self.accept_from.filter(|from| now < *from);
        for peer in &mut self.peers {
            if now >= peer.deadline() && !peer.is_closing() {
                peer.refuse_and_close("no whole frame arrived in time".to_owned(), true);
            }
        }
        self.peers
            .retain(|peer| !peer.is_done() && now < peer.deadline());
        if self.template.deadline().is_some_and(|until| now >= until) {
            self.template.advance();
        }
        if self.stop_at.is_some_and(|at| now >= at) {
            self.sandboxes.iter_mut().for_each(Sandbox::kill);
            // The end of each sandbox wakes the loop.
            self.stop_at = Some(now + REMOVAL_TIMEOUT);
        }
    }
}

/// Makes the socket, in place of one that a dead keeper left.
fn listen(path: &Path) -> Result<UnixListener, KeepError> {
    let failed = |source| KeepError::Listen {
        path: path.to_owned(),
        source,
    };
    if UnixStream::connect(path).is_ok() {
        return Err(KeepError::InUse {
            path: path.to_owned(),
        });
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn random_prefix() -> Result<String, CellError> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .step("draw a name for sandboxes")?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// Writes a line for the operator.
fn note(line: &str) {
    // If the engine keeps no log, the line is lost.
    writeln!(io::stderr(), "keeper: {line}").ok();
}
