//! NVIDIA GPUs on the PCI bus, as the kernel lists them under `/sys`. Reads, never writes; needs no driver.

use std::io;
use std::path::Path;

use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::inventory::DriverReadings;
use pitcrew_core::pci::{NVIDIA_VENDOR_ID, PciAddress, PciFunction};
use pitcrew_core::{Gpu, Inventory};

use crate::error::Error;

/// Base class of display controllers: VGA (0x0300) and 3D (0x0302), what NVIDIA's GPUs are.
const DISPLAY: u32 = 0x03;

/// All NVIDIA GPUs under `root`, by address. None where there is no PCI bus.
pub(crate) fn scan(root: &Path) -> Result<Vec<PciFunction>, Error> {
    let dir = root.join("sys/bus/pci/devices");
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: dir, source }),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| Error::Read {
            path: dir.clone(),
            source,
        })?;
        let name = entry.file_name();
        let Some(address) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        found.extend(gpu(&entry.path(), address)?);
    }
    found.sort_unstable_by_key(|function| function.address);
    Ok(found)
}

/// The function at `path` if it is an NVIDIA GPU.
fn gpu(path: &Path, address: PciAddress) -> Result<Option<PciFunction>, Error> {
    let (Some(vendor_id), Some(class)) = (id(path, "vendor")?, number(path, "class")?) else {
        return Ok(None);
    };
    if vendor_id != NVIDIA_VENDOR_ID || class >> 16 != DISPLAY {
        return Ok(None);
    }
    let (Some(device_id), Some(subsystem_vendor_id), Some(subsystem_device_id)) = (
        id(path, "device")?,
        id(path, "subsystem_vendor")?,
        id(path, "subsystem_device")?,
    ) else {
        return Ok(None);
    };
    Ok(Some(PciFunction {
        address,
        vendor_id,
        device_id,
        subsystem_vendor_id,
        subsystem_device_id,
    }))
}

fn id(path: &Path, file: &'static str) -> Result<Option<u16>, Error> {
    let Some(number) = number(path, file)? else {
        return Ok(None);
    };
    let not_pci = |_| Error::NotPci {
        path: path.to_owned(),
        file,
        text: format!("{number:#x}"),
    };
    u16::try_from(number).map(Some).map_err(not_pci)
}

/// A file such as `0x10de`; `None` where it is gone, as a device that was just taken out.
fn number(path: &Path, file: &'static str) -> Result<Option<u32>, Error> {
    let full = path.join(file);
    let text = match std::fs::read_to_string(&full) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path: full, source }),
    };
    let digits = text
        .trim()
        .strip_prefix("0x")
        .and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let not_pci = || Error::NotPci {
        path: path.to_owned(),
        file,
        text: text.trim().to_owned(),
    };
    digits.map(Some).ok_or_else(not_pci)
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
    }
}
