//! Programs that attack the keeper, its zygote and a neighbour: another sandbox of the same keeper.
//!
//! Each program is a file of `keeper_attacks/` and prints a list of its successes, which must be
//! empty. Meanwhile the neighbour uses all that could be taken from it. After the attack the
//! neighbour must go on, the attacked sandbox must run another program, and the keeper must make
//! another sandbox.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

use std::fs;

use sandhog_protocol::frames::{CallId, CallReport, ProgramEnd, Stop, ToRunner};
use sandhog_protocol::keeper::Open;

use crate::keeper_connection::{SandboxConnection, with_zygote};
use crate::keeper_fixture::{AMPLE, KeeperFixture};

const NEIGHBOUR: &str = include_str!("keeper_attacks/neighbour.py");

/// A sandbox in which a program uses all that could be taken from it.
pub(crate) struct Neighbour {
    sandbox: SandboxConnection,
    /// Output that was not read yet.
    text: String,
}

impl Neighbour {
    /// Starts the program and waits for its first round.
    fn start(keeper: &KeeperFixture) -> Self {
        Self::start_in(keeper.open_with(&with_zygote(&[])))
    }

    /// Starts the program in this sandbox and waits for its first round.
    pub(crate) fn start_in(mut sandbox: SandboxConnection) -> Self {
        assert_eq!(sandbox.start_zygote(&[]), None);
        sandbox.begin_python(NEIGHBOUR);
        let text = String::new();
        let mut neighbour = Self { sandbox, text };
        neighbour.wait_for_round_after(0);
        neighbour
    }

    /// Waits for a round that began after this call.
    fn wait_for_round(&mut self) {
        // The first round that ends after this moment may have begun before it.
        for _ in 0..2 {
            self.wait_for_round_after(uptime());
        }
    }

    fn wait_for_round_after(&mut self, centiseconds: u64) {
        loop {
            while let Some((line, rest)) = self.text.split_once('\n') {
                let ended: u64 = line
                    .parse()
                    .unwrap_or_else(|_error| panic!("the neighbour wrote {:?}", self.text));
                self.text = rest.to_owned();
                if ended > centiseconds {
                    return;
                }
            }
            self.text += &self.sandbox.output();
        }
    }

    /// Fails unless the program goes on, and the sandbox and its keeper do too.
    pub(crate) fn assert_goes_on(mut self, keeper: &KeeperFixture) {
        self.wait_for_round();
        let report = stop(&mut self.sandbox);
        assert_eq!(report.stop, Some(Stop::Cancelled), "{report:?}");
        assert_runs(&mut self.sandbox);
        let mut fresh = keeper.open_with(&with_zygote(&[]));
        assert_eq!(fresh.start_zygote(&[]), None);
        assert_runs(&mut fresh);
    }
}

/// Returns the time since the start of the machine, in hundredths of a second.
fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    let seconds = text.split(' ').next().unwrap();
    seconds.replace('.', "").parse().unwrap()
}

/// Stops the running program. Returns its report.
fn stop(sandbox: &mut SandboxConnection) -> CallReport {
    let id = CallId(1);
    sandbox.connection.send_to_runner(&ToRunner::Cancel { id });
    sandbox.finish().0
}

/// Fails unless the sandbox runs a program in a clone of the zygote.
fn assert_runs(sandbox: &mut SandboxConnection) {
    let (report, stdout) = sandbox.python("print('goes on')");
    assert!(report.warm, "{report:?}");
    assert_eq!(stdout, "goes on\n", "{report:?}");
}

/// Runs an attack in a sandbox with these caps, beside a neighbour. Returns the report and the
/// output.
fn attack_in(test: &str, caps: &Open, program: &str) -> (CallReport, String) {
    let keeper = KeeperFixture::new(test);
    let neighbour = Neighbour::start(&keeper);
    let mut sandbox = keeper.open_with(&Open {
        zygote: with_zygote(&[]).zygote,
        ..caps.clone()
    });
    assert_eq!(sandbox.start_zygote(&[]), None);
    let ran = sandbox.python(program);
    assert!(ran.0.warm, "{:?}", ran.0);
    assert_runs(&mut sandbox);
    neighbour.assert_goes_on(&keeper);
    ran
}

/// Runs an attack that must end by itself without a success.
fn attack(test: &str, program: &str) {
    let (report, stdout) = attack_in(test, &AMPLE, program);
    assert_eq!(stdout, "[]\n", "{report:?}");
}

/// Makes a test for each attack.
macro_rules! attacks {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                let program = include_str!(concat!("keeper_attacks/", stringify!($name), ".py"));
                attack(stringify!($name), program);
            }
        )+
    };
}

attacks! {
    cgroups
    descriptors
    disguise
    filling
    fork_bomb
    image_writes
    ipc
    keyrings
    pipes
    proc_walk
    signals
    sockets
    waits
}

#[test]
fn memory_hog() {
    // The cap of the cell is higher, so that the cap of the sandbox applies.
    let caps = Open {
        memory_bytes: 64 << 20,
        ..AMPLE
    };
    let program = include_str!("keeper_attacks/memory_hog.py");
    let (report, stdout) = attack_in("memory-hog", &caps, program);
    assert_eq!(report.end, ProgramEnd::Signaled(9), "{report:?}");
    assert_eq!(stdout, "");
}

/// Runs an attack that ends only when it is stopped, while the neighbour makes a few rounds. The
/// attack prints this line when it has begun, and then its successes.
fn attack_until_stopped(test: &str, program: &str, begun: &str) {
    let keeper = KeeperFixture::new(test);
    let mut neighbour = Neighbour::start(&keeper);
    let mut sandbox = keeper.open();
    sandbox.begin_python(program);
    assert_eq!(sandbox.output(), begun);
    for _ in 0..3 {
        neighbour.wait_for_round();
    }
    let id = CallId(1);
    sandbox.connection.send_to_runner(&ToRunner::Cancel { id });
    let (report, stdout) = sandbox.finish();
    assert_eq!(stdout, "", "{report:?}");
    neighbour.assert_goes_on(&keeper);
}

#[test]
fn watches() {
    let program = include_str!("keeper_attacks/watches.py");
    attack_until_stopped("watches", program, "watching\n");
}

#[test]
fn locks() {
    let program = include_str!("keeper_attacks/locks.py");
    attack_until_stopped("locks", program, "locked\n");
}
