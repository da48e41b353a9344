//! The first of two cells for compiled languages: it takes the source and returns the compiler's
//! output files.
//!
//! The compiler runs like any program, in a fresh cell with its own limits, and gets no more trust.
//! Its output is fetched as files, and the program later runs in a different cell.

use sandhog_core::image::{FitError, Invocation};
use sandhog_core::job::CheckedJob;
use sandhog_core::limits::{LimitOverrides, Limits};
use sandhog_protocol::frames::{Fetch, InputFile, Program, ProgramEnd};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::collect::collect_output;
use super::outcome::CapturedOutput;
use super::program_run::{files, image_environment};
use crate::sandbox::{Image, Output, Report, Run, Sandbox, SandboxError, caps};

/// Maximum number of files that a compiler may pass on.
const MAX_COMPILED_FILES: u32 = 64;

/// Maximum number of bytes that a compiler may pass on.
const MAX_COMPILED_BYTES: u64 = 16 << 20;

/// Capacity of the output channel.
const OUTPUT_QUEUE_DEPTH: usize = 16;

/// Outcome of a compilation.
#[derive(Debug)]
pub(crate) enum Compiled {
    /// The output files, for the program's cell.
    Built(Vec<InputFile>),
    /// The compilation failed; contains its report and the compiler's output.
    Failed(Box<Report>, CapturedOutput),
}

/// Returns the compiler's limits, if the invocation has a compiler.
pub(super) fn compile_limits(invocation: &Invocation<'_>) -> Result<Option<Limits>, FitError> {
    let Invocation::Compiled { limits, .. } = invocation else {
        return Ok(None);
    };
    let none = LimitOverrides::default();
    Ok(Some(Limits::resolve(&none, limits, &none)?))
}

/// Returns the compiler's run under these limits of its own, if the invocation has a compiler.
pub(super) fn compile_run(
    job: &CheckedJob,
    image: &Image,
    invocation: &Invocation<'_>,
    limits: &Limits,
) -> Option<Run> {
    let Invocation::Compiled {
        file,
        source,
        compile,
        keep,
        limits: _,
        run: _,
    } = invocation
    else {
        return None;
    };
    let program = Program::File {
        file: (*file).to_owned(),
        source: (*source).to_owned(),
        argv: compile.to_vec(),
    };
    Some(Run {
        env: image_environment(image).into_iter().collect(),
        files: files(job),
        fetch: Fetch {
            patterns: keep.to_vec(),
            files: MAX_COMPILED_FILES,
            bytes: MAX_COMPILED_BYTES,
            changed_only: false,
        },
        ..Run::new(program, caps(limits))
    })
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
    let (sender, chunks) = mpsc::channel::<Output>(OUTPUT_QUEUE_DEPTH);
    let run = async {
        let ended = sandbox.run(run, &sender, cancel).await;
        drop(sender);
        ended
    };
    let (ended, captured) = tokio::join!(run, collect_output(chunks));
    let mut report = ended?;
    if report.end != ProgramEnd::Exited(0) || report.stop.is_some() {
        return Ok(Compiled::Failed(Box::new(report), captured));
    }
    let built = std::mem::take(&mut report.files).into_iter();
    Ok(Compiled::Built(
        built
            .map(|file| InputFile {
                path: file.path,
                data: file.data,
            })
            .collect(),
    ))
}

/// Adds the compiler's output to a program's files. It replaces files of the same path.
pub(crate) fn add_compiled_files(run: &mut Run, built: Vec<InputFile>) {
    run.files
        .retain(|own| built.iter().all(|file| file.path != own.path));
    run.files.extend(built);
}
