//! Images of other languages than Python: the contract describes how programs are run, and no code
//! depends on the language.

use sandhog_core::job::Job;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_testkit::jobs::{argv, bash, python};
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::{Value, json};

/// Returns a job with JavaScript source.
pub(crate) fn javascript(code: &str) -> Job {
    Job::code("node".parse().expect("a literal name is valid"), code)
}

/// Runs each program with its input, and checks its value.
fn values(space: &mut TestNamespace, cases: &[(&str, Value, Option<Value>)]) {
    let ids: Vec<_> = cases
        .iter()
        .map(|(code, input, _)| {
            space.submit(&Job {
                input: input.clone(),
                ..javascript(code)
            })
        })
        .collect();
    for ((code, _, want), id) in cases.iter().zip(&ids) {
        let result = space.result(id);
        assert_eq!(result.outcome, Outcome::Succeeded, "{code}: {result:?}");
        assert_eq!(&result.value, want, "{code}");
    }
}

#[test]
fn python_is_on_the_path_by_its_short_name() {
    let mut space = TestNamespace::shared("python-name");
    let _worker = WorkerSpec::of(&space).start();
    let script = "cat > hello.py <<'P'\nprint(\"hello from a file\")\nP\npython hello.py";
    let nested = "import subprocess\nprint(subprocess.run(['python', '-c', 'print(6 * 7)'], \
                  capture_output=True, text=True, check=True).stdout)";
    let shebang = "printf '#!/usr/bin/env python\\nprint(1)\\n' > run && chmod +x run && ./run";
    for (job, stdout) in [
        (bash(script), "hello from a file\n"),
        (python(nested), "42\n\n"),
        (bash(shebang), "1\n"),
        (argv(&["python", "-c", "print('words')"]), "words\n"),
    ] {
        let result = space.run(&job);
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        assert_eq!(result.stdout.lossy(), stdout);
    }
}

