//! Stand-ins that are well or have something, and proofs of them.

use std::cell::RefCell;

use pitcrew_core::catalog::ComputeCapability;
use pitcrew_core::inventory::CudaVersion;
use pitcrew_core::proof::{Phase, Profile};
use pitcrew_prove::device::DeviceFacts;
use pitcrew_prove::lane::Lane;
use pitcrew_prove::progress::Progress;
use pitcrew_prove::run::{Options, Outcomes, Place, run};
use pitcrew_prove::stand_in::{Ailment, Description, Rates, StandIn};
use pitcrew_prove::telemetry::Unwatched;

pub(crate) const GIB: u64 = 1 << 30;

pub(crate) fn h100(ailments: &[Ailment], seed: u64) -> StandIn {
    StandIn::new(description(ailments, seed))
}

pub(crate) fn description(ailments: &[Ailment], seed: u64) -> Description {
    Description {
        facts: DeviceFacts {
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            uuid: "GPU-0".to_owned(),
            pci: None,
            compute_capability: ComputeCapability { major: 9, minor: 0 },
            sms: 132,
            memory_bytes: 80 * GIB,
            l2_bytes: 50 << 20,
            sm_clock_mhz: 1980,
            cuda: CudaVersion::from_driver(12_080),
        },
        rates: Rates {
            half: 785e12,
            byte: Some(1500e12),
            tf32: Some(400e12),
            single: 60e12,
            double: 60e12,
            memory: 3017e9,
            cache: 7000e9,
            host: 53e9,
            peer: None,
            clock_mhz: 1755.0,
        },
        ailments: ailments.to_vec(),
        seed,
    }
}

pub(crate) fn options(profile: Profile) -> Options {
    Options {
        profile,
        time: None,
        variant: None,
        inject: Vec::new(),
        seed: 1,
    }
}

pub(crate) struct Proof {
    pub(crate) outcomes: Outcomes,
    told: Vec<Progress>,
}

impl Proof {
    pub(crate) fn of(device: &StandIn, options: &Options) -> Self {
        Self::until(device, options, &|| false)
    }

    pub(crate) fn until(device: &StandIn, options: &Options, is_cancelled: &dyn Fn() -> bool) -> Self {
        let told = RefCell::new(Vec::new());
        let outcomes = run(
            Place {
                device,
                pace: device,
                lane: &Lane::default(),
                watch: &mut Unwatched,
                is_cancelled,
                tell: &mut |progress| told.borrow_mut().push(progress),
            },
            options,
        );
        Self {
            outcomes,
            told: told.into_inner(),
        }
    }

    pub(crate) fn phase(&self, title: &str) -> &Phase {
        let found = self.outcomes.phases.iter().find(|phase| phase.title() == title);
        found.expect(title)
    }

    pub(crate) fn corrupt(&self) -> Vec<&Phase> {
        let phases = self.outcomes.phases.iter();
        phases.filter(|phase| phase.corruption_count > 0).collect()
    }

    pub(crate) fn found(&self) -> String {
        let lines = self.told.iter().filter_map(|progress| match progress {
            Progress::Found(text) => Some(&**text),
            _ => None,
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

pub(crate) fn near(measured: f64, expected: f64) -> bool {
    (measured / expected - 1.0).abs() < 0.02
}
