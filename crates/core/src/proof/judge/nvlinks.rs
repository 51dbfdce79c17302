//! What the `NVLinks` say of themselves: which are up, how fast they were trained, what went wrong on them meanwhile.

use super::hardware::growth;
use super::{Found, some};
use crate::nvlink;
use crate::proof::thresholds::Thresholds;
use crate::proof::{Counters, DeviceEvidence, LinkState, ReasonCode, Verdict};

/// Most links that a sentence names.
const NAMED: usize = 6;

/// `seconds`: of the run.
pub(super) fn of_device(device: &DeviceEvidence, seconds: f64, thresholds: &Thresholds, found: &mut Found) {
    let (before, after) = (&device.before, &device.after);
    if after.nvlinks.is_empty() || before.nvlinks.is_empty() {
        all_together(before, after, found);
        return;
    }
    went_down(before, after, found);
    missing(device, found);
    slow(device, found);
    // Links that are well count some, also while nothing goes over them: 45 in a minute, two H100s' worst.
    let minutes = (seconds / 60.0).max(1.0);
    #[expect(clippy::cast_precision_loss, reason = "a border")]
    let most = thresholds.nvlink_crc as f64 * minutes;
    errors(before, after, most, found);
}

/// Where only sums are known.
fn all_together(before: &Counters, after: &Counters, found: &mut Found) {
    if let Some(errors) = growth(before.nvlink_errors, after.nvlink_errors) {
        let text = format!("{errors} errors on NVLinks");
        found.add(Verdict::Warn, ReasonCode::NvLink, text);
    }
    if let (Some(before), Some(after)) = (before.nvlinks_active, after.nvlinks_active)
        && after < before
    {
        let text = format!("{} of {before} NVLinks went down", before - after);
        found.add(Verdict::FailHardware, ReasonCode::NvLink, text);
    }
}

fn of(counters: &Counters, index: u32) -> Option<&LinkState> {
    counters.nvlinks.iter().find(|link| link.index == index)
}

/// `NVLink 3`, or `NVLinks 3, 7 and 2 more`.
fn named(links: &[u32]) -> String {
    let noun = if links.len() == 1 { "NVLink" } else { "NVLinks" };
    let names: Vec<String> = links.iter().map(u32::to_string).collect();
    format!("{noun} {}", some(&names, NAMED))
}

fn went_down(before: &Counters, after: &Counters, found: &mut Found) {
    let was_up = |link: &&LinkState| of(after, link.index).is_some_and(|now| link.up && !now.up);
    let down: Vec<u32> = (before.nvlinks.iter().filter(was_up))
        .map(|link| link.index)
        .collect();
    if !down.is_empty() {
        let text = format!("{} went down during the run", named(&down));
        found.add(Verdict::FailHardware, ReasonCode::NvLink, text);
    }
}

/// Links of the card that were down from the beginning, while others are up. A card none of whose links is up is one without a
/// bridge, or alone in a virtual machine.
fn missing(device: &DeviceEvidence, found: &mut Found) {
    let links = &device.before.nvlinks;
    let up = links.iter().filter(|link| link.up).count();
    let Some(wired) = device.device.card().and_then(nvlink::wired) else {
        return;
    };
    let wired = usize::try_from(wired).unwrap_or(usize::MAX);
    if up == 0 || up >= wired {
        return;
    }
    let down: Vec<u32> = (links.iter().filter(|link| !link.up))
        .map(|link| link.index)
        .collect();
    let which = if down.is_empty() {
        String::new()
    } else {
        format!("; down: {}", named(&down))
    };
    let text = format!("{up} of {wired} NVLinks are up{which}");
    found.add(Verdict::Warn, ReasonCode::NvLink, text);
}

/// Links that were trained to less than the others, or than all links of the architecture are.
fn slow(device: &DeviceEvidence, found: &mut Found) {
    let up = || device.after.nvlinks.iter().filter(|link| link.up);
    let fastest = up().filter_map(|link| link.speed_mbs).max();
    let usual = device
        .device
        .card()
        .and_then(|card| nvlink::speed_mbs(card.architecture));
    let Some(usual) = usual.or(fastest) else { return };
    let slow: Vec<&LinkState> = up()
        .filter(|link| link.speed_mbs.is_some_and(|speed| speed < usual))
        .collect();
    let Some(speed) = slow.iter().filter_map(|link| link.speed_mbs).min() else {
        return;
    };
    let which: Vec<u32> = slow.iter().map(|link| link.index).collect();
    let verb = if which.len() == 1 { "runs" } else { "run" };
    let text = format!("{} {verb} at {speed} MB/s, and {usual} are usual", named(&which));
    found.add(Verdict::Warn, ReasonCode::NvLink, text);
}

