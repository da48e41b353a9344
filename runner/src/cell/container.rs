//! State that all cells of a container share. It is made once, when the runner starts.

use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::prctl::set_dumpable;

use sandhog_protocol::frames::{CgroupSupport, Features};

use super::cell_user::CellUser;
use super::cgroup::Hierarchy;
use super::error::{INSTALL_FILTER, Step};
use super::mounts::MountAbilities;
use super::network::NetworkPool;
use super::seccomp::Filter;
use super::server_request::KeeperSocket;
use super::{
    CellError, cell_user, descriptors, etc, loopback, malloc, mounts, namespaces, rlimits, wall,
};

/// The prepared container: the machine is hidden, the cgroups are open, the filter is compiled.
#[derive(Debug)]
pub(crate) struct PreparedContainer {
    pub(super) user: CellUser,
    pub(super) hierarchy: Hierarchy,
    pub(super) filter: Option<Filter>,
    pub(super) network: Network,
    /// Network namespaces of finished cells that may be unused. `Some` only if each cell has its
    /// own namespace with the loopback up. A finished cell puts its namespace back.
    pub(super) network_pool: Option<Rc<NetworkPool>>,
    pub(super) mounts: MountAbilities,
    /// The socket to the keeper, if a keeper made this sandbox.
    pub(super) keeper: Option<KeeperSocket>,
    /// True if a cell's mounts remain when the cell is gone, as in early gVisor. Then no second
    /// cell may be made.
    pub(super) mounts_leak: bool,
    /// True if no wall is left out for a test. The runner leaves a wall out only of the programs
    /// that it starts itself; the zygote's code ignores the setting.
    has_all_walls: bool,
    /// True if the keeper's trial sandbox has shown that nothing is missing here.
    is_tried: bool,
    features: Features,
}

/// Network that a cell has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// A namespace of its own, with the loopback up.
    Own,
    /// A namespace of its own, with the loopback down, because the container lacks `NET_ADMIN`.
    OwnDown,
    /// The network of the container.
    Shared,
}

impl PreparedContainer {
    /// Prepares this container. Tests which optional features are present and records the result.
    ///
    /// # Errors
    /// Fails if a step is refused without which no cell is safe, such as making mounts or dropping
    /// capabilities.
    pub(crate) fn prepare() -> Result<Self, CellError> {
        malloc::pin_malloc_thresholds();
        set_dumpable(false).step("make the runner undumpable")?;
        let keeper = KeeperSocket::inherited()?;
        cell_user::lower_oom_score();
        // The kernel allows a process to inherit only capabilities of the bounding set, so this
        // step comes before that set is emptied.
        cell_user::make_zygote_caps_inheritable()?;
        cell_user::empty_bounding_set()?;
        let mut missing = Vec::new();
        let down = wall::down()?;
        missing.extend(
            down.iter()
                .map(|wall| format!("the wall {wall} is left out, for a test")),
        );
        let is_tried = keeper.as_ref().is_some_and(KeeperSocket::is_tried);
        let (hierarchy, no_cgroup) = Hierarchy::open(is_tried)?;
        missing.extend(no_cgroup);
        mounts::make_private()?;
        let mounts = mounts::make_own_dir(is_tried)?;
        if !mounts.inode_caps {
            missing.push("the number of files in a scratch space is not capped".to_owned());
        }
        if !mounts.read_only_binds {
            missing.push("/proc/sys is protected by its file permissions alone".to_owned());
        }
        let mounts_leak = !is_tried && mounts_leak()?;
        if mounts_leak {
            missing
                .push("mounts outlive their namespace: a container serves one job only".to_owned());
        }
        // gVisor has no such cap, but its terminals are not those of the machine.
        if let Err(error) = mounts::cap_terminals() {
            missing.push(format!(
                "the number of terminals is not capped: {}",
                error.line()
            ));
        }
        rlimits::read_file_max();
        let user = CellUser::draw()?;
        etc::install_etc(user)?;
        mounts::hide_machine()?;

        let loopback = if is_tried {
            Ok(0)
        } else {
            try_in_child(true, try_loopback)
        };
        let network = match loopback {
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
        let (filter, no_filter) = try_filter(is_tried)?;
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
            network_pool: (network == Network::Own).then(Rc::default),
            keeper,
            mounts,
            mounts_leak,
            has_all_walls: down.is_none(),
            is_tried,
            features,
        })
    }

    /// Returns whether the runner makes a trial cell. It does not where a cell leaves something
    /// behind, or where the keeper's trial sandbox has made one.
    pub(crate) fn needs_trial_cell(&self) -> bool {
        !self.mounts_leak && !self.is_tried
    }

    /// Returns whether a cgroup counts the resources of a cell.
    pub(crate) fn counts_by_cgroup(&self) -> bool {
        match self.hierarchy.support() {
            CgroupSupport::V1 | CgroupSupport::V2 => true,
            CgroupSupport::None => false,
        }
    }

    /// Returns whether no wall is left out for a test.
    pub(crate) fn has_all_walls(&self) -> bool {
        self.has_all_walls
    }

    /// Returns whether each cell has its own network namespace.
    pub(super) fn has_network_namespaces(&self) -> bool {
        match self.network {
            Network::Own | Network::OwnDown => true,
            Network::Shared => false,
        }
    }

    /// Returns the features that this kernel and runtime provide.
    pub(crate) fn features(&self) -> &Features {
        &self.features
    }

    /// Returns the memory that the whole container uses now, in bytes, without file cache.
    pub(crate) fn memory_in_use(&self) -> Option<u64> {
        self.hierarchy.memory_in_use()
    }
}

