use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::sys::stat::mknod;
use sandhog_protocol::frames::{InputFile, Program};

use super::*;

/// A directory of one test. Dropping the value removes it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("artifacts-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Collects files with the rights of the user who runs the test.
    fn collect(&self, patterns: &[&str], files: u32, bytes: u64) -> Collected {
        self.collect_within(COLLECT_TIMEOUT, patterns, files, bytes)
    }

    fn collect_within(
        &self,
        time: Duration,
        patterns: &[&str],
        files: u32,
        bytes: u64,
    ) -> Collected {
        let fetch = Fetch {
            patterns: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
            files,
            bytes,
            changed_only: true,
        };
        self.collect_beside(&InputSnapshot::default(), &fetch, time)
    }

    /// Collects files if the job had put some of them there.
    fn collect_beside(&self, snapshot: &InputSnapshot, fetch: &Fetch, time: Duration) -> Collected {
        let work: OwnedFd = File::open(&self.0).unwrap().into();
        Walk::through(work, fetch, snapshot, Instant::now() + time)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn paths(collected: &Collected) -> Vec<&str> {
    collected
        .files
        .iter()
        .map(|file| file.path.as_str())
        .collect()
}

fn left(collected: &Collected) -> Vec<(&str, NotFetched)> {
    let reason = |left: &'_ LeftFile| left.why;
    collected
        .skipped
        .iter()
        .map(|left| (left.path.as_str(), reason(left)))
        .collect()
}

#[test]
fn what_matches_is_taken_in_order() {
    let scratch = Scratch::new("order");
    for name in ["b.txt", "a.txt", "c.bin", "out/x.txt", "out/deep/y.txt"] {
        scratch.write(name, name.as_bytes());
    }
    assert_eq!(
        paths(&scratch.collect(&["*.txt"], 9, 99)),
        ["a.txt", "b.txt"]
    );
    assert_eq!(
        paths(&scratch.collect(&["out/**", "c.*"], 9, 99)),
        ["c.bin", "out/deep/y.txt", "out/x.txt"]
    );
    let all = scratch.collect(&["**/*.txt"], 9, 99);
    assert_eq!(all.files.len(), 4);
    assert_eq!(all.files[0].data, b"a.txt");
    assert!(scratch.collect(&[], 9, 99).files.is_empty());
}

#[test]
fn wildcards_leave_out_names_with_a_leading_dot() {
    let scratch = Scratch::new("dots");
    for name in [".bashrc", ".git/config", "out/.env", "out/x"] {
        scratch.write(name, b"x");
    }
    assert_eq!(paths(&scratch.collect(&["**", "*"], 9, 99)), ["out/x"]);
    let named = scratch.collect(&[".git/**", "out/.*"], 9, 99);
    assert_eq!(paths(&named), [".git/config", "out/.env"]);
}

#[test]
fn what_the_job_put_there_stays_unless_it_was_changed_or_is_named() {
    let scratch = Scratch::new("snapshot");
    let file = |path: &str, data: &str| InputFile {
        path: path.to_owned(),
        data: data.into(),
    };
    let snapshot = InputSnapshot::of(
        vec![
            file("in.csv", "a"),
            file("edited.csv", "a"),
            file("d/e.csv", "a"),
        ],
        Program::File {
            file: "main.js".to_owned(),
            source: "source".to_owned(),
            argv: Vec::new(),
        },
    );
    for (name, data) in [
        ("in.csv", "a"),
        ("edited.csv", "b"),
        ("out.csv", "a"),
        ("d/e.csv", "a"),
        ("main.js", "source"),
        ("main.mjs", "source"),
        ("main.cjs", "SOURCE"),
        ("copy.js", "source"),
        ("d/main.js", "source"),
    ] {
        scratch.write(name, data.as_bytes());
    }
    let fetch = |patterns: &[&str], files: u32| {
        let fetch = Fetch {
            patterns: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
            files,
            bytes: 99,
            changed_only: true,
        };
        scratch.collect_beside(&snapshot, &fetch, COLLECT_TIMEOUT)
    };
    let changed = ["copy.js", "d/main.js", "edited.csv", "main.cjs", "out.csv"];
    assert_eq!(paths(&fetch(&["**"], 9)), changed);
    // The unchanged files do not count toward the limit of five.
    let found = fetch(&["**"], 5);
    assert_eq!((paths(&found).len(), left(&found).len()), (5, 0));
    let named = fetch(&["in.csv", "main.js", "d/*"], 9);
    assert_eq!(paths(&named), ["d/main.js", "in.csv", "main.js"]);
    assert_eq!(scratch.collect(&["**"], 9, 99).files.len(), 9);
}

#[test]
fn what_is_no_plain_file_is_told_and_left() {
    let scratch = Scratch::new("kinds");
    scratch.write("real", b"x");
    symlink("/etc/passwd", scratch.0.join("link")).unwrap();
    symlink("/etc", scratch.0.join("folder")).unwrap();
    symlink("real", scratch.0.join("inner")).unwrap();
    let fifo = scratch.0.join("fifo");
    mknod(&fifo, SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(scratch.0.join("socket")).unwrap();
    let found = scratch.collect(&["**"], 9, 1 << 20);
    assert_eq!(paths(&found), ["real"]);
    let names = ["fifo", "folder", "inner", "link", "socket"];
    assert_eq!(left(&found), names.map(|name| (name, NotFetched::NotAFile)));
}

#[test]
fn counts_sizes_and_depths_are_bounded() {
    let scratch = Scratch::new("bounds");
    for name in ["a", "b", "c", "d"] {
        scratch.write(name, b"12345");
    }
    let sparse = File::create(scratch.0.join("b2")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let found = scratch.collect(&["*"], 9, 12);
    assert_eq!(paths(&found), ["a", "b"]);
    assert_eq!(
        left(&found),
        ["b2", "c", "d"].map(|name| (name, NotFetched::TooLarge))
    );
    let found = scratch.collect(&["?"], 2, 99);
    assert_eq!(
        left(&found),
        ["c", "d"].map(|name| (name, NotFetched::TooMany))
    );

    let deep = vec!["deep"; MAX_DEPTH + 2].join("/");
    scratch.write(&format!("{deep}/x"), b"x");
    scratch.write(&format!("{}/x", vec!["less"; MAX_DEPTH].join("/")), b"x");
    let found = scratch.collect(&["**/x"], 9, 99);
    assert_eq!(found.files.len(), 1, "{:?}", left(&found));
    assert_eq!(left(&found).len(), 1);
    assert_eq!(left(&found)[0].1, NotFetched::TooDeep);
}

#[test]
fn what_cannot_be_looked_through_in_time_is_told() {
    let scratch = Scratch::new("time");
    for name in ["a", "b"] {
        scratch.write(name, b"x");
    }
    let found = scratch.collect_within(Duration::ZERO, &["*"], 9, 99);
    assert!(found.files.is_empty());
    assert_eq!(left(&found), [(".", NotFetched::TooManySeen)]);
}

#[test]
fn a_directory_that_is_none_is_told_and_no_error() {
    let scratch = Scratch::new("none");
    scratch.write("file", b"x");
    let file: OwnedFd = File::open(scratch.0.join("file")).unwrap().into();
    let fetch = Fetch {
        patterns: vec!["*".to_owned()],
        files: 1,
        bytes: 1,
        changed_only: true,
    };
    let found = Walk::through(
        file,
        &fetch,
        &InputSnapshot::default(),
        Instant::now() + COLLECT_TIMEOUT,
    );
    assert_eq!(left(&found), [(".", NotFetched::Unreadable)]);
}
