//! What containers get besides GPUs.

use pitcrew_cdi::Spec;
use pitcrew_cdi::generate::{Extra, Options, extra};
use pitcrew_scenario::HostRoot;

const WITH_ALL: &str = "
description: x
files: {/etc/cufile.json: '{}', /run/driver/etc/cufile.json: '{}', /run/udev/data/x: ''}
devices:
  /dev/nvidia0: 195:0
  /dev/nvidia-fs0: 506:0
  /dev/nvidia-fs1: 506:1
  /dev/infiniband/uverbs0: 231:192
  /dev/infiniband/uverbs1: 231:193
  /dev/infiniband/umad0: 231:0
  /dev/infiniband/rdma_cm: 10:58
  /dev/gdrdrv: 505:0
  /dev/nvidia-caps-imex-channels/channel0: 504:0
  /dev/nvidia-caps-imex-channels/channel12: 504:12
  /dev/nvidia-caps-imex-channels/channel01: 504:1
  /dev/nvidia-caps-imex-channels/channels: 504:2
";

fn made(what: Extra, manifest: &str, driver_root: &str) -> Option<Spec> {
    let root = HostRoot::parse(manifest, "node", &|_| None).unwrap();
    let kind = format!("k8s.device-plugin.nvidia.com/{}", what.class());
    let options = Options {
        driver_root: driver_root.into(),
        ..Options::new(&kind, "/opt/pitcrew/pitcrew-hook").unwrap()
    };
    let spec = extra(what, &root, &options)?;
    assert_eq!(spec.kind, kind);
    assert_eq!(spec.problems(), []);
    assert_eq!(spec.version, spec.needs().to_string());
    assert_eq!(spec.container_edits.env, ["NVIDIA_VISIBLE_DEVICES=void"]);
    Some(spec)
}

/// Name and nodes of each device.
fn nodes(spec: &Spec) -> Vec<(&str, Vec<&str>)> {
    let devices = spec.devices.iter();
    devices
        .map(|device| {
            let nodes = device.container_edits.device_nodes.iter();
            (
                device.name.as_str(),
                nodes.map(|node| node.path.as_str()).collect(),
            )
        })
        .collect()
}

#[test]
fn gpudirect_storage_is_its_nodes_with_what_udev_and_cufile_have() {
    let spec = made(Extra::Gds, WITH_ALL, "/").unwrap();
    assert_eq!(
        nodes(&spec),
        [("all", vec!["/dev/nvidia-fs0", "/dev/nvidia-fs1"])]
    );
    let edits = &spec.devices[0].container_edits;
    assert_eq!(
        (edits.device_nodes[1].major, edits.device_nodes[1].minor),
        (506, 1)
    );
    let mounts: Vec<(&str, &str)> = edits
        .mounts
        .iter()
        .map(|mount| (mount.host_path.as_str(), mount.container_path.as_str()))
        .collect();
    assert_eq!(
        mounts,
        [
            ("/etc/cufile.json", "/etc/cufile.json"),
            ("/run/udev", "/run/udev")
        ]
    );
    assert_eq!(
        edits.mounts[0].options,
        ["ro", "nosuid", "nodev", "rbind", "rprivate"]
    );
    let of_container = made(Extra::Gds, WITH_ALL, "/run/driver").unwrap();
    let mounts = &of_container.devices[0].container_edits.mounts;
    assert_eq!(mounts.len(), 1, "no udev runs there");
    assert_eq!(mounts[0].host_path, "/run/driver/etc/cufile.json");
    assert_eq!(mounts[0].container_path, "/etc/cufile.json");
}

#[test]
fn network_cards_are_those_that_rdma_needs() {
    let spec = made(Extra::Mofed, WITH_ALL, "/").unwrap();
    let expected = vec![
        "/dev/infiniband/rdma_cm",
        "/dev/infiniband/uverbs0",
        "/dev/infiniband/uverbs1",
    ];
    assert_eq!(nodes(&spec), [("all", expected)]);
    assert!(spec.devices[0].container_edits.mounts.is_empty());
}

#[test]
fn gdrcopy_is_one_node() {
    let spec = made(Extra::Gdrcopy, WITH_ALL, "/").unwrap();
    assert_eq!(nodes(&spec), [("all", vec!["/dev/gdrdrv"])]);
}

#[test]
fn each_channel_of_imex_is_a_device_by_its_number() {
    let spec = made(Extra::ImexChannel, WITH_ALL, "/").unwrap();
    let dir = "/dev/nvidia-caps-imex-channels";
    assert_eq!(
        nodes(&spec),
        [
            ("0", vec![format!("{dir}/channel0").as_str()]),
            ("12", vec![format!("{dir}/channel12").as_str()])
        ]
    );
    assert_eq!(spec.version, "0.5.0", "names begin with a digit");
}

#[test]
fn what_the_host_has_no_node_of_has_no_specification() {
    let without = "
description: x
files: {/etc/cufile.json: '{}', /dev/gdrdrv: 'no device'}
directories: [/dev/infiniband, /run/udev]
devices: {/dev/nvidia0: 195:0}
";
    for what in Extra::ALL {
        assert_eq!(made(what, without, "/"), None, "{what:?}");
    }
}
