use super::*;
use pitcrew_cdi::Device;
use pitcrew_cdi::spec::Hook;
use pitcrew_scenario::HostRoot;

const DIR: &str = "/usr/lib/x86_64-linux-gnu";

fn library(name: &str) -> Mount {
    file(&format!("{DIR}/{name}"))
}

fn file(path: &str) -> Mount {
    Mount {
        host_path: path.to_owned(),
        container_path: path.to_owned(),
        options: ["ro", "rbind"].map(str::to_owned).to_vec(),
        kind: String::new(),
    }
}

fn hook(links: &[&str]) -> Hook {
    let mut args = vec!["nvidia-cdi-hook".to_owned(), "create-symlinks".to_owned()];
    args.extend(
        links
            .iter()
            .flat_map(|link| ["--link".to_owned(), (*link).to_owned()]),
    );
    Hook {
        hook_name: "createContainer".to_owned(),
        path: "/opt/nvidia-cdi-hook".to_owned(),
        args,
        ..Hook::default()
    }
}

fn node(path: &str) -> DeviceNode {
    DeviceNode {
        path: path.to_owned(),
        permissions: "rw".to_owned(),
        ..DeviceNode::default()
    }
}

fn spec() -> Spec {
    let device = |name: &str, path: &str| Device {
        name: name.to_owned(),
        container_edits: ContainerEdits {
            device_nodes: vec![node(path)],
            ..ContainerEdits::default()
        },
        ..Device::default()
    };
    let cuda = format!("libcuda.so.580.1::{DIR}/libcuda.so.1");
    let plain = format!("libcuda.so.1::{DIR}/libcuda.so");
    let glx = format!("libGLX_nvidia.so.580.1::{DIR}/libGLX_indirect.so.0");
    let allocator = format!("libnvidia-allocator.so.580.1::{DIR}/libnvidia-allocator.so.1");
    let gbm = format!("../libnvidia-allocator.so.1::{DIR}/gbm/nvidia-drm_gbm.so");
    let mut socket = file("/run/nvidia-persistenced/socket");
    socket.options = vec!["rbind".to_owned()];
    Spec {
        kind: "nvidia.com/gpu".to_owned(),
        devices: vec![device("GPU-a", "/dev/nvidia0"), device("GPU-b", "/dev/nvidia1")],
        container_edits: ContainerEdits {
            device_nodes: vec![node("/dev/nvidiactl")],
            hooks: vec![hook(&[&gbm]), hook(&[&plain, &cuda, &glx, &allocator])],
            env: vec!["NVIDIA_VISIBLE_DEVICES=void".to_owned()],
            mounts: vec![
                library("libcuda.so.580.1"),
                library("libnvidia-glcore.so.580.1"),
                library("libGLX_nvidia.so.580.1"),
                library("libnvidia-allocator.so.580.1"),
                library("vdpau/libvdpau_nvidia.so.580.1"),
                file("/usr/bin/nvidia-smi"),
                socket,
            ],
            ..ContainerEdits::default()
        },
        ..Spec::default()
    }
}

fn hosts(answer: &Answer) -> BTreeMap<&str, &str> {
    let mounts = answer.mounts.iter();
    mounts
        .map(|mount| (mount.container.as_str(), mount.host.as_str()))
        .collect()
}

