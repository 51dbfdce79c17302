//! Every environment variable that pitcrew reads, in one place.

/// Imaginary GPUs to show instead of this machine's; the same as `--scenario`.
pub const SCENARIO: &str = "PITCREW_SCENARIO";
/// Format of what is printed; the same as `--output`.
pub const OUTPUT: &str = "PITCREW_OUTPUT";
/// When to use colour; the same as `--color`.
pub const COLOR: &str = "PITCREW_COLOR";
/// Another root directory; the same as `--root`.
pub const ROOT: &str = "PITCREW_ROOT";
/// The driver's management library; the same as `--nvml`.
pub const NVML: &str = "PITCREW_NVML";
/// Width of tables in columns; the same as `--width`.
pub const COLUMNS: &str = "COLUMNS";
/// The node's name; the same as `agent --node`.
pub const NODE_NAME: &str = "NODE_NAME";
/// The kubelet's directory; the same as `agent --kubelet-dir`.
pub const KUBELET_DIR: &str = "PITCREW_KUBELET_DIR";
/// A configuration of NVIDIA's device plugin; the same as `agent --config`.
pub const CONFIG_FILE: &str = "CONFIG_FILE";
/// XIDs that don't make a GPU sick; the same as `agent --disable-health-checks`.
pub const DP_DISABLE_HEALTHCHECKS: &str = "DP_DISABLE_HEALTHCHECKS";
/// XIDs that make a GPU sick whatever else is said; the same as `agent --enable-health-checks`.
pub const DP_ENABLE_HEALTHCHECKS: &str = "DP_ENABLE_HEALTHCHECKS";
/// How long a sick GPU must be well; the same as `agent --probation`.
pub const PROBATION: &str = "PITCREW_PROBATION";
/// A kubeconfig. Read by the Kubernetes client.
pub const KUBECONFIG: &str = "KUBECONFIG";
/// No colour, unless `--color` asks for it. Read by `anstream`.
pub const NO_COLOR: &str = "NO_COLOR";
/// Colour also where output is no terminal. Read by `anstream`.
pub const CLICOLOR_FORCE: &str = "CLICOLOR_FORCE";

/// All of them, with what they do in Markdown: the text of `docs/reference/environment.md`.
pub const ALL: &[(&str, &str)] = &[
    (
        SCENARIO,
        "Imaginary GPUs to show instead of this machine's, a name or a file. The same as `--scenario`.",
    ),
    (
        OUTPUT,
        "Format of what is printed: `table`, `json` or `yaml`. The same as `--output`.",
    ),
    (
        COLOR,
        "When to use colour: `auto`, `always` or `never`. The same as `--color`.",
    ),
    (
        ROOT,
        "The directory to read the machine's files under. The same as `--root`.",
    ),
    (
        NVML,
        "The driver's management library (`libnvidia-ml.so.1`) to load. The same as `--nvml`.",
    ),
    (
        NODE_NAME,
        "The node's name, as the API server has it. The same as `agent --node`; without it the host's name counts.",
    ),
    (
        KUBELET_DIR,
        "The kubelet's directory on the node. The same as `agent --kubelet-dir`.",
    ),
    (
        CONFIG_FILE,
        "A configuration of NVIDIA's device plugin (version v1). The same as `agent --config`.",
    ),
    (
        DP_DISABLE_HEALTHCHECKS,
        "XIDs that don't make a GPU sick: numbers with commas between them, or `all`. The same as \
         `agent --disable-health-checks`.",
    ),
    (
        DP_ENABLE_HEALTHCHECKS,
        "XIDs that make a GPU sick whatever else is said: numbers with commas between them, or `all`. The same as \
         `agent --enable-health-checks`.",
    ),
    (
        PROBATION,
        "Seconds that a sick GPU must be well before it is handed out again. The same as `agent --probation`.",
    ),
    (
        KUBECONFIG,
        "How `agent` reaches the API server where it runs in no pod. Without it the kubelet's own kubeconfig is taken.",
    ),
    (
        COLUMNS,
        "Width of tables. The same as `--width`; without it the width of the terminal counts.",
    ),
    (
        NO_COLOR,
        "If set and not empty: no colour, unless `--color always` asks for it. See <https://no-color.org>.",
    ),
    (
        CLICOLOR_FORCE,
        "If set and not empty: colour also where output is no terminal.",
    ),
];
