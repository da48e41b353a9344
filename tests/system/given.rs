//! Data and variables that every program gets, in each language.

use std::collections::BTreeMap;

use sandhog_core::job::Job;
use sandhog_core::limits::LimitOverrides;
use sandhog_core::outcome::Outcome;
use sandhog_core::units::CpuMillis;
use sandhog_testkit::jobs::{argv, bash, python};
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::json;

fn of(image: &str, job: Job) -> Job {
    Job {
        image: image.parse().expect("a literal name is valid"),
        ..job
    }
}

#[test]
fn input_reaches_programs_without_a_harness_in_a_file() {
    let mut space = TestNamespace::shared("input");
    let _worker = WorkerSpec::of(&space).start();
    let reads = "import json, os, sys\n\
                 print(json.load(open(os.environ['SANDHOG_INPUT_FILE'])), sys.stdin.read())";
    let copies = "#include <cstdlib>\n#include <fstream>\n#include <iostream>\nint main() {\n    \
                  std::cout << std::ifstream(std::getenv(\"SANDHOG_INPUT_FILE\")).rdbuf();\n}\n";
    let shows = "cat \"$SANDHOG_INPUT_FILE\"; cat; ls";
    for (case, job, stdout) in [
        ("bash", bash(shows), "{\"n\":[1,2.5,\"é\"]}stdin\nmain.sh\n"),
        ("C++", of("cpp", python(copies)), "{\"n\":[1,2.5,\"é\"]}"),
        (
            "words",
            argv(&["python3", "-c", reads]),
            "{'n': [1, 2.5, 'é']} stdin\n\n",
        ),
        (
            "another image's bash",
            of("node", bash("cat $SANDHOG_INPUT_FILE")),
            "{\"n\":[1,2.5,\"é\"]}",
        ),
    ] {
        let result = space.run(&Job {
            input: json!({"n": [1, 2.5, "é"]}),
            stdin: "stdin\n".into(),
            ..job
        });
        assert_eq!(result.outcome, Outcome::Succeeded, "{case}: {result:?}");
        assert_eq!(result.stdout.lossy(), stdout, "{case}");
    }
    let unset = "echo \"${SANDHOG_INPUT_FILE-unset}\"; ls -A /tmp";
    for (case, job) in [
        ("no input", bash(unset)),
        (
            "code with a harness",
            Job {
                input: json!(1),
                ..python(&format!("import os\nos.system('''{unset}''')\nNone"))
            },
        ),
    ] {
        assert_eq!(space.run(&job).stdout.lossy(), "unset\n", "{case}");
    }
    let large = Job {
        input: json!("x".repeat(200_000)),
        limits: LimitOverrides {
            scratch: Some(sandhog_core::units::ByteCount::kib(64)),
            ..LimitOverrides::default()
        },
        ..bash("echo never")
    };
    let large = space.run(&large);
    assert_eq!(large.outcome, Outcome::ScratchLimit, "{large:?}");
}

#[test]
fn libraries_start_as_many_threads_as_a_job_has_cores() {
    let mut space = TestNamespace::shared("threads");
    let _worker = WorkerSpec::of(&space).set("WORKER_SLOTS", "1").start();
    let says = "print(os.environ['OMP_NUM_THREADS'], os.environ['GOMAXPROCS'], \
                os.environ['LOKY_MAX_CPU_COUNT'])";
    let echoes = "echo $OMP_NUM_THREADS $GOMAXPROCS $LOKY_MAX_CPU_COUNT";
    let share = |cpu_millis| LimitOverrides {
        cpu_millis: Some(CpuMillis(cpu_millis)),
        ..LimitOverrides::default()
    };
    let own: BTreeMap<_, _> = [("GOMAXPROCS".to_owned(), "5".to_owned())].into();
    for (case, limits, env, want) in [
        ("by default", share(1000), BTreeMap::new(), "1 1 1\n"),
        ("a part of a core", share(100), BTreeMap::new(), "1 1 1\n"),
        (
            "more than one core",
            share(1500),
            BTreeMap::new(),
            "2 2 2\n",
        ),
        ("its own", share(2000), own, "2 5 2\n"),
    ] {
        for job in [
            python(&format!("import os\n{says}")),
            bash(echoes),
            of("node", bash(echoes)),
        ] {
            let result = space.run(&Job {
                limits: limits.clone(),
                env: env.clone(),
                ..job
            });
            assert_eq!(result.stdout.lossy(), want, "{case}: {result:?}");
        }
    }

    // NumPy read its number of threads when the zygote imported it.
    let multiplies = "import os, sys, numpy\na = numpy.ones((600, 600))\na @ a\n\
                      [len(os.listdir('/proc/self/task')), 'numpy' in sys.modules]";
    for (cpu_millis, want) in [(1000, 1), (2000, 2), (1000, 1)] {
        let result = space.run(&Job {
            limits: share(cpu_millis),
            ..of("datascience", python(multiplies))
        });
        assert_eq!(result.value, Some(json!([want, true])), "{result:?}");
    }
}
