//! The first of two cells for compiled languages: it takes the source and returns the compiler's
//! output files.
//!
//! The compiler runs like any program, in a fresh cell with its own limits, and gets no more trust.
//! Its output is fetched as files, and the program later runs in a different cell.

use sandhog_common::image::{FitError, Invocation};
use sandhog_common::job::Job;
use sandhog_common::limits::{LimitWishes, Limits};
use sandhog_runner::protocol::{Displays, End, Fetch, FileIn, Hurry, Program, Report, Run, Stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::request::{files, image_environment};
use super::verdict::Kept;
use crate::sandbox::{Image, Output, Sandbox, SandboxError, caps};

/// Maximum number of files that a compiler may pass on.
const MAX_FILES: u32 = 64;

/// Maximum number of bytes that a compiler may pass on.
const MAX_BYTES: u64 = 16 << 20;

/// Capacity of the output channel.
const WAITING: usize = 16;

/// Outcome of a compilation.
#[derive(Debug)]
pub(crate) enum Compiled {
    /// The output files, for the program's cell.
    Built(Vec<FileIn>),
    /// The compilation failed; contains its report and the compiler's output.
    Failed(Box<Report>, Kept),
}

/// Returns the compiler's limits, if the job's language has a compiler.
pub(crate) fn limits(job: &Job, image: &Image) -> Result<Option<Limits>, FitError> {
    let Invocation::Compiled { limits, .. } = image.contract.invocation(job)? else {
        return Ok(None);
    };
    let none = LimitWishes::default();
    Ok(Some(Limits::resolve(&none, limits, &none)?))
}

/// Returns the compiler's run and its limits, if the job's language has a compiler.
pub(crate) fn request(job: &Job, image: &Image) -> Result<Option<(Run, Limits)>, FitError> {
    let Invocation::Compiled {
        file,
        source,
        compile,
        keep,
        limits: _,
        run: _,
    } = image.contract.invocation(job)?
    else {
        return Ok(None);
    };
    let Some(limits) = limits(job, image)? else {
        return Ok(None);
    };
    let run = Run {
        program: Program::File {
            file: file.to_owned(),
            source: source.to_owned(),
            argv: compile.into_owned(),
        },
        stdin: Vec::new(),
        input_json: None,
        env: image_environment(image).into_iter().collect(),
        caps: caps(&limits),
        questions: None,
        secrets: Vec::new(),
        displays: Displays::default(),
        hurry: Hurry::AtOnce,
        files: files(job),
        fetch: Fetch {
            patterns: keep.to_vec(),
            files: MAX_FILES,
            bytes: MAX_BYTES,
            changed_only: false,
        },
    };
    Ok(Some((run, limits)))
}

/// Compiles and returns the outcome.
///
/// # Errors
/// Always a fault of the system; the caller must destroy the sandbox after it.
///
/// # Cancel safety
/// Not cancel safe, as [`Sandbox::run`].
pub(crate) async fn compile(
    sandbox: &mut Sandbox,
    run: Run,
    cancel: &CancellationToken,
) -> Result<Compiled, SandboxError> {
    let (sender, mut pieces) = mpsc::channel::<Output>(WAITING);
    let converse = async {
        let ended = sandbox.run(run, &sender, cancel).await;
        drop(sender);
        ended
    };
    let keep = async {
        let mut kept = Kept::default();
        while let Some((stream, piece)) = pieces.recv().await {
            match stream {
                Stream::Stdout => kept.stdout.extend_from_slice(&piece),
                Stream::Stderr => kept.stderr.extend_from_slice(&piece),
            }
        }
        kept
    };
    let (ended, kept) = tokio::join!(converse, keep);
    let mut report = ended?;
    if report.end != End::Exited(0) || report.stop.is_some() {
        return Ok(Compiled::Failed(Box::new(report), kept));
    }
    let built = std::mem::take(&mut report.files).into_iter();
    Ok(Compiled::Built(
        built
            .map(|file| FileIn {
                path: file.path,
                data: file.data,
            })
            .collect(),
    ))
}

/// Adds the compiler's output to a program's files. It replaces files of the same path.
pub(crate) fn hand_over(run: &mut Run, built: Vec<FileIn>) {
    run.files
        .retain(|own| built.iter().all(|file| file.path != own.path));
    run.files.extend(built);
}
