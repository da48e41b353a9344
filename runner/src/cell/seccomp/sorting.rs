//! Binary search by the number of a call, before a filter checks any arguments.
//!
//! The kernel does not only run a filter. When it installs one, it also runs it for every call
//! number to record which calls are always allowed, and it translates the whole filter to machine
//! code. With a comparison of each number with sixty others in turn, that took 0.27 ms of a
//! program's start. This search halves the numbers in each step, and adjacent numbers with the same
//! answer count as one range. Six comparisons decide, and the installation takes 0.08 ms.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, sock_filter};

/// `BPF_LD | BPF_W | BPF_ABS`.
const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JA`, counted from the step after it.
const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_IF_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGE | BPF_K`.
const JUMP_IF_AT_LEAST: u16 = 0x35;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// First number that belongs to another ABI. The rest of the filter answers calls from here on.
const BEYOND: u32 = 0x4000_0000;

/// Offsets of the call's number and of its architecture in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// `AUDIT_ARCH_…` of this machine's calls.
#[cfg(target_arch = "x86_64")]
const OURS: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const OURS: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OURS: Option<u32> = None;

/// Answer to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    /// The call is made.
    Allowed,
    /// The call is refused with this error number, for all arguments.
    Refused(u32),
    /// The arguments decide: the program after the search answers.
    Depends,
}

/// Range of numbers with one answer, from this number up to the start of the next range.
type Range = (u32, Answer);

/// Comparison with a number, with the goal for a call's number that is at least that, and the goal
/// for a smaller one.
type Fork = (u32, Goal, Goal);

#[derive(Debug, Clone, Copy)]
enum Goal {
    /// Another comparison.
    Fork(usize),
    Answer(Answer),
}

/// Builds the steps that answer calls with these numbers and allow all others. The steps leave to
/// `rest` the calls whose arguments decide, and the calls of another ABI or architecture.
///
/// Returns `None` if the machine's architecture has no number here, or if a jump would be too long
/// for the steps.
pub(super) fn sorted(answers: &BTreeMap<u32, Answer>, rest: &BpfProgram) -> Option<BpfProgram> {
    let ours = OURS?;
    let mut forks = Vec::new();
    let Goal::Fork(_) = plant(&ranges(answers), &mut forks) else {
        return None;
    };
    let steps = steps(&forks)?;
    let beyond = u32::try_from(steps.len() + 1).expect("a sorting has a few hundred steps");
    let head = [
        step(LOAD, 0, 0, ARCHITECTURE),
        step(JUMP_IF_EQUAL, 1, 0, ours),
        step(JUMP, 0, 0, beyond),
        step(LOAD, 0, 0, NUMBER),
    ];
    Some([&head, &steps[..], rest].concat())
}

/// Groups the numbers into ranges of one answer each. The first range starts at zero, and the last
/// one has no end.
fn ranges(answers: &BTreeMap<u32, Answer>) -> Vec<Range> {
    let mut ranges = vec![(0, Answer::Allowed)];
    let mut next = 0;
    for (&number, &answer) in answers {
        if number > next {
            ranges.push((next, Answer::Allowed));
        }
        ranges.push((number, answer));
        next = number + 1;
    }
    ranges.push((next, Answer::Allowed));
    ranges.push((BEYOND, Answer::Depends));
    // Of two ranges that begin at the same number, keep the later one. Of two adjacent ranges with
    // the same answer, keep the earlier one.
    ranges.reverse();
    ranges.dedup_by_key(|(from, _)| *from);
    ranges.reverse();
    ranges.dedup_by_key(|(_, answer)| *answer);
    ranges
}

fn plant(ranges: &[Range], forks: &mut Vec<Fork>) -> Goal {
    let (below, above) = ranges.split_at(ranges.len() / 2);
    match (below, above) {
        ([], [(_, only), ..]) => Goal::Answer(*only),
        (_, [(from, _), ..]) => {
            let own = forks.len();
            let nowhere = Goal::Answer(Answer::Depends);
            forks.push((*from, nowhere, nowhere));
            let less = plant(below, forks);
            let more = plant(above, forks);
            if let Some(fork) = forks.get_mut(own) {
                *fork = (*from, more, less);
            }
            Goal::Fork(own)
        }
        (_, []) => Goal::Answer(Answer::Allowed),
    }
}

/// Returns the forks as steps, followed by one step for each answer. `None` if a jump would be too
/// long.
fn steps(forks: &[Fork]) -> Option<BpfProgram> {
    let mut answers: Vec<Answer> = forks
        .iter()
        .flat_map(|(_, more, less)| [more, less])
        .filter_map(|goal| match goal {
            Goal::Answer(answer) => Some(*answer),
            Goal::Fork(_) => None,
        })
        .collect();
    answers.sort_unstable();
    // `Depends` is the last of them. It has no step and falls through to the rest.
    answers.dedup();
    let place = |goal| match goal {
        Goal::Fork(number) => Some(number),
        Goal::Answer(wanted) => {
            let place = answers.iter().position(|answer| *answer == wanted);
            place.map(|place| forks.len() + place)
        }
    };
    let jump = |from: usize, to| u8::try_from(place(to)? - from - 1).ok();
    let mut steps = Vec::with_capacity(forks.len() + answers.len());
    for (own, &(number, more, less)) in forks.iter().enumerate() {
        let (more, less) = (jump(own, more)?, jump(own, less)?);
        steps.push(step(JUMP_IF_AT_LEAST, more, less, number));
    }
    steps.extend(answers.iter().filter_map(|answer| match answer {
        Answer::Allowed => Some(step(RETURN, 0, 0, SeccompAction::Allow.into())),
        Answer::Refused(errno) => Some(step(RETURN, 0, 0, SeccompAction::Errno(*errno).into())),
        Answer::Depends => None,
    }));
    Some(steps)
}

fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_finds_its_answer_in_a_few_steps() {
        let answers = BTreeMap::from([
            (0, Answer::Refused(1)),
            (5, Answer::Refused(1)),
            (6, Answer::Refused(1)),
            (7, Answer::Refused(38)),
            (9, Answer::Depends),
            (400, Answer::Refused(1)),
        ]);
        let ranges = ranges(&answers);
        assert_eq!(ranges.len(), 10, "{ranges:?}");
        let mut forks = Vec::new();
        let first = plant(&ranges, &mut forks);
        for number in (0..500).chain([BEYOND - 1, BEYOND, u32::MAX]) {
            let (mut goal, mut taken) = (first, 0);
            while let Goal::Fork(fork) = goal {
                let (from, more, less) = forks[fork];
                goal = if number >= from { more } else { less };
                taken += 1;
            }
            let others = if number < BEYOND {
                Answer::Allowed
            } else {
                Answer::Depends
            };
            let wanted = answers.get(&number).copied().unwrap_or(others);
            assert!(
                matches!(goal, Goal::Answer(found) if found == wanted),
                "{number}"
            );
            assert!(taken <= 4, "{taken} comparisons for {number}");
        }
    }

    #[test]
    fn what_does_not_fit_into_a_jump_is_not_sorted() {
        let many = (0..1000).map(|number| (2 * number, Answer::Refused(1)));
        assert!(sorted(&many.collect(), &Vec::new()).is_none());
    }
}
