//! Keepers in a user namespace, as engines make one for each container: with 65,536 ids, or as few
//! as work at all.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

use sandhog_protocol::frames::{CgroupSupport, ProgramEnd};
use sandhog_protocol::install::ALLOW_NO_CGROUP_VARIABLE;
use sandhog_protocol::keeper::Open;

use crate::keeper_connection::{SandboxConnection, with_zygote};
use crate::keeper_fixture::{AMPLE, Delegation, KeeperFixture};
use crate::keeper_hostile::Neighbour;

/// Number of ids that engines give a container.
const IDS: u32 = 65_536;

/// Number of ids of which programs may have three: 3, 4 and 5. The group of terminals is 5.
const FEW_IDS: u32 = 6;

fn user_of(sandbox: &mut SandboxConnection) -> u32 {
    let (_, stdout) = sandbox.python("import os\nprint(os.getuid())");
    stdout.trim().parse().unwrap()
}

#[test]
fn a_keeper_in_a_user_namespace_makes_sandboxes_with_all_features() {
    let keeper = KeeperFixture::start_in_user_namespace("userns", IDS, Delegation::Delegated, &[]);
    keeper.wait_until_listening();
    let (_connection, hello) = keeper.connect();
    assert!(hello.user_namespace, "{hello:?}");
    assert_ne!(hello.cgroup, CgroupSupport::None);
    assert_eq!(hello.missing, Vec::<String>::new());
    let mut sandbox = keeper.open_with(&with_zygote(&["json"]));
    assert_eq!(sandbox.features.missing, Vec::<String>::new());
    assert_eq!(sandbox.start_zygote(&["json"]), None);
    let (report, stdout) = sandbox.python("print(open('/proc/self/uid_map').read().split()[2])");
    assert!(report.warm, "{report:?}");
    assert_eq!(stdout, format!("{IDS}\n"));
    let user = user_of(&mut sandbox);
    assert!((IDS / 2..IDS).contains(&user), "{user}");

    let mut small = keeper.open_with(&Open {
        memory_bytes: 64 << 20,
        ..AMPLE
    });
    small.begin_python("held = [bytearray(1 << 20) for _ in range(100)]");
    let (report, _) = small.finish();
    assert_eq!(report.end, ProgramEnd::Signaled(9), "{report:?}");
    let end = keeper.end_of(&small.close());
    assert!(end.oom, "{end:?}");
    assert_eq!(sandbox.python("print('on')").1, "on\n");
}

#[test]
fn a_keeper_whose_cgroups_are_not_delegated_ends_with_the_reason() {
    let keeper =
        KeeperFixture::start_in_user_namespace("userns-none", IDS, Delegation::NotDelegated, &[]);
    assert_eq!(keeper.exit_code(), "70");
    let log = keeper.log();
    for want in [
        "this container cannot hold sandboxes",
        "cgroup",
        ALLOW_NO_CGROUP_VARIABLE,
    ] {
        assert!(log.contains(want), "{want}: {log}");
    }
}

#[test]
fn sandboxes_without_cgroups_are_the_operators_choice_and_are_reported() {
    let variable = format!("{ALLOW_NO_CGROUP_VARIABLE}=1");
    let options = ["--env", &variable];
    let keeper = KeeperFixture::start_in_user_namespace(
        "userns-allowed",
        IDS,
        Delegation::NotDelegated,
        &options,
    );
    keeper.wait_until_listening();
    let (_connection, hello) = keeper.connect();
    assert_eq!(hello.cgroup, CgroupSupport::None);
    let [missing] = &hello.missing[..] else {
        panic!("one missing feature, not {:?}", hello.missing);
    };
    assert!(missing.starts_with("no cgroup per sandbox: "), "{missing}");
    let mut sandbox = keeper.open();
    let missing = sandbox.features.missing.join("; ");
    assert!(missing.contains("no cgroup per cell"), "{missing}");
    assert_eq!(sandbox.python("print('on')").1, "on\n");
}

#[test]
fn sandboxes_whose_programs_have_the_same_user_are_still_apart() {
    let keeper =
        KeeperFixture::start_in_user_namespace("userns-few", FEW_IDS, Delegation::Delegated, &[]);
    keeper.wait_until_listening();
    let mut neighbours = Vec::new();
    let mut attacker = loop {
        let mut sandbox = keeper.open();
        let user = user_of(&mut sandbox);
        // Of four sandboxes two have the same user.
        if neighbours.iter().any(|(other, _)| *other == user) {
            neighbours.retain(|(other, _)| *other == user);
            break sandbox;
        }
        neighbours.push((user, sandbox));
    };
    let (_, sandbox) = neighbours.pop().unwrap();
    let neighbour = Neighbour::start_in(sandbox);
    let (report, stdout) = attacker.python(include_str!("keeper_attacks/signals.py"));
    assert_eq!(stdout, "[]\n", "{report:?}");
    neighbour.assert_goes_on(&keeper);
}
