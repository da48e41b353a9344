//! Converts a job into the run request for the runner.

use std::collections::BTreeMap;

use sandhog_core::image::Invocation;
use sandhog_core::job::CheckedJob;
use sandhog_core::limits::Limits;
use sandhog_core::outcome::ErrorInfo;
use sandhog_core::units::ByteCount;
use sandhog_protocol::frames::{Fetch, HarnessRequest, InputFile, MAX_FRAME, Program};

use crate::sandbox::{Image, Run, caps, display_caps};

/// Returns the job's own files.
pub(super) fn files(job: &CheckedJob) -> Vec<InputFile> {
    job.files
        .iter()
        .map(|(path, data)| InputFile {
            path: path.clone(),
            data: data.0.clone(),
        })
        .collect()
}

/// Returns the image's own environment variables.
pub(super) fn image_environment(image: &Image) -> BTreeMap<String, String> {
    image.contract.env.clone()
}

/// Creates the run request for the job's program. For a compiled language, the compiler's output is
/// added later.
pub(super) fn program_run(
    job: &CheckedJob,
    image: &Image,
    invocation: &Invocation<'_>,
    limits: &Limits,
) -> Run {
    let program = match invocation {
        Invocation::Argv(argv) => Program::Argv {
            argv: [*argv, job.args.as_slice()].concat(),
        },
        Invocation::Harness { argv, source, file } => Program::Harness {
            argv: argv.to_vec(),
            request: HarnessRequest {
                source: (*source).to_owned(),
                file: file.map(str::to_owned),
                args: job.args.clone(),
                input_json: job.input.to_string(),
            },
        },
        Invocation::File { file, argv, source } => Program::File {
            file: (*file).to_owned(),
            source: (*source).to_owned(),
            argv: [argv.as_ref(), job.args.as_slice()].concat(),
        },
        Invocation::Compiled { run, .. } => Program::Argv {
            argv: [*run, job.args.as_slice()].concat(),
        },
    };
    let input_json = match &program {
        Program::Harness { .. } => None,
        Program::Argv { .. } | Program::File { .. } | Program::Server { .. } => {
            (!job.input.is_null()).then(|| job.input.to_string())
        }
    };
    Run {
        stdin: job.stdin.0.clone(),
        input_json,
        env: environment(job, image),
        files: files(job),
        fetch: Fetch {
            patterns: job.fetch.clone(),
            files: limits.fetch_files.0,
            bytes: limits.fetch_bytes.0,
            changed_only: true,
        },
        displays: display_caps(limits),
        ..Run::new(program, caps(limits))
    }
}

/// Bytes of a frame reserved for everything in it except the data of the job, its image and its
/// compiler.
const FRAME_OVERHEAD_BYTES: usize = 1 << 20;

/// Overhead in bytes counted for each name and each piece of data.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// Checks that each frame of a run is within the largest that a runner reads. All parts of the run
/// are counted together, so the check does not depend on which frame has which part. A payload
/// within `worker.max_payload` may exceed the limit, because its input is converted to JSON and a
/// compiler's output is added.
///
/// # Errors
/// If the run is larger; the error contains both sizes.
pub(super) fn check_size(run: &Run) -> Result<(), ErrorInfo> {
    let most = MAX_FRAME - FRAME_OVERHEAD_BYTES;
    let size = size(run);
    if size <= most {
        return Ok(());
    }
    let (size, most) = (ByteCount(size as u64), ByteCount(most as u64));
    Err(ErrorInfo::new(
        "payload_too_large",
        format!(
            "the program with its input as JSON and all its files is {size}, \
             above the {most} that a container reads"
        ),
    ))
}

fn size(run: &Run) -> usize {
    let words = |words: &[String]| {
        words
            .iter()
            .map(|word| word.len() + ENTRY_OVERHEAD_BYTES)
            .sum::<usize>()
    };
    let program = match &run.program {
        Program::Argv { argv } | Program::Server { argv } => words(argv),
        Program::File { argv, source, .. } => words(argv) + source.len(),
        Program::Harness { argv, request } => {
            words(argv) + words(&request.args) + request.source.len() + request.input_json.len()
        }
    };
    let files = run.files.iter();
    let files = files.map(|file| file.path.len() + file.data.len() + ENTRY_OVERHEAD_BYTES);
    let env = run.env.iter();
    let env = env.map(|(name, value)| name.len() + value.len() + ENTRY_OVERHEAD_BYTES);
    program
        + run.stdin.len()
        + run.input_json.as_ref().map_or(0, String::len)
        + words(&run.fetch.patterns)
        + files.sum::<usize>()
        + env.sum::<usize>()
}

/// Returns the image's variables and the job's; the job's take precedence.
fn environment(job: &CheckedJob, image: &Image) -> Vec<(String, String)> {
    let mut all = image_environment(image);
    all.extend(job.env.clone());
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use sandhog_core::wire::LARGEST_PAYLOAD;
    use sandhog_protocol::frames::{self, CallCaps, CellCaps};

    use super::*;
    use crate::sandbox::RunCaps;

    fn run(stdin: usize, data: usize) -> Run {
        let program = Program::Argv {
            argv: vec!["a".to_owned()],
        };
        let caps = RunCaps {
            cell: CellCaps {
                cpu_millis: u64::MAX,
                memory_bytes: u64::MAX,
                stack_bytes: u64::MAX,
                pids: u32::MAX,
                scratch_bytes: u64::MAX,
                scratch_inodes: u32::MAX,
            },
            call: CallCaps {
                wall_ms: u64::MAX,
                cpu_ms: u64::MAX,
                output_bytes: u64::MAX,
                output_total_bytes: u64::MAX,
                grace_ms: u64::MAX,
            },
        };
        Run {
            stdin: vec![0; stdin],
            files: vec![InputFile {
                path: "data".to_owned(),
                data: vec![0; data],
            }],
            ..Run::new(program, caps)
        }
    }

    #[test]
    fn the_largest_payload_fits_a_frame_and_what_passes_the_check_does_too() {
        let largest = LARGEST_PAYLOAD.as_usize();
        assert_eq!(check_size(&run(largest / 2, largest / 2)), Ok(()));
        let most = MAX_FRAME - FRAME_OVERHEAD_BYTES - 200;
        for run in [run(0, most), run(most, 0)] {
            assert_eq!(check_size(&run), Ok(()));
            for frame in run.into_frames() {
                let length = frames::encode(&frame).len();
                assert!(length <= MAX_FRAME, "{length}");
            }
        }
        let error = check_size(&run(largest, largest)).unwrap_err();
        assert_eq!(error.code, "payload_too_large");
    }
}
