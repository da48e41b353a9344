//! Runs one command: parses the command line, loads the settings, dispatches, returns the exit
//! code.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use sandhog_config::logging::{self, LogFormat};
use sandhog_config::{Environment, Loaded, Sources, load};

use crate::args::{Cli, Command, WorkerArgs};
use crate::catalogue::Catalogue;
use crate::commands;
use crate::context::AppContext;
use crate::embedded::become_guarded_server;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{OutputStream, Printer};

/// Runs the command that this process was started with.
#[must_use]
pub(crate) fn run_app() -> Exit {
    let environment = Environment::current();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let is_json = arguments
                .iter()
                .take_while(|word| *word != "--")
                .any(|word| word == "--json");
            return print_parse_error(&environment, &error, is_json);
        }
    };
    let output = Printer::new(&environment, cli.global.json, cli.global.quiet);
    match start(cli, environment, output) {
        Ok(exit) => exit,
        Err(error) => {
            output.error(&error);
            error.exit
        }
    }
}

/// Prints the parser's message. Help and the version end with success, every other message is an
/// error of usage.
fn print_parse_error(environment: &Environment, error: &clap::Error, is_json: bool) -> Exit {
    let asked = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let (stream, exit) = if asked {
        (OutputStream::Out, Exit::Success)
    } else {
        (OutputStream::Err, Exit::Usage)
    };
    let output = Printer::new(environment, is_json, false);
    if is_json && !asked {
        let error = usage_error(&error.render().to_string());
        output.error(&error);
        return error.exit;
    }
    let text = if output.is_coloured(stream) {
        error.render().ansi().to_string()
    } else {
        error.render().to_string()
    };
    match output.bytes(stream, text.as_bytes()) {
        Ok(()) => exit,
        Err(error) => error.exit,
    }
}

/// Converts the parser's message to a [`CliError`]. Its first paragraph becomes the message; its
/// tip, or otherwise the usage, becomes the hint.
fn usage_error(text: &str) -> CliError {
    let mut paragraphs = text
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    let first = paragraphs.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(&first);
    let others: Vec<String> = paragraphs.collect();
    let advice = others
        .iter()
        .find_map(|paragraph| paragraph.strip_prefix("tip: "))
        .or_else(|| {
            others
                .iter()
                .map(String::as_str)
                .find(|p| p.starts_with("Usage:"))
        });
    let error = CliError::message(Exit::Usage, message);
    match advice {
        Some(advice) => error.hint(advice),
        None => error,
    }
}

fn start(cli: Cli, environment: Environment, output: Printer) -> Result<Exit, CliError> {
    match &cli.command {
        Command::Completions(args) => {
            // Invalid settings do not prevent completions.
            let settings = load(&Sources::new(environment)).map(|loaded| loaded.settings);
            let catalogue = Catalogue::read(&settings.unwrap_or_default().sandbox);
            return commands::completions(output, args, Cli::command(), &catalogue);
        }
        Command::RedisGuard(args) => return Err(become_guarded_server(args)),
        _with_settings => {}
    }
    let mut flags = cli.global.flags();
    if let Command::Worker(args) | Command::Up(args) = &cli.command {
        flags.extend(WorkerArgs::flags(args));
    }
    let loaded = load(&Sources {
        file: cli.global.config,
        flags,
        ..Sources::new(environment.clone())
    })?;
    start_logging(&cli.command, &loaded, output);
    let app = AppContext {
        loaded,
        environment,
        output,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::new(Exit::Fault, anyhow::Error::new(e)))?;
    runtime.block_on(dispatch(&app, cli.command))
}

fn start_logging(command: &Command, loaded: &Loaded, output: Printer) {
    let log = &loaded.settings.log;
    let usual = match command {
        Command::Worker(_) => "info",
        _quiet => "warn",
    };
    let format = if output.is_json() {
        LogFormat::Json
    } else {
        log.format
    };
    logging::start_logging(log.filter.as_deref().unwrap_or(usual), format);
}

async fn dispatch(app: &AppContext, command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Run(args) => Box::pin(commands::run(app, &args)).await,
        Command::Infer(args) => Box::pin(commands::infer(app, &args)).await,
        Command::Submit(args) => Box::pin(commands::submit(app, &args)).await,
        Command::Wait(args) => commands::wait(app, &args).await,
        Command::Logs(args) => commands::logs(app, &args).await,
        Command::Cancel(args) => commands::cancel(app, &args).await,
        Command::Status(args) => commands::status(app, &args).await,
        Command::Top(args) => Box::pin(commands::top(app, &args)).await,
        Command::Dead(command) => commands::dead(app, &command).await,
        Command::Schedule(command) => Box::pin(commands::schedule(app, &command)).await,
        Command::Tenant(command) => commands::tenant(app, &command).await,
        Command::Pause => commands::pause(app).await,
        Command::Resume => commands::resume(app).await,
        Command::Worker(_) => Box::pin(commands::worker(app)).await,
        Command::Images(command) => Box::pin(commands::images(app, &command)).await,
        Command::Up(_) => Box::pin(commands::up(app)).await,
        Command::Doctor => Box::pin(commands::doctor(app)).await,
        Command::Config(command) => commands::config(app, &command),
        Command::Completions(_) | Command::RedisGuard(_) => {
            unreachable!("`start` handles these commands, which need no settings")
        }
    }
}
