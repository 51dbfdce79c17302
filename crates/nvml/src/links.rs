//! How pairs of GPUs are connected.

use pitcrew_core::Reading;
use pitcrew_core::inventory::{Link, PciPath};
use pitcrew_core::pci::PciAddress;

use crate::code::{Answer, Code, reading};
use crate::device::{Device, Remote};
use crate::progress;

/// The far ends of a GPU's active `NVLinks`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FarEnds {
    /// Links to switches; through them every other GPU on switches is reached.
    pub(crate) switches: u32,
    /// Links straight to another device, with their number.
    pub(crate) devices: Vec<(PciAddress, u32)>,
}

/// One GPU for this purpose.
pub(crate) struct End<'l> {
    pub(crate) index: u32,
    pub(crate) address: PciAddress,
    pub(crate) device: Device<'l>,
    pub(crate) links: Answer<FarEnds>,
}

/// Looks at the far ends of a GPU's links. A device at the far end that is none of these GPUs is a switch: old
/// drivers give its PCI address and not its kind.
pub(crate) fn far_ends(device: Device<'_>, gpus: &[PciAddress]) -> Answer<FarEnds> {
    let mut ends = FarEnds::default();
    for link in device.nvlinks()? {
        match device.remote(link) {
            Ok(Remote::Device(address)) if gpus.contains(&address) => {
                match ends.devices.iter_mut().find(|(known, _)| *known == address) {
                    Some((_, count)) => *count += 1,
                    None => ends.devices.push((address, 1)),
                }
            }
            Ok(Remote::Switch | Remote::Device(_)) => ends.switches += 1,
            Err(Code::GPU_IS_LOST) => return Err(Code::GPU_IS_LOST),
            // A link to a processor, or one whose far end can't be told.
            Ok(Remote::Unknown) | Err(_) => {}
        }
    }
    Ok(ends)
}

/// Every pair.
pub(crate) fn links(ends: &[End<'_>]) -> Vec<Link> {
    let mut links = Vec::new();
    for (at, from) in ends.iter().enumerate() {
        progress::about(Some(from.index));
        for to in ends.iter().skip(at + 1) {
            let path: Reading<PciPath> = reading(from.device.path_to(to.device));
            let nvlinks = match (&from.links, &to.links) {
                (Ok(a), Ok(b)) => Reading::Value(between((from.address, a), (to.address, b))),
                (Err(code), _) | (_, Err(code)) => reading(Err(*code)),
            };
            links.push(Link {
                from: from.index,
                to: to.index,
                path,
                nvlinks,
            });
        }
    }
    progress::about(None);
    links
}

/// `NVLinks` between two GPUs: the direct ones, and through switches as many as both have.
fn between((a_at, a): (PciAddress, &FarEnds), (b_at, b): (PciAddress, &FarEnds)) -> u32 {
    let direct = |ends: &FarEnds, to: PciAddress| {
        ends.devices
            .iter()
            .find(|(address, _)| *address == to)
            .map_or(0, |(_, count)| *count)
    };
    // Each end counts the same links; one of them may have failed to say.
    direct(a, b_at).max(direct(b, a_at)) + a.switches.min(b.switches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bus: u8) -> PciAddress {
        PciAddress {
            domain: 0,
            bus,
            device: 0,
            function: 0,
        }
    }

    fn ends(switches: u32, devices: &[(PciAddress, u32)]) -> FarEnds {
        FarEnds {
            switches,
            devices: devices.to_vec(),
        }
    }

    #[test]
    fn through_switches_all_links_of_the_weaker_gpu_reach_the_other() {
        assert_eq!(between((at(1), &ends(18, &[])), (at(2), &ends(18, &[]))), 18);
        assert_eq!(between((at(1), &ends(18, &[])), (at(2), &ends(12, &[]))), 12);
        assert_eq!(between((at(1), &ends(18, &[])), (at(2), &ends(0, &[]))), 0);
    }

    #[test]
    fn direct_links_count_for_the_pair_that_they_join() {
        let first = ends(0, &[(at(2), 4), (at(3), 2)]);
        assert_eq!(between((at(1), &first), (at(2), &ends(0, &[(at(1), 4)]))), 4);
        assert_eq!(between((at(1), &first), (at(3), &ends(0, &[(at(1), 2)]))), 2);
        assert_eq!(between((at(1), &first), (at(4), &ends(0, &[]))), 0);
    }
}
