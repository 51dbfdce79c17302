//! The labels of every scenario that comes with the program, under every strategy.

use std::fmt::Write as _;

use pitcrew_core::labels::{Offer, SharedResource};
use pitcrew_core::plugin::Sharing;
use pitcrew_core::plugin::config::MigStrategy;
use pitcrew_scenario::{HostRoot, Machine, Scenario};
use tokio::time::Instant;

use super::super::wish::{Memory, Wish};
use crate::testing::look;

fn labels(scenario: &str, offer: &Offer) -> std::collections::BTreeMap<String, String> {
    let machine = Machine::new(Scenario::builtin(scenario).unwrap());
    let host = HostRoot::over(machine.clone()).unwrap();
    let snapshot = look(&machine, &host);
    let wish = Memory::default().wish(&snapshot, Some(offer), Some(1_764_000_000), Instant::now());
    let Wish::Labels(labels) = wish else {
        panic!("{wish:?}")
    };
    labels
}

/// The example of the fact sheet `devices`, section 2.1, line by line: one RTX 3060 of 12 GB, time-slicing with four
/// replicas, strategy single.
#[test]
fn an_rtx_3060_in_four_time_slices_is_labelled_as_in_the_fact_sheet() {
    let offer = Offer {
        mig: MigStrategy::Single,
        sharing: Some(Sharing::TimeSlicing),
        shared: vec![SharedResource {
            name: "nvidia.com/gpu".to_owned(),
            replicas: 4,
            renamed: false,
        }],
        ..Offer::default()
    };
    let mut lines = String::new();
    for (key, value) in labels("rtx3060", &offer) {
        let _ = writeln!(lines, "{key}={value}");
    }
    let expected = "\
nvidia.com/cuda.driver-version.full=580.159.04
nvidia.com/cuda.driver-version.major=580
nvidia.com/cuda.driver-version.minor=159
nvidia.com/cuda.driver-version.revision=04
nvidia.com/cuda.driver.major=580
nvidia.com/cuda.driver.minor=159
nvidia.com/cuda.driver.rev=04
nvidia.com/cuda.runtime-version.full=13.0
nvidia.com/cuda.runtime-version.major=13
nvidia.com/cuda.runtime-version.minor=0
nvidia.com/cuda.runtime.major=13
nvidia.com/cuda.runtime.minor=0
nvidia.com/gfd.timestamp=1764000000
nvidia.com/gpu.compute.major=8
nvidia.com/gpu.compute.minor=6
nvidia.com/gpu.count=1
nvidia.com/gpu.family=ampere
nvidia.com/gpu.machine=SYS-421GE-TNRT
nvidia.com/gpu.memory=12288
nvidia.com/gpu.mode=graphics
nvidia.com/gpu.present=true
nvidia.com/gpu.product=NVIDIA-GeForce-RTX-3060-SHARED
nvidia.com/gpu.replicas=4
nvidia.com/gpu.sharing-strategy=time-slicing
nvidia.com/mig.capable=false
nvidia.com/mig.strategy=single
nvidia.com/mps.capable=false
nvidia.com/vgpu.present=false
pitcrew.dev/gpu.class=consumer
pitcrew.dev/gpu.product.NVIDIA-GeForce-RTX-3060=1
";
    assert_eq!(lines, expected);
}

/// Read against the fact sheet, rule by rule.
#[test]
fn every_scenario_is_labelled_under_every_strategy() {
    for (name, _) in Scenario::builtin_names() {
        let mut text = String::new();
        let none = labels(name, &Offer::default());
        for (key, value) in &none {
            let _ = writeln!(text, "{key}={value}");
        }
        for (strategy, mig) in [("single", MigStrategy::Single), ("mixed", MigStrategy::Mixed)] {
            let _ = writeln!(text, "\nthat differ with {strategy}:");
            let offer = Offer {
                mig,
                ..Offer::default()
            };
            let other = labels(name, &offer);
            for (key, value) in &other {
                if none.get(key) != Some(value) {
                    let _ = writeln!(text, "{key}={value}");
                }
            }
            for key in none.keys().filter(|key| !other.contains_key(*key)) {
                let _ = writeln!(text, "no {key}");
            }
        }
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, text);
        });
    }
}
