//! The agent stays what runs on real nodes.

use std::process::Command;

#[test]
fn the_agent_depends_on_nothing_that_is_simulated_and_on_no_driver() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo
        .args([
            "tree",
            "--offline",
            "--edges=normal",
            "--prefix=none",
            "--manifest-path",
            manifest,
        ])
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(tree.contains("pitcrew-core v"), "{tree}");
    for crate_name in ["scenario", "apiserver", "nvml", "prove", "sim"] {
        let name = format!("pitcrew-{crate_name} v");
        assert!(!tree.contains(&name), "pitcrew-agent depends on {crate_name}");
    }
    // The fake kubelet's feature: for tests alone.
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo
        .args([
            "tree",
            "--offline",
            "--edges=normal,features",
            "--prefix=none",
            "--manifest-path",
            manifest,
        ])
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(!tree.contains("pitcrew-kubelet feature \"fake\""), "{tree}");
}
