//! Labels of whole GPUs.

use super::{CLASS, Facts, GPU, Labels, MODEL, Offer, Share, common, mig, value};
use crate::Gpu;
use crate::catalog::ComputeCapability;
use crate::gpu::Fabric;
use crate::plugin::Sharing;
use crate::plugin::config::named;

const MIB: u64 = 1 << 20;

/// Class codes of the PCI bus: a display controller for VGA, and one for 3D alone.
const VGA: u32 = 0x0300;
const THREE_D: u32 = 0x0302;

pub(super) fn label(labels: &mut Labels, gpus: &[&Gpu], facts: &Facts<'_>, offer: &Offer) {
    // As in the reference, those that are offered come before those that are cut up.
    let offered = common(
        gpus.iter()
            .filter(|gpu| !mig::is_on(gpu))
            .filter_map(|gpu| name(gpu)),
    );
    let Some(model) = offered.or_else(|| common(gpus.iter().filter_map(|gpu| name(gpu)))) else {
        return;
    };
    models(labels, gpus);
    let of_model: Vec<&Gpu> = gpus
        .iter()
        .copied()
        .filter(|gpu| name(gpu) == Some(model))
        .collect();
    // Whole GPUs say how they are shared, for those of their model too that are cut up.
    let whole = of_model.iter().any(|gpu| !mig::is_on(gpu));
    let share = if whole {
        Share::of(named(&offer.names.gpus, model).unwrap_or(GPU), offer)
    } else {
        Share::not_offered()
    };
    share.label(labels, GPU, model, "", of_model.len());
    // Cards of one name can differ (the RTX 3060 has 8 or 12 GB): what any of them has.
    let memory = of_model
        .iter()
        .filter_map(|gpu| gpu.readings.memory_total_bytes.value())
        .min();
    labels.set_some(
        format!("{GPU}.memory"),
        memory.map(|bytes| bytes / MIB).filter(|mib| *mib > 0),
    );
    let capability = of_model
        .iter()
        .find_map(|gpu| gpu.readings.compute_capability.value());
    if let Some(capability) = capability.filter(|capability| capability.major > 0) {
        labels.set(format!("{GPU}.family"), family(*capability));
        labels.set(format!("{GPU}.compute.major"), capability.major);
        labels.set(format!("{GPU}.compute.minor"), capability.minor);
    }
    let card = of_model.iter().find_map(|gpu| gpu.card());
    labels.set_some(CLASS, card.map(|card| card.class));
    labels.set(format!("{GPU}.mode"), mode(gpus, facts));
    labels.set_some("nvidia.com/gpu.clique", clique(gpus));
    // The reference writes nothing at all for MPS on a GPU that is cut up, which it can't share so.
    let mps = offer.sharing == Some(Sharing::Mps) && !gpus.iter().any(|gpu| mig::is_on(gpu));
    labels.set("nvidia.com/mps.capable", mps);
}

pub(super) fn name(gpu: &Gpu) -> Option<&str> {
    gpu.readings.name.value().map(String::as_str)
}

/// A label for each model. Names that differ only in what a label can't carry are one.
fn models(labels: &mut Labels, gpus: &[&Gpu]) {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    let prefix = MODEL.split_once('/').map_or(MODEL, |(_, name)| name);
    for product in gpus.iter().filter_map(|gpu| value::in_key(prefix, name(gpu)?)) {
        *counts.entry(product).or_default() += 1;
    }
    for (product, count) in counts {
        labels.set(format!("{MODEL}{product}"), count);
    }
}

/// The reference's names of architectures.
fn family(capability: ComputeCapability) -> &'static str {
    match (capability.major, capability.minor) {
        (1, _) => "tesla",
        (2, _) => "fermi",
        (3, _) => "kepler",
        (5, _) => "maxwell",
        (6, _) => "pascal",
        (7, ..5) => "volta",
        (7, _) => "turing",
        (8, ..9) => "ampere",
        (8, _) => "ada-lovelace",
        (9, _) => "hopper",
        (10 | 12, _) => "blackwell",
        (13, _) => "rubin",
        _ => "undefined",
    }
}

/// Whether the GPUs can drive displays: what all of them are, else unknown.
fn mode(gpus: &[&Gpu], facts: &Facts<'_>) -> &'static str {
    let mut classes = gpus
        .iter()
        .map(|gpu| facts.pci.get(&gpu.pci.address).map(|class| class >> 8));
    let first = classes.next().flatten();
    if !classes.all(|class| class == first) {
        return "unknown";
    }
    match first {
        Some(VGA) => "graphics",
        Some(THREE_D) => "compute",
        _ => "unknown",
    }
}

/// Cluster and clique, where all GPUs that are registered at a fabric agree on them.
fn clique(gpus: &[&Gpu]) -> Option<String> {
    let registered = |fabric: &&Fabric| {
        let uuid = fabric.cluster_uuid.as_deref().unwrap_or_default();
        fabric.is_registered() && uuid.chars().any(|c| c != '0' && c != '-')
    };
    let fabrics = gpus.iter().filter_map(|gpu| gpu.readings.fabric.value());
    let mut cliques = fabrics
        .filter(registered)
        .map(|fabric| Some((fabric.cluster_uuid.as_deref()?, fabric.clique?)));
    let first = cliques.next().flatten()?;
    let same = cliques.all(|clique| clique == Some(first));
    same.then(|| format!("{}.{}", first.0, first.1))
}
