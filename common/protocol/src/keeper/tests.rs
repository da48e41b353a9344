//! Tests of the frames between worker and keeper.

use serde_json::json;

use super::*;
use crate::frames::CgroupSupport;

fn open() -> Open {
    Open {
        memory_bytes: 512 << 20,
        cpu_millis: 1000,
        pids: 64,
        gpus: Vec::new(),
        zygote: Some(zygote()),
    }
}

fn zygote() -> ZygoteProgram {
    ZygoteProgram {
        argv: vec!["python3".to_owned()],
        env: vec![("A".to_owned(), "b".to_owned())],
        imports: vec!["json".to_owned()],
        cpu_millis: 1000,
    }
}

#[test]
fn frames_survive_being_cut_anywhere() {
    let frames = [
        ToKeeper::Ask {
            sandbox: "a-1".to_owned(),
        },
        ToKeeper::Open(open()),
    ];
    let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
    for cut in 0..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        let mut buffer = first.to_vec();
        let mut got = Vec::new();
        while let Some(frame) = take::<ToKeeper>(&mut buffer, MAX_REQUEST).unwrap() {
            got.push(frame);
        }
        buffer.extend_from_slice(second);
        while let Some(frame) = take::<ToKeeper>(&mut buffer, MAX_REQUEST).unwrap() {
            got.push(frame);
        }
        assert_eq!(got, frames, "cut at {cut}");
    }
}

#[test]
fn hostile_frames_are_errors() {
    let mut long = vec![0, 1, 0, 1, 0];
    let error = take::<ToKeeper>(&mut long, MAX_REQUEST).unwrap_err();
    assert_eq!(
        error.to_string(),
        "frame of 65537 bytes is above the cap of 65536"
    );
    let unknown = encode(&json!({"destroy": {}}));
    assert!(matches!(
        take::<ToKeeper>(&mut unknown.clone(), MAX_REQUEST),
        Err(CodecError::Decode(_))
    ));
}

#[test]
fn unknown_fields_are_ignored() {
    let newer = encode(&json!({"open": {
        "memory_bytes": 536_870_912, "cpu_millis": 1000, "pids": 64, "network": true,
    }}));
    let got = take::<ToKeeper>(&mut newer.clone(), MAX_REQUEST).unwrap();
    let zygote = None;
    assert_eq!(got, Some(ToKeeper::Open(Open { zygote, ..open() })));
}

#[test]
fn an_open_out_of_range_is_refused_with_its_field() {
    let fine = ToKeeper::Open(open());
    assert_eq!(fine.check(), Ok(()));
    let cases = [
        (
            Open {
                memory_bytes: 1,
                ..open()
            },
            "`memory_bytes` is 1; at least 8388608 is required",
        ),
        (
            Open {
                cpu_millis: 0,
                ..open()
            },
            "`cpu_millis` is 0; at least 1 is required",
        ),
        (
            Open { pids: 3, ..open() },
            "`pids` is 3; at least 4 is required",
        ),
        (
            Open {
                gpus: vec![String::new(); 17],
                ..open()
            },
            "`gpus` has 17 entries; at most 16 are allowed",
        ),
        (
            Open {
                zygote: Some(ZygoteProgram::default()),
                ..open()
            },
            "`zygote.argv` is empty; the program is required",
        ),
        (
            Open {
                zygote: Some(ZygoteProgram {
                    imports: vec!["x".repeat(MAX_ZYGOTE)],
                    ..zygote()
                }),
                ..open()
            },
            "`zygote` has 61469 bytes; at most 61440 are allowed",
        ),
    ];
    for (open, want) in cases {
        assert_eq!(ToKeeper::Open(open).check(), Err(want.to_owned()));
    }
    let ask = ToKeeper::Ask {
        sandbox: "x".repeat(65),
    };
    assert!(ask.check().is_err());
}

#[test]
fn frames_keep_their_names_on_the_wire() {
    let hello = Hello {
        version: VERSION,
        cgroup: CgroupSupport::V2,
        ..Hello::default()
    };
    let end = SandboxEnd {
        status: EndStatus::Signaled(9),
        oom: true,
        killed: false,
        stderr: String::new(),
    };
    let state = FromKeeper::State {
        sandbox: "a-1".to_owned(),
        state: SandboxState::Ended(end),
    };
    let hello = serde_json::to_value(FromKeeper::Hello(Box::new(hello))).unwrap();
    assert_eq!(hello["hello"]["version"], json!(2));
    assert_eq!(hello["hello"]["cgroup"], json!("v2"));
    assert_eq!(
        serde_json::to_value(state).unwrap(),
        json!({"state": {"sandbox": "a-1", "state": {"ended": {
            "status": {"signaled": 9}, "oom": true, "killed": false, "stderr": "",
        }}}})
    );
    assert_eq!(
        serde_json::to_value(ToKeeper::Open(open())).unwrap(),
        json!({"open": {
            "memory_bytes": 536_870_912, "cpu_millis": 1000, "pids": 64, "gpus": [],
            "zygote": {
                "argv": ["python3"], "env": [["A", "b"]], "imports": ["json"], "cpu_millis": 1000,
            },
        }})
    );
}

#[test]
fn the_largest_zygote_fits() {
    let mut largest = zygote();
    let long = "x".repeat(MAX_ZYGOTE);
    for text in ["", "x", long.get(..1000).unwrap()] {
        largest.imports.clear();
        while largest.size() + text.len() + 5 <= MAX_ZYGOTE {
            largest.imports.push(text.to_owned());
        }
        check_size(&largest);
    }
}

fn check_size(largest: &ZygoteProgram) {
    let open = ToKeeper::Open(Open {
        zygote: Some(largest.clone()),
        ..open()
    });
    assert_eq!(open.check(), Ok(()));
    assert!(encode(&open).len() < MAX_REQUEST);
}

#[test]
fn the_largest_hello_fits() {
    let hello = Hello {
        contract: "x".repeat(MAX_CONTRACT),
        missing: vec!["x".repeat(1000); 32],
        ..Hello::default()
    };
    assert!(encode(&FromKeeper::Hello(Box::new(hello))).len() < MAX_REPLY);
}
