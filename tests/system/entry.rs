//! The `main` of a program is called once: by the harness, unless the program has called it itself.

use sandhog_core::blob::Blob;
use sandhog_core::job::Job;
use sandhog_core::outcome::Outcome;
use sandhog_testkit::jobs::python;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::{Value, json};

use crate::languages::javascript;

/// A program with its expected output and value.
struct Case {
    name: &'static str,
    code: &'static str,
    stdout: &'static str,
    value: Option<Value>,
}

const fn case(name: &'static str, code: &'static str, stdout: &'static str) -> Case {
    Case {
        name,
        code,
        stdout,
        value: None,
    }
}

fn answering(name: &'static str, code: &'static str, value: Value) -> Case {
    Case {
        value: Some(value),
        ..case(name, code, "ran\n")
    }
}

/// Runs each program with two lines on standard input.
fn check(space: &mut TestNamespace, cases: Vec<Case>, job: impl Fn(&str) -> Job) {
    let ids: Vec<_> = cases
        .iter()
        .map(|case| {
            space.submit(&Job {
                stdin: Blob::from("2 3\n4\n"),
                ..job(case.code)
            })
        })
        .collect();
    for (case, id) in cases.iter().zip(&ids) {
        let result = space.result(id);
        assert_eq!(
            result.outcome,
            Outcome::Succeeded,
            "{}: {result:?}",
            case.name
        );
        assert_eq!(result.stdout.lossy(), case.stdout, "{}", case.name);
        assert_eq!(result.value, case.value, "{}", case.name);
    }
}

