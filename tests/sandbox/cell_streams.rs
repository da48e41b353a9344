//! Standard input that supports seeking, and standard output that is written at once or in blocks.

use sandhog_protocol::frames::{ProgramEnd, Stop};

use crate::cell_fixture::{CellFixture, RunResult, harness};

fn value(ran: &RunResult) -> serde_json::Value {
    let text = ran.value().unwrap_or_else(|| panic!("{ran:?}"));
    serde_json::from_str(text).expect("a value is JSON")
}

/// Forces a newly started interpreter, because such variables are only read at the start of one.
const COLD: &[(&str, &str)] = &[("PYTHONHASHSEED", "0")];

/// Number of writes to standard output so far. Each is one system call.
const WRITES: &str = "sys.stdout.buffer.raw.writes";

#[tokio::test]
async fn output_is_written_in_blocks_while_there_is_much_of_it() {
    let mut cells = CellFixture::new("streams").await;
    for env in [&[][..], COLD] {
        let source = format!(
            "import sys\nfor i in range(300_000): print(i)\nmuch = {WRITES}\nimport time\n\
             while sys.stdout.buffer.raw.flusher.locks is not None: time.sleep(0.01)\n\
             before = {WRITES}\nfor i in range(3): print('one by one')\n[much, {WRITES} - before]"
        );
        let ran = cells.run(harness(&source, &[], "null"), b"", env).await;
        assert_eq!(ran.report.end, ProgramEnd::Exited(0), "{ran:?}");
        let said = value(&ran);
        let much = said[0].as_u64().expect("a number");
        assert!(much < 100_000, "{much} writes for 300,000 lines");
        assert_eq!(said[1], 3, "small output is written at once again");
        let bytes: u64 = (0..300_000)
            .map(|n: u32| n.to_string().len() as u64 + 1)
            .sum();
        assert_eq!(ran.report.stdout_bytes, bytes + 33);
    }
    cells.end().await;
}

/// All earlier output of the program comes before the output of another process or of the other
/// stream.
#[tokio::test]
async fn blocks_keep_the_order_of_lines_and_lose_none() {
    let mut cells = CellFixture::new("order").await;
    let begin = "import os, subprocess, sys, time\nfor i in range(20_000): print(i)\n";
    for (case, end) in [
        (
            "a subprocess",
            "subprocess.run(['echo', 'then'])\nprint('last')",
        ),
        ("a shell", "os.system('echo then')\nprint('last')"),
        (
            "a fork",
            "if os.fork() == 0:\n    print('then')\n    sys.stdout.flush()\n    os._exit(0)\n\
             os.wait()\nprint('last')",
        ),
        (
            "a fork that ends by itself",
            "if os.fork() == 0:\n    print('then')\n    sys.exit()\nos.wait()\nprint('last')",
        ),
        (
            "another program in its place",
            "print('then')\nos.execv('/bin/echo', ['echo', 'last'])",
        ),
        ("sys.exit", "print('then')\nprint('last')\nsys.exit(0)"),
        (
            "an exit handler",
            "import atexit\natexit.register(print, 'last')\nprint('then')",
        ),
        (
            "a daemon thread",
            "import threading\nthreading.Thread(target=time.sleep, args=(60,), \
             daemon=True).start()\n\
             print('then')\nprint('last')",
        ),
    ] {
        let source = format!("{begin}{end}");
        for env in [&[][..], COLD] {
            let ran = cells.run(harness(&source, &[], "null"), b"", env).await;
            assert_eq!(ran.report.end, ProgramEnd::Exited(0), "{case}: {ran:?}");
            let want: String = (0..20_000).map(|n: u32| format!("{n}\n")).collect();
            assert!(
                ran.stdout_text() == format!("{want}then\nlast\n"),
                "{case}: …{:?}",
                ran.stdout_text().lines().skip(19_995).collect::<Vec<_>>()
            );
        }
    }
    cells.end().await;
}

#[tokio::test]
async fn a_program_that_is_stopped_leaves_what_it_printed_before() {
    let mut cells = CellFixture::new("stopped").await;
    cells.caps.call.wall_ms = 3_000;
    let begin = "import os, time\nfor i in range(20_000): print(i)\n";
    for (case, end, stop) in [
        ("sleeps", "time.sleep(1000)", Some(Stop::WallClock)),
        ("spins", "while True: pass", Some(Stop::WallClock)),
        ("kills itself", "os.kill(os.getpid(), 9)", None),
    ] {
        let ran = cells
            .run(harness(&format!("{begin}{end}"), &[], "null"), b"", &[])
            .await;
        assert_eq!(ran.report.stop, stop, "{case}");
        assert!(
            ran.stdout_text().ends_with("19998\n19999\n"),
            "{case}: {}",
            ran.stdout_text().len()
        );
    }
    cells.end().await;
}

/// A program that reads, seeks back and reads again, maps the input, opens it by name, and fails to
/// change it.
const SEEKS: &str = "
import errno, mmap, os, sys
first = sys.stdin.read()
sys.stdin.seek(0)
again = sys.stdin.read()
mapped = mmap.mmap(0, 0, prot=mmap.PROT_READ)[:].decode()
named = open('/dev/stdin').read()
try:
    os.pwrite(0, b'x', 0)
    written = 0
except OSError as error:
    written = error.errno
[first, first == again == mapped == named, written == errno.EPERM, os.fstat(0).st_size]
";

#[tokio::test]
async fn standard_input_is_a_file_of_the_programs_own() {
    let mut cells = CellFixture::new("stdin").await;
    for env in [&[][..], COLD] {
        let ran = cells
            .run(harness(SEEKS, &[], "null"), "a\nb\n\u{e9}".as_bytes(), env)
            .await;
        assert_eq!(ran.report.end, ProgramEnd::Exited(0), "{ran:?}");
        let want = serde_json::json!(["a\nb\n\u{e9}", true, true, 6]);
        assert_eq!(value(&ran), want, "{env:?}");

        let source = "import os, sys\n[sys.stdin.read(), sys.stdin.seek(0), os.read(0, 1) == b'']";
        let ran = cells.run(harness(source, &[], "null"), b"", env).await;
        assert_eq!(value(&ran), serde_json::json!(["", 0, true]), "{env:?}");
    }
    // More bytes than a scratch file may have, including NUL bytes.
    let large: Vec<u8> = (0..=250_u8).cycle().take(20 << 20).collect();
    let source = "import hashlib, sys\n\
                  data = sys.stdin.buffer.read()\n[len(data), hashlib.sha256(data).hexdigest()]";
    let mut said = Vec::new();
    for env in [&[][..], COLD] {
        let ran = cells.run(harness(source, &[], "null"), &large, env).await;
        assert_eq!(value(&ran)[0], large.len(), "{ran:?}");
        assert!(
            ran.report.memory_peak_bytes > 20 << 20,
            "the memory counts as the program's: {}",
            ran.report.memory_peak_bytes
        );
        said.push(value(&ran));
    }
    assert_eq!(said[0], said[1]);
    cells.caps.cell.memory_bytes = 16 << 20;
    for env in [&[][..], COLD] {
        let ran = cells.run(harness(source, &[], "null"), &large, env).await;
        assert_eq!(ran.report.stop, Some(Stop::Memory), "{env:?}");
    }
    cells.end().await;
}
