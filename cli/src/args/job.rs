//! What a job is made of, as typed.

use std::path::PathBuf;

use clap::builder::RangedI64ValueParser;
use clap::{ArgGroup, Args};
use sandhog_common::class::Class;
use sandhog_common::id::{
    ImageName, JobId, ReplyName, RuntimeName, SecretName, Tag, Tenant, UniqueKey,
};
use sandhog_common::limits::Limits;
use sandhog_common::retry_on::RetryOn;
use sandhog_common::submission::{MAX_ATTEMPTS, Priority};
use sandhog_common::units::{ByteCount, CpuMillis, Millis};

use super::key_value;
use crate::quantity;

/// The least that a job may ask for.
const FLOOR: Limits = Limits::FLOOR;

/// `sandhog run`.
#[derive(Debug, Args)]
#[command(
    override_usage = "sandhog run [OPTIONS] FILE [ARGUMENT]...\n       sandhog run [OPTIONS] --code CODE [-- ARGUMENT...]\n       sandhog run [OPTIONS] -- PROGRAM [ARGUMENT]...",
    after_help = "Examples:\n  sandhog run -c 'print(6*7)'\n  sandhog run script.py --input '{\"n\": 3}' --value\n  sandhog run --timeout 5s --memory 64MiB -- sort -n"
)]
pub(crate) struct RunArgs {
    /// What runs.
    #[command(flatten)]
    pub(crate) program: ProgramArgs,
    /// Print the value of main() or of the last expression too, as JSON after the program's output
    #[arg(long)]
    pub(crate) value: bool,
    /// A folder for the files of --fetch and for displays, as display-1.png and so on [default:
    /// fetched files go to the current one, displays nowhere]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) save: Option<PathBuf>,
    /// Overwrite files that exist; without it they are left as they are, and the command ends with
    /// 73
    #[arg(long)]
    pub(crate) force: bool,
    /// Under which caps.
    #[command(flatten)]
    pub(crate) caps: CapArgs,
    /// Whose it is and who may run it.
    #[command(flatten)]
    pub(crate) routing: RoutingArgs,
    /// Fails when and how often it runs.
    #[command(flatten)]
    pub(crate) schedule: ScheduleArgs,
}

/// `sandhog submit`.
#[derive(Debug, Args)]
#[command(
    override_usage = "sandhog submit [OPTIONS] FILE [ARGUMENT]...\n       sandhog submit [OPTIONS] --code CODE [-- ARGUMENT...]\n       sandhog submit [OPTIONS] --file JSONL\n       sandhog submit [OPTIONS] -- PROGRAM [ARGUMENT]...",
    after_help = "Each line of --file is a payload, such as {\"image\":\"python\",\"code\":\"print(1)\"}; a member \"id\" names the job.\n\nExamples:\n  sandhog submit -c 'print(6*7)'\n  sandhog submit --file jobs.jsonl --tenant nightly"
)]
pub(crate) struct SubmitArgs {
    /// What runs.
    #[command(flatten)]
    pub(crate) program: ProgramArgs,
    /// Submit many: one JSON payload on each line; - is standard input
    #[arg(
        long = "file",
        value_name = "JSONL",
        group = "what",
        conflicts_with_all = ["id", "source", "code", "argv"]
    )]
    pub(crate) jobs: Option<PathBuf>,
    /// Under which caps.
    #[command(flatten)]
    pub(crate) caps: CapArgs,
    /// Whose it is and who may run it.
    #[command(flatten)]
    pub(crate) routing: RoutingArgs,
    /// When and how often it runs.
    #[command(flatten)]
    pub(crate) schedule: ScheduleArgs,
}

/// What runs.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("program").args(["source", "code"]),
    group = ArgGroup::new("what").args(["source", "code", "argv"]).required(true).multiple(true)
)]
pub(crate) struct ProgramArgs {
    /// A file of source code; - is standard input
    #[arg(value_name = "FILE")]
    pub(crate) source: Option<PathBuf>,
    /// Arguments of the program: sys.argv[1:] in Python, $1… in bash; after -- they may begin with
    /// a hyphen
    #[arg(value_name = "ARGUMENT", conflicts_with = "code")]
    pub(crate) words: Vec<String>,
    /// Source code
    #[arg(long, short)]
    pub(crate) code: Option<String>,
    /// A program of the image and its arguments; after FILE or --code, arguments of the code
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) argv: Vec<String>,
    /// The image to run in [default: one that runs the language, else python]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) image: Option<ImageName>,
    /// The container runtime to run under, where the worker lets jobs choose [default: the image's own]
    #[arg(long, value_name = "NAME")]
    pub(crate) runtime: Option<RuntimeName>,
    /// The language of the code [default: by the file's ending, else the image's own]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) language: Option<String>,
    /// Data for the program as JSON, or @FILE: input_data in Python and JavaScript code, else in
    /// the file that SANDHOG_INPUT_FILE names
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) input: Option<String>,
    /// A file for the program's standard input; - is this command's own
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,
    /// An environment variable for the program
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = key_value)]
    pub(crate) env: Vec<(String, String)>,
    /// A secret of the worker, for the program's environment; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) secret: Vec<SecretName>,
    /// A file or folder for the program's working directory, under its own name or another; a
    /// folder keeps its paths, without .git, __pycache__ and caches
    #[arg(long, value_name = "[NAME=]PATH")]
    pub(crate) put: Vec<String>,
    /// Files to bring back from the working directory, such as '*.png' or 'out/**'; as in a shell,
    /// wildcards match no leading dot
    #[arg(long, value_name = "PATTERN")]
    pub(crate) fetch: Vec<String>,
    /// Fail the job unless its code runs to its end and returns a value; for grading
    #[arg(long)]
    pub(crate) expect_value: bool,
    /// An image whose model the program may ask while it runs; may be given more than once
    #[arg(long, value_name = "IMAGE")]
    pub(crate) infer: Vec<ImageName>,
    /// An argument of the code, before those after FILE; it may begin with a hyphen
    #[arg(long = "arg", short, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// Under which caps. What is left out is the image's own.
