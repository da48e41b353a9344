//! A wall that is left out is noticed: each program here is contained in a whole cell, and is not in one that lacks the
//! wall it tries.
//!
//! The cells are those of a runner that can leave a wall out, which only tests have; which one is in an image's own
//! environment. That the same programs are contained by the same runner with every wall in its place is shown first, so
//! what differs is the wall alone.

use sandhog_common::job::Job;
use sandhog_common::units::Millis;
use sandhog_tests::containers::Engine;
use sandhog_tests::given;
use sandhog_tests::space::Space;
use sandhog_tests::worker::WorkerSpec;
use serde_json::Value;

use super::ground::{say, shown};
use super::programs;

/// Each wall as the runner calls it, and the program that must notice.
const NOTICED: [(&str, &str); 14] = [
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

/// Long enough for all of them in a whole cell; what would run for ever without its wall is over by then.
const LONGEST: Millis = Millis(8_000);

/// The image whose runner can lack a wall, and those made from it; removed at the end.
struct Images {
    engine: Engine,
    prefix: String,
    built: Vec<String>,
}

impl Images {
    fn of(space: &Space) -> Self {
        let mut images = Self {
            engine: Engine::connect(),
            prefix: space.namespace().to_string(),
            built: Vec::new(),
        };
        let whole = images.reference("python");
        let built = given::sandhog_command()
            .args(["images", "build", "python"])
            .env("SANDHOG_SANDBOX_IMAGE_REFERENCE", images.template())
            .env(
                "SANDHOG_SANDBOX_RUNNER",
                given::runner_that_can_lack_a_wall(),
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

    /// The image whose cells lack `wall`; the whole one for none.
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

impl Drop for Images {
    fn drop(&mut self) {
        // What was made from another goes first.
        for reference in self.built.iter().rev() {
            self.engine.remove_image(reference);
        }
    }
}

/// What is not as it must be when `program` runs in cells that lack `wall`, or in whole ones.
fn noticed(
    space: &mut Space,
    images: &mut Images,
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
    let asked = job.limits.timeout_ms.get_or_insert(LONGEST);
    *asked = LONGEST.min(*asked);
    let mut wrong = Vec::new();
    for _ in 0..program.head.runs {
        let result = space.run(&job);
        let differences = program.head.differences(&result);
        if !differences.is_empty() {
            wrong.push(format!("{}: {}", differences.join(", "), shown(&result)));
        }
    }
    wrong
}

#[test]
fn a_wall_that_is_left_out_is_noticed() {
    let mut space = Space::shared("walls");
    let mut images = Images::of(&space);
    let _worker = WorkerSpec::of(&space)
        .set("SANDBOX_IMAGE_REFERENCE", &images.template())
        .set("WORKER_SLOTS", "1")
        .start();
    let mut wrong = Vec::new();
    for (wall, program) in NOTICED {
        let whole = noticed(&mut space, &mut images, None, program);
        if !whole.is_empty() {
            wrong.push(format!("{program} in a whole cell: {}", whole.join("; ")));
        }
        let lacking = noticed(&mut space, &mut images, Some(wall), program);
        match lacking.first() {
            None => wrong.push(format!(
                "without the wall {wall}, {program} noticed nothing"
            )),
            Some(what) => say(&format!("without the wall {wall}, {program}: {what}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    say(&format!(
        "hostile: {} walls left out, each noticed",
        NOTICED.len()
    ));
}
