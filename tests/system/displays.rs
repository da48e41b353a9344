//! Displays of programs, through the whole path: in results of both encodings, and as the command
//! prints and saves them.

use std::fs;

use sandhog_core::limits::{Count, LimitOverrides};
use sandhog_core::outcome::Outcome;
use sandhog_core::wire::{self, Encoding};
use sandhog_testkit::environment;
use sandhog_testkit::jobs::{capped, python};
use sandhog_testkit::namespace::{TestNamespace, decode};
use sandhog_testkit::worker::WorkerSpec;
use serde_json::{Value, json};

const SHOW: &str = "
display({'image/png': b'\\x89PNG\\xff', 'text/plain': 'a picture'}, raw=True)
display({'application/json': {'a': [1, None]}}, raw=True)
class Table:
    def _repr_html_(self): return '<table>é</table>'
    def __repr__(self): return 'a table'
print('printed')
Table()
";

#[test]
fn a_result_has_what_was_shown_as_notebooks_store_it() {
    let mut space = TestNamespace::shared("displays");
    let _worker = WorkerSpec::of(&space).start();
    let id = space.submit(&python(SHOW));
    let bytes = space.result_bytes(&id);
    let result: Value = serde_json::from_slice(&bytes).expect("the result is JSON");
    let want = json!([
        {"image/png": "iVBOR/8=", "text/plain": "a picture"},
        {"application/json": {"a": [1, null]}},
        {"text/html": "<table>é</table>", "text/plain": "a table"},
    ]);
    assert_eq!(result["displays"], want, "{result}");
    assert_eq!(result.get("displays_dropped"), None);
    assert_eq!(result["stdout"], "printed\n");

    let packed = wire::encode(&python(SHOW), Encoding::MessagePack);
    let id = space.add(&[("job", &packed)]);
    let packed = decode(&space.result_bytes(&id));
    assert_eq!(
        serde_json::to_value(&packed.displays).expect("it is data"),
        want
    );

    let silent = space.submit(&python("1 + 1"));
    let silent: Value = serde_json::from_slice(&space.result_bytes(&silent)).expect("it is JSON");
    assert_eq!(
        (silent.get("displays"), &silent["value"]),
        (None, &json!(2))
    );
}

#[test]
fn caps_drop_displays_and_fail_no_job() {
    let mut space = TestNamespace::shared("displays-caps");
    let _worker = WorkerSpec::of(&space).start();
    let many = |most| {
        let limits = LimitOverrides {
            displays: Some(Count(most)),
            ..LimitOverrides::default()
        };
        capped("for i in range(5): display(i)\n7", limits)
    };
    let result = space.run(&many(2));
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!((result.displays.len(), result.displays_dropped), (2, 3));
    assert_eq!(result.value, Some(json!(7)));
    let result = space.run(&many(1025));
    let error = result.error.expect("it says why").code;
    assert_eq!(
        (result.outcome, error.as_str()),
        (Outcome::Rejected, "bad_limits")
    );

    let stopped = LimitOverrides {
        timeout_ms: Some(sandhog_core::units::Millis(500)),
        ..LimitOverrides::default()
    };
    let late = space.run(&capped("display('before')\nwhile True: pass", stopped));
    assert_eq!(late.outcome, Outcome::TimedOut);
    let shown = late
        .displays
        .first()
        .and_then(|shown| shown.get("text/plain"));
    assert_eq!(
        shown,
        Some(&json!("'before'")),
        "what came before the end is kept"
    );
}

#[test]
fn a_figure_is_told_and_saved_by_the_command() {
    let space = TestNamespace::shared("displays-run");
    let _worker = WorkerSpec::of(&space).start();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\ndisplay('x')\n\
                open('a.txt', 'w').write('fetched')";
    let run = |words: &[&str]| {
        let output = environment::sandhog_command()
            .args(["run", "--image", "datascience", "-c", code])
            .args(words)
            .envs(environment::home_environment(folder.path()))
            .env("SANDHOG_REDIS_URL", space.url())
            .env("SANDHOG_NAMESPACE", space.namespace().as_str())
            .current_dir(folder.path())
            .output()
            .expect("sandhog starts");
        assert!(output.status.success(), "{output:?}");
        output
    };
    let told = String::from_utf8(run(&[]).stderr).expect("it is text");
    let lines: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("display "))
        .collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(
        lines[0].starts_with("sandhog: display 1: image/png ") && lines[0].ends_with(" KiB"),
        "{told}"
    );
    assert_eq!(lines[1], "sandhog: display 2: text/plain 3 B");
    let left: Vec<_> = fs::read_dir(folder.path())
        .expect("it can be read")
        .collect();
    assert!(left.is_empty(), "nothing is written unasked: {left:?}");

    let printed = run(&["--save", "out", "--fetch", "*.txt", "--json"]).stdout;
    let result = decode(printed.trim_ascii());
    let png = result.displays[0]
        .bytes("image/png")
        .expect("it is a picture");
    let saved = fs::read(folder.path().join("out/display-1.png")).expect("it was saved");
    assert_eq!(*png, *saved);
    assert!(saved.starts_with(b"\x89PNG"));
    for (name, want) in [("display-2.txt", "'x'"), ("a.txt", "fetched")] {
        let saved = fs::read_to_string(folder.path().join("out").join(name));
        assert_eq!(saved.expect("it was saved"), want, "{name}");
    }
}
