//! Properties and restrictions of a program, checked from inside a cell.

use sandhog_protocol::frames::{CgroupSupport, ProgramEnd};

use crate::cell_fixture::CellFixture;

const SIGSYS: i32 = 31;

#[tokio::test]
async fn the_container_gives_cells_everything() {
    let cells = CellFixture::new("features").await;
    let features = cells.sandbox().features();
    assert_eq!(features.missing, Vec::<String>::new());
    assert_ne!(features.cgroup, CgroupSupport::None);
    assert!(features.network_namespace);
    assert!(features.seccomp);
    cells.end().await;
}

#[tokio::test]
async fn a_program_is_nobody_and_can_become_nobody_else() {
    let mut cells = CellFixture::new("identity").await;
    let ran = cells
        .python(
            r#"
import os, pwd, resource
me = os.getuid()
fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
def main():
    return {
        "user": [{*os.getresuid(), *os.getresgid()} == {me}, me in range(1000000, 2000000), os.getgroups(), pwd.getpwuid(me).pw_name],
        "capabilities": [fields["Cap" + name].strip() for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")],
        "no new privileges": fields["NoNewPrivs"].strip(),
        "seccomp": fields["Seccomp"].strip(),
        "oom": open("/proc/self/oom_score_adj").read().strip(),
        "pid": [os.getpid(), os.getsid(0) == os.getpid()],
        "files": sorted(map(int, os.listdir("/proc/self/fd")))[:3],
        "place": [os.getcwd(), os.stat(".").st_uid == me, os.umask(0)],
        "blocked": fields["SigBlk"].strip().strip("0"),
        "limits": {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name))
                   for name in ("CORE", "NOFILE", "FSIZE", "STACK", "MEMLOCK", "RTPRIO", "NICE")},
    }
"#,
        )
        .await;
    let zero = "0000000000000000";
    let expected = serde_json::json!({
        "user": [true, true, [], "sandbox"],
        "capabilities": [zero, zero, zero, zero, zero],
        "no new privileges": "1",
        "seccomp": "2",
        "oom": "1000",
        "pid": [2, true],
        "files": [0, 1, 2],
        "place": ["/work", true, 18],
        "blocked": "",
        "limits": {"CORE": [1, 1], "NOFILE": [1024, 1024], "FSIZE": [16 << 20, 16 << 20],
                   "STACK": [128 << 20, -1], "MEMLOCK": [0, 0], "RTPRIO": [0, 0], "NICE": [0, 0]},
    });
    let value: serde_json::Value =
        serde_json::from_str(ran.value().unwrap_or_else(|| panic!("{ran:?}")))
            .expect("a value is JSON");
    assert_eq!(value, expected);
    let mut others = CellFixture::new("other").await;
    let users = [
        cells.shell("id -u").await.stdout_text(),
        others.shell("id -u").await.stdout_text(),
    ];
    assert_ne!(
        users.first(),
        users.last(),
        "no two containers share what the kernel counts by user"
    );
    others.end().await;
    cells.end().await;
}

#[tokio::test]
async fn nothing_of_others_is_seen() {
    let mut cells = CellFixture::new("sight").await;
    let checks = [
        (
            "own processes only",
            "test \"$(ls /proc | grep -c '^[0-9]')\" -le 4",
        ),
        ("the init is out of sight", "! ls /proc/1 2>/dev/null"),
        ("its environment too", "! cat /proc/1/environ 2>/dev/null"),
        ("no sysfs", "test -z \"$(ls -A /sys)\""),
        ("no run directory", "test -z \"$(ls -A /run)\""),
        ("no resolvers of the host", "test ! -s /etc/resolv.conf"),
        (
            "its own host name",
            "test \"$(hostname)\" = sandbox && test \"$(cat /etc/hostname)\" = sandbox",
        ),
        ("no kernel command line", "test -z \"$(cat /proc/cmdline)\""),
        (
            "no disks",
            "test -z \"$(cat /proc/partitions /proc/diskstats)\"",
        ),
        ("no keys", "test -z \"$(cat /proc/keys /proc/key-users)\""),
        ("no kernel symbols", "test -z \"$(cat /proc/kallsyms)\""),
        ("no cgroups", "test ! -e /sys/fs/cgroup"),
        ("no passwords", "! cat /etc/shadow 2>/dev/null"),
        (
            "no runner's files",
            "! test -e /tmp/void && ! test -e /tmp/passwd",
        ),
        (
            "no magic keys: where the kernel has them, what is written goes nowhere",
            "test ! -e /proc/sysrq-trigger || test \"$(stat --format %t:%T /proc/sysrq-trigger)\" \
             = 1:3",
        ),
        (
            "no descriptors of others",
            "test \"$(ls /proc/self/fd | wc -l)\" = 4",
        ),
    ];
    for (case, command) in checks {
        let ran = cells.shell(command).await;
        assert_eq!(ran.report.end, ProgramEnd::Exited(0), "{case}: {ran:?}");
    }
    cells.end().await;
}

