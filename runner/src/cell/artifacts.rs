//! Files in before a program, and out of a cell whose processes are all dead.
//!
//! Files come out by descriptor, from the working directory alone: one name at a time, never through a link, another
//! mount or the magic links of /proc, and with the rights of the program's own user. What is no regular file is never
//! opened for long, let alone read: sizes are looked at first, counts and depths are bounded. What matched and was not
//! taken is told with the reason. A file that the job itself put there stays unless the program
//! changed it ([`Brought`]).

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use sandhog_runner::WORK_DIR;
use sandhog_runner::pattern;
use sandhog_runner::protocol::{Fetch, FetchedFile, FileIn, LeftFile, LeftWhy};

use super::identity::CellUser;

mod brought;
#[cfg(test)]
mod tests;

pub(crate) use brought::Brought;

/// Directories below the working directory that are looked into, one within the other.
const MAX_DEPTH: usize = 16;

/// Names looked at in all directories together.
const MAX_SEEN: usize = 1 << 16;

/// Time for looking at names and taking files. The runner does that after the program's end,
/// charged to no job, and does nothing else meanwhile.
const TIME: Duration = Duration::from_secs(2);

/// Files told of that were not taken.
const MAX_LEFT: usize = 32;

/// Path by which the working directory itself is told of.
const WHOLE: &str = ".";

/// What was taken, and what matched and was not.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// The files, in the order of their names.
    pub(crate) files: Vec<FetchedFile>,
    /// The others, at most [`MAX_LEFT`].
    pub(crate) left: Vec<LeftFile>,
}

/// Puts the files a job brings below the current directory, as whoever calls.
///
/// # Errors
/// When one cannot be made. Names that lead elsewhere are refused as such.
pub(super) fn place(files: &[FileIn]) -> io::Result<()> {
    for file in files {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !file.path.split('/').all(plain) {
            return Err(io::Error::from_raw_os_error(Errno::EINVAL as i32));
        }
        if let Some((folder, _name)) = file.path.rsplit_once('/') {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)?;
        }
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&file.path)?
            .write_all(&file.data)?;
    }
    Ok(())
}

