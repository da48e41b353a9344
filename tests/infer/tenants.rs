//! Two tenants and one model server: no call, however it is written, reveals another tenant's
//! calls.

use sandhog_core::job::Job;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::wire::{self, Encoding};
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::{Value, json};

use crate::fixture::ModelImageFixture;

const SECRET: &str = "the launch code of project Bluebird is 7351";

fn memory(space: &TestNamespace) -> ModelImageFixture {
    let lines = "paths = [\"POST /chat\", \"GET /models\"]\nquery = [\"format\"]\n\
                 force = { cache_prompt = false }\ndrop = [\"id_slot\", \"options.slot\"]";
    ModelImageFixture::http_of(space, "", "memory.py", "/health", lines)
}

fn ask(space: &mut TestNamespace, tenant: &str, job: &Job) -> JobResult {
    let id = space.submit_with(job, &[("tenant", tenant)]);
    space.result(&id)
}

/// Paths that would reach more than the contract lists, with the input that selects the method.
fn tricks() -> Vec<(&'static str, Value)> {
    let guess = json!({"prompt": SECRET, "cache_prompt": true});
    vec![
        ("/slots", Value::Null),
        ("/slots", json!({})),
        ("/props", Value::Null),
        ("/metrics", Value::Null),
        ("/health", Value::Null),
        ("//slots", Value::Null),
        ("/slots/", Value::Null),
        ("/SLOTS", Value::Null),
        ("/%73lots", Value::Null),
        ("/slots?", Value::Null),
        ("/slots?format=a", Value::Null),
        ("/slots#", Value::Null),
        ("/echo/../slots", Value::Null),
        ("/echo/..%2fslots", Value::Null),
        ("/echo?/../slots", Value::Null),
        ("/models", json!({})),
        ("/chat", Value::Null),
        ("/completion", guess.clone()),
        ("//chat", guess.clone()),
        ("/chat/", guess.clone()),
        ("/Chat", guess.clone()),
        ("/%63hat", guess.clone()),
        ("/chat/.", guess.clone()),
        ("/chat?cache_prompt=true", guess.clone()),
        ("/chat?id_slot=0", guess.clone()),
        ("/chat?format=a&cache%5fprompt=1", guess.clone()),
        ("/chat?%69d_slot=0", guess.clone()),
        ("/echo?cache_prompt=true", guess.clone()),
        ("/echo", json!([guess])),
        ("/echo", json!(guess.to_string())),
        ("/echo", json!(7)),
    ]
}

#[test]
fn only_what_the_contract_lists_is_reached() {
    let mut space = TestNamespace::shared("allowed");
    let toy = memory(&space);
    let _worker = toy.worker(&space).start();
    let call = |path: &str, input: Value| Job {
        path: Some(path.to_owned()),
        ..Job::infer(toy.name().clone(), input)
    };
    let victim = ask(
        &mut space,
        "victim",
        &call("/chat", json!({"prompt": SECRET})),
    );
    assert_eq!(victim.outcome, Outcome::Succeeded, "{victim:?}");
    for (path, input) in tricks() {
        let result = ask(&mut space, "attacker", &call(path, input.clone()));
        assert_eq!(
            result.outcome,
            Outcome::Rejected,
            "{path} {input}: {result:?}"
        );
        assert_eq!(result.error.unwrap().code, "bad_job", "{path} {input}");
    }
    let asked = format!(
        r#"
import json
def main():
    codes = []
    for path, input in json.loads({:?}):
        try:
            codes.append(ask(None, input, path=path))
        except sandhog.InferError as error:
            codes.append(error.code)
    return codes
"#,
        json!(tricks()).to_string()
    );
    let result = ask(&mut space, "attacker", &toy.program(&asked));
    let want: Vec<&str> = tricks().iter().map(|_| "bad_job").collect();
    assert_eq!(result.value, Some(json!(want)), "{result:?}");

    let models = ask(&mut space, "attacker", &call("/models", Value::Null));
    assert_eq!(models.value.unwrap()["path"], "/models");
    let query = call("/chat?%66ormat=a%26id_slot=1", json!({}));
    let query = ask(&mut space, "attacker", &query);
    let path = query.value.unwrap()["path"].clone();
    assert_eq!(path, "/chat?format=a%26id_slot%3D1", "written anew");
}

/// Bodies that would find data of an earlier call if they reached the server unchanged.
const BODIES: [&str; 9] = [
    r#"{"cache_prompt": true, "id_slot": 0, "prompt": @}"#,
    r#"{"cache_prompt": false, "cache_prompt": true, "prompt": @}"#,
    r#"{"prompt": @, "cache_prompt": true, "cache_prompt": false, "Cache_Prompt": true}"#,
    r#"{"cache\u005fprompt": true, "\u0069d_slot": 0, "prompt": @}"#,
    r#"{"CACHE_PROMPT": true, "ID_SLOT": 0, "prompt": @}"#,
    r#"{" cache_prompt\t": 1, "id_slot ": 0, "prompt": @}"#,
    "{\"cache_prompt\u{a0}\": 1, \"id_\u{17f}lot\": 0, \"prompt\": @}",
    r#"{"prompt": @, "options": {"slot": 1}, "Options": [{"SLOT": 1}]}"#,
    r#"{"prompt": @, "cache_prompt": {"cache_prompt": true}, "id_slot": [0]}"#,
];

