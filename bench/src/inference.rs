//! Cost of a model call through the queue: compared with the same model in process, batched and
//! unbatched, cold and warm; and the time to the first token of a stream.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use sandhog_core::id::JobId;
use sandhog_core::job::Job;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_testkit::namespace::{StreamItem, TestNamespace, decode};
use sandhog_testkit::private_redis::PrivateRedis;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::json;

use crate::report::{self, Aim, Bound, Samples};

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct InferenceOptions {
    /// Number of rounds. Each contender takes one turn in a round.
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// Number of turns of batched and unbatched jobs, and of cold loads.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Number of jobs in each of those turns.
    #[arg(long, default_value_t = 512)]
    jobs: usize,
    /// Number of jobs kept queued in those turns.
    #[arg(long, default_value_t = 96)]
    queued: usize,
    /// Number of streams that are read.
    #[arg(long, default_value_t = 20)]
    streams: usize,
}

const TEXT: &str = "a sandhog digs inside a pressurised caisson";

/// Runs the image's own model in its own interpreter, and calls it once for each line of input.
const IN_PROCESS: &str = r#"
import sys, time
sys.path.insert(0, "/srv/model")
import embed
model = embed.Embedder()
model.load()
model.embed(["warm-up"])
for line in sys.stdin:
    began = time.perf_counter()
    model.embed([line.rstrip("\n")])
    print(time.perf_counter() - began, flush=True)
"#;

#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
pub(crate) fn run(options: &InferenceOptions) -> anyhow::Result<()> {
    let redis = PrivateRedis::start(&["--appendfsync", "everysec"]);
    let mut space = TestNamespace::on(&redis, "inference");
    let job = Job::infer("embed".parse()?, TEXT.into());
    // A streaming job shares its call with no other job.
    let alone = Job {
        stream: true,
        ..job.clone()
    };

    let mut cold = Samples::of("sandhog, embed, first job of a worker");
    for _ in 0..options.turns {
        let worker = start(&space);
        cold.add(one(&mut space, &job)?);
        drop(worker);
    }

    let _worker = start(&space);
    let mut peer = InProcess::start()?;
    let mut bare = Samples::of("embed in process");
    let mut ours = Samples::of("sandhog, embed, one at a time");
    for _ in 0..10 {
        one(&mut space, &job)?;
        peer.once()?;
    }
    for _ in 0..options.rounds {
        bare.add(peer.once()?);
        ours.add(one(&mut space, &job)?);
    }

    let (mut batched, mut unbatched) = (Vec::new(), Vec::new());
    for _ in 0..options.turns {
        unbatched.push(rate(&mut space, &alone, options)?);
        batched.push(rate(&mut space, &job, options)?);
    }
    let (batched, unbatched) = (report::median(batched), report::median(unbatched));

    let streamed = streams(&mut space, options.streams)?;

    let aims = [
        Aim {
            what: "p50_ms_over_in_process",
            figure: ours.median_ms() - bare.median_ms(),
            bound: Bound::AtMost(3.0),
        },
        Aim {
            what: "batched_over_unbatched",
            figure: batched / unbatched,
            bound: Bound::AtLeast(2.0),
        },
    ];
    let [called, first, whole] = streamed;
    let mut figures = report::table(&[bare, ours, cold]);
    figures.extend(report::table(&[called, first, whole]));
    println!("{:<44} {:>9}", "", "jobs/s");
    for (name, figure) in [
        ("sandhog, embed, one job a call", unbatched),
        ("sandhog, embed, batched", batched),
    ] {
        println!("{name:<44} {figure:>9.1}");
        figures.insert(name.to_owned(), report::rounded(figure).into());
    }
    report::print_report("inference", figures, &aims);
    Ok(())
}

fn start(space: &TestNamespace) -> sandhog_testkit::worker::WorkerProcess {
    WorkerSpec::of(space)
        .set("WORKER_LEASE_MS", "15000")
        .start()
}

fn one(space: &mut TestNamespace, job: &Job) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let id = space.submit(job);
    let bytes = space.result_bytes(&id);
    let took = began.elapsed();
    succeeded(&bytes)?;
    Ok(took)
}

/// Measures streams of text: from the start of the call to its first token, as the worker reports
/// it, and from `XADD` to the first token in the log and to the result.
fn streams(space: &mut TestNamespace, count: usize) -> anyhow::Result<[Samples; 3]> {
    let prompt = json!({"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0});
    let job = Job {
        stream: true,
        ..Job::infer("smollm2".parse()?, prompt)
    };
    let mut called = Samples::of("smollm2, first token of a call");
    let mut first = Samples::of("sandhog, smollm2, first token");
    let mut whole = Samples::of("sandhog, smollm2, all 24 tokens");
    // The first call loads the model.
    one(space, &job)?;
    for _ in 0..count {
        let began = Instant::now();
        let id = space.submit(&job);
        wait_for_output(space, &id);
        first.add(began.elapsed());
        let bytes = space.result_bytes(&id);
        whole.add(began.elapsed());
        let usage = succeeded(&bytes)?.usage.context("it says what it used")?;
        let token = usage.first_token_ms.context("it streamed")?;
        called.add(token.duration());
    }
    Ok([called, first, whole])
}

/// Waits for a job's first output or for its end, because a job that failed prints nothing more.
fn wait_for_output(space: &mut TestNamespace, id: &JobId) {
    let log = space.keys().log(id);
    let mut after = "0".to_owned();
    loop {
        let entries = space.read_stream(&log, &after);
        let says = |entry: &StreamItem| matches!(entry.bytes("stream"), Some(b"stdout" | b"end"));
        match entries.last() {
            Some(last) if !entries.iter().any(says) => after.clone_from(&last.id),
            Some(_) | None => return,
        }
    }
}

/// Returns the jobs completed each second, with `options.queued` jobs kept queued.
fn rate(space: &mut TestNamespace, job: &Job, options: &InferenceOptions) -> anyhow::Result<f64> {
    let mut queued = VecDeque::new();
    let began = Instant::now();
    let mut submitted = 0;
    while submitted < options.jobs || !queued.is_empty() {
        while submitted < options.jobs && queued.len() < options.queued {
            queued.push_back(space.submit(job));
            submitted += 1;
        }
        if let Some(id) = queued.pop_front() {
            succeeded(&space.result_bytes(&id))?;
        }
    }
    Ok(report::per_second(
        options.jobs,
        began.elapsed().as_secs_f64(),
    ))
}

fn succeeded(bytes: &[u8]) -> anyhow::Result<JobResult> {
    let result = decode(bytes);
    ensure!(
        result.outcome == Outcome::Succeeded,
        "the job did not succeed: {result:?}"
    );
    Ok(result)
}

/// The image's model without a queue: a container of the same image that runs [`IN_PROCESS`].
struct InProcess {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl InProcess {
    fn start() -> anyhow::Result<Self> {
        let mut child = Command::new("docker")
            .args(["run", "--rm", "--interactive", "--network", "none"])
            .args(["--env", "OMP_NUM_THREADS=1", "--entrypoint", "python3"])
            .args(["sandhog/embed:latest", "-s", "-c", IN_PROCESS])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("docker runs")?;
        let input = child.stdin.take().context("its input is piped")?;
        let output = child.stdout.take().context("its output is piped")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    fn once(&mut self) -> anyhow::Result<Duration> {
        writeln!(self.input, "{TEXT}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let seconds: f64 = line.trim().parse().context("it answers with a time")?;
        Ok(Duration::from_secs_f64(seconds))
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        // The container is removed with the process.
        let _already_gone = self.child.kill();
        let _already_waited_for = self.child.wait();
    }
}
