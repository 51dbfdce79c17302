//! What stands above the file: command line and environment.

use std::path::PathBuf;

use super::{
    Config, DeviceDiscovery, DeviceIdStrategy, DeviceListStrategy, Interval, MigStrategy, SharingPolicy,
};

/// Settings that were asked for outside of the file, each for the field of the same name; `None` leaves the file's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    missing_docs,
    reason = "each is documented where it goes, in `Flags` and what it holds"
)]
pub struct Overrides {
    pub mig_strategy: Option<MigStrategy>,
    pub fail_on_init_error: Option<bool>,
    pub mps_root: Option<PathBuf>,
    pub driver_root: Option<PathBuf>,
    pub dev_root: Option<PathBuf>,
    pub gdrcopy: Option<bool>,
    pub gds: Option<bool>,
    pub mofed: Option<bool>,
    pub use_node_feature_api: Option<bool>,
    pub device_discovery: Option<DeviceDiscovery>,
    pub pass_device_specs: Option<bool>,
    pub device_list_strategies: Option<Vec<DeviceListStrategy>>,
    pub device_id_strategy: Option<DeviceIdStrategy>,
    pub cdi_annotation_prefix: Option<String>,
    pub cdi_hook_path: Option<PathBuf>,
    pub container_driver_root: Option<PathBuf>,
    pub sharing_policy: Option<SharingPolicy>,
    pub oneshot: Option<bool>,
    pub no_timestamp: Option<bool>,
    pub sleep_interval: Option<Interval>,
    pub output_file: Option<PathBuf>,
    pub machine_type_file: Option<PathBuf>,
    pub imex_channels: Option<Vec<u32>>,
    pub imex_required: Option<bool>,
}

/// Destructured without `..`, so that a new setting that goes nowhere doesn't compile.
macro_rules! each {
    ($overrides:expr, $each:ident: $($field:ident),* $(,)?) => {
        let Overrides { $($field),* } = $overrides;
        $( $each!($field); )*
    };
}

impl Overrides {
    /// These, and where they say nothing the `lower` ones: the command line's over the environment's.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        let mut both = lower;
        macro_rules! over {
            ($field:ident) => {
                if $field.is_some() {
                    both.$field = $field;
                }
            };
        }
        each!(
            self, over: mig_strategy, fail_on_init_error, mps_root, driver_root, dev_root, gdrcopy, gds, mofed,
            use_node_feature_api, device_discovery, pass_device_specs, device_list_strategies, device_id_strategy,
            cdi_annotation_prefix, cdi_hook_path, container_driver_root, sharing_policy, oneshot, no_timestamp,
            sleep_interval, output_file, machine_type_file, imex_channels, imex_required,
        );
        both
    }

    /// Puts them into a configuration.
    pub(super) fn apply(&self, config: &mut Config) {
        fn put<T: Clone>(value: Option<&T>, to: &mut T) {
            if let Some(value) = value {
                to.clone_from(value);
            }
        }
        fn set<T: Clone>(value: Option<&T>, to: &mut Option<T>) {
            if value.is_some() {
                *to = value.cloned();
            }
        }
        let Self {
            mig_strategy,
            fail_on_init_error,
            mps_root,
            driver_root,
            dev_root,
            gdrcopy,
            gds,
            mofed,
            use_node_feature_api,
            device_discovery,
            pass_device_specs,
            device_list_strategies,
            device_id_strategy,
            cdi_annotation_prefix,
            cdi_hook_path,
            container_driver_root,
            sharing_policy,
            oneshot,
            no_timestamp,
            sleep_interval,
            output_file,
            machine_type_file,
            imex_channels,
            imex_required,
        } = self;
        let flags = &mut config.flags;
        put(mig_strategy.as_ref(), &mut flags.mig_strategy);
        put(fail_on_init_error.as_ref(), &mut flags.fail_on_init_error);
        set(mps_root.as_ref(), &mut flags.mps_root);
        set(driver_root.as_ref(), &mut flags.driver_root);
        set(dev_root.as_ref(), &mut flags.dev_root);
        put(gdrcopy.as_ref(), &mut flags.gdrcopy);
        put(gds.as_ref(), &mut flags.gds);
        put(mofed.as_ref(), &mut flags.mofed);
        set(use_node_feature_api.as_ref(), &mut flags.use_node_feature_api);
        put(device_discovery.as_ref(), &mut flags.device_discovery);
        let plugin = &mut flags.plugin;
        put(pass_device_specs.as_ref(), &mut plugin.pass_device_specs);
        put(
            device_list_strategies.as_ref(),
            &mut plugin.device_list_strategies,
        );
        put(device_id_strategy.as_ref(), &mut plugin.device_id_strategy);
        put(cdi_annotation_prefix.as_ref(), &mut plugin.cdi_annotation_prefix);
        set(cdi_hook_path.as_ref(), &mut plugin.cdi_hook_path);
        put(container_driver_root.as_ref(), &mut plugin.container_driver_root);
        put(sharing_policy.as_ref(), &mut plugin.sharing_policy);
        let gfd = &mut flags.gfd;
        put(oneshot.as_ref(), &mut gfd.oneshot);
        put(no_timestamp.as_ref(), &mut gfd.no_timestamp);
        put(sleep_interval.as_ref(), &mut gfd.sleep_interval);
        set(output_file.as_ref(), &mut gfd.output_file);
        put(machine_type_file.as_ref(), &mut gfd.machine_type_file);
        put(imex_channels.as_ref(), &mut config.imex.channels);
        put(imex_required.as_ref(), &mut config.imex.required);
    }
}
