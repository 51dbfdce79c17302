//! Labels of MIG devices.

use std::collections::BTreeMap;

use super::gpus::name;
use super::{GPU, Labels, Offer, Share, common, value};
use crate::gpu::MigDevice;
use crate::mig::Profile;
use crate::plugin::config::{MigStrategy, named};
use crate::{Gpu, Reading};

const MIB: u64 = 1 << 20;

/// Why the strategy `single` can't offer the MIG devices of a node; in words it is told by the plan of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotSingle {
    /// MIG is on on a GPU that has no MIG devices.
    Empty,
    /// MIG is on on some GPUs only.
    Off,
    /// There is more than one profile.
    Several,
    /// What of MIG is on a GPU can't be read.
    Unread,
}

pub(super) fn is_on(gpu: &Gpu) -> bool {
    gpu.readings.mig_mode.value().is_some_and(|mode| mode.current)
}

/// Whether MIG is on or what is on it should have been readable, and was not.
fn is_unread(gpu: &Gpu) -> bool {
    let devices = is_on(gpu) && gpu.readings.mig_devices.value().is_none();
    devices || gpu.readings.mig_mode.failure().is_some()
}

pub(super) fn label(labels: &mut Labels, gpus: &[&Gpu], offer: &Offer) {
    if gpus.is_empty() {
        return;
    }
    labels.set_some("nvidia.com/mig.capable", capable(gpus));
    match offer.mig {
        MigStrategy::None => {}
        MigStrategy::Single => {
            labels.set("nvidia.com/mig.strategy", "single");
            match single(gpus) {
                Ok(None) => {}
                Ok(Some(kind)) => kind.label(labels, GPU, offer),
                Err(NotSingle::Unread) => unknown(labels),
                Err(_) => invalid(labels, gpus),
            }
        }
        MigStrategy::Mixed => {
            labels.set("nvidia.com/mig.strategy", "mixed");
            // A part of them would be too low a number.
            let unread = gpus.iter().any(|gpu| is_unread(gpu));
            let kinds = if unread { Vec::new() } else { kinds(gpus) };
            for kind in kinds {
                kind.label(
                    labels,
                    &format!("nvidia.com/{}", kind.profile.resource_name()),
                    offer,
                );
            }
        }
    }
}

/// Whether any of them can be cut up; `None` where no one says so and one doesn't say.
fn capable(gpus: &[&Gpu]) -> Option<bool> {
    let mut modes = gpus.iter().map(|gpu| &gpu.readings.mig_mode);
    if modes.clone().any(|mode| !mode.is_absent()) {
        return Some(true);
    }
    modes.all(|mode| *mode == Reading::NotSupported).then_some(false)
}

/// MIG devices of one profile.
pub(super) struct Kind<'a> {
    profile: &'a Profile,
    devices: Vec<(&'a Gpu, &'a MigDevice)>,
}

/// MIG devices by profile.
fn kinds<'a>(gpus: &[&'a Gpu]) -> Vec<Kind<'a>> {
    let mut kinds = BTreeMap::<&Profile, Vec<(&Gpu, &MigDevice)>>::new();
    for gpu in gpus.iter().filter(|gpu| is_on(gpu)) {
        for device in gpu.readings.mig_devices.value().into_iter().flatten() {
            kinds.entry(&device.profile).or_default().push((gpu, device));
        }
    }
    kinds
        .into_iter()
        .map(|(profile, devices)| Kind { profile, devices })
        .collect()
}

/// The one kind of MIG devices that all GPUs are cut into; `None` where MIG is off on all.
pub(super) fn single<'a>(gpus: &[&'a Gpu]) -> Result<Option<Kind<'a>>, NotSingle> {
    if !gpus.iter().any(|gpu| is_on(gpu)) {
        return Ok(None);
    }
    if gpus.iter().any(|gpu| is_unread(gpu)) {
        return Err(NotSingle::Unread);
    }
    if gpus
        .iter()
        .any(|gpu| is_on(gpu) && gpu.readings.mig_devices.value().is_none_or(Vec::is_empty))
    {
        return Err(NotSingle::Empty);
    }
    if !gpus.iter().all(|gpu| is_on(gpu)) {
        return Err(NotSingle::Off);
    }
    let mut kinds = kinds(gpus);
    match kinds.len() {
        0 | 1 => Ok(kinds.pop()),
        _ => Err(NotSingle::Several),
    }
}

/// What is offered can't be told.
fn unknown(labels: &mut Labels) {
    for key in ["product", "count", "replicas", "memory", "sharing-strategy"] {
        labels.0.remove(&format!("{GPU}.{key}"));
    }
}

fn invalid(labels: &mut Labels, gpus: &[&Gpu]) {
    let cut_up = gpus.iter().filter(|gpu| is_on(gpu)).filter_map(|gpu| name(gpu));
    if let Some(model) = common(cut_up) {
        labels.set(format!("{GPU}.product"), value::product(model, "-MIG-INVALID"));
    }
    for key in ["count", "replicas", "memory"] {
        labels.set(format!("{GPU}.{key}"), "0");
    }
    labels.set(format!("{GPU}.sharing-strategy"), "");
}

impl Kind<'_> {
    fn label(&self, labels: &mut Labels, resource: &str, offer: &Offer) {
        let Some(model) = common(self.devices.iter().filter_map(|(gpu, _)| name(gpu))) else {
            return;
        };
        let profile = format!("-MIG-{}", self.profile.to_string().replace('+', "."));
        let own = named(&offer.names.mig, &self.profile.to_string());
        Share::of(own.unwrap_or(resource), offer).label(
            labels,
            resource,
            model,
            &profile,
            self.devices.len(),
        );
        let of_model = || {
            let devices = self.devices.iter().filter(|(gpu, _)| name(gpu) == Some(model));
            devices.map(|(_, device)| *device)
        };
        // What a whole GPU says under this key is not what a MIG device has.
        let memory = of_model().find_map(|device| device.memory_total_bytes.value());
        labels.0.remove(&format!("{resource}.memory"));
        labels.set_some(format!("{resource}.memory"), memory.map(|bytes| bytes / MIB));
        let multiprocessors = of_model().find_map(|device| device.multiprocessors.value());
        labels.set_some(format!("{resource}.multiprocessors"), multiprocessors);
        labels.set(format!("{resource}.slices.gi"), self.profile.gpu_slices);
        labels.set(format!("{resource}.slices.ci"), self.profile.compute_slices);
        if let Some(engines) = of_model().find_map(|device| device.engines.value()) {
            for (key, count) in [
                ("copy", engines.copy),
                ("decoder", engines.decoder),
                ("encoder", engines.encoder),
                ("jpeg", engines.jpeg),
                ("ofa", engines.ofa),
            ] {
                labels.set(format!("{resource}.engines.{key}"), count);
            }
        }
    }
}