#[test]
fn python_calls_main_once() {
    let cases = vec![
        case(
            "a thread with a deep stack",
            "import sys, threading\ndef depth(n): return n and 1 + depth(n - 1)\n\
             def main():\n    a, b = map(int, input().split())\n    print(depth(a * b))\n\
             sys.setrecursionlimit(1 << 20)\nthreading.stack_size(64 << 20)\n\
             worker = threading.Thread(target=main)\nworker.start()\nworker.join()",
            "6\n",
        ),
        case(
            "a pool of threads",
            "from concurrent.futures import ThreadPoolExecutor\n\
             def main(who='nobody'):\n    print('main for', who)\n    return 7\n\
             if __name__ == '__main__':\n    with ThreadPoolExecutor(1) as pool:\n        \
             answer = pool.submit(main, 'the pool').result()\n    print(answer)",
            "main for the pool\n7\n",
        ),
        case(
            "a thread that comes to it later",
            "import threading, time\ndef main(): print('ran')\ndef later():\n    \
             time.sleep(0.2)\n    main()\n\
             threading.Thread(target=later).start()",
            "ran\n",
        ),
        case(
            "a timer",
            "import threading\ndef main(): print('ran')\nthreading.Timer(0.1, main).start()",
            "ran\n",
        ),
        case(
            "a pool without a wait for its end",
            "import time\nfrom concurrent.futures import ThreadPoolExecutor\n\
             def main(): print('ran')\n\
             pool = ThreadPoolExecutor(1)\npool.submit(time.sleep, 0.1)\n\
             pool.submit(lambda: main())",
            "ran\n",
        ),
        case(
            "a process",
            "import multiprocessing\ndef main(): print('ran')\nif __name__ == '__main__':\n    \
             multiprocessing.Process(target=main).start()",
            "ran\n",
        ),
        case(
            "a pool of processes",
            "from concurrent.futures import ProcessPoolExecutor\ndef main():\n    \
             print('ran', flush=True)\n    return 3\n\
             if __name__ == '__main__':\n    with ProcessPoolExecutor(1) as pool:\n        \
             print(pool.submit(main).result())",
            "ran\n3\n",
        ),
        case(
            "a pool of spawned processes",
            "import multiprocessing as m\ndef main(n):\n    print('ran', flush=True)\n    \
             return n\n\
             if __name__ == '__main__':\n    with m.get_context('spawn').Pool(1) as pool: \
             print(pool.map(main, [4]))",
            "ran\n[4]\n",
        ),
        case(
            "a forked child",
            "import os\ndef main(): print('ran', flush=True)\nif os.fork() == 0:\n    main()\n    \
             os._exit(0)\nx = os.wait()",
            "ran\n",
        ),
        answering(
            "an event loop",
            "import asyncio\nasync def main():\n    print('ran')\n    return 5\n\
             asyncio.run(main())",
            json!(5),
        ),
        case(
            "a task among others",
            "import asyncio\nasync def main(): print('ran')\n\
             async def top(): await asyncio.gather(main())\nasyncio.run(top())",
            "ran\n",
        ),
        case(
            "at exit",
            "import atexit\n@atexit.register\ndef main(): print('ran')",
            "ran\n",
        ),
        case(
            "as an exit code",
            "import sys\ndef main():\n    print('ran')\n    return 0\nsys.exit(main())",
            "ran\n",
        ),
        case(
            "by another name",
            "def solve():\n    print('ran')\n    return 6\nmain = solve\nx = solve()",
            "ran\n",
        ),
        case(
            "a lambda",
            "main = lambda: print('ran')\nx = [main()]",
            "ran\n",
        ),
        case(
            "a decorated one",
            "import functools\ndef twice(f):\n    @functools.wraps(f)\n    \
             def g(): return 2 * f()\n    return g\n\
             @twice\ndef main():\n    print('ran')\n    return 4\nx = main()",
            "ran\n",
        ),
        case(
            "from a table",
            "def main(): print('ran')\nfor f in {'main': main}.values(): f()",
            "ran\n",
        ),
        case(
            "by its name in a string",
            "def main(): print('ran')\nx = eval('main()')",
            "ran\n",
        ),
        case(
            "one that code made",
            "exec(\"def main(): print('ran')\")\nx = main()",
            "ran\n",
        ),
        answering(
            "not at all",
            "def main():\n    print('ran')\n    return 1",
            json!(1),
        ),
        answering(
            "in words alone",
            "# main()\n'''main()'''\ndef main():\n    'main()'\n    print('ran')\n    return 1",
            json!(1),
        ),
        answering(
            "not at all, but one that code made",
            "exec(\"def main():\\n  print('ran')\\n  return 9\")",
            json!(9),
        ),
        answering(
            "by itself",
            "def main(n=3):\n    if n: return main(n - 1)\n    print('ran')\n    return n",
            json!(0),
        ),
        answering(
            "by a thread's food",
            "import queue, threading\nq = queue.Queue()\ndef work():\n    while q.get(): pass\n\
             t = threading.Thread(target=work)\nt.start()\nTABLE = {'main': lambda: main()}\n\
             def main():\n    print('ran')\n    q.put(0)\n    t.join()\n    return 3",
            json!(3),
        ),
        answering(
            "under the guard",
            "def main():\n    print('ran')\nif __name__ == '__main__':\n    main()",
            Value::Null,
        ),
    ];
    let mut space = TestNamespace::shared("entry-python");
    let _worker = WorkerSpec::of(&space).start();
    check(&mut space, cases, python);
}

#[test]
fn a_function_that_is_watched_is_the_programs_own() {
    let code = "import inspect, pickle, sys\nlines = []\n\
def main(a=1):
    'doc'
    x = a
    return x
def trace(frame, event, _):
    if frame.f_code is main.__code__: lines.append((event, frame.f_lineno))
    return trace
sys.settrace(trace)
main()
sys.settrace(None)
[main.__name__, main.__doc__, str(inspect.signature(main)), inspect.getsource(main), pickle.loads(pickle.dumps(main)) is main,
 main.__code__.co_varnames, main.__code__.co_firstlineno, lines, sorted(n for n in dir() if 'sandhog' in n)]";
    let mut space = TestNamespace::shared("entry-watched");
    let _worker = WorkerSpec::of(&space).start();
    let source = "def main(a=1):\n    'doc'\n    x = a\n    return x\n";
    let lines = json!([["call", 3], ["line", 5], ["line", 6], ["return", 6]]);
    assert_eq!(
        space.run(&python(code)).value,
        Some(json!([
            "main",
            "doc",
            "(a=1)",
            source,
            true,
            ["a", "x"],
            3,
            lines,
            []
        ]))
    );
}

