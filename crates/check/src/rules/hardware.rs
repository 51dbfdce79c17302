//! The cards on the PCI bus.

use pitcrew_core::Reading;
use pitcrew_host::facts::PciGpu;

use super::Rule;
use crate::node::{NoGpu, Node, is_vfio};
use crate::report::{Finding, Topic, listed, question};

pub(crate) const RULES: &[Rule] = &[present, bars, vfio, virtual_functions];

const BUS: &str = "/sys/bus/pci/devices";
const LIST: &str = "lspci -nnk -d 10de:";

fn all<'a>(node: &Node<'a>) -> &'a [PciGpu] {
    node.host.gpus.value().map_or(&[], Vec::as_slice)
}

/// Is there a card at all?
fn present(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(Topic::Hardware, "pci.gpus", "GPUs on the PCI bus", BUS);
    let finding = match (&node.host.gpus, node.usable()) {
        (Reading::Failed(reason), _) => ask.unknown(reason),
        (_, Err(NoGpu::None | NoGpu::Unreadable)) => {
            let why = if node.host.system.hypervisor.value().is_some() {
                "no display device of vendor 10de is on the bus: no GPU is passed through to this virtual machine"
            } else {
                "no display device of vendor 10de is on the bus: the card is absent, not seated, or switched off in \
                 the firmware"
            };
            ask.failure("no NVIDIA GPU", why).next(LIST.to_owned())
        }
        _ => {
            let gpus: Vec<_> = all(node).iter().map(|gpu| (node.name(gpu), gpu)).collect();
            ask.ok(grouped(&gpus))
        }
    };
    vec![finding]
}

/// `8 GPUs: 8x H100 SXM5 80GB`; a single one with its address.
fn grouped(gpus: &[(String, &PciGpu)]) -> String {
    if let [(name, gpu)] = gpus {
        return format!("1 GPU: {name} at {}", gpu.function.address);
    }
    let mut groups: Vec<(String, usize)> = Vec::new();
    for (name, _) in gpus {
        match groups.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += 1,
            None => groups.push((name.clone(), 1)),
        }
    }
    let groups = groups.iter().map(|(name, count)| format!("{count}x {name}"));
    format!("{} GPUs: {}", gpus.len(), listed(groups))
}

/// Did the firmware find room for the card's memory?
fn bars(node: &Node<'_>) -> Vec<Finding> {
    let ask = || {
        let looked_at = format!("{BUS}/*/resource");
        question(Topic::Hardware, "pci.bars", "PCI address space", looked_at)
    };
    let gpus = all(node);
    if gpus.is_empty() {
        return vec![ask().not_applicable("no GPU on this node")];
    }
    let unread = gpus.iter().find_map(|gpu| gpu.unassigned_bars.failure());
    let bad: Vec<String> = gpus
        .iter()
        .filter_map(|gpu| {
            let bars = gpu.unassigned_bars.value().filter(|bars| !bars.is_empty())?;
            Some(format!("BAR {} of {}", listed(bars), gpu.function.address))
        })
        .collect();
    if bad.is_empty() {
        return vec![match unread {
            Some(reason) => ask().unknown(reason).minor(),
            None if gpus.iter().all(|gpu| gpu.unassigned_bars.value().is_none()) => {
                ask().not_applicable("the kernel lists no BARs")
            }
            None => ask().ok("every BAR has its address"),
        }];
    }
    let found = format!("without an address: {}", listed(bad));
    let is_tried = node
        .host
        .system
        .command_line
        .value()
        .is_some_and(|words| words.iter().any(|word| word.starts_with("pci=realloc")));
    let in_vm = node.host.system.hypervisor.value().is_some();
    let why = match (in_vm, is_tried) {
        (true, false) => {
            "the virtual firmware has no room for the card's memory: enlarge the VM's 64-bit MMIO window, or let the \
             kernel assign addresses anew"
        }
        (true, true) => {
            "pci=realloc is set and did not help: enlarge the 64-bit MMIO window of this VM at its hypervisor"
        }
        (false, false) => {
            "the firmware has no room for the card's memory: switch on Above 4G Decoding there, or let the kernel \
             assign addresses anew"
        }
        (false, true) => {
            "pci=realloc is set and did not help: switch on Above 4G Decoding in the firmware, or update it"
        }
    };
    let finding = ask().failure(found, why);
    vec![if is_tried {
        finding.next("sudo dmesg | grep -i 'BAR.*assign'".to_owned())
    } else {
        finding
            .next(node.advice.kernel_argument("pci=realloc"))
            .care(node.advice.before_reboot())
    }]
}

