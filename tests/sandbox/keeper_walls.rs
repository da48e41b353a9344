//! The walls between the sandboxes of a keeper, and around its zygote.

use crate::keeper_connection::{SandboxConnection, with_zygote};
use crate::keeper_fixture::{AMPLE, KeeperFixture};

/// A program that makes a process, a file, a message queue, a terminal and a listener.
const LEAVES_TRACES: &str = r#"
import ctypes, os, socket, time
open("/tmp/mine", "w").write("x")
open("/dev/shm/mine", "w").write("x")
assert ctypes.CDLL(None).msgget(0x5a4d, 0o1666) >= 0
terminal = os.openpty()
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\0mine")
abstract.listen()
listener = socket.create_server(("127.0.0.1", 4321))
print("made", flush=True)
time.sleep(600)
"#;

/// A program that fails if it finds a trace of another sandbox, or a part of the machine.
const LOOKS_FOR_TRACES: &str = r#"
import os, socket
found = []
for place in ("/tmp", "/dev/shm", "/dev/pts", "/run", "/sys"):
    found += [place + "/" + name for name in os.listdir(place) if name not in ("ptmx", "main.py")]
found += ["process " + name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
for table in ("shm", "sem", "msg"):
    found += ["ipc " + line for line in open("/proc/sysvipc/" + table).read().splitlines()[1:]]
for table in ("tcp", "udp"):
    found += ["socket " + line for line in open("/proc/net/" + table).read().splitlines()[1:]]
for kind, address in ((socket.AF_UNIX, "\0mine"), (socket.AF_INET, ("127.0.0.1", 4321))):
    try:
        socket.socket(kind).connect(address)
        found.append("connected to %r" % (address,))
    except OSError:
        pass
for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/1/environ"):
    try:
        if open(path, "rb").read(1):
            found.append(path)
    except OSError:
        pass
found += ["cgroup " + line for line in open("/proc/self/cgroup").read().splitlines() if "sbx" in line]
print(found)
"#;

/// A program that tries to reach the zygote, its server and the keeper.
const REACHES_FOR_THE_ZYGOTE: &str = r#"
import ctypes, os, signal, socket, stat
found = []
libc = ctypes.CDLL(None, use_errno=True)
if os.getppid() != 0:
    found.append("the parent %d" % os.getppid())
for pid in range(1, 300):
    if pid == os.getpid():
        continue
    for name, call in (("signal", lambda: os.kill(pid, 0)), ("memory", lambda: open("/proc/%d/mem" % pid, "rb")), ("files", lambda: os.listdir("/proc/%d/fd" % pid))):
        try:
            call()
            found.append("%s of %d" % (name, pid))
        except OSError:
            pass
    if libc.syscall(101, 16, pid, 0, 0) != -1:
        found.append("trace of %d" % pid)
for number in range(3, 64):
    try:
        kind = stat.S_IFMT(os.fstat(number).st_mode)
    except OSError:
        continue
    if number != 3 or kind != stat.S_IFSOCK:
        found.append("descriptor %d" % number)
# Descriptor 3 is the channel of the harness, whose other end is the runner.
channel = socket.socket(fileno=os.dup(3))
if channel.type != socket.SOCK_STREAM:
    found.append("the control socket")
import sys
for name in ("zygote", "prefault", "harness"):
    if name in sys.modules:
        found.append("module " + name)
found += ["cgroup " + line for line in open("/proc/self/cgroup").read().splitlines() if "sbx" in line or ".." in line]
status = open("/proc/self/status").read()
for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
    if line not in status:
        found.append("no " + line)
if os.getuid() < 1000 or os.getgroups():
    found.append("user")
# The template zygote ignores this signal, and its clones do not.
if signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL or int(status.split("SigIgn:")[1].split()[0], 16) >> 16 & 1:
    found.append("SIGCHLD")
print(found)
"#;

/// A program that changes everything in its interpreter that it can.
const CHANGES_THE_INTERPRETER: &str = r#"
import builtins, json, os, random, sys
json.dumps = None
builtins.len = None
random.seed(1)
os.environ["CHANGED"] = "1"
sys.path.clear()
print("changed")
"#;

const SEES_A_CHANGE: &str = r#"
import json, os, random, sys
print(json.dumps(len("abc")), os.environ.get("CHANGED"), len(sys.path) > 0, os.getuid())
"#;

fn stdout_of(sandbox: &mut SandboxConnection, source: &str) -> String {
    let (report, stdout) = sandbox.python(source);
    assert!(report.answer.exception.is_none(), "{report:?}");
    stdout
}

#[test]
fn a_sandbox_sees_nothing_of_another() {
    let keeper = KeeperFixture::new("apart");
    let mut first = keeper.open();
    first.begin_python(LEAVES_TRACES);
    assert_eq!(first.output(), "made\n");
    let mut second = keeper.open_with(&with_zygote(&[]));
    assert_eq!(stdout_of(&mut second, LOOKS_FOR_TRACES), "[]\n");
    // The same holds for clones of the zygote.
    assert_eq!(second.start_zygote(&[]), None);
    assert_eq!(stdout_of(&mut second, LOOKS_FOR_TRACES), "[]\n");
}

#[test]
fn sandboxes_have_no_network_of_the_container() {
    let keeper = KeeperFixture::new("network");
    // The engine brings up the loopback of the container. The keeper has left that network.
    assert!(!keeper.shell("cat /proc/net/fib_trie").contains("127.0.0.1"));
}

#[test]
fn clones_of_several_sandboxes_come_from_one_zygote_that_no_program_reaches() {
    let keeper = KeeperFixture::new("zygote");
    let open = with_zygote(&["json", "random"]);
    let mut sandboxes = [keeper.open_with(&open), keeper.open_with(&open)];
    let mut users = Vec::new();
    for sandbox in &mut sandboxes {
        assert_eq!(sandbox.start_zygote(&["json", "random"]), None);
    }
    // The brackets keep the pattern from matching this command itself.
    let zygotes = "grep -l '[z]ygote.py' /proc/[0-9]*/cmdline | wc -l";
    let count = keeper.shell(zygotes);
    for sandbox in &mut sandboxes {
        let (report, stdout) = sandbox.python(REACHES_FOR_THE_ZYGOTE);
        assert!(report.warm, "{report:?}");
        assert_eq!(stdout, "[]\n");
        assert_eq!(stdout_of(sandbox, CHANGES_THE_INTERPRETER), "changed\n");
    }
    for sandbox in &mut sandboxes {
        let (report, stdout) = sandbox.python(SEES_A_CHANGE);
        assert!(report.warm, "{report:?}");
        let words: Vec<&str> = stdout.split_whitespace().collect();
        assert_eq!(words[..3], ["3", "None", "True"]);
        users.push(words[3].to_owned());
    }
    users.dedup();
    assert_eq!(users.len(), 2, "each sandbox has a user of its own");
    // The template, a server for each sandbox, and a waiting clone in each.
    assert_eq!(count.trim(), "5");
    for sandbox in sandboxes {
        keeper.end_of(&sandbox.close());
    }
    crate::keeper_fixture::wait_for(|| match keeper.shell(zygotes).trim() {
        "1" => Ok(()),
        left => Err(format!("{left} zygotes are left")),
    });
    let mut third = keeper.open_with(&open);
    assert_eq!(third.start_zygote(&["json", "random"]), None);
    let (report, stdout) = third.python(SEES_A_CHANGE);
    assert!(
        report.warm && stdout.starts_with("3 None True "),
        "{stdout}"
    );
}

#[test]
fn the_end_of_a_server_spoils_its_sandbox_alone() {
    let keeper = KeeperFixture::new("server");
    let mut first = keeper.open_with(&with_zygote(&[]));
    assert_eq!(first.start_zygote(&[]), None);
    let servers = r"for p in /proc/[0-9]*; do
        grep -q '[z]ygote.py' $p/cmdline && grep -qP '^NSpid:\s\d+$' $p/status && echo ${p#/proc/}
    done | sort -n | tail -n 1";
    let server = keeper.shell(servers);
    let mut second = keeper.open_with(&with_zygote(&[]));
    assert_eq!(second.start_zygote(&[]), None);
    keeper.shell(&format!("kill -9 {server}"));
    assert_eq!(first.connection.receive_from_runner(), None);
    let end = keeper.end_of(&first.sandbox);
    assert!(end.stderr.contains("zygote ended unexpectedly"), "{end:?}");
    let (report, stdout) = second.python("print(3)");
    assert!(report.warm, "{report:?}");
    assert_eq!(stdout, "3\n");
}

#[test]
fn another_program_than_the_zygotes_gets_a_zygote_of_its_own() {
    let keeper = KeeperFixture::new("other");
    let mut first = keeper.open_with(&with_zygote(&["json"]));
    assert_eq!(first.start_zygote(&["json"]), None);
    for (open, imports, want) in [
        (
            with_zygote(&["json", "decimal"]),
            &["json", "decimal"][..],
            "the keeper's zygote runs",
        ),
        // A runner cannot choose: the worker opened this sandbox without a zygote.
        (AMPLE, &["json"][..], "the sandbox was opened without one"),
    ] {
        let mut sandbox = keeper.open_with(&open);
        assert_eq!(sandbox.start_zygote(imports), None);
        let (report, _) = sandbox.python("print(4)");
        assert!(report.warm, "{report:?}");
        let end = keeper.end_of(&sandbox.close());
        assert!(end.stderr.contains("the runner starts its own"), "{end:?}");
        assert!(end.stderr.contains(want), "{end:?}");
    }
}

#[test]
fn imports_that_fail_are_reported_to_each_sandbox() {
    let keeper = KeeperFixture::new("imports");
    for _ in 0..2 {
        let mut sandbox = keeper.open_with(&with_zygote(&["no_such_module"]));
        let missing = sandbox.start_zygote(&["no_such_module"]).unwrap();
        assert!(
            missing.contains("No module named 'no_such_module'"),
            "{missing}"
        );
        let (report, stdout) = sandbox.python("print(5)");
        assert!(!report.warm);
        assert_eq!(stdout, "5\n");
    }
}