#[test]
fn a_library_lies_under_its_names_in_every_directory_of_a_loader() {
    let answer = answer(&spec(), &["GPU-a"]).unwrap();
    let hosts = hosts(&answer);
    let soname = format!("{DIR}/libcuda.so.1");
    for dir in LOADER_DIRS {
        // The host's link, which is right for the next driver too.
        assert_eq!(hosts[format!("{dir}/libcuda.so.1").as_str()], soname);
        assert_eq!(hosts[format!("{dir}/libcuda.so").as_str()], soname);
        assert!(!hosts.contains_key(format!("{dir}/libcuda.so.580.1").as_str()));
        let allocator = format!("{DIR}/libnvidia-allocator.so.1");
        assert_eq!(hosts[format!("{dir}/gbm/nvidia-drm_gbm.so").as_str()], allocator);
        // Without a SONAME of its own a library is asked for by its version.
        let core = format!("{DIR}/libnvidia-glcore.so.580.1");
        assert_eq!(hosts[format!("{dir}/libnvidia-glcore.so.580.1").as_str()], core);
        // This link may not be on the host.
        let glx = format!("{DIR}/libGLX_nvidia.so.580.1");
        assert_eq!(hosts[format!("{dir}/libGLX_indirect.so.0").as_str()], glx);
        let below = "vdpau/libvdpau_nvidia.so.580.1";
        assert_eq!(hosts[format!("{dir}/{below}").as_str()], format!("{DIR}/{below}"));
    }
    assert_eq!(hosts["/usr/bin/nvidia-smi"], "/usr/bin/nvidia-smi");
}

#[test]
fn a_container_gets_the_nodes_of_its_devices_and_no_others() {
    let answer = answer(&spec(), &["GPU-b"]).unwrap();
    let nodes: Vec<&str> = answer
        .devices
        .iter()
        .map(|node| node.container.as_str())
        .collect();
    assert_eq!(nodes, ["/dev/nvidia1", "/dev/nvidiactl"]);
    assert!(answer.devices.iter().all(|node| node.permissions == "rw"));
    assert_eq!(answer.env["NVIDIA_VISIBLE_DEVICES"], "void");
    let writable: Vec<&str> = answer
        .mounts
        .iter()
        .filter(|mount| !mount.read_only)
        .map(|mount| mount.container.as_str())
        .collect();
    assert_eq!(writable, ["/run/nvidia-persistenced/socket"]);
    let both = super::answer(&spec(), &["GPU-a", "GPU-b", "GPU-a"]).unwrap();
    assert_eq!(both.devices.len(), 3);
    let error = super::answer(&spec(), &["GPU-c"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the specification of nvidia.com/gpu has no device `GPU-c`"
    );
}

/// containerd makes directories on the host of what isn't there.
#[test]
fn every_path_of_a_real_specification_is_on_the_host() {
    let manifest = "description: x\nlike: rke2\nscenario: mixed\nfiles: {/usr/bin/nvidia-smi: x}\n";
    let find = |name: &str| HostRoot::builtin_text(name).map(str::to_owned);
    let root = HostRoot::parse(manifest, "x", &find).unwrap();
    let mut machine = root.machine().unwrap().clone();
    let inventory = pitcrew_core::ports::InventorySource::inventory(&mut machine).unwrap();
    let options = pitcrew_cdi::generate::Options::new("nvidia.com/gpu", "/opt/nvidia-cdi-hook").unwrap();
    let spec = pitcrew_cdi::generate::gpus(&inventory, &root, &options)
        .unwrap()
        .spec;
    for device in &spec.devices {
        let answer = answer(&spec, &[&device.name]).unwrap();
        assert_eq!(answer.missing(&root), [""; 0], "{}", device.name);
        assert!(answer.mounts.len() >= 2 * 4, "{:#?}", answer.mounts);
    }
    let gone = Answer {
        mounts: vec![as_is(&file("/usr/lib/gone.so.1"))],
        ..Answer::default()
    };
    assert_eq!(gone.missing(&root), ["/usr/lib/gone.so.1"]);
}

proptest::proptest! {
    /// Whatever hooks say, links of links and loops among them.
    #[test]
    fn names_always_end(pairs in proptest::collection::vec((0..6_u8, 0..6_u8), 0..20)) {
        let mut spec = spec();
        let links: Vec<String> = pairs.iter().map(|(to, link)| format!("l{to}.so::{DIR}/l{link}.so")).collect();
        let links: Vec<&str> = links.iter().map(String::as_str).collect();
        spec.container_edits.hooks.push(hook(&links));
        spec.container_edits.mounts.push(library("l0.so"));
        let answer = answer(&spec, &["GPU-a"]).unwrap();
        let all = answer.mounts.iter().all(|mount| mount.container.starts_with('/') && !mount.container.contains(".."));
        proptest::prop_assert!(all);
    }
}
