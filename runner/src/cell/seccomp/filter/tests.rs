//! Tests of the filter's answers and of the number of steps it takes.

use super::*;

#[test]
fn the_filter_compiles_and_stays_within_the_kernels_length() {
    let Filter(steps) = Filter::compile().unwrap();
    assert!((100..4096).contains(&steps.len()), "{}", steps.len());
}

/// Runs a filter for a call. Returns its answer and the number of steps.
fn answer(filter: &[sock_filter], number: u32, arch: u32, arguments: [u32; 6]) -> (u32, usize) {
    let (mut at, mut value, mut taken) = (0, 0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = filter[at];
        (at, taken) = (at + 1, taken + 1);
        let holds = match code {
            0x06 => return (k, taken),
            0x20 => {
                // The value is the lower half of an argument; the upper halves are zero.
                value = match k {
                    0 => number,
                    4 => arch,
                    16.. if k % 8 == 0 => arguments[usize::try_from((k - 16) / 8).unwrap()],
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
    let (Filter(sorted), parts) = (
        Filter::compile().unwrap(),
        parts(RefusedCalls::InParts).unwrap(),
    );
    let native = sorted[1].k;
    let mut most = 0;
    for number in (0..1024).chain([1 << 30, (1 << 30) + 2, u32::MAX]) {
        for argument in [
            0,
            1,
            2,
            10,
            16,
            22,
            40,
            0x8000,
            0x5412,
            0x541c,
            1 << 29,
            0x1000_0000,
            u32::MAX,
        ] {
            for arch in [native, 0x4000_0003, 0] {
                let (is, steps) = answer(&sorted, number, arch, [argument; 6]);
                let was = answer(&parts, number, arch, [argument; 6]).0;
                assert_eq!(is, was, "call {number} of {arch:#x} with {argument:#x}");
                let plain = answers().get(&number) != Some(&FilterAnswer::Depends);
                if plain && arch == native && number < 1 << 30 {
                    most = most.max(steps);
                }
            }
        }
    }
    assert!(most <= 12, "{most} steps");
}

#[test]
fn arguments_decide_what_ordinary_calls_may_reach() {
    let Filter(filter) = Filter::compile().unwrap();
    let native = filter[1].k;
    let allowed: u32 = SeccompAction::Allow.into();
    let invalid: u32 = SeccompAction::Errno(libc::EINVAL.unsigned_abs()).into();
    let refused: u32 = SeccompAction::Errno(libc::EPERM.unsigned_abs()).into();
    let done: u32 = SeccompAction::Errno(0).into();
    let (socket, ipv6) = (libc::SOL_SOCKET, libc::IPPROTO_IPV6);
    for (case, call, arguments, want) in [
        (
            "a socket filter",
            libc::SYS_setsockopt,
            vec![3, socket, 26],
            invalid,
        ),
        (
            "a filter for several sockets",
            libc::SYS_setsockopt,
            vec![3, socket, 51],
            invalid,
        ),
        (
            "option 26 of another level",
            libc::SYS_setsockopt,
            vec![3, ipv6, 26],
            allowed,
        ),
        (
            "a plain option",
            libc::SYS_setsockopt,
            vec![3, socket, 2],
            allowed,
        ),
        (
            "flow labels",
            libc::SYS_setsockopt,
            vec![3, ipv6, 32],
            invalid,
        ),
        ("strict mode", libc::SYS_seccomp, vec![0], invalid),
        ("filter mode", libc::SYS_seccomp, vec![1], invalid),
        ("a query", libc::SYS_seccomp, vec![2], allowed),
        ("a filter by prctl", libc::SYS_prctl, vec![22, 2], invalid),
        ("core scheduling", libc::SYS_prctl, vec![62, 1], invalid),
        ("a name", libc::SYS_prctl, vec![15], allowed),
        ("urgent data", libc::SYS_sendto, vec![3, 0, 0, 1], invalid),
        (
            "urgent data among flags",
            libc::SYS_recvmsg,
            vec![3, 0, 0x41],
            invalid,
        ),
        (
            "other flags",
            libc::SYS_sendmsg,
            vec![3, 0, 0x4040],
            allowed,
        ),
        ("a sibling", libc::SYS_clone, vec![0x8011], refused),
        ("a child", libc::SYS_clone, vec![0x11], allowed),
        ("asynchronous I/O", libc::SYS_io_setup, vec![1], refused),
        (
            "a limit on core dumps",
            libc::SYS_prlimit64,
            vec![0, 4, 1],
            done,
        ),
        (
            "a query of that limit",
            libc::SYS_prlimit64,
            vec![0, 4, 0],
            allowed,
        ),
        ("another limit", libc::SYS_prlimit64, vec![0, 7, 1], allowed),
        ("every disk", libc::SYS_sync, vec![], done),
    ] {
        let mut all = [0; 6];
        for (slot, argument) in all.iter_mut().zip(arguments) {
            *slot = u32::try_from(argument).unwrap();
        }
        let number = u32::try_from(call).unwrap();
        assert_eq!(answer(&filter, number, native, all).0, want, "{case}");
    }
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
