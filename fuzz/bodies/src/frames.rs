//! The frames between a worker and a runner.

use sandhog_protocol::frames::{
    Call, CallCaps, CallId, CallReport, CellCaps, CellReport, CloseCell, DisplayCaps, DisplayPart,
    Exception, Features, Fetch, FetchedFile, FromRunner, HarnessAnswer, HarnessRequest, InferQuota,
    InputFile, LeftFile, MAX_FRAME, NotFetched, OpenCell, Program, ProgramEnd, ReportFlush, Secret,
    StandbyPlan, StartZygote, Stop, Stream, ToRunner, VERSION, ValueDropped, encode, take,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const CELL_CAPS: CellCaps = CellCaps {
    cpu_millis: 1,
    memory_bytes: 1 << 40,
    stack_bytes: 1 << 30,
    pids: 1,
    scratch_bytes: 1,
    scratch_inodes: u32::MAX,
};

const CALL_CAPS: CallCaps = CallCaps {
    wall_ms: 1000,
    cpu_ms: u64::MAX,
    output_bytes: 1,
    output_total_bytes: 1,
    grace_ms: 0,
};

const ID: CallId = CallId(u64::MAX);

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
    let call_report = CallReport {
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
        stdout_bytes: 4,
        stderr_bytes: 5,
        displays_dropped: 8,
        warm: true,
    };
    let cell_report = CellReport {
        cpu_ms: 2,
        memory_peak_bytes: 3,
        files: vec![FetchedFile {
            path: "a/b".to_owned(),
            data: vec![0, 0xc1],
        }],
        left: vec![LeftFile {
            path: "c".to_owned(),
            why: NotFetched::TooLarge,
        }],
        clean: true,
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
        FromRunner::Started { id: ID },
        FromRunner::Output {
            id: ID,
            stream: Stream::Stderr,
            data: vec![0xff; 70],
        },
        FromRunner::Display {
            id: ID,
            parts: vec![DisplayPart {
                mime: "image/png".to_owned(),
                data: vec![0x89],
            }],
        },
        FromRunner::ModelOutput {
            id: ID,
            data: vec![0, 0, 0, 1, b'1'],
        },
        FromRunner::CallEnded {
            id: ID,
            report: Box::new(call_report),
        },
        FromRunner::CellEnded(Box::new(cell_report)),
        FromRunner::CellClosed {
            clean: false,
            memory_bytes: Some(7),
        },
        FromRunner::InferRequest {
            id: ID,
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
    let open = OpenCell {
        caps: CELL_CAPS,
        env: vec![("A".to_owned(), "b".to_owned())],
        secrets: vec![("B".to_owned(), Secret::new("c".to_owned()))],
        files: vec![InputFile {
            path: "a".to_owned(),
            data: vec![0xc1],
        }],
    };
    let close = CloseCell {
        fetch: Fetch {
            patterns: vec!["*".to_owned()],
            files: 1,
            bytes: 2,
            changed_only: true,
        },
        report_flush: ReportFlush::WithCleanup,
        standby: StandbyPlan::Omit,
    };
    let call = |program| {
        ToRunner::Call(Box::new(Call {
            stdin: vec![0, 0xc1],
            input_json: Some("[null]".to_owned()),
            infer_quota: Some(InferQuota {
                max_open: 3,
                max_total: 1000,
            }),
            displays: DisplayCaps {
                count: 1,
                bytes: 2,
                total_bytes: 3,
            },
            ..Call::new(ID, program, CALL_CAPS)
        }))
    };
    let frames = [
        ToRunner::OpenCell(Box::new(open)),
        call(Program::Argv {
            argv: words.clone(),
        }),
        call(Program::File {
            file: "main.sh".to_owned(),
            source: "true".to_owned(),
            argv: words.clone(),
        }),
        call(Program::Harness {
            argv: words.clone(),
            request: HarnessRequest {
                source: "1".to_owned(),
                file: Some("a.py".to_owned()),
                args: words.clone(),
                input_json: "null".to_owned(),
            },
        }),
        call(Program::Server {
            argv: words.clone(),
        }),
        ToRunner::StartZygote(Box::new(StartZygote {
            harness: words.clone(),
            argv: words,
            env: Vec::new(),
            imports: vec!["numpy".to_owned()],
            caps: CELL_CAPS,
        })),
        ToRunner::ModelInput {
            id: ID,
            data: vec![0, 0, 0, 1, b'1'],
        },
        ToRunner::InferResponse {
            id: ID,
            data: br#"{"id":1,"value":null}"#.to_vec(),
        },
        ToRunner::Cancel { id: ID },
        ToRunner::CloseCell(close),
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
