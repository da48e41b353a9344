//! Every cap, reached by real programs: it holds, the report distinguishes it from every other cap,
//! and nothing of the program is left.

use sandhog_protocol::frames::{Program, ProgramEnd, Stop};
use sandhog_worker::sandbox::Report;

use crate::cell_fixture::{AMPLE_CAPS, CellFixture, words};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const ENOSPC: i32 = 28;

/// Returns the caps that the report names: the reason for the stop, whether a process was refused,
/// and whether scratch was full.
fn said(report: &Report) -> (Option<Stop>, bool, bool) {
    (report.stop, report.pids_refused, report.scratch_full)
}

#[tokio::test]
async fn wall_clock_time_ends_whatever_a_program_does() {
    let mut cells = CellFixture::new("wall").await;
    let cases = [
        ("sleeps", "sleep 1000"),
        ("spins", "while :; do :; done"),
        ("ignores SIGTERM", "trap '' TERM; while :; do sleep 1; done"),
        ("stops itself", "kill -STOP $$"),
        (
            "waits for an orphan that ignores SIGTERM",
            "(setsid bash -c 'trap \"\" TERM; sleep 1000' &); sleep 1000",
        ),
        (
            "waits for input that never comes",
            "exec 3<>/dev/null; mkfifo /tmp/f; cat /tmp/f",
        ),
    ];
    for (case, command) in cases {
        cells.caps.call.wall_ms = 200;
        let ran = cells.shell(command).await;
        assert_eq!(
            said(&ran.report),
            (Some(Stop::WallClock), false, false),
            "{case}"
        );
        assert!(
            matches!(ran.report.end, ProgramEnd::Signaled(SIGTERM | SIGKILL)),
            "{case}: {:?}",
            ran.report.end
        );
        assert!(ran.report.wall_ms >= 200, "{case}: {}", ran.report.wall_ms);
        cells.assert_no_trace(case).await;
    }
    let cases = [
        (
            "backtracks",
            "import re; re.match('(a+)+$', 'a' * 64 + 'b')",
        ),
        ("computes", "x = 7 ** (10 ** 9)"),
        (
            "catches everything",
            "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        ),
    ];
    for (case, source) in cases {
        cells.caps.call.wall_ms = 300;
        let ran = cells.python(source).await;
        assert_eq!(ran.report.stop, Some(Stop::WallClock), "{case}");
        cells.assert_no_trace(case).await;
    }
    cells.end().await;
}

#[tokio::test]
async fn a_program_gets_its_grace_and_what_it_says_then_counts() {
    let mut cells = CellFixture::new("grace").await;
    cells.caps.call.wall_ms = 300;
    cells.caps.call.grace_ms = 50_000;
    let ran = cells
        .shell("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done")
        .await;
    assert_eq!(ran.report.stop, Some(Stop::WallClock));
    assert_eq!(ran.report.end, ProgramEnd::Exited(7));
    assert_eq!(ran.stdout_text(), "up\nbye\n");
    cells.assert_no_trace("a graceful end").await;
    cells.end().await;
}

#[tokio::test]
async fn cpu_time_is_counted_over_the_whole_tree() {
    let mut cells = CellFixture::new("cpu").await;
    cells.caps.call.cpu_ms = 300;
    let cases = [
        ("one process", "while :; do :; done"),
        (
            "children",
            "for i in 1 2 3; do (while :; do :; done) & done; wait",
        ),
        ("many short-lived children", "while :; do /bin/true; done"),
    ];
    for (case, command) in cases {
        let ran = cells.shell(command).await;
        assert_eq!(
            said(&ran.report),
            (Some(Stop::CpuTime), false, false),
            "{case}"
        );
        assert!(ran.report.cpu_ms >= 300, "{case}: {}", ran.report.cpu_ms);
        cells.assert_no_trace(case).await;
    }
    cells.caps = AMPLE_CAPS;
    let ran = cells.shell("sleep 0.5").await;
    assert_eq!(ran.report.end, ProgramEnd::Exited(0));
    assert!(
        ran.report.cpu_ms < 500,
        "sleep costs no CPU: {}",
        ran.report.cpu_ms
    );
    cells.end().await;
}

#[tokio::test]
async fn memory_is_counted_over_the_whole_tree_and_ends_all_of_it() {
    let mut cells = CellFixture::new("memory").await;
    cells.caps.cell.memory_bytes = 64 << 20;
    cells.caps.cell.scratch_bytes = 1 << 30;
    let cases = [
        ("one allocation", "x = b'x' * (100 << 20)"),
        (
            "slow growth",
            "x = []\nwhile True: x.append(bytearray(1 << 18))",
        ),
        (
            "eight children",
            "import os, time\nfor i in range(8):\n    if os.fork() == 0:\n        \
             x = b'x' * (20 << 20)\n        time.sleep(1000)\ntime.sleep(1000)",
        ),
        (
            "a shared anonymous map",
            "import mmap\nm = mmap.mmap(-1, 100 << 20)\nfor at in range(0, 100 << 20, 4096): m[at] \
             = 1",
        ),
        (
            "/dev/shm",
            "f = open('/dev/shm/x', 'wb')\nwhile True: f.write(b'x' * (1 << 20))",
        ),
        (
            "/tmp",
            "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * (1 << 20))",
        ),
        (
            "a memfd",
            "import os\nf = os.memfd_create('x')\nwhile True: os.write(f, b'x' * (1 << 20))",
        ),
        (
            "a child that dies and a parent that would go on",
            "import os\nif os.fork() == 0:\n    x = b'x' * (100 << 20)\n    os._exit(0)\n\
             os.wait()\nwhile True: pass",
        ),
        (
            "a parent that ends well",
            "import os\nif os.fork() == 0:\n    x = b'x' * (100 << 20)\n    os._exit(0)\n\
             os.wait()\nos._exit(0)",
        ),
    ];
    for (case, source) in cases {
        let ran = cells.python(source).await;
        assert_eq!(
            said(&ran.report),
            (Some(Stop::Memory), false, false),
            "{case}: {ran:?}"
        );
        let peak = ran.report.memory_peak_bytes;
        assert!((60 << 20..=64 << 20).contains(&peak), "{case}: peak {peak}");
        cells.assert_no_trace(case).await;
    }
    let ran = cells.python("x = b'x' * (40 << 20)").await;
    assert_eq!(said(&ran.report), (None, false, false), "within the cap");
    assert!(
        ran.report.memory_peak_bytes > 40 << 20,
        "{}",
        ran.report.memory_peak_bytes
    );
    cells.end().await;
}

#[tokio::test]
async fn processes_and_threads_are_refused_at_the_cap() {
    let mut cells = CellFixture::new("pids").await;
    cells.caps.cell.pids = 16;
    let cases = [
        (
            "processes",
            "import os, signal\nfor i in range(100):\n    if os.fork() == 0: signal.pause()",
        ),
        (
            "threads",
            "import threading, os\nfor i in range(100):\n    \
             threading.Thread(target=threading.Event().wait, daemon=True).start()",
        ),
        (
            "zombies",
            "import os\nfor i in range(100):\n    if os.fork() == 0: os._exit(0)",
        ),
    ];
    for (case, source) in cases {
        let ran = cells.python(source).await;
        assert_eq!(said(&ran.report), (None, true, false), "{case}: {ran:?}");
        assert_eq!(ran.report.end, ProgramEnd::Exited(1), "{case}");
        cells.assert_no_trace(case).await;
    }
    let bombs = [
        (
            "a fork bomb in the shell",
            "bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done",
        ),
        (
            "a fork bomb that ignores SIGTERM",
            "trap '' TERM; bomb() { bomb & bomb & }; bomb; while :; do sleep 1; done",
        ),
    ];
    for (case, command) in bombs {
        cells.caps.call.wall_ms = 500;
        let ran = cells.shell(command).await;
        assert_eq!(
            said(&ran.report),
            (Some(Stop::WallClock), true, false),
            "{case}"
        );
        cells.assert_no_trace(case).await;
    }
    cells.caps = AMPLE_CAPS;
    let ran = cells
        .shell("for i in 1 2 3 4 5 6 7 8; do sleep 0.01 & done; wait")
        .await;
    assert_eq!(said(&ran.report), (None, false, false), "within the cap");
    cells.end().await;
}

#[tokio::test]
async fn scratch_space_is_capped_in_bytes_and_in_files() {
    let mut cells = CellFixture::new("scratch").await;
    cells.caps.cell.scratch_bytes = 4 << 20;
    cells.caps.cell.scratch_inodes = 50;
    for place in ["/tmp", "/work", "/dev/shm", "/var/tmp"] {
        let ran = cells
            .shell(&format!(
                "head -c 3M /dev/zero > {place}/a && head -c 3M /dev/zero > {place}/b"
            ))
            .await;
        assert_eq!(
            said(&ran.report),
            (None, false, true),
            "bytes in {place}: {ran:?}"
        );
        assert_eq!(ran.report.end, ProgramEnd::Exited(1), "bytes in {place}");
        let ran = cells
            .shell(&format!(
                "for i in {{1..100}}; do : > {place}/$i || exit 9; done"
            ))
            .await;
        assert_eq!(
            said(&ran.report),
            (None, false, true),
            "files in {place}: {ran:?}"
        );
        assert_eq!(ran.report.end, ProgramEnd::Exited(9), "files in {place}");
        let ran = cells
            .shell(&format!("head -c 1G /dev/zero > {place}/x"))
            .await;
        assert!(
            ran.report.scratch_full,
            "one file as large as it gets in {place}: {ran:?}"
        );
        cells.assert_no_trace(place).await;
    }
    let ran = cells
        .shell("for i in {1..40}; do : > /tmp/$i; : > /work/$i; done; head -c 3M /dev/zero > x")
        .await;
    assert_eq!(
        said(&ran.report),
        (None, false, false),
        "within the caps: {ran:?}"
    );
    assert_eq!(
        ran.report.end,
        ProgramEnd::Exited(0),
        "within the caps: {ran:?}"
    );

    let file = Program::File {
        file: "main.sh".to_owned(),
        source: "#".repeat(5 << 20),
        argv: words(&["/bin/bash", "main.sh"]),
    };
    let ran = cells.program(file).await;
    assert_eq!(
        ran.report.end,
        ProgramEnd::NotStarted(ENOSPC),
        "a source that does not fit"
    );
    assert!(ran.report.scratch_full, "a source that does not fit");
    cells.end().await;
}

#[tokio::test]
async fn output_is_kept_to_one_cap_and_stopped_at_another() {
    let mut cells = CellFixture::new("output").await;
    cells.caps.call.output_bytes = 1_000;
    let ran = cells
        .shell("printf 'a%.0s' {1..5000}; printf 'b%.0s' {1..500} >&2")
        .await;
    assert_eq!(ran.report.stop, None);
    assert_eq!(ran.stdout_text(), "a".repeat(1_000));
    assert_eq!(
        ran.stderr_text(),
        "b".repeat(500),
        "the other stream has a cap of its own"
    );
    assert_eq!(
        (ran.report.stdout_bytes, ran.report.stderr_bytes),
        (5_000, 500)
    );

    cells.caps.call.output_total_bytes = 1 << 20;
    let cases = [
        ("standard output", "yes"),
        ("standard error", "yes >&2"),
        ("both", "yes & yes >&2"),
        ("a child's", "yes & wait"),
        ("in one write, then an end", "head -c 2M /dev/zero"),
    ];
    for (case, command) in cases {
        let ran = cells.shell(command).await;
        assert_eq!(ran.report.stop, Some(Stop::Output), "{case}");
        let kept = ran.stdout.len() + ran.stderr.len();
        assert!((1_000..=2_000).contains(&kept), "{case}: {kept}");
        assert!(
            ran.report.stdout_bytes + ran.report.stderr_bytes > 1 << 20,
            "{case}"
        );
        cells.assert_no_trace(case).await;
    }
    cells.end().await;
}
