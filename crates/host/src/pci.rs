//! NVIDIA's functions on the PCI bus, as the kernel lists them under `/sys`. Needs no driver.

use std::io;
use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::labels::VgpuHost;
use pitcrew_core::pci::{NVIDIA_VENDOR_ID, PciAddress, PciFunction};
use pitcrew_core::ports::{FileKind, HostFs};

use crate::facts::PciGpu;
use crate::read;

/// Where the kernel lists the functions.
const DEVICES: &str = "/sys/bus/pci/devices";
/// Base class of display controllers: VGA (0x0300) and 3D (0x0302), what NVIDIA's GPUs are.
const DISPLAY: u32 = 0x03;
/// Other bridges, what NVIDIA's `NVSwitch`es are.
const OTHER_BRIDGE: u32 = 0x0680;

/// `IORESOURCE_MEM` of the kernel's `include/linux/ioport.h`.
const RESOURCE_MEMORY: u64 = 0x0000_0200;
/// `IORESOURCE_UNSET`: a size, and no address yet.
const RESOURCE_UNSET: u64 = 0x2000_0000;
/// Lines of `resource` that are BARs; the expansion ROM and windows of bridges follow.
const BARS: usize = 6;

/// The bus can't be read.
#[derive(Debug, thiserror::Error)]
pub enum PciError {
    /// A file or directory can't be read.
    #[error("`{}` can't be read", .path.display())]
    Read {
        /// As on the host.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of a PCI function holds what it can't hold.
    #[error("`{}` is not a PCI device: `{}` holds `{text}`", .path.display(), .file)]
    NotPci {
        /// Directory of the function, as on the host.
        path: PathBuf,
        /// Name of the file.
        file: &'static str,
        /// What it holds.
        text: String,
    },
}

/// All NVIDIA GPUs, by address. None where there is no PCI bus.
pub fn scan(fs: &dyn HostFs) -> Result<Vec<PciFunction>, PciError> {
    Ok(functions(fs)?
        .gpus
        .into_iter()
        .map(|(function, _)| function)
        .collect())
}

/// NVIDIA's functions that matter.
struct Functions {
    /// GPUs and their class codes, by address.
    gpus: Vec<(PciFunction, u32)>,
    switches: u32,
}

fn functions(fs: &dyn HostFs) -> Result<Functions, PciError> {
    let mut found = Functions {
        gpus: Vec::new(),
        switches: 0,
    };
    let dir = Path::new(DEVICES);
    let names = match fs.list(dir) {
        Ok(names) => names,
        Err(error) if read::is_absent(&error) => return Ok(found),
        Err(source) => {
            return Err(PciError::Read {
                path: dir.to_owned(),
                source,
            });
        }
    };
    for name in names {
        let Ok(address) = name.parse::<PciAddress>() else {
            continue;
        };
        let path = dir.join(&name);
        if id(fs, &path, "vendor")? != Some(NVIDIA_VENDOR_ID) {
            continue;
        }
        let Some(class) = number(fs, &path, "class")? else {
            continue;
        };
        if class >> 8 == OTHER_BRIDGE {
            found.switches += 1;
        } else if class >> 16 == DISPLAY {
            found
                .gpus
                .extend(function(fs, &path, address)?.map(|function| (function, class)));
        }
    }
    found.gpus.sort_unstable_by_key(|(function, _)| function.address);
    Ok(found)
}

/// The function at `path`; `None` for one that was just taken out.
fn function(fs: &dyn HostFs, path: &Path, address: PciAddress) -> Result<Option<PciFunction>, PciError> {
    let (Some(device_id), Some(subsystem_vendor_id), Some(subsystem_device_id)) = (
        id(fs, path, "device")?,
        id(fs, path, "subsystem_vendor")?,
        id(fs, path, "subsystem_device")?,
    ) else {
        return Ok(None);
    };
    Ok(Some(PciFunction {
        address,
        vendor_id: NVIDIA_VENDOR_ID,
        device_id,
        subsystem_vendor_id,
        subsystem_device_id,
    }))
}

fn id(fs: &dyn HostFs, path: &Path, file: &'static str) -> Result<Option<u16>, PciError> {
    let Some(number) = number(fs, path, file)? else {
        return Ok(None);
    };
    let not_pci = |_| PciError::NotPci {
        path: path.to_owned(),
        file,
        text: format!("{number:#x}"),
    };
    u16::try_from(number).map(Some).map_err(not_pci)
}

/// A file such as `0x10de`; `None` where it is gone, as a device that was just taken out.
fn number(fs: &dyn HostFs, path: &Path, file: &'static str) -> Result<Option<u32>, PciError> {
    let full = path.join(file);
    let text = match fs.read(&full) {
        Ok(bytes) => read::lossy(&bytes),
        Err(error) if read::is_absent(&error) => return Ok(None),
        Err(source) => return Err(PciError::Read { path: full, source }),
    };
    let not_pci = || PciError::NotPci {
        path: path.to_owned(),
        file,
        text: text.trim().to_owned(),
    };
    hex(text.trim()).map(Some).ok_or_else(not_pci)
}

/// `0x10de`; no sign.
fn hex(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x")?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// The GPUs with all that the kernel says of them, and the number of `NVSwitch` bridges.
pub(crate) fn gather(fs: &dyn HostFs) -> (Reading<Vec<PciGpu>>, Reading<u32>) {
    match functions(fs) {
        Ok(found) => (
            Reading::Value(
                found
                    .gpus
                    .into_iter()
                    .map(|(function, class)| gpu(fs, function, class))
                    .collect(),
            ),
            Reading::Value(found.switches),
        ),
        Err(error) => {
            let why = match &error {
                PciError::Read { path, source } => read::reason(path, source),
                PciError::NotPci { .. } => error.to_string(),
            };
            (Reading::Failed(why.clone()), Reading::Failed(why))
        }
    }
}

fn gpu(fs: &dyn HostFs, function: PciFunction, class: u32) -> PciGpu {
    let dir = Path::new(DEVICES).join(function.address.to_string());
    let numa_node = match read::line(fs, dir.join("numa_node")) {
        Reading::Value(text) if text == "-1" => Reading::NotSupported,
        Reading::Value(text) => text.parse().map_or_else(
            |_| Reading::Failed(format!("`{text}` is no NUMA node")),
            Reading::Value,
        ),
        absent => absent.map(|_| 0),
    };
    let iommu_group = match link(fs, &dir.join("iommu_group")) {
        Reading::Value(name) => name.parse().map_or_else(
            |_| Reading::Failed(format!("`{name}` is no IOMMU group")),
            Reading::Value,
        ),
        absent => absent.map(|_| 0),
    };
    PciGpu {
        class,
        driver: bound_driver(fs, function.address),
        iommu_group,
        numa_node,
        unassigned_bars: read::text(fs, dir.join("resource")).map(|text| unassigned_bars(&text)),
        is_virtual_function: read::exists(fs, dir.join("physfn")),
        vgpu_host: vgpu_host(fs, &dir.join("config")),
        function,
    }
}

/// The driver of a virtual GPU's host, from the function's configuration space.
fn vgpu_host(fs: &dyn HostFs, path: &Path) -> Reading<VgpuHost> {
    match read::reading(path, fs.read(path)) {
        Reading::Value(config) => match vendor_capability(&config) {
            Ok(capability) => capability
                .and_then(parse_vgpu)
                .map_or(Reading::NotSupported, Reading::Value),
            Err(Unreadable) => Reading::Failed(format!(
                "of `{}` only the first {} bytes can be read: the rest needs root",
                path.display(),
                config.len()
            )),
        },
        absent => absent.map(|_| VgpuHost {
            version: None,
            branch: None,
        }),
    }
}

/// The part of the configuration space that capabilities lie in was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// The first vendor-specific capability in a function's configuration space; `None` where it has none.
///
/// By the PCI specification: bit 4 of the status (6) says that there is a list, whose head is at 0x34; each capability
/// is its id, where the next one is, and for this id its length. The kernel shows all but the first 64 bytes to root
/// alone.
///
/// # Errors
/// [`Unreadable`] where there is a list, and less than its 256 bytes were read.
pub fn vendor_capability(config: &[u8]) -> Result<Option<&[u8]>, Unreadable> {
    const STATUS: usize = 0x06;
    const HAS_LIST: u8 = 0x10;
    const HEAD: usize = 0x34;
    const VENDOR_SPECIFIC: u8 = 0x09;
    const SPACE: usize = 256;
    // Behind the header, on multiples of four: no list has more entries than there is room for.
    const MOST: usize = (SPACE - 0x40) / 4;
    if config.get(STATUS).is_none_or(|status| status & HAS_LIST == 0) {
        return Ok(None);
    }
    let config = config.get(..SPACE).ok_or(Unreadable)?;
    let mut at = usize::from(config[HEAD]);
    for _ in 0..MOST {
        let Some(&[id, next, length]) = config.get(at..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        // A function that was just lost reads as ones all over.
        if at == 0 || id == 0xff {
            return Ok(None);
        }
        if id == VENDOR_SPECIFIC {
            return Ok(config.get(at..at + usize::from(length)));
        }
        at = usize::from(next);
    }
    Ok(None)
}

/// What NVIDIA's vendor-specific capability of a virtual GPU says of its host; `None` for a capability of another kind.
///
/// Bytes 3 and 4 are `VF`; from 5 on lie records: a kind, the record's length, and for the kind 0 ten bytes of version
/// and ten of branch (fact sheet `devices`, section 2.1).
pub fn parse_vgpu(capability: &[u8]) -> Option<VgpuHost> {
    const TEXT: usize = 10;
    if capability.get(3..5)? != b"VF" {
        return None;
    }
    let mut host = VgpuHost {
        version: None,
        branch: None,
    };
    let mut rest = capability.get(5..).unwrap_or_default();
    while let [kind, length, content @ ..] = rest {
        if *kind == 0 {
            host.version = padded(content.get(..TEXT));
            host.branch = padded(content.get(TEXT..2 * TEXT));
            break;
        }
        // A record without a length has no end.
        let length = usize::from(*length);
        rest = if length < 2 {
            &[]
        } else {
            rest.get(length..).unwrap_or_default()
        };
    }
    Some(host)
}

/// Text in a field of fixed size, zeros behind it.
fn padded(field: Option<&[u8]>) -> Option<String> {
    let text = read::lossy(field?);
    let text = text.trim_matches('\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// Name of the kernel driver that a function is bound to; `NotSupported` for none.
pub fn bound_driver(fs: &dyn HostFs, address: PciAddress) -> Reading<String> {
    link(fs, &Path::new(DEVICES).join(address.to_string()).join("driver"))
}

/// The last part of what a link points at.
fn link(fs: &dyn HostFs, path: &Path) -> Reading<String> {
    let kind = read::reading(path, fs.kind(path));
    match kind {
        Reading::Value(FileKind::Link(target)) => match target.file_name() {
            Some(name) => Reading::Value(name.to_string_lossy().into_owned()),
            None => Reading::Failed(format!("`{}` points nowhere", path.display())),
        },
        Reading::Value(_) => Reading::Failed(format!("`{}` is no link", path.display())),
        Reading::NotSupported => Reading::NotSupported,
        Reading::Failed(why) => Reading::Failed(why),
    }
}

/// Numbers of the memory BARs that have a size and no address, from the text of a function's `resource`: one line
/// for each BAR, first address, last address and flags. A GPU with no memory BAR but its registers (0) has lost the
/// window to its memory: that is 1.
///
/// The kernel writes a BAR that it found no room for as start 0 and end size - 1, or as nothing but zeros once it
/// has given up on it.
pub fn unassigned_bars(resource: &str) -> Vec<u8> {
    let mut unassigned = Vec::new();
    let mut large = false;
    for (number, line) in (0_u8..).zip(resource.lines().take(BARS)) {
        let mut values = line.split_ascii_whitespace().map(|word| {
            word.strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        });
        let (Some(Some(start)), Some(Some(end)), Some(Some(flags))) =
            (values.next(), values.next(), values.next())
        else {
            continue;
        };
        if flags & RESOURCE_MEMORY == 0 || end <= start {
            continue;
        }
        large |= number > 0;
        if start == 0 || flags & RESOURCE_UNSET != 0 {
            unassigned.push(number);
        }
    }
    if !large {
        unassigned.push(1);
    }
    unassigned
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GeForce's six BARs, its ROM behind them.
    const ASSIGNED: &str = "\
0x00000000de000000 0x00000000deffffff 0x0000000000040200
0x000000c000000000 0x000000c00fffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x000000c010000000 0x000000c011ffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x000000000000e000 0x000000000000e07f 0x0000000000040101
0x00000000df000000 0x00000000df07ffff 0x0000000000046200
";

    /// Of a real H100, recorded in a virtual machine.
    const H100: &str = "\
0x0000102002000000 0x0000102002ffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000100000000000 0x0000101fffffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000102000000000 0x0000102001ffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000000000000000 0x0000000000000000 0x0000000000000000
";

    #[test]
    fn a_bar_with_an_address_is_assigned_and_ports_do_not_count() {
        assert_eq!(unassigned_bars(ASSIGNED), [0_u8; 0]);
        assert_eq!(unassigned_bars(H100), [0_u8; 0]);
    }

    #[test]
    fn a_bar_with_a_size_and_no_address_is_unassigned() {
        let zero = ASSIGNED.replace(
            "0x000000c000000000 0x000000c00fffffff",
            "0x0000000000000000 0x0000001fffffffff",
        );
        assert_eq!(unassigned_bars(&zero), [1]);
        let unset = ASSIGNED.replace("0x000000000014220c", "0x000000002014220c");
        assert_eq!(unassigned_bars(&unset), [1, 3]);
    }

    #[test]
    fn a_gpu_without_a_window_to_its_memory_has_lost_bar_1() {
        assert_eq!(unassigned_bars(""), [1]);
        let registers = ASSIGNED.lines().next().unwrap();
        assert_eq!(unassigned_bars(registers), [1]);
        assert_eq!(
            unassigned_bars(&"0x0000000000000000 0x0000000000000000 0x0000000000000000\n".repeat(13)),
            [1]
        );
    }

    /// A configuration space with one capability of this id at 0x50, behind one of power management.
    fn config(id: u8, capability: &[u8]) -> Vec<u8> {
        let mut space = vec![0; 256];
        space[0x06] = 0x10;
        space[0x34] = 0x40;
        space[0x40..0x43].copy_from_slice(&[0x01, 0x50, 0x03]);
        let length = u8::try_from(capability.len() + 3).unwrap();
        space[0x50..0x53].copy_from_slice(&[id, 0, length]);
        space[0x53..0x53 + capability.len()].copy_from_slice(capability);
        space
    }

    const VGPU: &[u8] = b"VF\x01\x04ab\x00\x16580.95.02\0r580_00\0\0\0";

    #[test]
    fn a_virtual_gpu_tells_the_driver_of_its_host() {
        let space = config(0x09, VGPU);
        let host = vendor_capability(&space).unwrap().and_then(parse_vgpu).unwrap();
        assert_eq!(host.version.as_deref(), Some("580.95.02"));
        assert_eq!(host.branch.as_deref(), Some("r580_00"));
    }

    #[test]
    fn a_real_gpu_has_no_host() {
        assert_eq!(vendor_capability(&vec![0; 256]), Ok(None));
        assert_eq!(vendor_capability(&config(0x10, VGPU)), Ok(None));
        assert_eq!(vendor_capability(&vec![0xff; 256]), Ok(None));
        let space = config(0x09, b"\x14\x01\x02");
        assert_eq!(vendor_capability(&space).unwrap().and_then(parse_vgpu), None);
    }

    #[test]
    fn a_virtual_gpu_may_not_say_what_its_host_runs() {
        for records in [&b"VF"[..], b"VF\x01\x00", b"VF\x01\x02", b"VF\x01\x09", b"VF\x00"] {
            let space = config(0x09, records);
            let host = vendor_capability(&space).unwrap().and_then(parse_vgpu).unwrap();
            assert_eq!((host.version, host.branch), (None, None), "{records:?}");
        }
    }

    #[test]
    fn a_list_that_runs_in_circles_ends_and_one_that_was_not_read_is_told() {
        let mut space = config(0x10, b"");
        space[0x51] = 0x40;
        assert_eq!(vendor_capability(&space), Ok(None));
        assert_eq!(vendor_capability(&config(0x09, VGPU)[..64]), Err(Unreadable));
        assert_eq!(vendor_capability(&[0; 64]), Ok(None));
        assert_eq!(vendor_capability(&[]), Ok(None));
    }
}