/// Returns whether a mount that is made in a cell's namespaces also appears here.
fn mounts_leak() -> Result<bool, CellError> {
    mounts::make_trial_dir()?;
    match try_in_child(false, || i32::from(!mounts::make_trial_mount()))? {
        0 => mounts::trial_mount_leaked(),
        _ => Err(CellError::new("mount in a cell's namespaces", Errno::EPERM)),
    }
}

/// Brings up the loopback. Returns 0 on success and 1 on failure.
fn try_loopback() -> i32 {
    i32::from(loopback::bring_up_loopback().is_err())
}

/// Compiles the filter and, unless that `is_tried`, tests it by a real installation in a child,
/// which then exits. Without support for filters, returns no filter and the reason.
///
/// # Errors
/// Fails if the kernel supports filters but refuses this one, as it does while the machine's memory
/// for their code is used up. The container must not run without a filter for that reason.
fn try_filter(is_tried: bool) -> Result<(Option<Filter>, Option<String>), CellError> {
    /// Exit code of the child if its kernel has no filters.
    const NO_FILTERS: i32 = 1;
    let filter = match Filter::compile() {
        Ok(filter) => filter,
        Err(error) => return Ok((None, Some(format!("no seccomp filter: {error}")))),
    };
    if is_tried {
        return Ok((Some(filter), None));
    }
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

/// Runs `step` in a child, in the namespaces of a cell. Returns the result of `step`.
fn try_in_child(network: bool, step: impl Fn() -> i32) -> Result<i32, CellError> {
    use sandhog_protocol::frames::ProgramEnd;

    match namespaces::clone(namespaces::cell_namespaces(network)).step("make namespaces")? {
        None => {
            descriptors::close_descriptors_except(&[]).ok();
            namespaces::exit_now(step())
        }
        Some(pid) => loop {
            let ended = super::reap_one(true).step("wait for the trial process")?;
            match ended {
                Some(ended) if ended.pid == pid => {
                    return match ended.end {
                        ProgramEnd::Exited(code) => Ok(code),
                        ProgramEnd::Signaled(_) | ProgramEnd::NotStarted(_) => Ok(1),
                    };
                }
                Some(_) | None => {}
            }
        },
    }
}