/// Programs in the style that people and models write, with declarations of GNU extensions.
#[test]
fn c_and_cpp_are_compiled_as_the_compiler_does_by_itself() {
    let mut space = TestNamespace::shared("c-standard");
    let _worker = WorkerSpec::of(&space).start();
    let of = |language: &str, code: &str| Job {
        language: Some(language.to_owned()),
        ..Job::code("cpp".parse().expect("a literal name is valid"), code)
    };
    let circle = "#include <math.h>\n#include <stdio.h>\nint main(void) {\n    \
                  double radius = 2.0;\n    \
                  printf(\"%.3f\\n\", M_PI * radius * radius);\n    return 0;\n}\n";
    let copied = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
                  int main(void) {\n    char *copy = \
                  strdup(\"a text that is copied\");\n    copy[0] = 'A';\n    \
                  printf(\"%s\\n\", copy);\n    \
                  free(copy);\n}\n";
    let lines = "#include <stdio.h>\n#include <stdlib.h>\n#include <time.h>\n#include <unistd.h>\n\
                 int main(void) {\n    \
                 char *line = NULL; size_t size = 0; struct timespec now;\n    usleep(1);\n    \
                 if (getline(&line, &size, stdin) < 0 || clock_gettime(CLOCK_MONOTONIC, &now)) \
                 return 1;\n    \
                 printf(\"%s\", line);\n    typeof(size) same = size; free(line); return same == 0;\
                 \n}\n";
    let threads = "#include <pthread.h>\n#include <math.h>\n#include <stdio.h>\n\
                   static void *run(void *none) \
                   { puts(\"ran\"); return none; }\nint main(int count, char **words) {\n    \
                   pthread_t one; \
                   pthread_create(&one, NULL, run, NULL); pthread_join(one, NULL);\n    \
                   return sqrt(count) != 1 || !words[0];\n}\n";
    let extended = "#include <cmath>\n#include <cstdio>\n#include <thread>\nint main() {\n    \
                    int size = 3; int \
                    sized[size]; sized[2] = 42;\n    __int128 wide = sized[2]; std::thread([&] { \
                    wide++; \
                    }).join();\n    std::printf(\"%d %.3f\\n\", int(wide), M_PI);\n}\n";
    for (language, code, stdout) in [
        ("c", circle, "12.566\n"),
        ("c", copied, "A text that is copied\n"),
        ("c", lines, "one line\n"),
        ("c", threads, "ran\n"),
        ("cpp", circle, "12.566\n"),
        ("cpp", copied, "A text that is copied\n"),
        ("cpp", extended, "43 3.142\n"),
    ] {
        let result = space.run(&Job {
            stdin: "one line\nanother\n".into(),
            ..of(language, code)
        });
        assert_eq!(result.outcome, Outcome::Succeeded, "{code}: {result:?}");
        assert_eq!(result.stdout.lossy(), stdout, "{code}");
    }
}

#[test]
fn javascript_answers_with_a_value() {
    let mut space = TestNamespace::shared("node-values");
    let _worker = WorkerSpec::of(&space).start();
    let none = Value::Null;
    values(
        &mut space,
        &[
            ("6 * 7", none.clone(), Some(json!(42))),
            (
                "const a = [1, NaN, 2n ** 63n]; a",
                none.clone(),
                Some(json!([1, null, 1_u64 << 63])),
            ),
            ("input_data.n + input.n", json!({"n": 4}), Some(json!(8))),
            (
                "function main(input) { return {twice: input.n * 2} }",
                json!({"n": 4}),
                Some(json!({"twice": 8})),
            ),
            (
                "const main = async () => { await new Promise(done => setTimeout(done, 5)); return \
                 'late' }",
                none.clone(),
                Some(json!("late")),
            ),
            (
                "main(); function main() { return 1 }",
                none.clone(),
                Some(json!(1)),
            ),
            (
                "import {existsSync} from 'node:fs'; export const main = () => existsSync('/work')",
                none.clone(),
                Some(json!(true)),
            ),
            (
                "export default await Promise.resolve(5)",
                none.clone(),
                Some(json!(5)),
            ),
            (
                "require('os').platform()",
                none.clone(),
                Some(json!("linux")),
            ),
            ("new Map()", none.clone(), None),
            ("const own = []; own.push(own); own", none.clone(), None),
            (
                "JSON.stringify = () => '9'; Object.keys = () => []; ({a: 1})",
                none.clone(),
                Some(json!({"a": 1})),
            ),
            ("process.exit(0)", none, None),
        ],
    );
}

#[test]
fn javascript_tells_of_exceptions_and_codes() {
    let mut space = TestNamespace::shared("node-ends");
    let _worker = WorkerSpec::of(&space).start();
    let failed = |space: &mut TestNamespace, code: &str| -> JobResult {
        let result = space.run(&javascript(code));
        assert_eq!(result.outcome, Outcome::Failed, "{code}: {result:?}");
        result
    };
    for (code, name, message) in [
        ("throw new TypeError('bad')", "TypeError", "bad"),
        (
            "(async () => { throw new RangeError('later') })()",
            "RangeError",
            "later",
        ),
        (
            "setTimeout(() => nothing, 1)",
            "ReferenceError",
            "nothing is not defined",
        ),
        ("const = 1", "SyntaxError", "Unexpected token '='"),
        ("throw 5", "Uncaught", "5"),
    ] {
        let result = failed(&mut space, code);
        assert_eq!(result.exit_code, Some(1), "{code}");
        let exception = result.exception.expect("an exception left it");
        assert_eq!(
            (exception.name.as_str(), exception.message.as_str()),
            (name, message)
        );
        assert!(result.stderr.lossy().contains(message), "{code}");
    }
    let left = failed(&mut space, "console.log('out'); process.exit(3)");
    assert_eq!(left.exit_code, Some(3));
    assert_eq!(left.stdout.lossy(), "out\n");

    let arguments = Job {
        args: vec!["a b".to_owned(), "-x".to_owned()],
        ..javascript("process.argv.slice(2)")
    };
    assert_eq!(space.run(&arguments).value, Some(json!(["a b", "-x"])));
    let hungry = space.run(&javascript(
        "const kept = []; for (;;) kept.push(Buffer.alloc(1 << 20, 1))",
    ));
    assert_eq!(hungry.outcome, Outcome::OutOfMemory, "{hungry:?}");
}
