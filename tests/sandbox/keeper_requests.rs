//! Requests to a keeper: valid ones, and everything that it refuses.

use std::time::{Duration, Instant};

use sandhog_protocol::frames::{self, CgroupSupport, FromRunner};
use sandhog_protocol::install::{BUILD_PATH, CONTRACT_PATH};
use sandhog_protocol::keeper::{Open, SandboxState, ToKeeper, VERSION, encode};

use crate::keeper_connection::{start_zygote, with_zygote};
use crate::keeper_fixture::{AMPLE, KeeperFixture, wait_for};

#[test]
fn a_keeper_says_what_it_has() {
    let keeper = KeeperFixture::new("hello");
    let (_connection, hello) = keeper.connect();
    assert_eq!(hello.version, VERSION);
    assert_eq!(hello.runner_version, frames::VERSION);
    assert_eq!(hello.image, "python");
    let file = |path| keeper.shell(&format!("cat {path}"));
    assert_eq!(hello.build, file(BUILD_PATH).trim());
    assert_eq!(hello.contract, file(CONTRACT_PATH));
    assert!(hello.contract.contains("[languages.python.zygote]"));
    assert_eq!(hello.memory_max, Some(1 << 30));
    assert_eq!(hello.pids_max, Some(1024));
    assert_ne!(hello.cgroup, CgroupSupport::None);
    assert_eq!(hello.missing, Vec::<String>::new());
    assert!(hello.memory_in_use.is_some_and(|bytes| bytes < 64 << 20));
    assert!(!hello.user_namespace && !hello.stopping);

    let probe = keeper.probe("0");
    let line = String::from_utf8_lossy(&probe.stdout).into_owned();
    assert!(probe.status.success(), "{probe:?}");
    let begin = format!("image python build {} ", hello.build);
    assert!(line.starts_with(&begin), "{line}");
}

#[test]
fn a_sandbox_runs_programs() {
    let keeper = KeeperFixture::new("runs");
    let mut sandbox = keeper.open();
    assert_eq!(sandbox.features.missing, Vec::<String>::new());
    assert_eq!(keeper.ask(&sandbox.sandbox), SandboxState::Running);
    for _ in 0..2 {
        let (_, stdout) = sandbox.python("import os\nprint(os.getpid(), os.getuid() > 999_999)");
        assert!(stdout.ends_with(" True\n"), "{stdout}");
    }
}

#[test]
fn the_runners_frames_may_follow_at_once() {
    let keeper = KeeperFixture::new("at-once");
    let (mut connection, _hello) = keeper.connect();
    let mut bytes = encode(&ToKeeper::Open(with_zygote(&[])));
    bytes.extend(frames::encode(&start_zygote(&[])));
    connection.write(&bytes);
    assert!(connection.receive().is_some(), "opened");
    let ready = connection.receive_from_runner();
    assert!(matches!(ready, Some(FromRunner::Ready { .. })), "{ready:?}");
    let zygote = connection.receive_from_runner();
    assert!(
        matches!(zygote, Some(FromRunner::ZygoteReady { missing: None, .. })),
        "{zygote:?}"
    );
}

#[test]
fn a_keeper_refuses_what_its_container_cannot_hold() {
    let keeper = KeeperFixture::new("too-large");
    let (mut connection, _hello) = keeper.connect();
    for (open, want) in [
        (
            Open {
                memory_bytes: 2 << 30,
                ..AMPLE
            },
            "`memory_bytes` is 2147483648; the container allows at most 1073741824",
        ),
        (
            Open {
                pids: 2000,
                ..AMPLE
            },
            "`pids` is 2000; the container allows at most 1024",
        ),
        (
            Open {
                gpus: vec!["GPU-1".to_owned()],
                ..AMPLE
            },
            "unknown GPU \"GPU-1\"; this keeper has: ",
        ),
    ] {
        connection.send(&ToKeeper::Open(open));
        assert_eq!(connection.refusal(), (want.to_owned(), false));
    }
    // The connection can still be used.
    connection.send(&ToKeeper::Open(AMPLE));
    assert!(connection.receive().is_some());
}

#[test]
fn nonsense_is_refused_with_its_reason() {
    let keeper = KeeperFixture::new("nonsense");
    let unknown = encode(&serde_json::json!({"destroy": {}}));
    let small = encode(&ToKeeper::Open(Open::default()));
    for (bytes, want) in [
        (vec![0xff; 8], "above the cap of 65536"),
        (vec![0, 0, 0, 1, 0xc1], "the frame cannot be decoded"),
        (unknown, "allowed are `open` and `ask`"),
        (small, "`memory_bytes` is 0"),
    ] {
        let (mut connection, _hello) = keeper.connect();
        connection.write(&bytes);
        let (reason, retryable) = connection.refusal();
        assert!(reason.contains(want), "{reason}");
        assert!(!retryable);
        assert_eq!(
            connection.receive(),
            None,
            "the keeper closes the connection"
        );
    }
    assert!(keeper.probe("0").status.success());
}

#[test]
fn a_silent_peer_is_sent_away() {
    let keeper = KeeperFixture::new("silent");
    let (mut connection, _hello) = keeper.connect();
    connection.write(&[0, 0]);
    let begin = Instant::now();
    let (reason, _) = connection.refusal();
    assert_eq!(reason, "no whole frame arrived in time");
    assert!(begin.elapsed() > Duration::from_secs(3));
    assert_eq!(connection.receive(), None);
}

#[test]
fn only_so_many_connections_wait() {
    let keeper = KeeperFixture::new("many");
    let mut waiting: Vec<_> = (0..64).map(|_| keeper.connect().0).collect();
    let mut more = keeper.connect_raw();
    let (reason, retryable) = more.refusal();
    assert_eq!(
        reason,
        "64 connections wait already; at most 64 are allowed"
    );
    assert!(retryable);
    waiting.clear();
    wait_for(|| match keeper.connect_raw().receive() {
        Some(sandhog_protocol::keeper::FromKeeper::Hello(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn only_allowed_users_may_connect() {
    let keeper = KeeperFixture::start("users", &[], &["--peer", "1001"]);
    keeper.wait_until_listening();
    for user in ["0", "65534", "1001"] {
        let probe = keeper.probe(user);
        assert!(probe.status.success(), "{user}: {probe:?}");
    }
    let probe = keeper.probe("1002");
    let error = String::from_utf8_lossy(&probe.stderr).into_owned();
    assert_eq!(probe.status.code(), Some(1));
    assert!(
        error.contains("the user 1002 may not use this keeper"),
        "{error}"
    );
}

#[test]
fn bad_arguments_end_the_keeper() {
    let keeper = KeeperFixture::start("usage", &[], &["--poor"]);
    assert_eq!(keeper.exit_code(), "64");
    let log = keeper.log();
    assert!(log.contains("unknown argument \"--poor\""), "{log}");
}
