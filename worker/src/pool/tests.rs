//! Tests of the pool's planner. Containers are numbers, and the clock is set by hand.

mod once;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sandhog_config::Reuse;
use sandhog_core::image::ImageContract;
use sandhog_core::units::{ByteCount, CpuMillis};

use super::planner::Planner;
use super::request::{ContainerKind, SandboxRequest};
use super::rules::Rules;
use super::state::{Action, ModelDemand, PoolState, Poolable, ReturnedSandbox, StartedSandbox};
use crate::sandbox::{Digest, Image, Shape};

const MIB: u64 = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);

/// A container: its number, and whether it is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FakeContainer(u64, bool);

impl Poolable for FakeContainer {
    fn is_usable(&mut self) -> bool {
        self.1
    }
}

/// A pool, its clock, and a simulated engine that executes its steps one by one on request.
struct PoolFixture {
    state: PoolState<FakeContainer>,
    now: Instant,
    made: u64,
    starts: Vec<(ContainerKind, u64)>,
    leaving: Vec<(ContainerKind, FakeContainer, u64)>,
    /// For each checkout, whether another one is expected to follow.
    reuse: Vec<bool>,
    /// Waiters whose memory is held.
    held: Vec<u64>,
    /// Room of each kind.
    room: Option<u64>,
    lent: HashMap<u64, (u64, FakeContainer)>,
}

