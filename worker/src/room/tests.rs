use super::*;

fn class(text: &str) -> Class {
    text.parse().expect("a literal class is valid")
}

fn namespace() -> Namespace {
    Namespace::default()
}

fn room(mib: u64) -> Room {
    Room::new(ByteCount::mib(mib), CpuMillis(8000), ByteCount(0))
}

impl Room {
    fn n(&self, text: &str) -> usize {
        self.fits(&namespace(), &class(text))
    }

    fn one(&self, text: &str) -> Option<Hold> {
        self.take(&namespace(), &class(text))
    }

    fn free(&self) -> Amount {
        let whole = self.0.bounds.unwrap().whole;
        whole.less(self.books().taken)
    }
}

const LARGE: &str = "cpu~m1024c1000";

#[test]
fn jobs_take_room_and_give_it_back() {
    let room = room(2048);
    assert_eq!(
        (room.n("cpu"), room.n(LARGE), room.n("cpu~m64c4000")),
        (4, 2, 2)
    );
    let held = [room.one("cpu").unwrap(), room.one(LARGE).unwrap()];
    assert_eq!((room.n("cpu"), room.n(LARGE)), (1, 0));
    assert!(room.one(LARGE).is_none());
    drop(held);
    assert_eq!(room.n(LARGE), 2);
}

#[test]
fn what_is_larger_than_the_whole_never_fits_but_an_ordinary_job_does() {
    let tiny = room(200);
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

    let none = Room::new(ByteCount(0), CpuMillis(0), ByteCount(0));
    assert_eq!(
        (none.largest(), none.n("cpu~m65536c64000")),
        (None, usize::MAX)
    );
    let cpu_only = Room::new(ByteCount(0), CpuMillis(2000), ByteCount(0));
    assert_eq!(
        (cpu_only.n("cpu~m65536c1000"), cpu_only.n("cpu~m64c3000")),
        (2, 1)
    );
}

#[test]
fn containers_are_counted_with_their_jobs() {
    let room = Room::new(ByteCount::mib(1024), CpuMillis(8000), ByteCount::mib(32));
    assert_eq!(room.n("cpu"), 1, "two would fit without containers");
    assert!(
        room.could_hold(&class("cpu~m1024c1000")),
        "less than a step more than the rest"
    );
    assert!(!room.could_hold(&class("cpu~m1152c1000")));
}

#[test]
fn caps_that_turn_out_otherwise_are_counted_as_they_are() {
    let room = room(1024);
    let mut first = room.one("cpu").unwrap();
    first.correct(ByteCount::mib(256), CpuMillis(500));
    assert_eq!(room.free().memory_mib, 768);
    let mut second = room.one("cpu").unwrap();
    second.correct(ByteCount::mib(1000), CpuMillis(1000));
    assert_eq!(room.free().memory_mib, 0, "more is in use than there is");
    drop(second);
    assert_eq!(room.free().memory_mib, 768);
    drop(first);
    assert_eq!(room.free().memory_mib, 1024);
}

#[test]
fn beside_a_job_that_room_is_kept_for_only_what_fits_with_it_begins() {
    let room = room(1536);
    let old = [room.one("cpu").unwrap(), room.one("cpu").unwrap()];
    room.keep_for(&namespace(), &class(LARGE));
    assert_eq!((room.n("cpu"), room.n(LARGE)), (1, 0));
    let beside = room.one("cpu").unwrap();
    let [one, other] = old;
    drop(one);
    assert_eq!(
        (room.n("cpu"), room.n(LARGE)),
        (0, 0),
        "one is beside it already"
    );
    assert_eq!(room.n("cpu~m64c125"), 0);
    drop(beside);
    assert_eq!((room.n("cpu"), room.n(LARGE)), (1, 1));
    drop(other);
    let large = room.one(LARGE).unwrap();
    assert_eq!(room.kept_for(&namespace()), None, "it has its room");
    assert_eq!(room.n("cpu"), 1);
    drop(large);
    assert_eq!(room.free().memory_mib, 1536);
}

