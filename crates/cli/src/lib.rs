//! The command line of pitcrew: clap structs, names of environment variables, exit codes. No behaviour.
//!
//! The binary acts on these structs; `pitcrew-gen` makes man pages, completions and `docs/reference/` of them, so
//! that help and documents cannot differ.

mod args;
pub mod env;
mod exit;
mod prove;

pub use args::{
    AgentArgs, AgentCommand, AgentInRootArgs, AgentRunArgs, AgentUninstallArgs, Architecture, CatalogArgs,
    CdiCommand, CdiGenerateArgs, CdiListArgs, CdiNaming, CdiValidateArgs, CheckArgs, Class, Cli, ColorChoice,
    Command, CompletionsArgs, ConfigFallback, ConfigMapName, DeviceDiscovery, DeviceIds, DeviceLists, Format,
    GlobalArgs, GpusArgs, GpusCommand, LabelSink, MigStrategy, MpsComputeMode, SharedAllocation, Shell,
    SimArgs, SimHost, TopArgs,
};
pub use exit::ExitStatus;
pub use prove::{
    ProofExit, ProveArgs, ProveCommand, ProveMergeArgs, ProveProfile, ProveRunArgs, ProveShowArgs,
    ProveVariant, ProveViewArgs,
};

/// The whole command line, as clap's builder; what documents are made of.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_environment_variable_of_a_flag_is_listed() {
        fn walk(command: &clap::Command, found: &mut Vec<String>) {
            found.extend(
                command
                    .get_arguments()
                    .filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned())),
            );
            command.get_subcommands().for_each(|sub| walk(sub, found));
        }
        let mut found = Vec::new();
        walk(&command(), &mut found);
        assert!(found.iter().any(|name| name == env::SCENARIO));
        for name in found {
            assert!(
                env::ALL.iter().any(|(listed, _)| *listed == name),
                "{name} is not in env::ALL"
            );
        }
    }
}
