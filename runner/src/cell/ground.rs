//! What all cells of a container share, made once when the runner starts.

use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::prctl::set_dumpable;

use sandhog_runner::protocol::{CgroupSupport, Features};

use super::cgroup::Hierarchy;
use super::error::{INSTALL_FILTER, Step};
use super::identity::CellUser;
use super::mounts::MountAbilities;
use super::network::KeptNetworks;
use super::seccomp::Filter;
use super::{
    CellError, descriptors, etc, heap, identity, loopback, mounts, namespaces, rlimits, wall,
};

/// The prepared container: hidden machine, open cgroups, compiled filter.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(super) user: CellUser,
    pub(super) hierarchy: Hierarchy,
    pub(super) filter: Option<Filter>,
    pub(super) network: Network,
    /// Network namespaces that were perhaps not used, where cells have their own with the loopback up. A cell that is
    /// over puts its own back.
    pub(super) kept_networks: Option<Rc<KeptNetworks>>,
    pub(super) mounts: MountAbilities,
    /// A cell's mounts stay when it is gone, as in early gVisor; no second cell may be made then.
    pub(super) lasting_mounts: bool,
    /// Whether every wall stands; one that does not is left out of started programs, and clones would not know.
    whole: bool,
    features: Features,
}

/// What a cell has of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// A namespace of its own, its loopback up.
    Own,
    /// A namespace of its own, its loopback down: the container lacks `NET_ADMIN`.
    OwnDown,
    /// The container's.
    Shared,
}

impl Ground {
    /// Prepares this container. Tries what can be missing and remembers it.
    ///
    /// # Errors
    /// When something is refused without which no cell is safe: the mounts and the loss of capabilities.
    pub(crate) fn prepare() -> Result<Self, CellError> {
        heap::keep_small();
        set_dumpable(false).step("make the runner undumpable")?;
        identity::be_killed_last();
        // What may be inherited is settled by what the bounding set was.
        identity::let_a_zygote_inherit()?;
        identity::empty_bounding_set()?;
        let mut missing = Vec::new();
        let down = wall::down()?;
        missing.extend(
            down.iter()
                .map(|wall| format!("the wall {wall} is left out, for a test")),
        );
        let (hierarchy, no_cgroup) = Hierarchy::open();
        missing.extend(no_cgroup);
        mounts::make_private()?;
        let mounts = mounts::make_own_dir()?;
        if !mounts.inode_caps {
            missing.push("the number of files in a scratch space is not capped".to_owned());
        }
        if !mounts.read_only_binds {
            missing.push("/proc/sys is kept from programs by their user alone".to_owned());
        }
        let lasting = mounts_leak()?;
        if lasting {
            missing
                .push("mounts outlive their namespace: a container serves one job only".to_owned());
        }
        // gVisor knows no such cap; its terminals are not the machine's.
        if let Err(error) = mounts::cap_terminals() {
            missing.push(format!("terminals have no cap: {}", error.line()));
        }
        rlimits::learn_the_machines_files();
        let user = CellUser::draw()?;
        etc::replace(user)?;
        mounts::hide_machine()?;

        let network = match try_in_child(true, try_loopback) {
            Ok(0) => Network::Own,
            Ok(_) => {
                missing.push("the loopback of a cell stays down: no NET_ADMIN".to_owned());
                Network::OwnDown
            }
            Err(error) => {
                missing.push(format!("no network namespace per cell: {}", error.line()));
                Network::Shared
            }
        };
        let (filter, no_filter) = try_filter()?;
        missing.extend(no_filter);
        let features = Features {
            cgroup: hierarchy.support(),
            network_namespace: network != Network::Shared,
            seccomp: filter.is_some(),
            missing,
            memory_bytes: None,
        };
        Ok(Self {
            user,
            hierarchy,
            filter,
            network,
            kept_networks: (network == Network::Own).then(Rc::default),
            mounts,
            lasting_mounts: lasting,
            whole: down.is_none(),
            features,
        })
    }

    /// Whether a cell leaves nothing behind, so that one can be made for nothing.
    pub(crate) fn can_be_tried(&self) -> bool {
        !self.lasting_mounts
    }

    /// Whether what a cell uses is counted by a cgroup.
    pub(crate) fn counts_by_cgroup(&self) -> bool {
        match self.hierarchy.support() {
            CgroupSupport::V1 | CgroupSupport::V2 => true,
            CgroupSupport::None => false,
        }
    }

    /// Whether no wall is left out for a test.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether each cell has a network namespace.
    pub(super) fn has_network_namespaces(&self) -> bool {
        match self.network {
            Network::Own | Network::OwnDown => true,
            Network::Shared => false,
        }
    }

    /// What this kernel and runtime were found to give.
    pub(crate) fn features(&self) -> &Features {
        &self.features
    }

    /// What the whole container holds now, in bytes without file cache.
    pub(crate) fn memory_in_use(&self) -> Option<u64> {
        self.hierarchy.memory_in_use()
    }
}

/// Whether what is mounted in a cell's namespaces is mounted here too.
fn mounts_leak() -> Result<bool, CellError> {
    mounts::make_mark()?;
    match try_in_child(false, || i32::from(!mounts::leave_a_mark()))? {
        0 => mounts::leaked(),
        _ => Err(CellError::new("mount in a cell's namespaces", Errno::EPERM)),
    }
}

/// Whether the loopback comes up: 0 or 1.
fn try_loopback() -> i32 {
    i32::from(loopback::bring_up().is_err())
}

/// The filter, compiled and once installed for real in a child that then ends.
///
/// # Errors
/// Fails if the kernel has filters and refuses this one, as it does while the machine's room for
/// their code is used up: a container without the filter must not come of that.
fn try_filter() -> Result<(Option<Filter>, Option<String>), CellError> {
    /// Exit code of a child whose kernel has no filters.
    const NO_FILTERS: i32 = 1;
    let filter = match Filter::compile() {
        Ok(filter) => filter,
        Err(error) => return Ok((None, Some(format!("no seccomp filter: {error}")))),
    };
    let install = || match filter.install() {
        Ok(()) => 0,
        Err(_error) if matches!(Errno::last(), Errno::EINVAL | Errno::ENOSYS) => NO_FILTERS,
        Err(_error) => NO_FILTERS + 1,
    };
    match try_in_child(false, install)? {
        0 => Ok((Some(filter), None)),
        NO_FILTERS => {
            let missing = "no seccomp filter: the kernel has none".to_owned();
            Ok((None, Some(missing)))
        }
        _ => Err(CellError::new(INSTALL_FILTER, Errno::UnknownErrno)),
    }
}

/// Runs `step` in a child, in a cell's namespaces, and returns what it returned.
fn try_in_child(network: bool, step: impl Fn() -> i32) -> Result<i32, CellError> {
    use sandhog_runner::protocol::End;

    match namespaces::clone(namespaces::flags(network)).step("make namespaces")? {
        None => {
            descriptors::close_all_but(&[]).ok();
            namespaces::leave(step())
        }
        Some(pid) => loop {
            let ended = super::reap_one(true).step("wait for a trial")?;
            match ended {
                Some(ended) if ended.pid == pid => {
                    return match ended.end {
                        End::Exited(code) => Ok(code),
                        End::Signaled(_) | End::NotStarted(_) => Ok(1),
                    };
                }
                Some(_) | None => {}
            }
        },
    }
}
