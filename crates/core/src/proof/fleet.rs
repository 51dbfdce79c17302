//! Reports of several nodes against each other: which GPU is slower than its equals?
//!
//! Equals are GPUs of one card, memory, power limit, MIG profile and branch of the driver that ran the same kernels. They
//! differ by several per cent although nothing is wrong with them, so a fixed border would cry wolf. One is told that is
//! far from the median in units of the usual distance (robust z, by the median of absolute deviations) *and* by more than
//! 7 % of it. Source: fact sheet `prove`, section 6.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{DeviceEvidence, Format, PhaseKind, Report, Timestamp, Unit, Verdict};

/// Value of the field `schema`.
pub const FLEET_SCHEMA: &str = "pitcrew.dev/proof-fleet/v1";

/// Robust z from which on a GPU stands out.
const FAR: f64 = 3.5;
/// Part of the median by which it must be off, too.
const OFF: f64 = 0.07;
/// Fewest GPUs that are a group: with two nobody knows which of them is odd.
const FEWEST: usize = 3;

/// Several reports, compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fleet {
    /// [`FLEET_SCHEMA`].
    pub schema: &'static str,
    /// The gravest verdict of all reports; at least a warning where a GPU stands out or has become slower.
    pub verdict: Verdict,
    /// The GPUs, each with its newest report.
    pub members: Vec<Member>,
    /// Equals, and how they compare.
    pub groups: Vec<Group>,
    /// What stands out, the farthest first.
    pub outliers: Vec<Outlier>,
    /// GPUs that have become slower since an older report of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drifts: Vec<Drift>,
    /// Slots that are slow on more than one node: heat or power, rather than the cards in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Slot>,
    /// Runs that tested no GPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub empty: Vec<EmptyRun>,
}

/// One GPU or MIG device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Member {
    /// Its node.
    pub node: String,
    /// Index on the node, and MIG profile.
    pub title: String,
    /// `GPU-` or `MIG-` and a UUID.
    pub uuid: String,
    /// PCI address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// Product name.
    pub name: String,
    /// When it was tested.
    pub started: Timestamp,
    /// The verdict on it.
    pub verdict: Verdict,
    /// Others used it too: its figures are not compared.
    pub shared: bool,
}

impl Member {
    /// Where it is: `gpu-3 GPU 2`.
    pub fn place(&self) -> String {
        format!("{} {}", self.node, self.title)
    }
}

/// A run that tested no GPU.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmptyRun {
    /// Its node.
    pub node: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// The gravest reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// GPUs that should be equal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// What makes them equal, in words.
    pub title: String,
    /// Their indices in [`Fleet::members`].
    pub members: Vec<usize>,
    /// What was compared.
    pub measures: Vec<Measure>,
}

/// One quantity over a group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measure {
    /// What it is, e.g. `gemm bf16 (wgmma)`.
    pub title: String,
    /// Its unit.
    pub unit: &'static str,
    /// The median.
    pub median: f64,
    /// Median of the distances from it.
    pub mad: f64,
    /// The values, lowest first.
    pub values: Vec<Value>,
}

/// One GPU's value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Value {
    /// Index in [`Fleet::members`].
    pub member: usize,
    /// The value.
    pub value: f64,
    /// How far it is from the median, as a part of it: -0.1 is a tenth less.
    pub off: f64,
    /// How far it is in units of the usual distance; absent where there is none, or in a group that is too small.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub z: Option<f64>,
    /// It stands out.
    pub outlier: bool,
}

/// A GPU that stands out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outlier {
    /// Index in [`Fleet::members`].
    pub member: usize,
    /// In what, e.g. `gemm bf16 (wgmma)`.
    pub measure: String,
    /// How far it is from the median, as a part of it.
    pub off: f64,
    /// In a sentence.
    pub text: String,
}

/// A GPU that has become slower.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// Index in [`Fleet::members`].
    pub member: usize,
    /// In what.
    pub measure: String,
    /// When the older report was made.
    pub since: Timestamp,
    /// By how much, as a part of what it was.
    pub off: f64,
}

/// A slot that is slow on several nodes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slot {
    /// Its PCI address.
    pub pci_address: String,
    /// The nodes.
    pub nodes: Vec<String>,
}

/// Which way is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worse {
    Lower,
    Higher,
}

/// A quantity of one GPU that can be compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: Option<PhaseKind>,
    format: Option<Format>,
    variant: Option<String>,
    what: &'static str,
    unit: &'static str,
    worse: Worse,
}

