//! Which devices there are, by the MIG strategy.

use std::collections::{BTreeMap, BTreeSet};

use super::{LeftOut, Plan, PlanError, Whole, called};
use crate::Gpu;
use crate::gpu::MigDevice;
use crate::plugin::config::{Config, DOMAIN, MigStrategy, Remark, named};
use crate::reading::Reading;

/// A GPU as the strategy sees it.
#[derive(Debug)]
struct Cut<'a> {
    gpu: &'a Gpu,
    uuid: &'a str,
    /// MIG devices that can be offered, with their positions; `None` for a GPU without MIG.
    devices: Option<Vec<(u32, &'a MigDevice)>>,
}

/// All devices, in the driver's order.
pub(super) fn devices<'a>(
    usable: &[(&'a Gpu, &'a str)],
    config: &Config,
    plan: &mut Plan,
) -> Result<Vec<Whole<'a>>, PlanError> {
    for (gpu, uuid) in usable {
        for device in gpu.readings.mig_devices.value().into_iter().flatten() {
            plan.mig_parents.insert(device.uuid.clone(), (*uuid).to_owned());
        }
    }
    let strategy = config.flags.mig_strategy;
    let cuts: Vec<Cut<'_>> = usable
        .iter()
        .filter_map(|&(gpu, uuid)| cut(gpu, uuid, strategy, plan))
        .collect();
    if strategy == MigStrategy::Single {
        check_single(&cuts)?;
    }
    remark_unused(&cuts, config, plan);
    let mut all = Vec::new();
    for Cut { gpu, uuid, devices } in cuts {
        let product = gpu.readings.name.value().map_or("", String::as_str);
        let whole_name =
            || named(&config.names.gpus, product).map_or_else(|| format!("{DOMAIN}gpu"), str::to_owned);
        let Some(devices) = devices else {
            all.push(Whole {
                resource: whole_name(),
                uuid,
                gpu,
                gpu_uuid: uuid,
                mig: None,
            });
            continue;
        };
        if devices.is_empty() {
            plan.remarks.push(Remark::new(
                called(gpu),
                "is in MIG mode and has no MIG device that can be offered: nothing of it is; \
                 create some (label `nvidia.com/mig.config`), or turn MIG off",
            ));
        }
        for (at, device) in devices {
            let profile = device.profile.to_string();
            let usual = || match strategy {
                MigStrategy::Mixed => format!("{DOMAIN}{}", device.profile.resource_name()),
                MigStrategy::None | MigStrategy::Single => format!("{DOMAIN}gpu"),
            };
            all.push(Whole {
                resource: named(&config.names.mig, &profile).map_or_else(usual, str::to_owned),
                uuid: &device.uuid,
                gpu,
                gpu_uuid: uuid,
                mig: Some(at),
            });
        }
    }
    Ok(all)
}

