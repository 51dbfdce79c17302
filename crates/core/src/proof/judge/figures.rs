//! What was reached, against what should be.

use super::environment::{ClockReason, clock_reason};
use super::{Found, some, title_of};
use crate::proof::expected::{self, Expected};
use crate::proof::thresholds::{Borders, Thresholds};
use crate::proof::{
    DeviceEvidence, Evidence, Figure, Format, Grade, PeerPath, PeerRoute, Phase, PhaseKind, ReasonCode, Unit,
    Verdict,
};

/// Most SMs that a sentence names.
const NAMED: usize = 5;

pub(super) fn of_device(index: usize, device: &DeviceEvidence, thresholds: &Thresholds, found: &mut Found) {
    for phase in device.phases.iter().filter(|phase| phase.outcome.has_results()) {
        found.phase = Some(phase.title());
        slow_sms(device, phase, thresholds, found);
        let Some(rate) = phase.rate else { continue };
        let mut figure = Figure {
            device: index,
            phase: phase.kind,
            format: phase.format,
            variant: phase.variant.clone(),
            unit: rate.unit,
            measured: rate.p50,
            expected: None,
            basis: None,
            ratio: None,
            pipe_efficiency: None,
            pipe_efficiency_expected: None,
            clock_ratio: None,
            grade: Grade::Unrated,
        };
        let told = &device.device;
        let bounds = match phase.kind {
            PhaseKind::Gemm | PhaseKind::MmaLoop => {
                compute(device, phase, &mut figure, thresholds, found);
                None
            }
            PhaseKind::Copy | PhaseKind::Triad => {
                let failure = (ReasonCode::BelowExpected, Verdict::FailPerf);
                Some((thresholds.expected_memory(told), thresholds.memory, failure))
            }
            PhaseKind::HostToDevice | PhaseKind::DeviceToHost if told.mig.is_none() => {
                let failure = (ReasonCode::PcieLink, Verdict::FailEnv);
                Some((thresholds.expected_host(told), thresholds.pcie, failure))
            }
            _ => None,
        };
        if let Some((Some(expected), borders, failure)) = bounds {
            bandwidth(device, phase, &mut figure, &expected, borders, failure, found);
        }
        found.figures.push(figure);
    }
    found.phase = None;
}

fn put(figure: &mut Figure, expected: &Expected) {
    figure.expected = Some(expected.value);
    figure.basis = Some(expected.basis.clone());
    if expected.value > 0.0 {
        figure.ratio = Some(figure.measured / expected.value);
    }
}

fn bandwidth(
    device: &DeviceEvidence,
    phase: &Phase,
    figure: &mut Figure,
    expected: &Expected,
    borders: Borders,
    (code, fail): (ReasonCode, Verdict),
    found: &mut Found,
) {
    put(figure, expected);
    let Some(ratio) = figure.ratio else { return };
    if device.is_shared() {
        return;
    }
    figure.grade = borders.grade(ratio);
    if let Some(verdict) = fault(figure.grade, expected.is_measured, fail) {
        let text = sentence(&phase.title(), figure.measured, expected, figure.unit);
        found.add(verdict, code, text);
    }
}

/// What a grade leads to; one that may not fail warns.
fn fault(grade: Grade, may_fail: bool, fail: Verdict) -> Option<Verdict> {
    match grade {
        Grade::Unrated | Grade::Good => None,
        Grade::Bad if may_fail => Some(fail),
        Grade::Bad | Grade::Low => Some(Verdict::Warn),
    }
}

/// E.g. `copy: 2400 of 3017 GB/s (80 %; the latter is measured)`.
fn sentence(title: &str, measured: f64, expected: &Expected, unit: Unit) -> String {
    let basis = &*expected.basis;
    let basis = basis.split([':', ';', ',', '(']).next().unwrap_or(basis).trim();
    format!(
        "{title}: {} of {} {unit} ({:.0} %; the latter is {basis})",
        short(measured),
        short(expected.value),
        measured / expected.value * 100.0,
    )
}

fn short(figure: f64) -> String {
    if figure < 100.0 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.0}")
    }
}

