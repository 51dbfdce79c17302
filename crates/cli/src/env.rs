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
/// What is done to the compute mode of GPUs shared through MPS; the same as `agent --mps-compute-mode`.
pub const MPS_COMPUTE_MODE: &str = "PITCREW_MPS_COMPUTE_MODE";
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
/// As in NVIDIA's device plugin; the same as `agent --config-dir`.
pub const CONFIG_FILE_SRCDIR: &str = "CONFIG_FILE_SRCDIR";
/// A `ConfigMap` of configurations; the same as `agent --config-map`.
pub const CONFIG_MAP: &str = "PITCREW_CONFIG_MAP";
/// As in NVIDIA's device plugin; the same as `agent --fallback-strategies`.
pub const FALLBACK_STRATEGIES: &str = "FALLBACK_STRATEGIES";
/// As in NVIDIA's device plugin; the same as `agent --device-discovery-strategy`.
pub const DEVICE_DISCOVERY_STRATEGY: &str = "DEVICE_DISCOVERY_STRATEGY";
/// As in NVIDIA's device plugin; the same as `agent --nvidia-cdi-hook-path`.
pub const NVIDIA_CDI_HOOK_PATH: &str = "NVIDIA_CDI_HOOK_PATH";
/// As in NVIDIA's device plugin; the same as `agent --driver-root-ctr-path`.
pub const DRIVER_ROOT_CTR_PATH: &str = "DRIVER_ROOT_CTR_PATH";
/// As in NVIDIA's device plugin; the same as `agent --imex-channel-ids`.
pub const IMEX_CHANNEL_IDS: &str = "IMEX_CHANNEL_IDS";
/// As in NVIDIA's device plugin; the same as `agent --imex-required`.
pub const IMEX_REQUIRED: &str = "IMEX_REQUIRED";
/// Where labels are written; the same as `agent --label-sink`.
pub const LABEL_SINK: &str = "PITCREW_LABEL_SINK";
/// As in GPU Feature Discovery; the same as `agent --output-file`.
pub const GFD_OUTPUT_FILE: &str = "GFD_OUTPUT_FILE";
/// As in GPU Feature Discovery; the same as `agent --oneshot`.
pub const GFD_ONESHOT: &str = "GFD_ONESHOT";
/// As in GPU Feature Discovery; the same as `agent --sleep-interval`.
pub const GFD_SLEEP_INTERVAL: &str = "GFD_SLEEP_INTERVAL";
/// As in GPU Feature Discovery; the same as `agent --machine-type-file`.
pub const GFD_MACHINE_TYPE_FILE: &str = "GFD_MACHINE_TYPE_FILE";
/// How often all GPUs are looked at; the same as `agent --look-interval`.
pub const LOOK_INTERVAL: &str = "PITCREW_LOOK_INTERVAL";
/// The taint that is lifted; the same as `agent --startup-taint`.
pub const STARTUP_TAINT: &str = "PITCREW_STARTUP_TAINT";
/// How much a proof tests; the same as `agent --proof-profile`.
pub const PROOF_PROFILE: &str = "PITCREW_PROOF_PROFILE";
/// GPUs are proved that no proof holds for; the same as `agent --proof-when-unproven`.
pub const PROOF_WHEN_UNPROVEN: &str = "PITCREW_PROOF_WHEN_UNPROVEN";
/// How old a proof may become; the same as `agent --proof-every`.
pub const PROOF_EVERY: &str = "PITCREW_PROOF_EVERY";
/// GPUs go to pods only while a proof holds; the same as `agent --proof-gates-readiness`.
pub const PROOF_GATES_READINESS: &str = "PITCREW_PROOF_GATES_READINESS";
/// The driver compiles the kernels of a proof itself, as it does for other programs; the same as `prove --ptx`.
pub const CUDA_FORCE_PTX_JIT: &str = "CUDA_FORCE_PTX_JIT";
/// The pod's name; the same as `prove --pod-name`.
pub const POD_NAME: &str = "POD_NAME";
/// The pod's namespace; the same as `prove --pod-namespace`.
pub const POD_NAMESPACE: &str = "POD_NAMESPACE";
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
        MPS_COMPUTE_MODE,
        "The compute mode of GPUs that are shared through the Multi-Process Service: `exclusive` or `leave`. The same as \
         `agent --mps-compute-mode`.",
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
        CONFIG_FILE_SRCDIR,
        "A directory of configurations of NVIDIA's device plugin. The same as `agent --config-dir`.",
    ),
    (
        CONFIG_MAP,
        "A `ConfigMap` of configurations, `NAMESPACE/NAME` or a name in the agent's own namespace. The same as `agent --config-map`.",
    ),
    (
        FALLBACK_STRATEGIES,
        "What to take of several configurations where none is named: `named`, `single`, `empty`, with commas between them. The same as `agent --fallback-strategies`.",
    ),
    (
        DEVICE_DISCOVERY_STRATEGY,
        "Accepted for NVIDIA's device plugin: `auto`, `nvml`, `tegra` or `vfio`. The same as `agent --device-discovery-strategy`.",
    ),
    (
        NVIDIA_CDI_HOOK_PATH,
        "Accepted for NVIDIA's device plugin, and without effect. The same as `agent --nvidia-cdi-hook-path`.",
    ),
    (
        DRIVER_ROOT_CTR_PATH,
        "Accepted for NVIDIA's device plugin, and without effect. The same as `agent --driver-root-ctr-path`.",
    ),
    (
        IMEX_CHANNEL_IDS,
        "Channels of IMEX that containers get: nothing, or `0`. The same as `agent --imex-channel-ids`.",
    ),
    (
        IMEX_REQUIRED,
        "Accepted for NVIDIA's device plugin, and without effect yet: `true` or `false`. The same as `agent --imex-required`.",
    ),
    (
        LABEL_SINK,
        "Where labels are written: `node`, `node-feature` or `file`. The same as `agent --label-sink`.",
    ),
    (
        GFD_OUTPUT_FILE,
        "The file that labels are written to for Node Feature Discovery. The same as `agent --output-file`.",
    ),
    (
        GFD_ONESHOT,
        "The file of labels stays when the agent ends: `true` or `false`. The same as `agent --oneshot`.",
    ),
    (
        GFD_SLEEP_INTERVAL,
        "Accepted for GPU Feature Discovery: a duration, or `infinite`. The same as `agent --sleep-interval`.",
    ),
    (
        GFD_MACHINE_TYPE_FILE,
        "Accepted for GPU Feature Discovery, and without effect. The same as `agent --machine-type-file`.",
    ),
    (
        LOOK_INTERVAL,
        "Seconds between two looks at all GPUs while nothing happens. The same as `agent --look-interval`.",
    ),
    (
        STARTUP_TAINT,
        "Key of the taint that is taken off the node when it is ready; empty for none. The same as `agent --startup-taint`.",
    ),
    (
        PROOF_PROFILE,
        "How much a proof of the agent tests: `smoke`, `prove`, `burn` or `soak`. The same as `agent --proof-profile`.",
    ),
    (
        PROOF_WHEN_UNPROVEN,
        "GPUs are proved that no proof holds for: `true` or `false`. The same as `agent --proof-when-unproven`.",
    ),
    (
        PROOF_EVERY,
        "How old a proof may become before the GPU is proved again: `12h`, `7d`. The same as `agent --proof-every`.",
    ),
    (
        PROOF_GATES_READINESS,
        "GPUs go to pods only while a proof of them holds: `true` or `false`. The same as `agent --proof-gates-readiness`.",
    ),
    (
        CUDA_FORCE_PTX_JIT,
        "The driver compiles the kernels of a proof from PTX: `1` or `0`. The same as `prove --ptx`.",
    ),
    (
        POD_NAME,
        "Name of the pod that a proof runs in, by the downward API, for its report. The same as `prove --pod-name`.",
    ),
    (
        POD_NAMESPACE,
        "Namespace of that pod. The same as `prove --pod-namespace`.",
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
