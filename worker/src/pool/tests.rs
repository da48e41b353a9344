//! Tests of the pool's planner. Containers are numbers, and the clock is set by hand.

mod once;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sandhog_common::config::Reuse;
use sandhog_common::image::ImageContract;
use sandhog_common::units::{ByteCount, CpuMillis};

use super::rules::Rules;
use super::state::{Held, Returned, Started, State, Step};
use super::want::{Kind, Want};
use crate::sandbox::{Digest, Image, Shape};

const MIB: u64 = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);

/// A container: its number, and whether it is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Box(u64, bool);

impl Held for Box {
    fn is_usable(&mut self) -> bool {
        self.1
    }
}

/// A pool, its clock, and a simulated engine that executes its steps one by one on request.
struct Scene {
    state: State<Box>,
    now: Instant,
    made: u64,
    starts: Vec<(Kind, u64)>,
    leaving: Vec<(Box, u64)>,
    lent: HashMap<u64, (u64, Box)>,
}

fn rules() -> Rules {
    Rules {
        containers: 3,
        memory: ByteCount::mib(1000),
        cpu_millis: CpuMillis(4000),
        reuse: Reuse::Tenant,
        idle_for: SECOND * 300,
        ahead: 2,
    }
}

fn image(name: &str, build: u32) -> Image {
    let toml = concat!(
        "contract = 1\nname = \"x\"\nsummary = \"\"\nlanguage = \"sh\"\n",
        "[languages.sh]\nstyle = \"file\"\nfile = \"f\"\nargv = [\"/bin/sh\"]\n",
    );
    Image {
        name: name.parse().unwrap(),
        reference: name.to_owned(),
        digest: Digest::new(format!("{name}-{build}")),
        contract: Arc::new(ImageContract::from_toml(toml).unwrap()),
    }
}

fn want(name: &str, tenant: &str, memory: u64) -> Want {
    Want {
        image: image(name, 1),
        shape: Shape {
            runtime: "runc".parse().unwrap(),
            memory: ByteCount::mib(800),
            cpu_millis: CpuMillis(1000),
            pids: 10,
            caps_the_job: false,
            gpus: Vec::new(),
        },
        namespace: "default".parse().unwrap(),
        tenant: tenant.parse().unwrap(),
        memory: ByteCount::mib(memory),
        cpu_millis: CpuMillis(1000),
    }
}

impl Scene {
    fn new(rules: Rules) -> Self {
        Self {
            state: State::new(rules),
            now: Instant::now(),
            made: 0,
            starts: Vec::new(),
            leaving: Vec::new(),
            lent: HashMap::new(),
        }
    }

    fn keep(&mut self, steps: Vec<Step<Box>>) {
        for step in steps {
            match step {
                Step::Lend {
                    waiter,
                    loan,
                    sandbox,
                } => {
                    self.lent.insert(waiter, (loan, sandbox));
                }
                Step::Start { kind, memory, .. } => self.starts.push((kind, memory)),
                Step::Destroy { sandbox, memory } => self.leaving.push((sandbox, memory)),
            }
        }
    }

    fn settle(&mut self) {
        let steps = self.state.settle(self.now);
        self.keep(steps);
    }

    fn ask(&mut self, want: &Want) -> u64 {
        let (number, steps) = self.state.want(want, self.now);
        self.keep(steps);
        self.settle();
        number
    }

    /// Completes the oldest start.
    fn start_one(&mut self) {
        let (kind, thought) = self.starts.remove(0);
        self.made += 1;
        self.state.started(
            Started {
                kind: &kind,
                sandbox: Box(self.made, true),
                thought,
                found: Some(20 * MIB),
                took: SECOND,
            },
            self.now,
        );
        self.settle();
    }

    fn fail_one(&mut self) -> Option<u64> {
        let (kind, thought) = self.starts.remove(0);
        let told = self.state.failed(&kind, thought, 1.0, self.now);
        self.settle();
        told
    }

    fn remove_one(&mut self) -> Box {
        let (gone, memory) = self.leaving.remove(0);
        self.state.gone(memory);
        self.settle();
        gone
    }

