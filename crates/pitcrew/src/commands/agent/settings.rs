//! What was asked of the agent, from the command line and the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pitcrew_agent::Settings;
use pitcrew_agent::config::{Fallback, Source, Sources};
use pitcrew_agent::health::XidFilter;
use pitcrew_agent::labels::SinkKind;
use pitcrew_agent::mps::Policy;
use pitcrew_agent::proof;
use pitcrew_agent::runtime::restart::Consent;
use pitcrew_agent::runtime::toolkit_env;
use pitcrew_cli::{AgentRunArgs, ConfigFallback, LabelSink, MpsComputeMode};

use super::overrides;
use crate::commands::prove;
use crate::error::Error;

/// Name of the program of hooks and wrapper.
const HOOK: &str = "pitcrew-hook";

/// Flags and variables as the agent's settings. `namespace` is the one that the agent runs in.
pub(super) fn of(args: &AgentRunArgs, root: &Path, namespace: &str) -> Result<Settings, Error> {
    let node = match &args.node {
        Some(node) => node.clone(),
        None => host_name(root)?,
    };
    let mut settings = Settings::new(node);
    settings.kubelet_dir.clone_from(&args.kubelet_dir);
    settings.cdi_dir.clone_from(&args.cdi_dir);
    settings.sources = Sources {
        source: source(args, namespace),
        default: args.default_config.clone(),
        fallbacks: args.fallback_strategies.iter().copied().map(fallback).collect(),
    };
    settings.overrides = overrides::of(args)?;
    settings.mps_compute_mode = match args.mps_compute_mode {
        None => Policy::WherePossible,
        Some(MpsComputeMode::Exclusive) => Policy::Exclusive,
        Some(MpsComputeMode::Leave) => Policy::Leave,
    };
    settings.labels = args.label_sink.map(|sink| match sink {
        LabelSink::Node => SinkKind::Node,
        LabelSink::NodeFeature => SinkKind::NodeFeature,
        LabelSink::File => SinkKind::File,
    });
    settings.startup_taint = Some(args.startup_taint.clone()).filter(|key| !key.is_empty());
    settings.proof = proof::Policy {
        profile: prove::profile(args.proof_profile),
        when_unproven: args.proof_when_unproven,
        every: args
            .proof_every
            .as_ref()
            .map(|text| proof::parse_every(text).ok_or_else(|| Error::ProofInterval(text.clone())))
            .transpose()?,
        request: None,
        gates_readiness: args.proof_gates_readiness,
    };
    settings.imaginary = args.scenario.is_some();
    settings.pace.look = Duration::from_secs(args.look_interval.into());
    settings.hook.binary = hook(args);
    settings.consent = Consent {
        restart: args.allow_restart,
        only_server: args.allow_restart_of_only_server,
    };
    settings.configure_containerd = args.configure_containerd;
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    settings.toolkit_env = std::env::vars_os()
        .filter_map(text)
        .filter(|(name, _)| toolkit_env::is_known(name))
        .collect();
    settings.xids = XidFilter::parse(&args.disable_health_checks, &args.enable_health_checks);
    settings.probation = Duration::from_secs(args.probation.into());
    Ok(settings)
}

/// The program of hooks and wrapper: beside this one, unless another is named.
fn hook(args: &AgentRunArgs) -> PathBuf {
    let beside = || {
        let own = std::env::current_exe().ok()?;
        Some(own.parent()?.join(HOOK))
    };
    args.hook.clone().or_else(beside).unwrap_or_else(|| HOOK.into())
}

/// Where configurations come from: what comes through the API server, then a directory, then a file.
fn source(args: &AgentRunArgs, namespace: &str) -> Source {
    if let Some(map) = &args.config_map {
        return Source::ConfigMap {
            namespace: map.namespace.clone().unwrap_or_else(|| namespace.to_owned()),
            name: map.name.clone(),
        };
    }
    let path = args.config_dir.as_ref().or(args.config.as_ref());
    path.map_or(Source::Defaults, |path| Source::Path(path.clone()))
}

fn fallback(asked: ConfigFallback) -> Fallback {
    match asked {
        ConfigFallback::Named => Fallback::Named,
        ConfigFallback::Single => Fallback::Single,
        ConfigFallback::Empty => Fallback::Empty,
    }
}

