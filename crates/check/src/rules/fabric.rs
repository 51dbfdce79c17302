//! Fabric Manager: needed where the GPUs are joined by `NVSwitch`es.

use pitcrew_core::Reading;
use pitcrew_core::catalog::{Architecture, Card};
use pitcrew_host::facts::Service;

use super::Rule;
use super::driver::without_gpu;
use crate::advice;
use crate::node::{Node, branch};
use crate::report::{Finding, Topic, listed, question};

pub(crate) const RULES: &[Rule] = &[manager];

/// GPUs of one board from which on an HGX board is assumed in a virtual machine: those with `NVSwitch`es have 4 or more.
const HGX_GPUS: usize = 4;

const WHY: &str = "until Fabric Manager of the driver's very version has set up the NVSwitches, CUDA fails with error \
                   802 (system not yet initialized)";

/// What the driver says of the GPUs and their fabric.
enum Registration {
    /// Nothing: no GPU has a fabric, or none could be asked.
    Silent,
    /// All of this many GPUs are registered.
    Complete(usize),
    /// How far those are that are not.
    Incomplete(String),
}

impl Registration {
    fn of(node: &Node<'_>) -> Self {
        let gpus = node.usable().unwrap_or_default();
        let known: Vec<_> = gpus
            .into_iter()
            .filter_map(|gpu| node.reading(gpu))
            .filter_map(|gpu| Some((gpu.index, gpu.readings.fabric.value()?)))
            .collect();
        let mut behind: Vec<(String, Vec<u32>)> = Vec::new();
        for (index, fabric) in known.iter().filter(|(_, fabric)| !fabric.is_registered()) {
            let words = match &fabric.status {
                Some(status) => format!("ended with `{status}`"),
                None => fabric.state.to_string(),
            };
            match behind.iter_mut().find(|(known, _)| *known == words) {
                Some((_, gpus)) => gpus.push(*index),
                None => behind.push((words, vec![*index])),
            }
        }
        if behind.is_empty() {
            return match known.len() {
                0 => Self::Silent,
                count => Self::Complete(count),
            };
        }
        if let [(words, gpus)] = behind.as_slice()
            && gpus.len() == known.len()
            && known.len() > 1
        {
            return Self::Incomplete(format!("registration of all {} GPUs {words}", known.len()));
        }
        let parts = behind
            .into_iter()
            .map(|(words, gpus)| format!("{words} on GPU {}", listed(gpus)));
        Self::Incomplete(format!("registration {}", listed(parts)))
    }
}

fn manager(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Driver,
        "driver.fabric-manager",
        "Fabric Manager",
        "NVML, NVSwitch bridges on the PCI bus, nvidia-fabricmanager.service",
    );
    if let Err(no_gpu) = node.usable() {
        return without_gpu(ask, &no_gpu);
    }
    let service = node.host.services.fabric_manager;
    let switches = match &node.host.nvswitches {
        Reading::Value(count) if *count > 0 => Some(count),
        Reading::Value(_) | Reading::NotSupported | Reading::Failed(_) => None,
    };
    // That the GPUs are registered is what a Fabric Manager is for, wherever it runs: here, in a container, or beside
    // the hypervisor.
    let finding = match (Registration::of(node), switches, &node.host.nvswitches) {
        (Registration::Complete(gpus), _, _) => {
            let gpus = match gpus {
                1 => "1 GPU is registered".to_owned(),
                count => format!("{count} GPUs are registered"),
            };
            ask.ok(switches.map_or_else(|| gpus.clone(), |count| format!("{gpus}, {count} NVSwitches")))
        }
        (Registration::Incomplete(found), _, _) => {
            ask.failure(found, WHY).next(next(node, switches.is_some()))
        }
        (Registration::Silent, None, Reading::Failed(reason)) => ask.unknown(reason).minor(),
        (Registration::Silent, Some(count), _) => match service {
            Service::Running => ask.ok(format!("runs, for {count} NVSwitches")),
            Service::Enabled => ask.note(
                format!("enabled, for {count} NVSwitches; whether it runs can't be seen"),
                WHY,
            ),
            Service::Installed => ask
                .failure(format!("installed, not running; {count} NVSwitches"), WHY)
                .next(next(node, true)),
            Service::Absent => ask
                .failure(format!("not installed; {count} NVSwitches"), WHY)
                .next(next(node, true)),
        },
        (Registration::Silent, None, _) if is_hgx_in_vm(node) => ask.note(
            "HGX GPUs in a virtual machine, no NVSwitch passed through",
            "Fabric Manager then runs beside the hypervisor; if CUDA fails with error 802, look there",
        ),
        // From Blackwell on the switches of an HGX board are no PCI devices.
        (Registration::Silent, None, _) if is_blackwell_hgx(node) => match service {
            Service::Running => ask.ok("runs, for the NVSwitches of an HGX board of Blackwell"),
            Service::Absent | Service::Installed | Service::Enabled => ask
                .warning(
                    "not seen to run; an HGX board of Blackwell has NVSwitches, which are not on the PCI bus",
                    WHY,
                )
                .next(next(node, true)),
        },
        (Registration::Silent, None, _) => ask.not_applicable("no NVSwitches"),
    };
    vec![finding]
}

