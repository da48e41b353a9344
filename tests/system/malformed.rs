//! Malformed input of every kind: each becomes a dead letter and a result that its submitter can
//! read, and the worker continues unaffected.

use sandhog_core::id::JobId;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::wire::{self, Encoding};
use sandhog_testkit::jobs::python;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;

type Fields = Vec<(&'static str, Vec<u8>)>;

const GOOD: &str = r#"{"image":"python","code":"print(1)"}"#;

/// Returns an entry with this payload and no routing.
fn payload(bytes: impl AsRef<[u8]>) -> Fields {
    vec![("job", bytes.as_ref().to_vec())]
}

/// Returns a valid payload with this routing field.
fn routed(field: &'static str, value: impl AsRef<[u8]>) -> Fields {
    vec![
        ("job", GOOD.as_bytes().to_vec()),
        (field, value.as_ref().to_vec()),
    ]
}

fn cases() -> Vec<(&'static str, Fields, &'static str)> {
    let huge = format!(
        r#"{{"image":"python","code":"{}"}}"#,
        "#".repeat((1 << 20) + 1)
    );
    let array = [0x92, 0xa6, b'p', b'y', b't', b'h', b'o', b'n', 0xa1, b'1'];
    let deep = format!(
        r#"{{"image":"python","code":"1","input":{}1"#,
        "[".repeat(50_000)
    );
    vec![
        // Payloads that are not a job at all.
        ("no job field", vec![("jobs", b"{}".to_vec())], "bad_entry"),
        ("empty payload", payload(""), "bad_payload"),
        ("not JSON", payload("print(6*7)"), "bad_payload"),
        (
            "JSON cut short",
            payload(r#"{"image":"pyth"#),
            "bad_payload",
        ),
        (
            "a JSON array",
            payload(r#"["python","print(1)"]"#),
            "bad_payload",
        ),
        ("a MessagePack array", payload(array), "bad_payload"),
        (
            "a MessagePack map cut short",
            payload([0x81, 0xa5, b'i']),
            "bad_payload",
        ),
        (
            "a map of four billion entries",
            payload([0xdf, 0xff, 0xff, 0xff, 0xff]),
            "bad_payload",
        ),
        (
            "not UTF-8",
            payload(b"{\"image\":\"python\",\"code\":\"\xff\"}"),
            "bad_payload",
        ),
        ("nested too deep", payload(deep), "bad_payload"),
        ("a huge payload", payload(huge), "payload_too_large"),
        // Wrong types and names.
        (
            "image is a number",
            payload(r#"{"image":3,"code":"1"}"#),
            "bad_payload",
        ),
        (
            "image is no name",
            payload(r#"{"image":"a b","code":"1"}"#),
            "bad_payload",
        ),
        (
            "code is a list",
            payload(r#"{"image":"python","code":["1"]}"#),
            "bad_payload",
        ),
        (
            "env holds a number",
            payload(r#"{"image":"python","code":"1","env":{"A":1}}"#),
            "bad_payload",
        ),
        ("no image", payload(r#"{"code":"1"}"#), "bad_payload"),
        (
            "an unknown kind",
            payload(r#"{"kind":"dig","image":"python","code":"1"}"#),
            "bad_payload",
        ),
        (
            "a limit that is no size",
            payload(r#"{"image":"python","code":"1","limits":{"memory":"lots"}}"#),
            "bad_payload",
        ),
        (
            "a negative limit",
            payload(r#"{"image":"python","code":"1","limits":{"pids":-1}}"#),
            "bad_payload",
        ),
        // Payloads that parse but are not a valid job.
        (
            "nothing to run",
            payload(r#"{"image":"python"}"#),
            "bad_job",
        ),
        (
            "two things to run",
            payload(r#"{"image":"python","code":"1","argv":["true"]}"#),
            "bad_job",
        ),
        (
            "an empty argv",
            payload(r#"{"image":"python","argv":[]}"#),
            "bad_job",
        ),
        (
            "a NUL in argv",
            payload(r#"{"image":"python","argv":["echo","a\u0000b"]}"#),
            "bad_job",
        ),
        (
            "a NUL in env",
            payload(r#"{"image":"python","code":"1","env":{"A":"\u0000"}}"#),
            "bad_job",
        ),
        (
            "an environment name that is none",
            payload(r#"{"image":"python","code":"1","env":{"A=B":"1"}}"#),
            "bad_job",
        ),
        // Jobs that only the image's contract rejects.
        (
            "an unknown image",
            payload(r#"{"image":"no-such-image","code":"1"}"#),
            "unknown_image",
        ),
        (
            "an unknown language",
            payload(r#"{"image":"python","code":"1","language":"cobol"}"#),
            "unknown_language",
        ),
        (
            "a limit of zero",
            payload(r#"{"image":"python","code":"1","limits":{"timeout_ms":0}}"#),
            "bad_limits",
        ),
        (
            "a limit above the ceiling",
            payload(r#"{"image":"python","code":"1","limits":{"pids":1000000}}"#),
            "bad_limits",
        ),
        // Routing.
        ("a bad id", routed("id", "no spaces allowed"), "bad_id"),
        (
            "an id that is too long",
            routed("id", "x".repeat(129)),
            "bad_id",
        ),
        ("a bad class", routed("class", "GPU!"), "bad_id"),
        (
            "too many tags",
            routed("tags", "a,b,c,d,e,f,g,h,i"),
            "bad_id",
        ),
        ("a bad tenant", routed("tenant", "a/b"), "bad_id"),
        (
            "a bad reply stream",
            routed("reply", "{other}:slot"),
            "bad_id",
        ),
        ("a bad priority", routed("priority", "urgent"), "bad_field"),
        ("a negative delay", routed("delay_ms", "-1"), "bad_field"),
        ("no attempts", routed("max_attempts", "0"), "bad_field"),
        (
            "a time that overflows",
            routed("at_ms", "99999999999999999999"),
            "bad_field",
        ),
        (
            "a retention of a million years",
            routed("keep_s", "31557600000000"),
            "bad_field",
        ),
        (
            "a field that is not UTF-8",
            routed("priority", [0xff]),
            "bad_field",
        ),
        // Requests other than a submission.
        (
            "an unknown op",
            vec![("op", b"explode".to_vec())],
            "bad_entry",
        ),
        (
            "a cancel of nothing",
            vec![("op", b"cancel".to_vec())],
            "bad_entry",
        ),
    ]
}

fn add(space: &mut TestNamespace, fields: &Fields) -> JobId {
    let fields: Vec<(&str, &[u8])> = fields
        .iter()
        .map(|(name, value)| (*name, value.as_slice()))
        .collect();
    space.add(&fields)
}

fn check(case: &str, result: &JobResult, id: &JobId, code: &str) {
    assert_eq!(&result.id, id, "case {case}");
    assert_eq!(result.outcome, Outcome::Rejected, "case {case}: {result:?}");
    let error = result
        .error
        .as_ref()
        .unwrap_or_else(|| panic!("case {case} says no reason: {result:?}"));
    assert_eq!(error.code, code, "case {case}: {}", error.message);
    assert!(
        (1..500).contains(&error.message.len()),
        "case {case}: a reason is readable and bounded: {:?}",
        error.message
    );
}

#[test]
fn everything_malformed_becomes_a_dead_letter_and_a_result() {
    let mut space = TestNamespace::shared("malformed");
    let worker = WorkerSpec::of(&space).start();
    let cases = cases();
    let ids: Vec<JobId> = cases
        .iter()
        .map(|(_, fields, _)| add(&mut space, fields))
        .collect();
    for ((case, _, code), id) in cases.iter().zip(&ids) {
        let result = space.result(id);
        check(case, &result, id, code);
    }

    let dead = space.stream_now(&space.keys().dead());
    for ((case, _, code), id) in cases.iter().zip(&ids) {
        let letters: Vec<&str> = dead
            .iter()
            .filter(|letter| letter.text("id") == id.as_str())
            .map(|letter| letter.text("reason"))
            .collect();
        assert_eq!(letters, [*code], "one dead letter for case {case}");
    }
    assert_eq!(dead.len(), cases.len(), "and none besides");

    assert_eq!(worker.get("/health").map(|(status, _)| status), Some(200));
    let good = space.run(&python("print('still here')"));
    assert_eq!(good.outcome, Outcome::Succeeded, "{good:?}");
    assert_eq!(
        space.stream_now(&space.keys().jobs()),
        [],
        "no entry is left in the intake"
    );
}

#[test]
fn a_rejected_job_answers_to_its_own_id_in_its_own_encoding_and_on_its_reply_stream() {
    let mut space = TestNamespace::shared("malformed");
    let _worker = WorkerSpec::of(&space).start();
    let packed =
        rmp_serde::to_vec_named(&std::collections::BTreeMap::from([("code", "1")])).unwrap();
    add(
        &mut space,
        &vec![
            ("job", packed),
            ("id", b"mine".to_vec()),
            ("reply", b"here".to_vec()),
        ],
    );
    let id: JobId = "mine".parse().unwrap();
    let bytes = space.result_bytes(&id);
    assert_eq!(wire::sniff(&bytes).unwrap(), Encoding::MessagePack);
    check("no image, packed", &space.result(&id), &id, "bad_payload");

    let reply = space.keys().reply(&"here".parse().unwrap());
    let entries = space.read_stream_until(&reply, 1);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].bytes("result"), Some(bytes.as_slice()));
}
