//! What the filter answers, and in how many steps.

use super::*;

#[test]
fn the_filter_compiles_and_stays_within_the_kernels_length() {
    let Filter(steps) = Filter::compile().unwrap();
    assert!((100..4096).contains(&steps.len()), "{}", steps.len());
}

/// What a filter answers to a call, and in how many steps.
fn answer(filter: &[sock_filter], number: u32, arch: u32, argument: u32) -> (u32, usize) {
    let (mut at, mut value, mut taken) = (0, 0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = filter[at];
        (at, taken) = (at + 1, taken + 1);
        let holds = match code {
            0x06 => return (k, taken),
            0x20 => {
                // The lower halves of arguments that are all alike; their upper ones are zero.
                value = match k {
                    0 => number,
                    4 => arch,
                    16.. if k % 8 == 0 => argument,
                    _ => 0,
                };
                continue;
            }
            0x54 => {
                value &= k;
                continue;
            }
            0x05 => {
                at += usize::try_from(k).unwrap();
                continue;
            }
            0x15 => value == k,
            0x25 => value > k,
            0x35 => value >= k,
            0x45 => value & k != 0,
            other => panic!("unknown step {other:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

#[test]
fn sorted_the_filter_answers_as_its_parts_do_and_sooner() {
    let (Filter(sorted), parts) = (Filter::compile().unwrap(), parts(Numbers::Left).unwrap());
    let native = sorted[1].k;
    let mut most = 0;
    for number in (0..1024).chain([1 << 30, (1 << 30) + 2, u32::MAX]) {
        for argument in [
            0,
            1,
            2,
            10,
            16,
            40,
            0x5412,
            0x541c,
            1 << 29,
            0x1000_0000,
            u32::MAX,
        ] {
            for arch in [native, 0x4000_0003, 0] {
                let (is, steps) = answer(&sorted, number, arch, argument);
                let was = answer(&parts, number, arch, argument).0;
                assert_eq!(is, was, "call {number} of {arch:#x} with {argument:#x}");
                let plain = answers().get(&number) != Some(&Answer::Depends);
                if plain && arch == native && number < 1 << 30 {
                    most = most.max(steps);
                }
            }
        }
    }
    assert!(most <= 12, "{most} steps");
}

#[test]
fn a_call_that_one_part_allows_is_put_to_the_next() {
    let step = |code, k| sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let allow = step(0x06, SeccompAction::Allow.into());
    let refuse = step(0x06, SeccompAction::Errno(1).into());
    let load = step(0x20, 0);
    let part = vec![load.clone(), allow.clone(), refuse.clone(), allow.clone()];
    let next = [load.clone(), step(0x05, 2), refuse.clone(), step(0x05, 0)];
    let whole = joined(vec![part.clone(), part.clone()]);
    assert_eq!(whole, [&next[..], &part[..]].concat());
}
