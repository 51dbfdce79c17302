//! Does the driver know the cards: not too old, not too new, and of the right flavour?

use pitcrew_core::catalog::{Card, KernelModules};

use super::Rule;
use super::driver::without_gpu;
use crate::node::{Node, branch};
use crate::report::{Finding, Topic, listed, question};

pub(crate) const RULES: &[Rule] = &[knows];

/// Why a driver does not run a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// Older than the card.
    TooOld(u32),
    /// It has dropped the card.
    TooNew(u32),
    /// The card needs the open kernel modules.
    NeedsOpen,
    /// The card needs the proprietary kernel modules.
    NeedsProprietary,
}

impl Misfit {
    /// As part of a sentence that begins with the card's name.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::TooOld(first) => format!("needs R{first} or newer"),
            Self::TooNew(last) => format!("was dropped after R{last}"),
            Self::NeedsOpen => "needs the open kernel modules".to_owned(),
            Self::NeedsProprietary => "needs the proprietary kernel modules".to_owned(),
        }
    }
}

/// Why this driver does not run this card; `open` where its flavour is known.
pub(crate) fn misfit(card: &Card, branch: u32, open: Option<bool>) -> Option<Misfit> {
    let support = card.driver_support();
    if let Some(first) = card.first_branch().filter(|first| branch < *first) {
        return Some(Misfit::TooOld(first));
    }
    if let Some(last) = support.last_branch.filter(|last| branch > *last) {
        return Some(Misfit::TooNew(last));
    }
    match (support.kernel_modules, open) {
        (KernelModules::OpenOnly, Some(false)) => Some(Misfit::NeedsOpen),
        (KernelModules::ProprietaryOnly, Some(true)) => Some(Misfit::NeedsProprietary),
        _ => None,
    }
}

fn knows(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Driver,
        "driver.support",
        "driver fits the card",
        "the driver's version, the hardware chart",
    );
    if let Err(no_gpu) = node.usable() {
        return without_gpu(ask, &no_gpu);
    }
    let driver = &node.host.driver;
    let Some(version) = driver.kernel_version.value() else {
        return vec![ask.not_applicable("no driver is loaded")];
    };
    let Some(branch) = branch(version) else {
        return vec![
            ask.unknown(format!("`{version}` is not a driver version"))
                .minor(),
        ];
    };
    let cards = node.cards();
    let open = driver.open_kernel_modules.value().copied();
    let misfits: Vec<_> = cards
        .iter()
        .filter_map(|(name, card, _)| Some((name, misfit((*card)?, branch, open)?)))
        .collect();
    let unknown: Vec<_> = cards
        .iter()
        .filter(|(_, card, _)| card.is_none())
        .map(|(name, ..)| name)
        .collect();
    let finding = if !misfits.is_empty() {
        let found = listed(
            misfits
                .iter()
                .map(|(name, misfit)| format!("{name} {}", misfit.words())),
        );
        let known: Vec<&Card> = cards.iter().filter_map(|(_, card, _)| *card).collect();
        ask.failure(
            format!("{found}; this is R{branch}"),
            "a driver that does not know a card leaves it alone, and no container gets it",
        )
        .next(node.advice.install_driver(&known))
        .care(node.advice.before_reboot())
    } else if !unknown.is_empty() {
        ask.note(
            format!("R{branch}; not in the chart: {}", listed(unknown)),
            "whether the driver supports a card that pitcrew does not know can't be told beforehand",
        )
    } else {
        let last = cards
            .iter()
            .filter_map(|(_, card, _)| card.and_then(|card| card.driver_support().last_branch))
            .min();
        match last {
            Some(last) => ask.note(
                format!("R{branch} knows it; R{last} is the last branch that does"),
                "keep the driver on this branch: the next one drops the card",
            ),
            None => ask.ok(format!("R{branch} knows it")),
        }
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample::{self, gpu};

    fn on(device: u16, driver: &str, open: bool) -> Finding {
        let host = sample::host()
            .gpus(vec![gpu("0000:01:00.0", device)])
            .driver(driver, open);
        one(&host.build(), "driver.support")
    }

    #[test]
    fn a_driver_fits_a_card_of_its_time_and_flavour() {
        // RTX 3060, V100, B200, H100 by their PCI ids.
        let cases = [
            (0x2503, "580.159.04", true, Verdict::Ok, "R580 knows it"),
            (
                0x1db6,
                "580.159.04",
                false,
                Verdict::Note,
                "R580 knows it; R580 is the last branch that does",
            ),
            (
                0x1db6,
                "595.58.03",
                false,
                Verdict::Failure,
                "Tesla V100 PCIe 32GB was dropped after R580; this is R595",
            ),
            (
                0x1db6,
                "580.159.04",
                true,
                Verdict::Failure,
                "Tesla V100 PCIe 32GB needs the proprietary kernel modules; this is R580",
            ),
            (
                0x2901,
                "580.159.04",
                false,
                Verdict::Failure,
                "B200 (HGX 180GB) needs the open kernel modules; this is R580",
            ),
            (
                0x2330,
                "515.105.01",
                false,
                Verdict::Failure,
                "H100 SXM5 80GB needs R525 or newer; this is R515",
            ),
        ];
        for (device, driver, open, verdict, found) in cases {
            let finding = on(device, driver, open);
            assert_eq!((finding.verdict, finding.found.as_str()), (verdict, found));
        }
    }

    #[test]
    fn a_card_that_is_not_in_the_chart_is_not_judged() {
        let finding = on(0xfffe, "580.159.04", true);
        assert_eq!(finding.verdict, Verdict::Note);
        assert_eq!(finding.found, "R580; not in the chart: unknown card 10de:fffe");
    }
}
