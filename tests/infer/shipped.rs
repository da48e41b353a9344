//! The inference images that ship: each gets a realistic request.

use std::process::Command;

use sandhog_core::job::Job;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_testkit::environment;
use sandhog_testkit::namespace::{TestNamespace, decode};
use sandhog_testkit::worker::WorkerSpec;
use serde_json::{Value, json};

use crate::fixture::run_all;

fn infer(image: &str, input: impl Into<Value>) -> Job {
    Job::infer(image.parse().unwrap(), input.into())
}

fn answer(result: &JobResult) -> &Value {
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    result.value.as_ref().unwrap()
}

#[test]
fn text_comes_of_one_xadd_with_token_counts() {
    let space = TestNamespace::shared("xadd");
    let _worker = WorkerSpec::of(&space).start();
    let redis_cli = |words: &[&str]| {
        let run = Command::new("redis-cli")
            .args(["-u", space.url()])
            .args(words)
            .output()
            .unwrap();
        String::from_utf8(run.stdout).unwrap().trim_end().to_owned()
    };
    let payload = r#"{"kind":"infer","image":"smollm2","input":{"prompt":"Once upon a time","max_tokens":8,"temperature":0}}"#;
    let id = redis_cli(&["XADD", &space.keys().jobs(), "*", "job", payload]);
    let key = space.keys().result(&id.parse().unwrap());
    let printed = redis_cli(&["BLMOVE", &key, &key, "LEFT", "LEFT", "180"]);
    let result = decode(printed.as_bytes());
    let value = answer(&result);
    assert!(!value["choices"][0]["text"].as_str().unwrap().is_empty());
    assert_eq!(value["usage"]["completion_tokens"], 8);
    assert!(value["usage"]["prompt_tokens"].as_u64().unwrap() > 0);
}

#[test]
fn temperature_zero_twice_is_the_same_text_and_so_is_its_stream() {
    let mut space = TestNamespace::shared("same");
    let _worker = WorkerSpec::of(&space).start();
    let job = infer(
        "smollm2",
        json!({"prompt": "The capital of France is", "max_tokens": 12, "temperature": 0}),
    );
    let text = |result: &JobResult| answer(result)["choices"][0]["text"].clone();
    let first = text(&space.run(&job));
    assert_eq!(text(&space.run(&job)), first);

    let streamed = Job {
        stream: true,
        ..job
    };
    let id = space.submit(&streamed);
    let result = space.result(&id);
    assert_eq!(text(&result), first);
    assert_eq!(Value::from(result.stdout.lossy()), first);
    assert_eq!(answer(&result)["usage"]["completion_tokens"], 12);
    let usage = result.usage.unwrap();
    assert!(usage.first_token_ms.unwrap() <= usage.wall_ms, "{usage:?}");
    assert_eq!(usage.tokens.unwrap().completion, 12);
    let log = space.keys().log(&id);
    let pieces: Vec<String> = space
        .stream_now(&log)
        .iter()
        .filter(|entry| entry.text("stream") == "stdout")
        .map(|entry| entry.text("data").to_owned())
        .collect();
    assert_eq!(Value::from(pieces.concat()), first);
}

#[test]
fn a_chat_answers_in_openai_s_shape_and_a_bad_request_says_why() {
    let mut space = TestNamespace::shared("chat");
    let _worker = WorkerSpec::of(&space).start();
    let messages = json!([{"role": "user", "content": "Say hello."}]);
    let chat = Job {
        path: Some("/v1/chat/completions".to_owned()),
        stream: true,
        ..infer(
            "smollm2",
            json!({"messages": messages, "max_tokens": 8, "temperature": 0}),
        )
    };
    let result = space.run(&chat);
    let message = &answer(&result)["choices"][0]["message"];
    assert_eq!(message["role"], "assistant");
    assert_eq!(message["content"], Value::from(result.stdout.lossy()));

    let bad = space.run(&infer("smollm2", json!({"prompt": 7.5})));
    assert_eq!(bad.outcome, Outcome::Failed);
    assert_eq!(bad.exception.unwrap().name, "HTTP 400");
}