#[test]
fn room_is_kept_for_one_job_at_a_time_and_no_other_namespace_ends_that() {
    let room = room(1024);
    let other: Namespace = "other".parse().unwrap();
    room.keep_for(&namespace(), &class(LARGE));
    room.keep_for(&other, &class("cpu"));
    assert_eq!(room.fits(&other, &class("cpu")), 0);
    assert_eq!(room.fits(&other, &class(LARGE)), 0, "not theirs");
    room.keep_for_nobody(&other);
    assert_eq!(room.kept_for(&namespace()), Some(class(LARGE)));
    room.keep_for_nobody(&namespace());
    assert_eq!(room.fits(&other, &class("cpu")), 2);
}

#[test]
fn an_offer_is_what_ended_and_what_is_free() {
    let room = room(2048);
    let classes = [class("cpu"), class(LARGE)];
    let running: Vec<Hold> = (0..4).map_while(|_| room.one("cpu")).collect();
    let mut running = running.into_iter();
    let ended: Vec<Hold> = running.by_ref().take(1).collect();
    let offer = room.offer(ended, &namespace(), &classes, 1);
    let names = |offer: &Offer| -> Vec<String> {
        let classes = offer.claiming.classes.iter();
        classes.map(|(class, _)| class.to_string()).collect()
    };
    assert_eq!(names(&offer), ["cpu"]);
    assert_eq!(offer.claiming.free.memory_mib, 512);
    assert_eq!(room.free().memory_mib, 0, "it is set aside");
    drop(offer);

    let ended: Vec<Hold> = running.by_ref().take(1).collect();
    let mut offer = room.offer(ended, &namespace(), &classes, 1);
    assert_eq!(names(&offer), ["cpu", LARGE]);
    assert_eq!(offer.claiming.free.memory_mib, 1024);
    let claimed = offer.hold(&classes[0]);
    drop(offer);
    assert_eq!(room.free().memory_mib, 512, "the rest is free again");
    drop(claimed);

    room.keep_for(&namespace(), &classes[1]);
    let mut offer = room.offer(Vec::new(), &namespace(), &classes, 4);
    assert_eq!(names(&offer), [LARGE], "it goes first, alone");
    let _large = offer.hold(&classes[1]);
    drop(offer);
    assert_eq!(room.kept_for(&namespace()), None);
}

/// Takes, reserves, corrects and returns capacity in random order. Never more is taken than exists,
/// and everything is returned in the end.
#[test]
fn the_books_balance() {
    let sizes = [
        "cpu",
        "cpu~m64c125",
        LARGE,
        "cpu~m2048c8000",
        "gpu~m320c2500",
    ];
    for seed in 1..200_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut dice = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % n as u64).unwrap()
        };
        let room = room(2048);
        let mut held = Vec::new();
        for _ in 0..200 {
            let class = class(sizes[dice(sizes.len())]);
            match dice(7) {
                0..=2 => held.extend(room.take(&namespace(), &class)),
                3 if !held.is_empty() => drop(held.swap_remove(dice(held.len()))),
                4 => {
                    let over = held.split_off(held.len() - dice(held.len() + 1));
                    let mut offer = room.offer(over, &namespace(), std::slice::from_ref(&class), 2);
                    if !offer.claiming.classes.is_empty() {
                        held.push(offer.hold(&class));
                    }
                }
                5 => room.keep_for(&namespace(), &class),
                6 => room.keep_for_nobody(&namespace()),
                _ => {}
            }
            let books = room.books();
            let sum = (held.iter()).fold(Amount::default(), |sum, hold| sum.plus(hold.amount));
            assert_eq!(books.taken, sum, "seed {seed}");
            assert_eq!(
                sum.max(Amount {
                    memory_mib: 2048,
                    cpu_millis: 8000
                }),
                room.0.bounds.unwrap().whole
            );
            if let Some(kept) = &books.kept {
                let beside = held.iter().filter(|hold| hold.spell == books.spell);
                let beside = beside.fold(Amount::default(), |sum, hold| sum.plus(hold.amount));
                assert_eq!(kept.beside, beside, "seed {seed}");
                let both = kept.need.plus(beside);
                assert_eq!(both.min(room.0.bounds.unwrap().whole), both, "seed {seed}");
            }
        }
        held.clear();
        assert_eq!(room.books().taken, Amount::default(), "seed {seed}");
    }
}
