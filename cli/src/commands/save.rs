//! Writes the fetched files and the displays of a result to a folder.
//!
//! The names of fetched files come from an untrusted program, by way of a worker, so each name is
//! checked again before its file is written. No name leads out of the folder, neither by itself nor
//! through a link. A wildcard writes no hidden file. An existing file is overwritten only with
//! `--force`.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use sandhog_core::blob::Blob;
use sandhog_core::files::check_names;
use sandhog_core::outcome::{JobResult, NotFetched};
use sandhog_worker::pattern;

use super::displays;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Colour, Printer, sanitize};
use crate::quantity::format_size;

/// Reason for not overwriting a file.
const FILE_EXISTS: &str = "a file of this name exists";

/// Most files that are listed by name. The number of the others is printed.
const LISTED_FILES_MAX: usize = 20;

/// Options for saving the files of a result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SaveOptions<'a> {
    /// The folder.
    pub(crate) folder: &'a Path,
    /// The `--fetch` patterns of the command line.
    pub(crate) patterns: &'a [String],
    /// Writes displays too.
    pub(crate) displays: bool,
    /// Overwrites files that exist.
    pub(crate) force: bool,
}

/// A report on the files that a job should bring back.
#[derive(Debug, Default)]
pub(crate) struct SaveReport {
    /// Files that were written, with their sizes.
    written: Vec<(PathBuf, u64)>,
    /// Files that already existed with the same content.
    unchanged: Vec<PathBuf>,
    /// Files that were not written, by name, with the reason.
    refused: Vec<(String, String)>,
    /// Files that the worker did not fetch, by name, with the reason.
    not_fetched: Vec<(String, NotFetched)>,
    /// Patterns that matched no file.
    unmatched: Vec<String>,
}

/// Writes the fetched files, and the displays if `options` requests them.
///
/// # Errors
/// Fails when the result contains invalid file names.
pub(crate) fn save(options: &SaveOptions<'_>, result: &JobResult) -> Result<SaveReport, CliError> {
    let internal = |error: anyhow::Error| CliError::new(Exit::Fault, error);
    check_names(&result.files).map_err(|error| internal(error.into()))?;
    let mut saved = report_unsaved(options.patterns, result);
    let shown: BTreeMap<String, Blob> = if options.displays {
        displays::display_files(result).collect()
    } else {
        BTreeMap::new()
    };
    for (name, data) in &result.files {
        if options
            .patterns
            .iter()
            .any(|pattern| pattern::matches_pattern(pattern, name))
        {
            saved.write(options, name, &data.0);
        } else {
            saved.refuse(name, "no --fetch pattern matches it");
        }
    }
    for (name, data) in &shown {
        saved.write(options, name, &data.0);
    }
    Ok(saved)
}

/// Returns the report on a result without writing its files.
#[must_use]
pub(crate) fn report_unsaved(patterns: &[String], result: &JobResult) -> SaveReport {
    let names = || result.files.keys().chain(result.not_fetched.keys());
    // Unmatched patterns are not reported for a job that did not run; its outcome explains them.
    let ran = result.usage.is_some();
    SaveReport {
        not_fetched: result
            .not_fetched
            .iter()
            .map(|(name, why)| (name.clone(), *why))
            .collect(),
        unmatched: patterns
            .iter()
            .filter(|wanted| ran && !names().any(|name| pattern::matches_pattern(wanted, name)))
            .cloned()
            .collect(),
        ..SaveReport::default()
    }
}

impl SaveReport {
    /// Prints which files were written and which were not.
    ///
    /// # Errors
    /// Fails when standard error cannot be written.
    pub(crate) fn print(&self, output: Printer) -> Result<(), CliError> {
        for (path, bytes) in self.written.iter().take(LISTED_FILES_MAX) {
            output.note(&format!(
                "sandhog: saved {} ({})",
                shown_path(path),
                format_size(*bytes)
            ));
        }
        if let Some(more) = self
            .written
            .get(LISTED_FILES_MAX..)
            .filter(|more| !more.is_empty())
        {
            let bytes = more.iter().map(|(_, bytes)| bytes).sum();
            let text = format!(
                "sandhog: saved {} more files ({})",
                more.len(),
                format_size(bytes)
            );
            output.note(&text);
        }
        match self.unchanged.as_slice() {
            [] => {}
            [path] => output.note(&format!("sandhog: {} is unchanged", shown_path(path))),
            many => output.note(&format!("sandhog: {} files are unchanged", many.len())),
        }
        for (text, hint) in self.problems() {
            output.warn(Colour::Yellow, &text, hint)?;
        }
        Ok(())
    }

