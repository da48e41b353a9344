//! The exit of a program: a clone of the zygote leaves the same results behind as a separately
//! started interpreter.

use std::collections::BTreeMap;

use sandhog_protocol::frames::{Fetch, ProgramEnd};
use sandhog_worker::sandbox::Run;

use crate::cell_fixture::{CellFixture, RunResult, harness};

/// Programs, each with a description of the work that it leaves to the interpreter's exit.
const PROGRAMS: &[(&str, &str)] = &[
    ("an open file", "f = open('a.txt', 'w'); f.write('x')"),
    (
        "an open binary file",
        "f = open('a.bin', 'wb'); f.write(b'x' * 10)",
    ),
    (
        "a file in a cycle",
        "class R:\n    def __init__(self):\n        self.f = open('a.txt', 'w')\n        \
         self.me = self\nr = R()\nr.f.write('x')",
    ),
    (
        "a class's file",
        "class L: out = open('a.txt', 'w')\nL.out.write('x')",
    ),
    (
        "a default's file",
        "def f(x=open('a.txt', 'w')): x.write('y')\nf()",
    ),
    (
        "a closure's file",
        "def make():\n    f = open('a.txt', 'w')\n    return lambda text: f.write(text)\n\
         w = make()\nw('z')",
    ),
    (
        "a generator's file",
        "def g():\n    with open('a.txt', 'w') as f:\n        while True: f.write((yield))\n\
         g = g()\nnext(g)\ng.send('q')",
    ),
    (
        "a file that a library's cache leads to",
        "import typing\nclass N:\n    f = open('a.txt', 'w')\n    \
         def m(self): return typing.List[N]\nN().m()\nN.f.write('x')",
    ),
    (
        "a file of a library's module",
        "import os\nos.kept = open('a.txt', 'w')\nos.kept.write('x')",
    ),
    (
        "a file of a module of its own",
        "open('helper.py', 'w').write('out = open(\"a.txt\", \"w\")\\n')\nimport helper\n\
         helper.out.write('x')",
    ),
    (
        "a signal handler's file",
        "import signal\nf = open('a.txt', 'w')\nsignal.signal(signal.SIGUSR1, lambda *_: \
         f.write('no'))\nf.write('yes')",
    ),
    (
        "a writer of rows",
        "import csv\nw = csv.writer(open('a.csv', 'w'))\nw.writerow([1, 2])",
    ),
    (
        "a log",
        "import logging\nlogging.basicConfig(filename='a.log')\nlogging.warning('x')",
    ),
    (
        "a shelf",
        "import dbm.dumb, shelve\ns = shelve.Shelf(dbm.dumb.open('db'), writeback=True)\n\
         s['a'] = [1]\ns['a'].append(2)",
    ),
    (
        "a mapped file",
        "import mmap\nf = open('a.bin', 'w+b')\nf.truncate(4)\nm = mmap.mmap(f.fileno(), 4)\n\
         m[0:3] = b'abc'",
    ),
    (
        "a temporary folder",
        "import tempfile\nd = tempfile.TemporaryDirectory(dir='.')\n\
         open(d.name + '/x', 'w').write('1')",
    ),
    ("no line end", "print('x', end='')"),
    (
        "another standard output",
        "import sys\nprint('no line', end='')\nsys.stdout = open('o.txt', 'w')\nprint('there')",
    ),
    (
        "no standard output",
        "import sys\nsys.stdout = None\nprint('x')",
    ),
    (
        "a closed standard output",
        "import sys\nprint('a')\nsys.stdout.close()",
    ),
    (
        "output that cannot be written",
        "import os, sys\nsys.stdout.write('x')\nos.close(1)",
    ),
    (
        "that, and an exit code",
        "import os, sys\nsys.stdout.write('x')\nos.close(1)\nsys.exit(3)",
    ),
    (
        "a full standard error",
        "import os, sys\nos.dup2(os.open('/dev/full', os.O_WRONLY), 2)\nsys.stderr.write('x')\n\
         print('y')",
    ),
    (
        "a standard output that refuses",
        "import sys\nclass S:\n    closed = False\n    def __repr__(self): return 'S'\n    \
         def write(self, text): pass\n    def flush(self): raise ValueError('no')\n\
         sys.stdout = S()",
    ),
    (
        "C's output",
        "import ctypes\nctypes.CDLL(None).printf(b'from c\\n')",
    ),
    (
        "C's file",
        "import ctypes\nc = ctypes.CDLL(None)\nc.fopen.restype = ctypes.c_void_p\n\
         c.fputs.argtypes = ctypes.c_char_p, ctypes.c_void_p\nc.fputs(b'x', c.fopen(b'a.txt', \
         b'w'))",
    ),
    (
        "exit handlers",
        "import atexit\nfor i in range(3): atexit.register(print, i)\nprint('x')",
    ),
    (
        "an exit handler that raises",
        "import atexit\ndef f(): raise ValueError('x')\natexit.register(f)\n\
         atexit.register(print, 'y')",
    ),
    (
        "an exit handler that writes",
        "import atexit\nf = open('a.txt', 'w')\natexit.register(f.write, 'late')",
    ),
    (
        "an exit handler that ends it",
        "import atexit, os\nprint('x', flush=True)\natexit.register(os._exit, 7)",
    ),
    (
        "a thread",
        "import threading, time\nf = open('a.txt', 'w')\nthreading.Thread(target=lambda: \
         (time.sleep(0.1), f.write('late'))).start()",
    ),
    (
        "a thread, then an exit handler",
        "import atexit, threading, time\natexit.register(print, 'exit')\n\
         threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()",
    ),
    (
        "a daemon thread",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), \
         daemon=True).start()\nprint('x')",
    ),
    (
        "a pool's work",
        "import time\nfrom concurrent.futures import ThreadPoolExecutor\n\
         pool = ThreadPoolExecutor(2)\npool.submit(lambda: (time.sleep(0.1), print('done')))",
    ),
    (
        "a process",
        "import multiprocessing, time\ndef f():\n    time.sleep(0.1)\n    print('child')\n\
         multiprocessing.Process(target=f).start()",
    ),
    (
        "a forked child",
        "import os, sys\nf = open('a.txt', 'a')\nif os.fork() == 0:\n    f.write('child')\n    \
         print('c')\n    sys.exit(0)\nos.wait()\nf.write('parent')\nprint('p')",
    ),
    (
        "a finalizer",
        "class A:\n    def __del__(self): print('del')\na = A()",
    ),
    (
        "a finalizer in a cycle",
        "class A:\n    def __del__(self): print('del')\na = A()\na.me = a",
    ),
    (
        "a finalizer that uses a global",
        "import json\nclass A:\n    def __del__(self): print(json.dumps([1]))\na = A()",
    ),
    (
        "finalizers in order",
        "class A:\n    def __init__(self, n): self.n = n\n    def __del__(self): print(self.n)\n\
         a, b, _c = A(1), A(2), A(3)",
    ),
    (
        "a weak reference's finalizer",
        "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'fin')",
    ),
    ("exit code True", "import sys\nsys.exit(True)"),
    ("exit code 256", "import sys\nsys.exit(256)"),
    ("exit code -1", "import sys\nsys.exit(-1)"),
    ("an exit code of 71 bits", "import sys\nsys.exit(2 ** 70)"),
    ("an exit code that is a float", "import sys\nsys.exit(1.5)"),
    ("an exit code that is a tuple", "raise SystemExit(1, 2)"),
    (
        "an exit code without text",
        "import sys\nclass O:\n    def __str__(self): raise ValueError\nsys.exit(O())",
    ),
    (
        "an exit code and no standard error",
        "import sys\nsys.stderr = None\nsys.exit('message')",
    ),
    (
        "an exit while an exception is handled",
        "import sys\ntry:\n    1 / 0\nexcept Exception:\n    sys.exit(3)",
    ),
    (
        "an exception, and files in its frames",
        "f = open('a.txt', 'w')\nf.write('x')\ndef g():\n    h = open('b.txt', 'w')\n    \
         h.write('y')\n    raise ValueError('z')\ng()",
    ),
    (
        "a hook for exceptions",
        "import sys\nsys.excepthook = lambda *_: print('hook')\n1 / 0",
    ),
];

