//! The walls of a cell that a test build can leave out, one at a time, to show that the test of each notices.
//!
//! Only a build with the feature `walls-down` can, and then what is left out is named by `SANDHOG_WALL_DOWN` in the runner's own
//! environment, which is the image's. In every other build all stand, and nothing asks. It refuses to be quiet about it:
//! a runner that leaves a wall out says so in its first frame, and does not start for a name that it does not know.
//!
//! What is held twice is not here, because no program could notice: the host name (the container's tells nothing either),
//! the settings in `/proc/sys` (the program's user cannot write them), the rights with which files are taken out (the runner
//! may not read what is not its own).

use nix::errno::Errno;

use super::CellError;

/// What names the wall to leave out.
#[cfg(feature = "walls-down")]
const VARIABLE: &str = "SANDHOG_WALL_DOWN";

/// A wall, or the part of one that can be left out by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wall {
    /// The program's tree is in a cgroup of its own.
    Cgroup,
    /// The program is an unprivileged user without capabilities.
    User,
    /// Resource limits of each process.
    Rlimits,
    /// Scratch spaces have a cap on bytes.
    ScratchBytes,
    /// Scratch spaces have a cap on files.
    ScratchFiles,
    /// What tells of the machine in `/proc` is covered.
    Masks,
    /// Other users' processes are invisible in `/proc`.
    Processes,
    /// System calls that no program needs are refused.
    Calls,
    /// `clone3`, whose flags no filter sees, is not there.
    CloneThree,
    /// Only Unix sockets and those of TCP and UDP can be made.
    Families,
    /// Ordinary calls are refused for arguments that reach what the whole machine shares.
    Arguments,
    /// Calls by another ABI's numbers kill.
    SecondAbi,
    /// Each cell has shared memory, semaphores and message queues of its own.
    Messages,
    /// The terminals of a container have a cap of their own.
    Terminals,
}

impl Wall {
    /// Every one.
    const ALL: [Self; 14] = [
        Self::Cgroup,
        Self::User,
        Self::Rlimits,
        Self::ScratchBytes,
        Self::ScratchFiles,
        Self::Masks,
        Self::Processes,
        Self::Calls,
        Self::CloneThree,
        Self::Families,
        Self::Arguments,
        Self::SecondAbi,
        Self::Messages,
        Self::Terminals,
    ];

    /// Its name in the environment.
    const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::User => "user",
            Self::Rlimits => "rlimits",
            Self::ScratchBytes => "scratch-bytes",
            Self::ScratchFiles => "scratch-files",
            Self::Masks => "masks",
            Self::Processes => "processes",
            Self::Calls => "calls",
            Self::CloneThree => "clone3",
            Self::Families => "families",
            Self::Arguments => "arguments",
            Self::SecondAbi => "second-abi",
            Self::Messages => "messages",
            Self::Terminals => "terminals",
        }
    }

    /// Whether it is part of every cell, as it always is outside a test of the tests.
    pub(super) fn stands(self) -> bool {
        named().as_deref() != Some(self.name())
    }
}

/// The name of what is left out, if anything is.
///
/// # Errors
/// When the name is no wall's.
pub(super) fn down() -> Result<Option<String>, CellError> {
    match named() {
        Some(name) if !Wall::ALL.iter().any(|wall| wall.name() == name) => Err(CellError::new(
            format!("leave out the wall {name:?}"),
            Errno::EINVAL,
        )),
        known => Ok(known),
    }
}

/// What the environment names.
#[cfg(feature = "walls-down")]
#[expect(
    clippy::disallowed_methods,
    reason = "asked by a test build alone; the runner has no configuration"
)]
fn named() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// Nothing: only a test's build asks the environment.
#[cfg(not(feature = "walls-down"))]
const fn named() -> Option<String> {
    None
}
