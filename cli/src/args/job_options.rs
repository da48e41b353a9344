//! Options that describe a job, in groups.

use std::path::PathBuf;

use clap::builder::RangedI64ValueParser;
use clap::{ArgGroup, Args};
use sandhog_core::class::Class;
use sandhog_core::id::{
    ImageName, JobId, ReplyName, RuntimeName, SecretName, Tag, Tenant, UniqueKey,
};
use sandhog_core::limits::Limits;
use sandhog_core::retry_on::RetryOn;
use sandhog_core::submission::{MAX_ATTEMPTS, Priority};
use sandhog_core::units::{ByteCount, CpuMillis, Millis};

use super::key_value::parse_key_value;
use crate::quantity;

/// Smallest limits that a job may request.
const FLOOR: Limits = Limits::FLOOR;

/// The options of one job, for every command that submits a program. A command declares its own
/// options after them.
#[derive(Debug, Args)]
pub(crate) struct JobOptions {
    /// The job's limits.
    #[command(flatten)]
    pub(crate) caps: CapArgs,
    /// The job's tags, tenant, priority and id.
    #[command(flatten)]
    pub(crate) routing: RoutingArgs,
    /// The job's start, expiry and retries.
    #[command(flatten)]
    pub(crate) schedule: ScheduleArgs,
    /// The program to run. This group is the last one and clears the heading: clap puts the options
    /// that the command itself declares after a group under the heading of that group.
    #[command(flatten, next_help_heading = None)]
    pub(crate) program: ProgramArgs,
}

/// The program of a job.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("program").args(["source", "code"]),
    group = ArgGroup::new("what").args(["source", "code", "argv"]).required(true).multiple(true)
)]
pub(crate) struct ProgramArgs {
    /// File with the source code; - is standard input
    #[arg(value_name = "FILE")]
    pub(crate) source: Option<PathBuf>,
    /// Arguments for the program: sys.argv[1:] in Python, $1… in bash; after -- they may begin with
    /// a hyphen
    #[arg(value_name = "ARGUMENT", conflicts_with = "code")]
    pub(crate) words: Vec<String>,
    /// Source code to run
    #[arg(long, short)]
    pub(crate) code: Option<String>,
    /// A program in the image and its arguments; after FILE or --code, arguments for the code
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) argv: Vec<String>,
    /// Image to run the job in [default: an image that runs the language, otherwise python]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) image: Option<ImageName>,
    /// Container runtime to use, if the worker lets jobs choose one [default: set by the image]
    #[arg(long, value_name = "NAME")]
    pub(crate) runtime: Option<RuntimeName>,
    /// Language of the code [default: from the file extension, otherwise set by the image]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) language: Option<String>,
    /// Data for the program as JSON, or @FILE to read it from a file. Python and JavaScript code
    /// gets it as input_data; other programs read it from the file that SANDHOG_INPUT_FILE names
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) input: Option<String>,
    /// File for the program's standard input; - is the standard input of this command
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,
    /// Environment variable for the program; may be given more than once
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_key_value)]
    pub(crate) env: Vec<(String, String)>,
    /// Name of a secret that the worker adds to the program's environment; may be given more than
    /// once
    #[arg(long, value_name = "NAME")]
    pub(crate) secret: Vec<SecretName>,
    /// File or folder to copy into the program's working directory, under its own name or as NAME;
    /// a folder is copied with its subfolders, but without .git, __pycache__ and caches
    #[arg(long, value_name = "[NAME=]PATH")]
    pub(crate) put: Vec<String>,
    /// Files to bring back from the program's working directory, such as '*.png' or 'out/**'; as in
    /// a shell, wildcards do not match a leading dot
    #[arg(long, value_name = "PATTERN")]
    pub(crate) fetch: Vec<String>,
    /// Fail the job unless its code runs to its end and returns a value; for grading
    #[arg(long)]
    pub(crate) expect_value: bool,
    /// Image whose model the program may call while it runs; may be given more than once
    #[arg(long, value_name = "IMAGE")]
    pub(crate) infer: Vec<ImageName>,
    /// Argument for the code, placed before those after FILE; it may begin with a hyphen
    #[arg(long = "arg", short, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// The job's limits. A limit that is left out is set by the image.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct CapArgs {
    /// Limit of wall-clock time, such as 500ms, 30s or 5m
    #[arg(long, short, value_name = "DURATION", value_parser = quantity::parse_positive_duration)]
    pub(crate) timeout: Option<Millis>,
    /// Limit of CPU time for the whole process tree
    #[arg(long, value_name = "DURATION", value_parser = quantity::parse_positive_duration)]
    pub(crate) cpu_time: Option<Millis>,
    /// Limit of CPU use in cores, such as 0.5 or 2
    #[arg(
        long,
        value_name = "CORES",
        value_parser = quantity::parse_cores_at_least(FLOOR.cpu_millis)
    )]
    pub(crate) cpu: Option<CpuMillis>,
    /// Limit of memory for the whole process tree, scratch files included, such as 256MiB
    #[arg(
        long,
        short,
        value_name = "SIZE",
        value_parser = quantity::parse_size_at_least(FLOOR.memory)
    )]
    pub(crate) memory: Option<ByteCount>,
    /// Stack limit that the program starts with, such as 64MiB [default: as large as its memory, at
    /// most 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_size_at_least(FLOOR.stack))]
    pub(crate) stack: Option<ByteCount>,
    /// Most processes and threads that exist at the same time
    #[arg(long, value_name = "N", value_parser = pids())]
    pub(crate) pids: Option<u32>,
    /// Number of GPUs; the job goes to a worker with GPUs
    #[arg(long, value_name = "N")]
    pub(crate) gpus: Option<u32>,
    /// Memory that the job uses on each GPU, such as 8GiB; the GPU may then be shared with other
    /// jobs
    #[arg(long, value_name = "SIZE")]
    pub(crate) gpu_memory: Option<ByteCount>,
    /// Size limit of scratch files, for each of /tmp, the working directory and /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_size_at_least(FLOOR.scratch))]
    pub(crate) scratch: Option<ByteCount>,
    /// Most bytes that are kept of standard output, and of standard error
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_size_at_least(FLOOR.output))]
    pub(crate) output: Option<ByteCount>,
    /// Largest total size of the files that --fetch brings back [default: 4MiB]
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = quantity::parse_size_at_least(FLOOR.fetch_bytes)
    )]
    pub(crate) fetch_size: Option<ByteCount>,
    /// Most bytes of output, after which the program is stopped
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = quantity::parse_size_at_least(FLOOR.output_total)
    )]
    pub(crate) output_total: Option<ByteCount>,
}

