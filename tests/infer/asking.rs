//! Inference requests of programs from their cells.

use sandhog_core::job::Job;
use sandhog_core::limits::LimitOverrides;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::units::Millis;
use sandhog_testkit::namespace::TestNamespace;
use serde_json::{Value, json};

use crate::fixture::{ModelImageFixture, run_all};

/// Returns the value of a program, which must have succeeded.
fn value(result: &JobResult) -> &Value {
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    result.value.as_ref().unwrap()
}

#[test]
fn a_program_gets_answers_and_is_told_what_it_may_not_have() {
    let mut space = TestNamespace::shared("ask");
    let toy = ModelImageFixture::build(&space, "Toy", "");
    // There is one slot, which the program holds while the model answers.
    let _worker = toy.worker(&space).set("WORKER_SLOTS", "1").start();
    let program = toy.program(
        r#"
def main():
    seen = [ask("echo", "hello")["input"], ask("count", 2)]
    for image, method, input, more in [
        ("another", None, 1, {}),
        ("Not A Name", None, 1, {}),
        (NAME, "__class__", 1, {}),
        (NAME, "odd", "nan", {}),
        (NAME, "missing", 1, {}),
        (NAME, "hang", 1, {"timeout": 0.2}),
    ]:
        try:
            seen.append(sandhog.infer(image, input, method=method, **more))
        except sandhog.InferError as error:
            kinds = [k.__name__ for k in (PermissionError, TimeoutError, sandhog.ModelError) if isinstance(error, k)]
            seen.append([error.code, *kinds, getattr(error, "name", None)])
    try:
        ask("echo", "x" * (2 << 20))
    except ValueError as error:
        seen.append("above the cap" in str(error))
    return seen
"#,
    );
    let program = Job {
        code: program
            .code
            .map(|code| code.replace("NAME", &format!("{:?}", toy.name().as_str()))),
        ..program
    };
    let result = space.run(&program);
    let want = json!([
        "hello",
        [{"i": 0}, {"i": 1}],
        ["not_allowed", "PermissionError", null],
        ["bad_question", null],
        ["bad_job", null],
        ["model_error", "ModelError", "ValueError"],
        ["model_error", "ModelError", "AttributeError"],
        ["timed_out", "TimeoutError", null],
        true,
    ]);
    assert_eq!(value(&result), &want);
    let asked = result.usage.unwrap().infer.unwrap();
    assert_eq!((asked.calls, asked.answered), (8, 2));
    assert!(asked.wall_ms.0 >= 200, "{asked:?}");
}

#[test]
fn a_job_that_names_no_image_has_no_way_to_ask() {
    let mut space = TestNamespace::shared("mute");
    let toy = ModelImageFixture::build(&space, "Toy", "");
    let _worker = toy.worker(&space).start();
    let mute = Job {
        infer: Vec::new(),
        ..toy.program(
            r#"
import os
def main():
    try:
        ask("echo", 1)
    except PermissionError as error:
        return [error.code, str(error), sorted(os.listdir("/proc/self/fd"))[:4], "SANDHOG_INFER_FD" in os.environ]
"#,
        )
    };
    let result = space.run(&mute);
    let want = json!([
        "not_allowed",
        "this job may ask no model: its `infer` names none",
        ["0", "1", "2", "3"],
        false
    ]);
    assert_eq!(value(&result), &want);
    assert_eq!(result.usage.unwrap().infer, None);

    let confused = Job {
        infer: vec![toy.name().clone()],
        ..toy.job("echo", 1)
    };
    let refused = space.run(&confused);
    assert_eq!(refused.outcome, Outcome::Rejected);
    assert_eq!(refused.error.unwrap().code, "bad_job");
}