    /// Returns a line for each missing file, with advice.
    fn problems(&self) -> Vec<(String, Option<&'static str>)> {
        let mut problems = Vec::new();
        for (name, why) in self.refused.iter().take(LISTED_FILES_MAX) {
            problems.push((
                format!("not saved: {}: {}", sanitize(name), sanitize(why)),
                None,
            ));
        }
        if let Some((_, hint)) = problems.last_mut()
            && self.refused.iter().any(|(_, why)| why == FILE_EXISTS)
        {
            *hint = Some("--force overwrites files, --save FOLDER writes to another folder");
        }
        if let Some(more @ 1..) = self.refused.len().checked_sub(LISTED_FILES_MAX) {
            problems.push((format!("not saved: {more} more files"), None));
        }
        for (name, why) in &self.not_fetched {
            let (why, hint) = explain(*why);
            problems.push((format!("not fetched: {}: {why}", sanitize(name)), hint));
        }
        for pattern in &self.unmatched {
            let text = format!("--fetch {:?} matched no file", sanitize(pattern));
            problems.push((text, None));
        }
        problems
    }

    /// Returns the job's exit code, or [`Exit::NotSaved`] if the job succeeded and a file is
    /// missing. A pattern with wildcards that matches nothing is not a missing file.
    #[must_use]
    pub(crate) fn exit(&self, job: Exit) -> Exit {
        let named = |pattern: &String| !pattern.contains(['*', '?', '[', '{']);
        let is_missing = !self.refused.is_empty()
            || !self.not_fetched.is_empty()
            || self.unmatched.iter().any(named);
        match job {
            Exit::Success if is_missing => Exit::NotSaved,
            other => other,
        }
    }

    /// Returns the report as an error, for `--json`, or `None` if no file is missing.
    #[must_use]
    pub(crate) fn to_error(&self) -> Option<CliError> {
        let problems = self.problems();
        let lines: Vec<&str> = problems.iter().map(|(text, _)| text.as_str()).collect();
        if self.exit(Exit::Success) == Exit::Success {
            return None;
        }
        let error = CliError::message(Exit::NotSaved, lines.join("; "));
        Some(match problems.iter().find_map(|(_, hint)| *hint) {
            Some(hint) => error.hint(hint),
            None => error,
        })
    }

    fn refuse(&mut self, name: &str, why: &str) {
        self.refused.push((name.to_owned(), why.to_owned()));
    }

    fn write(&mut self, options: &SaveOptions<'_>, name: &str, data: &[u8]) {
        match write(options, name, data) {
            Ok((path, WriteResult::Written)) => self.written.push((path, data.len() as u64)),
            Ok((path, WriteResult::Unchanged)) => self.unchanged.push(path),
            Err(error) => self.refuse(name, &format!("{error:#}")),
        }
    }
}

/// Formats a path for the user, without a leading `./`.
fn shown_path(path: &Path) -> String {
    let path = path.strip_prefix(".").unwrap_or(path);
    sanitize(&path.display().to_string())
}

/// Returns a text for a worker's reason for not fetching a file, with advice.
const fn explain(why: NotFetched) -> (&'static str, Option<&'static str>) {
    match why {
        NotFetched::TooLarge => (
            "too large for what may be brought back",
            Some("--fetch-size SIZE raises the limit"),
        ),
        NotFetched::TooMany => (
            "more files than may be brought back",
            Some("use a narrower pattern, or let the program pack the files into one archive"),
        ),
        NotFetched::TooDeep => ("nested in more than 16 folders", None),
        NotFetched::TooManySeen => ("the folder contains too many names", None),
        NotFetched::NotAFile => ("not a regular file", None),
        NotFetched::Unreadable => ("the program may not read it", None),
        NotFetched::Name => ("its name is not UTF-8 text", None),
    }
}

