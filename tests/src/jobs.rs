//! Jobs that many tests submit.

use sandhog_common::id::ImageName;
use sandhog_common::job::Job;
use sandhog_common::limits::LimitWishes;

/// The image all suites use.
///
/// # Panics
/// Never: the name is a valid literal.
#[must_use]
pub fn image() -> ImageName {
    "python".parse().expect("a literal name is valid")
}

/// Python source.
#[must_use]
pub fn python(code: &str) -> Job {
    Job::code(image(), code)
}

/// A bash script.
#[must_use]
pub fn bash(code: &str) -> Job {
    Job {
        language: Some("bash".to_owned()),
        ..Job::code(image(), code)
    }
}

/// A program and its arguments.
#[must_use]
pub fn argv(words: &[&str]) -> Job {
    Job {
        code: None,
        argv: Some(words.iter().map(|&word| word.to_owned()).collect()),
        ..Job::code(image(), "")
    }
}

/// Python source under caps.
#[must_use]
pub fn capped(code: &str, limits: LimitWishes) -> Job {
    Job {
        limits,
        ..python(code)
    }
}

/// Python that says `started`, so that a test can wait for it, and then sleeps for `seconds`.
#[must_use]
pub fn sleeper(seconds: u32) -> Job {
    python(&format!(
        "import time\nprint('started', flush=True)\ntime.sleep({seconds})\nprint('slept')\n"
    ))
}
