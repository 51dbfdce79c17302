//! The specification that we make of a node is taken by containerd 2.2 and 1.7, and gives a container exactly what it
//! says: device nodes and mounts, no more and no fewer.

use std::collections::BTreeSet;
use std::path::Path;

use pitcrew_cdi::generate::{Options, gpus};
use pitcrew_cdi::{ContainerEdits, Spec};
use pitcrew_core::ports::InventorySource as _;
use pitcrew_host::{HostRoots, Roots};
use pitcrew_scenario::HostRoot;
use pitcrew_tests::{HaltedKubelet, run_with_devices, testbed, wait_for, write_cdi};

/// A kind that no other test has.
const KIND: &str = "specs.pitcrew.dev/gpu";

/// Two cut and uncut GPUs, with programs and files besides the libraries.
const NODE: &str = "
description: x
scenario: mixed
files:
  /usr/bin/nvidia-smi: x
  /usr/lib/firmware/nvidia/580.159.04/gsp_ga10x.bin: x
  /usr/share/vulkan/icd.d/nvidia_icd.json: x
modes: {/usr/bin/nvidia-smi: '0755'}
links: {/lib: usr/lib}
sockets: [/run/nvidia-persistenced/socket]
";

/// What a container shows: its nodes of NVIDIA's driver with their numbers, and where something is mounted.
const SHOW: &str = "find /dev -name 'nvidia*' -type c -exec stat -c 'node %n %t:%T' {} +; \
                    cut -d' ' -f2 /proc/self/mounts | sed 's/^/mount /'; echo env $NVIDIA_VISIBLE_DEVICES";

/// The specification of the node whose files are in this directory. It is the root of a driver that is not the host's.
fn spec(dir: &Path) -> Spec {
    let root = HostRoot::parse(NODE, "ring 3", &|_| None).expect("the manifest is right");
    let left_out = root.build(dir).expect("it can be laid out");
    assert!(left_out.is_empty(), "this user can't make {left_out:?}");
    let mut machine = root.machine().expect("it has a scenario").clone();
    let inventory = machine.inventory().expect("its driver answers");
    let host = HostRoots::new(Roots {
        proc: dir.join("proc"),
        sys: dir.join("sys"),
        ..Roots::under("/")
    });
    // What hooks do is tested with the hooks; that they are started is seen from a container that starts.
    let options = Options::new(KIND, "/bin/true").expect("it is a kind");
    let options = Options {
        driver_root: dir.to_owned(),
        dev_root: dir.to_owned(),
        ..options
    };
    let generated = gpus(&inventory, &host, &options).expect("there are GPUs");
    assert_eq!(generated.remarks, [""; 0]);
    generated.spec
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

fn promised(edits: &[&ContainerEdits]) -> BTreeSet<String> {
    let nodes = edits.iter().flat_map(|edits| &edits.device_nodes);
    let nodes = nodes.map(|node| format!("node {} {:x}:{:x}", node.path, node.major, node.minor));
    let mounts = edits.iter().flat_map(|edits| &edits.mounts);
    let mounts = mounts.map(|mount| format!("mount {}", mount.container_path));
    nodes.chain(mounts).chain(["env void".to_owned()]).collect()
}

fn containers_get_what_the_specification_says() {
    let _halted = HaltedKubelet::new();
    let dir = tempfile::tempdir().expect("a directory can be made");
    let spec = spec(dir.path());
    assert!(
        spec.container_edits.mounts.len() >= 7,
        "{:#?}",
        spec.container_edits.mounts
    );
    write_cdi(
        "specs.json",
        &serde_json::to_value(&spec).expect("it can be encoded"),
    );

    let nothing = lines(&run_with_devices(&[], SHOW).ok());
    assert!(
        !nothing.iter().any(|line| line.starts_with("node ")),
        "{nothing:?}"
    );
    for device in &spec.devices {
        let name = format!("{KIND}={}", device.name);
        // containerd sees a new file a moment after it was written.
        let seen = wait_for("the CDI device", || {
            let outcome = run_with_devices(&[&name], SHOW);
            let unseen = outcome.stderr.contains("unresolvable CDI devices");
            (!unseen).then(|| outcome.ok())
        });
        let more: BTreeSet<String> = lines(&seen).difference(&nothing).cloned().collect();
        assert_eq!(
            more,
            promised(&[&spec.container_edits, &device.container_edits]),
            "{name}"
        );
    }
    let [cut, whole] = ["0:1", "2"].map(|name| format!("{KIND}={name}"));
    let both = run_with_devices(
        &[&cut, &whole],
        "find /dev -name 'nvidia[0-9]*' | sort | tr '\\n' ' '",
    );
    assert_eq!(both.ok(), "/dev/nvidia0 /dev/nvidia2 ");
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn our_specification_gives_containers_of_containerd_2_what_it_says() {
    testbed(&["up"]).ok();
    containers_get_what_the_specification_says();
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn our_specification_gives_containers_of_containerd_1_7_what_it_says() {
    testbed(&["down"]).ok();
    testbed(&["up", "--containerd", "1.7"]).ok();
    let result = std::panic::catch_unwind(containers_get_what_the_specification_says);
    // The next test expects the bed as it was.
    testbed(&["down"]).ok();
    testbed(&["up"]).ok();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
