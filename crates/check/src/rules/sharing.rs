//! Ways to share the cards that are there.

use pitcrew_core::catalog::Card;

use super::Rule;
use crate::node::Node;
use crate::report::{Finding, Topic, listed, question};

pub(crate) const RULES: &[Rule] = &[ways, mig];

fn ways(node: &Node<'_>) -> Vec<Finding> {
    let cards = node.cards();
    let ask = || question(Topic::Sharing, "sharing.ways", "possible", "the hardware chart");
    if cards.is_empty() {
        return vec![ask().not_applicable("no GPU to share")];
    }
    let mut findings = Vec::new();
    for (name, card, _) in &cards {
        findings.push(match card {
            Some(card) if cards.len() == 1 => ask().ok(of(card)),
            Some(card) => ask().ok(format!("{name}: {}", of(card))),
            None => ask().note(
                format!("{name}: time-slicing"),
                "what else a card can do that is not in the chart, only its driver tells",
            ),
        });
    }
    findings
}

/// `MIG (7 instances), MPS (48 clients), time-slicing`.
fn of(card: &Card) -> String {
    let ways: Vec<String> = card
        .sharing()
        .iter()
        .map(|way| match (way.way, way.max_clients) {
            ("MIG", Some(most)) => format!("MIG (up to {most} instances)"),
            (name, Some(most)) => format!("{name} (up to {most} clients)"),
            (name, None) => name.to_owned(),
        })
        .collect();
    ways.join(", ")
}

/// MIG on and nothing cut, or a mode that waits for a reset.
fn mig(node: &Node<'_>) -> Vec<Finding> {
    let Ok(inventory) = node.gpus else {
        return Vec::new();
    };
    let modes: Vec<_> = inventory
        .gpus
        .iter()
        .filter_map(|gpu| Some((gpu, gpu.readings.mig_mode.value()?)))
        .collect();
    if modes.is_empty() {
        return Vec::new();
    }
    let ask = question(Topic::Sharing, "sharing.mig", "MIG", "NVML");
    let pending: Vec<_> = modes
        .iter()
        .filter(|(_, mode)| mode.current != mode.pending)
        .map(|(gpu, _)| gpu.index)
        .collect();
    let empty: Vec<_> = modes
        .iter()
        .filter(|(gpu, mode)| mode.current && gpu.readings.mig_devices.value().is_some_and(Vec::is_empty))
        .map(|(gpu, _)| gpu.index)
        .collect();
    vec![if !pending.is_empty() {
        let gpus: Vec<String> = pending.iter().map(ToString::to_string).collect();
        let finding = ask.warning(
            format!("a change waits for a reset of GPU {}", listed(pending)),
            "until then the GPU stays as it is; a reset needs it idle",
        );
        // A virtual machine may not reset a GPU that was passed through to it.
        if node.host.system.hypervisor.value().is_some() {
            finding
                .next("sudo reboot".to_owned())
                .care(node.advice.before_reboot())
        } else {
            finding.next(format!("sudo nvidia-smi --gpu-reset -i {}", gpus.join(",")))
        }
    } else if !empty.is_empty() {
        ask.warning(
            format!("on, with no instance, on GPU {}", listed(empty)),
            "a GPU in MIG mode can't be used whole: it has nothing to hand out until it is cut",
        )
        .next("sudo nvidia-smi mig -lgip".to_owned())
    } else {
        let on = modes.iter().filter(|(_, mode)| mode.current).count();
        ask.ok(match on {
            0 => "off".to_owned(),
            on => format!("on, on {on} of {} GPUs", inventory.gpus.len()),
        })
    }]
}

#[cfg(test)]
mod tests {
    use pitcrew_core::ports::InventorySource;
    use pitcrew_scenario::{Machine, Scenario};

    use crate::check;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample::{self, gpu};

    #[test]
    fn a_card_tells_how_it_can_be_shared() {
        let found = |device| {
            let host = sample::host().gpus(vec![gpu("0000:01:00.0", device)]).build();
            one(&host, "sharing.ways").found
        };
        assert_eq!(found(0x2503), "MPS (up to 48 clients), time-slicing");
        assert_eq!(
            found(0x2330),
            "MIG (up to 7 instances), MPS (up to 48 clients), time-slicing"
        );
    }

    #[test]
    fn mig_without_instances_hands_out_nothing() {
        let text = "description: one A30\ndriver: {version: 580.159.04, cuda: \"13.0\"}\n\
                    gpus: [{card: A30, mig: {enabled: true}}]\n";
        let inventory = Machine::new(Scenario::parse(text, "a30").unwrap())
            .inventory()
            .unwrap();
        let report = check(&sample::host().build(), Ok(&inventory));
        let finding = report.finding("sharing.mig").unwrap();
        assert_eq!(finding.verdict, Verdict::Warning);
        assert_eq!(finding.found, "on, with no instance, on GPU 0");
    }
}
