//! Containers that serve one job each: made and destroyed while jobs pause.

use super::*;

fn pool(ahead: usize, containers: usize) -> PoolFixture {
    PoolFixture::new(Rules {
        reuse: Reuse::Never,
        containers,
        ahead,
        ..rules()
    })
}

/// Fills the pool until its target number of unused containers is idle.
fn fill(pool: &mut PoolFixture, request: &SandboxRequest) {
    let (first, _) = pool.serve(request);
    pool.back(first, true, None);
    pool.pause();
    while !pool.starts.is_empty() || !pool.leaving.is_empty() {
        if pool.starts.is_empty() {
            pool.remove_one();
        } else {
            pool.start_one();
        }
    }
    assert_eq!(pool.state.idle.len(), pool.state.rules.ahead);
    assert_eq!(pool.next_idle_gap(), None, "nothing is left to do");
}

#[test]
fn a_container_that_served_is_replaced_and_destroyed_when_jobs_pause() {
    let red = request("a", "red", 10);
    let mut pool = pool(2, 8);
    fill(&mut pool, &red);
    let (first, container) = pool.serve(&red);
    assert_eq!((pool.starts.len(), pool.leaving.len()), (0, 0));
    pool.back(first, true, None);
    assert_eq!((pool.starts.len(), pool.leaving.len()), (0, 0));
    assert_eq!(pool.state.counts.retired, 2);
    assert_eq!(pool.state.leaving, 1, "it counts as leaving");
    assert_eq!(pool.state.budget.taken().containers, 2, "it counts");
    pool.pause();
    assert_eq!(pool.starts.len(), 1);
    assert_eq!(pool.leaving(), [(container, 20 * MIB)]);
}

#[test]
fn while_jobs_come_a_part_is_kept_ready() {
    let red = request("a", "red", 10);
    let mut pool = pool(4, 16);
    fill(&mut pool, &red);
    for _ in 0..3 {
        let (number, _) = pool.serve(&red);
        pool.back(number, true, None);
        assert_eq!((pool.starts.len(), pool.leaving.len()), (0, 0));
    }
    let (last, _) = pool.serve(&red);
    assert_eq!(pool.starts.len(), 1, "none was left");
    pool.back(last, true, None);
    assert!(pool.leaving.is_empty());
    pool.pause();
    assert_eq!(pool.starts.len(), 4);
    assert_eq!(pool.leaving.len(), 2, "few at a time");
    pool.remove_one();
    assert_eq!(pool.leaving.len(), 2, "and then the next");
}

#[test]
fn what_served_goes_at_once_for_somebody_who_waits() {
    let red = request("a", "red", 10);
    let mut pool = pool(2, 2);
    fill(&mut pool, &red);
    for _ in 0..2 {
        let (number, _) = pool.serve(&red);
        pool.back(number, true, None);
    }
    assert!(pool.leaving.is_empty());
    let third = pool.ask(&red);
    assert!(!pool.lent.contains_key(&third), "both places are taken");
    assert_eq!(pool.leaving.len(), 2);
    pool.remove_one();
    assert_eq!(pool.starts.len(), 1);
    pool.start_one();
    assert!(pool.lent.contains_key(&third));
}

#[test]
fn so_many_that_served_wait_and_no_more() {
    let red = request("a", "red", 10);
    let mut pool = pool(1, 16);
    fill(&mut pool, &red);
    for served in 1..=3 {
        let (number, _) = pool.serve(&red);
        pool.back(number, true, None);
        assert_eq!(pool.leaving.len(), usize::from(served > 1) * (served - 1));
        assert_eq!(pool.state.retired.len(), 1);
    }
}

#[test]
fn a_pool_that_closes_keeps_none_that_served() {
    let red = request("a", "red", 10);
    let mut pool = pool(4, 16);
    fill(&mut pool, &red);
    let (first, _) = pool.serve(&red);
    let (second, _) = pool.serve(&red);
    pool.back(first, true, None);
    pool.state.open = false;
    pool.settle();
    assert_eq!(pool.leaving.len(), 1);
    pool.back(second, true, None);
    assert_eq!(pool.leaving.len(), 2);
}

#[test]
fn one_with_a_gpu_goes_at_once() {
    let mut gpu = request("a", "red", 10);
    gpu.shape.gpus = vec!["GPU-1".parse().unwrap()];
    let mut pool = pool(2, 8);
    let (number, container) = pool.serve(&gpu);
    pool.back(number, true, None);
    assert_eq!(pool.leaving(), [(container, 20 * MIB)]);
}