#[test]
fn the_fields_that_a_contract_sets_are_set() {
    let mut space = TestNamespace::shared("forced");
    let toy = memory(&space);
    let _worker = toy.worker(&space).start();
    let name = toy.name().as_str().to_owned();
    let victim = Job::infer(toy.name().clone(), json!({"prompt": SECRET}));
    let check = |case: &str, result: &JobResult| {
        assert_eq!(result.outcome, Outcome::Succeeded, "{case}: {result:?}");
        let value = result.value.as_ref().unwrap();
        assert_eq!(value["known"], false, "{case}: {value}");
        assert_eq!(value["slot"], Value::Null, "{case}: {value}");
        let text = value["body"].to_string().to_lowercase();
        assert_eq!(text.matches("cache").count(), 1, "{case}: {value}");
        assert!(!text.contains("slot"), "{case}: {value}");
        assert_eq!(value["body"]["cache_prompt"], false, "{case}: {value}");
    };
    for body in BODIES {
        let body = body.replace('@', &json!(SECRET).to_string());
        for stream in [false, true] {
            assert_eq!(
                ask(&mut space, "victim", &victim).outcome,
                Outcome::Succeeded
            );
            // As raw text, because a map here could not hold a key twice.
            let payload = format!(
                r#"{{"kind": "infer", "image": {name:?}, "stream": {stream}, "input": {body}}}"#
            );
            let id = space.add(&[("job", payload.as_bytes()), ("tenant", b"attacker")]);
            check(&body, &space.result(&id));
        }
        let input: Value = serde_json::from_str(&body).unwrap();
        let job = Job::infer(toy.name().clone(), input);
        let packed = wire::encode(&job, Encoding::MessagePack);
        let id = space.add(&[("job", &packed), ("tenant", b"attacker")]);
        check(&body, &space.result(&id));

        let program = toy.program(&format!(
            "import json\ndef main():\n    return ask(None, json.loads({}))\n",
            // As a JSON string, which Python parses to the same text.
            json!(json!(job.input).to_string())
        ));
        check(&body, &ask(&mut space, "attacker", &program));
    }
}

#[test]
fn a_guess_at_another_tenants_prompt_is_answered_as_any_other() {
    let mut space = TestNamespace::shared("oracle");
    let _worker = WorkerSpec::of(&space).start();
    let call = |path: Option<&str>, input: Value| Job {
        path: path.map(str::to_owned),
        ..Job::infer("smollm2".parse().unwrap(), input)
    };
    let victim = call(None, json!({"prompt": SECRET, "max_tokens": 1}));
    for (path, input) in [
        ("/slots", Value::Null),
        ("/slots/0", json!({"action": "save"})),
        ("/props", Value::Null),
        ("/metrics", Value::Null),
        ("/v1/models", Value::Null),
        ("/lora-adapters", Value::Null),
        ("/v1/stream", Value::Null),
        ("/v1/streams/lookup", json!({"conversation_ids": [""]})),
        ("/v1/chat/completions/control", json!({})),
        (
            "/completion",
            json!({"prompt": SECRET, "cache_prompt": true}),
        ),
    ] {
        let result = ask(&mut space, "attacker", &call(Some(path), input));
        assert_eq!(result.outcome, Outcome::Rejected, "{path}: {result:?}");
    }
    let mut seen = Vec::new();
    for guess in [SECRET, "the launch code of project Robin is 9999", SECRET] {
        for slot in [0, 1] {
            for _ in 0..2 {
                let asked = ask(&mut space, "victim", &victim);
                assert_eq!(asked.outcome, Outcome::Succeeded, "{asked:?}");
            }
            let probe = json!({
                "prompt": guess, "max_tokens": 1, "n_predict": 1, "temperature": 0,
                "cache_prompt": true, "n_cache_reuse": 1, "id_slot": slot,
                "timings_per_token": true,
            });
            let result = ask(&mut space, "attacker", &call(None, probe));
            assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
            let value = result.value.unwrap();
            let timings = &value["timings"];
            assert!(timings["prompt_n"].as_u64().unwrap() > 5, "{value}");
            seen.push((
                timings["cache_n"].clone(),
                value["usage"]["prompt_tokens_details"]["cached_tokens"].clone(),
                value["id_slot"].clone(),
            ));
        }
    }
    seen.dedup();
    let [(cached, _, _)] = seen.as_slice() else {
        panic!("the answers differ: {seen:?}");
    };
    assert_eq!(cached, &json!(0), "{seen:?}");
}