#[tokio::test]
async fn nothing_of_the_container_can_be_changed() {
    let mut cells = CellFixture::new("change").await;
    let refused = [
        "echo x > /usr/x",
        "echo x > /etc/passwd",
        "echo x > /usr/lib/sandhog/runner",
        "echo x > /usr/lib/sandhog/harness.py",
        "touch /run/x",
        "touch /sys/x",
        "touch /dev/x",
        "echo core > /proc/sys/kernel/core_pattern",
        "echo x > /proc/sys/kernel/hostname",
        "echo -1000 > /proc/self/oom_score_adj",
        "rm -rf /work",
        "mv /tmp /x",
        "chmod 777 /dev/shm",
        "mknod /tmp/disk b 8 0",
        "mount -t tmpfs x /tmp",
        "umount /tmp",
        "mount --bind / /tmp",
        "mount -o remount,rw /",
        "hostname other",
        "unshare --user true",
        "unshare --net true",
        "unshare --mount true",
        "unshare --pid --fork true",
        "nsenter --target 2 --mount true",
        "chroot / true",
        "pivot_root . .",
        "chown 0 .",
        "chrt --fifo 50 true",
        "renice -n -5 $$",
        // The call succeeds without an effect: the limit in force remains too small for any core
        // dump.
        "ulimit -c unlimited; grep 'core file size  *unlimited' /proc/self/limits",
        "ulimit -n 4096",
        "date --set=@0",
        "dmesg",
        "swapon /tmp",
        "setpriv --reuid 0 true",
        "su --command true",
    ];
    for command in refused {
        let ran = cells
            .shell(&format!("({command}) >/dev/null 2>&1 && echo was allowed"))
            .await;
        assert_eq!(ran.stdout_text(), "", "{command}");
        assert_ne!(ran.report.end, ProgramEnd::Exited(0), "{command}");
    }
    cells.assert_no_trace("attempts to change things").await;
    cells.end().await;
}

/// A program that makes raw system calls and prints the result of each, or the name of its error.
const CALLS: &str = r#"
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    got = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, args))
    return errno.errorcode[ctypes.get_errno()] if got == -1 else "allowed"
