//! Builds a job and its routing from the command line. Reads the files that the command line names;
//! does not contact the queue.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use sandhog_config::Environment;
use sandhog_core::blob::Blob;
use sandhog_core::class::Class;
use sandhog_core::files::check_source_name;
use sandhog_core::gpu::{GPU_TAG, GpuNeed, GpuNeedError, gpu_tag};
use sandhog_core::job::{CheckedJob, Job, Kind};
use sandhog_core::limits::{Count, LimitOverrides};
use sandhog_core::number;
use sandhog_core::submission::{Routing, Start, Unique};
use sandhog_core::trace::TraceContext;
use sandhog_core::units::ByteCount;
use sandhog_core::wire;
use serde_json::Value;

use crate::args::{CapArgs, InferArgs, JobOptions, ProgramArgs, RoutingArgs};
use crate::catalogue::Catalogue;
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::input_file::{read_input_file, read_text_input_file};
use crate::put;

/// A job ready to be submitted.
pub(crate) type JobRequest = (CheckedJob, Routing);

/// Builds the job that the command line describes.
///
/// # Errors
/// Fails when a file cannot be read, or the job is not valid.
pub(crate) fn program_job(app: &AppContext, options: &JobOptions) -> Result<CheckedJob, CliError> {
    let JobOptions { program, caps, .. } = options;
    let catalogue = Catalogue::read(&app.loaded.settings.sandbox);
    let from_stdin = |path: Option<&Path>| path == Some(Path::new("-"));
    if from_stdin(program.source.as_deref()) && from_stdin(program.stdin.as_deref()) {
        return Err(CliError::message(
            Exit::Usage,
            "standard input cannot be both the code and the program's input",
        ));
    }
    let code = match (&program.source, &program.code) {
        (Some(path), _) => Some(read_text_input_file(path).map_err(|e| add_code_hint(path, e))?),
        (None, code) => code.clone(),
    };
    let by_ending = || catalogue.language_of(program.source.as_deref()?);
    let language = program.language.clone().or_else(by_ending);
    let image = match &program.image {
        Some(image) => image.clone(),
        None => catalogue.default_image(language.as_deref()),
    };
    // Arguments after the code belong to the code, as they do after `python script.py`.
    let (argv, words) = if code.is_some() {
        (None, [program.words.as_slice(), &program.argv].concat())
    } else {
        (Some(program.argv.clone()), Vec::new())
    };
    let job = Job {
        kind: Kind::Exec,
        image,
        runtime: program.runtime.clone(),
        language,
        file: code.as_ref().and_then(|_| file_name(program)),
        code,
        argv,
        args: [program.args.as_slice(), &words].concat(),
        stdin: match &program.stdin {
            Some(path) => Blob(read_input_file(path)?),
            None => Blob::default(),
        },
        env: program.env.iter().cloned().collect::<BTreeMap<_, _>>(),
        input: program.input.as_deref().map_or(Ok(Value::Null), input)?,
        method: None,
        path: None,
        stream: false,
        files: put::put_files(&program.put, app.output)?,
        fetch: program.fetch.clone(),
        expect_value: program.expect_value,
        infer: program.infer.clone(),
        secrets: program.secret.clone(),
        gpu: gpus(caps),
        limits: wishes(caps),
    };
    job.check().map_err(|e| CliError::new(Exit::Usage, e))
}

/// Builds the model call that the command line describes.
///
/// # Errors
/// Fails if the input is not JSON or cannot be read, or the job is not valid.
pub(crate) fn infer_job(args: &InferArgs) -> Result<CheckedJob, CliError> {
    let input = match (&args.input, &args.text) {
        (Some(argument), _) => input(argument)?,
        (None, text) => Value::from(text.clone()),
    };
    let job = Job {
        method: args.method.clone(),
        path: args.path.clone(),
        stream: args.stream,
        limits: LimitOverrides {
            timeout_ms: args.timeout,
            ..LimitOverrides::default()
        },
        ..Job::infer(args.image.clone(), input)
    };
    job.check().map_err(|e| CliError::new(Exit::Usage, e))
}

