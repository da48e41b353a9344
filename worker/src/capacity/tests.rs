use super::*;

fn class(text: &str) -> Class {
    text.parse().expect("a literal class is valid")
}

fn namespace() -> Namespace {
    Namespace::default()
}

fn capacity_of(mib: u64) -> Capacity {
    Capacity::new(ByteCount::mib(mib), CpuMillis(8000), ByteCount(0))
}

impl Capacity {
    fn n(&self, text: &str) -> usize {
        self.fits(&namespace(), &class(text))
    }

    fn one(&self, text: &str) -> Option<Reservation> {
        self.reserve(&namespace(), &class(text))
    }

    fn free(&self) -> Resources {
        let total = self.0.bounds.unwrap().total;
        total.saturating_sub(self.ledger().taken)
    }
}

const LARGE: &str = "cpu~m1024c1000";

#[test]
fn jobs_take_capacity_and_return_it() {
    let capacity = capacity_of(2048);
    assert_eq!(
        (
            capacity.n("cpu"),
            capacity.n(LARGE),
            capacity.n("cpu~m64c4000")
        ),
        (4, 2, 2)
    );
    let held = [capacity.one("cpu").unwrap(), capacity.one(LARGE).unwrap()];
    assert_eq!((capacity.n("cpu"), capacity.n(LARGE)), (1, 0));
    assert!(capacity.one(LARGE).is_none());
    drop(held);
    assert_eq!(capacity.n(LARGE), 2);
}

#[test]
fn what_is_larger_than_the_whole_never_fits_but_an_ordinary_job_does() {
    let tiny = capacity_of(200);
    assert!(tiny.could_hold(&class("cpu")), "it gets what there is");
    assert!(
        tiny.could_hold(&class("cpu~m208c1000")),
        "200 is rounded up, too"
    );
    assert!(!tiny.could_hold(&class("cpu~m224c1000")));
    assert!(!tiny.could_hold(&class("cpu~m64c9000")));
    let held = tiny.one("cpu").unwrap();
    assert_eq!((tiny.n("cpu"), tiny.n("cpu~m64c125")), (0, 0));
    drop(held);
    assert!(tiny.one("cpu~m208c1000").is_some());

    let none = Capacity::new(ByteCount(0), CpuMillis(0), ByteCount(0));
    assert_eq!(
        (none.largest(), none.n("cpu~m65536c64000")),
        (None, usize::MAX)
    );
    let cpu_only = Capacity::new(ByteCount(0), CpuMillis(2000), ByteCount(0));
    assert_eq!(
        (cpu_only.n("cpu~m65536c1000"), cpu_only.n("cpu~m64c3000")),
        (2, 1)
    );
}

#[test]
fn containers_are_counted_with_their_jobs() {
    let capacity = Capacity::new(ByteCount::mib(1024), CpuMillis(8000), ByteCount::mib(32));
    assert_eq!(capacity.n("cpu"), 1, "two would fit without containers");
    assert!(
        capacity.could_hold(&class("cpu~m1024c1000")),
        "less than a step more than the rest"
    );
    assert!(!capacity.could_hold(&class("cpu~m1152c1000")));
}

#[test]
fn caps_that_turn_out_otherwise_are_counted_as_they_are() {
    let capacity = capacity_of(1024);
    let mut first = capacity.one("cpu").unwrap();
    first.resize(ByteCount::mib(256), CpuMillis(500));
    assert_eq!(capacity.free().memory_mib, 768);
    let mut second = capacity.one("cpu").unwrap();
    second.resize(ByteCount::mib(1000), CpuMillis(1000));
    assert_eq!(
        capacity.free().memory_mib,
        0,
        "more is in use than there is"
    );
    drop(second);
    assert_eq!(capacity.free().memory_mib, 768);
    drop(first);
    assert_eq!(capacity.free().memory_mib, 1024);
}

#[test]
fn beside_an_advance_reservation_only_what_fits_with_it_begins() {
    let capacity = capacity_of(1536);
    let old = [capacity.one("cpu").unwrap(), capacity.one("cpu").unwrap()];
    capacity.reserve_in_advance(&namespace(), &class(LARGE));
    assert_eq!((capacity.n("cpu"), capacity.n(LARGE)), (1, 0));
    let beside = capacity.one("cpu").unwrap();
    let [one, other] = old;
    drop(one);
    assert_eq!(
        (capacity.n("cpu"), capacity.n(LARGE)),
        (0, 0),
        "one is beside it already"
    );
    assert_eq!(capacity.n("cpu~m64c125"), 0);
    drop(beside);
    assert_eq!((capacity.n("cpu"), capacity.n(LARGE)), (1, 1));
    drop(other);
    let large = capacity.one(LARGE).unwrap();
    assert_eq!(
        capacity.advance_reservation(&namespace()),
        None,
        "it has its capacity"
    );
    assert_eq!(capacity.n("cpu"), 1);
    drop(large);
    assert_eq!(capacity.free().memory_mib, 1536);
}