#[derive(Debug, Args)]
#[command(next_help_heading = "Caps")]
pub(crate) struct CapArgs {
    /// Wall-clock time, such as 500ms, 30s or 5m
    #[arg(long, short, value_name = "SPAN", value_parser = quantity::positive_span)]
    pub(crate) timeout: Option<Millis>,
    /// CPU time of the whole process tree
    #[arg(long, value_name = "SPAN", value_parser = quantity::positive_span)]
    pub(crate) cpu_time: Option<Millis>,
    /// Share of the machine in cores, such as 0.5 or 2
    #[arg(long, value_name = "CORES", value_parser = quantity::cores_at_least(FLOOR.cpu_millis))]
    pub(crate) cpu: Option<CpuMillis>,
    /// Memory of the whole process tree, scratch files included, such as 256MiB
    #[arg(long, short, value_name = "SIZE", value_parser = quantity::at_least(FLOOR.memory))]
    pub(crate) memory: Option<ByteCount>,
    /// Stack the program starts with, such as 64MiB [default: as much as its memory, at most 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = quantity::at_least(FLOOR.stack))]
    pub(crate) stack: Option<ByteCount>,
    /// Processes and threads at once
    #[arg(long, value_name = "N", value_parser = pids())]
    pub(crate) pids: Option<u32>,
    /// Whole GPUs; the job goes to workers that have some
    #[arg(long, value_name = "N")]
    pub(crate) gpus: Option<u32>,
    /// Memory of each GPU, which it may then share with others, such as 8GiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) gpu_memory: Option<ByteCount>,
    /// Scratch files: /tmp, the working directory and /dev/shm, each
    #[arg(long, value_name = "SIZE", value_parser = quantity::at_least(FLOOR.scratch))]
    pub(crate) scratch: Option<ByteCount>,
    /// What is kept of standard output, and of standard error
    #[arg(long, value_name = "SIZE", value_parser = quantity::at_least(FLOOR.output))]
    pub(crate) output: Option<ByteCount>,
    /// What --fetch may bring back, all files together [default: 4MiB]
    #[arg(long, value_name = "SIZE", value_parser = quantity::at_least(FLOOR.fetch_bytes))]
    pub(crate) fetch_size: Option<ByteCount>,
    /// What the program may write before it is stopped
    #[arg(long, value_name = "SIZE", value_parser = quantity::at_least(FLOOR.output_total))]
    pub(crate) output_total: Option<ByteCount>,
}

/// Whose it is and who may run it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Routing")]
pub(crate) struct RoutingArgs {
    /// A tag the worker must offer, such as gpu; may be given more than once [default: cpu]
    #[arg(long, value_name = "TAG", conflicts_with = "class")]
    pub(crate) tag: Vec<Tag>,
    /// All tags at once, such as a100+gpu
    #[arg(long, value_name = "TAGS")]
    pub(crate) class: Option<Class>,
    /// The tenant that the job belongs to
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<Tenant>,
    /// How urgent it is, 0 to 9 [default: 4]
    #[arg(long, value_name = "LEVEL", value_parser = priority)]
    pub(crate) priority: Option<Priority>,
    /// An id for the job: submitting it again does nothing
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<JobId>,
}

/// When and how often it runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Schedule")]
pub(crate) struct ScheduleArgs {
    /// Start the job after this delay
    #[arg(long, value_name = "SPAN", value_parser = quantity::span)]
    pub(crate) delay: Option<Millis>,
    /// Let the job expire when it has not started within this time
    #[arg(long, value_name = "SPAN", value_parser = quantity::span)]
    pub(crate) ttl: Option<Millis>,
    /// Run the job again when it ends with one of these outcomes, such as failed,timed_out
    /// [default: never]
    #[arg(long, value_name = "OUTCOMES")]
    pub(crate) retry_on: Option<RetryOn>,
    /// Attempts at most, 1 to 100; those lost to a fault of Sandhog are not counted [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ATTEMPTS)))]
    pub(crate) max_attempts: Option<u32>,
    /// Longest wait before the first retry; it doubles with each retry
    #[arg(long, value_name = "SPAN", value_parser = quantity::span)]
    pub(crate) backoff: Option<Millis>,
    /// Reject the job while another one holds this key; a key is free when its job has ended
    #[arg(long, value_name = "KEY")]
    pub(crate) unique: Option<UniqueKey>,
    /// Hold the key at least this long, even if the job ends sooner
    #[arg(long, value_name = "SPAN", value_parser = quantity::span, requires = "unique")]
    pub(crate) unique_for: Option<Millis>,
    /// Keep the job's result and record this long after its end [default: 1d]
    #[arg(long, value_name = "SPAN", value_parser = quantity::span)]
    pub(crate) keep: Option<Millis>,
    /// Add the result to this reply stream too
    #[arg(long, value_name = "NAME")]
    pub(crate) reply: Option<ReplyName>,
}

fn pids() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(FLOOR.pids.0)..)
}

fn priority(text: &str) -> Result<Priority, String> {
    text.parse().map_err(|()| "want 0 to 9".to_owned())
}
