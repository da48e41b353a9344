//! Who the program is: an unprivileged user with no way to become another.

use std::fs::File;
use std::io::Read;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use sandhog_runner::CELL_USERS;

use super::CellError;
use super::error::Step;

/// `CAP_KILL`, from `linux/capability.h`.
const CAP_KILL: u32 = 5;

/// What a zygote keeps through its exec: `SETGID`, `SETUID`, `SYS_CHROOT` and `SYS_ADMIN`, all to enter cells with.
const ZYGOTE_CAPABILITIES: u32 = 1 << 6 | 1 << 7 | 1 << 18 | 1 << 21;

/// The highest number a capability may ever have: they live in 64 bits.
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
    /// Draws one.
    ///
    /// # Errors
    /// When the container has no source of random numbers.
    pub(super) fn draw() -> Result<Self, CellError> {
        let mut bytes = [0; 4];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut bytes))
            .step("draw a user for programs")?;
        Ok(Self::from_random(u32::from_ne_bytes(bytes)))
    }

    fn from_random(random: u32) -> Self {
        Self(CELL_USERS.start + random % (CELL_USERS.end - CELL_USERS.start))
    }

    /// Its number.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// It, as a user.
    pub(super) fn uid(self) -> Uid {
        Uid::from_raw(self.0)
    }

    /// Its group.
    pub(super) fn gid(self) -> Gid {
        Gid::from_raw(self.0)
    }
}

/// Has the kernel spare this process and its zygote, as far as the engine lets it, when
/// the container runs out of memory. A program can lower its own mark as far, and is larger then.
pub(super) fn be_killed_last() {
    // Lower than the engine's minimum is refused; then the engine's own mark stands.
    std::fs::write("/proc/self/oom_score_adj", "0").ok();
}

/// Marks a zygote's capabilities, of those this process has, as ones that an exec by root keeps. Every process that is
/// to become a program clears that mark.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn let_a_zygote_inherit() -> Result<(), CellError> {
    let own = capabilities().step("read the runner's capabilities")?;
    let wanted = own.permitted & ZYGOTE_CAPABILITIES;
    set_capabilities(own.permitted, wanted).step("let a zygote inherit its capabilities")
}

/// Gives up all that a zygote does not need, just before its exec.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn become_zygote() -> Result<(), CellError> {
    let own = capabilities().step("read the runner's capabilities")?;
    let wanted = own.permitted & ZYGOTE_CAPABILITIES;
    set_capabilities(wanted, own.inheritable & wanted).step("keep a zygote's capabilities")
}

/// Makes sure that no process started from here on, by exec, can hold a capability but a zygote. This process keeps its
/// own.
///
/// # Errors
/// When the container lacks `SETPCAP`.
pub(super) fn empty_bounding_set() -> Result<(), CellError> {
    set_no_new_privs().step("set no-new-privileges")?;
    for capability in 0..=MOST_CAPABILITIES {
        // SAFETY: PR_CAPBSET_DROP takes a number and no pointer.
        let done =
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, UNUSED, UNUSED, UNUSED) };
        match Errno::result(done) {
            Ok(_) => {}
            // Past the last capability this kernel knows.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(CellError::new("empty the capability bounding set", errno)),
        }
    }
    let clear = libc::c_ulong::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs());
    // SAFETY: PR_CAP_AMBIENT_CLEAR_ALL takes no further argument and no pointer.
    let done = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, UNUSED, UNUSED, UNUSED) };
    match Errno::result(done) {
        // gVisor has no ambient set to clear, and says it does not know the request.
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(CellError::new("clear the ambient capabilities", errno)),
    }
}

/// Becomes the cell's user, with no other group and no capability in any set.
///
/// # Errors
/// When the kernel refuses a step.
pub(super) fn become_cell_user(user: CellUser) -> Result<(), CellError> {
    let (uid, gid) = (user.uid(), user.gid());
    setgroups(&[]).step("drop the supplementary groups")?;
    setresgid(gid, gid, gid).step("change to the cell's group")?;
    setresuid(uid, uid, uid).step("change to the cell's user")?;
    keep_capabilities(0).step("drop the capabilities")
}

/// Drops every capability but the right to signal other users' processes.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn keep_only_kill() -> Result<(), CellError> {
    keep_capabilities(1 << CAP_KILL).step("drop the init's capabilities")
}

/// Sets permitted and effective to these of the first 32 capabilities, inheritable to none.
fn keep_capabilities(low: u32) -> Result<(), Errno> {
    set_capabilities(low, 0)
}

/// The first 32 capabilities of this process; the runner has no others.
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
    // SAFETY: both are live, writable and laid out as `capget` wants for version 3: one header, two sets.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    Errno::result(done).map(|_zero| sets[0])
}

/// Sets permitted and effective to `low` of the first 32 capabilities, inheritable to `kept`, all others to none.
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
    // SAFETY: both are live and laid out as `capset` wants for version 3: one header, two sets. It writes to the
    // header only for a version it does not know, and every kernel since 2.6.26 knows version 3.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_drawn_from_their_range() {
        for random in [0, 1, 999_999, 1_000_000, u32::MAX] {
            let user = CellUser::from_random(random);
            assert!(CELL_USERS.contains(&user.number()), "{random}: {user:?}");
        }
        assert_ne!(CellUser::from_random(1), CellUser::from_random(2));
    }
}