/// Tells of names that nothing here gets. One configuration serves many nodes, so that is no error.
fn remark_unused(cuts: &[Cut<'_>], config: &Config, plan: &mut Plan) {
    let whole = cuts.iter().filter(|cut| cut.devices.is_none());
    let products: BTreeSet<String> = whole
        .filter_map(|cut| cut.gpu.readings.name.value().cloned())
        .collect();
    let cut_up = cuts.iter().filter_map(|cut| cut.devices.as_ref()).flatten();
    let profiles: BTreeSet<String> = cut_up.map(|(_, device)| device.profile.to_string()).collect();
    for (what, rules, there) in [
        ("gpus", &config.names.gpus, products),
        ("mig", &config.names.mig, profiles),
    ] {
        for (at, rule) in rules.iter().enumerate() {
            if !there.is_empty() && !there.iter().any(|name| rule.pattern.fits(name)) {
                let there: Vec<&str> = there.iter().map(String::as_str).collect();
                plan.remarks.push(Remark::new(
                    format!("resources.{what}[{at}].pattern"),
                    format!(
                        "is `{}`, which fits nothing on this node: there is {}",
                        rule.pattern,
                        there.join(", ")
                    ),
                ));
            }
        }
    }
}

/// How a GPU is offered; `None` for not at all.
fn cut<'a>(gpu: &'a Gpu, uuid: &'a str, strategy: MigStrategy, plan: &mut Plan) -> Option<Cut<'a>> {
    let whole = Cut {
        gpu,
        uuid,
        devices: None,
    };
    let left_out = |uuid: &str, reason: String| LeftOut {
        gpu_index: gpu.index,
        pci: gpu.pci.address,
        uuid: Some(uuid.to_owned()),
        reason,
    };
    let is_on = match &gpu.readings.mig_mode {
        Reading::Value(mode) => mode.current,
        Reading::NotSupported => false,
        Reading::Failed(_) if strategy == MigStrategy::None => false,
        Reading::Failed(reason) => {
            let reason = format!("whether it is in MIG mode can't be read: {reason}");
            plan.left_out.push(left_out(uuid, reason));
            return None;
        }
    };
    if !is_on {
        return Some(whole);
    }
    if strategy == MigStrategy::None {
        plan.remarks.push(Remark::new(
            called(gpu),
            "is in MIG mode and offered as a whole, as the MIG strategy `none` asks: CUDA can't run on it so; \
             set `flags.migStrategy` to `single` or `mixed`, or turn MIG off",
        ));
        return Some(whole);
    }
    let found = match &gpu.readings.mig_devices {
        Reading::Value(devices) => devices,
        Reading::NotSupported | Reading::Failed(_) => {
            let why = gpu
                .readings
                .mig_devices
                .failure()
                .unwrap_or("the driver doesn't tell them");
            plan.left_out
                .push(left_out(uuid, format!("its MIG devices can't be read: {why}")));
            return None;
        }
    };
    let mut devices = Vec::new();
    let mut seen = BTreeSet::new();
    for (at, device) in (0..).zip(found) {
        let profile = &device.profile;
        let reason = if profile.compute_slices != profile.gpu_slices {
            format!("{profile} is a part of a GPU instance, and only whole ones are offered")
        } else if device.uuid.is_empty() || plan.gpus.contains(&device.uuid) || !seen.insert(&device.uuid) {
            "its UUID is none of its own".to_owned()
        } else {
            devices.push((at, device));
            continue;
        };
        plan.left_out.push(left_out(&device.uuid, reason));
    }
    Some(Cut {
        gpu,
        uuid,
        devices: Some(devices),
    })
}

/// What `single` asks of a node. A node with MIG nowhere on is well: it has whole GPUs.
fn check_single(cuts: &[Cut<'_>]) -> Result<(), PlanError> {
    let (on, off): (Vec<_>, Vec<_>) = cuts.iter().partition(|cut| cut.devices.is_some());
    let called = |cuts: &[&Cut<'_>]| cuts.iter().map(|cut| called(cut.gpu)).collect::<Vec<_>>();
    if on.is_empty() {
        return Ok(());
    }
    if !off.is_empty() {
        return Err(PlanError::MixedModes {
            enabled: called(&on),
            disabled: called(&off),
        });
    }
    let empty = |cut: &&Cut<'_>| cut.devices.as_ref().is_some_and(Vec::is_empty);
    let empty: Vec<_> = on.iter().copied().filter(empty).collect();
    if !empty.is_empty() {
        return Err(PlanError::NoMigDevices { gpus: called(&empty) });
    }
    let mut profiles: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for cut in on {
        for (_, device) in cut.devices.iter().flatten() {
            let gpus = profiles.entry(device.profile.to_string()).or_default();
            let name = super::called(cut.gpu);
            if gpus.last() != Some(&name) {
                gpus.push(name);
            }
        }
    }
    if profiles.len() > 1 {
        return Err(PlanError::SeveralProfiles(profiles));
    }
    Ok(())
}
