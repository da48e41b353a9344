//! Files and folders that `--put` adds to a job.
//!
//! A folder keeps its own name and the paths below it. Files that belong to tools and not to the
//! program are left out, and so are links that lead out of the folder. Two files never get the same
//! name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sandhog_core::blob::Blob;
use sandhog_core::files::MAX_FILES;

use crate::error::CliError;
use crate::exit::Exit;
use crate::input_file::read_input_file;
use crate::output::Printer;
use crate::quantity::format_size;

/// Largest total size of all files in bytes, before they are encoded. The runner accepts no more in
/// one job.
const PUT_BYTES_MAX: u64 = 16 << 20;

/// Names that are left out of a folder. They belong to version control and other tools.
const LEFT_OUT_NAMES: [&str; 6] = [
    ".git",
    ".hg",
    ".svn",
    "__pycache__",
    ".DS_Store",
    ".ipynb_checkpoints",
];

/// Files that mark a folder as one that can be created again: a virtual environment, and a cache
/// (<https://bford.info/cachedir/>). Such a folder is left out.
const RECREATABLE_MARKERS: [&str; 2] = ["pyvenv.cfg", "CACHEDIR.TAG"];

/// Reads the files that `--put` names. Returns them by their names in the working directory.
///
/// # Errors
/// Fails when a file cannot be read, when two files get the same name, or when the files are too
/// many or too large.
pub(crate) fn put_files(
    arguments: &[String],
    output: Printer,
) -> Result<BTreeMap<String, Blob>, CliError> {
    let mut found = FoundFiles::default();
    for argument in arguments {
        let (name, path) = match argument.split_once('=') {
            Some((name, path)) => (name.trim_end_matches('/').to_owned(), Path::new(path)),
            None => (own_name(Path::new(argument))?, Path::new(argument)),
        };
        if path.is_dir() {
            let (before, bytes) = (found.files.len(), found.bytes);
            let mut left_out = Vec::new();
            let root = path
                .canonicalize()
                .map_err(|error| unreadable(path, error))?;
            found.folder(&root, path, &name, &mut left_out)?;
            let text = format!(
                "sandhog: put {} files of {} ({})",
                found.files.len() - before,
                path.display(),
                format_size(found.bytes - bytes)
            );
            output.note(&match left_out.as_slice() {
                [] => text,
                some => format!("{text}, without {}", some.join(", ")),
            });
        } else {
            found.file(path, name)?;
        }
    }
    let files = found.files.into_iter();
    Ok(files.map(|(name, (_path, data))| (name, data)).collect())
}

/// Returns the name that a file or folder gets from its path: the last part of the path, or an
/// empty name for the current folder.
fn own_name(path: &Path) -> Result<String, CliError> {
    if path == Path::new(".") {
        return Ok(String::new());
    }
    match path.file_name() {
        Some(name) => text(path, name),
        None => Err(CliError::message(
            Exit::Usage,
            format!(
                "the path of --put {} does not end with a name",
                path.display()
            ),
        )
        .hint("set the name with --put NAME=PATH")),
    }
}

/// The files found so far, by name, each with its path.
#[derive(Debug, Default)]
struct FoundFiles {
    files: BTreeMap<String, (PathBuf, Blob)>,
    bytes: u64,
}

impl FoundFiles {
    fn folder(
        &mut self,
        root: &Path,
        folder: &Path,
        name: &str,
        left_out: &mut Vec<String>,
    ) -> Result<(), CliError> {
        let mut entries = std::fs::read_dir(folder)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable(folder, error))?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let own = text(&path, &entry.file_name())?;
            let below = if name.is_empty() {
                own.clone()
            } else {
                format!("{name}/{own}")
            };
            let kind = entry
                .file_type()
                .map_err(|error| unreadable(&path, error))?;
            let is_left_out = LEFT_OUT_NAMES.contains(&own.as_str())
                || (kind.is_dir()
                    && RECREATABLE_MARKERS
                        .iter()
                        .any(|mark| path.join(mark).is_file()));
            if is_left_out {
                left_out.push(below);
            } else if kind.is_dir() {
                self.folder(root, &path, &below, left_out)?;
            } else if kind.is_file() || is_file_below(root, &path) {
                self.file(&path, below)?;
            } else {
                left_out.push(format!("{below} (not a file in this folder)"));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: String) -> Result<(), CliError> {
        let too_much = |what: String| {
            CliError::message(Exit::Usage, format!("--put {}: {what}", path.display())).hint(
                "put an archive, or build large data into an image (images/README.md); jobs that \
                 use the image then have the data without sending it",
            )
        };
        if let Some((other, _)) = self.files.get(&name) {
            return Err(CliError::message(
                Exit::Usage,
                format!(
                    "--put gives two files the name {name:?}: {} and {}",
                    other.display(),
                    path.display()
                ),
            )
            .hint(
                "--put FOLDER keeps the paths below the folder, and --put NAME=PATH gives a file \
                 another name",
            ));
        }
        if self.files.len() == MAX_FILES {
            return Err(too_much(format!(
                "a job can bring at most {MAX_FILES} files"
            )));
        }
        let length = std::fs::metadata(path).map_or(0, |found| found.len());
        let sum = self.bytes.saturating_add(length);
        if sum > PUT_BYTES_MAX {
            let most = format_size(PUT_BYTES_MAX);
            return Err(too_much(if self.bytes == 0 {
                format!(
                    "{} is more than the {most} that a job can bring",
                    format_size(sum)
                )
            } else {
                format!(
                    "with this file, all files have {}, more than the {most} that a job can bring",
                    format_size(sum)
                )
            }));
        }
        let data = read_input_file(path)?;
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        self.files.insert(name, (path.to_owned(), Blob(data)));
        Ok(())
    }
}

