//! Files in before a program, and out of a cell whose processes are all dead.
//!
//! Files come out by descriptor, from the working directory alone: one name at a time, never through a link, another
//! mount or the magic links of /proc, and with the rights of the program's own user. What is no regular file is never
//! opened for long, let alone read: sizes are looked at first, counts and depths are bounded. What matched and was not
//! taken is told with the reason.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{setfsgid, setfsuid};

use sandhog_runner::WORK_DIR;
use sandhog_runner::protocol::{Fetch, FetchedFile, FileIn, LeftFile, LeftWhy};

use super::identity::CellUser;

/// Directories below the working directory that are looked into, one within the other.
const MAX_DEPTH: usize = 16;

/// Names looked at in all directories together.
const MAX_SEEN: usize = 1 << 16;

/// Files told of that were not taken.
const MAX_LEFT: usize = 32;

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
/// # Errors
/// When the rights of the program's user cannot be taken on, or the directory itself does not read.
pub(super) fn collect(work: OwnedFd, user: CellUser, fetch: &Fetch) -> Result<Collected, Errno> {
    let _rights = Rights::of(user)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let work = openat(&work, ".", flags, Mode::empty())?;
    let device = fstat(&work)?.st_dev;
    let mut walk = Walk {
        fetch,
        device,
        seen: 0,
        bytes: 0,
        collected: Collected::default(),
    };
    walk.look_into(work, "", 0)?;
    Ok(walk.collected)
}

struct Walk<'a> {
    fetch: &'a Fetch,
    device: u64,
    seen: usize,
    bytes: u64,
    collected: Collected,
}

impl Walk<'_> {
    fn look_into(&mut self, folder: OwnedFd, path: &str, depth: usize) -> Result<(), Errno> {
        let mut listing = Dir::from_fd(folder)?;
        let mut names: Vec<CString> = Vec::new();
        for entry in listing.iter() {
            let name = entry?.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.seen == MAX_SEEN {
                self.leave(path, LeftWhy::TooManySeen);
                break;
            }
            self.seen += 1;
            names.push(name);
        }
        names.sort();
        for name in names {
            self.look_at(listing.as_fd(), &name, path, depth);
        }
        Ok(())
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
        if self.collected.files.len() >= usize::try_from(self.fetch.files).unwrap_or(usize::MAX) {
            return self.leave(&path, LeftWhy::TooMany);
        }
        if size > self.fetch.bytes.saturating_sub(self.bytes) {
            return self.leave(&path, LeftWhy::TooLarge);
        }
        let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        match File::from(file).take(size).read_to_end(&mut data) {
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
            .any(|pattern| fast_glob::glob_match(pattern, path))
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

/// The rights of the program's user on files, until it is dropped.
struct Rights;

impl Rights {
    fn of(user: CellUser) -> Result<Self, Errno> {
        // Each call answers what was so before; only asking again tells whether it worked.
        setfsgid(user.gid());
        setfsuid(user.uid());
        let taken = Self;
        if setfsuid(user.uid()) == user.uid() && setfsgid(user.gid()) == user.gid() {
            Ok(taken)
        } else {
            Err(Errno::EPERM)
        }
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        setfsuid(nix::unistd::Uid::from_raw(0));
        setfsgid(nix::unistd::Gid::from_raw(0));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use nix::sys::stat::mknod;

    use super::*;

    /// A directory of the test's own, removed with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("artifacts-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            let path = self.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }

        /// Taken with the rights of whoever runs the test.
        fn collect(&self, patterns: &[&str], files: u32, bytes: u64) -> Collected {
            let fetch = Fetch {
                patterns: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
                files,
                bytes,
            };
            let work: OwnedFd = File::open(&self.0).unwrap().into();
            let mut walk = Walk {
                fetch: &fetch,
                device: fstat(&work).unwrap().st_dev,
                seen: 0,
                bytes: 0,
                collected: Collected::default(),
            };
            walk.look_into(work, "", 0).unwrap();
            walk.collected
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    fn paths(collected: &Collected) -> Vec<&str> {
        collected
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect()
    }

    fn left(collected: &Collected) -> Vec<(&str, LeftWhy)> {
        let told = |left: &'_ LeftFile| left.why;
        collected
            .left
            .iter()
            .map(|left| (left.path.as_str(), told(left)))
            .collect()
    }

    #[test]
    fn what_matches_is_taken_in_order() {
        let scratch = Scratch::new("order");
        for name in ["b.txt", "a.txt", "c.bin", "out/x.txt", "out/deep/y.txt"] {
            scratch.write(name, name.as_bytes());
        }
        assert_eq!(
            paths(&scratch.collect(&["*.txt"], 9, 99)),
            ["a.txt", "b.txt"]
        );
        assert_eq!(
            paths(&scratch.collect(&["out/**", "c.*"], 9, 99)),
            ["c.bin", "out/deep/y.txt", "out/x.txt"]
        );
        let all = scratch.collect(&["**/*.txt"], 9, 99);
        assert_eq!(all.files.len(), 4);
        assert_eq!(all.files[0].data, b"a.txt");
        assert!(scratch.collect(&[], 9, 99).files.is_empty());
    }

    #[test]
    fn what_is_no_plain_file_is_told_and_left() {
        let scratch = Scratch::new("kinds");
        scratch.write("real", b"x");
        symlink("/etc/passwd", scratch.0.join("link")).unwrap();
        symlink("/etc", scratch.0.join("folder")).unwrap();
        symlink("real", scratch.0.join("inner")).unwrap();
        let fifo = scratch.0.join("fifo");
        mknod(&fifo, SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(scratch.0.join("socket")).unwrap();
        let found = scratch.collect(&["**"], 9, 1 << 20);
        assert_eq!(paths(&found), ["real"]);
        let names = ["fifo", "folder", "inner", "link", "socket"];
        assert_eq!(left(&found), names.map(|name| (name, LeftWhy::NotAFile)));
    }

    #[test]
    fn counts_sizes_and_depths_are_bounded() {
        let scratch = Scratch::new("bounds");
        for name in ["a", "b", "c", "d"] {
            scratch.write(name, b"12345");
        }
        let sparse = File::create(scratch.0.join("b2")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let found = scratch.collect(&["*"], 9, 12);
        assert_eq!(paths(&found), ["a", "b"]);
        assert_eq!(
            left(&found),
            ["b2", "c", "d"].map(|name| (name, LeftWhy::TooLarge))
        );
        let found = scratch.collect(&["?"], 2, 99);
        assert_eq!(
            left(&found),
            ["c", "d"].map(|name| (name, LeftWhy::TooMany))
        );

        let deep = vec!["deep"; MAX_DEPTH + 2].join("/");
        scratch.write(&format!("{deep}/x"), b"x");
        scratch.write(&format!("{}/x", vec!["less"; MAX_DEPTH].join("/")), b"x");
        let found = scratch.collect(&["**/x"], 9, 99);
        assert_eq!(found.files.len(), 1, "{:?}", left(&found));
        assert_eq!(left(&found).len(), 1);
        assert_eq!(left(&found)[0].1, LeftWhy::TooDeep);
    }
}
