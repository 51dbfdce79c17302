//! From words to a command, and from its result to an exit status.

use std::ffi::OsString;

use clap::Parser;
use pitcrew_cli::{Cli, Command, ExitStatus};

use crate::commands::{completions, gpus, version};
use crate::error::{self, Error};
use crate::output::{Output, Streams};

/// Parses, runs, reports; the only place that does.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> ExitStatus {
    let cli = match Cli::try_parse_from(args) {
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

fn run(cli: Cli, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let Cli { command, global } = cli;
    match command {
        Command::Gpus(args) => gpus::run(args, &global, output),
        Command::Completions(args) => completions::run(&args, output),
        Command::Version => version::run(output),
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