impl Key {
    fn title(&self) -> String {
        let mut title = String::new();
        if let Some(kind) = self.kind {
            title.push_str(kind.name());
        }
        if let Some(format) = self.format {
            title = format!("{title} {format}");
        }
        if let Some(variant) = &self.variant {
            title = format!("{title} ({variant})");
        }
        if !self.what.is_empty() {
            let gap = if title.is_empty() { "" } else { " " };
            title = format!("{title}{gap}{}", self.what);
        }
        title
    }
}

/// Compares reports. Of several that tell of one GPU the newest counts, and the one before it is its history.
pub fn compare(reports: &[Report]) -> Fleet {
    let mut newest: BTreeMap<&str, Vec<(&Report, usize)>> = BTreeMap::new();
    let mut empty = Vec::new();
    for report in reports {
        if report.evidence.devices.is_empty() {
            empty.push(EmptyRun {
                node: report.evidence.node.name.clone(),
                verdict: report.verdict,
                reason: report.judgement.reasons.first().map(|reason| reason.text.clone()),
            });
        }
        for (index, device) in report.evidence.devices.iter().enumerate() {
            newest
                .entry(&device.device.uuid)
                .or_default()
                .push((report, index));
        }
    }
    let mut runs: Vec<Vec<(&Report, usize)>> = newest.into_values().collect();
    for of_one in &mut runs {
        of_one.sort_by_key(|(report, _)| std::cmp::Reverse(report.evidence.run.started));
    }
    runs.sort_by_key(|of_one| {
        of_one
            .first()
            .map(|(report, index)| (&report.evidence.node.name, *index))
    });
    let members: Vec<Member> = runs
        .iter()
        .filter_map(|of_one| of_one.first())
        .map(|(report, index)| member(report, *index))
        .collect();
    let groups = groups(&runs, &members);
    let outliers = outliers(&groups, &members);
    let drifts = drifts(&runs);
    let verdict = reports.iter().map(|report| report.verdict).max();
    let is_odd = !(outliers.is_empty() && drifts.is_empty());
    let least = if is_odd { Verdict::Warn } else { Verdict::Pass };
    Fleet {
        schema: FLEET_SCHEMA,
        verdict: verdict.unwrap_or(Verdict::ErrorSetup).max(least),
        drifts,
        slots: slots(&outliers, &members),
        members,
        groups,
        outliers,
        empty,
    }
}

fn member(report: &Report, index: usize) -> Member {
    let evidence = &report.evidence.devices[index];
    Member {
        node: report.evidence.node.name.clone(),
        title: evidence.device.title(),
        uuid: evidence.device.uuid.clone(),
        pci_address: evidence.device.pci_address.clone(),
        name: evidence.device.name.clone(),
        started: report.evidence.run.started,
        verdict: report
            .judgement
            .verdicts
            .get(index)
            .copied()
            .unwrap_or(report.verdict),
        shared: evidence.is_shared(),
    }
}

/// What makes GPUs equal, in words that are the same for equals.
fn equality(report: &Report, device: &DeviceEvidence) -> String {
    let device = &device.device;
    let mut parts = vec![device.name.clone()];
    if let Some(id) = device.pci_device_id {
        parts.push(format!("{id:#06x}"));
    }
    if let Some(memory) = device.memory_total_bytes {
        parts.push(format!("{} GiB", (memory + (1 << 29)) >> 30));
    }
    if let Some(limit) = device.power_limit_w {
        parts.push(format!("{limit:.0} W"));
    }
    if let Some(mig) = &device.mig {
        parts.push(format!("MIG {}", mig.profile));
    }
    if let Some(branch) = report.evidence.driver.branch() {
        parts.push(format!("driver {branch}"));
    }
    parts.join(", ")
}

fn groups(runs: &[Vec<(&Report, usize)>], members: &[Member]) -> Vec<Group> {
    let mut grouped: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, of_one) in runs.iter().enumerate() {
        if let Some((report, device)) = of_one.first() {
            let title = equality(report, &report.evidence.devices[*device]);
            grouped.entry(title).or_default().push(index);
        }
    }
    grouped
        .into_iter()
        .map(|(title, indices)| {
            let mut values: BTreeMap<Key, Vec<(usize, f64)>> = BTreeMap::new();
            for &index in indices.iter().filter(|&&index| !members[index].shared) {
                let Some((report, device)) = runs[index].first() else {
                    continue;
                };
                for (key, value) in quantities(&report.evidence.devices[*device]) {
                    values.entry(key).or_default().push((index, value));
                }
            }
            let measures = values
                .into_iter()
                .map(|(key, values)| measure(&key, values))
                .collect();
            Group {
                title,
                members: indices,
                measures,
            }
        })
        .collect()
}

