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
const FIRST_FOREIGN_NUMBER: u32 = 0x4000_0000;

/// Offsets of the call's number and of its architecture in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// `AUDIT_ARCH_…` of this machine's calls.
#[cfg(target_arch = "x86_64")]
const NATIVE_ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const NATIVE_ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const NATIVE_ARCHITECTURE: Option<u32> = None;

/// Answer to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FilterAnswer {
    /// The call is made.
    Allowed,
    /// The call is refused with this error number, for all arguments.
    Refused(u32),
    /// The arguments decide: the program after the search answers.
    Depends,
}

/// Range of numbers with one answer, from this number up to the start of the next range.
type Range = (u32, FilterAnswer);

/// Comparison with a number, with the target for a call's number that is at least that, and the
/// target for a smaller one.
type Branch = (u32, Target, Target);

#[derive(Debug, Clone, Copy)]
enum Target {
    /// Another comparison.
    Branch(usize),
    Answer(FilterAnswer),
}

/// Builds the steps that answer calls with these numbers and allow all others. The steps leave to
/// `rest` the calls whose arguments decide, and the calls of another ABI or architecture.
///
/// Returns `None` if the machine's architecture has no number here, or if a jump would be too long
/// for the steps.
pub(super) fn number_search(
    answers: &BTreeMap<u32, FilterAnswer>,
    rest: &BpfProgram,
) -> Option<BpfProgram> {
    let native = NATIVE_ARCHITECTURE?;
    let mut branches = Vec::new();
    let Target::Branch(_) = build_tree(&ranges(answers), &mut branches) else {
        return None;
    };
    let steps = steps(&branches)?;
    let foreign = u32::try_from(steps.len() + 1).expect("a search has a few hundred steps");
    let head = [
        step(LOAD, 0, 0, ARCHITECTURE),
        step(JUMP_IF_EQUAL, 1, 0, native),
        step(JUMP, 0, 0, foreign),
        step(LOAD, 0, 0, NUMBER),
    ];
    Some([&head, &steps[..], rest].concat())
}

/// Groups the numbers into ranges of one answer each. The first range starts at zero, and the last
/// one has no end.
fn ranges(answers: &BTreeMap<u32, FilterAnswer>) -> Vec<Range> {
    let mut ranges = vec![(0, FilterAnswer::Allowed)];
    let mut next = 0;
    for (&number, &answer) in answers {
        if number > next {
            ranges.push((next, FilterAnswer::Allowed));
        }
        ranges.push((number, answer));
        next = number + 1;
    }
    ranges.push((next, FilterAnswer::Allowed));
    ranges.push((FIRST_FOREIGN_NUMBER, FilterAnswer::Depends));
    // Of two ranges that begin at the same number, keep the later one. Of two adjacent ranges with
    // the same answer, keep the earlier one.
    ranges.reverse();
    ranges.dedup_by_key(|(from, _)| *from);
    ranges.reverse();
    ranges.dedup_by_key(|(_, answer)| *answer);
    ranges
}

fn build_tree(ranges: &[Range], branches: &mut Vec<Branch>) -> Target {
    let (below, above) = ranges.split_at(ranges.len() / 2);
    match (below, above) {
        ([], [(_, only), ..]) => Target::Answer(*only),
        (_, [(from, _), ..]) => {
            let own = branches.len();
            let nowhere = Target::Answer(FilterAnswer::Depends);
            branches.push((*from, nowhere, nowhere));
            let less = build_tree(below, branches);
            let more = build_tree(above, branches);
            if let Some(branch) = branches.get_mut(own) {
                *branch = (*from, more, less);
            }
            Target::Branch(own)
        }
        (_, []) => Target::Answer(FilterAnswer::Allowed),
    }
}

/// Returns the branches as steps, followed by one step for each answer. `None` if a jump would be
/// too long.
fn steps(branches: &[Branch]) -> Option<BpfProgram> {
    let mut answers: Vec<FilterAnswer> = branches
        .iter()
        .flat_map(|(_, more, less)| [more, less])
        .filter_map(|target| match target {
            Target::Answer(answer) => Some(*answer),
            Target::Branch(_) => None,
        })
        .collect();
    answers.sort_unstable();
    // `Depends` is the last of them. It has no step and falls through to the rest.
    answers.dedup();
    let place = |target| match target {
        Target::Branch(number) => Some(number),
        Target::Answer(wanted) => {
            let place = answers.iter().position(|answer| *answer == wanted);
            place.map(|place| branches.len() + place)
        }
    };
    let jump = |from: usize, to| u8::try_from(place(to)? - from - 1).ok();
    let mut steps = Vec::with_capacity(branches.len() + answers.len());
    for (own, &(number, more, less)) in branches.iter().enumerate() {
        let (more, less) = (jump(own, more)?, jump(own, less)?);
        steps.push(step(JUMP_IF_AT_LEAST, more, less, number));
    }
    steps.extend(answers.iter().filter_map(|answer| match answer {
        FilterAnswer::Allowed => Some(step(RETURN, 0, 0, SeccompAction::Allow.into())),
        FilterAnswer::Refused(errno) => {
            Some(step(RETURN, 0, 0, SeccompAction::Errno(*errno).into()))
        }
        FilterAnswer::Depends => None,
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
            (0, FilterAnswer::Refused(1)),
            (5, FilterAnswer::Refused(1)),
            (6, FilterAnswer::Refused(1)),
            (7, FilterAnswer::Refused(38)),
            (9, FilterAnswer::Depends),
            (400, FilterAnswer::Refused(1)),
        ]);
        let ranges = ranges(&answers);
        assert_eq!(ranges.len(), 10, "{ranges:?}");
        let mut branches = Vec::new();
        let first = build_tree(&ranges, &mut branches);
        for number in (0..500).chain([FIRST_FOREIGN_NUMBER - 1, FIRST_FOREIGN_NUMBER, u32::MAX]) {
            let (mut target, mut taken) = (first, 0);
            while let Target::Branch(branch) = target {
                let (from, more, less) = branches[branch];
                target = if number >= from { more } else { less };
                taken += 1;
            }
            let others = if number < FIRST_FOREIGN_NUMBER {
                FilterAnswer::Allowed
            } else {
                FilterAnswer::Depends
            };
            let wanted = answers.get(&number).copied().unwrap_or(others);
            assert!(
                matches!(target, Target::Answer(found) if found == wanted),
                "{number}"
            );
            assert!(taken <= 4, "{taken} comparisons for {number}");
        }
    }

    #[test]
    fn what_does_not_fit_into_a_jump_is_not_sorted() {
        let many = (0..1000).map(|number| (2 * number, FilterAnswer::Refused(1)));
        assert!(number_search(&many.collect(), &Vec::new()).is_none());
    }
}
