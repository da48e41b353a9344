//! Jobs that many tests submit.

use sandhog_core::id::ImageName;
use sandhog_core::job::Job;
use sandhog_core::limits::LimitOverrides;

/// The image that all suites use.
///
/// # Panics
/// Never panics: the name is a valid literal.
#[must_use]
pub fn image() -> ImageName {
    "python".parse().expect("a literal name is valid")
}

/// A job that runs Python source.
#[must_use]
pub fn python(code: &str) -> Job {
    Job::code(image(), code)
}

/// A job that runs a bash script.
#[must_use]
pub fn bash(code: &str) -> Job {
    Job {
        language: Some("bash".to_owned()),
        ..Job::code(image(), code)
    }
}

/// A job that runs a program with arguments.
#[must_use]
pub fn argv(words: &[&str]) -> Job {
    Job {
        code: None,
        argv: Some(words.iter().map(|&word| word.to_owned()).collect()),
        ..Job::code(image(), "")
    }
}

/// A job that runs Python source with limits.
#[must_use]
pub fn capped(code: &str, limits: LimitOverrides) -> Job {
    Job {
        limits,
        ..python(code)
    }
}

/// A job that prints `started`, so that a test can wait for it, and then sleeps for `seconds`.
#[must_use]
pub fn sleeping_job(seconds: u32) -> Job {
    python(&format!(
        "import time\nprint('started', flush=True)\ntime.sleep({seconds})\nprint('slept')\n"
    ))
}