#[test]
fn a_node_program_asks_several_at_once_and_is_told_why_not() {
    let mut space = TestNamespace::shared("node");
    let _worker = WorkerSpec::of(&space).start();
    let program = Job {
        infer: vec!["embed".parse().unwrap()],
        ..Job::code(
            "node".parse().unwrap(),
            r#"
const { infer, ModelError } = require("/usr/lib/sandhog/cell/sandhog.js");
async function main() {
  const [vector, count] = await Promise.all([
    infer("embed", "a job queue"),
    infer("embed", "a job queue", { method: "count" }),
  ]);
  const refused = await infer("smollm2", null).catch((error) => error.code);
  const failed = await infer("embed", 7).catch((error) => [error instanceof ModelError, error.exception.type]);
  const late = await infer("embed", "long ".repeat(5000), { timeoutMs: 1 }).catch((error) => error.code);
  return [vector.length, count, refused, failed, late];
}
"#,
        )
    };
    let result = space.run(&program);
    let want = json!([384, 5, "not_allowed", [true, "TypeError"], "timed_out"]);
    assert_eq!(answer(&result), &want);
    assert_eq!(result.usage.unwrap().infer.unwrap().calls, 5);
}

#[test]
fn programs_have_private_models_and_no_network() {
    let mut space = TestNamespace::shared("private");
    let _worker = WorkerSpec::of(&space).start();
    let question = json!({"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0});
    let program = Job {
        infer: vec!["smollm2".parse().unwrap(), "embed".parse().unwrap()],
        input: question.clone(),
        ..Job::code(
            "python".parse().unwrap(),
            r#"
import sandhog, socket
def main():
    story = sandhog.infer("smollm2", input_data)
    try:
        socket.create_connection(("1.1.1.1", 53), 1)
    except OSError as error:
        wall = error.errno
    return [story["choices"][0]["text"], story["usage"]["completion_tokens"], len(sandhog.infer("embed", "a")), wall]
"#,
        )
    };
    let alone = space.run(&infer("smollm2", question));
    // First a clone of the zygote, then a program in a newly started interpreter.
    for env in [None, Some(("PYTHONNODEBUGRANGES", "1"))] {
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let program = Job {
            env: env.into_iter().collect(),
            ..program.clone()
        };
        let result = space.run(&program);
        let want = json!([answer(&alone)["choices"][0]["text"], 8, 384, 101]);
        assert_eq!(answer(&result), &want);
        let asked = result.usage.unwrap().infer.unwrap();
        assert_eq!(
            (asked.calls, asked.answered, asked.tokens.completion),
            (2, 2, 8)
        );
        assert!(asked.tokens.prompt > 0);
    }
}

#[test]
fn vectors_of_a_batch_are_what_they_are_alone() {
    let mut space = TestNamespace::shared("embed");
    let _worker = WorkerSpec::of(&space).start();
    let texts: Vec<String> = (0..32)
        .map(|i| {
            format!(
                "sentence {i} about {}",
                "cats and queues ".repeat(i % 5 + 1)
            )
        })
        .collect();
    let alone: Vec<Vec<f64>> = texts
        .iter()
        .map(|text| vector(&space.run(&infer("embed", text.as_str()))))
        .collect();
    let mut jobs: Vec<Job> = texts.iter().map(|t| infer("embed", t.as_str())).collect();
    jobs.insert(16, infer("embed", json!({"not": "a text"})));
    let mut together = run_all(&mut space, &jobs);
    let bad = together.remove(16);
    assert_eq!(bad.outcome, Outcome::Failed);
    assert_eq!(bad.exception.unwrap().name, "TypeError");
    for ((text, alone), together) in texts.iter().zip(&alone).zip(&together) {
        let together = vector(together);
        let cosine: f64 = alone.iter().zip(&together).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.9999, "{text}: {cosine}");
    }
}

fn vector(result: &JobResult) -> Vec<f64> {
    let numbers = answer(result).as_array().unwrap();
    assert_eq!(numbers.len(), 384);
    numbers.iter().map(|n| n.as_f64().unwrap()).collect()
}

#[test]
fn a_page_is_read() {
    let mut space = TestNamespace::shared("ocr");
    let _worker = WorkerSpec::of(&space).start();
    let page = std::fs::read(environment::checkout().join("tests/infer/page.png.base64")).unwrap();
    let page: String = String::from_utf8(page)
        .unwrap()
        .split_whitespace()
        .collect();
    let result = space.run(&infer("ocr", page));
    assert_eq!(
        answer(&result),
        &json!({"text": "Sandhogs dig inside\npressurised caissons."})
    );
    let bad = space.run(&infer("ocr", "bm90IGEgcGljdHVyZQ=="));
    assert_eq!(bad.outcome, Outcome::Failed);
    assert_eq!(bad.exception.unwrap().name, "ValueError");
}
