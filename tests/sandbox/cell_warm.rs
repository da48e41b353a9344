//! Clones of the zygote: they have the same restrictions as a started program, and share no
//! observable state.

use std::collections::BTreeSet;

use sandhog_protocol::frames::ProgramEnd;
use sandhog_worker::sandbox::SandboxError;

use crate::cell_fixture::{AMPLE_CAPS, CellFixture, RunResult, harness};

fn value(ran: &RunResult) -> serde_json::Value {
    let text = ran.value().unwrap_or_else(|| panic!("{ran:?}"));
    serde_json::from_str(text).expect("a value is JSON")
}

/// A program that returns every property of its process that the walls affect.
const SELF: &str = r#"
import sys

import gc, os, resource, signal, socket, stat

def fields(path):
    with open(path) as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)

status = fields("/proc/self/status")
kept = ["Umask", "Uid", "Gid", "Groups", "NStgid", "NSpid", "NSpgid", "NSsid", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm",
        "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Cpus_allowed", "PPid", "Threads"]
import ctypes
libc = ctypes.CDLL(None)

def descriptor(number):
    there = os.fstat(number)
    return [stat.S_IFMT(there.st_mode), there.st_uid == os.getuid(), os.get_inheritable(number), os.get_blocking(number)]

def stream(one):
    return [one.encoding, one.errors, one.line_buffering, one.write_through, one.seekable(), one.isatty(), one.name, one.mode]

def main():
    os.environ.pop("PYTHONNODEBUGRANGES", None)
    opened = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]
    return {
        "status": {name: status.get(name) for name in kept},
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")},
        "descriptors": {str(number): descriptor(number) for number in opened},
        "streams": [stream(one) for one in (sys.stdin, sys.stdout, sys.stderr)],
        "oom": open("/proc/self/oom_score_adj").read(),
        "nice": os.nice(0),
        "policy": os.sched_getscheduler(0),
        "dumpable": libc.prctl(3, 0, 0, 0, 0),
        "parent death signal": libc.prctl(2, 0, 0, 0, 0),
        "keep capabilities": libc.prctl(7, 0, 0, 0, 0),
        "secure bits": libc.prctl(27, 0, 0, 0, 0),
        "place": [os.getcwd(), os.getpid(), os.getppid() in (0, 1), os.getsid(0), os.getpgrp(), os.ttyname(0) if os.isatty(0) else None],
        "groups": [line.split(":")[1:] for line in open("/proc/self/cgroup").read().splitlines() if "cell-" in line] != [],
        "mounts": sorted(line.split()[4] + " " + line.split()[5] for line in open("/proc/self/mountinfo")),
        "root": sorted(os.listdir("/")),
        "host": [socket.gethostname(), [line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:]]],
        "signals": {each.name: str(signal.getsignal(each)).split(" at ")[0] for each in signal.Signals},
        "environment": dict(os.environ),
        "argv": [sys.argv, sys.path, __name__, __file__, sys.flags.no_user_site, sys.dont_write_bytecode],
        "collector": [gc.isenabled(), gc.get_threshold()],
        "modules": ["harness" in sys.modules, "zygote" in sys.modules, sys.modules["__main__"].__dict__ is globals()],
        "recursion": sys.getrecursionlimit(),
        "hooks": [sys.excepthook is sys.__excepthook__, sys.gettrace(), sys.getprofile()],
    }
"#;

#[tokio::test]
async fn a_clone_stands_behind_the_same_walls_as_a_program() {
    for image in ["python", "datascience"] {
        let mut cells = CellFixture::of(image, "same").await;
        // With more than one core, a clone has additional threads of libraries that are already
        // imported.
        cells.caps.cell.cpu_millis = 1000;
        let warm = cells.python(SELF).await;
        assert!(warm.report.warm, "{image}: {warm:?}");
        let cold = cells.python_cold(SELF).await;
        let (warm, cold) = (value(&warm), value(&cold));
        for (name, cold) in cold.as_object().expect("an object") {
            let mut warm = warm[name].clone();
            let mut cold = cold.clone();
            if name == "place" || name == "status" {
                // The parent of a clone is outside its cell; the parent of a started program is the
                // init of the cell.
                for one in [&mut warm, &mut cold] {
                    if let Some(fields) = one.as_object_mut() {
                        fields.remove("PPid");
                    }
                }
            }
            assert_eq!(warm, cold, "{image}: {name}");
        }
        assert_eq!(warm["status"]["CapBnd"], "0000000000000000");
        assert_eq!(warm["groups"], true, "{image}: a cgroup of its own");
        cells.end().await;
    }
}

