//! What stands above a configuration of the device plugin: flags, and the variables of NVIDIA's components.

use pitcrew_cli::{
    AgentRunArgs, DeviceIds, DeviceLists, MigStrategy as AskedMig, SharedAllocation as AskedPolicy,
};
use pitcrew_core::plugin::config::{
    DeviceIdStrategy, DeviceListStrategy, MigStrategy, Overrides, SharingPolicy,
};

/// Flags and variables as they are put above a file.
pub(super) fn of(args: &AgentRunArgs) -> Overrides {
    Overrides {
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
        no_timestamp: args.no_timestamp,
        ..Overrides::default()
    }
}