fn rules() -> Rules {
    Rules {
        containers: 3,
        memory: ByteCount::mib(1000),
        cpu_millis: CpuMillis(4000),
        reuse: Reuse::Tenant,
        idle_for: SECOND * 300,
        ahead: 2,
        ahead_for_tenants: 0,
        share: 1,
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

fn request(name: &str, tenant: &str, memory: u64) -> SandboxRequest {
    SandboxRequest {
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

impl PoolFixture {
    fn new(rules: Rules) -> Self {
        Self {
            state: PoolState::new(rules),
            now: Instant::now(),
            made: 0,
            starts: Vec::new(),
            leaving: Vec::new(),
            reuse: Vec::new(),
            held: Vec::new(),
            room: None,
            lent: HashMap::new(),
        }
    }

    fn perform(&mut self, actions: Vec<Action<FakeContainer>>) {
        for action in actions {
            match action {
                Action::CheckOut {
                    waiter,
                    checkout_id,
                    sandbox,
                    expects_reuse,
                } => {
                    self.reuse.push(expects_reuse);
                    self.lent.insert(waiter, (checkout_id, sandbox));
                }
                Action::Hold { waiter } => self.held.push(waiter),
                Action::Start { kind, memory, .. } => self.starts.push((kind, memory)),
                Action::Destroy {
                    kind,
                    sandbox,
                    memory,
                } => self.leaving.push((kind, sandbox, memory)),
            }
        }
    }

    /// Returns the containers that are being removed, with their memory.
    fn leaving(&self) -> Vec<(FakeContainer, u64)> {
        let leaving = self.leaving.iter();
        leaving
            .map(|(_, container, memory)| (*container, *memory))
            .collect()
    }

    fn sweep(&mut self) -> Vec<Action<FakeContainer>> {
        Planner::new(&mut self.state, self.now).sweep()
    }

    fn next_idle_gap(&mut self) -> Option<Instant> {
        Planner::new(&mut self.state, self.now).next_idle_gap()
    }

    fn settle(&mut self) {
        let actions = Planner::new(&mut self.state, self.now).settle();
        self.perform(actions);
    }

    fn ask(&mut self, request: &SandboxRequest) -> u64 {
        let (number, actions) = self.state.add_waiter(request, self.now);
        self.perform(actions);
        self.settle();
        number
    }

    /// Completes the oldest start.
    fn start_one(&mut self) {
        let (kind, assumed_memory) = self.starts.remove(0);
        self.made += 1;
        self.state.start_succeeded(
            StartedSandbox {
                kind: &kind,
                sandbox: FakeContainer(self.made, true),
                assumed_memory,
                measured_memory: Some(20 * MIB),
                room: self.room,
                took: SECOND,
            },
            self.now,
        );
        self.settle();
    }

    fn fail_one(&mut self) -> Option<u64> {
        let (kind, assumed_memory) = self.starts.remove(0);
        let told = self
            .state
            .start_failed(&kind, assumed_memory, 1.0, self.now);
        self.settle();
        told
    }

    fn remove_one(&mut self) -> FakeContainer {
        let (kind, gone, memory) = self.leaving.remove(0);
        self.state.removed(&kind, memory);
        self.settle();
        gone
    }

    fn back(&mut self, waiter: u64, clean: bool, memory_after: Option<u64>) -> FakeContainer {
        let (checkout_id, sandbox) = self.lent.remove(&waiter).expect("it was lent");
        let back = ReturnedSandbox {
            checkout_id,
            sandbox,
            clean,
            memory_after,
        };
        let action = self.state.returned(back, self.now);
        self.perform(action.into_iter().collect());
        self.settle();
        sandbox
    }

    /// Advances the clock to the next idle gap, and settles.
    fn pause(&mut self) {
        let gap = self.next_idle_gap();
        self.now = gap.expect("something waits for it");
        self.settle();
    }

    /// Requests a container, and completes starts and removals as needed.
    fn serve_with_removals(&mut self, request: &SandboxRequest) -> u64 {
        let number = self.ask(request);
        while !self.lent.contains_key(&number) {
            if self.leaving.is_empty() {
                self.start_one();
            } else {
                self.remove_one();
            }
        }
        number
    }

    /// Requests a container, completes starts as needed, and returns the container that was lent.
    fn serve(&mut self, request: &SandboxRequest) -> (u64, FakeContainer) {
        let number = self.ask(request);
        while !self.lent.contains_key(&number) {
            self.start_one();
        }
        (number, self.lent[&number].1)
    }
}

#[test]
fn a_container_serves_one_tenant_and_an_unused_one_anybody() {
    let mut pool = PoolFixture::new(rules());
    let (first, container) = pool.serve(&request("a", "red", 100));
    pool.back(first, true, Some(20 * MIB));
    let (again, same) = pool.serve(&request("a", "red", 100));
    assert_eq!(same, container);
    pool.back(again, true, None);
    let (_, other) = pool.serve(&request("a", "blue", 100));
    assert_ne!(other, container, "another tenant's");

    let shared = Rules {
        reuse: Reuse::Any,
        ..rules()
    };
    let mut pool = PoolFixture::new(shared);
    let (first, container) = pool.serve(&request("a", "red", 100));
    pool.back(first, true, None);
    assert_eq!(pool.serve(&request("a", "blue", 100)).1, container);
}

#[test]
fn one_that_comes_back_first_serves_and_the_new_one_is_kept() {
    let mut pool = PoolFixture::new(rules());
    let (first, container) = pool.serve(&request("a", "red", 100));
    let second = pool.ask(&request("a", "red", 100));
    assert_eq!(pool.starts.len(), 1, "one is started meanwhile");
    pool.back(first, true, None);
    assert_eq!(pool.lent[&second].1, container);
    pool.start_one();
    assert_eq!(pool.state.idle.len(), 1);
}

#[test]
fn what_never_comes_back_clean_is_replaced_ahead_too() {
    let mut pool = PoolFixture::new(Rules {
        containers: 8,
        ..rules()
    });
    for _ in 0..2 {
        let (number, _) = pool.serve(&request("a", "red", 10));
        assert!(pool.starts.is_empty());
        pool.back(number, false, None);
    }
    pool.pause();
    assert_eq!(pool.starts.len(), 2);
    assert_eq!(pool.state.counts.spoiled, 2);
}

#[test]
fn memory_that_does_not_come_back_ends_a_container() {
    let mut pool = PoolFixture::new(rules());
    let most = 20 * MIB + 100 * MIB;
    let (number, container) = pool.serve(&request("a", "red", 100));
    pool.back(number, true, Some(most));
    let (number, same) = pool.serve(&request("a", "red", 100));
    assert_eq!(same, container, "an eighth of its 800 MiB is let pass");
    pool.back(number, true, Some(most + 1));
    assert_eq!(pool.leaving.len(), 1);
    assert_eq!(pool.state.counts.grown, 1);
}

#[test]
fn idle_containers_are_bounded_by_the_memory_that_they_hold_now() {
    let mut pool = PoolFixture::new(Rules {
        containers: 100,
        memory: ByteCount::mib(200),
        ..rules()
    });
    for n in 0..8 {
        let number = pool.ask(&request("a", &format!("tenant-{n}"), 50));
        while !pool.lent.contains_key(&number) {
            if pool.leaving.is_empty() {
                pool.start_one();
            } else {
                pool.remove_one();
            }
        }
        pool.back(number, true, Some(45 * MIB));
        assert!(pool.state.budget.taken().memory <= 200 * MIB, "tenant {n}");
    }
    assert_eq!(pool.state.idle.len(), 3, "of 45 MiB each; 100 may exist");
    // One that grows while nothing waits is trimmed too.
    let (number, _) = pool.serve(&request("a", "tenant-7", 20));
    pool.back(number, true, Some(115 * MIB));
    let held: u64 = pool.state.idle.iter().map(|idle| idle.memory).sum();
    assert!(held <= 200 * MIB, "{} MiB", held / MIB);
}

#[test]
fn the_sandboxes_of_a_keeper_stay_within_its_memory() {
    let mut pool = PoolFixture::new(Rules {
        containers: 100,
        ..rules()
    });
    pool.room = Some(200 * MIB);
    // The room is known once one has started.
    let (first, _) = pool.serve(&request("a", "tenant-0", 50));
    pool.back(first, true, Some(45 * MIB));
    for n in 1..6 {
        let number = pool.serve_with_removals(&request("a", &format!("tenant-{n}"), 50));
        pool.back(number, true, Some(45 * MIB));
    }
    assert_eq!(pool.state.idle.len(), 3, "of 45 MiB each, beside one job");
    // A second job waits, although the worker has memory for it. A job of another kind does not.
    let one = pool.serve_with_removals(&request("a", "tenant-5", 150));
    let second = pool.ask(&request("a", "tenant-5", 150));
    assert!(pool.starts.is_empty() && pool.leaving.is_empty());
    let (other, _) = pool.serve(&request("b", "tenant-5", 150));
    pool.back(other, true, None);
    assert!(!pool.lent.contains_key(&second));
    pool.back(one, true, None);
    assert!(pool.lent.contains_key(&second));
    pool.back(second, true, None);
    // A job that asks for more than the room gets all of it.
    let whole = pool.serve_with_removals(&request("a", "tenant-5", 900));
    let more = pool.ask(&request("a", "tenant-5", 50));
    assert!(pool.starts.is_empty() && !pool.lent.contains_key(&more));
    pool.back(whole, true, None);
    assert!(pool.lent.contains_key(&more));
}

#[test]
fn unused_sandboxes_are_ready_while_new_tenants_follow_one_another() {
    let mut pool = PoolFixture::new(Rules {
        containers: 24,
        ahead_for_tenants: 2,
        ..rules()
    });
    pool.room = Some(1000 * MIB);
    let unused = |pool: &PoolFixture| {
        let idle = pool.state.idle.iter();
        idle.filter(|idle| idle.owner.tenant.is_none()).count() + pool.starts.len()
    };
    let (first, _) = pool.serve(&request("a", "tenant-0", 10));
    pool.back(first, true, None);
    assert_eq!(unused(&pool), 0, "one tenant may remain the only one");
    for n in 1..60 {
        let (number, _) = pool.serve(&request("a", &format!("tenant-{n}"), 10));
        while !pool.leaving.is_empty() {
            pool.remove_one();
        }
        let want = (pool.state.idle.len() / 8).min(2);
        assert!(unused(&pool) >= want, "tenant {n}");
        while !pool.starts.is_empty() {
            pool.start_one();
        }
        pool.back(number, true, None);
    }
    assert_eq!(unused(&pool), 2);
    assert!(pool.state.counts.evicted > 30);
    // A sandbox that is likely evicted before its next job needs no preparation for it.
    assert_eq!(pool.reuse.first(), Some(&true), "nothing was evicted then");
    assert_eq!(pool.reuse.last(), Some(&false));
    let (number, _) = pool.serve(&request("a", "tenant-59", 10));
    assert_eq!(pool.reuse.last(), Some(&true), "its tenant came back");
    pool.back(number, true, None);
    pool.now += SECOND * 2;
    let (_, _) = pool.serve(&request("a", "tenant-99", 10));
    assert_eq!(unused(&pool), 1, "the other one is not replaced");
    assert_eq!(pool.reuse.last(), Some(&true), "nothing was evicted lately");
}

#[test]
fn a_model_server_holds_memory_and_learns_that_a_job_lacks_it() {
    let mut pool = PoolFixture::new(Rules {
        containers: 100,
        memory: ByteCount::mib(2000),
        ..rules()
    });
    let hold = |pool: &mut PoolFixture, memory: u64, demand| {
        let model = request("model", "red", 1);
        let (kind, now) = (ContainerKind::new(&model.image, &model.shape), pool.now);
        let (state, memory) = (&mut pool.state, memory * MIB);
        let number = state.add_memory_waiter(&kind, &model.image, memory, demand, now);
        pool.settle();
        number
    };
    let (first, _) = pool.serve(&request("a", "red", 900));
    let model = hold(&mut pool, 1200, ModelDemand::Job);
    assert!(pool.held.is_empty(), "it waits for the job");
    let small = pool.ask(&request("a", "blue", 10));
    assert!(!pool.lent.contains_key(&small), "it waits in turn");
    assert!(pool.state.wants_memory);
    pool.back(first, true, None);
    assert_eq!(pool.held, [model]);
    pool.start_one();
    pool.back(small, true, None);
    assert!(!pool.state.wants_memory);
    // Idle containers give way first; here they do not suffice.
    let large = pool.ask(&request("a", "red", 900));
    assert!(pool.state.wants_memory && !pool.lent.contains_key(&large));
    pool.state.release_hold(model);
    pool.settle();
    assert!(pool.lent.contains_key(&large) && !pool.state.wants_memory);
    pool.back(large, true, None);
    // The largest model leaves memory for a job of the default size.
    let greedy = hold(&mut pool, 9000, ModelDemand::Job);
    while !pool.leaving.is_empty() {
        pool.remove_one();
    }
    assert_eq!(pool.held, [model, greedy]);
    let idle = 2 * 20;
    assert_eq!(pool.state.budget.taken().memory / MIB, 2000 - 512 + idle);
    // A model for which no job waits delays nothing, and asks no other one to stop.
    let warm = hold(&mut pool, 1200, ModelDemand::Warm);
    assert!(!pool.state.wants_memory);
    let (small, _) = pool.serve(&request("a", "red", 100));
    assert_eq!(pool.held, [model, greedy]);
    pool.state.release_hold(greedy);
    pool.settle();
    assert_eq!(pool.held, [model, greedy, warm]);
    pool.back(small, true, None);
}

#[test]
fn jobs_are_admitted_in_their_order() {
    let mut pool = PoolFixture::new(rules());
    let (first, _) = pool.serve(&request("a", "red", 600));
    let large = pool.ask(&request("a", "red", 600));
    let small = pool.ask(&request("a", "red", 10));
    assert!(pool.starts.is_empty(), "no room for the large one");
    pool.back(first, true, None);
    assert!(pool.lent.contains_key(&large));
    assert!(!pool.lent.contains_key(&small));
    pool.start_one();
    assert!(pool.lent.contains_key(&small), "it fits beside");
}

#[test]
fn jobs_that_ask_for_everything_run_one_after_another() {
    let mut pool = PoolFixture::new(rules());
    let numbers = [0; 3].map(|_| pool.ask(&request("a", "red", 5000)));
    pool.start_one();
    for number in numbers {
        assert!(pool.lent.contains_key(&number));
        assert_eq!(pool.lent.len(), 1);
        pool.back(number, true, None);
    }
    // Even if the jobs' own memory leaves none for containers.
    let mut pool = PoolFixture::new(rules());
    let numbers = [0; 2].map(|_| pool.ask(&request("a", "red", 500)));
    pool.start_one();
    assert_eq!(pool.lent.len(), 1);
    for number in numbers {
        pool.back(number, true, None);
    }
    assert_eq!(pool.state.budget.taken().cpu_millis, 0);
}

#[test]
fn the_container_worth_least_gives_way() {
    let mut pool = PoolFixture::new(rules());
    for (name, uses) in [("rare", 1), ("often", 5), ("some", 2)] {
        for _ in 0..uses {
            let (number, _) = pool.serve(&request(name, "red", 10));
            pool.back(number, true, None);
        }
    }
    assert_eq!(pool.state.idle.len(), 3);
    let number = pool.ask(&request("new", "red", 10));
    assert_eq!(
        pool.remove_one(),
        FakeContainer(1, true),
        "the one used once"
    );
    pool.start_one();
    assert!(pool.lent.contains_key(&number));
    assert_eq!(pool.state.counts.evicted, 1);
}

#[test]
fn nothing_is_evicted_for_a_job_that_could_wait_shorter() {
    let mut pool = PoolFixture::new(Rules {
        containers: 2,
        ..rules()
    });
    let (other, _) = pool.serve(&request("b", "red", 10));
    pool.back(other, true, None);
    let (number, _) = pool.serve(&request("a", "red", 10));
    pool.now += SECOND / 10;
    pool.back(number, true, None);
    let (busy, _) = pool.serve(&request("a", "red", 10));
    let waiting = pool.ask(&request("a", "red", 10));
    assert!(pool.leaving.is_empty(), "it is back in a tenth of a second");
    pool.now += SECOND;
    pool.settle();
    assert_eq!(pool.leaving.len(), 1, "it is not");
    pool.remove_one();
    pool.start_one();
    assert!(pool.lent.contains_key(&waiting) && pool.lent.contains_key(&busy));
}

#[test]
fn a_failed_start_is_told_once_and_not_repeated_at_once() {
    let mut pool = PoolFixture::new(Rules {
        reuse: Reuse::Never,
        ..rules()
    });
    let number = pool.ask(&request("a", "red", 10));
    let wanted = pool.starts.len();
    assert_eq!(wanted, 2, "the one asked for and one ahead, for jobs come");
    assert_eq!(pool.fail_one(), Some(number));
    assert_eq!(pool.fail_one(), None);
    assert!(pool.starts.is_empty(), "there is a pause");
    pool.now += SECOND * 2;
    pool.settle();
    assert_eq!(pool.starts.len(), 2);
    assert_eq!(pool.state.budget.taken().cpu_millis, 0);
}

#[test]
fn containers_of_an_older_build_go() {
    let mut pool = PoolFixture::new(rules());
    let (number, old) = pool.serve(&request("a", "red", 10));
    pool.back(number, true, None);
    let rebuilt = SandboxRequest {
        image: image("a", 2),
        ..request("a", "red", 10)
    };
    pool.ask(&rebuilt);
    assert_eq!(pool.leaving(), [(old, 20 * MIB)]);
}

#[test]
fn idle_containers_expire_but_those_to_keep_warm() {
    let mut pool = PoolFixture::new(rules());
    let warm = request("a", "red", 10);
    let now = pool.now;
    pool.state.kind_entry(&warm.kind(), &warm.image, now).warm = 1;
    let (number, _) = pool.serve(&warm);
    pool.start_one();
    pool.back(number, true, None);
    assert_eq!(pool.state.idle.len(), 2);
    pool.now += SECOND * 301;
    let actions = pool.sweep();
    assert_eq!(actions.len(), 1);
    assert_eq!(pool.state.idle.len(), 1);
    assert_eq!(pool.state.idle[0].owner.tenant, None, "the unused one");
    assert_eq!(pool.state.counts.expired, 1);
}

#[test]
fn whatever_happens_the_budget_holds_and_tenants_stay_apart() {
    for seed in 0..200 {
        let mut dice = StdRng::seed_from_u64(seed);
        let reuse = [Reuse::Tenant, Reuse::Never, Reuse::Any][dice.random_range(0..3)];
        let mut pool = PoolFixture::new(Rules { reuse, ..rules() });
        let mut asked: Vec<(u64, &str)> = Vec::new();
        let mut users: HashMap<u64, &str> = HashMap::new();
        for _ in 0..300 {
            pool.now += Duration::from_millis(dice.random_range(0..500));
            match dice.random_range(0..8) {
                0..=2 if asked.len() < 8 => {
                    let tenant = ["red", "blue"][dice.random_range(0..2)];
                    let name = ["a", "b", "c"][dice.random_range(0..3)];
                    let request = request(name, tenant, dice.random_range(1..1200));
                    let number = pool.ask(&request);
                    asked.push((number, tenant));
                }
                3 if !pool.starts.is_empty() => pool.start_one(),
                4 if !pool.leaving.is_empty() => drop(pool.remove_one()),
                5 if !asked.is_empty() => {
                    let (number, _) = asked.swap_remove(dice.random_range(0..asked.len()));
                    if pool.lent.contains_key(&number) {
                        let clean = dice.random_bool(0.9);
                        pool.back(number, clean, None);
                    } else {
                        pool.state.remove_waiter(number);
                        pool.settle();
                    }
                }
                6 if !pool.starts.is_empty() => {
                    let told = pool.fail_one();
                    asked.retain(|(number, _)| Some(*number) != told);
                }
                _ => {
                    let actions = pool.sweep();
                    pool.perform(actions);
                    pool.settle();
                }
            }
            for (number, tenant) in &asked {
                if let Some((_, container)) = pool.lent.get(number)
                    && reuse == Reuse::Tenant
                {
                    let user = users.entry(container.0).or_insert(tenant);
                    assert_eq!(user, tenant, "seed {seed}");
                }
            }
            let taken = pool.state.budget.taken();
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
            if !pool.starts.is_empty() {
                pool.start_one();
            } else if !pool.leaving.is_empty() {
                pool.remove_one();
            } else if let Some(at) = asked.iter().position(|(n, _)| pool.lent.contains_key(n)) {
                let (number, _) = asked.swap_remove(at);
                pool.back(number, true, None);
            } else {
                pool.now += SECOND * 10;
                pool.settle();
            }
        }
        assert!(asked.is_empty(), "seed {seed}: {asked:?} {:?}", pool.state);
        assert_eq!(pool.state.budget.taken().cpu_millis, 0, "seed {seed}");
    }
}

#[test]
fn containers_with_a_gpu_that_failed_go_at_once_and_the_others_stay() {
    let mut pool = PoolFixture::new(rules());
    let with = |gpu: &str| {
        let mut request = request("a", "red", 100);
        request.shape.gpus = vec![gpu.to_owned()];
        request
    };
    let (bad, container) = pool.serve(&with("GPU-0"));
    let (good, _) = pool.serve(&with("GPU-1"));
    pool.back(bad, true, None);
    pool.back(good, true, None);
    assert_eq!(pool.state.idle.len(), 2);
    let actions = pool.state.withdraw(&["GPU-0".to_owned()], pool.now);
    pool.perform(actions);
    assert_eq!(pool.leaving(), [(container, 20 * MIB)]);
    assert_eq!(pool.state.idle.len(), 1);
    assert_eq!(pool.state.counts.spoiled, 1);
}
