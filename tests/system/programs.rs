//! Programs of a job and their results: code, argv, input, value, exceptions, exits and signals.

use std::collections::BTreeMap;

use sandhog_core::blob::Blob;
use sandhog_core::job::Job;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_testkit::jobs::{argv, bash, python};
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::{Value, json};

/// The parts of a result that a case checks.
#[derive(Debug, PartialEq)]
struct Shown {
    outcome: Outcome,
    exit_code: Option<i32>,
    signal: Option<String>,
    value: Option<Value>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Shown {
    /// Returns the result of a program that succeeded and printed this.
    fn printed(stdout: &str) -> Self {
        Self {
            outcome: Outcome::Succeeded,
            exit_code: Some(0),
            signal: None,
            value: None,
            stdout: stdout.as_bytes().to_vec(),
            stderr: Vec::new(),
        }
    }

    /// Returns the result of a program that succeeded with this value.
    fn valued(value: Value) -> Self {
        Self {
            value: Some(value),
            ..Self::printed("")
        }
    }

    /// Returns the result of a program that ended with this exit code.
    fn exited(code: i32) -> Self {
        Self {
            outcome: Outcome::Failed,
            exit_code: Some(code),
            ..Self::printed("")
        }
    }
}

impl From<JobResult> for Shown {
    fn from(result: JobResult) -> Self {
        Self {
            outcome: result.outcome,
            exit_code: result.exit_code,
            signal: result.signal,
            value: result.value,
            stdout: result.stdout.0,
            stderr: result.stderr.0,
        }
    }
}

fn with_args(job: Job, args: &[&str]) -> Job {
    Job {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        ..job
    }
}

fn with_stdin(job: Job, stdin: &[u8]) -> Job {
    Job {
        stdin: Blob(stdin.to_vec()),
        ..job
    }
}

fn with_env(job: Job, name: &str, value: &str) -> Job {
    Job {
        env: BTreeMap::from([(name.to_owned(), value.to_owned())]),
        ..job
    }
}

fn with_input(job: Job, input: Value) -> Job {
    Job { input, ..job }
}

#[test]
fn programs_get_what_the_job_gives_and_results_say_what_they_did() {
    let echo = "import sys\n_ = sys.stdout.buffer.write(sys.stdin.buffer.read())";
    let cases: Vec<(&str, Job, Shown)> = vec![
        ("print", python("print(6 * 7)"), Shown::printed("42\n")),
        (
            "last expression",
            python("x = 20\nx * 2 + 2"),
            Shown::valued(json!(42)),
        ),
        (
            "main",
            with_input(
                python("def main():\n    return {'sum': sum(input_data)}"),
                json!([1, 2, 39]),
            ),
            Shown::valued(json!({"sum": 42})),
        ),
        ("no value", python("x = 1"), Shown::printed("")),
        (
            "a value that is not plain data",
            python("object()"),
            Shown::printed(""),
        ),
        (
            "no input",
            python("print(input_data)"),
            Shown::printed("None\n"),
        ),
        (
            "stdin, any bytes",
            with_stdin(python(echo), &[0, 0xff, 10]),
            Shown {
                stdout: vec![0, 0xff, 10],
                ..Shown::printed("")
            },
        ),
        (
            "args",
            with_args(python("import sys\nprint(sys.argv[1:])"), &["a b", "", "é"]),
            Shown::printed("['a b', '', 'é']\n"),
        ),
        (
            "env",
            with_env(
                python("import os\nprint(os.environ['COLOUR'])"),
                "COLOUR",
                "blue",
            ),
            Shown::printed("blue\n"),
        ),
        (
            "both streams",
            python("import sys\nprint('out')\nprint('err', file=sys.stderr)"),
            Shown {
                stderr: b"err\n".to_vec(),
                ..Shown::printed("out\n")
            },
        ),
        (
            "exit 0",
            python("import sys\nsys.exit(0)"),
            Shown::printed(""),
        ),
        (
            "exit 3",
            python("import sys\nsys.exit(3)"),
            Shown::exited(3),
        ),
        (
            "signal",
            python("import os\nos.kill(os.getpid(), 11)"),
            Shown {
                exit_code: None,
                signal: Some("SIGSEGV".to_owned()),
                ..Shown::exited(0)
            },
        ),
        (
            "bash",
            with_stdin(
                with_args(bash("read line; echo \"$1 $line\"; exit 4"), &["hello"]),
                b"world\n",
            ),
            Shown {
                stdout: b"hello world\n".to_vec(),
                ..Shown::exited(4)
            },
        ),
        (
            "argv, with no shell",
            argv(&["/bin/echo", "$HOME", "*"]),
            Shown::printed("$HOME *\n"),
        ),
        (
            "argv found in PATH",
            argv(&["printf", "x"]),
            Shown::printed("x"),
        ),
    ];
    let mut space = TestNamespace::shared("programs");
    let _worker = WorkerSpec::of(&space).start();
    for (case, job, want) in cases {
        let result = space.run(&job);
        assert_eq!(result.error, None, "case {case}");
        assert_eq!(result.exception, None, "case {case}");
        assert_eq!(Shown::from(result), want, "case {case}");
    }
}

#[test]
fn an_exception_comes_with_its_type_message_and_traceback() {
    let mut space = TestNamespace::shared("programs");
    let _worker = WorkerSpec::of(&space).start();
    let code = "def inner():\n    raise ValueError('no such thing')\n\ndef main():\n    \
                print('before')\n    inner()\n";
    let result = space.run(&python(code));
    assert_eq!(result.outcome, Outcome::Failed);
    assert_eq!(result.exit_code, Some(1));
    assert_eq!(result.stdout.lossy(), "before\n");
    assert_eq!(result.value, None);
    let exception = result.exception.expect("the exception is told");
    assert_eq!(
        (exception.name.as_str(), exception.message.as_str()),
        ("ValueError", "no such thing")
    );
    let steps: Vec<&str> = exception
        .traceback
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("raise") || line.ends_with("inner()"))
        .collect();
    assert_eq!(
        steps,
        ["inner()", "raise ValueError('no such thing')"],
        "the traceback shows the job's own lines: {}",
        exception.traceback
    );
}

#[test]
fn a_program_that_does_not_exist_is_a_result_that_says_so() {
    let mut space = TestNamespace::shared("programs");
    let _worker = WorkerSpec::of(&space).start();
    let result = space.run(&argv(&["/no/such/program"]));
    assert_eq!(result.outcome, Outcome::Failed, "{result:?}");
    assert_eq!((result.exit_code, result.signal), (None, None));
    let error = result.error.expect("it says why");
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        (
            "not_started",
            "the program \"/no/such/program\" could not be started: No such file or directory (os \
             error 2)"
        )
    );
}

#[test]
fn a_result_says_where_and_how_the_job_ran() {
    let mut space = TestNamespace::shared("programs");
    let worker = WorkerSpec::of(&space).start();
    let result = space.run(&python("1"));
    assert_eq!(
        result.worker.as_ref().map(|w| w.as_str()),
        Some(worker.id())
    );
    assert_eq!(result.image.as_ref().map(|i| i.as_str()), Some("python"));
    assert_eq!(result.runtime.as_deref(), Some("runc"));
    assert!(
        result
            .image_digest
            .is_some_and(|digest| digest.starts_with("sha256:")),
        "the exact image is named"
    );
    assert_eq!(result.attempts, 1);
}
