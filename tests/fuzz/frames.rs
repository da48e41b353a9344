//! The frames between a worker and a runner.

use sandhog_runner::protocol::{
    Caps, Displays, Dropped, End, Exception, Features, Fetch, FetchedFile, FileIn, FromRunner,
    HarnessAnswer, HarnessRequest, Hurry, LeftFile, LeftWhy, MAX_FRAME, Part, Program, Questions,
    Report, Run, Secret, Stop, Stream, ToRunner, VERSION, Warm, encode, take,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::feed;

const CAPS: Caps = Caps {
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

#[test]
fn what_a_worker_hears() {
    let report = Report {
        end: End::Exited(0),
        stop: Some(Stop::Memory),
        answer: HarnessAnswer {
            value_json: Some("[1]".to_owned()),
            dropped: Some(Dropped {
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
            why: LeftWhy::TooLarge,
        }],
        displays: Vec::new(),
        displays_dropped: 8,
    };
    let frames = [
        FromRunner::Ready {
            version: VERSION,
            features: Features::default(),
        },
        FromRunner::Warmed {
            missing: Some("why".to_owned()),
            memory_bytes: None,
        },
        FromRunner::Started,
        FromRunner::Output {
            stream: Stream::Stderr,
            data: vec![0xff; 70],
        },
        FromRunner::Display {
            parts: vec![Part {
                mime: "image/png".to_owned(),
                data: vec![0x89],
            }],
        },
        FromRunner::Done(Box::new(report)),
        FromRunner::Gone {
            clean: false,
            memory_bytes: Some(7),
        },
        FromRunner::Ask {
            data: br#"{"id":1,"image":"a"}"#.to_vec(),
        },
        FromRunner::Fault {
            message: "what".to_owned(),
            machine: true,
        },
    ];
    let seeds: Vec<_> = frames.iter().map(encode).collect();
    feed("from a runner", &seeds, take_all::<FromRunner>);
}

#[test]
fn what_a_runner_hears() {
    let words = vec!["/bin/true".to_owned(), String::new()];
    let run = |program| {
        ToRunner::Run(Box::new(Run {
            program,
            stdin: vec![0, 0xc1],
            input_json: Some("[null]".to_owned()),
            env: vec![("A".to_owned(), "b".to_owned())],
            secrets: vec![("B".to_owned(), Secret::new("c".to_owned()))],
            caps: CAPS,
            files: vec![FileIn {
                path: "a".to_owned(),
                data: vec![0xc1],
            }],
            fetch: Fetch {
                patterns: vec!["*".to_owned()],
                files: 1,
                bytes: 2,
                changed_only: true,
            },
            questions: Some(Questions {
                at_once: 3,
                most: 1000,
            }),
            displays: Displays {
                most: 1,
                bytes: 2,
                total_bytes: 3,
            },
            hurry: Hurry::WhenGone,
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
        ToRunner::Warm(Box::new(Warm {
            harness: words.clone(),
            argv: words,
            env: Vec::new(),
            imports: vec!["numpy".to_owned()],
            caps: CAPS,
        })),
        ToRunner::Answer {
            data: br#"{"id":1,"value":null}"#.to_vec(),
        },
        ToRunner::Cancel,
    ];
    let seeds: Vec<_> = frames.iter().map(encode).collect();
    feed("to a runner", &seeds, take_all::<ToRunner>);
}
