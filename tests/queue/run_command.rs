//! The command `sandhog run` when its queue goes away while it waits: it reports that, reacts to
//! Ctrl-C at once, and explains what becomes of the job.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandhog_testkit::environment;
use sandhog_testkit::private_redis::PrivateRedis;

#[test]
fn a_queue_that_goes_away_is_told_and_ctrl_c_ends_the_wait() {
    let mut redis = PrivateRedis::start(&[]);
    let home = tempfile::tempdir().unwrap();
    let mut run = environment::sandhog_command()
        .args(["run", "--id", "mine", "-c", "print(1)"])
        .envs(environment::home_environment(home.path()))
        .env("SANDHOG_REDIS_URL", redis.url())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A blocked client is the command's log reader, so the job is in the queue.
    redis.wait_for_info("clients", |info| !info.contains("blocked_clients:0"));
    redis.kill();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    let mut next = |start: &str| {
        let found = lines
            .by_ref()
            .map_while(Result::ok)
            .find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no line begins with {start:?}"))
    };
    next("sandhog: waiting: the queue does not answer");
    let interrupted = Instant::now();
    let pid = Pid::from_raw(i32::try_from(run.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    next("sandhog: interrupted; cancelling job mine");
    next("sandhog: the job was not cancelled: the queue does not answer");
    let hint = next("hint: ");
    assert!(hint.contains("`sandhog cancel mine`"), "{hint}");
    assert_eq!(run.wait().unwrap().code(), Some(130));
    // The command waits two seconds for the queue; the rest allows for a loaded machine.
    assert!(interrupted.elapsed() < Duration::from_secs(60));

    redis.start_again();
    let mut connection = redis.client().get_connection().unwrap();
    let waiting: u64 = redis::cmd("XLEN")
        .arg("sandhog:{default}:jobs")
        .query(&mut connection)
        .unwrap();
    assert_eq!(waiting, 1, "the job is still queued");
}
