//! What stands above a configuration of the device plugin: flags, and the variables of NVIDIA's components.

use pitcrew_cli::{
    AgentRunArgs, DeviceDiscovery as AskedDiscovery, DeviceIds, DeviceLists, MigStrategy as AskedMig,
    SharedAllocation as AskedPolicy,
};
use pitcrew_core::plugin::config::{
    DeviceDiscovery, DeviceIdStrategy, DeviceListStrategy, MigStrategy, Overrides, SharingPolicy,
};

use crate::error::Error;

/// Flags and variables as they are put above a file.
pub(super) fn of(args: &AgentRunArgs) -> Result<Overrides, Error> {
    let sleep_interval = args.sleep_interval.as_deref().map(str::parse).transpose();
    Ok(Overrides {
        mig_strategy: args.mig_strategy.map(|strategy| match strategy {
            AskedMig::None => MigStrategy::None,
            AskedMig::Single => MigStrategy::Single,
            AskedMig::Mixed => MigStrategy::Mixed,
        }),
        fail_on_init_error: args.fail_on_init_error,
        mps_root: args.mps_root.clone(),
        driver_root: args.driver_root.clone(),
        dev_root: args.dev_root.clone(),
        gdrcopy: args.gdrcopy_enabled,
        gds: args.gds_enabled,
        mofed: args.mofed_enabled,
        use_node_feature_api: args.use_node_feature_api,
        pass_device_specs: args.pass_device_specs,
        device_list_strategies: (!args.device_list_strategy.is_empty()).then(|| {
            let lists = args.device_list_strategy.iter();
            lists
                .map(|list| match list {
                    DeviceLists::Envvar => DeviceListStrategy::Envvar,
                    DeviceLists::VolumeMounts => DeviceListStrategy::VolumeMounts,
                    DeviceLists::CdiAnnotations => DeviceListStrategy::CdiAnnotations,
                    DeviceLists::CdiCri => DeviceListStrategy::CdiCri,
                })
                .collect()
        }),
        device_id_strategy: args.device_id_strategy.map(|ids| match ids {
            DeviceIds::Uuid => DeviceIdStrategy::Uuid,
            DeviceIds::Index => DeviceIdStrategy::Index,
        }),
        cdi_annotation_prefix: args.cdi_annotation_prefix.clone(),
        sharing_policy: args.shared_devices_allocation_policy.map(|policy| match policy {
            AskedPolicy::Distributed => SharingPolicy::Distributed,
            AskedPolicy::Packed => SharingPolicy::Packed,
        }),
        device_discovery: args.device_discovery_strategy.map(|strategy| match strategy {
            AskedDiscovery::Auto => DeviceDiscovery::Auto,
            AskedDiscovery::Nvml => DeviceDiscovery::Nvml,
            AskedDiscovery::Tegra => DeviceDiscovery::Tegra,
            AskedDiscovery::Vfio => DeviceDiscovery::Vfio,
        }),
        cdi_hook_path: args.nvidia_cdi_hook_path.clone(),
        container_driver_root: args.driver_root_ctr_path.clone(),
        oneshot: args.oneshot,
        no_timestamp: args.no_timestamp,
        sleep_interval: sleep_interval.map_err(Error::SleepInterval)?,
        output_file: args.output_file.clone(),
        machine_type_file: args.machine_type_file.clone(),
        imex_channels: (!args.imex_channel_ids.is_empty()).then(|| args.imex_channel_ids.clone()),
        imex_required: args.imex_required,
    })
}

/// What was asked for and has no effect here, one sentence each.
pub(super) fn remarks(args: &AgentRunArgs) -> Vec<String> {
    let mut remarks = Vec::new();
    if matches!(
        args.device_discovery_strategy,
        Some(AskedDiscovery::Tegra | AskedDiscovery::Vfio)
    ) {
        let text =
            "GPUs are found by the driver's library alone: `--device-discovery-strategy` has no effect";
        remarks.push(text.to_owned());
    }
    if args.imex_required == Some(true) {
        let text = "whether this node has its channels of IMEX is not looked at yet: `--imex-required` has no effect";
        remarks.push(text.to_owned());
    }
    if args.machine_type_file.is_some() {
        let text = "the machine's name is read from the node itself: `--machine-type-file` has no effect";
        remarks.push(text.to_owned());
    }
    remarks
}
