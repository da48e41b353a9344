//! The source of a program is a file in its working directory, under the name that the job gives
//! it.

use std::fmt::Write as _;

use sandhog_core::blob::Blob;
use sandhog_core::job::Job;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_testkit::jobs::{bash, python};
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::json;

use crate::languages::javascript;

fn named(job: Job, file: &str) -> Job {
    Job {
        file: Some(file.to_owned()),
        ..job
    }
}

/// Runs a program that must succeed.
fn run(space: &mut TestNamespace, job: &Job) -> JobResult {
    let result = space.run(job);
    assert_eq!(result.outcome, Outcome::Succeeded, "{job:?}: {result:?}");
    result
}

#[test]
fn python_finds_its_own_file() {
    let mut space = TestNamespace::shared("source-python");
    let _worker = WorkerSpec::of(&space).start();
    let square = "import multiprocessing\ndef square(n): return n * n\n\
                  if __name__ == '__main__':\n    \
                  multiprocessing.set_start_method('METHOD')\n    with multiprocessing.Pool(2) as \
                  pool:\n        \
                  print(pool.map(square, [1, 2, 3]))";
    for method in ["spawn", "forkserver", "fork"] {
        let result = run(&mut space, &python(&square.replace("METHOD", method)));
        assert_eq!(result.stdout.lossy(), "[1, 4, 9]\n", "{method}");
    }
    let again = "import subprocess, sys\nif sys.argv[1:]:\n    print('again', __name__, sys.argv)\n\
                 else:\n    \
                 subprocess.run([sys.executable, __file__, 'x'], check=True)";
    let result = run(&mut space, &python(again));
    assert_eq!(
        result.stdout.lossy(),
        "again __main__ ['/work/main.py', 'x']\n"
    );
    let places = "import inspect, linecache, os, sys\ndef f(): return 1\nos.chdir('/tmp')\n\
                  [__file__, sys.argv[0], inspect.getsource(f), \
                  linecache.getline(f.__code__.co_filename, 2), open(__file__).read(6)]";
    let result = run(&mut space, &named(python(places), "über uns.py"));
    let line = "def f(): return 1\n";
    assert_eq!(
        result.value,
        Some(json!([
            "/work/über uns.py",
            "über uns.py",
            line,
            line,
            "import"
        ]))
    );
    // A spawned process imports the program as a module and does not call its `main`.
    let spawned = "import multiprocessing as m\ndef f(): print('child', __name__, flush=True)\n\
                   def main():\n    print('main', flush=True)\n    \
                   child = m.get_context('spawn').Process(target=f)\n    child.start()\n    \
                   child.join()\n    return child.exitcode";
    let result = run(&mut space, &python(spawned));
    assert_eq!(result.stdout.lossy(), "main\nchild __mp_main__\n");
    assert_eq!(result.value, Some(json!(0)));
    let result = run(
        &mut space,
        &named(python("import json\njson.dumps([1])"), "traceback.py"),
    );
    assert_eq!(result.value, Some(json!("[1]")));
}

#[test]
fn tracebacks_have_the_name_that_the_job_has_for_its_file() {
    let mut space = TestNamespace::shared("source-names");
    let _worker = WorkerSpec::of(&space).start();
    for (job, file, line) in [
        (python("1 / 0"), "solve.py", "File \"solve.py\", line 1"),
        (
            python("1 / 0"),
            "traceback.py",
            "File \"traceback.py\", line 1",
        ),
        (python("x = ("), "solve.py", "File \"solve.py\", line 1"),
        (javascript("nothing()"), "solve.js", "solve.js:1"),
        (bash("nothing"), "solve.sh", "solve.sh: line 1"),
    ] {
        let result = space.run(&named(job, file));
        assert_eq!(result.outcome, Outcome::Failed, "{result:?}");
        let told = result.stderr.lossy();
        assert!(told.contains(line), "{file}: {told}");
    }
    let cpp = Job::code("cpp".parse().expect("a literal name is valid"), "nothing");
    let told = space
        .run(&named(cpp, "solve.cpp"))
        .stderr
        .lossy()
        .into_owned();
    assert!(told.contains("solve.cpp:1:1: error"), "{told}");
    for file in ["a/b.py", "-c", "..", ""] {
        let result = space.run(&named(python("1"), file));
        let error = result.error.expect("it is rejected");
        assert_eq!(error.code, "bad_job", "{file:?}");
        assert!(
            error.message.contains("want a plain name"),
            "{}",
            error.message
        );
    }
}