    fn back(&mut self, waiter: u64, clean: bool, holds: Option<u64>) -> Box {
        let (loan, sandbox) = self.lent.remove(&waiter).expect("it was lent");
        let back = Returned {
            loan,
            sandbox,
            clean,
            holds,
        };
        let step = self.state.returned(back, self.now);
        self.keep(step.into_iter().collect());
        self.settle();
        sandbox
    }

    /// Advances the clock to the next lull, and settles.
    fn pause(&mut self) {
        let lull = self.state.lull(self.now);
        self.now = lull.expect("something waits for it");
        self.settle();
    }

    /// Requests a container, completes starts as needed, and returns the container that was lent.
    fn serve(&mut self, want: &Want) -> (u64, Box) {
        let number = self.ask(want);
        while !self.lent.contains_key(&number) {
            self.start_one();
        }
        (number, self.lent[&number].1)
    }
}

#[test]
fn a_container_serves_one_tenant_and_an_unused_one_anybody() {
    let mut scene = Scene::new(rules());
    let (first, container) = scene.serve(&want("a", "red", 100));
    scene.back(first, true, Some(20 * MIB));
    let (again, same) = scene.serve(&want("a", "red", 100));
    assert_eq!(same, container);
    scene.back(again, true, None);
    let (_, other) = scene.serve(&want("a", "blue", 100));
    assert_ne!(other, container, "another tenant's");

    let shared = Rules {
        reuse: Reuse::Any,
        ..rules()
    };
    let mut scene = Scene::new(shared);
    let (first, container) = scene.serve(&want("a", "red", 100));
    scene.back(first, true, None);
    assert_eq!(scene.serve(&want("a", "blue", 100)).1, container);
}

#[test]
fn one_that_comes_back_first_serves_and_the_new_one_is_kept() {
    let mut scene = Scene::new(rules());
    let (first, container) = scene.serve(&want("a", "red", 100));
    let second = scene.ask(&want("a", "red", 100));
    assert_eq!(scene.starts.len(), 1, "one is started meanwhile");
    scene.back(first, true, None);
    assert_eq!(scene.lent[&second].1, container);
    scene.start_one();
    assert_eq!(scene.state.idle.len(), 1);
}

#[test]
fn what_never_comes_back_clean_is_replaced_ahead_too() {
    let mut scene = Scene::new(Rules {
        containers: 8,
        ..rules()
    });
    for _ in 0..2 {
        let (number, _) = scene.serve(&want("a", "red", 10));
        assert!(scene.starts.is_empty());
        scene.back(number, false, None);
    }
    scene.pause();
    assert_eq!(scene.starts.len(), 2);
    assert_eq!(scene.state.counts.spoiled, 2);
}

#[test]
fn memory_that_does_not_come_back_ends_a_container() {
    let mut scene = Scene::new(rules());
    let most = 20 * MIB + 100 * MIB;
    let (number, container) = scene.serve(&want("a", "red", 100));
    scene.back(number, true, Some(most));
    let (number, same) = scene.serve(&want("a", "red", 100));
    assert_eq!(same, container, "an eighth of its 800 MiB is let pass");
    scene.back(number, true, Some(most + 1));
    assert_eq!(scene.leaving.len(), 1);
    assert_eq!(scene.state.counts.grown, 1);
}

#[test]
fn jobs_are_admitted_in_their_order() {
    let mut scene = Scene::new(rules());
    let (first, _) = scene.serve(&want("a", "red", 600));
    let large = scene.ask(&want("a", "red", 600));
    let small = scene.ask(&want("a", "red", 10));
    assert!(scene.starts.is_empty(), "no room for the large one");
    scene.back(first, true, None);
    assert!(scene.lent.contains_key(&large));
    assert!(!scene.lent.contains_key(&small));
    scene.start_one();
    assert!(scene.lent.contains_key(&small), "it fits beside");
}

