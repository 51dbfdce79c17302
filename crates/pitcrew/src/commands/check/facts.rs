//! The node that a check judges: this machine, a directory, or an imaginary one.

use std::path::{Path, PathBuf};

use pitcrew_cli::GlobalArgs;
use pitcrew_core::Inventory;
use pitcrew_core::ports::{GpuError, HostFs};
use pitcrew_host::{HostRoots, Roots};

use super::imaginary;
use crate::driver::{self, Seen};
use crate::error::Error;
use crate::view::check::Source;
use crate::view::report::Source as Origin;

/// A node that can be looked at. Nothing of it is read before it is asked for.
pub(in crate::commands) struct Node<'a> {
    pub(super) source: Source,
    /// Its files.
    pub(in crate::commands) fs: Box<dyn HostFs>,
    /// The directory that the files are in; `None` where they are imaginary.
    pub(super) root: Option<PathBuf>,
    scenario: Option<&'a str>,
    global: &'a GlobalArgs,
}

impl<'a> Node<'a> {
    pub(in crate::commands) fn open(
        scenario: Option<&'a str>,
        global: &'a GlobalArgs,
    ) -> Result<Self, Error> {
        let elsewhere = (global.root != Path::new("/")).then(|| global.root.clone());
        let mut source = Source {
            root: elsewhere.as_ref().map(|root| root.display().to_string()),
            ..Source::default()
        };
        let imaginary = match scenario {
            Some(name) => Some(imaginary::worker(name, &mut source)?),
            None => None,
        };
        // With a root given, only the driver's answers are the scenario's.
        let (fs, root): (Box<dyn HostFs>, _) = if let (Some(worker), None) = (imaginary, elsewhere) {
            (worker, None)
        } else {
            let root = global.root.clone();
            (Box::new(HostRoots::new(Roots::under(&root))), Some(root))
        };
        Ok(Self {
            source,
            fs,
            root,
            scenario,
            global,
        })
    }

    /// What the driver says, or why it says nothing.
    pub(in crate::commands) fn gpus(&self) -> Result<Result<Inventory, GpuError>, Error> {
        match driver::open(self.global, self.scenario)?.look() {
            Ok(seen) => Ok(Ok(of_driver(seen))),
            Err(Error::Gpus(fault)) => Ok(Err(fault)),
            // A bus that can't be read is a fact of the report, which goes on without the driver.
            Err(error @ (Error::Read { .. } | Error::NotPci { .. })) => {
                Ok(Err(GpuError::NoDriver(error.to_string())))
            }
            Err(error) => Err(error),
        }
    }
}

/// The GPUs that the driver lists. Those that only the bus has are the host's facts already, and counted as the
/// driver's they would hide that it doesn't know them.
fn of_driver(seen: Seen) -> Inventory {
    let mut inventory = seen.inventory;
    if let Origin::Driver { bus_only, .. } = seen.source {
        inventory.gpus.retain(|gpu| !bus_only.contains(&gpu.pci.address));
    }
    inventory
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_core::pci::{NVIDIA_VENDOR_ID, PciAddress, PciFunction};

    #[test]
    fn a_gpu_that_only_the_bus_has_is_none_that_the_driver_lists() {
        let functions = [1, 2].map(|bus| PciFunction {
            address: PciAddress {
                domain: 0,
                bus,
                device: 0,
                function: 0,
            },
            vendor_id: NVIDIA_VENDOR_ID,
            device_id: 0x2330,
            subsystem_vendor_id: NVIDIA_VENDOR_ID,
            subsystem_device_id: 0,
        });
        let seen = Seen {
            source: Origin::Driver {
                nvml: "libnvidia-ml.so.1".into(),
                bus_only: vec![functions[1].address],
            },
            inventory: crate::pci::inventory(&functions, "as a test wants it"),
        };
        let listed: Vec<_> = of_driver(seen).gpus.iter().map(|gpu| gpu.pci.address).collect();
        assert_eq!(listed, [functions[0].address]);
    }
}