/// Result of a write: the content was written now, or the file already had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteResult {
    Written,
    Unchanged,
}

fn write(
    options: &SaveOptions<'_>,
    name: &str,
    data: &[u8],
) -> anyhow::Result<(PathBuf, WriteResult)> {
    let mut place = options.folder.to_owned();
    for part in name.split('/') {
        if place != options.folder {
            ensure_no_link(&place)?;
        }
        DirBuilder::new()
            .recursive(true)
            .create(&place)
            .with_context(|| format!("cannot create the folder {}", place.display()))?;
        place.push(part);
    }
    ensure_no_link(&place)?;
    // `create_new` fails if the file exists. A file or link that another process creates at this
    // moment is neither overwritten nor followed.
    match File::create_new(&place) {
        Ok(mut file) => file.write_all(data)?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if has_content(&place, data) {
                return Ok((place, WriteResult::Unchanged));
            }
            ensure!(options.force, FILE_EXISTS);
            ensure!(
                place.is_file(),
                "a folder or special file of this name exists"
            );
            replace(&place, data)?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok((place, WriteResult::Written))
}

/// Replaces a file by a new one. Hard links to the old file keep its content.
fn replace(place: &Path, data: &[u8]) -> anyhow::Result<()> {
    let folder = place.parent().unwrap_or(Path::new("."));
    let mode = place.metadata()?.permissions();
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(data)?;
    file.as_file().set_permissions(mode)?;
    file.persist(place)?;
    Ok(())
}

/// Returns whether a regular file has this content.
fn has_content(place: &Path, data: &[u8]) -> bool {
    let same_size = place
        .symlink_metadata()
        .is_ok_and(|found| found.is_file() && found.len() == data.len() as u64);
    let mut found = Vec::with_capacity(data.len());
    same_size
        && File::open(place)
            .and_then(|file| file.take(data.len() as u64 + 1).read_to_end(&mut found))
            .is_ok()
        && found == data
}

fn ensure_no_link(place: &Path) -> anyhow::Result<()> {
    let link = place
        .symlink_metadata()
        .is_ok_and(|found| found.is_symlink());
    ensure!(!link, "{} is a symbolic link", shown_path(place));
    Ok(())
}

#[cfg(test)]
mod tests {
    use sandhog_core::display::Display;
    use sandhog_core::outcome::{Outcome, Usage};
    use sandhog_core::units::ByteCount;

    use super::*;

    fn result(files: &[(&str, &str)]) -> JobResult {
        JobResult {
            files: files
                .iter()
                .map(|(name, data)| ((*name).to_owned(), Blob::from(*data)))
                .collect(),
            usage: Some(Usage::default()),
            ..JobResult::bare("a".parse().unwrap(), Outcome::Succeeded)
        }
    }

    fn refused(saved: &SaveReport) -> Vec<&str> {
        saved
            .refused
            .iter()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    #[test]
    fn files_land_in_the_folder_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let patterns = ["**".to_owned()];
        let options = SaveOptions {
            folder: folder.path(),
            patterns: &patterns,
            displays: false,
            force: true,
        };
        let saved = save(&options, &result(&[("a/b/c.txt", "x")])).unwrap();
        assert_eq!(saved.written.len(), 1, "{saved:?}");
        let written = std::fs::read(folder.path().join("a/b/c.txt")).unwrap();
        assert_eq!(written, b"x");
        assert!(save(&options, &result(&[("../up", "x")])).is_err());
        let link = |name| std::os::unix::fs::symlink(elsewhere.path(), folder.path().join(name));
        link("out").unwrap();
        link("dangling").unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("loose")).unwrap();
        for name in ["out/x", "out", "loose"] {
            let saved = save(&options, &result(&[(name, "x")])).unwrap();
            assert_eq!(refused(&saved), [name]);
            assert_eq!(saved.exit(Exit::Success), Exit::NotSaved);
        }
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        assert!(!folder.path().join("nowhere").exists());

        let png = ("image/png".to_owned(), b"\x89PNG".to_vec());
        let shown = JobResult {
            displays: vec![Display::of([png]).unwrap()],
            ..result(&[("d.txt", "x")])
        };
        save(&options, &shown).unwrap();
        assert!(!folder.path().join("display-1.png").exists());
        let with_displays = SaveOptions {
            displays: true,
            ..options
        };
        save(&with_displays, &shown).unwrap();
        let written = std::fs::read(folder.path().join("display-1.png")).unwrap();
        assert_eq!(written, b"\x89PNG");
    }

    #[test]
    fn what_is_there_is_overwritten_with_force_only() {
        let folder = tempfile::tempdir().unwrap();
        let keep = folder.path().join("keep.txt");
        let other_name = folder.path().join("other");
        std::fs::write(&keep, "precious").unwrap();
        std::fs::hard_link(&keep, &other_name).unwrap();
        let patterns = ["*".to_owned()];
        let options = SaveOptions {
            folder: folder.path(),
            patterns: &patterns,
            displays: false,
            force: false,
        };
        let fetched = result(&[("keep.txt", "evil"), ("new.txt", "n")]);
        let saved = save(&options, &fetched).unwrap();
        assert_eq!(refused(&saved), ["keep.txt"]);
        assert_eq!(saved.written.len(), 1);
        assert_eq!(saved.exit(Exit::Success), Exit::NotSaved);
        assert_eq!(saved.exit(Exit::Program(3)), Exit::Program(3));
        assert_eq!(std::fs::read_to_string(&keep).unwrap(), "precious");

        let again = save(&options, &result(&[("new.txt", "n")])).unwrap();
        assert_eq!((again.written.len(), again.unchanged.len()), (0, 1));
        assert_eq!(again.exit(Exit::Success), Exit::Success);

        let forced = SaveOptions {
            force: true,
            ..options
        };
        let saved = save(&forced, &fetched).unwrap();
        assert!(saved.refused.is_empty(), "{saved:?}");
        assert_eq!(std::fs::read_to_string(&keep).unwrap(), "evil");
        assert_eq!(std::fs::read_to_string(&other_name).unwrap(), "precious");
    }

    #[test]
    fn a_wildcard_writes_no_hidden_file() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            (".bashrc", "x"),
            (".git/hooks/pre-commit", "x"),
            ("out/.ssh/authorized_keys", "x"),
            ("out/x", "x"),
        ];
        let patterns = ["**".to_owned(), "*".to_owned()];
        let options = SaveOptions {
            folder: folder.path(),
            patterns: &patterns,
            displays: false,
            force: true,
        };
        let saved = save(&options, &result(&names)).unwrap();
        assert_eq!(saved.written.len(), 1, "{saved:?}");
        assert_eq!(
            refused(&saved),
            [
                ".bashrc",
                ".git/hooks/pre-commit",
                "out/.ssh/authorized_keys"
            ]
        );
        let patterns = [".git/**".to_owned()];
        let named = SaveOptions {
            patterns: &patterns,
            ..options
        };
        let saved = save(&named, &result(&names[1..2])).unwrap();
        assert_eq!(saved.written.len(), 1, "{saved:?}");
    }

    #[test]
    fn what_is_missing_is_told_with_its_reason() {
        let mut result = result(&[("a.csv", "1")]);
        result.not_fetched = [("big.bin".to_owned(), NotFetched::TooLarge)].into();
        let patterns = ["*.csv", "*.bin", "nothing*", "plot.png"].map(str::to_owned);
        let saved = report_unsaved(&patterns, &result);
        let told: Vec<String> = saved.problems().into_iter().map(|(text, _)| text).collect();
        assert_eq!(
            told,
            [
                "not fetched: big.bin: too large for what may be brought back",
                "--fetch \"nothing*\" matched no file",
                "--fetch \"plot.png\" matched no file",
            ]
        );
        assert_eq!(saved.exit(Exit::Success), Exit::NotSaved);
        assert!(saved.to_error().is_some());

        result.not_fetched.clear();
        let only_wild = report_unsaved(&["nothing*".to_owned()], &result);
        assert_eq!(only_wild.exit(Exit::Success), Exit::Success);
        assert!(only_wild.to_error().is_none());

        result.usage = None;
        assert!(report_unsaved(&patterns, &result).unmatched.is_empty());
        assert_eq!(format_size(ByteCount(5_000_000).0), "4.7 MiB");
    }
}
