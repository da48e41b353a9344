//! Files that are collected from the working directory of a cell whose processes are all dead.
//!
//! The runner collects files by descriptor, only from the working directory and with the rights of
//! the program's own user. It opens one name at a time and never follows a link, another mount or
//! the magic links of /proc. It closes everything that is not a regular file without reading it. It
//! checks sizes before it reads, and it bounds counts and depths. A file that matched but was not
//! taken is reported with the reason. A file that the job itself put there is not collected unless
//! the program changed it ([`InputSnapshot`]).

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use sandhog_protocol::frames::{Fetch, FetchedFile, LeftFile, NotFetched};
use sandhog_protocol::install::WORK_DIR;
use sandhog_protocol::pattern;

use super::input_snapshot::InputSnapshot;
use crate::cell::cell_user::CellUser;

/// Largest depth of nested directories below the working directory that are searched.
const MAX_DEPTH: usize = 16;

/// Largest number of names that are checked in all directories together.
const MAX_ENTRIES: usize = 1 << 16;

/// Time limit for checking names and reading files. The runner does this after the program's end.
/// The time is charged to no job, and the runner does nothing else meanwhile.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Largest number of files that are reported as not taken.
const MAX_SKIPPED: usize = 32;

/// Path under which the working directory itself is reported.
const ROOT_PATH: &str = ".";

/// Files that were taken, and files that matched but were not taken.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// The files, in the order of their names.
    pub(crate) files: Vec<FetchedFile>,
    /// The files that were not taken, at most [`MAX_SKIPPED`].
    pub(crate) skipped: Vec<LeftFile>,
}

