//! The programs, as files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sandhog_common::job::Job;
use sandhog_common::limits::LimitWishes;
use sandhog_common::units::Millis;
use sandhog_tests::jobs;
use serde_json::Value;

use super::head::Head;

/// The time of a program that says nothing of time: how fast the machine is decides nothing.
const AMPLE: Millis = Millis(600_000);

/// One hostile program.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its group and its file's name without ending.
    pub(crate) name: String,
    /// What it says of itself.
    pub(crate) head: Head,
    language: &'static str,
    code: String,
}

impl Program {
    /// The job that runs it, with `input` where it has none of its own.
    pub(crate) fn job(&self, input: &Value) -> Job {
        Job {
            language: Some(self.language.to_owned()),
            limits: LimitWishes {
                timeout_ms: self.head.limits.timeout_ms.or(Some(AMPLE)),
                ..self.head.limits.clone()
            },
            expect_value: self.head.expect_value,
            fetch: self.head.fetch.clone(),
            env: self.head.env.clone(),
            input: if self.head.listener {
                input.clone()
            } else {
                self.head.input.clone()
            },
            ..jobs::python(&self.code)
        }
    }

    fn read(group: &str, path: &Path) -> Self {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.and_then(std::ffi::OsStr::to_str)
                .unwrap_or_else(|| panic!("{} is not named as programs are", path.display()))
                .to_owned()
        };
        let name = format!("{group}/{}", text(path.file_stem()));
        let language = match text(path.extension()).as_str() {
            "py" => "python",
            "sh" => "bash",
            _ => panic!("{} is neither Python nor a script", path.display()),
        };
        let code = std::fs::read_to_string(path).expect("a program can be read");
        Self {
            head: Head::read(&path.display().to_string(), &code),
            name,
            language,
            code,
        }
    }
}

/// The groups there are.
pub(crate) fn groups() -> BTreeSet<String> {
    entries(&top())
        .iter()
        .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
        .collect()
}

/// The programs of a group, by name.
pub(crate) fn of(group: &str) -> Vec<Program> {
    entries(&top().join(group))
        .iter()
        .map(|path| Program::read(group, path))
        .collect()
}

/// The program of this name.
///
/// # Panics
/// When there is none.
pub(crate) fn named(name: &str) -> Program {
    let (group, _) = name
        .split_once('/')
        .expect("a program's name has its group");
    of(group)
        .into_iter()
        .find(|program| program.name == name)
        .unwrap_or_else(|| panic!("there is no program {name}"))
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sandbox/hostile/programs")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder can be listed").path())
        .collect();
    paths.sort();
    paths
}