/// The host's name as a kubelet takes it: in lower case.
///
/// A pod has a name of its own where it isn't in the host's network; the file is the host's.
pub(crate) fn host_name(root: &Path) -> Result<String, Error> {
    let path = root.join("etc/hostname");
    let of_file = std::fs::read_to_string(path).ok();
    let of_file = of_file.as_deref().map(str::trim).filter(|name| !name.is_empty());
    let name = match of_file {
        Some(name) => name.to_owned(),
        None => rustix::system::uname()
            .nodename()
            .to_str()
            .map_err(|_| Error::NodeName)?
            .to_owned(),
    };
    Ok(name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use pitcrew_core::proof::Profile;

    use super::*;
    use clap::Parser as _;
    use pitcrew_agent::labels::Outlet;
    use pitcrew_cli::{AgentArgs, Cli, Command};
    use pitcrew_core::plugin::config::{Config, Interval};

    fn asked(words: &[&str]) -> Settings {
        let words = ["pitcrew", "agent", "--node", "worker-1"].iter().chain(words);
        let Command::Agent(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("it is another command");
        };
        let AgentArgs { run, .. } = *args;
        of(&run, Path::new("/"), "gpu").unwrap()
    }

    #[test]
    fn nothing_asked_for_is_the_agents_own_defaults() {
        let mut settings = asked(&[]);
        let defaults = Settings::new("worker-1");
        settings.hook = defaults.hook.clone();
        assert_eq!(settings, defaults);
    }

    #[test]
    fn a_config_map_comes_before_a_directory_and_that_before_a_file() {
        let source = |words: &[&str]| asked(words).sources.source;
        let map = |namespace: &str| Source::ConfigMap {
            namespace: namespace.to_owned(),
            name: "plugin".to_owned(),
        };
        let all = [
            "--config=/c.yaml",
            "--config-dir=/available",
            "--config-map=plugin",
        ];
        assert_eq!(source(&all), map("gpu"));
        assert_eq!(source(&["--config-map=other/plugin"]), map("other"));
        assert_eq!(source(&all[..2]), Source::Path("/available".into()));
        assert_eq!(source(&all[..1]), Source::Path("/c.yaml".into()));
        let fallbacks = asked(&["--fallback-strategies=single,empty"]).sources.fallbacks;
        assert_eq!(fallbacks, [Fallback::Single, Fallback::Empty]);
    }

    #[test]
    fn flags_stand_above_what_a_configuration_says_of_labels() {
        let settings = asked(&[
            "--output-file=/features",
            "--no-timestamp",
            "--sleep-interval=infinite",
            "--imex-channel-ids=0",
            "--device-discovery-strategy=nvml",
        ]);
        let config = Config::parse("version: v1\nflags: {useNodeFeatureAPI: true}\n").unwrap();
        let config = config.with(&settings.overrides).unwrap();
        assert_eq!(config.flags.gfd.sleep_interval, Interval::Infinite);
        assert_eq!(config.imex.channels, [0]);
        let outlet = Outlet::of(settings.labels, &config.flags, "gpu");
        assert_eq!(
            outlet.sink,
            pitcrew_agent::labels::Sink::NodeFeature {
                namespace: "gpu".to_owned()
            }
        );
        assert!(!outlet.timestamp);
        let file = asked(&["--label-sink=file"]);
        assert_eq!(file.labels, Some(SinkKind::File));
    }

    #[test]
    fn no_taint_is_touched_where_none_is_named() {
        assert_eq!(asked(&["--startup-taint="]).startup_taint, None);
        assert_eq!(
            asked(&["--startup-taint=a/b"]).startup_taint.as_deref(),
            Some("a/b")
        );
    }

    #[test]
    fn proofs_are_asked_for_by_flags() {
        let words = [
            "--proof-profile=smoke",
            "--proof-when-unproven",
            "--proof-every=7d",
            "--proof-gates-readiness=true",
        ];
        let expected = proof::Policy {
            profile: Profile::Smoke,
            when_unproven: true,
            every: Some(Duration::from_hours(7 * 24)),
            request: None,
            gates_readiness: true,
        };
        assert_eq!(asked(&words).proof, expected);
    }

    #[test]
    fn an_interval_that_is_none_is_wrong_usage() {
        let words = ["pitcrew", "agent", "--sleep-interval=often"];
        let Command::Agent(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("it is another command");
        };
        let error = of(&args.run, Path::new("/"), "gpu").unwrap_err();
        assert!(error.to_string().contains("`often`"), "{error}");
    }
}
