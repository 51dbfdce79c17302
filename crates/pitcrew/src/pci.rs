//! NVIDIA GPUs on the PCI bus, where no driver can be asked.

use std::path::Path;

use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::inventory::DriverReadings;
use pitcrew_core::pci::PciFunction;
use pitcrew_core::{Gpu, Inventory};
use pitcrew_host::pci::PciError;
use pitcrew_host::{HostRoots, Roots};

use crate::error::Error;

/// All NVIDIA GPUs under `root`, by address. None where there is no PCI bus.
pub(crate) fn scan(root: &Path) -> Result<Vec<PciFunction>, Error> {
    let under = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    pitcrew_host::pci::scan(&HostRoots::new(Roots::under(root))).map_err(|error| match error {
        PciError::Read { path, source } => Error::Read {
            path: under(&path),
            source,
        },
        PciError::NotPci { path, file, text } => Error::NotPci {
            path: under(&path),
            file,
            text,
        },
    })
}

/// What can be said of these GPUs without asking a driver: where they are, and nothing else.
pub(crate) fn inventory(functions: &[PciFunction], reason: &str) -> Inventory {
    let gpus = (0..).zip(functions).map(|(index, &pci)| Gpu {
        index,
        pci,
        readings: GpuReadings::all_failed(reason),
    });
    Inventory {
        driver: DriverReadings::all_failed(reason),
        gpus: gpus.collect(),
        links: Vec::new(),
        silent: Vec::new(),
    }
}
