//! Ordinary calls that are refused for some of their arguments. Those arguments reach resources
//! that the whole machine shares, or features that no program in a cell needs.
//!
//! - Socket filters and seccomp filters are machine code, and the kernel bounds that code for all
//!   users together (`net.core.bpf_jit_limit`). A program that uses it up would keep every other
//!   cell of the machine from installing its own filter.
//! - IPv6 flow labels have one count for the whole machine.
//! - `PR_SCHED_CORE` can force a sibling hardware thread to stay idle.
//! - Urgent data (`MSG_OOB`) on Unix sockets had a use after free (CVE-2025-38236) and has no other
//!   use here.
//!
//! The answer is `EINVAL`, as from a kernel that was built without these features. Programs can
//! handle that.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::rule::{FilterError, dword, none_of, rule};

/// Socket options that attach a filter, or keep one attached.
const SOCKET_FILTERS: [libc::c_int; 5] = [
    libc::SO_ATTACH_FILTER,
    libc::SO_LOCK_FILTER,
    libc::SO_ATTACH_BPF,
    libc::SO_ATTACH_REUSEPORT_CBPF,
    libc::SO_ATTACH_REUSEPORT_EBPF,
];

/// `IPV6_FLOWLABEL_MGR` of linux/in6.h.
const FLOW_LABEL_MANAGER: libc::c_int = 32;

/// Operations of `seccomp` that only query: `SECCOMP_GET_ACTION_AVAIL` and
/// `SECCOMP_GET_NOTIF_SIZES`.
const SECCOMP_QUESTIONS: [u32; 2] = [2, 3];

/// Operations of `prctl` that are refused. The second is `PR_SCHED_CORE` of linux/prctl.h.
const PROCESS_CONTROLS: [libc::c_int; 2] = [libc::PR_SET_SECCOMP, 62];

/// Calls that take the flags of a message, each with the position of that argument.
const MESSAGES: [(libc::c_long, u8); 6] = [
    (libc::SYS_sendto, 3),
    (libc::SYS_sendmsg, 2),
    (libc::SYS_sendmmsg, 3),
    (libc::SYS_recvfrom, 3),
    (libc::SYS_recvmsg, 2),
    (libc::SYS_recvmmsg, 3),
];

/// Returns the calls whose arguments are compared here.
pub(super) fn calls_with_argument_rules() -> Vec<libc::c_long> {
    let messages = MESSAGES.iter().map(|(call, _)| *call);
    [libc::SYS_setsockopt, libc::SYS_seccomp, libc::SYS_prctl]
        .into_iter()
        .chain(messages)
        .collect()
}

/// Returns the rules that refuse each call.
///
/// # Errors
/// Fails if a rule is wrong.
pub(super) fn argument_rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, FilterError> {
    let option =
        |level: libc::c_int, name: libc::c_int| rule(vec![equals(1, level)?, equals(2, name)?]);
    let mut options = SOCKET_FILTERS
        .iter()
        .map(|name| option(libc::SOL_SOCKET, *name))
        .collect::<Result<Vec<_>, _>>()?;
    options.push(option(libc::IPPROTO_IPV6, FLOW_LABEL_MANAGER)?);
    let controls = PROCESS_CONTROLS
        .iter()
        .map(|control| rule(vec![equals(0, *control)?]))
        .collect::<Result<Vec<_>, _>>()?;
    let mut all = BTreeMap::from([
        (libc::SYS_setsockopt, options),
        (
            libc::SYS_seccomp,
            vec![rule(none_of(0, &SECCOMP_QUESTIONS)?)?],
        ),
        (libc::SYS_prctl, controls),
    ]);
    let urgent = u64::from(libc::MSG_OOB.unsigned_abs());
    for (call, flags) in MESSAGES {
        let is_urgent = dword(flags, SeccompCmpOp::MaskedEq(urgent), urgent)?;
        all.insert(call, vec![rule(vec![is_urgent])?]);
    }
    Ok(all)
}

/// Returns the rules for the calls that set the limit on core dumps. These calls return success
/// without being made. With a limit of zero the kernel would start the program to which the machine
/// pipes dumps, on the host; the limit that a cell has prevents that.
///
/// # Errors
/// Fails if a rule is wrong.
pub(super) fn core_limit_rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, FilterError> {
    let resource = libc::c_int::try_from(libc::RLIMIT_CORE).expect("resources have small numbers");
    let sets = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
    Ok(BTreeMap::from([
        (libc::SYS_setrlimit, vec![rule(vec![equals(0, resource)?])?]),
        (
            libc::SYS_prlimit64,
            vec![rule(vec![equals(1, resource)?, sets])?],
        ),
    ]))
}

fn equals(argument: u8, value: libc::c_int) -> Result<seccompiler::SeccompCondition, FilterError> {
    let value = u64::from(value.unsigned_abs());
    dword(argument, SeccompCmpOp::Eq, value)
}
