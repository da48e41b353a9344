//! Ends of sandboxes: by the worker, by the kernel, by a signal to the keeper. Nothing is left.

use sandhog_protocol::frames::ProgramEnd;
use sandhog_protocol::keeper::{EndStatus, Open, SandboxState, ToKeeper};

use crate::keeper_fixture::{AMPLE, KeeperFixture, wait_for};

const SIGKILL: i32 = 9;

/// A shell command that lists the cgroups of all sandboxes.
const CGROUPS: &str = "find /sys/fs/cgroup/ -maxdepth 2 -name 'sbx-*'";

#[test]
fn the_worker_ends_a_sandbox_by_closing_its_connection() {
    let keeper = KeeperFixture::new("close");
    let mut sandbox = keeper.open();
    sandbox.begin_python("import time\nprint('on', flush=True)\ntime.sleep(600)");
    assert_eq!(sandbox.output(), "on\n");
    let name = sandbox.close();
    let end = keeper.end_of(&name);
    assert!(!end.oom, "{end:?}");
    wait_for(|| match keeper.runners() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("runners are left: {left:?}")),
    });
    assert_eq!(keeper.shell(CGROUPS), "");
    assert_eq!(keeper.ask("another"), SandboxState::Unknown);
}

#[test]
fn a_killed_runner_is_reported_before_its_connection_ends() {
    let keeper = KeeperFixture::new("killed");
    let mut sandbox = keeper.open();
    let runners = keeper.runners();
    assert_eq!(runners.len(), 1);
    keeper.shell(&format!("kill -9 {}", runners[0]));
    assert_eq!(sandbox.connection.receive_from_runner(), None);
    let SandboxState::Ended(end) = keeper.ask(&sandbox.sandbox) else {
        panic!("the end is recorded before the connection is closed");
    };
    assert_eq!(end.status, EndStatus::Signaled(SIGKILL));
    assert!(!end.oom && !end.killed, "{end:?}");
}

#[test]
fn a_worker_that_breaks_the_runners_protocol_gets_its_exit_code() {
    let keeper = KeeperFixture::new("broken");
    let mut sandbox = keeper.open();
    sandbox.connection.write(&[0xff; 8]);
    while sandbox.connection.receive_from_runner().is_some() {}
    let end = keeper.end_of(&sandbox.sandbox);
    assert_eq!(end.status, EndStatus::Exited(65));
    assert!(end.stderr.contains("broke the protocol"), "{end:?}");
}

#[test]
fn memory_beyond_the_cap_of_the_sandbox_is_reported() {
    let keeper = KeeperFixture::new("oom");
    let other = keeper.open();
    let mut sandbox = keeper.open_with(&Open {
        memory_bytes: 64 << 20,
        ..AMPLE
    });
    // The cap of the cell is higher, so that the cap of the sandbox applies.
    sandbox.begin_python("held = [bytearray(1 << 20) for _ in range(100)]");
    let (report, _) = sandbox.finish();
    assert_eq!(report.end, ProgramEnd::Signaled(SIGKILL));
    let end = keeper.end_of(&sandbox.close());
    assert!(end.oom, "{end:?}");
    let end = keeper.end_of(&other.close());
    assert!(!end.oom, "{end:?}");
}

#[test]
fn fifty_sandboxes_leave_nothing_behind() {
    let keeper = KeeperFixture::new("fifty");
    let count = || {
        let counted = keeper
            .shell("ls -d /proc/[0-9]* | wc -l; wc -l < /proc/self/mountinfo; ls /tmp | wc -l");
        (counted, keeper.shell(CGROUPS))
    };
    let round = || {
        let mut sandbox = keeper.open();
        let (_, stdout) = sandbox.python("print(1)");
        assert_eq!(stdout, "1\n");
        sandbox.close()
    };
    keeper.end_of(&round());
    let before = count();
    let mut last = String::new();
    for _ in 0..50 {
        last = round();
    }
    keeper.end_of(&last);
    wait_for(|| {
        let now = count();
        if now == before {
            Ok(())
        } else {
            Err(format!("{now:?} instead of {before:?}"))
        }
    });
}

#[test]
fn a_stopping_keeper_lets_running_sandboxes_continue() {
    let keeper = KeeperFixture::new("stop");
    let mut sandbox = keeper.open();
    let (mut waiting, _hello) = keeper.connect();
    keeper.signal("TERM");
    wait_for(|| match keeper.connect().1.stopping {
        true => Ok(()),
        false => Err("the keeper is not stopping".to_owned()),
    });
    waiting.send(&ToKeeper::Open(AMPLE));
    assert_eq!(
        waiting.refusal(),
        ("the keeper is stopping".to_owned(), true)
    );
    assert_eq!(sandbox.python("print(2)").1, "2\n");
    sandbox.close();
    assert_eq!(keeper.exit_code(), "0");
    assert!(!keeper.socket().exists());
}

#[test]
fn a_second_signal_kills_the_rest() {
    let keeper = KeeperFixture::new("kill");
    let mut sandbox = keeper.open();
    keeper.signal("TERM");
    wait_for(|| match keeper.connect().1.stopping {
        true => Ok(()),
        false => Err("the keeper is not stopping".to_owned()),
    });
    keeper.signal("TERM");
    assert_eq!(sandbox.connection.receive_from_runner(), None);
    assert_eq!(keeper.exit_code(), "0");
}

#[test]
fn the_grace_period_ends_the_rest() {
    let keeper = KeeperFixture::start("grace", &[], &["--grace-ms", "300"]);
    keeper.wait_until_listening();
    let mut sandbox = keeper.open();
    keeper.signal("TERM");
    assert_eq!(sandbox.connection.receive_from_runner(), None);
    assert_eq!(keeper.exit_code(), "0");
}

#[test]
fn a_keeper_may_end_with_its_standard_input() {
    // Without an option of `docker run` the standard input is empty.
    let keeper = KeeperFixture::start("stdin", &[], &["--while-stdin"]);
    assert_eq!(keeper.exit_code(), "0");
    let log = keeper.log();
    assert!(log.contains("the standard input has ended"), "{log}");
    assert!(!keeper.socket().exists());
}
