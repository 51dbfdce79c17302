//! NVIDIA's toolkit on the same roots: the same devices, nodes, mounts, hooks and variables, or a difference that is
//! listed here with its reason. `tests/fixtures/README.md` says how its output was made.

use std::path::Path;

use pitcrew_cdi::generate::{Generated, Options, gpus, management};
use pitcrew_cdi::{Hook, Spec, text};

use crate::roots::{ALL, Fixture};

/// Hooks of the reference that we leave out, and why.
const NOT_OURS: [(&str, &str); 2] = [
    (
        "apply-cuda-memory-limits",
        "limits GPU memory where the container's own environment asks for it, so that who wants more leaves it out; needs \
         driver 615, and fails the container without cgroup v2",
    ),
    (
        "update-application-profile",
        "narrows which GPUs EGL and Vulkan see to those that the device nodes give anyhow; our hook has no such command",
    ),
];

fn options(fixture: &Fixture, kind: &str) -> Options {
    let options = Options::new(kind, "/usr/bin/nvidia-cdi-hook").unwrap();
    Options {
        driver_root: fixture.driver_root.into(),
        ..options
    }
}

fn said(fixture: &Fixture, ending: &str) -> Spec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(format!("nvidia-ctk-1.20.1-{}{ending}.yaml", fixture.name));
    let mut spec = text::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    for edits in spec
        .devices
        .iter_mut()
        .map(|device| &mut device.container_edits)
        .chain([&mut spec.container_edits])
    {
        edits.hooks.retain(|hook| !is_not_ours(hook));
    }
    spec
}

fn is_not_ours(hook: &Hook) -> bool {
    NOT_OURS
        .iter()
        .any(|(name, _)| hook.args.get(1).is_some_and(|arg| arg == name))
}

#[track_caller]
fn compare(name: &str, ours: &Generated, theirs: &Spec) {
    assert_eq!(ours.remarks, [""; 0], "{name}");
    let ours = &ours.spec;
    assert_eq!(ours.problems(), [], "{name}");
    let names = |spec: &Spec| {
        spec.devices
            .iter()
            .map(|device| device.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(ours), names(theirs), "{name}");
    for (our, their) in ours.devices.iter().zip(&theirs.devices) {
        assert_eq!(our, their, "{name}");
    }
    let (our, their) = (&ours.container_edits, &theirs.container_edits);
    assert_eq!(our.env, their.env, "{name}");
    assert_eq!(our.device_nodes, their.device_nodes, "{name}");
    assert_eq!(our.hooks, their.hooks, "{name}");
    assert_eq!(our.mounts, their.mounts, "{name}");
    assert_eq!(ours, theirs, "{name}");
}

#[test]
fn gpus_are_described_as_by_nvidias_toolkit() {
    for fixture in &ALL {
        let options = options(fixture, pitcrew_cdi::spec::GPU);
        let ours = gpus(&fixture.inventory(), &fixture.root(), &options).unwrap();
        compare(fixture.name, &ours, &said(fixture, ""));
    }
}

#[test]
fn the_management_device_is_described_as_by_nvidias_toolkit() {
    for fixture in &ALL {
        let options = options(fixture, pitcrew_cdi::spec::MANAGEMENT_GPU);
        let ours = management(Some(&fixture.inventory()), &fixture.root(), &options).unwrap();
        compare(fixture.name, &ours, &said(fixture, "-management"));
    }
}
