//! The filter of a program: the refused calls, and the compilation of their rules.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpOp, SeccompFilter, SeccompRule, sock_filter,
};

use super::argument_rules::{argument_rules, calls_with_argument_rules, core_limit_rules};
use super::number_search::{FilterAnswer, number_search};
use super::rule::{FilterError, dword, none_of, rule};
use crate::cell::wall::Wall;

/// Calls refused with `EPERM` for all arguments.
const REFUSED: &[libc::c_long] = &[
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Other processes' memory and descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Files by handle, which bypasses every mount.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    // Large parts of the kernel that often have flaws.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The slots of asynchronous I/O are shared by the whole machine (`fs.aio-max-nr`).
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    libc::SYS_io_getevents,
    IO_PGETEVENTS,
    libc::SYS_io_cancel,
    libc::SYS_io_destroy,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_lookup_dcookie,
    libc::SYS_memfd_secret,
    // The machine itself.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
];

/// `io_pgetevents`, which the C library's header of x86-64 lacks.
#[cfg(target_arch = "x86_64")]
const IO_PGETEVENTS: libc::c_long = 333;
#[cfg(not(target_arch = "x86_64"))]
const IO_PGETEVENTS: libc::c_long = 292;

/// Calls that return success without being made. They would write every file system of the machine
/// to its disks, although a cell can write only to memory.
const FAKED_SUCCESS: [libc::c_long; 2] = [libc::SYS_sync, libc::SYS_syncfs];

/// Flags of `clone` that make namespaces, and `CLONE_PARENT`, which makes a process with the same
/// parent as the caller. The parent of a clone of the zygote is outside the cell.
const CLONE_FLAGS: [libc::c_int; 8] = [
    libc::CLONE_PARENT,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// Socket families that a program may use. A cell has no way out, so they reach only the cell
/// itself.
const FAMILIES: [libc::c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// Types of Internet sockets. For other types the kernel would load a module (DCCP) or hand out
/// whole packets (`SOCK_PACKET`).
const TYPES: [libc::c_int; 2] = [libc::SOCK_STREAM, libc::SOCK_DGRAM];

/// Bits of a socket's type that are not flags.
const TYPE_BITS: u32 = 0xf;

/// Protocols of Internet sockets: the default of the type, TCP and UDP. For others the kernel would
/// load modules (SCTP, L2TP). The protocol of pings is not included, because a new network
/// namespace permits pings to no group.
const PROTOCOLS: [libc::c_int; 3] = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP];

/// Values of `personality` that change nothing: the default, and the query.
const PERSONALITIES: [u32; 2] = [0, u32::MAX];

/// Requests that insert input into a terminal or make the kernel load a line discipline for it.
const IOCTLS: [u64; 3] = [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD];

/// Compiled filter of a program.
#[derive(Debug)]
pub(in crate::cell) struct Filter(BpfProgram);

impl Filter {
    /// Compiles one filter from several parts, because the kernel needs time for every filter that
    /// it installs.
    ///
    /// # Errors
    /// Fails on an architecture that the compiler does not support.
    pub(in crate::cell) fn compile() -> Result<Self, FilterError> {
        let sorted = number_search(&answers(), &parts(RefusedCalls::InSearch)?);
        Ok(Self(match sorted {
            Some(sorted) => sorted,
            None => parts(RefusedCalls::InParts)?,
        }))
    }

    /// Returns the filter in the kernel's format, in hexadecimal digits.
    pub(in crate::cell) fn in_hex(&self) -> String {
        hex(&self.0)
    }

    /// Installs the filter on this process permanently. Also sets no-new-privileges.
    ///
    /// # Errors
    /// Fails if the kernel has no seccomp filters.
    pub(in crate::cell) fn install(&self) -> Result<(), FilterError> {
        Ok(seccompiler::apply_filter(&self.0)?)
    }
}

/// Treatment of the calls that are refused for all arguments, in the parts of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefusedCalls {
    /// Left out: the search answers them by their number.
    InSearch,
    /// Included: each one is compared in turn.
    InParts,
}

