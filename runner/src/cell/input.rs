//! Standard input and the job's `input`, as files that count toward the program's memory.
//!
//! The program's own process makes both, after it has joined its cgroup, because the kernel charges
//! a page to the process that writes it first.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use sandhog_protocol::frames::INPUT_FILE;

use super::descriptors;

/// Descriptor number of standard input.
const STDIN: i32 = 0;

/// Seals against every change of a file's content and size. The descriptor itself is open for
/// writing, but the kernel refuses each write.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// Opens an empty standard input for a program that has none yet. Each call makes a new open file
/// description, so that no flag or lock passes from one cell to the next.
///
/// # Errors
/// Fails if the container has no `/dev/null`.
pub(super) fn open_empty_input() -> io::Result<OwnedFd> {
    File::open("/dev/null").map(OwnedFd::from)
}

/// Makes `bytes` the standard input of this process, as a file that the program can seek in and
/// map.
///
/// # Errors
/// Fails if the kernel has no memory for it.
pub(super) fn install_stdin(bytes: &[u8]) -> io::Result<()> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"stdin", flags)?);
    file.write_all(bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
    file.rewind()?;
    Ok(descriptors::install_at(&file.into(), STDIN)?)
}

/// Writes the job's `input` to the file that [`INPUT_FILE`] names.
///
/// # Errors
/// Fails if the scratch space has no room for it.
pub(super) fn write_input(json: &str) -> io::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(INPUT_FILE)?
        .write_all(json.as_bytes())
}
