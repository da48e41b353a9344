//! Files in and out, and programs that are compiled in a separate cell.

use std::collections::BTreeMap;

use sandhog_core::blob::Blob;
use sandhog_core::job::Job;
use sandhog_core::limits::LimitOverrides;
use sandhog_core::outcome::{JobResult, Outcome, Stage};
use sandhog_core::units::{ByteCount, Millis};
use sandhog_testkit::jobs::{argv, bash, python};
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;

fn files(named: &[(&str, &str)]) -> BTreeMap<String, Blob> {
    named
        .iter()
        .map(|(name, text)| ((*name).to_owned(), Blob::from(*text)))
        .collect()
}

fn cpp(code: &str) -> Job {
    Job::code("cpp".parse().expect("a literal name is valid"), code)
}

#[test]
fn files_go_in_and_come_out() {
    let mut space = TestNamespace::shared("files");
    let _worker = WorkerSpec::of(&space).start();
    let job = Job {
        files: files(&[
            ("data/in.txt", "abc"),
            ("lib.py", "def twice(s): return s * 2"),
        ]),
        fetch: vec!["out/**".to_owned(), "*.bin".to_owned()],
        ..python(
            "import lib, os\nos.mkdir('out')\n\
             open('out/a.txt', 'w').write(lib.twice(open('data/in.txt').read()))\n\
             open('raw.bin', 'wb').write(bytes([255, 0]))\nopen('kept', 'w')",
        )
    };
    let result = space.run(&job);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    let mut want = files(&[("out/a.txt", "abcabc")]);
    want.insert("raw.bin".to_owned(), Blob(vec![255, 0]));
    assert_eq!(result.files, want);
    assert!(result.not_fetched.is_empty());

    let script = Job {
        files: files(&[("bin/greet", "#!/bin/bash\necho hello \"$1\"\n")]),
        args: vec!["you".to_owned()],
        ..argv(&["bin/greet"])
    };
    assert_eq!(space.run(&script).stdout.lossy(), "hello you\n");

    let failed = Job {
        fetch: vec!["*".to_owned()],
        ..bash("echo partial >log; exit 3")
    };
    let failed = space.run(&failed);
    assert_eq!(
        failed.files,
        files(&[("log", "partial\n")]),
        "the source is nothing that it made"
    );
    let late = Job {
        fetch: vec!["log".to_owned()],
        limits: LimitOverrides {
            timeout_ms: Some(Millis(300)),
            ..LimitOverrides::default()
        },
        ..bash("echo before >log; sleep 60")
    };
    let late = space.run(&late);
    assert_eq!(late.outcome, Outcome::TimedOut);
    assert_eq!(late.files, files(&[("log", "before\n")]));
    let next = space.run(&bash("ls -A"));
    assert_eq!(next.stdout.lossy(), "main.sh\n", "nothing of the others");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let mut space = TestNamespace::shared("files-names");
    let _worker = WorkerSpec::of(&space).start();
    for name in [
        "../up",
        "/etc/passwd",
        "a/../../b",
        "",
        "a\0b",
        "./a",
        "a//b",
    ] {
        let job = Job {
            files: files(&[(name, "x")]),
            ..python("1")
        };
        let result = space.run(&job);
        assert_eq!(result.outcome, Outcome::Rejected, "{name:?}");
        assert_eq!(
            result.error.expect("it says why").code,
            "bad_job",
            "{name:?}"
        );
    }
    for pattern in ["../*", "/etc/*", ""] {
        let job = Job {
            fetch: vec![pattern.to_owned()],
            ..python("1")
        };
        assert_eq!(space.run(&job).outcome, Outcome::Rejected, "{pattern:?}");
    }
    let taken = Job {
        files: files(&[("main.sh", "x")]),
        ..bash("true")
    };
    assert_eq!(
        space.run(&taken).outcome,
        Outcome::Rejected,
        "its own source"
    );
    let full = Job {
        files: files(&[("large", &"x".repeat(200_000))]),
        limits: LimitOverrides {
            scratch: Some(ByteCount::kib(64)),
            ..LimitOverrides::default()
        },
        ..python("1")
    };
    assert_eq!(space.run(&full).outcome, Outcome::ScratchLimit);
}

#[test]
fn cpp_is_compiled_in_a_cell_of_its_own() {
    let mut space = TestNamespace::shared("cpp");
    let _worker = WorkerSpec::of(&space).start();
    let hello = Job {
        files: files(&[("answer.h", "constexpr int answer = 42;\n"), ("data", "in")]),
        args: vec!["a b".to_owned()],
        stdin: Blob::from("7"),
        env: [("NAME".to_owned(), "you".to_owned())].into(),
        fetch: vec!["*".to_owned()],
        ..cpp(
            "#include \"answer.h\"\n#include <cstdlib>\n#include <fstream>\n#include <iostream>\n\
             int main(int, char **argv) { int n; std::cin >> n; std::ofstream(\"out\") << n * \
             answer;\n\
             std::cout << argv[1] << ' ' << std::getenv(\"NAME\") << std::endl; return 3; }\n",
        )
    };
    let result = space.run(&hello);
    assert_eq!(result.stage, Some(Stage::Run), "{result:?}");
    assert_eq!(
        (result.outcome, result.exit_code),
        (Outcome::Failed, Some(3))
    );
    assert_eq!(result.stdout.lossy(), "a b you\n");
    assert_eq!(result.files.get("out"), Some(&Blob::from("294")));
    assert!(
        !result.files.contains_key("main.cpp"),
        "it stays in the compiler's cell"
    );

    let refused = |space: &mut TestNamespace, job: &Job| -> JobResult {
        let result = space.run(job);
        assert_eq!(result.stage, Some(Stage::Compile), "{result:?}");
        result
    };
    let wrong = refused(&mut space, &cpp("int main() { return nothing; }"));
    assert_eq!((wrong.outcome, wrong.exit_code), (Outcome::Failed, Some(1)));
    assert!(
        wrong.stderr.lossy().contains("main.cpp:1:21: error: "),
        "{}",
        wrong.stderr.lossy()
    );
    // The program needs more than its scratch space can hold: the compiler's caps stop it, not the
    // job's.
    let bomb = "char large[1 << 30] = {1}; int main() { return large[5]; }";
    let bomb = refused(&mut space, &cpp(bomb));
    assert_ne!(bomb.outcome, Outcome::Succeeded, "{bomb:?}");

    // The program has its own caps, which are small.
    let tight = LimitOverrides {
        memory: Some(ByteCount::mib(16)),
        timeout_ms: Some(Millis(300)),
        ..LimitOverrides::default()
    };
    let small = Job {
        limits: tight,
        ..cpp("#include <cstdio>\nint main() { for (;;) std::fputs(\"\", stdout); }")
    };
    let small = space.run(&small);
    assert_eq!(
        (small.outcome, small.stage),
        (Outcome::TimedOut, Some(Stage::Run))
    );
    let c = Job {
        language: Some("c".to_owned()),
        ..cpp(
            "#include <math.h>\n#include <stdio.h>\nint main(void) { printf(\"%g\\n\", cbrt(27)); \
             }",
        )
    };
    assert_eq!(space.run(&c).stdout.lossy(), "3\n");
}
