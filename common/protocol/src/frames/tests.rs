//! Tests that frames keep their names on the wire, where those differ from the names in the code.

use serde::Serialize;
use serde_json::{Value, json};

use super::*;

const CAPS: CellCaps = CellCaps {
    wall_ms: 1,
    cpu_ms: 1,
    cpu_millis: 1,
    memory_bytes: 1,
    stack_bytes: 1,
    pids: 1,
    scratch_bytes: 1,
    scratch_inodes: 1,
    output_bytes: 1,
    output_total_bytes: 1,
    grace_ms: 1,
};

fn name_of(frame: &impl Serialize) -> String {
    match serde_json::to_value(frame).unwrap() {
        Value::String(name) => name,
        Value::Object(fields) => fields.keys().next().unwrap().clone(),
        other => panic!("a frame has a name: {other}"),
    }
}

#[test]
fn frames_keep_their_names_on_the_wire() {
    let start = StartZygote {
        harness: Vec::new(),
        argv: Vec::new(),
        env: Vec::new(),
        imports: Vec::new(),
        caps: CAPS,
    };
    let run = Run::new(Program::Server { argv: Vec::new() }, CAPS);
    let data = Vec::new;
    for (frame, name) in [
        (ToRunner::StartZygote(Box::new(start)), "warm"),
        (ToRunner::Run(Box::new(run)), "run"),
        (ToRunner::ModelInput { data: data() }, "say"),
        (ToRunner::InferResponse { data: data() }, "answer"),
        (ToRunner::Cancel, "cancel"),
    ] {
        assert_eq!(name_of(&frame), name);
    }
    let ready = FromRunner::ZygoteReady {
        missing: None,
        memory_bytes: None,
    };
    let closed = FromRunner::CellClosed {
        clean: true,
        memory_bytes: None,
    };
    for (frame, name) in [
        (ready, "warmed"),
        (FromRunner::Started, "started"),
        (FromRunner::ModelOutput { data: data() }, "said"),
        (FromRunner::InferRequest { data: data() }, "ask"),
        (closed, "gone"),
    ] {
        assert_eq!(name_of(&frame), name);
    }
}

#[test]
fn a_run_keeps_its_fields_on_the_wire() {
    let run = Run {
        infer_quota: Some(InferQuota {
            max_open: 1,
            max_total: 2,
        }),
        report_flush: ReportFlush::WithCleanup,
        ..Run::new(Program::Argv { argv: Vec::new() }, CAPS)
    };
    let run = serde_json::to_value(run).unwrap();
    assert_eq!(run["questions"], json!({"at_once": 1, "most": 2}));
    assert_eq!(run["hurry"], "when_gone");
    assert_eq!(
        run["displays"],
        json!({"most": 0, "bytes": 0, "total_bytes": 0})
    );
    let flush = serde_json::to_value(ReportFlush::Immediate).unwrap();
    assert_eq!(flush, "at_once");
}

#[test]
fn an_exception_has_a_name_in_a_frame_and_a_type_in_a_result() {
    let exception = Exception {
        name: "E".to_owned(),
        message: "m".to_owned(),
        traceback: "t".to_owned(),
    };
    let result = json!({"type": "E", "message": "m", "traceback": "t"});
    assert_eq!(serde_json::to_value(&exception).unwrap(), result);
    let answer = HarnessAnswer {
        exception: Some(exception.clone()),
        ..HarnessAnswer::default()
    };
    let sent = json!({
        "value_json": null,
        "dropped": null,
        "exception": {"name": "E", "message": "m", "traceback": "t"},
        "completed": false,
    });
    assert_eq!(serde_json::to_value(&answer).unwrap(), sent);
    let packed = rmp_serde::to_vec_named(&answer).unwrap();
    assert_eq!(packed, rmp_serde::to_vec_named(&sent).unwrap());
    let read: HarnessAnswer = rmp_serde::from_slice(&packed).unwrap();
    assert_eq!(read.exception, Some(exception));
    for nothing in ["{}", r#"{"exception": null}"#] {
        let read: HarnessAnswer = serde_json::from_str(nothing).unwrap();
        assert_eq!(read, HarnessAnswer::default(), "{nothing}");
    }
}
