//! Jobs after one another in one container: no state passes from one to the next, and nothing
//! accumulates.

use sandhog_protocol::frames::ProgramEnd;

use crate::cell_fixture::{AMPLE_CAPS, CellFixture};

#[tokio::test]
async fn what_a_job_leaves_is_gone() {
    let mut cells = CellFixture::new("leave").await;
    let cases = [
        (
            "files",
            "for d in /tmp /work /dev/shm /var/tmp; do echo x > $d/x; mkdir -p $d/a/b; ln -s /etc \
             $d/l; mkfifo $d/f; chmod 000 $d/a; done",
        ),
        (
            "a changed working directory",
            "chmod 777 /work; touch /work/x; chmod 000 /work",
        ),
        (
            "a daemon",
            "setsid bash -c 'while :; do sleep 1; touch /tmp/alive; done' & sleep 0.05",
        ),
        (
            "many daemons",
            "for i in {1..30}; do setsid sleep 1000 & done",
        ),
        ("a stopped process", "sleep 1000 & kill -STOP $!"),
        (
            "zombies' parent",
            "bash -c 'for i in {1..20}; do /bin/true & done; exec sleep 1000' & sleep 0.05",
        ),
        (
            "a nohup that ignores everything",
            "trap '' HUP TERM INT QUIT; (while :; do sleep 1; done) & disown",
        ),
    ];
    for (case, command) in cases {
        let ran = cells.shell(command).await;
        assert_eq!(ran.report.end, ProgramEnd::Exited(0), "{case}: {ran:?}");
        assert!(ran.report.clean, "{case}");
        cells.assert_no_trace(case).await;
    }
    let cases = [
        (
            "shared memory, semaphores and queues",
            "import ctypes\nc = ctypes.CDLL(None)\nassert c.shmget(7, 4096, 0o1666) >= 0 and \
             c.semget(7, 1, 0o1666) >= 0 and c.msgget(7, 0o1666) >= 0",
        ),
        (
            "listeners and half-closed connections",
            "import socket\ns = socket.create_server(('127.0.0.1', 7777))\n\
             c = socket.create_connection(('127.0.0.1', 7777))\nt, _ = s.accept()\n\
             t.close(); c.close()",
        ),
        (
            "the same port again, at once",
            "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 7777)); s.listen()",
        ),
        (
            "an abstract socket",
            "import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0name')",
        ),
        (
            "an orphan that holds a terminal",
            "import pty, os\npid, fd = pty.fork()\nif pid == 0: os.execvp('sleep', ['sleep', \
             '1000'])",
        ),
        (
            "a patched library",
            "import json, sys\njson.dumps = None\nsys.modules['os'] = None",
        ),
    ];
    for (case, source) in cases {
        let ran = cells.python(source).await;
        assert_eq!(ran.report.end, ProgramEnd::Exited(0), "{case}: {ran:?}");
        cells.assert_no_trace(case).await;
    }
    cells.end().await;
}

#[tokio::test]
async fn what_was_counted_for_a_job_is_not_the_next_ones() {
    const BUSY: &str = "import time\nwhile time.process_time() < 0.5: pass";
    let mut cells = CellFixture::new("counts").await;
    for warm in [true, false, true] {
        cells.caps.cell.pids = 8;
        let ran = cells
            .python("import os\nfor _ in range(20):\n    if os.fork() == 0: os._exit(0)")
            .await;
        assert!(ran.report.pids_refused, "{ran:?}");
        cells.caps = AMPLE_CAPS;
        let ran = if warm {
            cells.python(BUSY).await
        } else {
            cells.python_cold(BUSY).await
        };
        assert!(ran.report.cpu_ms >= 500, "{ran:?}");
        assert!(!ran.report.pids_refused, "{ran:?}");
        // The program has a tenth of a core and uses all of it. Its CPU throttling must not carry
        // over to the next program.
        cells.caps.cell.cpu_millis = 100;
        cells.python("for _ in range(3 * 10**6): pass").await;
        cells.caps = AMPLE_CAPS;
        let ran = cells.python("def main(): return list(range(20))").await;
        assert_eq!(ran.report.end, ProgramEnd::Exited(0), "{ran:?}");
        assert!(!ran.report.pids_refused, "{ran:?}");
        assert!(ran.report.cpu_ms < 400, "{ran:?}");
        assert!(ran.report.memory_peak_bytes < 64 << 20, "{ran:?}");
    }
    cells.end().await;
}

#[tokio::test]
async fn a_hundred_jobs_leave_nothing() {
    let mut cells = CellFixture::new("hundred").await;
    for number in 0..100 {
        let ran = cells
            .shell(&format!(
                "sleep 1000 & echo {number} > /tmp/x; cat /tmp/x; ls /tmp"
            ))
            .await;
        assert_eq!(ran.stdout_text(), format!("{number}\nx\n"));
        assert!(ran.report.clean, "job {number}");
    }
    let docker = bollard::Docker::connect_with_local_defaults()
        .expect("the engine's address is valid")
        .negotiate_version()
        .await
        .expect("the engine answers");
    let processes = docker
        .top_processes(cells.sandbox().name(), None)
        .await
        .expect("the engine lists processes")
        .processes
        .unwrap_or_default();
    // The runner, its zygote, and the standby cell with its init and its waiting clone.
    assert_eq!(processes.len(), 4, "{processes:?}");
    cells.end().await;
}

#[tokio::test]
async fn a_cell_reaches_itself_and_nothing_else() {
    let mut cells = CellFixture::new("network").await;
    let ran = cells
        .python(
            r#"
import socket, threading
def main():
    said = {}
    for host in ("127.0.0.1", "::1", "localhost", "sandbox"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, 0), family=family) as server:
            port = server.getsockname()[1]
            with socket.create_connection((host, port), 5) as client:
                peer, _ = server.accept()
                client.sendall(b"x")
                said[host] = peer.recv(1).decode()
    for host in ("1.1.1.1", "169.254.169.254", "172.17.0.1", "10.0.0.1", "192.168.0.1", "2606:4700:4700::1111", "fe80::1%lo"):
        try:
            socket.create_connection((host, 6379), 5).close()
            said[host] = "reached"
        except OSError as error:
            said[host] = "no"
    for name in ("example.org", "host.docker.internal", "redis"):
        try:
            socket.getaddrinfo(name, 80)
            said[name] = "resolved"
        except OSError:
            said[name] = "no"
    said["devices"] = [line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:]]
    said["routes"] = open("/proc/net/route").read().splitlines()[1:]
    return said
"#,
        )
        .await;
    let expected = serde_json::json!({
        "127.0.0.1": "x", "::1": "x", "localhost": "x", "sandbox": "x",
        "1.1.1.1": "no", "169.254.169.254": "no", "172.17.0.1": "no", "10.0.0.1": "no",
        "192.168.0.1": "no",
        "2606:4700:4700::1111": "no", "fe80::1%lo": "no",
        "example.org": "no", "host.docker.internal": "no", "redis": "no",
        "devices": ["lo"], "routes": [],
    });
    let value: serde_json::Value =
        serde_json::from_str(ran.value().unwrap_or_else(|| panic!("{ran:?}")))
            .expect("a value is JSON");
    assert_eq!(value, expected);
    cells.assert_no_trace("network use").await;
    cells.end().await;
}