#[test]
fn the_operator_has_the_last_word() {
    let mut space = TestNamespace::shared("policy");
    let toy = ModelImageFixture::build(&space, "Toy", "");
    let refusal = toy.program(
        r#"
def main():
    try:
        return ask("echo", 1)
    except sandhog.InferRefused as error:
        return [error.code, "programs on this worker may not call" in str(error)]
"#,
    );
    for (setting, value_of_it) in [
        ("WORKER_PROGRAM_MODELS", "another"),
        ("WORKER_PROGRAM_CALLS", "0"),
    ] {
        let worker = toy.worker(&space).set(setting, value_of_it).start();
        let result = space.run(&refusal);
        assert_eq!(value(&result), &json!(["not_allowed", true]), "{setting}");
        drop(worker);
    }
}

#[test]
fn programs_of_several_cells_share_a_batch() {
    let mut space = TestNamespace::shared("cells");
    let toy = ModelImageFixture::build(&space, "Toy", "max_batch = 4\nbatch_wait_ms = 10000\n");
    let _worker = toy.worker(&space).set("WORKER_SLOTS", "4").start();
    let jobs: Vec<Job> = (0..4)
        .map(|i| toy.program(&format!("ask('echo', {i})")))
        .collect();
    for (i, result) in run_all(&mut space, &jobs).iter().enumerate() {
        assert_eq!(value(result), &json!({"input": i, "together": 4}));
    }
}

#[test]
fn a_program_has_no_more_questions_open_than_it_may() {
    let mut space = TestNamespace::shared("fan");
    // A batch could hold all of the calls, but the limit keeps most of them back.
    let toy = ModelImageFixture::build(&space, "Toy", "max_batch = 8\nbatch_wait_ms = 300\n");
    let _worker = toy
        .worker(&space)
        .set("WORKER_PROGRAM_CALLS_AT_ONCE", "2")
        .set("WORKER_PROGRAM_CALLS", "7")
        .start();
    let program = toy.program(
        r#"
from concurrent.futures import ThreadPoolExecutor
def main():
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda i: ask("echo", i), range(6)))
    seen = [[a["input"] for a in answers], max(a["together"] for a in answers) <= 2]
    for _ in range(4):
        try:
            ask("echo", 1)
            seen.append("answered")
        except sandhog.InferError as error:
            seen.append(error.code)
    return seen
"#,
    );
    let result = space.run(&program);
    let want = json!([
        [0, 1, 2, 3, 4, 5],
        true,
        "answered",
        "too_many_calls",
        "hung_up",
        "hung_up"
    ]);
    assert_eq!(value(&result), &want);
    assert_eq!(result.usage.unwrap().infer.unwrap().calls, 8);
}

