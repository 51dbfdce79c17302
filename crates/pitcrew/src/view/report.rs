//! GPUs as a document for programs: `pitcrew.dev/gpus/v1alpha1`.

use pitcrew_core::catalog::Class;
use pitcrew_core::health::{self, Finding, Health, Verdict};
use pitcrew_core::inventory::{DriverReadings, Link};
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
    /// This machine's PCI bus, without its driver.
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
        let Inventory { driver, gpus, links } = inventory;
        let judge = |gpu: &Gpu| match source {
            Source::Scenario { .. } => health::assess(gpu),
            // Nobody asked the driver: that it said nothing is no sign of a lost GPU.
            Source::Pci { .. } => not_asked(),
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

fn not_asked() -> Health {
    let finding = Finding {
        verdict: Verdict::Unknown,
        what: "the driver was not asked how it is".to_owned(),
        advice: "Look with `nvidia-smi`; this build of pitcrew sees only the PCI bus".to_owned(),
    };
    Health {
        verdict: Verdict::Unknown,
        findings: vec![finding],
    }
}