#[test]
fn jobs_that_ask_for_everything_run_one_after_another() {
    let mut scene = Scene::new(rules());
    let numbers = [0; 3].map(|_| scene.ask(&want("a", "red", 5000)));
    scene.start_one();
    for number in numbers {
        assert!(scene.lent.contains_key(&number));
        assert_eq!(scene.lent.len(), 1);
        scene.back(number, true, None);
    }
    // Even if the jobs' own memory leaves none for containers.
    let mut scene = Scene::new(rules());
    let numbers = [0; 2].map(|_| scene.ask(&want("a", "red", 500)));
    scene.start_one();
    assert_eq!(scene.lent.len(), 1);
    for number in numbers {
        scene.back(number, true, None);
    }
    assert_eq!(scene.state.budget.taken().cpu_millis, 0);
}

#[test]
fn the_container_worth_least_gives_way() {
    let mut scene = Scene::new(rules());
    for (name, uses) in [("rare", 1), ("often", 5), ("some", 2)] {
        for _ in 0..uses {
            let (number, _) = scene.serve(&want(name, "red", 10));
            scene.back(number, true, None);
        }
    }
    assert_eq!(scene.state.idle.len(), 3);
    let number = scene.ask(&want("new", "red", 10));
    assert_eq!(scene.remove_one(), Box(1, true), "the one used once");
    scene.start_one();
    assert!(scene.lent.contains_key(&number));
    assert_eq!(scene.state.counts.evicted, 1);
}

#[test]
fn nothing_is_evicted_for_a_job_that_could_wait_shorter() {
    let mut scene = Scene::new(Rules {
        containers: 2,
        ..rules()
    });
    let (other, _) = scene.serve(&want("b", "red", 10));
    scene.back(other, true, None);
    let (number, _) = scene.serve(&want("a", "red", 10));
    scene.now += SECOND / 10;
    scene.back(number, true, None);
    let (busy, _) = scene.serve(&want("a", "red", 10));
    let waiting = scene.ask(&want("a", "red", 10));
    assert!(
        scene.leaving.is_empty(),
        "it is back in a tenth of a second"
    );
    scene.now += SECOND;
    scene.settle();
    assert_eq!(scene.leaving.len(), 1, "it is not");
    scene.remove_one();
    scene.start_one();
    assert!(scene.lent.contains_key(&waiting) && scene.lent.contains_key(&busy));
}

#[test]
fn a_failed_start_is_told_once_and_not_repeated_at_once() {
    let mut scene = Scene::new(Rules {
        reuse: Reuse::Never,
        ..rules()
    });
    let number = scene.ask(&want("a", "red", 10));
    let wanted = scene.starts.len();
    assert_eq!(wanted, 2, "the one asked for and one ahead, for jobs come");
    assert_eq!(scene.fail_one(), Some(number));
    assert_eq!(scene.fail_one(), None);
    assert!(scene.starts.is_empty(), "there is a pause");
    scene.now += SECOND * 2;
    scene.settle();
    assert_eq!(scene.starts.len(), 2);
    assert_eq!(scene.state.budget.taken().cpu_millis, 0);
}

#[test]
fn containers_of_an_older_build_go() {
    let mut scene = Scene::new(rules());
    let (number, old) = scene.serve(&want("a", "red", 10));
    scene.back(number, true, None);
    let rebuilt = Want {
        image: image("a", 2),
        ..want("a", "red", 10)
    };
    scene.ask(&rebuilt);
    assert_eq!(scene.leaving, [(old, 20 * MIB)]);
}

#[test]
fn idle_containers_expire_but_those_to_keep_warm() {
    let mut scene = Scene::new(rules());
    let warm = want("a", "red", 10);
    let now = scene.now;
    scene.state.know(&warm.kind(), &warm.image, now).warm = 1;
    let (number, _) = scene.serve(&warm);
    scene.start_one();
    scene.back(number, true, None);
    assert_eq!(scene.state.idle.len(), 2);
    scene.now += SECOND * 301;
    let steps = scene.state.sweep(scene.now);
    assert_eq!(steps.len(), 1);
    assert_eq!(scene.state.idle.len(), 1);
    assert_eq!(scene.state.idle[0].owner.tenant, None, "the unused one");
    assert_eq!(scene.state.counts.expired, 1);
}

