//! The Python harness: the value of a program, the report of its exceptions, and attempts of a
//! program to deceive the harness, which only affect its own result.

use sandhog_protocol::frames::{MAX_HARNESS_ANSWER, ProgramEnd};

use crate::cell_fixture::{CellFixture, RunResult};

fn ends_well(ran: &RunResult, case: &str) {
    assert_eq!(ran.report.end, ProgramEnd::Exited(0), "{case}: {ran:?}");
    assert!(ran.report.answer.exception.is_none(), "{case}: {ran:?}");
}

#[tokio::test]
async fn the_value_is_what_main_returns_or_the_last_expression() {
    let mut cells = CellFixture::new("value").await;
    let cases = [
        ("1 + 1", Some("2")),
        ("x = 5\nx * 2\n# the end", Some("10")),
        ("x = 5", None),
        ("print('hello')", None),
        ("None", None),
        ("", None),
        ("def main():\n    return [1, 2]", Some("[1,2]")),
        ("def main():\n    return 1\n2", Some("1")),
        ("def main():\n    pass\n2", Some("null")),
        (
            "async def main():\n    return 'awaited'",
            Some("\"awaited\""),
        ),
        ("main = lambda: 3", Some("3")),
        (
            "def main():\n    print('once')\n    return 4\nif __name__ == '__main__':\n    main()",
            Some("4"),
        ),
        ("def main():\n    return 4\nmain() + 1", Some("5")),
        ("import sys\ndef main():\n    return 4\nx = main()", None),
        ("from os.path import join as main\n7", Some("7")),
        ("main = 5\n6", Some("6")),
        ("input_data['a'][1]", Some("\"é\"")),
        (
            "import sys\nsys.argv",
            Some("[\"main.py\",\"one\",\"two words\"]"),
        ),
        (
            "__name__, __file__",
            Some("[\"__main__\",\"/work/main.py\"]"),
        ),
        ("\u{feff}1 + 1", Some("2")),
        (
            "import __main__\n__main__.input_data is input_data",
            Some("true"),
        ),
        (
            "import os, sys\n[os.getcwd(), sys.path[0]]",
            Some("[\"/work\",\"/work\"]"),
        ),
        (
            "open('lib.py', 'w').write('x = 8')\nimport lib\nlib.x",
            Some("8"),
        ),
    ];
    for (source, value) in cases {
        let ran = cells
            .python_with(source, &["one", "two words"], r#"{"a": [1.5, "é", null]}"#)
            .await;
        ends_well(&ran, source);
        assert_eq!(ran.value(), value, "{source}");
        if source.contains("once") {
            assert_eq!(ran.stdout_text(), "once\n", "main is not called twice");
        }
    }
    cells.end().await;
}

#[tokio::test]
async fn only_plain_data_is_a_value() {
    let mut cells = CellFixture::new("plain").await;
    let cases = [
        (
            "[None, True, False, -1, 2.5, 'é\\n', (1, 2), {'a': {}}, []]",
            Some(r#"[null,true,false,-1,2.5,"é\n",[1,2],{"a":{}},[]]"#),
        ),
        (
            "[float('nan'), float('inf'), -float('inf'), 1e308, -0.0]",
            Some("[null,null,null,1e+308,-0.0]"),
        ),
        (
            "[2 ** 64 - 1, -(2 ** 63)]",
            Some("[18446744073709551615,-9223372036854775808]"),
        ),
        ("2 ** 64", None),
        ("'\\ud800 \\ud83d\\ude00'", Some("\"\u{fffd} 😀\"")),
        ("import array\narray.array('d', [1, 2])", Some("[1.0,2.0]")),
        (
            "import collections\ncollections.OrderedDict(b=1, a=2)",
            Some(r#"{"b":1,"a":2}"#),
        ),
        (
            "import enum\nclass E(enum.IntEnum):\n    A = 3\nE.A",
            Some("3"),
        ),
        (
            "class S(str):\n    def __str__(self): return 'lie'\nS('truth')",
            Some("\"truth\""),
        ),
        ("class B:\n    def tolist(self): return [self]\nB()", None),
        (
            "class B:\n    def tolist(self): raise KeyboardInterrupt\nB",
            None,
        ),
        ("{1: 2}", None),
        ("{1, 2}", None),
        ("b'bytes'", None),
        ("object()", None),
        ("int", None),
        ("x = []\nx.append(x)\nx", None),
        (
            "x = 0\nfor i in range(90): x = [x]\nlen(str(x)) and x",
            Some(DEEP),
        ),
        ("x = 0\nfor i in range(200): x = [x]\nx", None),
        ("x = 0\nfor i in range(100000): x = [x]\nx", None),
        ("'x' * (2 << 20)", None),
        ("'\\x01' * (400 << 10)", None),
        ("list(range(10 ** 6))", None),
        ("'x' * (800 << 10)", Some("large")),
    ];
    for (source, value) in cases {
        let ran = cells.python(source).await;
        ends_well(&ran, source);
        if value == Some("large") {
            assert_eq!(ran.value().map(str::len), Some((800 << 10) + 2), "{source}");
        } else {
            assert_eq!(ran.value(), value, "{source}");
        }
    }
    cells.end().await;
}

/// A zero in ninety brackets.
const DEEP: &str = "\
    [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\
    0]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]";

#[tokio::test]
async fn exceptions_are_told_as_python_tells_them() {
    let mut cells = CellFixture::new("raise").await;
    let ran = cells
        .python("def f(x):\n    return 1 / x\n\ndef main():\n    return f(0)\n")
        .await;
    assert_eq!(ran.report.end, ProgramEnd::Exited(1));
    assert_eq!(ran.value(), None);
    let exception = ran.exception();
    assert_eq!(exception.name, "ZeroDivisionError");
    assert_eq!(exception.message, "division by zero");
    assert_eq!(
        exception.traceback,
        "Traceback (most recent call last):\n  File \"main.py\", line 5, in main\n    \
         return f(0)\n           ^^^^\n  \
         File \"main.py\", line 2, in f\n    return 1 / x\n           ~~^~~\n\
         ZeroDivisionError: division by zero\n"
    );
    assert_eq!(
        ran.stderr_text(),
        exception.traceback,
        "and on standard error"
    );

    let cases = [
        ("raise ValueError('bad', 7)", "ValueError", "('bad', 7)"),
        ("assert 1 == 2, 'not so'", "AssertionError", "not so"),
        ("def f(:", "SyntaxError", "invalid syntax (main.py, line 1)"),
        (
            "x = 'a\\0b",
            "SyntaxError",
            "unterminated string literal (detected at line 1) (main.py, line 1)",
        ),
        (
            "import no_such_module",
            "ModuleNotFoundError",
            "No module named 'no_such_module'",
        ),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("raise BaseException('base')", "BaseException", "base"),
        (
            "def main(needed): pass",
            "TypeError",
            "main() missing 1 required positional argument: 'needed'",
        ),
        (
            "class Evil(Exception):\n    def __str__(self): raise SystemExit(0)\nraise Evil",
            "Evil",
            "<exception str() failed>",
        ),
        ("raise ValueError('\\ud800')", "ValueError", "\u{fffd}"),
        (
            "async def main():\n    raise OSError(2, 'gone')",
            "FileNotFoundError",
            "[Errno 2] gone",
        ),
        (
            "import sys\nsys.stderr = None\nraise ValueError('quiet')",
            "ValueError",
            "quiet",
        ),
        (
            "def f(): f()\nf()",
            "RecursionError",
            "maximum recursion depth exceeded",
        ),
    ];
    for (source, name, message) in cases {
        let ran = cells.python(source).await;
        assert_eq!(ran.report.end, ProgramEnd::Exited(1), "{source}: {ran:?}");
        let exception = ran.exception();
        assert_eq!(
            (exception.name.as_str(), exception.message.as_str()),
            (name, message),
            "{source}"
        );
        assert!(
            !exception.traceback.contains("harness"),
            "{source}: {}",
            exception.traceback
        );
    }
    let ran = cells.python("x = 1\nreturn x").await;
    assert_eq!(
        ran.exception().traceback,
        "  File \"main.py\", line 2\n    return x\n    ^^^^^^^^\nSyntaxError: 'return' outside \
         function\n"
    );
    let ran = cells.python("raise ValueError('x' * (8 << 20))").await;
    assert_eq!(
        ran.exception().name,
        "ValueError",
        "a message too long is cut, not lost"
    );
    assert!(ran.exception().message.len() < MAX_HARNESS_ANSWER);
    let ran = cells
        .python(
            "import sys\nsys.excepthook = lambda kind, error, trace: print('mine', error)\n\
             raise ValueError('x')",
        )
        .await;
    assert_eq!(
        ran.stdout_text(),
        "mine x\n",
        "a hook of the program's own is called"
    );
    cells.end().await;
}

#[tokio::test]
async fn leaving_is_left_to_python() {
    let mut cells = CellFixture::new("leaving").await;
    let cases = [
        ("import sys\nsys.exit()", 0, "", ""),
        ("import sys\nsys.exit(0)", 0, "", ""),
        ("import sys\nsys.exit(7)", 7, "", ""),
        ("import sys\nsys.exit(True)", 1, "", ""),
        ("import sys\nsys.exit('message')", 1, "", "message\n"),
        ("import os\nprint('x', end='')\nos._exit(9)", 9, "", ""),
        (
            "import atexit\natexit.register(print, 'bye')\nprint('hello')",
            0,
            "hello\nbye\n",
            "",
        ),
        (
            "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.1), \
             print('late'))).start()",
            0,
            "late\n",
            "",
        ),
        (
            "import subprocess\nsubprocess.run(['echo', 'child'], check=True)",
            0,
            "child\n",
            "",
        ),
        (
            "import multiprocessing as m\nprint(m.Pool(2).map(abs, [-1, -2]))",
            0,
            "[1, 2]\n",
            "",
        ),
        (
            "import os\nif os.fork() == 0: raise SystemExit(5)\n\
             print(os.waitstatus_to_exitcode(os.wait()[1]))",
            0,
            "5\n",
            "",
        ),
        ("print(input() + '!')", 1, "", "EOFError"),
        (
            "import logging\nlogging.warning('careful')",
            0,
            "",
            "WARNING:root:careful\n",
        ),
    ];
    for (source, code, stdout, stderr) in cases {
        let ran = cells.python(source).await;
        assert_eq!(
            ran.report.end,
            ProgramEnd::Exited(code),
            "{source}: {ran:?}"
        );
        assert_eq!(ran.stdout_text(), stdout, "{source}");
        if stderr == "EOFError" {
            assert_eq!(ran.exception().name, stderr);
        } else {
            assert_eq!(ran.stderr_text(), stderr, "{source}");
        }
    }
    let ran = cells
        .python("import os\nprint('kept')\nos.kill(os.getpid(), 9)")
        .await;
    assert_eq!(
        (ran.stdout_text().as_str(), ran.report.end),
        ("kept\n", ProgramEnd::Signaled(9)),
        "lines printed are not lost"
    );
    let ran = cells
        .python("import inspect\ndef f():\n    return 1\ninspect.getsource(f)")
        .await;
    assert_eq!(ran.value(), Some(r#""def f():\n    return 1\n""#));
    let ran = cells
        .python(
            "import os\nif os.fork() == 0:\n    x = 'child'\nelse:\n    os.wait()\n    \
             x = 'parent'\nx",
        )
        .await;
    assert_eq!(
        ran.value(),
        Some("\"parent\""),
        "a forked child answers nothing"
    );
    cells.end().await;
}

/// First lines of a program that writes answers by hand.
const FORGER: &str = "import os\ndef answer(value):\n    \
                      body = b'{\"value_json\":\"%d\"}' % value\n    \
                      os.write(3, b'A' + len(body).to_bytes(4, 'big') + body)\n";

#[tokio::test]
async fn of_several_answers_the_first_counts() {
    let mut cells = CellFixture::new("answers").await;
    for (case, rest, code, value) in [
        ("before the harness's own", "answer(1)\n2", 0, Some("1")),
        ("two", "answer(1)\nanswer(8)\nos._exit(4)", 4, Some("1")),
        (
            "a display after it",
            "answer(1)\ndisplay(8)\nos._exit(4)",
            4,
            Some("1"),
        ),
        (
            "of four gigabytes, in its length only",
            "os.write(3, b'A\\xff\\xff\\xff\\xff')\nanswer(1)\n2",
            0,
            None,
        ),
        (
            "after a message of an unknown kind",
            "os.write(3, b'E\\0\\0\\0\\1x')\n2",
            0,
            Some("2"),
        ),
        (
            "cut in its header",
            "os.write(3, b'A\\0\\0')\nos._exit(4)",
            4,
            None,
        ),
    ] {
        let ran = cells.python(&format!("{FORGER}{rest}")).await;
        let end = ProgramEnd::Exited(code);
        assert_eq!(
            (ran.report.end, ran.value()),
            (end, value),
            "{case}: {ran:?}"
        );
        let displays = (ran.report.displays.len(), ran.report.displays_dropped);
        assert_eq!(displays, (0, 0), "{case}");
    }
    cells.end().await;
}

#[tokio::test]
async fn a_forged_answer_changes_no_end() {
    let mut cells = CellFixture::new("forge").await;
    let cases = [
        (
            "import os\nos.write(3, b'{\"value_json\":\"1\"}')\n2",
            0,
            None,
        ),
        ("import os\nos.write(3, b'junk')\nos.close(3)\n2", 0, None),
        (
            "import os\nos.write(3, b'x' * (1 << 20))\nos.write(3, b'x' * (1 << 20))\n2",
            0,
            None,
        ),
        ("import os\nos.close(3)\nraise ValueError", 1, None),
        (
            "import os\nos.write(3, b'A\\0\\0\\0\\x12{\"value_json\":\"1\"}')\nos._exit(4)",
            4,
            Some("1"),
        ),
        (
            "import sys\nsys.modules['__main__'] = None\n3",
            0,
            Some("3"),
        ),
        (
            "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.str = None\n3",
            0,
            None,
        ),
        (
            "import sys\nsys.exit = sys.stdout = sys.stdin = None\n3",
            0,
            Some("3"),
        ),
    ];
    for (source, code, value) in cases {
        let ran = cells.python(source).await;
        assert_eq!(
            ran.report.end,
            ProgramEnd::Exited(code),
            "{source}: {ran:?}"
        );
        assert_eq!(ran.value(), value, "{source}");
    }
    let ran = cells
        .python("import subprocess\nsubprocess.run(['bash', '-c', 'echo {} >&3']).returncode")
        .await;
    assert_eq!(
        ran.value(),
        Some("1"),
        "a process that the program starts does not hold the channel"
    );
    let ran = cells
        .shell("exec 3<>/dev/null; exec /usr/bin/python3 /usr/lib/sandhog/harness.py")
        .await;
    assert_eq!(
        ran.report.end,
        ProgramEnd::Exited(1),
        "the harness without a request exits with an error"
    );
    cells.end().await;
}
