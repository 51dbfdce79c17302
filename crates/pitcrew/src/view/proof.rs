//! Reports of tested GPUs: for the terminal, for CI, for Prometheus, for the kubelet and for a browser.

pub(crate) mod fleet;
pub(crate) mod html;
pub(crate) mod junit;
pub(crate) mod live;
mod peers;
pub(crate) mod prometheus;
mod stands_out;
mod summary;
pub(crate) mod termination;

#[cfg(test)]
pub(crate) mod example;

use pitcrew_core::proof::{
    DeviceEvidence, Figure, Grade, Outcome, Phase, PhaseKind, Report, Sample, Verdict,
};

pub(crate) use summary::summary;

/// A text from outside on one line, without what a terminal would act on.
fn plain(text: &str) -> String {
    let kept = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    kept.collect::<String>().trim().to_owned()
}

/// Three or more digits that count: `12.3`, `785`, `1570`.
fn short(figure: f64) -> String {
    if figure.abs() < 100.0 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.0}")
    }
}

/// `950`, `67,108,864`, `1.2e13`: exact while it can be read.
fn count(number: u64) -> String {
    if number >= 100_000_000 {
        #[expect(clippy::cast_precision_loss, reason = "two digits of it are shown")]
        let number = number as f64;
        return format!("{number:.1e}");
    }
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in GiB or TiB.
fn bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one place behind the point is shown")]
    let gib = bytes as f64 / f64::from(1 << 30);
    if gib < 1024.0 {
        format!("{gib:.1} GiB")
    } else {
        format!("{:.1} TiB", gib / 1024.0)
    }
}

/// The figure of a phase.
fn figure_of<'a>(report: &'a Report, device: usize, phase: &Phase) -> Option<&'a Figure> {
    let figures = report.judgement.figures.iter();
    figures
        .filter(|figure| figure.device == device)
        .find(|figure| figure.phase == phase.kind && figure.format == phase.format)
}

/// The first figure of a kind: of products that which the catalogue has a figure for, as it comes first in a run.
fn first_figure(report: &Report, device: usize, kind: PhaseKind) -> Option<&Figure> {
    let mut figures = report.judgement.figures.iter();
    figures.find(|figure| figure.device == device && figure.phase == kind)
}

/// What was compared in a phase: results, else bytes; nothing where nothing was.
fn compared(phase: &Phase) -> Option<String> {
    match (phase.verified_outputs, phase.verified_bytes) {
        (0, 0) => None,
        (0, of_memory) => Some(bytes(of_memory)),
        (outputs, _) => Some(count(outputs)),
    }
}

/// The most that samples say of something.
fn most(device: &DeviceEvidence, of: fn(&Sample) -> Option<f64>) -> Option<f64> {
    let told = device.samples.iter().filter_map(of);
    told.filter(|value| value.is_finite()).max_by(f64::total_cmp)
}

fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// NVLinks at the end of a run: `18 x 26.6 GB/s`, or `16 of 18` with some down; none for a GPU without.
fn links(device: &DeviceEvidence) -> Option<String> {
    let links = &device.after.nvlinks;
    let up = links.iter().filter(|link| link.up).count();
    if links.is_empty() {
        return device.after.nvlinks_active.map(|up| up.to_string());
    }
    let speeds = links
        .iter()
        .filter(|link| link.up)
        .filter_map(|link| link.speed_mbs);
    #[expect(clippy::cast_precision_loss, reason = "one place behind the point is shown")]
    let speed = speeds
        .min()
        .map(|speed| format!(" x {:.1} GB/s", speed as f64 / 1000.0));
    let of = if up == links.len() {
        String::new()
    } else {
        format!(" of {}", links.len())
    };
    Some(format!("{up}{of}{}", speed.unwrap_or_default()))
}

/// The verdict on a device; a report that was read has one for each.
fn verdict_of(report: &Report, device: usize) -> Verdict {
    report
        .judgement
        .verdicts
        .get(device)
        .copied()
        .unwrap_or(report.verdict)
}

/// What keeps work from being well, in few words; `wrong`: results or words of it that are.
fn trouble(outcome: &Outcome, wrong: u64) -> Option<String> {
    match outcome {
        Outcome::Skipped { why, .. } => Some(format!("skipped: {}", plain(why))),
        Outcome::Failed { why } => Some(format!("failed: {}", plain(why))),
        Outcome::Ran | Outcome::Interrupted => (wrong > 0).then(|| format!("{} WRONG", count(wrong))),
    }
}

/// How a phase ended, in few words.
fn result_of(report: &Report, device: usize, phase: &Phase) -> String {
    if let Some(trouble) = trouble(&phase.outcome, phase.corruption_count) {
        return trouble;
    }
    let grade = figure_of(report, device, phase).map_or(Grade::Unrated, |figure| figure.grade);
    let words = match grade {
        Grade::Good => "good",
        Grade::Low => "low",
        Grade::Bad => "much too low",
        Grade::Unrated => "ok",
    };
    if phase.outcome == Outcome::Interrupted {
        return format!("{words}, cut short");
    }
    words.to_owned()
}

/// Wrong results and words of a device, and results and bytes that were compared.
fn totals(device: &DeviceEvidence) -> (u64, u64, u64) {
    let sum = |of: fn(&Phase) -> u64| device.phases.iter().map(of).fold(0, u64::saturating_add);
    (
        sum(|phase| phase.corruption_count),
        sum(|phase| phase.verified_outputs),
        sum(|phase| phase.verified_bytes),
    )
}

/// Where a reason is: `GPU 3`, or nothing for the whole run.
fn place(report: &Report, device: Option<usize>) -> Option<String> {
    let device = report.evidence.devices.get(device?)?;
    Some(plain(&device.device.title()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_while_they_can_be_read() {
        assert_eq!(count(0), "0");
        assert_eq!(count(950), "950");
        assert_eq!(count(67_108_864), "67,108,864");
        assert_eq!(count(12_345_678_901_234), "1.2e13");
        assert_eq!(
            (short(12.34), short(785.4)),
            ("12.3".to_owned(), "785".to_owned())
        );
        assert_eq!(
            (bytes(72 << 30), bytes(3 << 40)),
            ("72.0 GiB".to_owned(), "3.0 TiB".to_owned())
        );
    }

    #[test]
    fn a_text_from_outside_can_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mred\nline\u{7}"), "a [31mred line");
    }
}
