//! A plain client of one keeper in a container of Docker, beside the code under test.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sandhog_protocol::keeper::{FromKeeper, MAX_REPLY, Open, SandboxState, ToKeeper, encode, take};

/// Lists the runners that are children of the keeper, which is process 1 of its container.
const FIND_RUNNERS: &str = "for dir in /proc/[0-9]*; do \
     read -r _ _ _ parent _ < $dir/stat && [ $parent = 1 ] && \
     [ \"$(tr -d '\\0' < $dir/cmdline)\" = /usr/lib/sandhog/runner ] && echo ${dir#/proc/}; \
     done 2>/dev/null";

/// A keeper and its container.
pub(crate) struct KeeperProbe {
    container: String,
    socket: PathBuf,
    /// First part of the names of its sandboxes.
    prefix: String,
}

impl KeeperProbe {
    /// Learns the names of the keeper's sandboxes, from one that it opens and closes. `None` if no
    /// keeper answers.
    pub(crate) fn new(container: String, socket: PathBuf) -> Option<Self> {
        let mut client = Client::connect(&socket)?;
        client.send(&ToKeeper::Open(Open {
            memory_bytes: 64 << 20,
            cpu_millis: 1000,
            pids: 16,
            gpus: Vec::new(),
            zygote: None,
        }));
        let Some(FromKeeper::Opened { sandbox }) = client.receive() else {
            return None;
        };
        drop(client);
        let (prefix, _number) = sandbox.rsplit_once('-').unwrap();
        let probe = Self {
            container,
            socket,
            prefix: prefix.to_owned(),
        };
        while probe.sandboxes().contains(&sandbox) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(probe)
    }

    /// Returns whether the keeper made the sandbox of that name.
    pub(crate) fn made(&self, sandbox: &str) -> bool {
        sandbox.starts_with(&self.prefix)
    }

    /// Returns the names of the sandboxes that exist.
    pub(crate) fn sandboxes(&self) -> Vec<String> {
        let Some(mut client) = Client::connect(&self.socket) else {
            return Vec::new();
        };
        let mut running = Vec::new();
        for number in 1.. {
            let sandbox = format!("{}-{number}", self.prefix);
            client.send(&ToKeeper::Ask {
                sandbox: sandbox.clone(),
            });
            match client.receive() {
                Some(FromKeeper::State { state, .. }) => match state {
                    SandboxState::Running => running.push(sandbox),
                    SandboxState::Ended(_) => {}
                    SandboxState::Unknown => break,
                },
                _ => break,
            }
        }
        running
    }

    /// Kills the runner of the only sandbox.
    pub(crate) fn kill_only_runner(&self) {
        let found = self.execute(FIND_RUNNERS);
        let runners: Vec<&str> = found.split_whitespace().collect();
        let [runner] = runners[..] else {
            panic!("want one runner, found {runners:?}");
        };
        self.execute(&format!("kill -9 {runner}"));
    }

    /// Uses up the memory of the only sandbox, and kills its runner as the kernel might.
    pub(crate) fn exhaust_only_sandbox(&self) {
        // A process of the container joins the sandbox's cgroup, and grows until it is killed.
        let script = "cd /sys/fs/cgroup; \
             for dir in memory/sbx-* sbx-*; do \
                 [ -d $dir ] && (echo $BASHPID > $dir/cgroup.procs && exec tail /dev/zero); \
             done; true";
        self.execute(script);
        self.kill_only_runner();
    }

    fn execute(&self, script: &str) -> String {
        let done = Command::new("docker")
            .args(["exec", &self.container, "/bin/bash", "-c", script])
            .output()
            .unwrap();
        String::from_utf8(done.stdout).unwrap()
    }
}

/// A connection to a keeper.
struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(socket: &PathBuf) -> Option<Self> {
        let mut client = Self {
            stream: UnixStream::connect(socket).ok()?,
            buffer: Vec::new(),
        };
        match client.receive()? {
            FromKeeper::Hello(_) => Some(client),
            _ => None,
        }
    }

    fn send(&mut self, frame: &ToKeeper) {
        // If the keeper is gone, the answer is missing.
        self.stream.write_all(&encode(frame)).ok();
    }

    fn receive(&mut self) -> Option<FromKeeper> {
        loop {
            if let Some(frame) = take(&mut self.buffer, MAX_REPLY).unwrap() {
                return Some(frame);
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
            }
        }
    }
}