/// Returns whether a link leads to a regular file in the folder `root` or below it.
fn is_file_below(root: &Path, link: &Path) -> bool {
    link.canonicalize()
        .is_ok_and(|target| target.starts_with(root) && target.is_file())
}

fn text(path: &Path, name: &std::ffi::OsStr) -> Result<String, CliError> {
    name.to_str().map(str::to_owned).ok_or_else(|| {
        CliError::message(
            Exit::Usage,
            format!("the name of {} is not UTF-8 text", path.display()),
        )
    })
}

fn unreadable(path: &Path, error: std::io::Error) -> CliError {
    let error = anyhow::Error::new(error).context(format!("could not read {}", path.display()));
    CliError::new(Exit::Missing, error)
}

#[cfg(test)]
mod tests {
    use sandhog_config::Environment;

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(names: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in names {
                let path = folder.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, name).unwrap();
            }
            Self(folder)
        }

        fn put(&self, arguments: &[&str]) -> Result<Vec<String>, String> {
            let home = self.0.path().to_str().unwrap();
            let arguments: Vec<String> = arguments.iter().map(|a| a.replace('~', home)).collect();
            put_files(
                &arguments,
                Printer::new(&Environment::default(), false, true),
            )
            .map(|files| files.into_keys().collect())
            .map_err(|error| error.chain().replace(home, "~"))
        }
    }

    #[test]
    fn a_folder_keeps_its_paths() {
        let folder = Folder::new(&[
            "mypkg/__init__.py",
            "mypkg/sub/__init__.py",
            "mypkg/sub/data.csv",
            "mypkg/__pycache__/x.pyc",
            "mypkg/.git/config",
            "mypkg/.hidden",
            "mypkg/venv/pyvenv.cfg",
            "mypkg/venv/bin/python",
        ]);
        let own = |prefix: &str| {
            [".hidden", "__init__.py", "sub/__init__.py", "sub/data.csv"]
                .map(|name| format!("{prefix}{name}"))
                .to_vec()
        };
        for (case, argument, want) in [
            ("its own name", "~/mypkg", own("mypkg/")),
            ("with a slash", "~/mypkg/", own("mypkg/")),
            ("another name", "lib/p=~/mypkg", own("lib/p/")),
            ("no name", "=~/mypkg", own("")),
            (
                "a part",
                "~/mypkg/sub",
                vec!["sub/__init__.py".into(), "sub/data.csv".into()],
            ),
            ("a file", "~/mypkg/sub/data.csv", vec!["data.csv".into()]),
            (
                "a file by another name",
                "d/x=~/mypkg/sub/data.csv",
                vec!["d/x".into()],
            ),
        ] {
            assert_eq!(folder.put(&[argument]), Ok(want), "case {case}");
        }
    }

    #[test]
    fn two_files_never_get_one_name() {
        let folder = Folder::new(&["mypkg/__init__.py", "mypkg/sub/__init__.py"]);
        assert_eq!(
            folder.put(&["~/mypkg/__init__.py", "~/mypkg/sub/__init__.py"]),
            Err(
                "--put gives two files the name \"__init__.py\": ~/mypkg/__init__.py and \
                 ~/mypkg/sub/__init__.py"
                    .to_owned()
            )
        );
        assert!(
            folder
                .put(&["~/mypkg", "mypkg/__init__.py=~/mypkg/sub/__init__.py"])
                .is_err()
        );
    }

    #[test]
    fn links_that_lead_out_are_left_out() {
        let folder = Folder::new(&["mypkg/a.py", "secret"]);
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, folder.0.path().join("mypkg").join(name)).unwrap();
        };
        link("../secret", "out");
        link("a.py", "inside");
        link("nowhere", "dangling");
        link("..", "loop");
        let want = vec!["mypkg/a.py".to_owned(), "mypkg/inside".to_owned()];
        assert_eq!(folder.put(&["~/mypkg"]), Ok(want));
    }

    #[test]
    fn too_many_and_too_large_are_told_before_they_are_read() {
        let names: Vec<String> = (0..=MAX_FILES).map(|n| format!("many/{n}")).collect();
        let folder = Folder::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let error = folder.put(&["~/many"]).unwrap_err();
        assert!(
            error.ends_with("a job can bring at most 1024 files"),
            "{error}"
        );
        let sparse = std::fs::File::create(folder.0.path().join("big.csv")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert_eq!(
            folder.put(&["~/big.csv"]),
            Err(
                "--put ~/big.csv: 1024.0 GiB is more than the 16.0 MiB that a job can bring"
                    .to_owned()
            )
        );
        assert!(
            folder
                .put(&["~/absent"])
                .unwrap_err()
                .starts_with("could not read ~/absent")
        );
    }
}
