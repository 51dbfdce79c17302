//! GPUs as a document for programs: `pitcrew.dev/gpus/v1alpha1`.

use std::path::PathBuf;

use pitcrew_core::catalog::Class;
use pitcrew_core::health::{self, Finding, Health, Verdict};
use pitcrew_core::inventory::{DriverReadings, Link};
use pitcrew_core::pci::PciAddress;
use pitcrew_core::reading::Unread;
use pitcrew_core::{Gpu, Inventory};
use serde::Serialize;

/// Name and version of the document's shape.
const SCHEMA: &str = "pitcrew.dev/gpus/v1alpha1";

/// Where the GPUs come from, so that nobody takes imaginary ones for real.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Source {
    /// Imaginary GPUs.
    #[cfg_attr(
        not(feature = "sim"),
        expect(dead_code, reason = "no imaginary GPUs in this build")
    )]
    Scenario {
        /// Name of the scenario.
        scenario: String,
        /// The file, for one that isn't built in.
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<String>,
    },
    /// This machine's driver, and its PCI bus.
    Driver {
        /// The driver's library.
        nvml: PathBuf,
        /// GPUs that only the PCI bus knows: NVIDIA's driver does not manage them.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        bus_only: Vec<PciAddress>,
    },
    /// This machine's PCI bus alone: its driver does not answer.
    Pci {
        /// Always true.
        pci: bool,
    },
}

/// The document.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    schema: &'static str,
    pub(crate) source: &'a Source,
    pub(crate) driver: DriverReport<'a>,
    pub(crate) gpus: Vec<GpuReport<'a>>,
    links: &'a [Link],
}

/// The driver, and what it would not say of itself.
#[derive(Serialize)]
pub(crate) struct DriverReport<'a> {
    #[serde(flatten)]
    pub(crate) readings: &'a DriverReadings,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unread: Vec<Unread>,
}

/// One GPU with everything that we conclude.
#[derive(Serialize)]
pub(crate) struct GpuReport<'a> {
    #[serde(flatten)]
    pub(crate) gpu: &'a Gpu,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<Class>,
    /// Name in the catalogue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) card: Option<&'static str>,
    pub(crate) health: Health,
    pub(crate) unread: Vec<Unread>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(source: &'a Source, inventory: &'a Inventory) -> Self {
        let Inventory {
            driver, gpus, links, ..
        } = inventory;
        let judge = |gpu: &Gpu| match source {
            // Nobody could ask: that nothing was said is no sign of a lost GPU.
            Source::Pci { .. } => unknown(
                "the driver could not be asked how it is",
                "Get the driver to answer; `pitcrew check` says what is wrong with it",
            ),
            Source::Driver { bus_only, .. } => match inventory.silence(gpu.index) {
                Some(reason) => silent(reason),
                None => judge_known(gpu, bus_only),
            },
            Source::Scenario { .. } => health::assess(gpu),
        };
        let gpus = gpus.iter().map(|gpu| {
            let card = gpu.card();
            GpuReport {
                gpu,
                class: card.map(|card| card.class),
                card: card.map(|card| card.name.as_str()),
                health: judge(gpu),
                unread: gpu.readings.unread(),
            }
        });
        Self {
            schema: SCHEMA,
            source,
            driver: DriverReport {
                readings: driver,
                unread: driver.unread(),
            },
            gpus: gpus.collect(),
            links,
        }
    }

    /// The verdict on each GPU.
    pub(crate) fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.gpus.iter().map(|report| report.health.verdict)
    }

    /// How many values should have been readable and were not.
    pub(crate) fn unread(&self) -> usize {
        self.driver.unread.len() + self.gpus.iter().map(|report| report.unread.len()).sum::<usize>()
    }
}

/// The verdict on a GPU of a driver that answers: one of those that only the bus knows is not lost.
pub(crate) fn judge_known(gpu: &Gpu, bus_only: &[PciAddress]) -> Health {
    if !bus_only.contains(&gpu.pci.address) {
        return health::assess(gpu);
    }
    let reason = gpu.readings.uuid.failure();
    unknown(
        reason.unwrap_or("the driver does not list it"),
        "Nothing, if it is meant for a virtual machine; else bind it to NVIDIA's driver",
    )
}

/// The verdict on a GPU that a call hangs at: it may be well, and it may be lost.
fn silent(reason: &str) -> Health {
    unknown(
        reason,
        "Look at `dmesg | grep -e NVRM -e nvidia`; if it stays so, drain the node and reboot it",
    )
}

fn unknown(what: &str, advice: &str) -> Health {
    let finding = Finding {
        verdict: Verdict::Unknown,
        what: what.to_owned(),
        advice: advice.to_owned(),
    };
    Health {
        verdict: Verdict::Unknown,
        findings: vec![finding],
    }
}
