//! `pitcrew gpus`.

use clap::{Args, Subcommand, ValueEnum};

use crate::env;

/// Arguments of `pitcrew gpus`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct GpusArgs {
    /// Something else than the GPUs themselves.
    #[command(subcommand)]
    pub command: Option<GpusCommand>,
    /// Show imaginary GPUs: a built-in scenario, a file, or `list`
    ///
    /// A name with a path separator or ending in `.yaml` or `.yml` is a file, and so is the name of a file that
    /// exists and is not that of a built-in scenario. `list` prints the built-in scenarios.
    #[arg(long, value_name = "NAME|FILE", env = env::SCENARIO, hide_env_values = true)]
    pub scenario: Option<String>,
}

/// Commands of `pitcrew gpus`.
#[derive(Debug, Subcommand)]
pub enum GpusCommand {
    /// Show the hardware chart, or one card in full
    ///
    /// Figures of every card that pitcrew knows. Expected figures are what a healthy card reaches, with the basis of
    /// each number. One card in full adds MIG profiles with the places they can take, the driver branches that support
    /// it, and what each way of sharing it isolates.
    Catalog(CatalogArgs),
}

/// Arguments of `pitcrew gpus catalog`.
#[derive(Debug, Args)]
pub struct CatalogArgs {
    /// Name of a card, or enough of it to tell which
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Only cards of this class
    #[arg(long, value_enum, value_name = "CLASS", conflicts_with = "name")]
    pub class: Option<Class>,
    /// Only cards of this architecture
    #[arg(
        long,
        value_enum,
        value_name = "ARCH",
        ignore_case = true,
        conflicts_with = "name"
    )]
    pub arch: Option<Architecture>,
}

/// Class of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Class {
    /// GeForce
    Consumer,
    /// RTX and Quadro
    Workstation,
    /// What was called Tesla
    Datacentre,
}

/// Architecture of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// Compute capability 5.x
    Maxwell,
    /// Compute capability 6.x
    Pascal,
    /// Compute capability 7.0
    Volta,
    /// Compute capability 7.5
    Turing,
    /// Compute capability 8.0 and 8.6
    Ampere,
    /// Compute capability 8.9
    Ada,
    /// Compute capability 9.0
    Hopper,
    /// Compute capability 10.x and 12.x
    Blackwell,
}
