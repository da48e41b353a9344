//! Files that a job put into its working directory. Unless the program changed them, they are no
//! output of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use sandhog_runner::protocol::{FileIn, Program};

/// The stem of the source's name where the job names none: `main.py`, `main.js`.
const DEFAULT_STEM: &str = "main";

/// The files in the working directory when the program started.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    files: BTreeMap<String, Vec<u8>>,
    source: Option<Source>,
}

/// The program's source. A harness may give its file another ending.
#[derive(Debug)]
struct Source {
    stem: String,
    text: String,
}

impl Brought {
    /// The files of a job and the source of its program.
    pub(crate) fn of(files: Vec<FileIn>, program: Program) -> Self {
        let source = match program {
            Program::File { file, source, .. } => Some((Some(file), source)),
            Program::Harness { request, .. } => Some((request.file, request.source)),
            Program::Argv { .. } | Program::Server { .. } => None,
        };
        Self {
            files: files
                .into_iter()
                .map(|file| (file.path, file.data))
                .collect(),
            source: source.map(|(name, text)| Source {
                stem: name.as_deref().map_or(DEFAULT_STEM, stem).to_owned(),
                text,
            }),
        }
    }

    /// Returns whether this file was put there as it is now.
    pub(super) fn is_unchanged(&self, path: &str, file: &File, size: u64) -> bool {
        let source = self.source.as_ref().filter(|source| {
            !path.contains('/') && stem(path) == source.stem && !self.files.contains_key(path)
        });
        let before = match (self.files.get(path), source) {
            (Some(data), _) => data.as_slice(),
            (None, Some(source)) => source.text.as_bytes(),
            (None, None) => return false,
        };
        if before.len() as u64 != size {
            return false;
        }
        let mut now = vec![0; before.len()];
        file.read_exact_at(&mut now, 0).is_ok() && now == before
    }
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _ending)| stem)
}