/// Everything that a program leaves behind.
#[derive(Debug, PartialEq)]
struct Left {
    end: ProgramEnd,
    stdout: String,
    stderr: String,
    files: BTreeMap<String, Vec<u8>>,
}

/// Runs a program and fetches all of its files.
async fn run(cells: &mut CellFixture, source: &str, env: &[(&str, &str)]) -> (bool, Left) {
    let run = Run {
        displays: cells.displays,
        env: env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        fetch: Fetch {
            patterns: vec!["**".to_owned()],
            files: 64,
            bytes: 1 << 20,
            changed_only: true,
        },
        ..Run::new(harness(source, &[], "null"), cells.caps)
    };
    let ran: RunResult = cells.run_until(run, |_so_far| false).await;
    let files = ran.report.files.iter();
    let left = Left {
        end: ran.report.end,
        stdout: ran.stdout_text(),
        stderr: without_addresses(&ran.stderr_text()),
        files: files
            .map(|file| (file.path.clone(), file.data.clone()))
            .collect(),
    };
    (ran.report.warm, left)
}

/// Returns the text without the addresses of objects, which differ between interpreters.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split(" at 0x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |told, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
        format!("{told} at an address{rest}")
    })
}

#[tokio::test]
async fn a_clone_leaves_what_a_started_interpreter_leaves() {
    let mut cells = CellFixture::new("exits").await;
    for &(case, source) in PROGRAMS {
        let (is_warm, warm) = run(&mut cells, source, &[]).await;
        assert!(is_warm, "{case}");
        // This variable does not change the program, but an interpreter reads it only at its start,
        // so no clone is used.
        let (is_warm, cold) = run(&mut cells, source, &[("PYTHONHASHSEED", "random")]).await;
        assert!(!is_warm, "{case}");
        assert_eq!(warm, cold, "{case}: a clone, then a started program");
    }
    cells.assert_no_trace("exits").await;
    cells.end().await;
}

#[tokio::test]
async fn what_files_hold_is_written_at_the_end() {
    let mut cells = CellFixture::new("unclosed").await;
    let report = "class Report:\n    def __init__(self, path):\n        \
                  self.file = open(path, 'w')\n        self.add = self.row\n    \
                  def row(self, *cells):\n        self.file.write(','.join(cells) + '\\n')\n\
                  report = Report('report.csv')\nreport.add('name', 'score')\n\
                  report.add('a', '1')\n";
    let streams = "import sys\nclass Log:\n    out = open('log.txt', 'w')\n\
                   Log.out.write('kept\\n')\n\
                   print('no line break', end='')\nsys.stdout = open('stdout.txt', 'w')\n\
                   print('there')\n";
    for env in [&[][..], &[("PYTHONHASHSEED", "random")]] {
        let (_, left) = run(&mut cells, report, env).await;
        let rows = b"name,score\na,1\n".to_vec();
        assert_eq!(left.files, [("report.csv".to_owned(), rows)].into());
        let (_, left) = run(&mut cells, streams, env).await;
        let files = [("log.txt", "kept\n"), ("stdout.txt", "there\n")];
        let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
        assert_eq!(left.files, files.into());
        assert_eq!(left.stdout, "no line break");
    }
    cells.end().await;
}
