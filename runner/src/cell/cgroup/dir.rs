//! One directory of a cgroup file system, and the files in it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::cell::CellError;
use crate::cell::error::{Step, errno_of};

/// Number of attempts to remove a directory, one millisecond apart.
const REMOVAL_TRIES: u32 = 200;

/// Highest number of a cell's directory. One cell runs and one is on standby; the other numbers are
/// for directories that could not be removed.
const LAST_CELL: u32 = 15;

/// An open cgroup directory.
#[derive(Debug, Clone)]
pub(super) struct Dir {
    fd: Rc<OwnedFd>,
    name: String,
}

impl Dir {
    /// Opens a directory by its path.
    ///
    /// # Errors
    /// Fails if the directory does not exist.
    pub(super) fn open(path: &str) -> Result<Self, CellError> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let fd = open(path, flags, Mode::empty())
            .map_err(|errno| CellError::new(format!("open {path}"), errno))?;
        Ok(Self {
            fd: Rc::new(fd),
            name: path.to_owned(),
        })
    }

    /// Makes and opens a directory in this one. Dropping the value without [`Child::remove`]
    /// removes the directory again.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(super) fn child(&self, name: &str) -> Result<Child, CellError> {
        let path = format!("{}/{name}", self.name);
        let failed = |errno| CellError::new(format!("make {path}"), errno);
        mkdirat(self.fd.as_fd(), name, Mode::from_bits_truncate(0o755)).map_err(failed)?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let fd = openat(self.fd.as_fd(), name, flags, Mode::empty()).map_err(failed)?;
        Ok(Child {
            dir: Self {
                fd: Rc::new(fd),
                name: path,
            },
            parent: self.clone(),
            name: name.to_owned(),
        })
    }

    /// Opens a directory in this one that exists already, as if this process had made it.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(super) fn existing_child(&self, name: &str) -> Result<Child, CellError> {
        Ok(Child {
            dir: Self::open(&format!("{}/{name}", self.name))?,
            parent: self.clone(),
            name: name.to_owned(),
        })
    }

    /// Returns the path by which the directory was opened.
    pub(super) fn path(&self) -> &str {
        &self.name
    }

    /// Makes a [`Dir::child`] for a cell, under the first free name of `cell-0`, `cell-1`, ….
    ///
    /// # Errors
    /// Fails if the kernel refuses, or if all names up to [`LAST_CELL`] are taken.
    pub(super) fn make_cell_dir(&self) -> Result<Child, CellError> {
        self.numbered_child("cell", LAST_CELL)
    }

    /// Makes a [`Dir::child`] under the first free name of `prefix-0`, `prefix-1`, ….
    ///
    /// The kernel remembers the name of a removed directory and charges the memory to the
    /// container. So names are reused; a directory that could not be removed keeps its name.
    ///
    /// # Errors
    /// Fails if the kernel refuses, or if all names up to the number `last` are taken.
    pub(super) fn numbered_child(&self, prefix: &str, last: u32) -> Result<Child, CellError> {
        let mut number = 0;
        loop {
            match self.child(&format!("{prefix}-{number}")) {
                Err(error) if error.errno == Errno::EEXIST && number < last => number += 1,
                made => return made,
            }
        }
    }

    /// Returns the memory that a directory of version 1 holds, and the part that is file cache, in
    /// bytes.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub(super) fn v1_memory_in_use(&self) -> Result<(u64, u64), CellError> {
        let held = self.number("memory.usage_in_bytes")?;
        let keys = ["total_inactive_file", "total_active_file"];
        Ok((held, self.sum("memory.stat", &keys)?))
    }

    /// Returns the memory that a directory of version 2 holds, and the part that is file cache, in
    /// bytes.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub(super) fn v2_memory_in_use(&self) -> Result<(u64, u64), CellError> {
        let held = self.number("memory.current")?;
        let keys = ["inactive_file", "active_file"];
        Ok((held, self.sum("memory.stat", &keys)?))
    }

    /// Returns the directory's descriptor.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens a file in the directory.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(super) fn file(&self, name: &str, flags: OFlag) -> Result<File, CellError> {
        openat(
            self.fd.as_fd(),
            name,
            flags | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map(File::from)
        .map_err(|errno| CellError::new(format!("open {}/{name}", self.name), errno))
    }

    /// Writes a value to a file.
    ///
    /// # Errors
    /// Fails if the file does not exist or the kernel refuses the value.
    pub(super) fn set(&self, name: &str, value: &str) -> Result<(), CellError> {
        self.file(name, OFlag::O_WRONLY)?
            .write_all_at(value.as_bytes(), 0)
            .map_err(|error| {
                let step = format!("set {}/{name} to {value}", self.name);
                CellError::new(step, errno_of(&error))
            })
    }

    /// Returns whether the directory has this file.
    pub(super) fn has(&self, name: &str) -> bool {
        self.file(name, OFlag::O_RDONLY).is_ok()
    }

    /// Reads a file that holds one number.
    ///
    /// # Errors
    /// Fails if the file cannot be read or does not hold a number.
    pub(super) fn number(&self, name: &str) -> Result<u64, CellError> {
        let text = read(&self.file(name, OFlag::O_RDONLY)?)?;
        number(&text)
    }

    /// Reads one key of a file of `key value` lines. Returns zero if the key is missing.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub(super) fn keyed(&self, name: &str, key: &str) -> Result<u64, CellError> {
        let text = read(&self.file(name, OFlag::O_RDONLY)?)?;
        Ok(keyed(&text, key).unwrap_or(0))
    }

    /// Adds up several keys of a file of `key value` lines, which is read once.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub(super) fn sum(&self, name: &str, keys: &[&str]) -> Result<u64, CellError> {
        let text = read(&self.file(name, OFlag::O_RDONLY)?)?;
        Ok(keys.iter().filter_map(|key| keyed(&text, key)).sum())
    }
}

