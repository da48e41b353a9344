//! Start and end of programs: arguments, variables, input, exit codes, signals, and programs that
//! cannot be started.

use sandhog_protocol::frames::{Program, ProgramEnd, ReportFlush, Stop};
use sandhog_worker::sandbox::Run;

use crate::cell_fixture::{AMPLE_CAPS, CellFixture, words};

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const E2BIG: i32 = 7;

#[tokio::test]
async fn exit_codes_and_signals_are_told_apart() {
    let mut cells = CellFixture::new("ends").await;
    let cases = [
        ("true", ProgramEnd::Exited(0)),
        ("exit 3", ProgramEnd::Exited(3)),
        ("exit 255", ProgramEnd::Exited(255)),
        ("exit 137", ProgramEnd::Exited(137)),
        ("kill -9 $$", ProgramEnd::Signaled(9)),
        ("kill -SEGV $$", ProgramEnd::Signaled(11)),
        ("kill -40 $$", ProgramEnd::Signaled(40)),
        ("kill -PIPE $$", ProgramEnd::Signaled(13)),
        ("kill -CHLD $$; exit 5", ProgramEnd::Exited(5)),
        ("sleep 1000 & kill -9 -1; exit 6", ProgramEnd::Exited(6)),
        ("kill -9 1; exit 7", ProgramEnd::Exited(7)),
    ];
    for (command, end) in cases {
        let ran = cells.shell(command).await;
        assert_eq!(ran.report.end, end, "{command}");
        assert_eq!(ran.report.stop, None, "{command}");
        cells.assert_no_trace(command).await;
    }
    cells.end().await;
}

#[tokio::test]
async fn an_end_that_may_wait_comes_with_the_end_of_its_cell() {
    let mut cells = CellFixture::new("hurry").await;
    cells.report_flush = ReportFlush::WithCleanup;
    for (command, end) in [
        ("echo so", ProgramEnd::Exited(0)),
        ("echo so; kill -9 $$", ProgramEnd::Signaled(9)),
    ] {
        let ran = cells.shell(command).await;
        assert_eq!(
            (ran.report.end, ran.stdout_text()),
            (end, "so\n".to_owned())
        );
        cells.assert_no_trace(command).await;
    }
    let ran = cells.python("print('so')").await;
    assert_eq!(
        (ran.report.warm, ran.stdout_text()),
        (true, "so\n".to_owned())
    );
    let ran = cells.argv(&["no-such-program"]).await;
    assert_eq!(ran.report.end, ProgramEnd::NotStarted(ENOENT));
    cells.end().await;
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let mut cells = CellFixture::new("start").await;
    let cases: [(&[&str], i32); 7] = [
        (&["no-such-program"], ENOENT),
        (&["/no/such/program"], ENOENT),
        (&[""], ENOENT),
        (&["/etc/passwd"], EACCES),
        (&["/tmp"], EACCES),
        (&["/bin/true", "a\0b"], EINVAL),
        (&[], ENOENT),
    ];
    for (argv, errno) in cases {
        let ran = cells.argv(argv).await;
        assert_eq!(ran.report.end, ProgramEnd::NotStarted(errno), "{argv:?}");
        assert_eq!(ran.report.stop, None, "{argv:?}");
        assert!(ran.report.clean, "{argv:?}");
    }
    let long = "x".repeat(200 << 10);
    let ran = cells.argv(&["/bin/true", &long]).await;
    assert_eq!(
        ran.report.end,
        ProgramEnd::NotStarted(E2BIG),
        "one word too long"
    );
    let ran = cells
        .shell("printf '\\x7fELFnot' > /tmp/x; chmod +x /tmp/x; exec /tmp/x")
        .await;
    assert!(matches!(ran.report.end, ProgramEnd::Exited(126)), "{ran:?}");
    for name in ["../x", "a/b", "", "..", "a\0b"] {
        let program = Program::File {
            file: name.to_owned(),
            source: "x".to_owned(),
            argv: words(&["/bin/true"]),
        };
        let ran = cells.program(program).await;
        assert_eq!(
            ran.report.end,
            ProgramEnd::NotStarted(EINVAL),
            "file name {name:?}"
        );
    }
    let program = Program::Argv {
        argv: words(&["true"]),
    };
    let ran = cells.run(program, b"", &[("A=B", "x")]).await;
    assert_eq!(
        ran.report.end,
        ProgramEnd::NotStarted(EINVAL),
        "a variable's name"
    );
    cells.assert_no_trace("failed starts").await;
    cells.end().await;
}