fn compute(
    device: &DeviceEvidence,
    phase: &Phase,
    figure: &mut Figure,
    thresholds: &Thresholds,
    found: &mut Found,
) {
    let (Some(format), Some(variant)) = (phase.format, phase.variant.as_deref()) else {
        return;
    };
    efficiency(device, phase, format, figure);
    let is_loop = phase.kind == PhaseKind::MmaLoop;
    let reach = expected::pipe_efficiency(&device.device, format, variant, is_loop);
    figure.pipe_efficiency_expected = reach.as_ref().map(|reach| reach.value);
    let expected = if is_loop {
        None
    } else {
        thresholds.expected_product(&device.device, format, variant)
    };
    match (&expected, &reach) {
        (Some(expected), _) => put(figure, expected),
        (None, Some(reach)) if !is_loop => at_highest_clock(device, format, reach, figure),
        (None, _) => {}
    }
    if device.is_shared() {
        return;
    }
    let of_reach = figure
        .pipe_efficiency
        .zip(figure.pipe_efficiency_expected)
        .map(|(is, should)| is / should);
    let pipe = of_reach.map(|ratio| thresholds.pipe_efficiency.grade(ratio));
    if let (Some(grade), Some(reach)) = (pipe, &reach)
        && let Some(verdict) = fault(grade, reach.is_measured, Verdict::FailPerf)
    {
        let text = format!(
            "{}: {:.0} % of the SMs' peak at their clock, and a healthy chip reaches {:.0} % ({})",
            phase.title(),
            figure.pipe_efficiency.unwrap_or_default() * 100.0,
            reach.value * 100.0,
            reach.basis,
        );
        found.add(verdict, ReasonCode::PipeEfficiency, text);
    }
    let absolute = expected
        .as_ref()
        .zip(figure.ratio)
        .map(|(_, ratio)| thresholds.tensor.grade(ratio));
    figure.grade = pipe.into_iter().chain(absolute).max().unwrap_or(Grade::Unrated);
    let (Some(grade), Some(expected)) = (absolute, &expected) else {
        return;
    };
    let reason = clock_reason(device, phase);
    let explained = match reason {
        ClockReason::None => "",
        ClockReason::PowerLimit => "; the power limit held the clock",
        ClockReason::Brake => "; heat or the power supply held the clock",
        ClockReason::Set => "; its clock was set by somebody",
        ClockReason::Unknown => "; what held the clock is not known",
    };
    // Neighbours on one GPU share its power: a MIG device is not to blame.
    let may_fail = expected.is_measured
        && device.device.mig.is_none()
        && (pipe == Some(Grade::Bad) || reason == ClockReason::None);
    if let Some(verdict) = fault(grade, may_fail, Verdict::FailPerf) {
        let below = sentence(&phase.title(), figure.measured, expected, figure.unit);
        let text = format!("{below}{explained}");
        found.add(verdict, ReasonCode::BelowExpected, text);
    }
}

/// `pipe_efficiency` and `clock_ratio`.
fn efficiency(device: &DeviceEvidence, phase: &Phase, format: Format, figure: &mut Figure) {
    let Some(clock) = phase.sm_clock_mhz.filter(|clock| *clock > 0.0) else {
        return;
    };
    if let Some(highest) = device.device.clock_sm_max_mhz.filter(|clock| *clock > 0) {
        figure.clock_ratio = Some(clock / f64::from(highest));
    }
    let peak = expected::peak_per_clock(&device.device, format);
    if let (Some(sms), Some(peak)) = (device.device.sm_count.filter(|sms| *sms > 0), peak) {
        figure.pipe_efficiency = Some(figure.measured * 1e12 / (f64::from(sms) * clock * 1e6 * peak));
    }
}

/// For cards that aren't in the catalogue: what the SMs could do at their highest clock. No card holds that clock in large
/// products, so nothing is judged by it.
fn at_highest_clock(device: &DeviceEvidence, format: Format, reach: &Expected, figure: &mut Figure) {
    let device = &device.device;
    let peak = expected::peak_per_clock(device, format);
    if let (Some(sms), Some(clock), Some(peak)) = (device.sm_count, device.clock_sm_max_mhz, peak) {
        let value = f64::from(sms) * f64::from(clock) * 1e6 * peak * reach.value / 1e12;
        let basis = "computed: SMs at their highest clock".to_owned();
        put(
            figure,
            &Expected {
                value,
                basis,
                is_measured: false,
            },
        );
    }
}

fn slow_sms(device: &DeviceEvidence, phase: &Phase, thresholds: &Thresholds, found: &mut Found) {
    if phase.kind != PhaseKind::MmaLoop || device.is_shared() {
        return;
    }
    let slow: Vec<String> = (phase.sms.iter())
        .filter_map(|sm| Some((sm.sm, sm.relative_speed?)))
        .filter(|(_, speed)| *speed < thresholds.sm)
        .map(|(sm, speed)| format!("SM {sm} at {:.0} %", speed * 100.0))
        .collect();
    if slow.is_empty() {
        return;
    }
    let text = format!(
        "{}: slower than the others: {}",
        phase.title(),
        some(&slow, NAMED)
    );
    found.add(Verdict::Warn, ReasonCode::SlowSm, text);
}

pub(super) fn of_peers(evidence: &Evidence, thresholds: &Thresholds, found: &mut Found) {
    for path in evidence.peers.iter().filter(|path| path.outcome.has_results()) {
        found.device = Some(path.from);
        if let Some((verdict, text)) = of_path(evidence, path, thresholds) {
            found.add(verdict, ReasonCode::NvLink, text);
        }
    }
    found.device = None;
}

/// What a copy over NVLink that is too slow leads to.
fn of_path(evidence: &Evidence, path: &PeerPath, thresholds: &Thresholds) -> Option<(Verdict, String)> {
    let device = evidence.devices.get(path.from)?;
    let rate = path.rate.filter(|rate| rate.unit == Unit::Gbs)?;
    if device.is_shared() || path.route != PeerRoute::NvLink {
        return None;
    }
    let expected = thresholds.expected_nvlink(&device.device)?;
    let grade = thresholds.nvlink.grade(rate.p50 / expected.value);
    let verdict = fault(grade, expected.is_measured, Verdict::FailPerf)?;
    let title = format!("NVLink to {}", title_of(evidence, path.to));
    let text = sentence(&title, rate.p50, &expected, rate.unit);
    Some((verdict, text))
}