/// A directory that the runner made.
#[derive(Debug)]
pub(super) struct Child {
    /// The directory.
    pub(super) dir: Dir,
    parent: Dir,
    name: String,
}

impl Child {
    /// Removes the directory. Returns whether it is gone.
    ///
    /// The caller must first close the directory's files. The name and inode of a file that is
    /// closed after its directory is gone stay in the kernel's caches: 2 KiB for each, charged to
    /// the container.
    pub(super) fn remove(self) -> bool {
        for _ in 0..REMOVAL_TRIES {
            match self.rmdir() {
                Ok(()) | Err(Errno::ENOENT) => return true,
                Err(Errno::EBUSY) => std::thread::sleep(Duration::from_millis(1)),
                Err(_) => return false,
            }
        }
        false
    }

    /// Tries once to remove the directory. Returns whether it is gone.
    pub(super) fn remove_now(&self) -> bool {
        matches!(self.rmdir(), Ok(()) | Err(Errno::ENOENT))
    }

    /// Returns the path of the parent directory.
    pub(super) fn parent_path(&self) -> &str {
        self.parent.path()
    }

    fn rmdir(&self) -> Result<(), Errno> {
        unlinkat(
            self.parent.fd.as_fd(),
            self.name.as_str(),
            UnlinkatFlags::RemoveDir,
        )
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // After `remove` this has no effect. Otherwise the cell could not be made.
        self.rmdir().ok();
    }
}

/// Reads a small file from its start.
///
/// # Errors
/// Fails if the kernel refuses.
pub(super) fn read(file: &File) -> Result<String, CellError> {
    let mut buffer = [0; 4096];
    let length = file.read_at(&mut buffer, 0).step("read a cgroup's count")?;
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}

/// Parses a text that holds one number.
///
/// # Errors
/// Fails if the text is not a number.
pub(super) fn number(text: &str) -> Result<u64, CellError> {
    text.trim()
        .parse()
        .map_err(|_not| CellError::new(format!("read the count {:?}", text.trim()), Errno::EINVAL))
}

/// Returns the number beside `key` in a text of `key value` lines.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(found, _)| *found == key)
        .and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_whole_key() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(keyed(text, "oom_kill"), Some(2));
        assert_eq!(keyed(text, "oom"), Some(3));
        assert_eq!(keyed(text, "kill"), None);
        assert_eq!(number(" 12\n"), Ok(12));
        assert!(number("max\n").is_err());
    }

    #[test]
    fn names_of_cells_are_used_again() {
        let place = std::env::temp_dir().join(format!("cells-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let dir = Dir::open(place.to_str().unwrap()).unwrap();
        let mut cells: Vec<_> = (0..=LAST_CELL)
            .map(|_| dir.make_cell_dir().unwrap())
            .collect();
        let full = dir.make_cell_dir().unwrap_err();
        assert_eq!(full.errno, Errno::EEXIST, "{}", full.line());

        assert!(cells.swap_remove(3).remove());
        let next = dir.make_cell_dir().unwrap();
        assert_eq!(next.name, "cell-3");
        drop((next, cells));
        std::fs::remove_dir_all(&place).unwrap();
    }
}