/// The next command for GPUs that are not registered.
fn next(node: &Node<'_>, has_switches: bool) -> String {
    let is_virtual = node.host.system.hypervisor.value().is_some();
    match node.host.services.fabric_manager {
        // Switches that were not passed through are the hypervisor's, and so is what sets them up.
        _ if is_virtual && !has_switches => {
            "on the hypervisor, not here: sudo systemctl status nvidia-fabricmanager".to_owned()
        }
        Service::Running => "sudo journalctl -b -u nvidia-fabricmanager".to_owned(),
        Service::Enabled => "sudo systemctl restart nvidia-fabricmanager".to_owned(),
        Service::Installed => "sudo systemctl enable --now nvidia-fabricmanager".to_owned(),
        Service::Absent => {
            let version = node.host.driver.kernel_version.value();
            let branch = version
                .and_then(|version| branch(version))
                .unwrap_or(advice::BRANCH);
            node.advice.install_fabric_manager(branch)
        }
    }
}

/// SXM cards that only exist on boards with `NVSwitch`es, several of them, and none of the switches to be seen.
fn is_hgx_in_vm(node: &Node<'_>) -> bool {
    let is_virtual = node.host.system.hypervisor.value().is_some();
    is_virtual && hgx_cards(node).next().is_some()
}

/// Boards whose switches can't be seen.
fn is_blackwell_hgx(node: &Node<'_>) -> bool {
    hgx_cards(node).any(|card| card.architecture == Architecture::Blackwell)
}

