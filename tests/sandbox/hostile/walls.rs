//! Tests of the hostile programs themselves: each program here is contained in a complete cell, and
//! is not contained in a cell without the wall that it attacks.
//!
//! The cells are those of a test-only runner that can leave a wall out; the name of that wall is in
//! the environment of an image. The test first shows that the same runner contains the same
//! programs with every wall in place, so that only the wall makes the difference.

use sandhog_core::job::Job;
use sandhog_core::units::Millis;
use sandhog_testkit::containers::Engine;
use sandhog_testkit::environment;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::Value;

use super::fixture::{describe, print_line};
use super::programs;

/// Each wall by its name in the runner, with the program that must detect its absence.
const WALL_TESTS: [(&str, &str); 14] = [
    ("cgroup", "memory/children"),
    ("user", "processes/become_root"),
    ("rlimits", "files/sparse"),
    ("scratch-bytes", "files/full"),
    ("scratch-files", "files/inodes"),
    ("masks", "files/masked"),
    ("processes", "information/processes"),
    ("calls", "files/handles"),
    ("clone3", "processes/clone3"),
    ("families", "network/raw"),
    ("arguments", "network/socket_filters"),
    ("second-abi", "processes/foreign_abi"),
    ("messages", "information/message"),
    ("terminals", "files/terminals"),
];

/// Time limit: enough for each program in a complete cell, and an end for a program that would run
/// for ever without its wall.
const TIMEOUT_CAP: Millis = Millis(8_000);

/// The image whose runner can leave out a wall, and the images made from it. They are removed on
/// drop.
struct WallImages {
    engine: Engine,
    prefix: String,
    built: Vec<String>,
}

impl WallImages {
    fn of(space: &TestNamespace) -> Self {
        let mut images = Self {
            engine: Engine::connect(),
            prefix: space.namespace().to_string(),
            built: Vec::new(),
        };
        let whole = images.reference("python");
        let built = environment::sandhog_command()
            .args(["images", "build", "python"])
            .env("SANDHOG_SANDBOX_IMAGE_REFERENCE", images.template())
            .env(
                "SANDHOG_SANDBOX_RUNNER",
                environment::runner_that_can_lack_a_wall(),
            )
            .output()
            .expect("the command was built");
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        images.built.push(whole);
        images
    }

    fn template(&self) -> String {
        format!("{}/{{name}}:latest", self.prefix)
    }

    fn reference(&self, name: &str) -> String {
        format!("{}/{name}:latest", self.prefix)
    }

    /// Returns the image whose cells lack `wall`, or the complete image for `None`.
    fn without(&mut self, wall: Option<&str>) -> String {
        let whole = self.reference("python");
        let Some(wall) = wall else { return whole };
        let reference = self.reference(wall);
        let dockerfile = format!("FROM {whole}\nENV SANDHOG_WALL_DOWN={wall}\n");
        self.engine.build_image(&reference, &dockerfile);
        self.built.push(reference.clone());
        reference
    }
}

impl Drop for WallImages {
    fn drop(&mut self) {
        // An image that was made from another is removed before it.
        for reference in self.built.iter().rev() {
            self.engine.remove_image(reference);
        }
    }
}

/// Returns every deviation of `program` in cells that lack `wall`, or in complete cells.
fn deviations(
    space: &mut TestNamespace,
    images: &mut WallImages,
    wall: Option<&str>,
    program: &str,
) -> Vec<String> {
    let program = programs::named(program);
    let mut job = Job {
        image: images
            .without(wall)
            .parse()
            .expect("a reference of ours is valid"),
        ..program.job(&Value::Null)
    };
    let asked = job.limits.timeout_ms.get_or_insert(TIMEOUT_CAP);
    *asked = TIMEOUT_CAP.min(*asked);
    let mut wrong = Vec::new();
    for _ in 0..program.header.runs {
        let result = space.run(&job);
        let differences = program.header.differences(&result);
        if !differences.is_empty() {
            wrong.push(format!("{}: {}", differences.join(", "), describe(&result)));
        }
    }
    wrong
}

#[test]
fn a_wall_that_is_left_out_is_noticed() {
    let mut space = TestNamespace::shared("walls");
    let mut images = WallImages::of(&space);
    let _worker = WorkerSpec::of(&space)
        .set("SANDBOX_IMAGE_REFERENCE", &images.template())
        .set("WORKER_SLOTS", "1")
        .start();
    let mut wrong = Vec::new();
    for (wall, program) in WALL_TESTS {
        let whole = deviations(&mut space, &mut images, None, program);
        if !whole.is_empty() {
            wrong.push(format!("{program} in a whole cell: {}", whole.join("; ")));
        }
        let lacking = deviations(&mut space, &mut images, Some(wall), program);
        match lacking.first() {
            None => wrong.push(format!(
                "without the wall {wall}, {program} deviations nothing"
            )),
            Some(what) => print_line(&format!("without the wall {wall}, {program}: {what}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    print_line(&format!(
        "hostile: {} walls left out, each deviations",
        WALL_TESTS.len()
    ));
}
