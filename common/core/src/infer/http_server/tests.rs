//! Tests that a job reaches only the parts that the contract lists, in every spelling of its call.

use serde_json::json;

use super::*;

const DEFAULT: &str = "/v1/completions";

/// Returns a server with these keys in addition to the mandatory ones.
fn server(default: &str, keys: &str) -> Result<HttpServer, toml::de::Error> {
    toml::from_str(&format!(
        "argv = [\"/usr/bin/server\"]\nport = 8080\npath = \"{default}\"\n{keys}"
    ))
}

fn access() -> HttpServer {
    server(
        DEFAULT,
        r#"
        paths = ["POST /v1/chat/completions", "GET /v1/models", "/tokenize"]
        query = ["format"]
        force = { cache_prompt = false, options = { keep = 0 } }
        drop = ["id_slot", "options.slot", "messages.cache", "speculative.n_max"]
        "#,
    )
    .unwrap()
}

fn image() -> ImageName {
    "chat".parse().unwrap()
}

#[test]
fn only_listed_paths_are_served_however_they_are_written() {
    let access = access();
    assert_eq!(access.check_access(), Ok(()));
    let route = |method, path: &str| access.route(&image(), path, method);
    use Method::{Get, Post};
    for (method, path, want) in [
        (Post, DEFAULT, DEFAULT),
        (Get, DEFAULT, DEFAULT),
        (Post, "/v1/chat/completions", "/v1/chat/completions"),
        (Get, "/v1/models", "/v1/models"),
        (Get, "/tokenize", "/tokenize"),
        (Post, "/tokenize", "/tokenize"),
        (Post, "/tokenize?", "/tokenize"),
        (Post, "/v1/completions?format=a", "/v1/completions?format=a"),
        (
            Post,
            "/tokenize?%66ormat=a%26id_slot%3d0&format=\"{",
            "/tokenize?format=a%26id_slot%3D0&format=%22%7B",
        ),
    ] {
        assert_eq!(route(method, path).as_deref(), Ok(want), "{path}");
    }
    for (method, path) in [
        (Get, "/v1/chat/completions"),
        (Post, "/v1/models"),
        (Get, "/slots"),
        (Get, "/props"),
        (Get, "/metrics"),
        (Get, "/health"),
        (Get, "/"),
        (Post, "//tokenize"),
        (Post, "/tokenize/"),
        (Post, "/./tokenize"),
        (Post, "/v1/../tokenize"),
        (Post, "/v1/completions/../../slots"),
        (Post, "/Tokenize"),
        (Post, "/%74okenize"),
        (Post, "/tokenize;a"),
        (Post, "/tokenize#"),
        (Post, "/tokenize%3fa"),
        (Post, "/tokenize\\"),
        (Post, "http://127.0.0.1/tokenize"),
        (Post, "@127.0.0.1/tokenize"),
    ] {
        let refused = route(method, path).unwrap_err();
        assert!(refused.to_string().contains(" \""), "{path}: {refused}");
    }
    for path in [
        "/tokenize?id_slot=0",
        "/tokenize?format=a&id_slot=0",
        "/tokenize?format=a;id_slot=0&cache_prompt",
        "/tokenize?Format=a",
        "/tokenize?format[]=a",
        "/tokenize??format=a",
    ] {
        let refused = route(Post, path).unwrap_err();
        assert!(
            refused.to_string().contains("query parameter"),
            "{path}: {refused}"
        );
    }
    let refused = route(Get, "/slots").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "image chat does not offer GET \"/slots\" (it offers /v1/completions, \
         POST /v1/chat/completions, GET /v1/models, /tokenize)"
    );
}

#[test]
fn a_contract_without_a_list_serves_its_default_path_alone() {
    let access = server("/a?b=1", "").unwrap();
    let route = |path: &str| access.route(&image(), path, Method::Post);
    assert_eq!(route("/a?b=1").as_deref(), Ok("/a?b=1"));
    assert!(route("/a").is_err());
    assert!(route("/a?b=2").is_err());
    let input = json!(["any", {"shape": 1}]);
    assert_eq!(access.body(&image(), input.clone()), Ok(input));
}

#[test]
fn fields_are_forced_and_dropped_however_they_are_written() {
    let access = access();
    let forced = json!({"cache_prompt": false, "options": {"keep": 0}});
    let mut whole = forced.clone();
    whole["prompt"] = "p".into();
    for (case, input, want) in [
        ("nothing", "{}", &forced),
        (
            "plain",
            r#"{"prompt": "p", "cache_prompt": true, "id_slot": 1}"#,
            &whole,
        ),
        (
            "twice",
            r#"{"prompt": "p", "cache_prompt": false, "cache_prompt": true}"#,
            &whole,
        ),
        (
            "escaped",
            r#"{"prompt": "p", "cache\u005fprompt": true, "id\u005fslot": 0}"#,
            &whole,
        ),
        (
            "case and spaces",
            "{\"prompt\": \"p\", \"Cache_Prompt \": true, \"ID_SLOT\": 0, \"\\tid_\u{17f}lot\": 0}",
            &whole,
        ),
        (
            "nested",
            concat!(
                r#"{"prompt": "p", "options": {"slot": 1, "Keep": 9, "keep": 9}, "#,
                r#""Options": {"slot": 1}}"#
            ),
            &whole,
        ),
        (
            "of another kind",
            r#"{"prompt": "p", "options": [{"slot": 1}]}"#,
            &whole,
        ),
        (
            "with a dot in its name",
            r#"{"prompt": "p", "speculative.n_max": 1}"#,
            &whole,
        ),
    ] {
        let input: Value = serde_json::from_str(input).unwrap();
        assert_eq!(access.body(&image(), input).as_ref(), Ok(want), "{case}");
    }
    let listed = json!({"messages": [{"cache": 1, "text": "a"}, [{"cache": 1}], "b"]});
    let body = access.body(&image(), listed).unwrap();
    assert_eq!(body["messages"], json!([{"text": "a"}, [{}], "b"]));
    for input in [json!([]), json!([{"prompt": "p"}]), json!("{}"), json!(1)] {
        let refused = access.body(&image(), input).unwrap_err();
        assert_eq!(refused.code(), "bad_job");
    }
    assert_eq!(access.body(&image(), Value::Null), Ok(Value::Null));
}

#[test]
fn lists_that_cannot_be_kept_are_refused() {
    for (case, text) in [
        ("no path", "paths = [\"v1\"]"),
        ("a method of another kind", "paths = [\"PUT /v1\"]"),
        ("two spaces", "paths = [\"GET  /v1\"]"),
        ("a query", "paths = [\"/v1?a\"]"),
        ("an escape", "paths = [\"/%761\"]"),
        ("a way up", "paths = [\"/v1/../a\"]"),
        ("an empty segment", "paths = [\"//v1\"]"),
        ("two slashes at its end", "paths = [\"/v1//\"]"),
        ("a nameless field", "drop = [\"\"]"),
        ("a nameless part", "drop = [\"a..b\"]"),
        ("a forced query", "query = [\"a\"]\nforce = { A = 1 }"),
        ("a dropped query", "query = [\"a\"]\ndrop = [\"a\"]"),
    ] {
        let read = server(DEFAULT, text).map_err(|error| error.to_string());
        let checked = read.and_then(|access| access.check_access().map_err(|e| e.to_string()));
        assert!(checked.is_err(), "{case}");
    }
    let text = server(DEFAULT, "paths = [\"PUT /v1\"]").unwrap_err();
    assert!(text.to_string().contains("\"PUT /v1\""), "{text}");
}
