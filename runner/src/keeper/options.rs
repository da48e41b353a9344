//! The arguments of `keep`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sandhog_protocol::install::WHILE_STDIN_ARGUMENT;

use super::error::KeepError;

/// Time after SIGTERM for which running sandboxes may continue, unless an argument sets it.
const DEFAULT_GRACE: Duration = Duration::from_secs(3600);

/// The user that the kernel shows for a user that this namespace does not have. Workers run as this
/// user.
const OVERFLOW_USER: u32 = 65_534;

/// The arguments of `keep`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// Path of the socket.
    pub(super) socket: PathBuf,
    /// Users that may connect.
    pub(super) peers: Vec<u32>,
    /// Time after SIGTERM for which running sandboxes may continue.
    pub(super) grace: Duration,
    /// True if the keeper and its sandboxes end with the keeper's standard input.
    pub(super) while_stdin: bool,
}

impl Options {
    /// Parses the arguments after `keep`. `own` is this process's user.
    ///
    /// # Errors
    /// With the bad argument and the allowed ones.
    pub(super) fn parse(arguments: &[String], own: u32) -> Result<Self, KeepError> {
        let usage = |text: String| Err(KeepError::Usage(text));
        let mut socket = None;
        let mut options = Self {
            socket: PathBuf::new(),
            peers: vec![0, own, OVERFLOW_USER],
            grace: DEFAULT_GRACE,
            while_stdin: false,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut number = |name: &str| match words.next().map(|word| word.parse::<u32>()) {
                Some(Ok(number)) => Ok(number),
                Some(Err(_)) | None => Err(KeepError::Usage(format!(
                    "{name} needs a number from 0 to {}",
                    u32::MAX
                ))),
            };
            match word.as_str() {
                "--peer" => options.peers.push(number("--peer")?),
                "--grace-ms" => {
                    options.grace = Duration::from_millis(number("--grace-ms")?.into());
                }
                WHILE_STDIN_ARGUMENT => options.while_stdin = true,
                flag if flag.starts_with('-') => {
                    return usage(format!("unknown argument {flag:?}"));
                }
                path if socket.is_none() => socket = Some(PathBuf::from(path)),
                more => return usage(format!("unexpected argument {more:?}")),
            }
        }
        match socket {
            // The directory is hidden from sandboxes.
            Some(path) if path.is_absolute() && path.parent() == Some(Path::new("/")) => {
                return usage(format!(
                    "the socket {} is not in a directory of its own",
                    path.display()
                ));
            }
            Some(path) if path.is_absolute() => options.socket = path,
            Some(path) => {
                return usage(format!(
                    "the socket {} is not an absolute path",
                    path.display()
                ));
            }
            None => return usage("no socket is given".to_owned()),
        }
        options.peers.sort_unstable();
        options.peers.dedup();
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Options::parse(&words, 0).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_are_read() {
        let options = parse(&["/run/a.sock", "--peer", "1000", "--grace-ms", "5"]).unwrap();
        assert_eq!(options.socket, PathBuf::from("/run/a.sock"));
        assert_eq!(options.peers, [0, 1000, 65_534]);
        assert_eq!(options.grace, Duration::from_millis(5));
        assert!(!options.while_stdin);
        assert_eq!(parse(&["/a/b"]).unwrap().peers, [0, 65_534]);
        assert!(parse(&["--while-stdin", "/a/b"]).unwrap().while_stdin);
    }

    #[test]
    fn bad_arguments_are_named() {
        for (words, want) in [
            (&[][..], "no socket is given"),
            (&["a.sock"][..], "not an absolute path"),
            (&["/a.sock"][..], "not in a directory of its own"),
            (&["/a/b", "/c"][..], "unexpected argument \"/c\""),
            (&["/a", "--poor"][..], "unknown argument \"--poor\""),
            (&["/a", "--peer"][..], "--peer needs a number"),
            (&["/a", "--peer", "-1"][..], "--peer needs a number"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(want), "{words:?}: {error}");
        }
    }
}
