//! The network namespaces of cells: a namespace that a program has used is never given to another
//! program.

use sandhog_protocol::frames::ProgramEnd;

use crate::cell_fixture::{CellFixture, RunResult};

/// A program that returns the counters and the sockets of its network namespace.
const LOOK: &str = r#"
def main():
    told = {name: open("/proc/self/net/" + name).read() for name in ("snmp", "snmp6", "netstat", "dev", "unix", "tcp", "udp", "ip6_flowlabel")}
    told["sockets"] = open("/proc/self/net/sockstat").readline()
    return told
"#;

/// Programs that leave something in a network namespace or change its counters.
const USES: [(&str, &str); 7] = [
    (
        "a connection that was closed here",
        "s = socket.create_server(('127.0.0.1', 7777))\nc = socket.create_connection(('127.0.0.1', \
         7777))\nt, _ = s.accept()\nt.close(); c.close()",
    ),
    (
        "a datagram to itself",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.sendto(b'x', ('127.0.0.1', 7777))",
    ),
    (
        "a datagram to itself by IPv6",
        "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\ns.sendto(b'x', ('::1', 7777))",
    ),
    (
        "a connection that was refused",
        "assert socket.socket().connect_ex(('127.0.0.1', 7778)) != 0",
    ),
    (
        "a connection to nowhere",
        "assert socket.socket().connect_ex(('192.0.2.1', 80)) != 0",
    ),
    (
        "a connection to nowhere by IPv6",
        "assert socket.socket(socket.AF_INET6).connect_ex(('2001:db8::1', 80)) != 0",
    ),
    (
        "a datagram to nowhere",
        "try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 80))\n\
         except OSError: pass",
    ),
];

fn told(ran: &RunResult) -> serde_json::Value {
    let text = ran.value().unwrap_or_else(|| panic!("{ran:?}"));
    serde_json::from_str(text).expect("a value is JSON")
}

#[tokio::test]
async fn a_network_that_was_used_is_no_other_programs() {
    let mut cells = CellFixture::new("used-network").await;
    let new = told(&cells.python(LOOK).await);
    for (case, source) in USES {
        let source = format!("import socket\n{source}");
        let ran = cells.python(&source).await;
        assert_eq!(ran.report.end, ProgramEnd::Exited(0), "{case}: {ran:?}");
        // The first of these cells was made before that program ended, the others after.
        for _ in 0..4 {
            assert_eq!(told(&cells.python(LOOK).await), new, "{case}");
        }
    }
    cells.end().await;
}