/// The working directory of the caller's namespaces, as something to hold on to: nothing can be read by it.
pub(super) fn handle() -> Result<OwnedFd, Errno> {
    open(
        WORK_DIR,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// Takes what `fetch` asks for out of a working directory. Every process that could change it must be dead.
///
/// The program owns the directory and may have left it in any state, so nothing here is an error of
/// ours: a directory that cannot be read is told of as [`WHOLE`].
pub(super) fn collect(
    work: OwnedFd,
    user: CellUser,
    fetch: &Fetch,
    brought: &Brought,
) -> Collected {
    let Ok(_rights) = Rights::of(user) else {
        return unreadable();
    };
    Walk::through(work, fetch, brought, Instant::now() + TIME)
}

/// The result for a working directory that cannot be read.
fn unreadable() -> Collected {
    let left = LeftFile {
        path: WHOLE.to_owned(),
        why: LeftWhy::Unreadable,
    };
    Collected {
        files: Vec::new(),
        left: vec![left],
    }
}

struct Walk<'a> {
    fetch: &'a Fetch,
    brought: &'a Brought,
    device: u64,
    seen: usize,
    bytes: u64,
    until: Instant,
    collected: Collected,
}

impl<'a> Walk<'a> {
    /// Looks into a directory with the rights that the caller has.
    fn through(work: OwnedFd, fetch: &'a Fetch, brought: &'a Brought, until: Instant) -> Collected {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = openat(&work, ".", flags, Mode::empty())
            .and_then(|folder| Ok((fstat(&folder)?.st_dev, folder)));
        let Ok((device, folder)) = opened else {
            return unreadable();
        };
        let mut walk = Self {
            fetch,
            brought,
            device,
            seen: 0,
            bytes: 0,
            until,
            collected: Collected::default(),
        };
        if walk.look_into(folder, "", 0).is_err() {
            walk.leave(WHOLE, LeftWhy::Unreadable);
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
            if self.seen == MAX_SEEN || self.out_of_time() {
                self.leave(folder_name(path), LeftWhy::TooManySeen);
                break;
            }
            self.seen += 1;
            names.push(name);
        }
        names.sort();
        for name in names {
            if self.out_of_time() {
                self.leave(folder_name(path), LeftWhy::TooManySeen);
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
            // A link, another mount, or what was left without anybody to answer.
            Err(Errno::ELOOP | Errno::EXDEV | Errno::ENXIO) => {
                return self.leave_if(wanted, &path, LeftWhy::NotAFile);
            }
            Err(_) => return self.leave_if(wanted, &path, LeftWhy::Unreadable),
        };
        match kind(&stat) {
            SFlag::S_IFDIR if depth == MAX_DEPTH => self.leave(&path, LeftWhy::TooDeep),
            SFlag::S_IFDIR if stat.st_dev == self.device => {
                if self.look_into(file, &path, depth + 1).is_err() {
                    self.leave(&path, LeftWhy::Unreadable);
                }
            }
            SFlag::S_IFREG if !wanted => {}
            SFlag::S_IFREG if readable.is_err() => self.leave(&path, LeftWhy::Name),
            SFlag::S_IFREG if stat.st_dev == self.device => self.take(file, &stat, path),
            _ => self.leave_if(wanted, &path, LeftWhy::NotAFile),
        }
    }

    fn take(&mut self, file: OwnedFd, stat: &FileStat, path: String) {
        // The size it claims, not the room it takes: a sparse file costs as much to send as any.
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let file = File::from(file);
        let is_named = || self.fetch.patterns.contains(&path);
        if self.brought.is_unchanged(&path, &file, size) && !is_named() {
            return;
        }
        if self.collected.files.len() >= usize::try_from(self.fetch.files).unwrap_or(usize::MAX) {
            return self.leave(&path, LeftWhy::TooMany);
        }
        if size > self.fetch.bytes.saturating_sub(self.bytes) {
            return self.leave(&path, LeftWhy::TooLarge);
        }
        let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        match file.take(size).read_to_end(&mut data) {
            Ok(_) => {
                self.bytes += data.len() as u64;
                self.collected.files.push(FetchedFile { path, data });
            }
            Err(_) => self.leave(&path, LeftWhy::Unreadable),
        }
    }

    fn matches(&self, path: &str) -> bool {
        self.fetch
            .patterns
            .iter()
            // One match takes milliseconds at most; many patterns times many names would take
            // hours.
            .any(|pattern| !self.out_of_time() && pattern::matches(pattern, path))
    }

    fn leave_if(&mut self, wanted: bool, path: &str, why: LeftWhy) {
        if wanted {
            self.leave(path, why);
        }
    }

    fn leave(&mut self, path: &str, why: LeftWhy) {
        if self.collected.left.len() < MAX_LEFT {
            self.collected.left.push(LeftFile {
                path: path.to_owned(),
                why,
            });
        }
    }
}

/// Path by which a directory is reported.
fn folder_name(path: &str) -> &str {
    if path.is_empty() { WHOLE } else { path }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Opens one name in a directory, if it leads nowhere else. Never blocks, not on a FIFO either.
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
        // gVisor of 2022 has no such call. A single name without links leads nowhere else either; what is of another
        // file system is told by its device.
        Err(Errno::ENOSYS) => openat(folder, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// The rights of the program's user, taken on by this thread until it is dropped.
struct Rights;

impl Rights {
    fn of(user: CellUser) -> Result<Self, Errno> {
        let taken = Self;
        effective_gid(user.gid().as_raw())?;
        effective_uid(user.uid().as_raw())?;
        Ok(taken)
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        // The user first: only root may change the group. Root may always come back, its real and saved ids never left.
        let back = effective_uid(0).and_then(|()| effective_gid(0));
        assert!(
            back.is_ok(),
            "a runner that stays somebody else cannot go on"
        );
    }
}

/// Changes the effective user of this thread alone. Not the C library's call, which changes every thread's; not
/// `setfsuid`, which gVisor of 2022 lacks.
fn effective_uid(uid: libc::uid_t) -> Result<(), Errno> {
    const KEEP: libc::uid_t = libc::uid_t::MAX;
    // SAFETY: three numbers, no memory.
    let answer = unsafe { libc::syscall(libc::SYS_setresuid, KEEP, uid, KEEP) };
    Errno::result(answer).map(drop)
}

/// Changes the effective group of this thread alone.
fn effective_gid(gid: libc::gid_t) -> Result<(), Errno> {
    const KEEP: libc::gid_t = libc::gid_t::MAX;
    // SAFETY: three numbers, no memory.
    let answer = unsafe { libc::syscall(libc::SYS_setresgid, KEEP, gid, KEEP) };
    Errno::result(answer).map(drop)
}