#[test]
fn hostile_frames_harm_nobody_but_their_own_program() {
    let mut space = TestNamespace::shared("frames");
    let toy = ModelImageFixture::build(&space, "Toy", "");
    let worker = toy.worker(&space).set("WORKER_SLOTS", "1").start();
    let before = space.run(&toy.job("identity", Value::Null));
    let raw = |body: &str| Job {
        limits: LimitOverrides {
            timeout_ms: Some(Millis(5_000)),
            ..LimitOverrides::default()
        },
        ..toy.program(&format!(
            "import os, socket, struct, json\n\
             line = socket.socket(fileno=int(os.environ['SANDHOG_INFER_FD']))\n\
             def frame(data): return struct.pack('>I', len(data)) + data\n\
             def told():\n    head = line.recv(4, socket.MSG_WAITALL)\n    \
             return head and json.loads(line.recv(struct.unpack('>I', head)[0], \
             socket.MSG_WAITALL))\n{body}"
        ))
    };
    let flood = format!(
        "question = frame(b'{{\"id\":1,\"image\":\"{}\",\"method\":\"identity\"}}')\n\
         while True: line.sendall(question)",
        toy.name()
    );
    for (case, body, outcome, want) in [
        (
            "a frame that claims four gigabytes",
            "line.sendall(b'\\xff' * 4)\nlen(line.recv(1))",
            Outcome::Succeeded,
            Some(json!(0)),
        ),
        (
            "half a frame, then silence",
            "line.sendall(b'\\0\\0\\1\\0half')\nline.recv(1)",
            Outcome::TimedOut,
            None,
        ),
        (
            "no JSON, and JSON that is no question",
            "line.sendall(frame(b'\\xff') + frame(b'') + frame(b'[' * 100000) + frame(b'{\"id\":7,\
             \"image\":7}'))\n\
             sorted((str(a['id']), a['error']['code']) for a in [told(), told(), told(), told()])",
            Outcome::Succeeded,
            Some(json!([
                ["7", "bad_question"],
                ["None", "bad_question"],
                ["None", "bad_question"],
                ["None", "bad_question"]
            ])),
        ),
        (
            "a flood of requests whose answers are never read",
            flood.as_str(),
            Outcome::TimedOut,
            None,
        ),
        (
            "an answer made up by the program",
            "line.sendall(frame(b'{\"id\":1,\"value\":2}'))\ntold()['error']['code']",
            Outcome::Succeeded,
            Some(json!("bad_question")),
        ),
        (
            "descriptors sent along",
            "socket.send_fds(line, [frame(b'{}')], [0] * 100)\ntold()['error']['code']",
            Outcome::Succeeded,
            Some(json!("bad_question")),
        ),
        (
            "a line that is hung up in mid-question",
            "line.sendall(b'\\0\\0\\1\\0half')\nline.shutdown(socket.SHUT_RDWR)\n1",
            Outcome::Succeeded,
            Some(json!(1)),
        ),
    ] {
        let result = space.run(&raw(body));
        assert_eq!(result.outcome, outcome, "{case}: {result:?}");
        assert_eq!(result.value, want, "{case}");
        // The next program gets a new channel with no data on it.
        let next = space.run(&raw("line.setblocking(False)\ntry:\n    line.recv(1)\n\
                                   except BlockingIOError:\n    pass\nask('identity', None)"));
        assert_eq!(next.value, before.value, "after {case}: {next:?}");
    }
    assert_eq!(
        worker.log().matches("model loaded").count(),
        1,
        "no program harmed the model"
    );
    assert!(!worker.log().contains("attempt lost"), "{}", worker.log());
}

#[test]
fn questions_end_with_their_program_and_outlive_their_server() {
    let mut space = TestNamespace::shared("mortal");
    let toy = ModelImageFixture::build(&space, "Toy", "concurrency = 2\n");
    let _worker = toy.worker(&space).start();
    let stuck = Job {
        limits: LimitOverrides {
            timeout_ms: Some(Millis(3_000)),
            ..LimitOverrides::default()
        },
        ..toy.program("ask('hang', None)")
    };
    let result = space.run(&stuck);
    assert_eq!(result.outcome, Outcome::TimedOut, "{result:?}");
    let asked = result.usage.unwrap().infer.unwrap();
    assert_eq!((asked.calls, asked.answered), (1, 0));
    assert!(
        asked.wall_ms.0 > 0,
        "the time of an unanswered call counts: {asked:?}"
    );

    let deadly = toy.program(
        r#"
def main():
    try:
        ask("echo", "die")
    except sandhog.InferError as error:
        return [error.code, "signal 9" in str(error), ask("echo", "alive")["input"]]
"#,
    );
    let result = space.run(&deadly);
    assert_eq!(value(&result), &json!(["model_lost", true, "alive"]));

    let forked = toy.program(
        r#"
import os
def main():
    ask("echo", 1)
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            ask("echo", 2)
        except sandhog.InferError as error:
            os.write(write, error.code.encode())
        os._exit(0)
    return [os.read(read, 100).decode(), ask("echo", 3)["input"]]
"#,
    );
    let result = space.run(&forked);
    assert_eq!(value(&result), &json!(["wrong_process", 3]));
}