/// Builds the routing of the program's job that the command line describes.
///
/// # Errors
/// Fails if there are too many tags, or when the job requests GPUs but its class lacks the tag for
/// them.
pub(crate) fn program_routing(options: &JobOptions) -> Result<Routing, CliError> {
    let default = Routing::default();
    let schedule = &options.schedule;
    let delay = schedule.delay.filter(|delay| delay.0 > 0);
    Ok(Routing {
        start: delay.map_or(Start::Now, Start::After),
        ttl: schedule.ttl,
        retry_on: schedule.retry_on.clone().unwrap_or_default(),
        max_attempts: schedule.max_attempts.unwrap_or(default.max_attempts),
        backoff: schedule.backoff.unwrap_or(default.backoff),
        unique: schedule.unique.clone().map(|key| Unique {
            key,
            ttl: schedule.unique_for.filter(|ttl| ttl.0 > 0),
        }),
        keep: schedule.keep.unwrap_or(default.keep),
        reply: schedule.reply.clone(),
        ..destination(&options.routing, gpus(&options.caps).is_some())?
    })
}

/// Builds the routing of the model call that the command line describes.
///
/// # Errors
/// Fails if there are too many tags.
pub(crate) fn infer_routing(args: &InferArgs) -> Result<Routing, CliError> {
    destination(&args.routing, false)
}

/// Returns a routing with this id, class, tenant and priority. `needs_gpus` tells whether the job
/// requests GPUs.
fn destination(args: &RoutingArgs, needs_gpus: bool) -> Result<Routing, CliError> {
    let default = Routing::default();
    let class = match &args.class {
        Some(class) if needs_gpus && !class.tags().any(|tag| tag == GPU_TAG) => {
            let class = class.clone();
            return Err(CliError::new(
                Exit::Usage,
                GpuNeedError::NotRouted { class },
            ));
        }
        Some(class) => class.clone(),
        None if args.tag.is_empty() && !needs_gpus => default.class,
        None => {
            let tags = args.tag.iter().cloned().chain(needs_gpus.then(gpu_tag));
            Class::of(tags).map_err(|e| CliError::new(Exit::Usage, e))?
        }
    };
    Ok(Routing {
        id: args.id.clone(),
        class,
        tenant: args.tenant.clone().unwrap_or_default(),
        priority: args.priority.unwrap_or_default(),
        ..default
    })
}

/// Returns the trace context of this command. It is passed in the environment variables
/// `TRACEPARENT` and `TRACESTATE`, as is usual between programs that use OpenTelemetry.
#[must_use]
pub(crate) fn trace_context(environment: &Environment) -> Option<TraceContext> {
    TraceContext::parse(
        environment.text("TRACEPARENT")?,
        environment.text("TRACESTATE"),
    )
}

/// Reads the jobs of a file with one JSON payload on each line. A member `id` sets the job's id.
///
/// # Errors
/// Names the first line that is not a valid job.
pub(crate) fn read_jobs(path: &Path, shared: &Routing) -> Result<Vec<JobRequest>, CliError> {
    let text = read_text_input_file(path)?;
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            parse_job_line(line, shared).map_err(|error| {
                let place = format!("line {} of {}", index + 1, path.display());
                CliError::new(Exit::Usage, error.context(place))
            })
        })
        .collect()
}

/// Reads the only job of a file that has its JSON payload on one line.
///
/// # Errors
/// Fails if the file has no job or more than one, or the job is not valid.
pub(crate) fn read_single_job(path: &Path, shared: &Routing) -> Result<JobRequest, CliError> {
    let mut requests = read_jobs(path, shared)?.into_iter();
    match (requests.next(), requests.next()) {
        (Some((job, routing)), None) => {
            let id = routing.id.or_else(|| shared.id.clone());
            Ok((
                job,
                Routing {
                    id,
                    ..shared.clone()
                },
            ))
        }
        (None, _) => Err(CliError::message(
            Exit::Usage,
            format!("{} contains no job", path.display()),
        )),
        (Some(_), Some(_)) => Err(CliError::message(
            Exit::Usage,
            format!("{} contains more than one job", path.display()),
        )),
    }
}

fn parse_job_line(line: &str, shared: &Routing) -> anyhow::Result<JobRequest> {
    number::check_json(line.as_bytes())?;
    let mut object: serde_json::Map<String, Value> = serde_json::from_str(line)?;
    let id = match object.shift_remove("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id.parse()?),
        Some(Value::Number(id)) => Some(id.to_string().parse()?),
        Some(other) => anyhow::bail!("id {other} is not a string or a number"),
    };
    let payload = Value::Object(object).to_string();
    let (job, unknown) = wire::decode_noting::<Job>(payload.as_bytes(), ByteCount(u64::MAX))?;
    if let Some(name) = unknown.names.first() {
        anyhow::bail!(
            "unknown field {name:?} (docs/reference/protocol.md lists the fields of a payload)"
        );
    }
    let routing = Routing {
        id,
        ..shared.clone()
    };
    Ok((job.check()?, routing))
}

