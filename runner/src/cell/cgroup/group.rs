//! One cell's cgroup, of the version that the container has.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use sandhog_protocol::frames::CellCaps;

use super::counts::Counts;
use super::v1::V1Group;
use super::v2::V2Group;
use crate::cell::CellError;
use crate::cell::error::Step;

/// One cell's cgroup.
#[derive(Debug)]
pub(in crate::cell) struct Group(pub(super) Version);

/// The versions of cgroups.
#[derive(Debug)]
pub(super) enum Version {
    /// One directory for each controller.
    V1(Box<V1Group>),
    /// One directory.
    V2(V2Group),
}

impl Group {
    /// Moves the calling process, which must have one thread, into the cgroup.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(in crate::cell) fn join(&self) -> Result<(), CellError> {
        self.join_files()?
            .iter()
            .try_for_each(|join_file| join_file.write_all_at(b"0", 0))
            .step("join the cell's cgroup")
    }

    /// Returns the directory into which a process can be forked by [`namespaces::fork_into`].
    /// `None` if the cgroup's version does not support that.
    ///
    /// [`namespaces::fork_into`]: crate::cell::namespaces::fork_into
    pub(in crate::cell) fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Version::V1(_) => None,
            Version::V2(group) => Some(group.clone_target()),
        }
    }

    /// Replaces the cgroup's caps.
    ///
    /// # Errors
    /// Fails if a cap cannot be set.
    pub(in crate::cell) fn cap(&self, caps: &CellCaps) -> Result<(), CellError> {
        match &self.0 {
            Version::V1(group) => group.cap(caps),
            Version::V2(group) => group.cap(caps),
        }
    }

    /// Opens the files by which a process joins the cgroup: it writes `0` to each.
    ///
    /// # Errors
    /// Fails if a file cannot be opened.
    pub(in crate::cell) fn join_files(&self) -> Result<Vec<File>, CellError> {
        match &self.0 {
            Version::V1(group) => group.join_files(),
            Version::V2(group) => group.join_files(),
        }
    }

    /// Returns the descriptors that must stay open for [`Group::join`].
    pub(in crate::cell) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match &self.0 {
            Version::V1(group) => group.descriptors(),
            Version::V2(group) => group.descriptors(),
        }
    }

    /// Returns the counters so far.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub(in crate::cell) fn counts(&self) -> Result<Counts, CellError> {
        match &self.0 {
            Version::V1(group) => group.counts(),
            Version::V2(group) => group.counts(),
        }
    }

    /// Returns whether memory and the buffers of TCP and UDP together are above the cap. Version 1
    /// counts the two separately.
    ///
    /// # Errors
    /// Fails if a counter cannot be read.
    pub(in crate::cell) fn is_above_its_cap(&self) -> Result<bool, CellError> {
        match &self.0 {
            Version::V1(group) => group.is_above_its_cap(),
            // Version 2 has one counter for both, and the kernel enforces its cap.
            Version::V2(_) => Ok(false),
        }
    }

    /// Returns the highest memory in use at one time, in bytes.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub(in crate::cell) fn memory_peak(&self) -> Result<u64, CellError> {
        match &self.0 {
            Version::V1(group) => group.memory_peak(),
            Version::V2(group) => group.memory_peak(),
        }
    }

    /// Returns whether a process or thread was refused at the cap.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub(in crate::cell) fn pids_refused(&self) -> Result<bool, CellError> {
        match &self.0 {
            Version::V1(group) => group.pids_refused(),
            Version::V2(group) => group.pids_refused(),
        }
    }

    /// Lifts the CPU cap, so that processes that must end get the CPU time for it.
    pub(in crate::cell) fn unthrottle(&self) {
        match &self.0 {
            Version::V1(group) => group.unthrottle(),
            Version::V2(group) => group.unthrottle(),
        }
    }

    /// Removes the cgroup. Waits a moment for processes that are about to end. Returns whether it
    /// is gone.
    pub(in crate::cell) fn remove(self) -> bool {
        match self.0 {
            Version::V1(group) => group.remove(),
            Version::V2(group) => group.remove(),
        }
    }
}