#[test]
fn there_is_one_advance_reservation_at_a_time_and_no_other_namespace_ends_it() {
    let capacity = capacity_of(1024);
    let other: Namespace = "other".parse().unwrap();
    capacity.reserve_in_advance(&namespace(), &class(LARGE));
    capacity.reserve_in_advance(&other, &class("cpu"));
    assert_eq!(capacity.fits(&other, &class("cpu")), 0);
    assert_eq!(capacity.fits(&other, &class(LARGE)), 0, "not theirs");
    capacity.cancel_advance_reservation(&other);
    assert_eq!(
        capacity.advance_reservation(&namespace()),
        Some(class(LARGE))
    );
    capacity.cancel_advance_reservation(&namespace());
    assert_eq!(capacity.fits(&other, &class("cpu")), 2);
}

#[test]
fn a_claim_budget_is_what_ended_and_what_is_free() {
    let capacity = capacity_of(2048);
    let classes = [class("cpu"), class(LARGE)];
    let running: Vec<Reservation> = (0..4).map_while(|_| capacity.one("cpu")).collect();
    let mut running = running.into_iter();
    let ended: Vec<Reservation> = running.by_ref().take(1).collect();
    let budget = capacity.claim_budget(ended, &namespace(), &classes, 1);
    let names = |budget: &ClaimBudget| -> Vec<String> {
        let classes = budget.request.classes.iter();
        classes.map(|(class, _)| class.to_string()).collect()
    };
    assert_eq!(names(&budget), ["cpu"]);
    assert_eq!(budget.request.free.memory_mib, 512);
    assert_eq!(capacity.free().memory_mib, 0, "it is set aside");
    drop(budget);

    let ended: Vec<Reservation> = running.by_ref().take(1).collect();
    let mut budget = capacity.claim_budget(ended, &namespace(), &classes, 1);
    assert_eq!(names(&budget), ["cpu", LARGE]);
    assert_eq!(budget.request.free.memory_mib, 1024);
    let claimed = budget.reserve(&classes[0]);
    drop(budget);
    assert_eq!(capacity.free().memory_mib, 512, "the rest is free again");
    drop(claimed);

    capacity.reserve_in_advance(&namespace(), &classes[1]);
    let mut budget = capacity.claim_budget(Vec::new(), &namespace(), &classes, 4);
    assert_eq!(names(&budget), [LARGE], "it goes first, alone");
    let _large = budget.reserve(&classes[1]);
    drop(budget);
    assert_eq!(capacity.advance_reservation(&namespace()), None);
}

/// Takes, reserves, resizes and returns capacity in random order. Never more is taken than exists,
/// and everything is returned in the end.
#[test]
fn the_ledger_balances() {
    let sizes = [
        "cpu",
        "cpu~m64c125",
        LARGE,
        "cpu~m2048c8000",
        "gpu~m320c2500",
    ];
    for seed in 1..200_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % n as u64).unwrap()
        };
        let capacity = capacity_of(2048);
        let mut held = Vec::new();
        for _ in 0..200 {
            let class = class(sizes[random(sizes.len())]);
            match random(7) {
                0..=2 => held.extend(capacity.reserve(&namespace(), &class)),
                3 if !held.is_empty() => drop(held.swap_remove(random(held.len()))),
                4 => {
                    let over = held.split_off(held.len() - random(held.len() + 1));
                    let mut budget =
                        capacity.claim_budget(over, &namespace(), std::slice::from_ref(&class), 2);
                    if !budget.request.classes.is_empty() {
                        held.push(budget.reserve(&class));
                    }
                }
                5 => capacity.reserve_in_advance(&namespace(), &class),
                6 => capacity.cancel_advance_reservation(&namespace()),
                _ => {}
            }
            let ledger = capacity.ledger();
            let sum = (held.iter()).fold(Resources::default(), |sum, hold| {
                sum.saturating_add(hold.amount)
            });
            assert_eq!(ledger.taken, sum, "seed {seed}");
            assert_eq!(
                sum.max(Resources {
                    memory_mib: 2048,
                    cpu_millis: 8000
                }),
                capacity.0.bounds.unwrap().total
            );
            if let Some(advance) = &ledger.advance {
                let beside = held.iter().filter(|hold| hold.epoch == ledger.epoch);
                let beside = beside.fold(Resources::default(), |sum, hold| {
                    sum.saturating_add(hold.amount)
                });
                assert_eq!(advance.taken_by_others, beside, "seed {seed}");
                let both = advance.need.saturating_add(beside);
                assert_eq!(
                    both.min(capacity.0.bounds.unwrap().total),
                    both,
                    "seed {seed}"
                );
            }
        }
        held.clear();
        assert_eq!(capacity.ledger().taken, Resources::default(), "seed {seed}");
    }
}
