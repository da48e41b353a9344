//! Containers that serve one job each: made and destroyed while jobs pause.

use super::*;

fn scene(ahead: usize, containers: usize) -> Scene {
    Scene::new(Rules {
        reuse: Reuse::Never,
        containers,
        ahead,
        ..rules()
    })
}

/// Fills the pool until its target number of unused containers is idle.
fn fill(scene: &mut Scene, want: &Want) {
    let (first, _) = scene.serve(want);
    scene.back(first, true, None);
    scene.pause();
    while !scene.starts.is_empty() || !scene.leaving.is_empty() {
        if scene.starts.is_empty() {
            scene.remove_one();
        } else {
            scene.start_one();
        }
    }
    assert_eq!(scene.state.idle.len(), scene.state.rules.ahead);
    assert_eq!(scene.state.lull(scene.now), None, "nothing is left to do");
}

#[test]
fn a_container_that_served_is_replaced_and_destroyed_when_jobs_pause() {
    let red = want("a", "red", 10);
    let mut scene = scene(2, 8);
    fill(&mut scene, &red);
    let (first, container) = scene.serve(&red);
    assert_eq!((scene.starts.len(), scene.leaving.len()), (0, 0));
    scene.back(first, true, None);
    assert_eq!((scene.starts.len(), scene.leaving.len()), (0, 0));
    assert_eq!(scene.state.counts.retired, 2);
    assert_eq!(scene.state.leaving, 1, "it counts as leaving");
    assert_eq!(scene.state.budget.taken().containers, 2, "it counts");
    scene.pause();
    assert_eq!(scene.starts.len(), 1);
    assert_eq!(scene.leaving, [(container, 20 * MIB)]);
}

#[test]
fn while_jobs_come_a_part_is_kept_ready() {
    let red = want("a", "red", 10);
    let mut scene = scene(4, 16);
    fill(&mut scene, &red);
    for _ in 0..3 {
        let (number, _) = scene.serve(&red);
        scene.back(number, true, None);
        assert_eq!((scene.starts.len(), scene.leaving.len()), (0, 0));
    }
    let (last, _) = scene.serve(&red);
    assert_eq!(scene.starts.len(), 1, "none was left");
    scene.back(last, true, None);
    assert!(scene.leaving.is_empty());
    scene.pause();
    assert_eq!(scene.starts.len(), 4);
    assert_eq!(scene.leaving.len(), 2, "few at a time");
    scene.remove_one();
    assert_eq!(scene.leaving.len(), 2, "and then the next");
}

#[test]
fn what_served_goes_at_once_for_somebody_who_waits() {
    let red = want("a", "red", 10);
    let mut scene = scene(2, 2);
    fill(&mut scene, &red);
    for _ in 0..2 {
        let (number, _) = scene.serve(&red);
        scene.back(number, true, None);
    }
    assert!(scene.leaving.is_empty());
    let third = scene.ask(&red);
    assert!(!scene.lent.contains_key(&third), "both places are taken");
    assert_eq!(scene.leaving.len(), 2);
    scene.remove_one();
    assert_eq!(scene.starts.len(), 1);
    scene.start_one();
    assert!(scene.lent.contains_key(&third));
}

#[test]
fn so_many_that_served_wait_and_no_more() {
    let red = want("a", "red", 10);
    let mut scene = scene(1, 16);
    fill(&mut scene, &red);
    for served in 1..=3 {
        let (number, _) = scene.serve(&red);
        scene.back(number, true, None);
        assert_eq!(scene.leaving.len(), usize::from(served > 1) * (served - 1));
        assert_eq!(scene.state.retired.len(), 1);
    }
}

#[test]
fn a_pool_that_closes_keeps_none_that_served() {
    let red = want("a", "red", 10);
    let mut scene = scene(4, 16);
    fill(&mut scene, &red);
    let (first, _) = scene.serve(&red);
    let (second, _) = scene.serve(&red);
    scene.back(first, true, None);
    scene.state.open = false;
    scene.settle();
    assert_eq!(scene.leaving.len(), 1);
    scene.back(second, true, None);
    assert_eq!(scene.leaving.len(), 2);
}

#[test]
fn one_with_a_gpu_goes_at_once() {
    let mut gpu = want("a", "red", 10);
    gpu.shape.gpus = vec!["GPU-1".parse().unwrap()];
    let mut scene = scene(2, 8);
    let (number, container) = scene.serve(&gpu);
    scene.back(number, true, None);
    assert_eq!(scene.leaving, [(container, 20 * MIB)]);
}