#[tokio::test]
async fn no_two_clones_draw_the_same() {
    let draws = r#"
import random, secrets, sys, tempfile, uuid
def main():
    drawn = {
        "random": random.random(),
        "of a generator": random.Random().random(),
        "secrets": secrets.token_hex(),
        "uuid1": str(uuid.uuid1()),
        "uuid4": str(uuid.uuid4()),
        "file name": next(tempfile._get_candidate_names()),
        "process key": __import__("multiprocessing").current_process().authkey.hex(),
    }
    if "numpy" in sys.modules:
        import numpy
        drawn["numpy"] = float(numpy.random.random())
        drawn["numpy generator"] = float(numpy.random.default_rng().random())
        drawn["numpy state"] = float(numpy.random.RandomState().random())
    return drawn
"#;
    for image in ["python", "datascience"] {
        let mut cells = CellFixture::of(image, "draws").await;
        let mut seen = BTreeSet::new();
        let mut drawn = 0;
        for _ in 0..6 {
            let ran = cells.python(draws).await;
            assert!(ran.report.warm, "{ran:?}");
            for (name, value) in value(&ran).as_object().expect("an object") {
                drawn += 1;
                assert!(
                    seen.insert(value.to_string()),
                    "{image}: {name} {value} again"
                );
            }
        }
        assert_eq!(drawn, if image == "python" { 42 } else { 60 });
        cells.end().await;
    }
}

#[tokio::test]
async fn what_a_clone_changes_is_its_own() {
    let mut cells = CellFixture::of("datascience", "patches").await;
    let state = r#"
import builtins, ctypes, gc, json, math, os, resource, signal, sys
import numpy, pandas
def main():
    return {
        "json": [json.dumps([1]), json.loads("[1]"), json.dumps.__module__],
        "builtins": [len([1]), sorted([2, 1]), hasattr(builtins, "spoilt"), isinstance(1, str)],
        "numpy": [numpy.sum([1, 2]).item(), numpy.geterr(), str(numpy.array([0.5])), hasattr(numpy, "spoilt")],
        "pandas": [pandas.options.display.max_rows, str(pandas.DataFrame({"a": [1]}))],
        "memory": [numpy.core.__name__ if hasattr(numpy, "core") else "", math.pi, ctypes.c_int(5).value],
        "process": [os.umask(0o22), os.nice(0), os.getcwd(), dict(os.environ), sys.path, sys.argv, sorted(os.listdir("/tmp"))],
        "signals": [str(signal.getsignal(signal.SIGUSR1)), str(signal.getsignal(signal.SIGINT)).split(" at ")[0]],
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "python": [sys.getrecursionlimit(), sys.getswitchinterval(), gc.isenabled(), sys.gettrace() is None],
        "modules": sorted(name for name in sys.modules if "spoilt" in name),
    }
"#;
    let before = value(&cells.python(state).await);
    let patches = [
        "import json\njson.dumps = lambda *a, **k: 'spoilt'\njson.loads = json.dumps",
        "import builtins\nbuiltins.len = lambda x: 7\nbuiltins.spoilt = 1\nbuiltins.sorted = None",
        "import numpy\nnumpy.sum = lambda *a: 7\nnumpy.spoilt = 1\nnumpy.seterr(all='ignore')\n\
         numpy.set_printoptions(precision=1)",
        "import pandas\npandas.options.display.max_rows = 3\npandas.DataFrame.__str__ = lambda s: \
         'spoilt'",
        "import math, ctypes\nctypes.memset(id(math.pi) + 16, 0, 8)",
        "import os, sys\nos.umask(0)\nos.nice(5)\nos.chdir('/')\nos.environ['spoilt'] = '1'\n\
         sys.path.append('/spoilt')\nsys.argv.append('x')",
        "import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\n\
         signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
        "import sys, gc\nsys.setrecursionlimit(50000)\nsys.setswitchinterval(1)\ngc.disable()\n\
         sys.settrace(lambda *a: None)",
        "import sys\nsys.modules['json'] = sys.modules['spoilt'] = sys\n\
         sys.modules['numpy'] = None",
        "open('/tmp/numpy.py', 'w').write('spoilt = 1')\nopen('/work/json.py', 'w').write('spoilt \
         = 1')",
        "import os, signal\nos.kill(-1, signal.SIGKILL)",
        "import os\nfor number in range(3, 64):\n    try: os.close(number)\n    \
         except OSError: pass",
    ];
    for patch in patches {
        let ran = cells.python(patch).await;
        assert!(ran.report.warm && ran.report.clean, "{patch}: {ran:?}");
        let after = cells.python(state).await;
        assert!(after.report.warm, "{patch}");
        assert_eq!(value(&after), before, "{patch}");
    }
    cells.end().await;
}

