//! Files that a job put into its working directory. They are not output of the program unless the
//! program changed them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use sandhog_protocol::frames::{InputFile, Program};

/// Stem of the source file's name if the job names none: `main.py`, `main.js`.
const DEFAULT_STEM: &str = "main";

/// The files in the working directory when the program started.
#[derive(Debug, Default)]
pub(crate) struct InputSnapshot {
    files: BTreeMap<String, Vec<u8>>,
    source: Option<Source>,
}

/// The program's source. A harness may give the source file another extension.
#[derive(Debug)]
struct Source {
    stem: String,
    text: String,
}

impl InputSnapshot {
    /// Records the files of a job and the source of its program.
    pub(crate) fn of(files: Vec<InputFile>, program: Program) -> Self {
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

    /// Returns whether this file still has the content with which it was put there.
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
