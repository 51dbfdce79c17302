//! Where a proof runs: node, pod, kernel, and what the environment makes of the GPUs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use pitcrew_cli::{GlobalArgs, ProveRunArgs};
use pitcrew_core::proof::Node;

use crate::commands::agent;
use crate::error::Error;

/// Where the kubelet writes the namespace of a pod's service account, which is the pod's.
const NAMESPACE: &str = "var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Longest value of a variable that a report holds, in bytes: as many UUIDs as a node has GPUs and MIG devices.
const LONGEST: usize = 4096;
/// Longest name of a namespace, and of a pod (RFC 1123).
const LONGEST_NAMESPACE: usize = 63;
const LONGEST_POD: usize = 253;

/// The variables with this beginning that decide what a process sees of the GPUs. Others can be keys to a service.
const NVIDIA: [&str; 11] = [
    "DISABLE_REQUIRE",
    "DRIVER_CAPABILITIES",
    "GDRCOPY",
    "GDS",
    "IMEX_CHANNELS",
    "MIG_CONFIG_DEVICES",
    "MIG_MONITOR_DEVICES",
    "MOFED",
    "NVSWITCH",
    "TF32_OVERRIDE",
    "VISIBLE_DEVICES",
];
/// Words in the name of a variable whose value is nobody's business.
const SECRET: [&str; 7] = ["AUTH", "CREDENTIAL", "KEY", "LICENSE", "PASS", "SECRET", "TOKEN"];

/// The node, as a report tells of it.
pub(super) fn node(args: &ProveRunArgs, global: &GlobalArgs) -> Result<Node, Error> {
    Ok(Node {
        name: name(args, global)?,
        pod: pod(
            args.pod_name.as_deref(),
            args.pod_namespace.as_deref(),
            &global.root,
        ),
        kernel: Some(rustix::system::uname().release().to_string_lossy().into_owned()),
        // Which names there are is only known once all are seen, so none of them can be an argument.
        environment: of_gpus(std::env::vars_os()),
    })
}

/// The node's name: as it was told, or that of the machine.
pub(super) fn name(args: &ProveRunArgs, global: &GlobalArgs) -> Result<String, Error> {
    match &args.node {
        Some(name) => Ok(name.clone()),
        None => agent::host_name(&global.root),
    }
}

/// `namespace/name`, where both are known for certain. The host name is not taken for the pod's name: with `hostNetwork` it
/// is the node's, and in a pod of an indexed Job it is another one.
fn pod(name: Option<&str>, namespace: Option<&str>, root: &Path) -> Option<String> {
    let name = name.filter(|name| is_name(name, LONGEST_POD))?;
    let of_account = || fs::read_to_string(root.join(NAMESPACE)).ok();
    let namespace = match namespace {
        Some(namespace) => namespace.to_owned(),
        None => of_account()?.trim().to_owned(),
    };
    is_name(&namespace, LONGEST_NAMESPACE).then(|| format!("{namespace}/{name}"))
}

/// A name as Kubernetes gives them (RFC 1123).
fn is_name(name: &str, longest: usize) -> bool {
    let is_inside =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= longest
        && bytes.iter().copied().all(is_inside)
        && is_end(bytes.first())
        && is_end(bytes.last())
}

/// Of all variables those that decide what a process sees of the GPUs.
fn of_gpus(all: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
    all.filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        (is_of_gpus(&name) && value.len() <= LONGEST).then_some((name, value))
    })
    .collect()
}

fn is_of_gpus(name: &str) -> bool {
    match (name.strip_prefix("CUDA_"), name.strip_prefix("NVIDIA_")) {
        (Some(rest), _) => !SECRET.iter().any(|word| rest.contains(word)),
        (None, Some(rest)) => NVIDIA.contains(&rest) || rest.starts_with("REQUIRE_"),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_told_only_where_its_name_and_namespace_are_known() {
        let root = tempfile::tempdir().unwrap();
        let named = |name, namespace| pod(name, namespace, root.path());
        assert_eq!(
            named(Some("prove-x7k2p"), Some("gpu-tests")).as_deref(),
            Some("gpu-tests/prove-x7k2p")
        );
        assert_eq!(named(None, Some("gpu-tests")), None);
        assert_eq!(named(Some("prove-x7k2p"), None), None);
        let file = root.path().join(NAMESPACE);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "tests\n").unwrap();
        assert_eq!(
            named(Some("prove-x7k2p"), None).as_deref(),
            Some("tests/prove-x7k2p")
        );
        assert_eq!(
            named(None, None),
            None,
            "a host name is not always that of the pod"
        );
        for bad in ["", "Prove", "-x", "a/b", "a\nb", &"x".repeat(254)] {
            assert_eq!(named(Some(bad), None), None, "{bad}");
        }
    }

    #[test]
    fn what_is_seen_of_the_gpus_is_told_and_nothing_secret() {
        let all = [
            ("CUDA_VISIBLE_DEVICES", "0"),
            ("CUDA_FORCE_PTX_JIT", "1"),
            ("NVIDIA_VISIBLE_DEVICES", "all"),
            ("NVIDIA_REQUIRE_CUDA", "cuda>=12.0"),
            ("NVIDIA_API_KEY", "nvapi-secret"),
            ("CUDA_REPO_TOKEN", "secret"),
            ("PATH", "/bin"),
            ("MY_CUDA_X", "1"),
        ];
        let all = all
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let long = (
            OsString::from("CUDA_LONG"),
            OsString::from("x".repeat(LONGEST + 1)),
        );
        let kept = of_gpus(all.chain([long]));
        let names: Vec<&str> = kept.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "CUDA_FORCE_PTX_JIT",
                "CUDA_VISIBLE_DEVICES",
                "NVIDIA_REQUIRE_CUDA",
                "NVIDIA_VISIBLE_DEVICES"
            ]
        );
    }
}
