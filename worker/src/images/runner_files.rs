//! The files beside the runner that every image holds: the harnesses and the zygote, embedded in
//! this program.

use super::context::ContextFile;

/// A file, and its place in an image.
struct RunnerFile {
    path: &'static str,
    text: &'static str,
    is_executable: bool,
}

const fn plain(path: &'static str, text: &'static str) -> RunnerFile {
    RunnerFile {
        path,
        text,
        is_executable: false,
    }
}

const fn executable(path: &'static str, text: &'static str) -> RunnerFile {
    RunnerFile {
        path,
        text,
        is_executable: true,
    }
}

const RUNNER_FILES: [RunnerFile; 15] = [
    plain(
        "/usr/lib/sandhog/harness.py",
        include_str!("../../../runner/harness/python/harness.py"),
    ),
    plain(
        "/usr/lib/sandhog/zygote.py",
        include_str!("../../../runner/harness/python/zygote.py"),
    ),
    plain(
        "/usr/lib/sandhog/prefault.py",
        include_str!("../../../runner/harness/python/prefault.py"),
    ),
    plain(
        "/usr/lib/sandhog/threads.py",
        include_str!("../../../runner/harness/python/threads.py"),
    ),
    plain(
        "/usr/lib/sandhog/displays.py",
        include_str!("../../../runner/harness/python/displays.py"),
    ),
    plain(
        "/usr/lib/sandhog/streams.py",
        include_str!("../../../runner/harness/python/streams.py"),
    ),
    plain(
        "/usr/lib/sandhog/flusher.py",
        include_str!("../../../runner/harness/python/flusher.py"),
    ),
    plain(
        "/usr/lib/sandhog/cell/sandhog.py",
        include_str!("../../../runner/harness/python/sandhog.py"),
    ),
    executable(
        "/usr/lib/sandhog/no_pip.py",
        include_str!("../../../runner/harness/python/no_pip.py"),
    ),
    plain(
        "/usr/lib/sandhog/cell/sandhog.js",
        include_str!("../../../runner/harness/node/sandhog.js"),
    ),
    plain(
        "/usr/lib/sandhog/model.py",
        include_str!("../../../runner/harness/python/model.py"),
    ),
    plain(
        "/usr/lib/sandhog/entry.py",
        include_str!("../../../runner/harness/python/entry.py"),
    ),
    plain(
        "/usr/lib/sandhog/exits.py",
        include_str!("../../../runner/harness/python/exits.py"),
    ),
    plain(
        "/usr/lib/sandhog/hints.py",
        include_str!("../../../runner/harness/python/hints.py"),
    ),
    plain(
        "/usr/lib/sandhog/values.py",
        include_str!("../../../runner/harness/python/values.py"),
    ),
];

/// Returns the files below the folder `root` of a build context.
pub(super) fn runner_files(root: &str) -> impl Iterator<Item = ContextFile> {
    RUNNER_FILES.iter().map(move |file| ContextFile {
        path: format!("{root}{}", file.path),
        bytes: file.text.into(),
        executable: file.is_executable,
    })
}