#[tokio::test]
async fn words_variables_and_input_arrive() {
    let mut cells = CellFixture::new("words").await;
    let ran = cells
        .argv(&["printf", "[%s]", "a b", "", "$HOME", "é\n"])
        .await;
    assert_eq!(ran.stdout_text(), "[a b][][$HOME][é\n]");

    let env = Program::Argv {
        argv: words(&["env", "-0"]),
    };
    let ran = cells
        .run(
            env.clone(),
            b"",
            &[("GREETING", "hello\nworld=1"), ("HOME", "/tmp")],
        )
        .await;
    let mut variables: Vec<_> = ran
        .stdout_text()
        .trim_end_matches('\0')
        .split('\0')
        .map(str::to_owned)
        .collect();
    variables.sort();
    let (threads, variables): (Vec<_>, Vec<_>) = variables.into_iter().partition(|variable| {
        ["_THREADS=2", "_CPU_COUNT=2", "GOMAXPROCS=2"]
            .iter()
            .any(|end| variable.ends_with(end))
    });
    assert_eq!(
        threads.len(),
        12,
        "counts of threads for its two cores: {threads:?}"
    );
    let expected = [
        "GREETING=hello\nworld=1",
        "HOME=/tmp",
        "LANG=C.UTF-8",
        "LOGNAME=sandbox",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TMPDIR=/tmp",
        "USER=sandbox",
    ];
    assert_eq!(variables, expected, "and nothing of the container's own");

    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let count = Program::Argv {
        argv: words(&["sha256sum"]),
    };
    let once = cells.run(count.clone(), &large, &[]).await;
    let again = cells.run(count, &large, &[]).await;
    assert_eq!(once.stdout_text(), again.stdout_text());
    let ran = cells
        .run(
            Program::Argv {
                argv: words(&["wc", "-c"]),
            },
            &large,
            &[],
        )
        .await;
    assert_eq!(ran.stdout_text().trim(), "12000000");
    let ran = cells
        .run(
            Program::Argv {
                argv: words(&["true"]),
            },
            &large,
            &[],
        )
        .await;
    assert_eq!(
        ran.report.end,
        ProgramEnd::Exited(0),
        "a program may leave its input unread"
    );
    let ran = cells.shell("cat; echo end").await;
    assert_eq!(ran.stdout_text(), "end\n", "no input is an empty input");

    let file = Program::File {
        file: "main.sh".to_owned(),
        source: "echo \"$0 $PWD $#:$1\"; stat -c '%U %a' main.sh".to_owned(),
        argv: words(&["/bin/bash", "main.sh", "a b"]),
    };
    let ran = cells.program(file).await;
    assert_eq!(ran.stdout_text(), "main.sh /work 1:a b\nsandbox 644\n");
    cells.end().await;
}

#[tokio::test]
async fn a_program_is_cancelled() {
    let mut cells = CellFixture::new("cancel").await;
    for (case, command, end) in [
        (
            "at its ease",
            "echo up; sleep 1000",
            ProgramEnd::Signaled(15),
        ),
        (
            "deaf",
            "trap '' TERM; echo up; while :; do sleep 1; done",
            ProgramEnd::Signaled(9),
        ),
        (
            "with a last word",
            "trap 'exit 8' TERM; echo up; while :; do sleep 0.01; done",
            ProgramEnd::Exited(8),
        ),
    ] {
        let program = Program::Argv {
            argv: words(&["/bin/bash", "-c", command]),
        };
        let mut caps = AMPLE_CAPS;
        caps.call.grace_ms = 1_000;
        let run = Run::new(program, caps);
        let ran = cells.run_until(run, |stdout| stdout == b"up\n").await;
        assert_eq!(ran.report.stop, Some(Stop::Cancelled), "{case}");
        assert_eq!(ran.report.end, end, "{case}");
        cells.assert_no_trace(case).await;
    }
    let program = Program::Argv {
        argv: words(&["sleep", "1000"]),
    };
    let run = Run::new(program, AMPLE_CAPS);
    let at_once = cells.cancelled_at_once(run).await;
    assert_eq!(at_once.stop, Some(Stop::Cancelled), "before it started");
    cells
        .assert_no_trace("a program cancelled before it started")
        .await;
    cells.end().await;
}