/// Are cards kept for virtual machines?
fn vfio(node: &Node<'_>) -> Vec<Finding> {
    let gpus = all(node);
    let kept: Vec<_> = gpus
        .iter()
        .filter(|gpu| is_vfio(gpu))
        .map(|gpu| gpu.function.address)
        .collect();
    let looked_at = format!("{BUS}/*/driver");
    let ask = question(Topic::Hardware, "pci.vfio", "kept for VMs", looked_at);
    vec![if gpus.is_empty() {
        ask.not_applicable("no GPU on this node")
    } else if kept.is_empty() {
        ask.not_applicable("no GPU is bound to vfio-pci")
    } else if kept.len() == gpus.len() {
        ask.failure(
            format!("all GPUs are bound to vfio-pci: {}", listed(kept)),
            "GPUs bound to vfio-pci belong to virtual machines and are left alone; none is left for containers",
        )
        .next(LIST.to_owned())
    } else {
        ask.note(
            format!("bound to vfio-pci: {}", listed(kept)),
            "they belong to virtual machines: reported, never advertised or touched",
        )
    }]
}

/// Are there vGPUs?
fn virtual_functions(node: &Node<'_>) -> Vec<Finding> {
    let count = all(node).iter().filter(|gpu| gpu.is_virtual_function).count();
    if count == 0 {
        return Vec::new();
    }
    let looked_at = format!("{BUS}/*/physfn");
    let ask = question(Topic::Hardware, "pci.virtual-functions", "vGPUs", looked_at);
    vec![ask.note(
        format!("{count} of the GPUs are virtual functions"),
        "a virtual function is handed to a virtual machine by NVIDIA's vGPU manager, which pitcrew does not manage",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample::{self, gpu, held_by, text};

    #[test]
    fn one_card_is_named_with_its_address_and_several_are_counted() {
        let found = |host: &pitcrew_host::Host| one(host, "pci.gpus").found;
        assert_eq!(
            found(&sample::host().build()),
            "1 GPU: GeForce RTX 3060 12GB at 0000:01:00.0"
        );
        let gpus = vec![
            gpu("0000:01:00.0", 0x2330),
            gpu("0000:02:00.0", 0x2330),
            gpu("0000:03:00.0", 0xffff),
        ];
        assert_eq!(
            found(&sample::host().gpus(gpus).build()),
            "3 GPUs: 2x H100 SXM5 80GB and 1x unknown card 10de:ffff"
        );
    }

    #[test]
    fn without_a_card_the_reason_differs_on_metal_and_in_a_vm() {
        let metal = one(&sample::host().gpus(Vec::new()).build(), "pci.gpus");
        assert_eq!(metal.verdict, Verdict::Failure);
        assert!(metal.why.unwrap().contains("not seated"));
        let vm = sample::host()
            .gpus(Vec::new())
            .with(|host| host.system.hypervisor = text("kvm"));
        assert!(
            one(&vm.build(), "pci.gpus")
                .why
                .unwrap()
                .contains("passed through")
        );
    }

    #[test]
    fn an_unassigned_bar_names_the_window_in_a_vm_and_never_asks_for_what_was_tried() {
        let mut bad = gpu("0000:06:00.0", 0x2330);
        bad.unassigned_bars = Reading::Value(vec![1, 3]);
        let host = sample::host().gpus(vec![bad]).with(|host| {
            host.system.hypervisor = text("kvm");
        });
        let finding = one(&host.build(), "pci.bars");
        assert_eq!(finding.found, "without an address: BAR 1 and 3 of 0000:06:00.0");
        assert!(finding.next.unwrap().contains("pci=realloc"));
        let mut bad = gpu("0000:06:00.0", 0x2330);
        bad.unassigned_bars = Reading::Value(vec![1]);
        let host = sample::host().gpus(vec![bad]).with(|host| {
            host.system.command_line = Reading::Value(vec!["pci=realloc".to_owned()]);
        });
        let finding = one(&host.build(), "pci.bars");
        assert!(!finding.next.unwrap().contains("grub"));
        assert!(finding.why.unwrap().contains("did not help"));
    }

    #[test]
    fn cards_of_virtual_machines_are_reported_and_never_touched() {
        let kept = held_by(gpu("0000:01:00.0", 0x2330), "vfio-pci");
        let host = sample::host().gpus(vec![kept.clone(), gpu("0000:02:00.0", 0x2330)]);
        assert_eq!(one(&host.build(), "pci.vfio").verdict, Verdict::Note);
        let host = sample::host().gpus(vec![kept]).build();
        let finding = one(&host, "pci.vfio");
        assert_eq!(finding.verdict, Verdict::Failure);
        assert!(!finding.next.unwrap().contains("unbind"));
        assert_eq!(one(&host, "driver.module").verdict, Verdict::NotApplicable);
    }

    #[test]
    fn a_bus_that_cannot_be_read_is_unknown_and_not_empty() {
        let host = sample::host().with(|host| host.gpus = Reading::Failed("permission denied".to_owned()));
        let finding = one(&host.build(), "pci.gpus");
        assert_eq!(
            (finding.verdict, finding.found.as_str()),
            (Verdict::Unknown, "permission denied")
        );
    }
}
