//! Output of programs: it arrives exactly as it was printed, in every encoding and with every way
//! of printing.

use sandhog_protocol::frames::ProgramEnd;

use crate::cell_fixture::CellFixture;

#[tokio::test]
async fn bytes_arrive_exactly() {
    let mut cells = CellFixture::new("exact").await;
    let ran = cells.shell("head -c 300000 /dev/zero | tr '\\0' x").await;
    assert_eq!(ran.report.stdout_bytes, 300_000);
    assert!(ran.stdout == vec![b'x'; 300_000]);

    let every: Vec<u8> = (0..=u8::MAX).collect();
    let ran = cells
        .python(
            "import os\nos.write(1, bytes(range(256)))\nos.write(2, b'\\xff\\x00\\x1b[31m\\r\\n')",
        )
        .await;
    assert_eq!(ran.stdout, every);
    assert_eq!(ran.stderr, b"\xff\x00\x1b[31m\r\n");

    cells.caps.call.output_bytes = 12 << 20;
    let ran = cells
        .shell("head -c 10M /dev/zero | tr '\\0' y; echo")
        .await;
    assert_eq!(ran.stdout.len(), (10 << 20) + 1, "one line of 10 MB");
    let ran = cells.shell("head -c 2M /dev/zero; exit 0").await;
    assert_eq!(ran.stdout.len(), 2 << 20, "2 MB, then an end at once");
    assert_eq!(ran.report.end, ProgramEnd::Exited(0));
    cells.end().await;
}

#[tokio::test]
async fn a_flood_beyond_the_cap_is_drained_and_counted() {
    let mut cells = CellFixture::new("flood").await;
    let ran = cells.shell("head -c 50M /dev/zero >&2; echo done").await;
    assert_eq!(ran.report.end, ProgramEnd::Exited(0));
    assert_eq!(ran.stdout_text(), "done\n");
    assert_eq!(ran.stderr.len(), 1 << 20);
    assert_eq!(ran.report.stderr_bytes, 50 << 20);
    cells.end().await;
}

#[tokio::test]
async fn an_open_stream_does_not_outlive_the_program() {
    let mut cells = CellFixture::new("held").await;
    let cases = [
        ("a child holds it", "sleep 1000 & echo ok"),
        ("a daemon holds it", "setsid sleep 1000 & disown; echo ok"),
        (
            "a child goes on printing",
            "(while :; do echo -n; done) & echo ok",
        ),
        (
            "an orphan's orphan holds it",
            "(setsid bash -c 'sleep 1000 & sleep 1000' &) ; echo ok",
        ),
    ];
    for (case, command) in cases {
        let ran = cells.shell(command).await;
        assert_eq!(ran.report.end, ProgramEnd::Exited(0), "{case}");
        assert_eq!(ran.stdout_text(), "ok\n", "{case}");
        cells.assert_no_trace(case).await;
    }
    cells.end().await;
}

#[tokio::test]
async fn streams_can_be_opened_by_name_and_closed() {
    let mut cells = CellFixture::new("streams").await;
    let ran = cells
        .shell("echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin")
        .await;
    assert_eq!(
        (ran.stdout_text().as_str(), ran.stderr_text().as_str()),
        ("out\n", "err\n")
    );
    let ran = cells.shell("exec >&- 2>&- <&-; sleep 0.05; exit 4").await;
    assert_eq!(
        ran.report.end,
        ProgramEnd::Exited(4),
        "a program without streams continues"
    );
    cells.end().await;
}

#[tokio::test]
async fn a_program_that_speaks_the_runners_language_fools_nobody() {
    let mut cells = CellFixture::new("spoof").await;
    // A frame in the runner's format: a length, then a map.
    let frame = r"\x00\x00\x00\x08\xa7started\x00\x00\x00\x0f\x81\xa5fault\x81\xa7message\xa1x";
    let ran = cells
        .shell(&format!("printf '{frame}'; printf '{frame}' >&2; exit 3"))
        .await;
    assert_eq!(ran.report.end, ProgramEnd::Exited(3));
    assert_eq!(ran.stdout, ran.stderr);
    assert!(ran.stdout.starts_with(b"\0\0\0\x08\xa7started"));
    for fd in 3..64 {
        let ran = cells.shell(&format!("printf x >&{fd}")).await;
        assert_eq!(
            ran.report.end,
            ProgramEnd::Exited(1),
            "descriptor {fd} is not open"
        );
    }
    cells.end().await;
}

#[tokio::test]
async fn bytes_that_come_one_by_one_are_passed_on_together() {
    const EACH: usize = 10_000;
    let mut cells = CellFixture::new("packets").await;
    let ran = cells
        .python(&format!(
            "import fcntl, os\n\
             for stream in (1, 2):\n\
             \x20   fcntl.fcntl(stream, fcntl.F_SETFL, fcntl.fcntl(stream, fcntl.F_GETFL) | \
             os.O_DIRECT)\n\
             for _ in range({EACH}):\n\
             \x20   os.write(1, b'o')\n\
             \x20   os.write(2, b'e')\n"
        ))
        .await;
    assert_eq!(ran.report.end, ProgramEnd::Exited(0));
    assert!(ran.stdout == vec![b'o'; EACH] && ran.stderr == vec![b'e'; EACH]);
    // A pipe holds sixteen packets. If the runner did not gather them, each would be a separate
    // piece.
    assert!(ran.pieces < EACH, "{} pieces of {}", ran.pieces, 2 * EACH);
    cells.end().await;
}
