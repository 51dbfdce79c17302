//! What a person sees while a proof runs: one line that is drawn again, and what is found.

use std::time::{Duration, Instant};

use pitcrew_core::proof::{Device, Format, Outcome, PhaseKind, expected};
use pitcrew_prove::progress::Progress;

use super::rack::Target;
use crate::error::Error;
use crate::output::Output;
use crate::view::proof::live::{self, Live};

/// The state of every target.
pub(super) struct Board {
    begin: Instant,
    of: Vec<OfTarget>,
    is_drawn: bool,
}

struct OfTarget {
    device: Device,
    live: Live,
    /// The phase that runs, and the format of its operands.
    runs: Option<(PhaseKind, Option<Format>)>,
    is_done: bool,
}

impl Board {
    pub(super) fn new(targets: &[Target], total: Duration) -> Self {
        let of = targets.iter().map(|target| OfTarget {
            device: target.device.clone(),
            live: Live {
                device: target.device.title(),
                phase: "starting".to_owned(),
                total_s: total.as_secs_f64(),
                ..Live::default()
            },
            runs: None,
            is_done: target.setup_error.is_some(),
        });
        Self {
            begin: Instant::now(),
            of: of.collect(),
            is_drawn: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// Takes in what happened; gives what deserves a line that stays.
    pub(super) fn take(&mut self, index: usize, progress: &Progress) -> Option<String> {
        let of = self.of.get_mut(index)?;
        let live = &mut of.live;
        match progress {
            Progress::Began { step } => {
                live.phase = match step.format {
                    Some(format) => format!("{} {format}", step.kind),
                    None => step.kind.to_string(),
                };
                live.rate = None;
                live.variant = None;
                live.expected = expected_of(&of.device, step.kind, step.format, None);
                of.runs = Some((step.kind, step.format));
                None
            }
            Progress::Loads(format) => {
                live.phase = format!("kernels for {format}");
                None
            }
            Progress::Goes => None,
            Progress::Rate { rate, unit } => {
                live.rate = Some((*rate, *unit));
                None
            }
            Progress::Runs(variant) => {
                live.variant = Some((*variant).to_owned());
                if let Some((kind, format)) = of.runs {
                    live.expected = expected_of(&of.device, kind, format, Some(variant));
                }
                None
            }
            Progress::Sampled(sample) => {
                live.sample = Some(*sample);
                None
            }
            Progress::Checked {
                verified_outputs,
                corruption_count,
            } => {
                live.verified_outputs = *verified_outputs;
                live.corruption_count = *corruption_count;
                None
            }
            Progress::Found(text) => Some(format!("{}: {text}", live.device)),
            Progress::Ended(outcome) => match outcome {
                Outcome::Ran | Outcome::Interrupted => None,
                Outcome::Skipped { why, .. } | Outcome::Failed { why } => {
                    Some(format!("{}: {}: {why}", live.device, live.phase))
                }
            },
        }
    }

    pub(super) fn done(&mut self, index: usize) {
        if let Some(of) = self.of.get_mut(index) {
            of.is_done = true;
        }
    }

    /// Draws the line of the first target that still runs.
    pub(super) fn draw(&mut self, output: &mut Output<'_>) -> Result<(), Error> {
        let Some(width) = output.live_width() else {
            return Ok(());
        };
        let mut left = self.of.iter_mut().filter(|of| !of.is_done);
        let Some(first) = left.next() else { return Ok(()) };
        // Imaginary time goes faster.
        first.live.elapsed_s = first
            .live
            .sample
            .map_or(0.0, |sample| sample.at_s)
            .max(self.begin.elapsed().as_secs_f64().min(first.live.total_s));
        let others = left.count();
        let more = match others {
            0 => String::new(),
            others => format!("  +{others}"),
        };
        let line = live::line(&first.live, width.saturating_sub(more.len() + 1));
        self.is_drawn = true;
        output.live(&format!("{line}{more}"))
    }

    /// A line that stays, above the one that doesn't.
    pub(super) fn tell(&mut self, line: &str, output: &mut Output<'_>) -> Result<(), Error> {
        self.clear(output)?;
        output.remark(line)
    }

    pub(super) fn clear(&mut self, output: &mut Output<'_>) -> Result<(), Error> {
        if std::mem::take(&mut self.is_drawn) {
            output.live("")?;
        }
        Ok(())
    }
}

/// What a phase should reach, in the unit that it is measured in; products only once it is known which kernels make them.
fn expected_of(
    device: &Device,
    kind: PhaseKind,
    format: Option<Format>,
    variant: Option<&str>,
) -> Option<f64> {
    let expected = match kind {
        PhaseKind::Gemm => expected::product(device, format?, variant?),
        PhaseKind::Copy | PhaseKind::Triad => expected::memory(device),
        PhaseKind::HostToDevice | PhaseKind::DeviceToHost => expected::host(device),
        _ => None,
    };
    expected.map(|expected| expected.value)
}
