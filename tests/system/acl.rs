//! The permissions that the protocol's page publishes: each role can do its part and nothing else.

use std::time::Duration;

use redis::{Connection, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use sandhog_core::outcome::Outcome;
use sandhog_testkit::jobs::python;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::page::{PASSWORD, permissions};
use sandhog_testkit::private_redis::PrivateRedis;
use sandhog_testkit::worker::WorkerSpec;

fn as_user(redis: &PrivateRedis, user: &str) -> Connection {
    redis::Client::open(redis.url_of(user, PASSWORD))
        .and_then(|client| client.get_connection())
        .unwrap_or_else(|error| panic!("user {user} cannot log in: {error}"))
}

fn is_forbidden(answer: &RedisResult<Value>) -> bool {
    answer
        .as_ref()
        .is_err_and(|error: &RedisError| error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm))
}

#[test]
fn each_role_can_do_its_part_and_nothing_else() {
    let redis = PrivateRedis::start(&[]);
    let mut space = TestNamespace::on(&redis, "acl");
    let lines = permissions(&space);
    assert_eq!(lines.len(), 6);
    for line in &lines {
        let (name, words) = line.split_first().expect("a line is not empty");
        let answer: RedisResult<Value> = redis::cmd(name).arg(words).query(&mut space.connection());
        answer.unwrap_or_else(|error| panic!("{line:?}: {error}"));
    }
    let _worker = WorkerSpec::of(&space)
        .set("REDIS_URL", &redis.url_of("worker", PASSWORD))
        .start();
    let result = space.run(&python("print('as usual')"));
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");

    // One job that runs, and one job in the same batch as its cancel.
    let running = space.submit(&python(
        "import time\nprint('begun', flush=True)\ntime.sleep(600)",
    ));
    let begun = space.keys().log(&running);
    space.read_stream(&begun, "0");
    space.cancel(&running);
    assert_eq!(space.result(&running).outcome, Outcome::Cancelled);
    let waiting = space.submit_with(&python("print('late')"), &[("delay_ms", "600000")]);
    space.cancel(&waiting);
    assert_eq!(space.result(&waiting).outcome, Outcome::Cancelled);
    // The result of a cancelled job is published before the entry that requested the cancel is
    // deleted.
    let jobs = space.keys().jobs();
    while !space.stream_now(&jobs).is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let refused: RedisResult<Vec<Value>> =
        redis::cmd("ACL").arg("LOG").query(&mut space.connection());
    assert_eq!(
        refused.expect("the administrator may ask"),
        [],
        "nothing was refused"
    );

    let keys = space.keys().clone();
    let (jobs, answer) = (keys.jobs(), keys.result(&result.id));
    let (log, reply) = (keys.log(&result.id), keys.reply(&"all".parse().unwrap()));
    let payload = r#"{"image":"python","code":"print(1)"}"#;
    let submit = ["XADD", &jobs, "*", "job", payload];
    let wait = ["BLMOVE", &answer, &answer, "LEFT", "LEFT", "1"];
    for (user, allowed, forbidden) in [
        (
            "submitter",
            vec![submit.to_vec()],
            vec![
                wait.to_vec(),
                vec!["XRANGE", &jobs, "-", "+"],
                vec!["XADD", &reply, "*", "result", "forged"],
                vec!["DEL", &jobs],
                vec!["KEYS", "*"],
                vec!["CONFIG", "GET", "*"],
            ],
        ),
        (
            "application",
            vec![
                submit.to_vec(),
                vec!["LRANGE", &answer, "0", "-1"],
                vec!["XREAD", "STREAMS", &log, "0"],
                vec!["XREAD", "STREAMS", &reply, "0"],
            ],
            vec![
                wait.to_vec(),
                vec!["RPUSH", &answer, "forged"],
                vec!["XADD", &reply, "*", "result", "forged"],
                vec!["XRANGE", &jobs, "-", "+"],
                vec!["KEYS", "*"],
            ],
        ),
        (
            "operator",
            vec![
                vec!["XLEN", &jobs],
                vec!["LRANGE", &answer, "0", "-1"],
                vec!["INFO", "server"],
            ],
            vec![
                submit.to_vec(),
                wait.to_vec(),
                vec!["DEL", &jobs],
                vec!["GET", "somebody:elses"],
                vec!["KEYS", "*"],
                vec!["CONFIG", "GET", "*"],
            ],
        ),
        (
            "reader",
            vec![
                vec!["LRANGE", &answer, "0", "-1"],
                vec!["XREAD", "STREAMS", &log, "0"],
                vec!["XREAD", "STREAMS", &reply, "0"],
            ],
            vec![
                wait.to_vec(),
                submit.to_vec(),
                vec!["RPUSH", &answer, "forged"],
                vec!["XADD", &log, "*", "data", "forged"],
                vec!["KEYS", "*"],
            ],
        ),
        (
            "waiter",
            vec![
                wait.to_vec(),
                vec!["LRANGE", &answer, "0", "-1"],
                vec!["XREAD", "STREAMS", &log, "0"],
                vec!["XREAD", "STREAMS", &reply, "0"],
            ],
            vec![
                submit.to_vec(),
                vec!["RPUSH", &answer, "forged"],
                vec!["XADD", &log, "*", "data", "forged"],
                vec!["KEYS", "*"],
            ],
        ),
        (
            "worker",
            vec![vec!["XLEN", &jobs]],
            vec![
                vec!["GET", "somebody:elses"],
                vec!["FLUSHALL"],
                vec!["CONFIG", "SET", "maxmemory", "1"],
                vec!["ACL", "LIST"],
                vec!["KEYS", "*"],
            ],
        ),
    ] {
        let mut connection = as_user(&redis, user);
        for words in allowed {
            let answer: RedisResult<Value> =
                redis::cmd(words[0]).arg(&words[1..]).query(&mut connection);
            assert!(answer.is_ok(), "{user} may {words:?}: {answer:?}");
        }
        for words in forbidden {
            let answer: RedisResult<Value> =
                redis::cmd(words[0]).arg(&words[1..]).query(&mut connection);
            assert!(
                is_forbidden(&answer),
                "{user} may not {words:?}: {answer:?}"
            );
        }
    }
}
