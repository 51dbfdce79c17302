//! What the GPU says of itself: memory errors, XIDs, rows and pages, links.

use super::Found;
use crate::catalog::Class;
use crate::proof::thresholds::Thresholds;
use crate::proof::{Counters, DeviceEvidence, ReasonCode, Verdict};
use crate::xid::{self, Severity};

pub(super) fn of_device(device: &DeviceEvidence, share: bool, thresholds: &Thresholds, found: &mut Found) {
    xids(device, share || device.is_shared(), found);
    memory(&device.before, &device.after, found);
    pcie(&device.before, &device.after, thresholds, found);
    if device.device.ecc == Some(false) {
        // All consumer cards are without; one made for data centres can have it.
        let is_choice = device
            .device
            .card()
            .is_some_and(|card| card.class == Class::Datacentre);
        let verdict = if is_choice { Verdict::Warn } else { Verdict::Pass };
        let text = "ECC: off; nothing but the memory test guards against wrong memory";
        found.add(verdict, ReasonCode::EccOff, text);
    }
}

fn xids(device: &DeviceEvidence, is_shared: bool, found: &mut Found) {
    let mut seen = Vec::new();
    for event in &device.xids {
        if seen.contains(&event.number) {
            continue;
        }
        seen.push(event.number);
        let known = xid::lookup(event.number);
        let what = known.map_or("it isn't in the table", |known| known.name);
        let text = format!("XID {}: {what}", event.number);
        let (verdict, code) = match (event.number, known.map(|known| known.severity)) {
            // They are a program's own mistakes. Beside others it can't be told whose.
            (13 | 31 | 43 | 45, _) if is_shared => (Verdict::Warn, ReasonCode::Xid),
            // The only program is this one.
            (13 | 31 | 43 | 45, _) => (Verdict::ErrorSetup, ReasonCode::OwnXid),
            (92 | 94, _) | (_, Some(Severity::Gpu | Severity::Hardware)) => {
                (Verdict::FailHardware, ReasonCode::Xid)
            }
            (_, Some(Severity::Contained | Severity::Application) | None) => (Verdict::Warn, ReasonCode::Xid),
        };
        found.add(verdict, code, text);
    }
}

/// How much a counter grew; none where it can't be told. One that went back was reset meanwhile.
pub(super) fn growth(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    Some(after?.saturating_sub(before?)).filter(|grown| *grown > 0)
}

fn memory(before: &Counters, after: &Counters, found: &mut Found) {
    if let Some(errors) = growth(before.ecc_uncorrected, after.ecc_uncorrected) {
        let text = format!("{errors} uncorrected memory errors during the run");
        found.add(Verdict::FailHardware, ReasonCode::EccUncorrected, text);
    }
    if let Some(errors) = growth(before.ecc_corrected, after.ecc_corrected) {
        let text = format!("{errors} corrected memory errors during the run");
        found.add(Verdict::Warn, ReasonCode::EccCorrected, text);
    }
    if after.remap_failed == Some(true) {
        let text = "a row of memory could not be remapped: no spare one is left";
        found.add(Verdict::FailHardware, ReasonCode::RemapFailed, text);
    }
    if after.remap_pending == Some(true) || after.retire_pending == Some(true) {
        let text = "bad memory is to be replaced at the next reset, and in use until then";
        found.add(Verdict::Warn, ReasonCode::RemapPending, text);
    }
    let rows = [
        growth(before.remapped_correctable, after.remapped_correctable),
        growth(before.remapped_uncorrectable, after.remapped_uncorrectable),
        growth(before.retired_pages, after.retired_pages),
    ];
    let rows: u64 = rows
        .iter()
        .flatten()
        .fold(0, |sum, rows| sum.saturating_add(*rows));
    if rows > 0 {
        let text = format!("{rows} rows or pages of memory were given up during the run");
        found.add(Verdict::Warn, ReasonCode::RemapPending, text);
    }
}

fn pcie(before: &Counters, after: &Counters, thresholds: &Thresholds, found: &mut Found) {
    if let Some(replays) = growth(before.pcie_replays, after.pcie_replays)
        && replays > thresholds.pcie_replays
    {
        let text = format!("{replays} PCIe packets were sent again");
        found.add(Verdict::Warn, ReasonCode::PcieReplays, text);
    }
}
