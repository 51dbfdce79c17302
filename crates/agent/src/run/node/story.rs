//! What is told of the node, in words.

use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::{Inventory, Reading};
use pitcrew_host::Host;
use pitcrew_host::facts::DistributionKind;

use super::Node;
use crate::health::Change;
use crate::notice::{Level, Notice, Topic};

impl Node {
    pub(super) fn tell(&mut self, level: Level, topic: Topic, text: String) {
        self.notices.push(Notice { topic, level, text });
    }

    pub(super) fn tell_health(&mut self, changes: Vec<Change>) {
        // What is the driver's is told once, not for each GPU.
        if matches!(self.gpus, Some(Err(_))) || self.release.is_some() {
            return;
        }
        for change in changes {
            match change {
                Change::Sick { uuid, reason } => {
                    self.tell(Level::Error, Topic::Health, format!("{uuid} is sick: {reason}"));
                }
                Change::Well { uuid } => {
                    self.tell(Level::Info, Topic::Health, format!("{uuid} is well again"));
                }
            }
        }
    }

    /// Tells what GPUs there are where that is news.
    pub(super) fn tell_gpus(&mut self, inventory: &Inventory) {
        let before = match &self.gpus {
            Some(Ok(before)) => Some(names(before)),
            _ => None,
        };
        let now = names(inventory);
        if before.as_ref() != Some(&now) {
            let version = inventory
                .driver
                .version
                .value()
                .map_or("of unknown version", String::as_str);
            let gpus = if now.is_empty() {
                "none".to_owned()
            } else {
                now.join(", ")
            };
            self.tell(Level::Info, Topic::Gpus, format!("driver {version}: {gpus}"));
        }
    }
}

/// What GPUs there are, for people.
pub(super) fn names(inventory: &Inventory) -> Vec<String> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for gpu in &inventory.gpus {
        let GpuReadings {
            name, mig_devices, ..
        } = &gpu.readings;
        let mut name = match name {
            Reading::Value(name) => name.clone(),
            Reading::NotSupported => "a GPU without a name".to_owned(),
            Reading::Failed(why) => format!("a GPU that can't be read ({why})"),
        };
        if let Some(devices) = mig_devices.value().filter(|devices| !devices.is_empty()) {
            let profiles: Vec<String> = devices.iter().map(|device| device.profile.to_string()).collect();
            name = format!("{name} cut into {}", profiles.join(" "));
        }
        match counts.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => counts.push((name, 1)),
        }
    }
    let told = |(name, count): (String, usize)| {
        if count > 1 {
            format!("{count} x {name}")
        } else {
            name
        }
    };
    counts.into_iter().map(told).collect()
}

pub(super) fn of_node(host: &Host) -> String {
    let os = host.system.os.value().map(|os| os.pretty_name.clone());
    let os = os.unwrap_or_else(|| "an unknown operating system".to_owned());
    match host.distribution.value() {
        Some(found) => {
            let version = found.version.value().map(|version| format!(" {version}"));
            let name = match found.kind {
                DistributionKind::Rke2 => "RKE2",
                DistributionKind::K3s => "K3s",
                DistributionKind::Kubeadm => "Kubernetes by kubeadm",
                DistributionKind::None => "a container runtime without Kubernetes",
            };
            format!("{name}{} on {os}", version.unwrap_or_default())
        }
        None => format!("no known Kubernetes distribution, on {os}"),
    }
}
