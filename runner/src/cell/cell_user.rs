//! User and capabilities of the program: an unprivileged user that cannot become another one.

use std::fs::File;
use std::io::Read;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::error::Step;
use super::{CellError, id_ranges};

/// `CAP_KILL`, from `linux/capability.h`.
const CAP_KILL: u32 = 5;

/// Capabilities that a zygote keeps across its exec: `SETGID`, `SETUID`, `SYS_CHROOT` and
/// `SYS_ADMIN`. It needs all of them to enter cells.
const ZYGOTE_CAPABILITIES: u32 = 1 << 6 | 1 << 7 | 1 << 18 | 1 << 21;

/// Highest possible number of a capability: the kernel stores capabilities in 64 bits.
const MOST_CAPABILITIES: libc::c_ulong = 63;

/// An unused argument of `prctl`, which reads its arguments as longs.
const UNUSED: libc::c_ulong = 0;

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct CapabilitySets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The user, and the group of the same number, that this container's programs run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CellUser(u32);

impl CellUser {
    /// Draws a user at random, from those that programs may run as in this user namespace.
    ///
    /// # Errors
    /// Fails if the container has no source of random numbers, or its user namespace too few users.
    pub(super) fn draw() -> Result<Self, CellError> {
        let mut bytes = [0; 4];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut bytes))
            .step("draw a user for programs")?;
        let drawn = id_ranges::cell_users()?.pick(u32::from_ne_bytes(bytes));
        drawn
            .map(Self)
            .ok_or_else(|| CellError::new("draw a user for programs", Errno::EINVAL))
    }

    /// Returns the number of the user.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// Returns the user.
    pub(super) fn uid(self) -> Uid {
        Uid::from_raw(self.0)
    }

    /// Returns the group of the same number.
    pub(super) fn gid(self) -> Gid {
        Gid::from_raw(self.0)
    }
}

/// Lowers the OOM score of this process and its zygote, as far as the engine permits, so that the
/// kernel kills them last when the container runs out of memory. A program can lower its own score
/// to the same value, but it is then larger than the runner and still killed first.
pub(crate) fn lower_oom_score() {
    // The kernel refuses a value below the minimum that the engine set. In that case the engine's
    // score stays.
    std::fs::write("/proc/self/oom_score_adj", "0").ok();
}

/// Makes those capabilities of the zygote that this process has inheritable, so that an exec by
/// root keeps them. Every process that becomes a program clears its inheritable set.
///
/// # Errors
/// Fails if the kernel refuses.
pub(super) fn make_zygote_caps_inheritable() -> Result<(), CellError> {
    let own = capabilities().step("read the runner's capabilities")?;
    let wanted = own.permitted & ZYGOTE_CAPABILITIES;
    set_capabilities(own.permitted, wanted).step("let a zygote inherit its capabilities")
}

/// Drops all capabilities that a zygote does not need. Called just before the zygote's exec.
///
/// # Errors
/// Fails if the kernel refuses.
pub(super) fn become_zygote() -> Result<(), CellError> {
    let own = capabilities().step("read the runner's capabilities")?;
    let wanted = own.permitted & ZYGOTE_CAPABILITIES;
    set_capabilities(wanted, own.inheritable & wanted).step("keep a zygote's capabilities")
}

/// Ensures that no process started by an exec from here on can have a capability, except the
/// zygote. This process keeps its own capabilities.
///
/// # Errors
/// Fails if the container lacks `SETPCAP`.
pub(super) fn empty_bounding_set() -> Result<(), CellError> {
    set_no_new_privs().step("set no-new-privileges")?;
    for capability in 0..=MOST_CAPABILITIES {
        // SAFETY: PR_CAPBSET_DROP takes a number and no pointer.
        let done =
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, UNUSED, UNUSED, UNUSED) };
        match Errno::result(done) {
            Ok(_) => {}
            // The number is above the last capability of this kernel.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(CellError::new("empty the capability bounding set", errno)),
        }
    }
    let clear = libc::c_ulong::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs());
    // SAFETY: PR_CAP_AMBIENT_CLEAR_ALL takes no further argument and no pointer.
    let done = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, UNUSED, UNUSED, UNUSED) };
    match Errno::result(done) {
        // gVisor has no ambient set to clear and returns `EINVAL` for the unknown request.
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(CellError::new("clear the ambient capabilities", errno)),
    }
}

/// Makes this process run as the cell's user, with no other group and no capability in any set.
///
/// # Errors
/// Fails if the kernel refuses a step.
pub(super) fn become_cell_user(user: CellUser) -> Result<(), CellError> {
    let (uid, gid) = (user.uid(), user.gid());
    setgroups(&[]).step("drop the supplementary groups")?;
    setresgid(gid, gid, gid).step("change to the cell's group")?;
    setresuid(uid, uid, uid).step("change to the cell's user")?;
    keep_capabilities(0).step("drop the capabilities")
}

/// Drops every capability except the right to signal other users' processes.
///
/// # Errors
/// Fails if the kernel refuses.
pub(super) fn keep_only_kill() -> Result<(), CellError> {
    keep_capabilities(1 << CAP_KILL).step("drop the init's capabilities")
}

/// Sets the permitted and effective sets to `low`, a set of the first 32 capabilities, and empties
/// the inheritable set.
fn keep_capabilities(low: u32) -> Result<(), Errno> {
    set_capabilities(low, 0)
}

/// Returns the first 32 capabilities of this process. The runner has no others.
fn capabilities() -> Result<CapabilitySets, Errno> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut sets = [CapabilitySets {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: both pointers are live, writable and laid out as `capget` requires for version 3: one
    // header and two sets.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    Errno::result(done).map(|_zero| sets[0])
}

/// Sets the permitted and effective sets to `low` and the inheritable set to `kept`. Both hold only
/// the first 32 capabilities; all others are dropped.
fn set_capabilities(low: u32, kept: u32) -> Result<(), Errno> {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let sets = [(low, kept), (0, 0)].map(|(bits, inheritable)| CapabilitySets {
        effective: bits,
        permitted: bits,
        inheritable,
    });
    // SAFETY: both pointers are live and laid out as `capset` requires for version 3: one header
    // and two sets. The kernel writes to the header only if it does not support the version, and
    // every kernel since 2.6.26 supports version 3.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandhog_protocol::install::CELL_USERS;

    #[test]
    fn users_are_drawn_from_their_range() {
        let user = CellUser::draw().unwrap().number();
        let whole = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        assert!(id_ranges::is_mapped(&whole) || CELL_USERS.contains(&user));
    }
}
