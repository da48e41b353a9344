//! `sandhog doctor`: checks whether this machine can run jobs, and gives advice if it cannot.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use sandhog_worker::doctor::{self, Finding, Severity};

use crate::context::AppContext;
use crate::embedded::StateDir;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Colour, OutputStream, Progress, sanitize};

/// Free space in bytes below which building images and writing the append-only file may soon fail.
const LOW_SPACE_BYTES: u64 = 2 << 30;

/// Default folder of the engine for images and containers.
const ENGINE_DATA_DIR: &str = "/var/lib/docker";

/// Runs all checks. Exits with 1 if jobs could not run because of one of the findings.
pub(crate) async fn doctor(app: &AppContext) -> Result<Exit, CliError> {
    let mut failed = false;
    let mut printed = Ok(());
    let progress = Progress::start(app.output);
    let mut begins = |subject: &str| progress.step(&format!("checking {subject}"));
    let mut found = |finding: Finding| {
        progress.finish();
        failed |= finding.health == Severity::Fail;
        if printed.is_ok() {
            printed = print(app, &finding);
        }
    };
    found(state_dir(app));
    found(space("disk space", Path::new(ENGINE_DATA_DIR)));
    match app.find_queue() {
        Some(settings) => doctor::check_redis(&settings, &mut found).await,
        None => found(private_redis(app)),
    }
    doctor::check_sandboxes(&app.loaded.settings, &mut begins, &mut found).await;
    printed?;
    Ok(if failed {
        Exit::Unsuccessful
    } else {
        Exit::Success
    })
}

fn print(app: &AppContext, finding: &Finding) -> Result<(), CliError> {
    if app.output.is_json() {
        return app.output.json(finding);
    }
    let (word, colour) = match finding.health {
        Severity::Ok => ("ok  ", Colour::Green),
        Severity::Warn => ("warn", Colour::Yellow),
        Severity::Fail => ("fail", Colour::Red),
    };
    let word = app.output.paint(OutputStream::Out, colour, word);
    let Finding {
        subject, detail, ..
    } = finding;
    app.output
        .line(&format!("{word}  {subject}: {}", sanitize(detail)))?;
    match &finding.hint {
        Some(hint) => app.output.line(&format!("      hint: {hint}")),
        None => Ok(()),
    }
}

fn private_redis(app: &AppContext) -> Finding {
    match app.environment.find_program("redis-server") {
        Some(path) => Finding::ok(
            "redis",
            format!(
                "no address is set; `run` and `up` start {} themselves",
                path.display()
            ),
        ),
        None => Finding::ok(
            "redis",
            "no address is set, and redis-server is not installed",
        )
        .fail(Some(
            "install it with `apt-get install redis-server`, or set SANDHOG_REDIS_URL",
        )),
    }
}

fn state_dir(app: &AppContext) -> Finding {
    const SUBJECT: &str = "state directory";
    let state = match StateDir::of(&app.loaded.settings, &app.environment) {
        Ok(state) => state,
        Err(error) => {
            return Finding::ok(SUBJECT, error.to_string())
                .warn("set SANDHOG_STATE_DIR; without it, `up` cannot start its own Redis");
        }
    };
    let shown = state.path().display();
    if let Some(running) = state.running() {
        return Finding::ok(
            SUBJECT,
            format!("{shown}, in use by `sandhog up` (process {})", running.pid),
        );
    }
    match existing(state.path()) {
        Some(folder) if writable(folder) => Finding::ok(SUBJECT, shown.to_string()),
        _not_to_be_had => Finding::ok(SUBJECT, format!("{shown} cannot be written"))
            .warn("set SANDHOG_STATE_DIR to a folder that you can write to"),
    }
}

fn space(subject: &str, path: &Path) -> Finding {
    let Some(folder) = existing(path) else {
        return Finding::ok(subject, "unknown");
    };
    match statvfs(folder) {
        Ok(facts) => {
            let free = facts
                .blocks_available()
                .saturating_mul(facts.fragment_size());
            let finding = Finding::ok(
                subject,
                format!("{} GiB free at {}", free >> 30, folder.display()),
            );
            if free < LOW_SPACE_BYTES {
                finding.warn("free some space: images and the append-only file of Redis need it")
            } else {
                finding
            }
        }
        Err(error) => Finding::ok(subject, format!("unknown at {}: {error}", folder.display())),
    }
}

/// Returns the folder itself, or its nearest ancestor that exists.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|folder| folder.is_dir())
}

fn writable(folder: &Path) -> bool {
    nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).is_ok()
}
