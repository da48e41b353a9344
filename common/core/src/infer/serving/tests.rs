//! Tests of the jobs that an image can answer, and of valid `[serve]` tables.

use super::*;
use crate::job::{Job, JobError};

const EMBED: &str = r#"
    max_batch = 32
    batch_wait_ms = 2
    [server]
    style = "python"
    model = "embed:Embedder"
    method = "embed"
    batched = ["embed"]
"#;

const CHAT: &str = r#"
    concurrency = 4
    [server]
    style = "http"
    argv = ["/usr/bin/server"]
    port = 8080
    path = "/v1/completions"
"#;

fn serving(toml: &str) -> Serving {
    toml::from_str(toml).unwrap()
}

fn call(serving: &Serving, json: &str) -> Result<Call, InferError> {
    let job: Job = serde_json::from_str(json).unwrap();
    let job = match job.check() {
        Ok(job) => job,
        Err(JobError::Infer(error)) => return Err(error),
        Err(other) => panic!("{other}"),
    };
    serving.call(&job.image, job.call_target())
}

#[test]
fn a_job_calls_what_its_image_serves() {
    let (embed, chat) = (serving(EMBED), serving(CHAT));
    assert_eq!((embed.check(), chat.check()), (Ok(()), Ok(())));
    let method = |name: &str, batched| {
        Ok(Call::Method {
            name: name.to_owned(),
            batched,
        })
    };
    for (case, serving, json, want) in [
        (
            "the default",
            &embed,
            r#"{"kind":"infer","image":"e","input":"a"}"#,
            method("embed", true),
        ),
        (
            "a stream of the default",
            &embed,
            r#"{"kind":"infer","image":"e","stream":true}"#,
            method("embed", true),
        ),
        (
            "another method",
            &embed,
            r#"{"kind":"infer","image":"e","method":"count"}"#,
            method("count", false),
        ),
        (
            "private",
            &embed,
            r#"{"kind":"infer","image":"e","method":"__init__"}"#,
            Err(InferError::BadMethod {
                name: "__init__".to_owned(),
            }),
        ),
        (
            "load",
            &embed,
            r#"{"kind":"infer","image":"e","method":"load"}"#,
            Err(InferError::BadMethod {
                name: "load".to_owned(),
            }),
        ),
        (
            "a path of a class",
            &embed,
            r#"{"kind":"infer","image":"e","path":"/x"}"#,
            Err(InferError::PathOfClass {
                image: "e".parse().unwrap(),
            }),
        ),
        (
            "the default path",
            &chat,
            r#"{"kind":"infer","image":"c"}"#,
            Ok(Call::Path("/v1/completions".to_owned())),
        ),
        (
            "a path with a line break",
            &chat,
            r#"{"kind":"infer","image":"c","path":"/a\r\nx: y"}"#,
            Err(InferError::BadPath {
                path: "/a\r\nx: y".to_owned(),
            }),
        ),
        (
            "code",
            &chat,
            r#"{"kind":"infer","image":"c","code":"1"}"#,
            Err(InferError::WrongKind {
                field: "code",
                kind: "exec",
            }),
        ),
        (
            "a program that streams",
            &chat,
            r#"{"image":"c","code":"1","stream":true}"#,
            Err(InferError::WrongKind {
                field: "stream",
                kind: "infer",
            }),
        ),
    ] {
        assert_eq!(call(serving, json), want, "case {case}");
    }
}

#[test]
fn a_table_that_cannot_be_fulfilled_is_refused() {
    for (case, change) in [
        ("no calls at all", "concurrency = 0\n"),
        ("two servers", "min_warm = 2\n"),
        ("an http batch", "max_batch = 2\n"),
        ("no time to load", "load_timeout_s = 0\n"),
    ] {
        let text = CHAT.replace("concurrency = 4\n", change);
        assert!(serving(&text).check().is_err(), "case {case}");
    }
    let nameless = EMBED.replace("embed:Embedder", "embed");
    assert!(serving(&nameless).check().is_err());
    assert!(toml::from_str::<Serving>(&EMBED.replace("max_batch", "max_bach")).is_err());
}
