//! Tests of the form of frames on the wire: a change of it needs a new [`VERSION`].

use serde::Serialize;
use serde_json::{Value, json};

use super::*;

const CELL_CAPS: CellCaps = CellCaps {
    cpu_millis: 1,
    memory_bytes: 2,
    stack_bytes: 3,
    pids: 4,
    scratch_bytes: 5,
    scratch_inodes: 6,
};

const CALL_CAPS: CallCaps = CallCaps {
    wall_ms: 1,
    cpu_ms: 2,
    output_bytes: 3,
    output_total_bytes: 4,
    grace_ms: 5,
};

const ID: CallId = CallId(u64::MAX);

fn start_zygote() -> StartZygote {
    StartZygote {
        harness: Vec::new(),
        argv: Vec::new(),
        env: Vec::new(),
        imports: Vec::new(),
        caps: CELL_CAPS,
    }
}

fn open_cell() -> OpenCell {
    OpenCell {
        caps: CELL_CAPS,
        env: Vec::new(),
        secrets: Vec::new(),
        files: Vec::new(),
    }
}

fn call() -> Call {
    Call {
        infer_quota: Some(InferQuota {
            max_open: 1,
            max_total: 2,
        }),
        ..Call::new(ID, Program::Server { argv: Vec::new() }, CALL_CAPS)
    }
}

fn call_report() -> CallReport {
    CallReport {
        end: ProgramEnd::Exited(0),
        stop: None,
        answer: HarnessAnswer::default(),
        pids_refused: false,
        scratch_full: false,
        stack_suspected: false,
        wall_ms: 1,
        stdout_bytes: 2,
        stderr_bytes: 3,
        displays_dropped: 4,
        warm: true,
    }
}

fn cell_report() -> CellReport {
    CellReport {
        cpu_ms: 1,
        memory_peak_bytes: 2,
        files: Vec::new(),
        left: Vec::new(),
        clean: true,
    }
}

fn frames_from_runner() -> Vec<FromRunner> {
    vec![
        FromRunner::Ready {
            version: VERSION,
            features: Features::default(),
        },
        FromRunner::ZygoteReady {
            missing: None,
            memory_bytes: None,
        },
        FromRunner::Started { id: ID },
        FromRunner::Output {
            id: ID,
            stream: Stream::Stdout,
            data: Vec::new(),
        },
        FromRunner::Display {
            id: ID,
            parts: Vec::new(),
        },
        FromRunner::ModelOutput {
            id: ID,
            data: Vec::new(),
        },
        FromRunner::InferRequest {
            id: ID,
            data: Vec::new(),
        },
        FromRunner::CallEnded {
            id: ID,
            report: Box::new(call_report()),
        },
        FromRunner::CellEnded(Box::new(cell_report())),
        FromRunner::CellClosed {
            clean: true,
            memory_bytes: None,
        },
        FromRunner::Fault {
            message: String::new(),
            machine: false,
        },
    ]
}

fn frames_to_runner() -> Vec<ToRunner> {
    vec![
        ToRunner::StartZygote(Box::new(start_zygote())),
        ToRunner::OpenCell(Box::new(open_cell())),
        ToRunner::Call(Box::new(call())),
        ToRunner::ModelInput {
            id: ID,
            data: Vec::new(),
        },
        ToRunner::InferResponse {
            id: ID,
            data: Vec::new(),
        },
        ToRunner::Cancel { id: ID },
        ToRunner::CloseCell(CloseCell::default()),
    ]
}

/// Returns the name of a frame, and its number of a call if it has one.
fn name_and_id(frame: &impl Serialize) -> (String, Option<u64>) {
    let Value::Object(fields) = serde_json::to_value(frame).unwrap() else {
        panic!("a frame has fields");
    };
    let (name, fields) = fields.into_iter().next().unwrap();
    (name, fields["id"].as_u64())
}

#[test]
fn frames_have_these_names_and_those_of_a_call_its_number() {
    let cell = |name: &str| (name.to_owned(), None);
    let call = |name: &str| (name.to_owned(), Some(ID.0));
    let to_runner: Vec<_> = frames_to_runner().iter().map(name_and_id).collect();
    let expected = [
        cell("start_zygote"),
        cell("open_cell"),
        call("call"),
        call("model_input"),
        call("infer_response"),
        call("cancel"),
        cell("close_cell"),
    ];
    assert_eq!(to_runner, expected);
    let from_runner: Vec<_> = frames_from_runner().iter().map(name_and_id).collect();
    let expected = [
        cell("ready"),
        cell("zygote_ready"),
        call("started"),
        call("output"),
        call("display"),
        call("model_output"),
        call("infer_request"),
        call("call_ended"),
        cell("cell_ended"),
        cell("cell_closed"),
        cell("fault"),
    ];
    assert_eq!(from_runner, expected);
    for (frame, (_name, id)) in frames_from_runner().iter().zip(from_runner) {
        assert_eq!(frame.call().map(|call| call.0), id, "{frame:?}");
    }
}

#[test]
fn a_job_has_these_fields_on_the_wire() {
    let open = serde_json::to_value(open_cell()).unwrap();
    let cell_caps = json!({
        "cpu_millis": 1, "memory_bytes": 2, "stack_bytes": 3, "pids": 4, "scratch_bytes": 5,
        "scratch_inodes": 6,
    });
    assert_eq!(
        open,
        json!({"caps": cell_caps, "env": [], "secrets": [], "files": []})
    );
    let call_caps = json!({
        "wall_ms": 1, "cpu_ms": 2, "output_bytes": 3, "output_total_bytes": 4, "grace_ms": 5,
    });
    let expected = json!({
        "id": u64::MAX,
        "program": {"server": {"argv": []}},
        "stdin": [],
        "input_json": null,
        "caps": call_caps,
        "displays": {"count": 0, "bytes": 0, "total_bytes": 0},
        "infer_quota": {"max_open": 1, "max_total": 2},
    });
    let written = serde_json::to_value(call()).unwrap();
    assert_eq!(written, expected);
    assert_eq!(serde_json::from_value::<Call>(expected).unwrap(), call());
    let close = CloseCell {
        report_flush: ReportFlush::WithCleanup,
        standby: StandbyPlan::Omit,
        ..CloseCell::default()
    };
    let close = serde_json::to_value(close).unwrap();
    assert_eq!(close["report_flush"], "with_cleanup");
    assert_eq!(close["standby"], "omit");
    let flush = serde_json::to_value(ReportFlush::Immediate).unwrap();
    assert_eq!(flush, "immediate");
}

#[test]
fn every_frame_is_read_as_it_was_written() {
    for frame in frames_to_runner() {
        let read = take(&mut encode(&frame)).unwrap();
        assert_eq!(read, Some(frame));
    }
    for frame in frames_from_runner() {
        let read = take(&mut encode(&frame)).unwrap();
        assert_eq!(read, Some(frame));
    }
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
