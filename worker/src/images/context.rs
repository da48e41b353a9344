//! Build contexts: a folder's files as a tar archive for the engine, and a hash that changes when
//! they do.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::ImageError;

/// Maximum total size of a folder's files, in bytes. Larger files belong in a step of the
/// Dockerfile that downloads them.
const MAX_CONTEXT_BYTES: usize = 64 << 20;

/// Files that describe the image to people and to Sandhog; they are not part of it.
const EXCLUDED_FILES: [&str; 2] = ["README.md", "image.toml"];

/// One file of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContextFile {
    /// Its path in the archive.
    pub(super) path: String,
    /// Its content.
    pub(super) bytes: Vec<u8>,
    /// True if it may be executed.
    pub(super) executable: bool,
}

impl ContextFile {
    /// Creates a text file.
    pub(super) fn text(path: &str, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            bytes: text.into().into_bytes(),
            executable: false,
        }
    }
}

/// Reads every file of a folder that is part of the image, sorted by path.
pub(super) fn read_context(folder: &Path) -> Result<Vec<ContextFile>, ImageError> {
    let mut files = Vec::new();
    let mut total = 0;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        let unreadable = |source| unreadable(&next, source);
        for entry in std::fs::read_dir(&next).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let path = entry.path();
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() {
                folders.push(path);
            } else if !(next == folder
                && EXCLUDED_FILES.iter().any(|name| entry.file_name() == *name))
            {
                let file = read_file(folder, &path, kind.is_file())?;
                total += file.bytes.len();
                if total > MAX_CONTEXT_BYTES {
                    return Err(unreadable(std::io::ErrorKind::FileTooLarge.into()));
                }
                files.push(file);
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn read_file(folder: &Path, path: &Path, plain: bool) -> Result<ContextFile, ImageError> {
    use std::os::unix::fs::PermissionsExt;

    // A link could lead to a file outside the folder, and the folder's hash would not cover that
    // file.
    if !plain {
        return Err(unreadable(path, std::io::ErrorKind::InvalidInput.into()));
    }
    let metadata = std::fs::metadata(path).map_err(|source| unreadable(path, source))?;
    let bytes = std::fs::read(path).map_err(|source| unreadable(path, source))?;
    let relative = path.strip_prefix(folder).unwrap_or(path);
    let Some(relative) = relative.to_str() else {
        return Err(unreadable(path, std::io::ErrorKind::InvalidFilename.into()));
    };
    Ok(ContextFile {
        path: relative.to_owned(),
        bytes,
        executable: metadata.permissions().mode() & 0o111 != 0,
    })
}

fn unreadable(path: &Path, source: std::io::Error) -> ImageError {
    ImageError::Read {
        path: PathBuf::from(path),
        source,
    }
}

/// Returns the given folders and the files as a tar archive, all owned by root and without times.
pub(super) fn context_archive(folders: &[&str], files: &[ContextFile]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for folder in folders {
        let mut header = header(0o755, 0);
        header.set_entry_type(tar::EntryType::Directory);
        archive
            .append_data(&mut header, folder, std::io::empty())
            .expect("writing to memory cannot fail");
    }
    for file in files {
        let mode = if file.executable { 0o755 } else { 0o644 };
        archive
            .append_data(
                &mut header(mode, file.bytes.len() as u64),
                &file.path,
                file.bytes.as_slice(),
            )
            .expect("writing to memory cannot fail");
    }
    archive.into_inner().expect("writing to memory cannot fail")
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// A hash over named parts. Each part is hashed with its length, so that different lists of parts
/// cannot produce the same input.
#[derive(Debug, Default)]
pub(super) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Adds one part.
    pub(super) fn part(mut self, name: &str, bytes: &[u8]) -> Self {
        for piece in [name.as_bytes(), bytes] {
            self.0.update((piece.len() as u64).to_be_bytes());
            self.0.update(piece);
        }
        self
    }

    /// Adds files.
    pub(super) fn files(self, files: &[ContextFile]) -> Self {
        files.iter().fold(self, |sum, file| {
            let kind = if file.executable { "program" } else { "file" };
            sum.part(kind, file.path.as_bytes())
                .part("content", &file.bytes)
        })
    }

    /// Returns the hash in hexadecimal.
    pub(super) fn finish(self) -> String {
        use std::fmt::Write as _;

        self.0
            .finalize()
            .iter()
            .fold(String::with_capacity(64), |mut text, byte| {
                write!(text, "{byte:02x}").expect("writing to memory cannot fail");
                text
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(files: &[ContextFile]) -> String {
        Fingerprint::default().files(files).finish()
    }

    #[test]
    fn the_hash_sees_every_change() {
        let file = ContextFile::text("a", "bc");
        let mut executable = file.clone();
        executable.executable = true;
        let others = [
            vec![],
            vec![ContextFile::text("ab", "c")],
            vec![ContextFile::text("a", "b"), ContextFile::text("c", "")],
            vec![executable],
        ];
        for other in others {
            assert_ne!(hash(std::slice::from_ref(&file)), hash(&other), "{other:?}");
        }
    }

    #[test]
    fn a_folder_is_read_whole_but_for_its_description() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        for (name, text) in [
            ("Dockerfile", "FROM x"),
            ("README.md", "for people"),
            ("image.toml", "for us"),
            ("sub/README.md", "part of it"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let files = read_context(dir.path()).unwrap();
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["Dockerfile", "sub/README.md"]);

        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert!(
            read_context(dir.path()).is_err(),
            "a link leads out of the folder"
        );
    }
}