#[test]
fn whatever_happens_the_budget_holds_and_tenants_stay_apart() {
    for seed in 0..200 {
        let mut dice = StdRng::seed_from_u64(seed);
        let reuse = [Reuse::Tenant, Reuse::Never, Reuse::Any][dice.random_range(0..3)];
        let mut scene = Scene::new(Rules { reuse, ..rules() });
        let mut asked: Vec<(u64, &str)> = Vec::new();
        let mut users: HashMap<u64, &str> = HashMap::new();
        for _ in 0..300 {
            scene.now += Duration::from_millis(dice.random_range(0..500));
            match dice.random_range(0..8) {
                0..=2 if asked.len() < 8 => {
                    let tenant = ["red", "blue"][dice.random_range(0..2)];
                    let name = ["a", "b", "c"][dice.random_range(0..3)];
                    let want = want(name, tenant, dice.random_range(1..1200));
                    let number = scene.ask(&want);
                    asked.push((number, tenant));
                }
                3 if !scene.starts.is_empty() => scene.start_one(),
                4 if !scene.leaving.is_empty() => drop(scene.remove_one()),
                5 if !asked.is_empty() => {
                    let (number, _) = asked.swap_remove(dice.random_range(0..asked.len()));
                    if scene.lent.contains_key(&number) {
                        let clean = dice.random_bool(0.9);
                        scene.back(number, clean, None);
                    } else {
                        scene.state.forget(number);
                        scene.settle();
                    }
                }
                6 if !scene.starts.is_empty() => {
                    let told = scene.fail_one();
                    asked.retain(|(number, _)| Some(*number) != told);
                }
                _ => {
                    let steps = scene.state.sweep(scene.now);
                    scene.keep(steps);
                    scene.settle();
                }
            }
            for (number, tenant) in &asked {
                if let Some((_, container)) = scene.lent.get(number)
                    && reuse == Reuse::Tenant
                {
                    let user = users.entry(container.0).or_insert(tenant);
                    assert_eq!(user, tenant, "seed {seed}");
                }
            }
            let taken = scene.state.budget.taken();
            assert!(taken.containers <= 3, "seed {seed}");
            assert!(
                taken.memory <= (1000 + 32) * MIB,
                "seed {seed}: {} MiB",
                taken.memory / MIB
            );
            assert!(taken.cpu_millis <= 4000, "seed {seed}");
        }
        // Every remaining waiter gets a container in the end.
        for _ in 0..1000 {
            if !scene.starts.is_empty() {
                scene.start_one();
            } else if !scene.leaving.is_empty() {
                scene.remove_one();
            } else if let Some(at) = asked.iter().position(|(n, _)| scene.lent.contains_key(n)) {
                let (number, _) = asked.swap_remove(at);
                scene.back(number, true, None);
            } else {
                scene.now += SECOND * 10;
                scene.settle();
            }
        }
        assert!(asked.is_empty(), "seed {seed}: {asked:?} {:?}", scene.state);
        assert_eq!(scene.state.budget.taken().cpu_millis, 0, "seed {seed}");
    }
}

#[test]
fn containers_with_a_gpu_that_failed_go_at_once_and_the_others_stay() {
    let mut scene = Scene::new(rules());
    let with = |gpu: &str| {
        let mut want = want("a", "red", 100);
        want.shape.gpus = vec![gpu.to_owned()];
        want
    };
    let (bad, container) = scene.serve(&with("GPU-0"));
    let (good, _) = scene.serve(&with("GPU-1"));
    scene.back(bad, true, None);
    scene.back(good, true, None);
    assert_eq!(scene.state.idle.len(), 2);
    let steps = scene.state.withdraw(&["GPU-0".to_owned()], scene.now);
    scene.keep(steps);
    assert_eq!(scene.leaving, [(container, 20 * MIB)]);
    assert_eq!(scene.state.idle.len(), 1);
    assert_eq!(scene.state.counts.spoiled, 1);
}
