//! The phases: each takes a bench and a time, works, and adds what it has seen to its tally.

mod contest;
pub(crate) mod loops;
pub(crate) mod march;
pub(crate) mod memory;
pub(crate) mod products;
pub(crate) mod self_test;
pub(crate) mod tally;
pub(crate) mod transfer;

use std::time::Duration;

use pitcrew_core::proof::PhaseKind;

use crate::bench::{Bench, Stop};
use crate::device::{Choice, Format};
use crate::profile::Step;
use crate::progress::Progress;
use tally::Tally;

/// A phase that can be worked on several times over.
pub(crate) trait Exercise {
    /// Has the CPU begin with what it can compute before the GPU is free for this.
    fn prepare(&mut self, _bench: &Bench<'_>) {}

    /// Works for about so long, with all that is set up first. What was seen until an early end counts.
    fn work(&mut self, bench: &mut Bench<'_>, time: Duration, tally: &mut Tally) -> Result<(), Stop>;
}

/// The phase of a step.
pub(crate) fn exercise(step: Step, seed: u32, formats: &[Format]) -> Box<dyn Exercise> {
    let format = step.format.unwrap_or(Format::Fp32);
    match step.kind {
        PhaseKind::SelfTest => Box::new(self_test::SelfTest::new(formats.to_vec(), seed)),
        PhaseKind::March => Box::new(march::March::new(seed)),
        PhaseKind::BitFade => Box::new(march::BitFade::new(seed)),
        PhaseKind::Copy | PhaseKind::Triad | PhaseKind::Cache => {
            Box::new(memory::Streams::new(step.kind, seed))
        }
        PhaseKind::HostToDevice | PhaseKind::DeviceToHost | PhaseKind::HostBothWays => {
            Box::new(transfer::Transfer::new(step.kind, seed))
        }
        PhaseKind::MmaLoop => Box::new(loops::Loops::new(format, seed)),
        PhaseKind::Gemm => Box::new(products::Products::new(format, products::Mode::Steady, seed)),
        PhaseKind::Power => Box::new(products::Products::new(format, products::Mode::Power, seed)),
        PhaseKind::Pulse => Box::new(products::Products::new(format, products::Mode::Pulse, seed)),
    }
}

/// What runs for a format, once the self-test has chosen.
fn choice(bench: &mut Bench<'_>, format: Format, tally: &mut Tally) -> Result<Choice, Stop> {
    let choices = bench.choices.get(&format).cloned().unwrap_or_default();
    tally.refuse(&choices.refused);
    let Some(choice) = choices.usable.first() else {
        let reasons: Vec<&str> = choices.refused.iter().map(|refused| &*refused.reason).collect();
        return Err(Stop::Unsupported(match reasons.as_slice() {
            [] => format!("no kernel for {format} runs on this GPU"),
            reasons => format!("no kernel for {format} runs on this GPU: {}", reasons.join("; ")),
        }));
    };
    (bench.tell)(Progress::Runs(choice.variant.name()));
    tally.phase.variant = Some(choice.variant.name().to_owned());
    tally.phase.is_untested = choice.variant.is_untested();
    tally.phase.code = choice.source.told();
    Ok(*choice)
}
