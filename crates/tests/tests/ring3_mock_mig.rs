//! GPUs that are cut through the mock of NVIDIA's library: all clients see the same instances.

use pitcrew_tests::mock::{Client, Node};
use serde_json::{Value, json};

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn a_gpu_that_one_client_cuts_is_cut_for_all() {
    let node = Node::new("h100x8");
    let (mut one, mut other) = (node.client(), node.client());
    let first = one.ask("cut 2 3g.40gb 4");
    assert_eq!(
        first["gpu_instance"]["placement"],
        json!({"start": 4, "size": 4}),
        "{first}"
    );
    assert_eq!(
        first["compute_instance"]["placement"],
        json!({"start": 0, "size": 3}),
        "{first}"
    );
    // The second client takes what the first left free, not the same place.
    let second = other.ask("cut 2 3g.40gb");
    assert_eq!(
        second["gpu_instance"]["placement"],
        json!({"start": 0, "size": 4}),
        "{second}"
    );
    assert_eq!(
        one.ask("cut 2 1g.10gb"),
        json!({"error": "Insufficient Resources"})
    );

    let (seen, by_other) = (one.ask("read"), other.ask("read"));
    assert_eq!(seen, by_other, "both see the same node");
    let gpu = &seen["gpus"][2];
    let devices = gpu["mig_devices"].as_array().expect("it is cut");
    assert_eq!(devices.len(), 2);
    for device in devices {
        assert_eq!(
            device["nvmlDeviceGetName"],
            json!("NVIDIA H100 80GB HBM3 MIG 3g.40gb")
        );
        assert_eq!(device["parent"], gpu["nvmlDeviceGetUUID"]);
        assert_eq!(device["is_mig"], json!(1));
        assert_eq!(device["memory_v2"]["total"], json!(40_448_u64 << 20));
        let attributes = &device["nvmlDeviceGetAttributes_v2"];
        assert_eq!(attributes["multiprocessorCount"], json!(60));
        assert_eq!(attributes["gpuInstanceSliceCount"], json!(3));
        assert_eq!(attributes["memorySizeMB"], json!(40_448));
        assert_eq!(
            device["nvmlDeviceGetUtilizationRates"],
            json!({"error": "Not Supported"})
        );
    }
    // What NVML refuses of a GPU that is cut up.
    assert_eq!(
        gpu["nvmlDeviceGetUtilizationRates"],
        json!({"error": "Not Supported"})
    );
    assert_eq!(
        gpu["nvmlDeviceGetEncoderUtilization"],
        json!({"error": "Not Supported"})
    );
    assert_eq!(gpu["profiles"]["0"]["remaining"], json!(0));

    node.change(
        &json!({"start-process": {"gpu": 2, "pid": 4711, "gpu_instance": 0, "memory_bytes": 1_048_576}}),
    );
    assert_eq!(other.ask("uncut 2"), json!({"error": "In use by another client"}));
    assert_eq!(
        one.ask("read")["gpus"][2]["mig_devices"][0]["memory_v2"]["used"],
        json!(1_048_576)
    );
    node.change(&json!({"end-process": {"gpu": 2, "pid": 4711}}));
    assert_eq!(other.ask("uncut 2"), json!([0, 0]));
    assert_eq!(one.ask("read")["gpus"][2]["mig_devices"], json!([]));
}

/// MIG devices on the first GPU: UUID, GPU instance, compute instance and profile, as `pitcrew gpus` shows them; the
/// client must say the same.
fn parts(node: &Node, client: &mut Client) -> Vec<(String, u64, u64, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let seen = client.ask("read 0")["gpus"][0]["mig_devices"].take();
    let by_client = seen.as_array().expect("a list").iter().map(|device| {
        let name = text(&device["nvmlDeviceGetName"]);
        let profile = name.rsplit(' ').next().unwrap_or_default().to_owned();
        (
            text(&device["nvmlDeviceGetUUID"]),
            number(&device["gpu_instance"]),
            number(&device["compute_instance"]),
            profile,
        )
    });
    let shown = node.shown_by_pitcrew()["gpus"][0]["mig_devices"].take();
    let by_pitcrew = shown.as_array().expect("a list").iter().map(|device| {
        (
            text(&device["uuid"]),
            number(&device["gpu_instance"]),
            number(&device["compute_instance"]),
            text(&device["profile"]),
        )
    });
    let by_pitcrew: Vec<_> = by_pitcrew.collect();
    assert_eq!(by_client.collect::<Vec<_>>(), by_pitcrew);
    by_pitcrew
}

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn parts_of_a_gpu_instance_come_and_go_one_by_one() {
    for (scenario, profile, part, all) in [
        ("h100x8", "3g.40gb", "1c.3g.40gb", 3),
        ("a100x8", "4g.40gb", "1c.4g.40gb", 4),
        ("a30", "2g.12gb", "1c.2g.12gb", 2),
        ("rtxpro6000x2", "2g.48gb", "1c.2g.48gb", 2),
    ] {
        let node = Node::new(scenario);
        let mut client = node.client();
        // Empty and in MIG mode, which Ampere is only after a reset. A reset takes the scenario's instances along.
        node.change(&json!({"mig-mode": {"gpu": 0, "enabled": true}}));
        node.change(&json!({"reset": {"gpu": 0}}));
        node.change(&json!({"create-gpu-instance": {"gpu": 0, "profile": profile}}));
        assert!(parts(&node, &mut client).is_empty(), "{scenario}");
        for number in 0..2 {
            let made = client.ask("part 0 0 1");
            assert_eq!(
                made["compute_instance"]["placement"],
                json!({"start": number, "size": 1}),
                "{scenario}: {made}"
            );
        }
        let devices = parts(&node, &mut client);
        let numbered: Vec<_> = devices
            .iter()
            .map(|(_, gpu, compute, profile)| (*gpu, *compute, profile.as_str()))
            .collect();
        assert_eq!(numbered, [(0, 0, part), (0, 1, part)], "{scenario}");
        assert!(devices.iter().all(|(uuid, ..)| uuid.starts_with("MIG-")));
        assert_ne!(devices[0].0, devices[1].0, "{scenario}");
        let full = client.ask(&format!("part 0 0 {all}"));
        assert_eq!(full, json!({"error": "Insufficient Resources"}), "{scenario}");

        assert_eq!(client.ask("unpart 0 0 0"), json!(1), "{scenario}");
        assert_eq!(parts(&node, &mut client), [devices[1].clone()], "{scenario}");
        assert_eq!(
            client.ask("unpart 0 0 0"),
            json!({"error": "Not Found"}),
            "{scenario}"
        );
        client.ask("uncut 0");
        assert!(parts(&node, &mut client).is_empty(), "{scenario}");
    }
}