"#;

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn dangerous_system_calls_are_refused() {
    let mut cells = CellFixture::new("calls").await;
    let calls = [
        ("ptrace", "101, 0", "EPERM"),
        ("process_vm_readv", "310, 1", "EPERM"),
        ("process_vm_writev", "311, 1", "EPERM"),
        ("pidfd_getfd", "438, 0, 0, 0", "EPERM"),
        ("mount", "165, 0, 0, 0, 0, 0", "EPERM"),
        ("umount2", "166, 0, 0", "EPERM"),
        ("pivot_root", "155, 0, 0", "EPERM"),
        ("chroot", "161, 0", "EPERM"),
        ("unshare user", "272, 0x10000000", "EPERM"),
        ("setns", "308, 0, 0", "EPERM"),
        ("clone user", "56, 0x10000011, 0, 0, 0, 0", "EPERM"),
        ("clone net", "56, 0x40000011, 0, 0, 0, 0", "EPERM"),
        ("clone mount", "56, 0x00020011, 0, 0, 0, 0", "EPERM"),
        ("clone3", "435, 0, 0", "ENOSYS"),
        ("fsopen", "430, 0, 0", "EPERM"),
        ("open_tree", "428, 0, 0, 0", "EPERM"),
        ("move_mount", "429, 0, 0, 0, 0, 0", "EPERM"),
        ("bpf", "321, 0, 0, 0", "EPERM"),
        ("keyctl", "250, 0, -3, 0", "EPERM"),
        ("add_key", "248, 0, 0, 0, 0, 0", "EPERM"),
        ("request_key", "249, 0, 0, 0, 0", "EPERM"),
        ("io_uring_setup", "425, 1, 0", "EPERM"),
        ("userfaultfd", "323, 0", "EPERM"),
        ("perf_event_open", "298, 0, 0, -1, -1, 0", "EPERM"),
        ("open_by_handle_at", "304, 0, 0, 0", "EPERM"),
        ("name_to_handle_at", "303, 0, 0, 0, 0, 0", "EPERM"),
        ("kexec_load", "246, 0, 0, 0, 0", "EPERM"),
        ("init_module", "175, 0, 0, 0", "EPERM"),
        ("finit_module", "313, 0, 0, 0", "EPERM"),
        ("delete_module", "176, 0, 0", "EPERM"),
        ("reboot", "169, 0, 0, 0, 0", "EPERM"),
        ("swapon", "167, 0, 0", "EPERM"),
        ("quotactl", "179, 0, 0, 0, 0", "EPERM"),
        ("personality", "135, 0x0040000", "EPERM"),
        ("TIOCSTI", "16, 0, 0x5412, 0", "EPERM"),
        ("TIOCLINUX", "16, 0, 0x541c, 0", "EPERM"),
        ("TIOCSETD", "16, 0, 0x5423, 0", "EPERM"),
        ("netlink socket", "41, 16, 3, 0", "EAFNOSUPPORT"),
        ("packet socket", "41, 17, 3, 0", "EAFNOSUPPORT"),
        ("vsock socket", "41, 40, 1, 0", "EAFNOSUPPORT"),
        ("crypto socket", "41, 38, 5, 0", "EAFNOSUPPORT"),
        ("sctp socket", "41, 2, 1, 132", "EAFNOSUPPORT"),
        ("raw socket", "41, 2, 3, 1", "EAFNOSUPPORT"),
        ("dccp socket", "41, 2, 6, 0", "EAFNOSUPPORT"),
        ("l2tp socket", "41, 10, 0x80002, 115", "EAFNOSUPPORT"),
        ("ping socket", "41, 2, 2, 1", "EAFNOSUPPORT"),
        ("netlink pair", "53, 16, 3, 0, 0", "EAFNOSUPPORT"),
        ("tipc pair", "53, 30, 5, 0, 0", "EAFNOSUPPORT"),
        ("tcp socket", "41, 2, 1, 0", "allowed"),
        ("unix socket", "41, 1, 1, 0", "allowed"),
        ("personality's default", "135, 0", "allowed"),
        ("getpid", "39", "allowed"),
    ];
    let lines: Vec<_> = calls
        .iter()
        .map(|(name, arguments, _)| format!("print({name:?}, call({arguments}))\n"))
        .collect();
    let ran = cells.python(&format!("{CALLS}{}", lines.concat())).await;
    let expected: Vec<_> = calls
        .iter()
        .map(|(name, _, said)| format!("{name} {said}\n"))
        .collect();
    assert_eq!(
        ran.stdout_text(),
        expected.concat(),
        "{}",
        ran.stderr_text()
    );
    cells.end().await;
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn foreign_abis_kill_the_process() {
    let mut cells = CellFixture::new("abi").await;
    let ran = cells.python(&format!("{CALLS}call(0x40000000 + 39)")).await;
    assert_eq!(ran.report.end, ProgramEnd::Signaled(SIGSYS), "x32");
    // mov eax, 20 (getpid); int 0x80; ret
    let ran = cells
        .python(
            r#"
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(b"\xb8\x14\0\0\0\xcd\x80\xc3")
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"#,
        )
        .await;
    assert_eq!(ran.report.end, ProgramEnd::Signaled(SIGSYS), "i386");
    cells.assert_no_trace("calls of foreign ABIs").await;
    cells.end().await;
}
