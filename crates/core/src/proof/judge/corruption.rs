//! Wrong results: how many, of which kind, where.

use std::collections::BTreeMap;

use super::{Found, some, title_of};
use crate::proof::{Corruption, CorruptionClass, DeviceEvidence, Evidence, ReasonCode, Verdict};

/// Most places that a sentence names.
const NAMED: usize = 4;

pub(super) fn of_device(device: &DeviceEvidence, found: &mut Found) {
    for phase in device.phases.iter().filter(|phase| phase.corruption_count > 0) {
        let of = if phase.verified_outputs > 0 {
            format!("{} results", count(phase.verified_outputs))
        } else {
            format!("{} bytes", count(phase.verified_bytes))
        };
        let text = sentence(&phase.title(), phase.corruption_count, &of, &phase.corruptions);
        found.phase = Some(phase.title());
        found.add(Verdict::FailCorruption, ReasonCode::Corruption, text);
    }
    found.phase = None;
}

pub(super) fn of_peers(evidence: &Evidence, found: &mut Found) {
    for path in evidence.peers.iter().filter(|path| path.corruption_count > 0) {
        let [from, to] = [path.from, path.to].map(|index| title_of(evidence, index));
        let title = format!("copies from {from} to {to}");
        let of = format!("{} bytes", count(path.verified_bytes));
        let text = sentence(&title, path.corruption_count, &of, &path.corruptions);
        // Both ends are suspect.
        for end in [path.from, path.to] {
            found.device = Some(end);
            found.add(Verdict::FailCorruption, ReasonCode::Corruption, text.clone());
        }
        found.device = None;
    }
}

/// E.g. `gemm bf16: 3 wrong in 1.2e13 results: computes wrong again and again, SM 7, bits 0x1000`.
fn sentence(title: &str, wrong: u64, of: &str, corruptions: &[Corruption]) -> String {
    let mut parts = Vec::new();
    parts.extend(most_common(corruptions).map(|class| class.words().to_owned()));
    parts.extend(places("SM", corruptions.iter().filter_map(|found| found.sm)));
    let tiles = corruptions.iter().filter(|found| found.sm.is_none());
    parts.extend(places("tile", tiles.filter_map(|found| found.tile)));
    let offsets = || corruptions.iter().filter_map(|found| found.offset);
    if let (Some(first), Some(last)) = (offsets().min(), offsets().max()) {
        parts.push(if first == last {
            format!("offset {first:#x}")
        } else {
            format!("offsets {first:#x} to {last:#x}")
        });
    }
    let differences = corruptions.iter().filter_map(Corruption::difference);
    let bits = differences.fold(0, |bits, difference| bits | difference.0);
    if bits != 0 {
        parts.push(format!("bits {bits:#x}"));
    }
    let places = if parts.is_empty() {
        String::new()
    } else {
        format!(": {}", parts.join(", "))
    };
    format!("{title}: {wrong} wrong in {of}{places}")
}

/// `SM 7`, or `SM 7, 9 and 12 more`, by how often they are there.
fn places(noun: &str, numbers: impl Iterator<Item = u32>) -> Option<String> {
    let mut counted = BTreeMap::<u32, usize>::new();
    for number in numbers {
        *counted.entry(number).or_default() += 1;
    }
    let mut numbers: Vec<(u32, usize)> = counted.into_iter().collect();
    numbers.sort_by_key(|&(number, times)| (std::cmp::Reverse(times), number));
    let names: Vec<String> = numbers.iter().map(|(number, _)| number.to_string()).collect();
    (!names.is_empty()).then(|| format!("{noun} {}", some(&names, NAMED)))
}

fn most_common(corruptions: &[Corruption]) -> Option<CorruptionClass> {
    let mut counted = BTreeMap::<CorruptionClass, usize>::new();
    for found in corruptions {
        *counted.entry(found.class).or_default() += 1;
    }
    let most = counted.into_iter().max_by_key(|&(_, times)| times);
    most.map(|(class, _)| class)
}

/// `950`, `67108864`, `1.2e13`: exact while it can be read.
pub(super) fn count(number: u64) -> String {
    if number < 100_000_000 {
        return number.to_string();
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits of it are shown")]
    let number = number as f64;
    format!("{number:.1e}")
}
