//! The names of files that a job brings, and the patterns of files that it requests back.
//!
//! Names are relative to the working directory. Nothing is repaired: a name that could lead out of
//! the working directory is an error, and so is a name that cannot be created.

use std::collections::BTreeMap;

use crate::blob::Blob;
use crate::id::clip;

/// Maximum number of files that a job may bring.
pub const MAX_FILES: usize = 1024;

/// Maximum number of patterns that a job may name.
pub const MAX_PATTERNS: usize = 32;

/// Maximum length of a pattern, in bytes.
pub const MAX_PATTERN: usize = 256;

/// Maximum length of a name, in bytes. Each part of it has at most 255 bytes.
pub const MAX_NAME: usize = 1024;

/// Maximum number of directories above a file.
pub const MAX_DEPTH: usize = 16;

/// Maximum number of plain patterns that a pattern with braces may stand for. Each of them is
/// compared with every name, so ten times `{a,b}` would take a thousand times as long as a pattern
/// without braces.
pub const MAX_ALTERNATIVES: u32 = 100;

/// An invalid file name or pattern, or too many of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// A file's name leads out of the working directory, or cannot be created.
    #[error("file name {name:?} is not valid: {why}")]
    Name {
        /// The name, cut to a bounded length.
        name: String,
        /// The fault.
        why: &'static str,
    },
    /// The name of the source file is not a plain name.
    #[error("file {name:?} cannot hold the code: {why} (want a plain name, such as \"script.py\")")]
    SourceName {
        /// The name, cut to a bounded length.
        name: String,
        /// The fault.
        why: &'static str,
    },
    /// A name is a file, and a directory in another name.
    #[error("file {name:?} lies in {within:?}, which is a file too")]
    Within {
        /// The name that has the other one as a directory.
        name: String,
        /// The name that is also a directory.
        within: String,
    },
    /// Too many files.
    #[error("the job brings {count} files (want at most {MAX_FILES})")]
    TooMany {
        /// The number that the job names.
        count: usize,
    },
    /// A pattern is invalid.
    #[error("fetch pattern {pattern:?} is not valid: {why}")]
    Pattern {
        /// The pattern, cut to a bounded length.
        pattern: String,
        /// The fault.
        why: &'static str,
    },
    /// Too many patterns.
    #[error("the job names {count} fetch patterns (want at most {MAX_PATTERNS})")]
    TooManyPatterns {
        /// The number that the job names.
        count: usize,
    },
}

/// Checks the names of the files that a job brings.
///
/// # Errors
/// Names the first fault.
pub fn check_names(files: &BTreeMap<String, Blob>) -> Result<(), FileError> {
    if files.len() > MAX_FILES {
        return Err(FileError::TooMany { count: files.len() });
    }
    for name in files.keys() {
        if let Some(why) = name_fault(name) {
            return Err(FileError::Name {
                name: clip(name, 160),
                why,
            });
        }
        let mut end = 0;
        while let Some(at) = name.get(end..).and_then(|rest| rest.find('/')) {
            let within = name.get(..end + at).unwrap_or_default();
            if files.contains_key(within) {
                return Err(FileError::Within {
                    name: clip(name, 160),
                    within: clip(within, 160),
                });
            }
            end += at + 1;
        }
    }
    Ok(())
}

/// Checks the name of the file that `code` is written to.
///
/// # Errors
/// Fails if it is not a plain name, or a program would interpret it as an option.
pub fn check_source_name(name: &str) -> Result<(), FileError> {
    let why = if name.contains('/') {
        Some("it names a folder")
    } else if name.starts_with('-') {
        Some("it begins with a hyphen, as an option does")
    } else {
        name_fault(name)
    };
    why.map_or(Ok(()), |why| {
        Err(FileError::SourceName {
            name: clip(name, 160),
            why,
        })
    })
}

/// Checks the patterns of files that a job requests back.
///
/// # Errors
/// Names the first fault.
pub fn check_patterns(patterns: &[String]) -> Result<(), FileError> {
    if patterns.len() > MAX_PATTERNS {
        return Err(FileError::TooManyPatterns {
            count: patterns.len(),
        });
    }
    for pattern in patterns {
        let why = if pattern.is_empty() {
            Some("it is empty")
        } else if pattern.len() > MAX_PATTERN {
            Some("it is longer than 256 bytes")
        } else if pattern.contains('\0') {
            Some("it holds a NUL")
        } else if pattern.starts_with('/') {
            Some("it is absolute")
        } else if pattern.split('/').any(|part| part == "..") {
            Some("it leads out of the working directory")
        } else if alternatives(pattern) > MAX_ALTERNATIVES {
            Some("its braces stand for more than 100 alternatives")
        } else {
            None
        };
        if let Some(why) = why {
            return Err(FileError::Pattern {
                pattern: clip(pattern, 160),
                why,
            });
        }
    }
    Ok(())
}

