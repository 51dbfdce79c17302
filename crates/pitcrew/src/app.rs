//! From words to a command, and from its result to an exit status.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches};
use pitcrew_cli::{CdiCommand, Cli, Command, ExitStatus};

use crate::commands::{agent, cdi, check, completions, gpus, prove, sim, top, version};
use crate::error::{self, Error};
use crate::output::{Output, Streams};

/// Parses, runs, reports; the only place that does.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> ExitStatus {
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(refusal) => return refused(&refusal),
    };
    let mut streams = Streams::new(cli.global.color);
    let mut output = Output::new(&mut streams, &cli.global);
    match run(cli, &mut output).and_then(|status| output.finish().map(|()| status)) {
        Ok(status) => status,
        Err(error) => {
            // Where standard error is closed too, the exit status has to do.
            let _ = error::report(&mut output, &error);
            error.status()
        }
    }
}

/// Parses. A library that was named is asked also where the environment names a scenario: the imaginary
/// `libnvidia-ml.so.1` takes its own from the same variable. `--scenario` on the command line goes before both.
fn parse(args: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = pitcrew_cli::command().try_get_matches_from(args)?;
    let mut cli =
        Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut pitcrew_cli::command()))?;
    if cli.global.nvml.is_some() && has_scenario_of_environment(&matches) {
        match &mut cli.command {
            Command::Gpus(args) => args.scenario = None,
            Command::Check(args) => args.scenario = None,
            Command::Top(args) => args.scenario = None,
            Command::Prove(args) => args.run.scenario = None,
            Command::Cdi(CdiCommand::Generate(args)) => args.scenario = None,
            Command::Agent(args) => agent::without_scenario(args),
            Command::Cdi(_) | Command::Sim(_) | Command::Completions(_) | Command::Version => {}
        }
    }
    Ok(cli)
}

fn has_scenario_of_environment(matches: &ArgMatches) -> bool {
    const SCENARIO: &str = "scenario";
    matches.subcommand().is_some_and(|(_, of_command)| {
        let of_command = of_command.subcommand().map_or(of_command, |(_, deeper)| deeper);
        of_command.try_contains_id(SCENARIO).unwrap_or(false)
            && of_command.value_source(SCENARIO) == Some(ValueSource::EnvVariable)
    })
}

fn run(cli: Cli, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let Cli { command, global } = cli;
    if matches!(
        command,
        Command::Gpus(_) | Command::Check(_) | Command::Top(_) | Command::Agent(_)
    ) {
        is_directory(&global.root)?;
    }
    match command {
        Command::Gpus(args) => gpus::run(args, &global, output),
        Command::Check(args) => check::run(args, &global, output),
        Command::Top(args) => top::run(args, &global, output),
        Command::Agent(args) => agent::run(*args, &global, output),
        Command::Prove(args) => prove::run(*args, &global, output),
        Command::Sim(args) => sim::run(&args, &global, output),
        Command::Cdi(command) => cdi::run(command, &global, output),
        Command::Completions(args) => completions::run(&args, output),
        Command::Version => version::run(output),
    }
}

/// A root that isn't there would look like a machine without a GPU.
fn is_directory(root: &Path) -> Result<(), Error> {
    let refused = |source| Error::Root {
        path: root.to_owned(),
        source,
    };
    if fs::metadata(root).map_err(refused)?.is_dir() {
        Ok(())
    } else {
        Err(refused(io::ErrorKind::NotADirectory.into()))
    }
}

/// Clap's own errors end with 64, not 2; help and version are no errors.
fn refused(refusal: &clap::Error) -> ExitStatus {
    let _ = refusal.print();
    if refusal.use_stderr() {
        ExitStatus::Usage
    } else {
        ExitStatus::Fine
    }
}