/// Joins the parts whose walls are not left out.
fn parts(refused_calls: RefusedCalls) -> Result<BpfProgram, FilterError> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = match refused_calls {
        RefusedCalls::InSearch => BTreeMap::new(),
        RefusedCalls::InParts => REFUSED.iter().map(|call| (*call, Vec::new())).collect(),
    };
    refused.insert(libc::SYS_clone, clone_rules()?);
    refused.insert(
        libc::SYS_personality,
        vec![rule(none_of(0, &PERSONALITIES)?)?],
    );
    refused.insert(
        libc::SYS_ioctl,
        IOCTLS
            .iter()
            .map(|request| rule(vec![dword(1, SeccompCmpOp::Eq, *request)?]))
            .collect::<Result<_, _>>()?,
    );
    // The flags of `clone3` lie in memory, which a filter cannot read. Programs fall back to
    // `clone`.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let mut faked = core_limit_rules()?;
    if refused_calls == RefusedCalls::InParts {
        faked.extend(FAKED_SUCCESS.iter().map(|call| (*call, Vec::new())));
    }
    let families = BTreeMap::from([
        (libc::SYS_socket, socket_rules()?),
        (libc::SYS_socketpair, pair_rules()?),
    ]);
    // The part that kills precedes the parts that refuse.
    let parts = [
        (Wall::SecondAbi, no_second_abi()),
        (Wall::Calls, Some(program(refused, libc::EPERM)?)),
        (Wall::Calls, Some(program(faked, 0)?)),
        (Wall::CloneThree, Some(program(unknown, libc::ENOSYS)?)),
        (Wall::Families, Some(program(families, libc::EAFNOSUPPORT)?)),
        (
            Wall::Arguments,
            Some(program(argument_rules()?, libc::EINVAL)?),
        ),
    ];
    let standing = parts.into_iter().filter(|(wall, _)| {
        wall.stands() && (*wall != Wall::CloneThree || refused_calls == RefusedCalls::InParts)
    });
    Ok(joined(standing.filter_map(|(_, part)| part).collect()))
}

/// Returns the answer to each call of the filter by its number alone. The answer is
/// [`FilterAnswer::Depends`] if the arguments decide.
fn answers() -> BTreeMap<u32, FilterAnswer> {
    let refused = FilterAnswer::Refused(libc::EPERM.unsigned_abs());
    let unknown = FilterAnswer::Refused(libc::ENOSYS.unsigned_abs());
    let some = |wall: Wall, calls: &[libc::c_long], answer| {
        let numbers = calls.iter().filter_map(|call| u32::try_from(*call).ok());
        let standing = numbers.filter(move |_| wall.stands());
        standing.map(|number| (number, answer)).collect::<Vec<_>>()
    };
    let looked_at = [
        libc::SYS_clone,
        libc::SYS_personality,
        libc::SYS_ioctl,
        libc::SYS_setrlimit,
        libc::SYS_prlimit64,
    ];
    let mut all = BTreeMap::new();
    all.extend(some(Wall::Calls, REFUSED, refused));
    all.extend(some(Wall::Calls, &looked_at, FilterAnswer::Depends));
    all.extend(some(Wall::Calls, &FAKED_SUCCESS, FilterAnswer::Refused(0)));
    all.extend(some(Wall::CloneThree, &[libc::SYS_clone3], unknown));
    let sockets = [libc::SYS_socket, libc::SYS_socketpair];
    all.extend(some(Wall::Families, &sockets, FilterAnswer::Depends));
    all.extend(some(
        Wall::Arguments,
        &calls_with_argument_rules(),
        FilterAnswer::Depends,
    ));
    all
}

