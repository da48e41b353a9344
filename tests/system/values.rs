//! Data on its way into programs and out of them: exact numbers, null, and values that are no plain
//! data.

use sandhog_core::job::Job;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_testkit::jobs::python;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::{Value, json};

use crate::languages::javascript;

fn expecting(job: Job) -> Job {
    Job {
        expect_value: true,
        ..job
    }
}

#[test]
fn null_is_an_answer_and_no_value_is_none() {
    let mut space = TestNamespace::shared("values-null");
    let _worker = WorkerSpec::of(&space).start();
    let find = "def find(items, wanted):\n    return next((n for n, each in enumerate(items) if \
                each == wanted), None)\n\
                def main():\n    return find([1, 2, 3], 9)";
    for job in [
        python(find),
        python("async def main():\n    pass"),
        python("import asyncio\nasync def main():\n    pass\nasyncio.run(main())"),
        python("def main():\n    return None\nif __name__ == '__main__':\n    main()"),
        javascript("function main() { return null }"),
        javascript("async function main() { return null }"),
        javascript("null"),
    ] {
        let id = space.submit(&expecting(job.clone()));
        let raw: Value = serde_json::from_slice(&space.result_bytes(&id)).expect("it is JSON");
        assert_eq!(raw.get("value"), Some(&Value::Null), "{job:?}: {raw}");
        let result = space.result(&id);
        assert_eq!(result.outcome, Outcome::Succeeded, "{job:?}");
        assert_eq!(result.value, Some(Value::Null), "{job:?}");
    }
    for job in [
        python("print('shown')"),
        python("None"),
        python("x = 1"),
        javascript("console.log('shown')"),
        javascript("function main() {}"),
        javascript("undefined"),
    ] {
        let id = space.submit(&expecting(job.clone()));
        let raw: Value = serde_json::from_slice(&space.result_bytes(&id)).expect("it is JSON");
        assert_eq!(raw.get("value"), None, "{job:?}: {raw}");
        let result = space.result(&id);
        assert_eq!(result.outcome, Outcome::Failed, "{job:?}");
        assert_eq!(result.error.expect("it says why").code, "no_value");
        assert_eq!(result.value_dropped, None, "{job:?}");
    }
}

#[test]
fn a_value_that_is_dropped_is_told() {
    let mut space = TestNamespace::shared("values-dropped");
    let _worker = WorkerSpec::of(&space).start();
    for (job, kind, reason) in [
        (
            python("def main():\n    return {1, 2, 3}"),
            "set",
            "plain data",
        ),
        (
            python("import datetime\ndatetime.date(2026, 1, 2)"),
            "datetime.date",
            "plain data",
        ),
        (python("[1, {'a': b'x'}]"), "bytes", "plain data"),
        (python("{1: 2}"), "dict", "a key of type int"),
        (
            python("import math\ndef main():\n    return math.factorial(25)"),
            "int",
            "84 bits",
        ),
        (python("x = []\nx.append(x)\nx"), "list", "nested deeper"),
        (python("'x' * (2 << 20)"), "str", "longer than"),
        (
            python("class Own:\n    def tolist(self): 1 / 0\nOwn()"),
            "Own",
            "ZeroDivisionError",
        ),
        (javascript("new Set([1])"), "Set", "plain data"),
        (
            javascript("function main() { return [new Date(0)] }"),
            "Date",
            "plain data",
        ),
        (javascript("2n ** 70n"), "bigint", "beyond 64 bits"),
        (javascript("() => 1"), "function", "plain data"),
        (
            Job::code(
                "datascience".parse().expect("a literal name is valid"),
                "import numpy\nnumpy.datetime64('2026-01-02')",
            ),
            "numpy.datetime64",
            "plain data",
        ),
    ] {
        let plain: JobResult = space.run(&job);
        assert_eq!(plain.outcome, Outcome::Succeeded, "{job:?}: {plain:?}");
        assert_eq!(plain.value, None, "{job:?}");
        let dropped = plain.value_dropped.expect("it is told");
        assert_eq!(dropped.kind, kind, "{job:?}");
        assert!(dropped.reason.contains(reason), "{job:?}: {dropped}");
        let expected = space.run(&expecting(job));
        let error = expected.error.expect("a value is wanted");
        assert_eq!(error.code, "no_value");
        assert!(error.message.contains(reason), "{}", error.message);
    }
}

