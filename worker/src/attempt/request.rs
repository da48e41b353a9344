//! A job's program, as the runner in its container is told of it.

use std::collections::BTreeMap;

use sandhog_common::image::{FitError, Invocation};
use sandhog_common::job::Job;
use sandhog_common::limits::Limits;
use sandhog_runner::protocol::{Fetch, FileIn, HarnessRequest, Hurry, Program, Run};

use crate::sandbox::{Image, caps, displays};

/// The files that a job brings.
pub(super) fn files(job: &Job) -> Vec<FileIn> {
    job.files
        .iter()
        .map(|(path, data)| FileIn {
            path: path.clone(),
            data: data.0.clone(),
        })
        .collect()
}

/// The image's own variables.
pub(super) fn image_environment(image: &Image) -> BTreeMap<String, String> {
    image.contract.env.clone()
}

/// The job's program as the runner is told of it; one that is compiled wants what the compiler left besides.
pub(crate) fn request(job: &Job, image: &Image, limits: &Limits) -> Result<Run, FitError> {
    let program = match image.contract.invocation(job)? {
        Invocation::Argv(argv) => Program::Argv {
            argv: [argv, &job.args].concat(),
        },
        Invocation::Harness { argv, source } => Program::Harness {
            argv: argv.to_vec(),
            request: HarnessRequest {
                source: source.to_owned(),
                args: job.args.clone(),
                input_json: job.input.to_string(),
            },
        },
        Invocation::File { file, argv, source } => Program::File {
            file: file.to_owned(),
            source: source.to_owned(),
            argv: [argv, &job.args].concat(),
        },
        Invocation::Compiled { run, .. } => Program::Argv {
            argv: [run, &job.args].concat(),
        },
    };
    let input_json = match &program {
        Program::Harness { .. } => None,
        Program::Argv { .. } | Program::File { .. } | Program::Server { .. } => {
            (!job.input.is_null()).then(|| job.input.to_string())
        }
    };
    Ok(Run {
        program,
        stdin: job.stdin.0.clone(),
        input_json,
        env: environment(job, image),
        caps: caps(limits),
        files: files(job),
        fetch: Fetch {
            patterns: job.fetch.clone(),
            files: limits.fetch_files.0,
            bytes: limits.fetch_bytes.0,
        },
        secrets: Vec::new(),
        questions: None,
        displays: displays(limits),
        hurry: Hurry::AtOnce,
    })
}

/// The image's variables, then the job's, which win.
fn environment(job: &Job, image: &Image) -> Vec<(String, String)> {
    let mut all = image_environment(image);
    all.extend(job.env.clone());
    all.into_iter().collect()
}