/// Returns the GPUs that the command line requests.
fn gpus(caps: &CapArgs) -> Option<GpuNeed> {
    (caps.gpus.is_some() || caps.gpu_memory.is_some()).then(|| GpuNeed {
        count: caps.gpus.unwrap_or(1),
        memory: caps.gpu_memory,
    })
}

fn wishes(caps: &CapArgs) -> LimitOverrides {
    LimitOverrides {
        timeout_ms: caps.timeout,
        cpu_ms: caps.cpu_time,
        cpu_millis: caps.cpu,
        memory: caps.memory,
        stack: caps.stack,
        pids: caps.pids.map(Count),
        scratch: caps.scratch,
        scratch_inodes: None,
        fetch_files: None,
        displays: None,
        display_bytes: None,
        display_total: None,
        fetch_bytes: caps.fetch_size,
        output: caps.output,
        output_total: caps.output_total,
    }
}

/// Adds a hint to the error about a file that does not exist, if its name looks like source code.
fn add_code_hint(path: &Path, error: CliError) -> CliError {
    let text = path.to_string_lossy();
    if path.exists() || !text.contains(['(', ' ', ';', '=', '"', '\'']) {
        return error;
    }
    error.hint("to run source code, use -c: sandhog run -c 'CODE'")
}

/// Returns the name of the code's file, if it is a valid name for a source file in the sandbox.
fn file_name(program: &ProgramArgs) -> Option<String> {
    let name = program.source.as_deref()?.file_name()?.to_str()?;
    check_source_name(name).is_ok().then(|| name.to_owned())
}

fn input(argument: &str) -> Result<Value, CliError> {
    let (text, whence) = match argument.strip_prefix('@') {
        Some(path) => (read_text_input_file(Path::new(path))?, path),
        None => (argument.to_owned(), "--input"),
    };
    number::check_json(text.as_bytes()).map_err(|e| {
        CliError::new(
            Exit::Usage,
            anyhow::Error::new(e).context(format!("{whence} cannot be sent")),
        )
    })?;
    serde_json::from_str(&text)
        .with_context(|| format!("{whence} is not JSON"))
        .map_err(|e| {
            CliError::new(Exit::Usage, e).hint("a JSON string needs quotes: --input '\"text\"'")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_is_the_environments() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let set = Environment::of([("TRACEPARENT", parent), ("TRACESTATE", "a=b")]);
        assert_eq!(
            trace_context(&set),
            TraceContext::parse(parent, Some("a=b"))
        );
        assert_eq!(
            trace_context(&Environment::of([("TRACEPARENT", "none")])),
            None
        );
        assert_eq!(trace_context(&Environment::default()), None);
    }

    #[test]
    fn the_ending_of_a_file_names_its_language() {
        for (path, want) in [
            ("a.py", Some("python")),
            ("dir/prog.c", Some("c")),
            ("prog.cc", Some("cpp")),
            ("x.mjs", Some("javascript")),
            ("run.sh", Some("bash")),
            ("notes.txt", None),
            ("c", None),
        ] {
            let language = Catalogue::default().language_of(Path::new(path));
            assert_eq!(language.as_deref(), want, "{path}");
        }
    }

    #[test]
    fn a_line_is_a_job_with_perhaps_an_id() {
        let shared = Routing::default();
        let (job, routing) =
            parse_job_line(r#"{"id":7,"image":"python","code":"1"}"#, &shared).unwrap();
        assert_eq!(routing.id, Some("7".parse().unwrap()));
        assert_eq!(*job, Job::code("python".parse().unwrap(), "1"));
        for (case, line) in [
            ("not JSON", "x"),
            ("no program", r#"{"image":"python"}"#),
            ("bad id", r#"{"id":[],"image":"python","code":"1"}"#),
            (
                "a number beyond 64 bits",
                r#"{"image":"python","code":"1","input":99999999999999999999}"#,
            ),
        ] {
            assert!(parse_job_line(line, &shared).is_err(), "case {case}");
        }
        let typo = r#"{"image":"python","code":"1","limits":{"timeoutms":1}}"#;
        assert_eq!(
            parse_job_line(typo, &shared).unwrap_err().to_string(),
            "unknown field \"limits.timeoutms\" (docs/reference/protocol.md lists the fields of a \
             payload)"
        );
    }
}