/// Cards on an HGX board, enough of them for one with `NVSwitch`es.
fn hgx_cards(node: &Node<'_>) -> impl Iterator<Item = &'static Card> {
    node.cards()
        .into_iter()
        .filter(|(.., count)| *count >= HGX_GPUS)
        .filter_map(|(_, card, _)| card)
        .filter(|card| card.nvlink_gbs >= 600 && (card.name.contains("SXM") || card.name.contains("HGX")))
}

#[cfg(test)]
mod tests {
    use pitcrew_core::ports::InventorySource;
    use pitcrew_scenario::{Machine, Scenario};

    use super::*;
    use crate::check;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample::{self, gpu, text};

    fn hgx(switches: u32, service: Service) -> Finding {
        let gpus = (1..=8)
            .map(|bus| gpu(&format!("0000:0{bus}:00.0"), 0x2330))
            .collect();
        let host = sample::host().gpus(gpus).with(|host| {
            host.nvswitches = Reading::Value(switches);
            host.services.fabric_manager = service;
        });
        one(&host.build(), "driver.fabric-manager")
    }

    #[test]
    fn nvswitches_need_a_running_fabric_manager_of_the_drivers_branch() {
        assert_eq!(hgx(4, Service::Running).verdict, Verdict::Ok);
        assert_eq!(hgx(4, Service::Enabled).verdict, Verdict::Note);
        assert_eq!(
            hgx(4, Service::Installed).next.unwrap(),
            "sudo systemctl enable --now nvidia-fabricmanager"
        );
        let absent = hgx(4, Service::Absent);
        assert_eq!(absent.verdict, Verdict::Failure);
        assert!(
            absent
                .next
                .unwrap()
                .starts_with("sudo apt install nvidia-fabricmanager-580 ")
        );
        assert_eq!(hgx(0, Service::Absent).verdict, Verdict::NotApplicable);
    }

    #[test]
    fn a_blackwell_board_needs_it_although_its_switches_are_not_on_the_bus() {
        let with = |service| {
            let gpus = (1..=8)
                .map(|bus| gpu(&format!("0000:0{bus}:00.0"), 0x2901))
                .collect();
            let host = sample::host().gpus(gpus).with(|host| {
                host.services.fabric_manager = service;
            });
            one(&host.build(), "driver.fabric-manager").verdict
        };
        assert_eq!(with(Service::Running), Verdict::Ok);
        assert_eq!(with(Service::Absent), Verdict::Warning);
    }

    #[test]
    fn hgx_gpus_in_a_virtual_machine_are_told_where_to_look() {
        let gpus = (1..=8)
            .map(|bus| gpu(&format!("0000:0{bus}:00.0"), 0x2330))
            .collect();
        let host = sample::host()
            .gpus(gpus)
            .with(|host| host.system.hypervisor = text("kvm"));
        assert_eq!(one(&host.build(), "driver.fabric-manager").verdict, Verdict::Note);
    }

    /// Two H100 whose driver says this of their fabric, and what else is true of the node.
    fn two(first: &str, second: &str, change: impl FnOnce(&mut pitcrew_host::Host)) -> Finding {
        let text = format!(
            "description: x\ndriver: {{version: 580.159.04, cuda: \"13.0\"}}\ngpus:\n  \
             - {{card: H100 SXM5 80GB, readings: {{fabric: {first}}}}}\n  \
             - {{card: H100 SXM5 80GB, readings: {{fabric: {second}}}}}\n"
        );
        let scenario = Scenario::parse(&text, "two").unwrap();
        let inventory = Machine::new(scenario).inventory().unwrap();
        let gpus = vec![gpu("0000:01:00.0", 0x2330), gpu("0000:02:00.0", 0x2330)];
        let host = sample::host().gpus(gpus).with(change).build();
        check(&host, Ok(&inventory))
            .finding("driver.fabric-manager")
            .unwrap()
            .clone()
    }

    fn completed(status: &str) -> String {
        format!(
            "{{state: completed, status: {status}, clique: 0, \
             cluster_uuid: 00000000-0000-0000-0000-000000000000}}"
        )
    }

    #[test]
    fn gpus_that_are_registered_are_enough_wherever_fabric_manager_runs() {
        let success = completed("Success");
        let in_vm = two(&success, &success, |host| host.system.hypervisor = text("kvm"));
        assert_eq!(
            (in_vm.verdict, in_vm.found.as_str()),
            (Verdict::Ok, "2 GPUs are registered")
        );
        let in_container = two(&success, &success, |host| host.nvswitches = Reading::Value(4));
        assert_eq!(in_container.found, "2 GPUs are registered, 4 NVSwitches");
        let unreadable = two(&success, &success, |host| {
            host.nvswitches = Reading::Failed("permission denied".to_owned());
        });
        assert_eq!(unreadable.verdict, Verdict::Ok);
    }

    #[test]
    fn gpus_that_are_not_registered_fail_and_the_next_command_is_where_fabric_manager_runs() {
        let (success, failed) = (completed("Success"), completed("Unknown Error"));
        let in_vm = two("{state: in-progress}", &success, |host| {
            host.system.hypervisor = text("kvm");
        });
        assert_eq!(in_vm.verdict, Verdict::Failure);
        assert_eq!(in_vm.found, "registration in progress on GPU 0");
        assert!(in_vm.next.unwrap().starts_with("on the hypervisor"));

        let with_service = |service| {
            two("{state: not-started}", &failed, |host| {
                host.nvswitches = Reading::Value(4);
                host.services.fabric_manager = service;
            })
        };
        let running = with_service(Service::Running);
        assert_eq!(
            running.found,
            "registration not started on GPU 0 and ended with `Unknown Error` on GPU 1"
        );
        assert_eq!(
            running.next.unwrap(),
            "sudo journalctl -b -u nvidia-fabricmanager"
        );
        let absent = with_service(Service::Absent).next.unwrap();
        assert!(
            absent.starts_with("sudo apt install nvidia-fabricmanager-580 "),
            "{absent}"
        );
    }
}