#[test]
fn node_calls_main_once() {
    let cases = vec![
        case(
            "a callback of standard input",
            "let text = '';\nprocess.stdin.on('data', (piece) => { text += piece });\n\
             process.stdin.on('end', () => main());\n\
             function main() {\n  const [a, b] = text.split('\\n')[0].split(' ').map(Number);\n  \
             console.log(a * b);\n}\nvoid 0",
            "6\n",
        ),
        case(
            "a line reader",
            "const lines = [];\nconst reader = require('readline').createInterface({ input: \
             process.stdin });\n\
             reader.on('line', (line) => lines.push(line)).on('close', main);\n\
             function main() { console.log(lines.length) }\nvoid 0",
            "2\n",
        ),
        case(
            "an assignment",
            "function main() {\n  console.log('ran');\n}\nconst answer = main();\n\
             console.log(answer);",
            "ran\nundefined\n",
        ),
        case(
            "an async function that waits for it",
            "async function main() { console.log('ran'); return 3 }\n\
             (async () => { console.log(await main()) })();",
            "ran\n3\n",
        ),
        case(
            "a timer",
            "const main = () => { console.log('ran') };\nsetTimeout(main, 20); void 0",
            "ran\n",
        ),
        case(
            "a promise",
            "Promise.resolve().then(() => main()).then(() => {});\n\
             function main() { console.log('ran') }\nvoid 0",
            "ran\n",
        ),
        case(
            "from a list",
            "const main = () => { console.log('ran') };\n[main].forEach((f) => f())",
            "ran\n",
        ),
        case(
            "by another name",
            "const solve = () => { console.log('ran') };\nconst main = solve;\nsolve()",
            "ran\n",
        ),
        answering(
            "by the module's guard",
            "function main() { console.log('ran'); return 2 }\nif (require.main === module) main()",
            json!(2),
        ),
        case(
            "a module's later call",
            "import 'fs';\nexport const main = async () => { console.log('ran'); return 4 };\n\
             setTimeout(main, 20)",
            "ran\n",
        ),
        case(
            "a thread",
            "const { Worker, isMainThread } = require('worker_threads');\n\
             function main() { console.log('ran') }\n\
             if (isMainThread) new Worker(__filename); else main();\nvoid 0",
            "ran\n",
        ),
        case(
            "a worker of a cluster",
            "const cluster = require('cluster');\nfunction main() { console.log('ran'); \
             process.exit(0) }\n\
             if (cluster.isPrimary) cluster.fork(); else main();\nvoid 0",
            "ran\n",
        ),
        answering(
            "not at all",
            "function main() { console.log('ran'); return 1 }",
            json!(1),
        ),
        answering(
            "in words alone",
            "// main()\n/* main() */\nconst text = 'main()';\n\
             function main() { console.log('ran'); return 7 }",
            json!(7),
        ),
        answering(
            "exported",
            "function main() { console.log('ran'); return 1 }\nmodule.exports = { main }",
            json!(1),
        ),
        answering(
            "a module's",
            "import 'fs';\nexport function main() { console.log('ran'); return 4 }",
            json!(4),
        ),
        answering(
            "beside a timer that it ends",
            "const timer = setInterval(() => {}, 5);\nconst main = () => { console.log('ran'); \
             clearInterval(timer); return 5 }",
            json!(5),
        ),
    ];
    let mut space = TestNamespace::shared("entry-node");
    let _worker = WorkerSpec::of(&space).start();
    check(&mut space, cases, javascript);
}
