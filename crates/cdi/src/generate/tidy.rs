//! Takes out what is there twice, and brings the rest into an order that doesn't change from run to run.

use std::path::{Component, Path};

use crate::{ContainerEdits, Spec};

pub(super) fn tidy(spec: &mut Spec) {
    edits(&mut spec.container_edits);
    for device in &mut spec.devices {
        edits(&mut device.container_edits);
        let mut own = device.container_edits.clone();
        without(&mut own, &spec.container_edits);
        // A device that changes nothing would not be valid.
        if !own.is_empty() {
            device.container_edits = own;
        }
    }
    spec.devices.sort_by(|a, b| a.name.cmp(&b.name));
}

fn edits(edits: &mut ContainerEdits) {
    unique(&mut edits.env);
    unique(&mut edits.device_nodes);
    // Hooks stay in their order: links are made before the loader's cache is.
    unique(&mut edits.hooks);
    unique(&mut edits.mounts);
    edits.additional_gids.sort_unstable();
    edits.additional_gids.dedup();
    // What is mounted over a directory must not hide what was mounted in it.
    edits
        .device_nodes
        .sort_by_cached_key(|node| (depth(&node.path), node.path.clone()));
    edits
        .mounts
        .sort_by_cached_key(|mount| (depth(&mount.container_path), mount.container_path.clone()));
}

fn without(edits: &mut ContainerEdits, common: &ContainerEdits) {
    edits.env.retain(|own| !common.env.contains(own));
    edits
        .device_nodes
        .retain(|own| !common.device_nodes.contains(own));
    edits.hooks.retain(|own| !common.hooks.contains(own));
    edits.mounts.retain(|own| !common.mounts.contains(own));
    edits
        .additional_gids
        .retain(|own| !common.additional_gids.contains(own));
}

fn unique<T: PartialEq + Clone>(items: &mut Vec<T>) {
    let mut seen: Vec<T> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    *items = seen;
}

fn depth(path: &str) -> usize {
    let names = Path::new(path).components();
    names.filter(|name| matches!(name, Component::Normal(_))).count()
}
