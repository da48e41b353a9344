//! Reads the hostile programs from their files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sandhog_core::job::Job;
use sandhog_core::limits::LimitOverrides;
use sandhog_core::units::Millis;
use sandhog_testkit::jobs;
use serde_json::Value;

use super::header::Header;

/// Time limit of a program whose header sets none. It is long, so that the speed of the machine
/// decides nothing.
const AMPLE: Millis = Millis(600_000);

/// One hostile program.
#[derive(Debug)]
pub(crate) struct Program {
    /// Group and file name, without the extension.
    pub(crate) name: String,
    /// Header of the file.
    pub(crate) header: Header,
    language: &'static str,
    code: String,
}

impl Program {
    /// Returns the job that runs the program. Its input is `input` if the header asks for a
    /// listener.
    pub(crate) fn job(&self, input: &Value) -> Job {
        Job {
            language: Some(self.language.to_owned()),
            limits: LimitOverrides {
                timeout_ms: self.header.limits.timeout_ms.or(Some(AMPLE)),
                ..self.header.limits.clone()
            },
            expect_value: self.header.expect_value,
            fetch: self.header.fetch.clone(),
            env: self.header.env.clone(),
            input: if self.header.listener {
                input.clone()
            } else {
                self.header.input.clone()
            },
            ..jobs::python(&self.code)
        }
    }

    fn read(group: &str, path: &Path) -> Self {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.and_then(std::ffi::OsStr::to_str)
                .unwrap_or_else(|| {
                    panic!(
                        "the path {} has no name or extension that is UTF-8",
                        path.display()
                    )
                })
                .to_owned()
        };
        let name = format!("{group}/{}", text(path.file_stem()));
        let language = match text(path.extension()).as_str() {
            "py" => "python",
            "sh" => "bash",
            _ => panic!(
                "{} has an unknown extension; expected .py or .sh",
                path.display()
            ),
        };
        let code = std::fs::read_to_string(path).expect("a program can be read");
        Self {
            header: Header::read(&path.display().to_string(), &code),
            name,
            language,
            code,
        }
    }
}

/// Returns the names of all groups.
pub(crate) fn groups() -> BTreeSet<String> {
    entries(&top())
        .iter()
        .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
        .collect()
}

/// Returns the programs of a group, by name.
pub(crate) fn of(group: &str) -> Vec<Program> {
    entries(&top().join(group))
        .iter()
        .map(|path| Program::read(group, path))
        .collect()
}

/// Returns the program of this name.
///
/// # Panics
/// Panics if there is none.
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