/// Returns an upper bound on the number of plain patterns that a pattern with braces stands for.
/// Each group multiplies the number by its alternatives. Nested groups are counted as if they stood
/// side by side.
fn alternatives(pattern: &str) -> u32 {
    let mut all = 1_u32;
    let mut open: Vec<u32> = Vec::new();
    for letter in pattern.chars() {
        match letter {
            '{' => open.push(1),
            ',' => {
                if let Some(parts) = open.last_mut() {
                    *parts += 1;
                }
            }
            '}' => all = all.saturating_mul(open.pop().unwrap_or(1)),
            _ => {}
        }
    }
    // A group that is never closed matches nothing, but the matcher still tries it.
    open.iter()
        .fold(all, |all, parts| all.saturating_mul(*parts))
}

fn name_fault(name: &str) -> Option<&'static str> {
    let parts = || name.split('/');
    if name.is_empty() {
        Some("it is empty")
    } else if name.contains('\0') {
        Some("it holds a NUL")
    } else if name.starts_with('/') {
        Some("it is absolute")
    } else if parts().any(|part| part == "..") {
        Some("it leads out of the working directory")
    } else if parts().any(|part| part.is_empty() || part == ".") {
        Some("a part of it is empty or a dot")
    } else if name.len() > MAX_NAME || parts().any(|part| part.len() > 255) {
        Some("it is longer than 1024 bytes, or a part of it than 255")
    } else if parts().count() > MAX_DEPTH + 1 {
        Some("it lies in more than 16 directories")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Result<(), FileError> {
        let files = names
            .iter()
            .map(|name| ((*name).to_owned(), Blob::default()));
        check_names(&files.collect())
    }

    #[test]
    fn names_stay_in_the_working_directory() {
        for (case, name, good) in [
            ("plain", "a.txt", true),
            ("in a directory", "a/b/c.txt", true),
            ("hidden", ".a", true),
            ("spaces and letters", "ä b", true),
            ("dots in a name", "a..b", true),
            ("up", "../a", false),
            ("up within", "a/../b", false),
            ("absolute", "/etc/passwd", false),
            ("nul", "a\0b", false),
            ("here", "./a", false),
            ("empty", "", false),
            ("empty part", "a//b", false),
            ("directory", "a/", false),
            ("long part", &"x".repeat(256), false),
            ("deep", &"d/".repeat(17), false),
        ] {
            assert_eq!(names(&[name]).is_ok(), good, "case {case}");
        }
        assert!(names(&[&format!("{}x", "d/".repeat(16))]).is_ok());
    }

    #[test]
    fn code_is_put_in_a_file_with_a_plain_name() {
        for (name, good) in [
            ("script.py", true),
            ("no ending", true),
            (".hidden", true),
            ("a/b.py", false),
            ("-c", false),
            ("..", false),
            ("", false),
            ("a\0", false),
        ] {
            assert_eq!(check_source_name(name).is_ok(), good, "{name:?}");
        }
    }

    #[test]
    fn a_file_is_no_directory() {
        assert!(names(&["a/b", "a/c", "ab"]).is_ok());
        let error = names(&["a", "a-b", "a/b"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "file \"a/b\" lies in \"a\", which is a file too"
        );
    }

    #[test]
    fn patterns_stay_in_the_working_directory() {
        for (pattern, good) in [
            ("*.png", true),
            ("**/*.{csv,json}", true),
            ("out", true),
            ("../*", false),
            ("a/../../b", false),
            ("/etc/*", false),
            ("", false),
            ("a\0", false),
            ("{a,b}{c,d}/*.{e,f}", true),
            ("{0,1,2,3,4,5,6,7,8,9}{0,1,2,3,4,5,6,7,8,9}", true),
            ("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", false),
            ("{,{,{,{,{,{,{,}}}}}}}", false),
            ("{,,,,,,,,,,,}{,,,,,,,,,,,", false),
        ] {
            let checked = check_patterns(&[pattern.to_owned()]);
            assert_eq!(checked.is_ok(), good, "{pattern:?}");
        }
        assert!(check_patterns(&vec!["a".to_owned(); 33]).is_err());
    }
}
