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
/// As in NVIDIA's device plugin; the same as `agent --default-config`.
pub const DEFAULT_CONFIG: &str = "DEFAULT_CONFIG";
/// As in NVIDIA's device plugin; the same as `agent --mig-strategy`.
pub const MIG_STRATEGY: &str = "MIG_STRATEGY";
/// As in NVIDIA's device plugin; the same as `agent --fail-on-init-error`.
pub const FAIL_ON_INIT_ERROR: &str = "FAIL_ON_INIT_ERROR";
/// As in NVIDIA's device plugin; the same as `agent --pass-device-specs`.
pub const PASS_DEVICE_SPECS: &str = "PASS_DEVICE_SPECS";
/// As in NVIDIA's device plugin; the same as `agent --device-list-strategy`.
pub const DEVICE_LIST_STRATEGY: &str = "DEVICE_LIST_STRATEGY";
/// As in NVIDIA's device plugin; the same as `agent --device-id-strategy`.
pub const DEVICE_ID_STRATEGY: &str = "DEVICE_ID_STRATEGY";
/// As in NVIDIA's device plugin; the same as `agent --cdi-annotation-prefix`.
pub const CDI_ANNOTATION_PREFIX: &str = "CDI_ANNOTATION_PREFIX";
/// As in NVIDIA's device plugin; the same as `agent --shared-devices-allocation-policy`.
pub const SHARED_DEVICES_ALLOCATION_POLICY: &str = "SHARED_DEVICES_ALLOCATION_POLICY";
/// As in NVIDIA's device plugin; the same as `agent --driver-root`.
pub const NVIDIA_DRIVER_ROOT: &str = "NVIDIA_DRIVER_ROOT";
/// As in NVIDIA's device plugin; the same as `agent --dev-root`.
pub const NVIDIA_DEV_ROOT: &str = "NVIDIA_DEV_ROOT";
/// As in NVIDIA's device plugin; the same as `agent --mps-root`.
pub const MPS_ROOT: &str = "MPS_ROOT";
/// As in NVIDIA's device plugin; the same as `agent --gdrcopy-enabled`.
pub const GDRCOPY_ENABLED: &str = "GDRCOPY_ENABLED";
/// As in NVIDIA's device plugin; the same as `agent --gds-enabled`.
pub const GDS_ENABLED: &str = "GDS_ENABLED";
/// As in NVIDIA's device plugin; the same as `agent --mofed-enabled`.
pub const MOFED_ENABLED: &str = "MOFED_ENABLED";
/// As in NVIDIA's device plugin; the same as `agent --use-node-feature-api`.
pub const USE_NODE_FEATURE_API: &str = "USE_NODE_FEATURE_API";
/// As in NVIDIA's device plugin; the same as `agent --no-timestamp`.
pub const GFD_NO_TIMESTAMP: &str = "GFD_NO_TIMESTAMP";
/// containerd's configuration may be changed; the same as `agent --configure-containerd`.
pub const CONFIGURE_CONTAINERD: &str = "PITCREW_CONFIGURE_CONTAINERD";
/// Restarts are allowed; the same as `agent --allow-restart`.
pub const ALLOW_RESTART: &str = "PITCREW_ALLOW_RESTART";
/// Restarts of the only server, too; the same as `agent --allow-restart-of-only-server`.
pub const ALLOW_RESTART_OF_ONLY_SERVER: &str = "PITCREW_ALLOW_RESTART_OF_ONLY_SERVER";
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
        DEFAULT_CONFIG,
        "Which of several configurations of the device plugin counts for a node without a label. The same as `agent --default-config`.",
    ),
    (
        MIG_STRATEGY,
        "How MIG devices are offered: `none`, `single` or `mixed`. The same as `agent --mig-strategy`.",
    ),
    (
        FAIL_ON_INIT_ERROR,
        "Accepted for NVIDIA's device plugin, and without effect. The same as `agent --fail-on-init-error`.",
    ),
    (
        PASS_DEVICE_SPECS,
        "Device nodes in the answer to the kubelet: `true` or `false`. The same as `agent --pass-device-specs`.",
    ),
    (
        DEVICE_LIST_STRATEGY,
        "How a container is told its devices: `envvar`, `volume-mounts`, `cdi-annotations`, `cdi-cri`, with commas between them. The same as `agent --device-list-strategy`.",
    ),
    (
        DEVICE_ID_STRATEGY,
        "How devices are named: `uuid` or `index`. The same as `agent --device-id-strategy`.",
    ),
    (
        CDI_ANNOTATION_PREFIX,
        "Prefix of annotations that name CDI devices. The same as `agent --cdi-annotation-prefix`.",
    ),
    (
        SHARED_DEVICES_ALLOCATION_POLICY,
        "Which replicas are preferred: `distributed` or `packed`. The same as `agent --shared-devices-allocation-policy`.",
    ),
    (
        NVIDIA_DRIVER_ROOT,
        "Where the node has the root of the driver's libraries. The same as `agent --driver-root`.",
    ),
    (
        NVIDIA_DEV_ROOT,
        "Where the node has the root of the driver's device nodes. The same as `agent --dev-root`.",
    ),
    (
        MPS_ROOT,
        "Where the Multi-Process Service has its files on the node. The same as `agent --mps-root`.",
    ),
    (
        GDRCOPY_ENABLED,
        "Containers get the devices of GDRCopy: `true` or `false`. The same as `agent --gdrcopy-enabled`.",
    ),
    (
        GDS_ENABLED,
        "Containers get the devices of GPUDirect Storage: `true` or `false`. The same as `agent --gds-enabled`.",
    ),
    (
        MOFED_ENABLED,
        "Containers get the devices of Mellanox's network cards: `true` or `false`. The same as `agent --mofed-enabled`.",
    ),
    (
        USE_NODE_FEATURE_API,
        "Labels go to a `NodeFeature` object: `true` or `false`. The same as `agent --use-node-feature-api`.",
    ),
    (
        GFD_NO_TIMESTAMP,
        "No label says when labels were made: `true` or `false`. The same as `agent --no-timestamp`.",
    ),
    (
        CONFIGURE_CONTAINERD,
        "containerd is given the handler `nvidia` on nodes without RKE2 or K3s: `true` or `false`. The same as \
         `agent --configure-containerd`.",
    ),
    (
        ALLOW_RESTART,
        "RKE2 or K3s may be restarted where a handler needs it: `true` or `false`. The same as `agent --allow-restart`.",
    ),
    (
        ALLOW_RESTART_OF_ONLY_SERVER,
        "So may the only server of a cluster. The same as `agent --allow-restart-of-only-server`.",
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
