//! `xtask chaos`: the agent on imaginary nodes on which everything goes wrong, for longer than the tests do it.

use anyhow::Result;

use crate::process;

/// Options of `xtask chaos`.
#[derive(clap::Args)]
pub(crate) struct ChaosArgs {
    /// For how long
    #[arg(long, default_value_t = 10, value_name = "N")]
    minutes: u32,
    /// This seed alone, instead of one after the other
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// On this scenario, instead of several in turn
    #[arg(long, value_name = "NAME", requires = "seed")]
    scenario: Option<String>,
}

/// Prints a line for each seed; ends at the first that breaks something.
pub(crate) fn run(args: &ChaosArgs) -> Result<()> {
    let mut command = process::cargo();
    command.args(["run", "--package=pitcrew-sim", "--example=chaos", "--"]);
    command.arg((u64::from(args.minutes) * 60).to_string());
    command.args(args.seed.map(|seed| seed.to_string()));
    command.args(&args.scenario);
    process::run(&mut command)
}