#[test]
fn node_finds_its_own_file() {
    let mut space = TestNamespace::shared("source-node");
    let _worker = WorkerSpec::of(&space).start();
    let thread = "const { Worker, isMainThread, parentPort, workerData } = \
                  require('worker_threads');\n\
                  if (isMainThread) {\n  const worker = new Worker(__filename, { workerData: [3, \
                  4, 5] });\n  \
                  worker.on('message', (sum) => console.log('sum', sum));\n} else {\n  \
                  parentPort.postMessage(workerData.reduce((a, b) => a + b, 0));\n}";
    assert_eq!(
        run(&mut space, &javascript(thread)).stdout.lossy(),
        "sum 12\n"
    );
    let cluster = "const cluster = require('cluster');\nif (cluster.isPrimary) {\n  \
                   cluster.fork();\n  \
                   cluster.on('exit', (_worker, code) => console.log('code', code));\n} else {\n  \
                   console.log('in the worker');\n  process.exit(0);\n}";
    assert_eq!(
        run(&mut space, &javascript(cluster)).stdout.lossy(),
        "in the worker\ncode 0\n"
    );
    let fork = "const { fork } = require('child_process');\n\
                if (process.send) process.send(process.argv[2]);\n\
                else fork(__filename, ['hello']).on('message', (text) => console.log(text));";
    assert_eq!(run(&mut space, &javascript(fork)).stdout.lossy(), "hello\n");
    let places = "[__filename, process.argv[1], require.main === module, \
                  require('fs').readFileSync(__filename, 'utf8').length]";
    let result = run(&mut space, &named(javascript(places), "solve.js"));
    let file = "/work/solve.js";
    assert_eq!(result.value, Some(json!([file, file, true, places.len()])));
    let module = "import { readFileSync } from 'node:fs';\nexport default [import.meta.url, \
                  readFileSync(new URL(import.meta.url)).length];";
    let result = run(&mut space, &named(javascript(module), "solve.js"));
    assert_eq!(
        result.value,
        Some(json!(["file:///work/solve.mjs", module.len()]))
    );
}

#[test]
fn what_the_program_left_alone_is_not_fetched() {
    let mut space = TestNamespace::shared("source-fetch");
    let _worker = WorkerSpec::of(&space).start();
    let inputs = [("in.csv", "a"), ("edited.csv", "b"), ("data/deep.csv", "c")];
    let inputs = inputs.map(|(name, text)| (name.to_owned(), Blob::from(text)));
    let job = |job: Job, patterns: &[&str]| Job {
        files: inputs.clone().into(),
        fetch: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
        ..job
    };
    let code = "open('edited.csv', 'a').write('+')\nopen('out.csv', 'w').write('d')";
    let fetched = |space: &mut TestNamespace, job: &Job| -> Vec<String> {
        run(space, job).files.into_keys().collect()
    };
    let outputs = ["edited.csv", "out.csv"];
    assert_eq!(fetched(&mut space, &job(python(code), &["**"])), outputs);
    assert_eq!(fetched(&mut space, &job(python(code), &["*.csv"])), outputs);
    // A pattern that is the complete name of a file returns it even if it is unchanged.
    let named = job(python(code), &["in.csv", "main.py", "data/deep.csv"]);
    let all = ["data/deep.csv", "in.csv", "main.py"];
    assert_eq!(fetched(&mut space, &named), all);
    let javascript = javascript("require('fs').writeFileSync('out.csv', 'd')");
    assert_eq!(fetched(&mut space, &job(javascript, &["**"])), ["out.csv"]);
    let shell = bash("echo d >out.csv; echo '# more' >>main.sh");
    let changed = ["main.sh", "out.csv"];
    assert_eq!(fetched(&mut space, &job(shell, &["**"])), changed);
    // A clone of the zygote, which runs jobs without files.
    let alone = Job {
        fetch: vec!["*".to_owned()],
        ..python("open('a', 'w').write('b')")
    };
    assert_eq!(fetched(&mut space, &alone), ["a"]);
}

#[test]
fn a_file_that_the_job_brings_under_the_sources_name_stays() {
    let mut space = TestNamespace::shared("source-taken");
    let _worker = WorkerSpec::of(&space).start();
    let files = [("main.py".to_owned(), Blob::from("x = 8"))];
    let job = Job {
        files: files.into(),
        ..python("import main\nmain.x")
    };
    assert_eq!(run(&mut space, &job).value, Some(json!(8)));
    let refused = space.run(&named(job, "main.py"));
    let error = refused.error.expect("it is rejected");
    assert_eq!(error.code, "bad_job");
    // If there is no room for the source file, the program runs without it.
    let mut long = python(&format!("print('ran')\n# {}", "x".repeat(200_000)));
    long.limits.scratch = Some(sandhog_core::units::ByteCount::kib(64));
    assert_eq!(run(&mut space, &long).stdout.lossy(), "ran\n");
}

#[test]
fn what_python_compiles_is_compiled() {
    let mut space = TestNamespace::shared("source-deep");
    let _worker = WorkerSpec::of(&space).start();
    for count in [1200, 2900] {
        let mut chain = "def name(code):\n    if code == 0:\n        return 'zero'\n".to_owned();
        for code in 1..count {
            write!(
                chain,
                "    elif code == {code}:\n        return 'code {code}'\n"
            )
            .expect("a string takes all");
        }
        chain.push_str("name(1100)");
        let result = run(&mut space, &python(&chain));
        assert_eq!(result.value, Some(json!("code 1100")), "{count} branches");
    }
    let texts: Vec<_> = (0..1500).map(|n| format!("'line {n}\\n'")).collect();
    let sum = format!("text = (\n    {}\n)\nlen(text)", texts.join(" +\n    "));
    assert_eq!(run(&mut space, &python(&sum)).value, Some(json!(13_890)));
    let last = format!("len({})", texts.join(" + "));
    assert_eq!(run(&mut space, &python(&last)).value, Some(json!(13_890)));
    let nested = format!("def main():\n    return {}\n", ["1"; 1500].join(" + "));
    assert_eq!(run(&mut space, &python(&nested)).value, Some(json!(1500)));
}
