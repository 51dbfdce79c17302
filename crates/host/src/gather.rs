//! All facts of a node, read once.

use pitcrew_core::Reading;
use pitcrew_core::ports::HostFs;

use crate::facts::Host;
use crate::{cdi, devices, distribution, driver, foreign, kubelet, pci, runtime, security, system, systemd};

impl Host {
    /// Reads everything that this node says of itself. What can't be read is in the facts with its reason.
    pub fn gather(fs: &dyn HostFs) -> Self {
        let system = system::gather(fs);
        let (gpus, nvswitches) = pci::gather(fs);
        let found = distribution::gather(fs);
        let containerd = found
            .as_ref()
            .map_or(Reading::NotSupported, |found| runtime::gather(fs, found));
        let config = containerd
            .value()
            .and_then(|containerd| containerd.config.value());
        let kubelet = kubelet::gather(fs, found.as_ref().and_then(|found| found.settings.value()));
        Self {
            driver: driver::gather(fs, &system.kernel, &system.command_line),
            devices: devices::gather(fs),
            security: security::gather(fs),
            services: systemd::gather(fs),
            cdi: cdi::gather(fs, config.and_then(|config| config.cdi_dirs.as_deref())),
            foreign: foreign::gather(fs, &kubelet.plugin_sockets),
            distribution: found.map_or(Reading::NotSupported, |found| Reading::Value(found.distribution)),
            system,
            gpus,
            nvswitches,
            containerd,
            kubelet,
        }
    }
}
