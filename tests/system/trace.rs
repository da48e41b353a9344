//! The trace context of a submitter, as the program receives it.

use sandhog_core::outcome::Outcome;
use sandhog_testkit::jobs::python;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SUBMITTER: &str = "b7ad6b7169203331";

#[test]
fn a_program_finds_its_span_in_its_environment() {
    let mut space = TestNamespace::shared("trace");
    let _worker = WorkerSpec::of(&space).start();
    let job = python("import os\n[os.environ.get(n) for n in ('TRACEPARENT', 'TRACESTATE')]");
    let parent = format!("00-{TRACE}-{SUBMITTER}-01");
    let fields = [
        ("traceparent", parent.as_str()),
        ("tracestate", "congo=t61rcWkgMzE"),
    ];
    let id = space.submit_with(&job, &fields);
    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    let value = result.value.unwrap();
    let told = value[0].as_str().unwrap();
    assert!(told.starts_with(&format!("00-{TRACE}-")), "{told}");
    assert!(
        !told.contains(SUBMITTER),
        "it is told of its own span: {told}"
    );
    assert_eq!(value[1], "congo=t61rcWkgMzE");

    let bare = space.run(&job).value.unwrap();
    assert!(bare[0].is_null() && bare[1].is_null(), "{bare}");
}