#[tokio::test]
async fn what_must_be_read_at_the_start_is_started() {
    let mut cells = CellFixture::new("cold").await;
    let cases = [
        (&[][..], true),
        (
            &[
                ("X", "1"),
                ("PATH", "/usr/bin"),
                ("HOME", "/tmp"),
                ("TZ", "Asia/Tokyo"),
            ][..],
            true,
        ),
        (&[("PYTHONHASHSEED", "0")][..], false),
        (&[("LD_PRELOAD", "")][..], false),
        (&[("LANG", "C")][..], false),
        (&[("OMP_NUM_THREADS", "3")][..], false),
        (&[("OMP_NUM_THREADS", "2")][..], true),
    ];
    for (env, warm) in cases {
        let source =
            "import os, time\n[dict(os.environ), time.tzname[0], os.popen('echo $X').read()]";
        let ran = cells.run(harness(source, &[], "null"), b"", env).await;
        assert_eq!(ran.report.warm, warm, "{env:?}");
        let said = value(&ran);
        for (name, value) in env {
            assert_eq!(said[0][name], *value, "{env:?}");
        }
        if env.iter().any(|(name, _)| *name == "TZ") {
            assert_eq!((&said[1], &said[2]), (&"JST".into(), &"1\n".into()));
        }
    }
    cells.end().await;
}

#[tokio::test]
async fn caps_that_change_from_job_to_job_are_kept() {
    let mut cells = CellFixture::new("changing").await;
    let source = r#"
import os, resource
space = os.statvfs("/work")
def main():
    try:
        held = len(bytearray(96 << 20))
    except MemoryError:
        held = 0
    return [space.f_blocks * space.f_frsize, space.f_files, resource.getrlimit(resource.RLIMIT_FSIZE)[0], held]
"#;
    for round in 0..3 {
        for (scratch, files, memory) in [
            (16 << 20, 1000, 128 << 20),
            (16 << 20, 1000, 64 << 20),
            (4 << 20, 50, 256 << 20),
            (4 << 20, 50, 128 << 20),
        ] {
            cells.caps.cell.scratch_bytes = scratch;
            cells.caps.cell.scratch_inodes = files;
            cells.caps.cell.memory_bytes = memory;
            let ran = cells.python(source).await;
            assert!(ran.report.warm, "round {round}: {ran:?}");
            if memory < 96 << 20 {
                assert_eq!(
                    ran.report.end,
                    ProgramEnd::Signaled(9),
                    "round {round}: {ran:?}"
                );
                assert!(ran.report.stop.is_some(), "round {round}: {ran:?}");
            } else {
                let held = 96 << 20;
                let expected = serde_json::json!([scratch, files + 1, scratch, held]);
                assert_eq!(value(&ran), expected, "round {round}: {ran:?}");
                assert!(
                    ran.report.memory_peak_bytes >= held,
                    "round {round}: {ran:?}"
                );
            }
        }
    }
    cells.caps = AMPLE_CAPS;
    cells.assert_no_trace("changing caps").await;
    cells.end().await;
}

#[tokio::test]
async fn a_zygote_that_dies_takes_its_container_with_it() {
    let mut cells = CellFixture::new("dies").await;
    let ran = cells.python("1").await;
    assert!(ran.report.warm);
    kill_zygote(cells.sandbox().name()).await;
    cells.wait_until_unusable().await;
    cells.end().await;

    let mut cells = CellFixture::new("dies-running").await;
    let name = cells.sandbox().name().to_owned();
    let program = harness("print('here')\nimport time\ntime.sleep(1000)", &[], "null");
    let error = cells.fault_of(program, kill_zygote(&name)).await;
    assert!(matches!(error, SandboxError::Cell { .. }), "{error}");
    assert!(
        error.to_string().contains("keep the zygote alive"),
        "{error}"
    );
    cells.end().await;
}

/// Kills a container's zygote from outside the container.
async fn kill_zygote(container: &str) {
    let docker = bollard::Docker::connect_with_local_defaults()
        .expect("the engine's address is valid")
        .negotiate_version()
        .await
        .expect("the engine answers");
    let listed = docker
        .top_processes(container, None)
        .await
        .expect("the engine lists processes");
    let titles = listed.titles.unwrap_or_default();
    let pid = titles
        .iter()
        .position(|title| title == "PID")
        .expect("pids are listed");
    let parent = titles
        .iter()
        .position(|title| title == "PPID")
        .expect("parents are listed");
    let rows = listed.processes.unwrap_or_default();
    let zygotes: Vec<_> = rows
        .iter()
        .filter(|row| {
            row.last()
                .is_some_and(|command| command.contains("zygote.py"))
        })
        .collect();
    // Clones of the zygote have the same command line. The zygote is the process whose parent is
    // not one of them.
    let zygote = zygotes
        .iter()
        .find(|row| !zygotes.iter().any(|other| other[pid] == row[parent]))
        .unwrap_or_else(|| panic!("no zygote in {rows:?}"));
    let number = zygote[pid].parse().expect("a pid is a number");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(number),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("the tests may signal what runs in containers");
}
