//! `pitcrew completions`.

use pitcrew_cli::{CompletionsArgs, ExitStatus, Shell};

use crate::error::Error;
use crate::output::Output;

pub(crate) fn run(args: &CompletionsArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Elvish => clap_complete::Shell::Elvish,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::PowerShell => clap_complete::Shell::PowerShell,
        Shell::Zsh => clap_complete::Shell::Zsh,
    };
    // Into memory first: the generator panics where a reader goes away.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut pitcrew_cli::command(), "pitcrew", &mut script);
    output.text(&String::from_utf8_lossy(&script))?;
    Ok(ExitStatus::Fine)
}
