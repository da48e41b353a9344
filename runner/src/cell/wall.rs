//! Walls of a cell that a test build can leave out, one at a time, to prove that the test of each
//! wall detects its absence.
//!
//! Only a build with the feature `walls-down` can leave out a wall. The variable
//! `SANDHOG_WALL_DOWN` in the runner's own environment, which comes from the image, names the wall.
//! In every other build all walls are in force and the variable is not read. A runner that leaves
//! out a wall reports this in its first frame. It does not start if the name is unknown.
//!
//! A protection that exists twice is not a wall here, because no program could detect that one of
//! the two is missing. These are the host name (the container's name reveals nothing either),
//! the settings in `/proc/sys` (the program's user cannot write them), and the rights with which
//! files are collected (the runner may not read files of other users).

use nix::errno::Errno;

use super::CellError;

/// Variable that names the wall to leave out.
#[cfg(feature = "walls-down")]
const VARIABLE: &str = "SANDHOG_WALL_DOWN";

/// A wall, or a part of one that can be left out separately.
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
    /// Entries of `/proc` that reveal facts about the machine are covered.
    Masks,
    /// Other users' processes are invisible in `/proc`.
    Processes,
    /// System calls that no program needs are refused.
    Calls,
    /// `clone3`, whose flags a filter cannot read, appears not to exist.
    CloneThree,
    /// Only Unix, TCP and UDP sockets can be made.
    Families,
    /// Ordinary calls are refused for arguments that reach resources of the whole machine.
    Arguments,
    /// Calls by the numbers of another ABI kill the process.
    SecondAbi,
    /// Each cell has its own shared memory, semaphores and message queues.
    Messages,
    /// The terminals of a container have their own cap.
    Terminals,
}

impl Wall {
    /// All walls.
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

    /// Returns the wall's name in the environment variable.
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

    /// Returns whether the wall is in force. It always is, except in a test that leaves it out.
    pub(super) fn stands(self) -> bool {
        named().as_deref() != Some(self.name())
    }
}

/// Returns the name of the wall that is left out, if there is one.
///
/// # Errors
/// Fails if no wall has that name.
pub(super) fn down() -> Result<Option<String>, CellError> {
    match named() {
        Some(name) if !Wall::ALL.iter().any(|wall| wall.name() == name) => Err(CellError::new(
            format!("leave out the wall {name:?}, which does not exist"),
            Errno::EINVAL,
        )),
        known => Ok(known),
    }
}

/// Returns the name in the environment variable.
#[cfg(feature = "walls-down")]
#[expect(
    clippy::disallowed_methods,
    reason = "asked by a test build alone; the runner has no configuration"
)]
fn named() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// Returns `None`: only a test build reads the environment variable.
#[cfg(not(feature = "walls-down"))]
const fn named() -> Option<String> {
    None
}