/// All that can be compared of one GPU.
fn quantities(device: &DeviceEvidence) -> Vec<(Key, f64)> {
    let mut found = Vec::new();
    for phase in device.phases.iter().filter(|phase| phase.outcome.has_results()) {
        let key = |what, unit, worse| Key {
            kind: Some(phase.kind),
            format: phase.format,
            variant: phase.variant.clone(),
            what,
            unit,
            worse,
        };
        if let Some(rate) = phase.rate {
            let unit = match rate.unit {
                Unit::Tflops => "TFLOP/s",
                Unit::Gbs => "GB/s",
            };
            found.push((key("", unit, Worse::Lower), rate.p50));
        }
        if phase.kind == PhaseKind::Power
            && let Some(power) = phase.power_w
        {
            found.push((key("draw", "W", Worse::Lower), power));
        }
    }
    let hottest = device
        .samples
        .iter()
        .filter_map(|sample| sample.temperature_c)
        .max_by(f64::total_cmp);
    if let Some(hottest) = hottest {
        let key = Key {
            kind: None,
            format: None,
            variant: None,
            what: "highest temperature",
            unit: "°C",
            worse: Worse::Higher,
        };
        found.push((key, hottest));
    }
    found.retain(|(_, value)| value.is_finite());
    found
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted {
        [] => f64::NAN,
        _ if sorted.len() % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

fn measure(key: &Key, mut values: Vec<(usize, f64)>) -> Measure {
    values.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let sorted: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    let middle = median(&sorted);
    let mut distances: Vec<f64> = sorted.iter().map(|value| (value - middle).abs()).collect();
    distances.sort_by(f64::total_cmp);
    let mad = median(&distances);
    let is_group = values.len() >= FEWEST;
    let judged = values.iter().map(|&(member, value)| {
        let off = if middle > 0.0 {
            (value - middle) / middle
        } else {
            0.0
        };
        // 1.4826 makes it the standard deviation where values are normally distributed.
        let z = (is_group && mad > 0.0).then(|| (value - middle) / (1.4826 * mad));
        let is_worse = match key.worse {
            Worse::Lower => off < -OFF,
            Worse::Higher => off > OFF,
        };
        // Where more than half are the same, any distance is unusual.
        let outlier = is_group && is_worse && z.is_none_or(|z| z.abs() > FAR);
        Value {
            member,
            value,
            off,
            z,
            outlier,
        }
    });
    Measure {
        title: key.title(),
        unit: key.unit,
        median: middle,
        mad,
        values: judged.collect(),
    }
}

fn outliers(groups: &[Group], members: &[Member]) -> Vec<Outlier> {
    let mut found = Vec::new();
    for group in groups {
        for measure in &group.measures {
            for value in measure.values.iter().filter(|value| value.outlier) {
                let text = format!(
                    "{}: {} is {:.0} {}, {:+.0} % from the median of {} equals ({:.0})",
                    members[value.member].place(),
                    measure.title,
                    value.value,
                    measure.unit,
                    value.off * 100.0,
                    measure.values.len(),
                    measure.median,
                );
                found.push(Outlier {
                    member: value.member,
                    measure: measure.title.clone(),
                    off: value.off,
                    text,
                });
            }
        }
    }
    found.sort_by(|a, b| b.off.abs().total_cmp(&a.off.abs()));
    found
}

fn slots(outliers: &[Outlier], members: &[Member]) -> Vec<Slot> {
    let mut by_slot: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for outlier in outliers {
        let member = &members[outlier.member];
        let Some(slot) = &member.pci_address else { continue };
        let nodes = by_slot.entry(slot).or_default();
        if !nodes.contains(&member.node) {
            nodes.push(member.node.clone());
        }
    }
    let several = by_slot.into_iter().filter(|(_, nodes)| nodes.len() > 1);
    several
        .map(|(slot, nodes)| Slot {
            pci_address: slot.to_owned(),
            nodes,
        })
        .collect()
}

fn drifts(runs: &[Vec<(&Report, usize)>]) -> Vec<Drift> {
    let mut found = Vec::new();
    for (member, of_one) in runs.iter().enumerate() {
        let [(now, now_index), (before, before_index), ..] = of_one.as_slice() else {
            continue;
        };
        let (now, old) = (
            &now.evidence.devices[*now_index],
            &before.evidence.devices[*before_index],
        );
        if now.is_shared() || old.is_shared() {
            continue;
        }
        let old: BTreeMap<Key, f64> = quantities(old).into_iter().collect();
        for (key, value) in quantities(now) {
            let Some(&was) = old.get(&key).filter(|was| **was > 0.0) else {
                continue;
            };
            let off = value / was - 1.0;
            if key.worse == Worse::Lower && off < -OFF {
                found.push(Drift {
                    member,
                    measure: key.title(),
                    since: before.evidence.run.started,
                    off,
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