/// Opens the working directory of the caller's namespaces as a handle. Nothing can be read through
/// the handle itself.
pub(in crate::cell) fn open_work_dir() -> Result<OwnedFd, Errno> {
    open(
        WORK_DIR,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// Collects the files that `fetch` asks for from a working directory. Every process that could
/// change the directory must be dead.
///
/// The program owns the directory and may have left it in any state, so no failure here is an error
/// of the runner. A directory that cannot be read is reported as [`ROOT_PATH`].
pub(in crate::cell) fn collect(
    work: OwnedFd,
    user: CellUser,
    fetch: &Fetch,
    snapshot: &InputSnapshot,
) -> Collected {
    let Ok(_guard) = UserGuard::of(user) else {
        return unreadable();
    };
    Walk::through(work, fetch, snapshot, Instant::now() + COLLECT_TIMEOUT)
}

/// Returns the result for a working directory that cannot be read.
fn unreadable() -> Collected {
    let root = LeftFile {
        path: ROOT_PATH.to_owned(),
        why: NotFetched::Unreadable,
    };
    Collected {
        files: Vec::new(),
        skipped: vec![root],
    }
}

struct Walk<'a> {
    fetch: &'a Fetch,
    snapshot: &'a InputSnapshot,
    device: u64,
    entries: usize,
    bytes: u64,
    until: Instant,
    collected: Collected,
}

impl<'a> Walk<'a> {
    /// Searches a directory with the rights of the caller.
    fn through(
        work: OwnedFd,
        fetch: &'a Fetch,
        snapshot: &'a InputSnapshot,
        until: Instant,
    ) -> Collected {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = openat(&work, ".", flags, Mode::empty())
            .and_then(|folder| Ok((fstat(&folder)?.st_dev, folder)));
        let Ok((device, folder)) = opened else {
            return unreadable();
        };
        let mut walk = Self {
            fetch,
            snapshot,
            device,
            entries: 0,
            bytes: 0,
            until,
            collected: Collected::default(),
        };
        if walk.look_into(folder, "", 0).is_err() {
            walk.skip(ROOT_PATH, NotFetched::Unreadable);
        }
        walk.collected
    }

    fn look_into(&mut self, folder: OwnedFd, path: &str, depth: usize) -> Result<(), Errno> {
        let mut listing = Dir::from_fd(folder)?;
        let mut names: Vec<CString> = Vec::new();
        for entry in listing.iter() {
            let name = entry?.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.entries == MAX_ENTRIES || self.out_of_time() {
                self.skip(folder_name(path), NotFetched::TooManySeen);
                break;
            }
            self.entries += 1;
            names.push(name);
        }
        names.sort();
        for name in names {
            if self.out_of_time() {
                self.skip(folder_name(path), NotFetched::TooManySeen);
                break;
            }
            self.look_at(listing.as_fd(), &name, path, depth);
        }
        Ok(())
    }

    fn out_of_time(&self) -> bool {
        Instant::now() >= self.until
    }

    fn look_at(&mut self, folder: BorrowedFd<'_>, name: &CStr, path: &str, depth: usize) {
        let readable = name.to_str();
        let text = readable.map_or_else(|_| name.to_string_lossy().into_owned(), str::to_owned);
        let path = match path {
            "" => text,
            path => format!("{path}/{text}"),
        };
        let wanted = self.matches(&path);
        let (file, stat) = match open_below(folder, name).and_then(|file| {
            let stat = fstat(&file)?;
            Ok((file, stat))
        }) {
            Ok(opened) => opened,
            // A link (`ELOOP`), another mount (`EXDEV`), or a socket or device that cannot be
            // opened (`ENXIO`).
            Err(Errno::ELOOP | Errno::EXDEV | Errno::ENXIO) => {
                return self.skip_if(wanted, &path, NotFetched::NotAFile);
            }
            Err(_) => return self.skip_if(wanted, &path, NotFetched::Unreadable),
        };
        match kind(&stat) {
            SFlag::S_IFDIR if depth == MAX_DEPTH => self.skip(&path, NotFetched::TooDeep),
            SFlag::S_IFDIR if stat.st_dev == self.device => {
                if self.look_into(file, &path, depth + 1).is_err() {
                    self.skip(&path, NotFetched::Unreadable);
                }
            }
            SFlag::S_IFREG if !wanted => {}
            SFlag::S_IFREG if readable.is_err() => self.skip(&path, NotFetched::Name),
            SFlag::S_IFREG if stat.st_dev == self.device => self.take(file, &stat, path),
            _ => self.skip_if(wanted, &path, NotFetched::NotAFile),
        }
    }

    fn take(&mut self, file: OwnedFd, stat: &FileStat, path: String) {
        // The apparent size counts, not the space used: sending a sparse file costs as much as
        // sending any other file of that size.
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let file = File::from(file);
        let is_named = || self.fetch.patterns.contains(&path);
        if self.snapshot.is_unchanged(&path, &file, size) && !is_named() {
            return;
        }
        if self.collected.files.len() >= usize::try_from(self.fetch.files).unwrap_or(usize::MAX) {
            return self.skip(&path, NotFetched::TooMany);
        }
        if size > self.fetch.bytes.saturating_sub(self.bytes) {
            return self.skip(&path, NotFetched::TooLarge);
        }
        let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        match file.take(size).read_to_end(&mut data) {
            Ok(_) => {
                self.bytes += data.len() as u64;
                self.collected.files.push(FetchedFile { path, data });
            }
            Err(_) => self.skip(&path, NotFetched::Unreadable),
        }
    }

    fn matches(&self, path: &str) -> bool {
        self.fetch
            .patterns
            .iter()
            // One match takes milliseconds at most, but many patterns times many names would take
            // hours.
            .any(|pattern| !self.out_of_time() && pattern::matches_pattern(pattern, path))
    }

    fn skip_if(&mut self, wanted: bool, path: &str, why: NotFetched) {
        if wanted {
            self.skip(path, why);
        }
    }

    fn skip(&mut self, path: &str, why: NotFetched) {
        if self.collected.skipped.len() < MAX_SKIPPED {
            self.collected.skipped.push(LeftFile {
                path: path.to_owned(),
                why,
            });
        }
    }
}

/// Returns the path under which a directory is reported.
fn folder_name(path: &str) -> &str {
    if path.is_empty() { ROOT_PATH } else { path }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Opens one name in a directory, unless it leads out of the directory. Never blocks, not even on a
/// FIFO.
fn open_below(folder: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY
        | OFlag::O_NOFOLLOW
        | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV,
    );
    match openat2(folder, name, how) {
        // gVisor of 2022 has no such call. A single name without links cannot lead out of the
        // directory either, and the caller detects another file system by its device number.
        Err(Errno::ENOSYS) => openat(folder, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// The rights of the program's user, which this thread has until the value is dropped.
struct UserGuard;

impl UserGuard {
    fn of(user: CellUser) -> Result<Self, Errno> {
        let guard = Self;
        effective_gid(user.gid().as_raw())?;
        effective_uid(user.uid().as_raw())?;
        Ok(guard)
    }
}

impl Drop for UserGuard {
    fn drop(&mut self) {
        // The user comes first, because only root may change the group. The thread may always
        // return to root, because its real and saved ids never change.
        let back = effective_uid(0).and_then(|()| effective_gid(0));
        assert!(
            back.is_ok(),
            "cannot restore the runner's user and group to root: {back:?}"
        );
    }
}

/// Changes the effective user of this thread alone. The C library's call would change that of every
/// thread, and gVisor of 2022 lacks `setfsuid`.
fn effective_uid(uid: libc::uid_t) -> Result<(), Errno> {
    const KEEP: libc::uid_t = libc::uid_t::MAX;
    // SAFETY: the call takes three numbers and accesses no memory.
    let answer = unsafe { libc::syscall(libc::SYS_setresuid, KEEP, uid, KEEP) };
    Errno::result(answer).map(drop)
}

/// Changes the effective group of this thread alone.
fn effective_gid(gid: libc::gid_t) -> Result<(), Errno> {
    const KEEP: libc::gid_t = libc::gid_t::MAX;
    // SAFETY: the call takes three numbers and accesses no memory.
    let answer = unsafe { libc::syscall(libc::SYS_setresgid, KEEP, gid, KEEP) };
    Errno::result(answer).map(drop)
}

#[cfg(test)]
mod tests;
