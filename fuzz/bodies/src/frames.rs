//! The frames between a worker and a runner.

use sandhog_protocol::frames::{
    CellCaps, DisplayCaps, DisplayPart, Exception, Features, Fetch, FetchedFile, FromRunner,
    HarnessAnswer, HarnessRequest, InferQuota, InputFile, LeftFile, MAX_FRAME, NotFetched, Program,
    ProgramEnd, Report, ReportFlush, Run, Secret, StartZygote, Stop, Stream, ToRunner, VERSION,
    ValueDropped, encode, take,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const CAPS: CellCaps = CellCaps {
    wall_ms: 1000,
    cpu_ms: u64::MAX,
    cpu_millis: 1,
    memory_bytes: 1 << 40,
    stack_bytes: 1 << 30,
    pids: 1,
    scratch_bytes: 1,
    scratch_inodes: u32::MAX,
    output_bytes: 1,
    output_total_bytes: 1,
    grace_ms: 0,
};

/// Requires of bytes from either end all properties of this module.
///
/// # Panics
/// Panics if one of them does not hold.
pub fn frames(bytes: &[u8]) {
    from_runner(bytes);
    to_runner(bytes);
}

/// Takes every frame from the bytes. A frame that decodes must decode to the same value after it is
/// encoded again. Taking a frame must never consume more bytes than there are, and must consume
/// none after an error.
fn take_all<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let mut buffer = bytes.to_vec();
    loop {
        let before = buffer.len();
        match take::<T>(&mut buffer) {
            Ok(Some(frame)) => {
                assert!(buffer.len() + 4 <= before, "a frame has at least a length");
                let mut again = encode(&frame);
                let read = take::<T>(&mut again).expect("what was encoded decodes");
                assert_eq!(read, Some(frame));
                assert!(again.is_empty(), "all of it was taken");
            }
            Ok(None) => {
                assert!(
                    before <= 4 + MAX_FRAME,
                    "no frame is waited for that is too long"
                );
                assert_eq!(buffer.len(), before, "part of a frame is kept");
                return;
            }
            Err(_) => return,
        }
    }
}

/// Returns frames of every kind that a runner sends.
#[must_use]
pub fn from_runner_seeds() -> Vec<Vec<u8>> {
    let report = Report {
        end: ProgramEnd::Exited(0),
        stop: Some(Stop::Memory),
        answer: HarnessAnswer {
            value_json: Some("[1]".to_owned()),
            dropped: Some(ValueDropped {
                kind: "set".to_owned(),
                reason: "\u{fffd}".to_owned(),
            }),
            exception: Some(Exception {
                name: "E".to_owned(),
                message: "\u{fffd}".to_owned(),
                traceback: String::new(),
            }),
            completed: true,
        },
        pids_refused: false,
        scratch_full: true,
        stack_suspected: true,
        wall_ms: 1,
        cpu_ms: 2,
        memory_peak_bytes: 3,
        stdout_bytes: 4,
        stderr_bytes: 5,
        warm: true,
        clean: true,
        container_memory_bytes: Some(6),
        files: vec![FetchedFile {
            path: "a/b".to_owned(),
            data: vec![0, 0xc1],
        }],
        left: vec![LeftFile {
            path: "c".to_owned(),
            why: NotFetched::TooLarge,
        }],
        displays: Vec::new(),
        displays_dropped: 8,
    };
    let frames = [
        FromRunner::Ready {
            version: VERSION,
            features: Features::default(),
        },
        FromRunner::ZygoteReady {
            missing: Some("why".to_owned()),
            memory_bytes: None,
        },
        FromRunner::Started,
        FromRunner::Output {
            stream: Stream::Stderr,
            data: vec![0xff; 70],
        },
        FromRunner::Display {
            parts: vec![DisplayPart {
                mime: "image/png".to_owned(),
                data: vec![0x89],
            }],
        },
        FromRunner::Report(Box::new(report)),
        FromRunner::CellClosed {
            clean: false,
            memory_bytes: Some(7),
        },
        FromRunner::InferRequest {
            data: br#"{"id":1,"image":"a"}"#.to_vec(),
        },
        FromRunner::Fault {
            message: "what".to_owned(),
            machine: true,
        },
    ];
    frames.iter().map(encode).collect()
}

/// Requires that a frame of a runner that decodes is the same after it is encoded again.
///
/// # Panics
/// Panics if it is not, or if bytes are lost.
pub fn from_runner(bytes: &[u8]) {
    take_all::<FromRunner>(bytes);
}

/// Returns frames of every kind that a worker sends.
#[must_use]
pub fn to_runner_seeds() -> Vec<Vec<u8>> {
    let words = vec!["/bin/true".to_owned(), String::new()];
    let run = |program| {
        ToRunner::Run(Box::new(Run {
            stdin: vec![0, 0xc1],
            input_json: Some("[null]".to_owned()),
            env: vec![("A".to_owned(), "b".to_owned())],
            secrets: vec![("B".to_owned(), Secret::new("c".to_owned()))],
            files: vec![InputFile {
                path: "a".to_owned(),
                data: vec![0xc1],
            }],
            fetch: Fetch {
                patterns: vec!["*".to_owned()],
                files: 1,
                bytes: 2,
                changed_only: true,
            },
            infer_quota: Some(InferQuota {
                max_open: 3,
                max_total: 1000,
            }),
            displays: DisplayCaps {
                count: 1,
                bytes: 2,
                total_bytes: 3,
            },
            report_flush: ReportFlush::WithCleanup,
            ..Run::new(program, CAPS)
        }))
    };
    let frames = [
        run(Program::Argv {
            argv: words.clone(),
        }),
        run(Program::File {
            file: "main.sh".to_owned(),
            source: "true".to_owned(),
            argv: words.clone(),
        }),
        run(Program::Harness {
            argv: words.clone(),
            request: HarnessRequest {
                source: "1".to_owned(),
                file: Some("a.py".to_owned()),
                args: words.clone(),
                input_json: "null".to_owned(),
            },
        }),
        ToRunner::StartZygote(Box::new(StartZygote {
            harness: words.clone(),
            argv: words,
            env: Vec::new(),
            imports: vec!["numpy".to_owned()],
            caps: CAPS,
        })),
        ToRunner::InferResponse {
            data: br#"{"id":1,"value":null}"#.to_vec(),
        },
        ToRunner::Cancel,
    ];
    frames.iter().map(encode).collect()
}

/// Requires that a frame of a worker that decodes is the same after it is encoded again.
///
/// # Panics
/// Panics if it is not, or if bytes are lost.
pub fn to_runner(bytes: &[u8]) {
    take_all::<ToRunner>(bytes);
}