/// The job's tags, tenant, priority and id.
#[derive(Debug, Args)]
#[command(next_help_heading = "Routing")]
pub(crate) struct RoutingArgs {
    /// Tag that the worker must offer, such as gpu; may be given more than once [default: cpu]
    #[arg(long, value_name = "TAG", conflicts_with = "class")]
    pub(crate) tag: Vec<Tag>,
    /// All required tags at once, such as a100+gpu
    #[arg(long, value_name = "TAGS")]
    pub(crate) class: Option<Class>,
    /// Tenant that the job belongs to
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<Tenant>,
    /// Priority of the job, from 0 (lowest) to 9 [default: 4]
    #[arg(long, value_name = "LEVEL", value_parser = priority)]
    pub(crate) priority: Option<Priority>,
    /// Id of the job; submitting a job with the same id again does nothing
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<JobId>,
}

/// The job's start, expiry, retries and retention.
#[derive(Debug, Args)]
#[command(next_help_heading = "Schedule")]
pub(crate) struct ScheduleArgs {
    /// Start the job after this delay
    #[arg(long, value_name = "DURATION", value_parser = quantity::parse_duration)]
    pub(crate) delay: Option<Millis>,
    /// Let the job expire if it has not started within this time
    #[arg(long, value_name = "DURATION", value_parser = quantity::parse_duration)]
    pub(crate) ttl: Option<Millis>,
    /// Run the job again if it ends with one of these outcomes, such as failed,timed_out
    /// [default: never]
    #[arg(long, value_name = "OUTCOMES")]
    pub(crate) retry_on: Option<RetryOn>,
    /// Most attempts, 1 to 100; attempts lost to a fault of Sandhog do not count [default: 3]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ATTEMPTS))
    )]
    pub(crate) max_attempts: Option<u32>,
    /// Longest wait before the first retry; it doubles with each retry
    #[arg(long, value_name = "DURATION", value_parser = quantity::parse_duration)]
    pub(crate) backoff: Option<Millis>,
    /// Reject the job while another job holds this key; a job releases its key when it ends
    #[arg(long, value_name = "KEY")]
    pub(crate) unique: Option<UniqueKey>,
    /// Hold the unique key at least this long, even if the job ends sooner
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = quantity::parse_duration,
        requires = "unique"
    )]
    pub(crate) unique_for: Option<Millis>,
    /// Keep the job's result and record this long after its end [default: 1d]
    #[arg(long, value_name = "DURATION", value_parser = quantity::parse_duration)]
    pub(crate) keep: Option<Millis>,
    /// Also add the result to this reply stream
    #[arg(long, value_name = "NAME")]
    pub(crate) reply: Option<ReplyName>,
}

fn pids() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(FLOOR.pids.0)..)
}

fn priority(text: &str) -> Result<Priority, String> {
    text.parse()
        .map_err(|()| "expected a number from 0 to 9".to_owned())
}