fn errors(before: &Counters, after: &Counters, most: f64, found: &mut Found) {
    for now in &after.nvlinks {
        let Some(then) = of(before, now.index) else {
            continue;
        };
        let grown = |of: fn(&LinkState) -> Option<u64>| growth(of(then), of(now)).unwrap_or_default();
        let crc = grown(|link| link.crc_flit).saturating_add(grown(|link| link.crc_data));
        let (replays, recoveries) = (grown(|link| link.replays), grown(|link| link.recoveries));
        let mut parts = Vec::new();
        #[expect(clippy::cast_precision_loss, reason = "a count, against a border")]
        if crc as f64 > most {
            parts.push(format!("{crc} wrong checksums"));
        }
        if replays > 0 {
            parts.push(format!("{replays} packets sent again"));
        }
        if recoveries > 0 {
            parts.push(format!("brought up anew {recoveries} times"));
        }
        if !parts.is_empty() {
            let text = format!("NVLink {}: {} during the run", now.index, parts.join(", "));
            found.add(Verdict::Warn, ReasonCode::NvLink, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{evidence, report};
    use super::*;

    fn links() -> Vec<LinkState> {
        let link = |index| LinkState {
            index,
            up: true,
            speed_mbs: Some(26_562),
            crc_flit: Some(10),
            crc_data: Some(0),
            replays: Some(1),
            recoveries: Some(0),
        };
        (0..18).map(link).collect()
    }

    /// The reasons of an H100 whose links were changed before and after.
    fn told(change: impl FnOnce(&mut Vec<LinkState>, &mut Vec<LinkState>)) -> (Verdict, Vec<String>) {
        let mut evidence = evidence();
        let device = &mut evidence.devices[0];
        let (mut before, mut after) = (links(), links());
        change(&mut before, &mut after);
        device.before.nvlinks = before;
        device.after.nvlinks = after;
        let report = report(evidence);
        let texts = report.judgement.reasons.into_iter().map(|reason| reason.text);
        (report.verdict, texts.collect())
    }

    #[test]
    fn links_that_are_well_and_links_that_are_not_there_are_no_reason() {
        assert_eq!(told(|_, _| {}), (Verdict::Pass, Vec::new()));
        let none = |before: &mut Vec<LinkState>, after: &mut Vec<LinkState>| {
            for link in before.iter_mut().chain(after) {
                *link = LinkState {
                    index: link.index,
                    ..LinkState::default()
                };
            }
        };
        assert_eq!(told(none), (Verdict::Pass, Vec::new()));
        // A hundred wrong checksums are nothing special.
        assert_eq!(told(|_, after| after[3].crc_flit = Some(110)).0, Verdict::Pass);
    }

    #[test]
    fn wrong_checksums_are_held_against_the_time_in_which_they_were_counted() {
        for (seconds, verdict) in [(60.0, Verdict::Warn), (300.0, Verdict::Pass)] {
            let mut evidence = evidence();
            evidence.run.seconds = seconds;
            let device = &mut evidence.devices[0];
            (device.before.nvlinks, device.after.nvlinks) = (links(), links());
            device.after.nvlinks[3].crc_data = Some(130);
            assert_eq!(report(evidence).verdict, verdict, "{seconds}");
        }
    }

    #[test]
    fn a_link_that_goes_down_is_broken_hardware_and_one_that_was_down_a_warning() {
        assert_eq!(
            told(|_, after| after[7].up = false),
            (
                Verdict::FailHardware,
                vec!["NVLink 7 went down during the run".to_owned()]
            )
        );
        let down = |before: &mut Vec<LinkState>, after: &mut Vec<LinkState>| {
            for links in [before, after] {
                links[4].up = false;
                links[5].up = false;
            }
        };
        assert_eq!(
            told(down),
            (
                Verdict::Warn,
                vec!["16 of 18 NVLinks are up; down: NVLinks 4, 5".to_owned()]
            )
        );
    }

    #[test]
    fn a_link_that_is_slow_or_had_errors_is_named() {
        assert_eq!(
            told(|_, after| after[2].speed_mbs = Some(13_281)).1,
            ["NVLink 2 runs at 13281 MB/s, and 26562 are usual"]
        );
        let all_slow = |_: &mut Vec<LinkState>, after: &mut Vec<LinkState>| {
            for link in after {
                link.speed_mbs = Some(20_000);
            }
        };
        assert_eq!(
            told(all_slow).1,
            ["NVLinks 0, 1, 2, 3, 4, 5 and 12 more run at 20000 MB/s, and 26562 are usual"]
        );
        let errors = |_: &mut Vec<LinkState>, after: &mut Vec<LinkState>| {
            after[3] = LinkState {
                crc_flit: Some(111),
                crc_data: Some(7),
                replays: Some(4),
                recoveries: Some(2),
                ..after[3]
            };
        };
        assert_eq!(
            told(errors),
            (
                Verdict::Warn,
                vec![
                    "NVLink 3: 108 wrong checksums, 3 packets sent again, brought up anew 2 times during the run"
                        .to_owned()
                ]
            )
        );
        // A counter that can't be read any more, and one that was reset, tell nothing.
        assert_eq!(told(|_, after| after[3].replays = None).0, Verdict::Pass);
        assert_eq!(told(|_, after| after[3].replays = Some(0)).0, Verdict::Pass);
    }
}