/// Joins several programs into one. A call that one program allows goes to the next, and the first
/// program that does not allow it answers.
fn joined(parts: Vec<BpfProgram>) -> BpfProgram {
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA, from the step after it
    let allow: u32 = SeccompAction::Allow.into();
    let last = parts.len().saturating_sub(1);
    let mut whole = BpfProgram::new();
    for (number, mut part) in parts.into_iter().enumerate() {
        let left = (0..part.len()).rev();
        for (step, left) in part.iter_mut().zip(left) {
            if number < last && step.code == RETURN && step.k == allow {
                step.code = JUMP;
                step.k = u32::try_from(left).expect("a filter has at most 4096 steps");
            }
        }
        whole.extend(part);
    }
    whole
}

/// Encodes one `struct sock_filter` after another, in this machine's byte order and in hexadecimal
/// digits.
fn hex(filter: &[sock_filter]) -> String {
    filter
        .iter()
        .flat_map(|step| {
            let [c0, c1] = step.code.to_ne_bytes();
            let [k0, k1, k2, k3] = step.k.to_ne_bytes();
            [c0, c1, step.jt, step.jf, k0, k1, k2, k3]
        })
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn clone_rules() -> Result<Vec<SeccompRule>, FilterError> {
    CLONE_FLAGS
        .iter()
        .map(|flag| {
            let flag = u64::from(flag.unsigned_abs());
            rule(vec![dword(0, SeccompCmpOp::MaskedEq(flag), flag)?])
        })
        .collect()
}

fn socket_rules() -> Result<Vec<SeccompRule>, FilterError> {
    let unsigned = libc::c_int::unsigned_abs;
    let internet = || dword(0, SeccompCmpOp::Ne, u64::from(unsigned(libc::AF_UNIX)));
    let mut rules = vec![rule(none_of(0, &FAMILIES.map(unsigned))?)?];
    let types = TYPES.map(unsigned);
    // No comparison both applies a mask and tests for inequality, so each other type gets a rule.
    for other in (0..=TYPE_BITS).filter(|bits| !types.contains(bits)) {
        let same = SeccompCmpOp::MaskedEq(u64::from(TYPE_BITS));
        rules.push(rule(vec![internet()?, dword(1, same, u64::from(other))?])?);
    }
    let mut protocol = none_of(2, &PROTOCOLS.map(unsigned))?;
    protocol.push(internet()?);
    rules.push(rule(protocol)?);
    Ok(rules)
}

/// Refuses all families except Unix. Only Unix sockets come in pairs, but the kernel would first
/// try the other families.
fn pair_rules() -> Result<Vec<SeccompRule>, FilterError> {
    let families = [libc::AF_UNIX.unsigned_abs()];
    Ok(vec![rule(none_of(0, &families)?)?])
}

/// Builds a program that answers matching calls with `errno` and kills on calls of another
/// architecture.
fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: libc::c_int,
) -> Result<BpfProgram, FilterError> {
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(BpfProgram::try_from(filter)?)
}

/// Builds a program that kills on a call of the x32 ABI, which shares x86-64's architecture number
/// and would bypass every rule.
#[cfg(target_arch = "x86_64")]
fn no_second_abi() -> Option<BpfProgram> {
    const X32_BIT: u32 = 0x4000_0000;
    const LOAD_CALL_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, at offset 0 of seccomp_data
    const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    Some(vec![
        step(LOAD_CALL_NUMBER, 0, 0, 0),
        step(JUMP_IF_AT_LEAST, 0, 1, X32_BIT),
        step(RETURN, 0, 0, SeccompAction::KillProcess.into()),
        step(RETURN, 0, 0, SeccompAction::Allow.into()),
    ])
}

/// Returns `None`, because only x86-64 has two ABIs under one number.
#[cfg(not(target_arch = "x86_64"))]
fn no_second_abi() -> Option<BpfProgram> {
    None
}

#[cfg(test)]
mod tests;