#[test]
fn numbers_arrive_as_they_were_sent_or_not_at_all() {
    let mut space = TestNamespace::shared("values-numbers");
    let _worker = WorkerSpec::of(&space).start();
    let echo = "def main():\n    return [str(input_data), input_data]";
    for number in [
        "18446744073709551615",
        "-9223372036854775808",
        "9007199254740993",
        "0.1",
    ] {
        let input: Value = serde_json::from_str(number).expect("a literal number");
        for code in [
            python(echo),
            javascript("function main(input) { return [String(input), input] }"),
        ] {
            let job = Job {
                input: input.clone(),
                ..code
            };
            assert_eq!(
                space.run(&job).value,
                Some(json!([number, input])),
                "{job:?}"
            );
        }
    }
    let kinds = Job {
        input: json!({
            "id": 1_234_567_890_123_456_789_u64, "text": "1234567890123456789",
            "safe": 9_007_199_254_740_991_u64,
        }),
        ..javascript("Object.values(input_data).map((each) => typeof each)")
    };
    assert_eq!(
        space.run(&kinds).value,
        Some(json!(["bigint", "string", "number"]))
    );
    for (payload, number) in [
        (
            r#"{"image":"python","code":"1","input":{"n":1180591620717411303425}}"#,
            "1180591620717411303425",
        ),
        (
            r#"{"image":"python","code":"1","input":[-9223372036854775809]}"#,
            "-9223372036854775809",
        ),
        (
            r#"{"image": "python", "code": "input_data", "input": {"loss": NaN}}"#,
            "NaN",
        ),
        (
            r#"{"image":"python","code":"1","input":[1,-Infinity]}"#,
            "-Infinity",
        ),
        (r#"{"image":"python","code":"1","input":1e999}"#, "1e999"),
    ] {
        let id = space.add(&[("job", payload.as_bytes())]);
        let result = space.result(&id);
        assert_eq!(result.outcome, Outcome::Rejected, "{payload}");
        let error = result.error.expect("it says why");
        assert_eq!(error.code, "bad_payload", "{payload}");
        assert!(error.message.contains(number), "{}", error.message);
    }
}

#[test]
fn what_the_sandbox_lacks_is_told_after_the_traceback() {
    let mut space = TestNamespace::shared("values-hints");
    let _worker = WorkerSpec::of(&space).start();
    let no_network = "note: this sandbox has no network\n";
    let resolve = "import socket\nsocket.getaddrinfo('example.org', 80)";
    let connect = "import socket\ns = socket.socket()\ns.connect(('192.0.2.1', 80))";
    let chained = "import urllib.request\nurllib.request.urlopen('http://example.org')";
    for code in [resolve, connect, chained] {
        let result = space.run(&python(code));
        let exception = result.exception.expect("an exception leaves it");
        let told = result.stderr.lossy();
        assert_eq!(
            told,
            format!("{}{no_network}", exception.traceback),
            "{code}"
        );
    }
    let result = space.run(&python("import tqdm"));
    let exception = result.exception.expect("an exception leaves it");
    assert_eq!(exception.message, "No module named 'tqdm'");
    let told = result.stderr.lossy();
    let note = told
        .strip_prefix(&exception.traceback)
        .expect("it comes after the traceback");
    assert!(
        note.starts_with("note: this image has no module 'tqdm'"),
        "{note}"
    );
    assert_eq!(note.lines().count(), 1);

    for code in [
        "try:\n    import tqdm\nexcept ModuleNotFoundError as error:\n    print(error)",
        "import sys\nsys.excepthook = lambda *_: None\nimport tqdm",
        "open('nothing')",
        "import json.nothing",
    ] {
        let told = space.run(&python(code)).stderr.lossy().into_owned();
        assert!(!told.contains("note:"), "{code}: {told}");
    }
    for (code, note) in [
        ("require('lodash')", "note: this image has no such package"),
        (
            "require('dns').lookup('example.org', (error) => { throw error })",
            no_network,
        ),
        ("import 'lodash'", "note: this image has no such package"),
    ] {
        let told = space.run(&javascript(code)).stderr.lossy().into_owned();
        assert!(told.contains(note), "{code}: {told}");
    }
}
