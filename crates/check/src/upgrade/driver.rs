//! What another driver changes.

use pitcrew_core::Reading;
use pitcrew_core::catalog::KernelModules;
use pitcrew_core::inventory::CudaVersion;
use pitcrew_host::facts::Service;
use pitcrew_host::releases;

use super::target::DriverTarget;
use super::{Change, Effect};
use crate::node::{self, NoGpu, Node};
use crate::report::listed;
use crate::rules;

/// What the driver changes on this node.
pub(super) fn changes(node: &Node<'_>, target: &DriverTarget) -> Vec<Change> {
    let now = node.host.driver.kernel_version.value();
    let mut changes = vec![Change::compare(
        "driver",
        "driver",
        now.map_or("none", String::as_str),
        target.version.as_str(),
    )];
    if let Err(no_gpu) = node.usable() {
        changes.push(no_cards(&no_gpu));
        return changes;
    }
    changes.push(cards(node, target));
    changes.push(modules(node));
    changes.push(cuda(node, target));
    changes.extend(fabric_manager(node, target));
    changes.extend(secure_boot(node));
    changes.extend(specifications(node));
    changes.extend(pods(node));
    changes
}

/// Without a GPU that it would drive, nothing else hangs on the driver.
fn no_cards(no_gpu: &NoGpu) -> Change {
    let (id, title) = ("cards", "cards it knows");
    match no_gpu {
        NoGpu::Unreadable => Change::unknown(id, title, "unknown", no_gpu.words()),
        NoGpu::None | NoGpu::AllVfio => Change::compare(id, title, no_gpu.words(), no_gpu.words()),
    }
}

/// Cards that the driver does not know (any more).
fn cards(node: &Node<'_>, target: &DriverTarget) -> Change {
    let (id, title) = ("cards", "cards it knows");
    let cards = node.cards();
    let count = cards.iter().map(|(.., count)| count).sum::<usize>();
    let all = match count {
        1 => "the GPU".to_owned(),
        count => format!("all {count} GPUs"),
    };
    let lost: Vec<String> = cards
        .iter()
        .filter_map(|(name, card, count)| {
            let misfit = rules::misfit((*card)?, target.branch, None)?;
            Some(format!("{count}x {name} {}", misfit.words()))
        })
        .collect();
    let strangers: Vec<_> = cards
        .iter()
        .filter(|(_, card, _)| card.is_none())
        .map(|(name, ..)| name)
        .collect();
    if !lost.is_empty() {
        return Change::compare(id, title, all, listed(lost))
            .breaks()
            .why(format!(
                "R{} leaves these cards alone: they vanish from the node",
                target.branch
            ));
    }
    if !strangers.is_empty() {
        return Change::unknown(
            id,
            title,
            all,
            format!("not in the hardware chart: {}", listed(strangers)),
        );
    }
    if releases::cuda_of_branch(target.branch).is_none() {
        return Change::unknown(id, title, all, unknown_branch(target));
    }
    Change::compare(id, title, all.clone(), all)
}

fn unknown_branch(target: &DriverTarget) -> String {
    format!("R{} is not in pitcrew's table of branches", target.branch)
}

/// The flavour of the kernel modules that the cards need.
fn modules(node: &Node<'_>) -> Change {
    let (id, title) = ("kernel-modules", "kernel modules");
    let flavour = |open: bool| if open { "open" } else { "proprietary" };
    let now = node
        .host
        .driver
        .open_kernel_modules
        .value()
        .map_or("none", |&open| flavour(open));
    let needs = |wanted| {
        let cards = node.cards();
        cards
            .iter()
            .filter_map(|(name, card, _)| Some((name.clone(), (*card)?.driver_support().kernel_modules)))
            .filter(|(_, modules)| *modules == wanted)
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    let (open, proprietary) = (
        needs(KernelModules::OpenOnly),
        needs(KernelModules::ProprietaryOnly),
    );
    match (open.is_empty(), proprietary.is_empty()) {
        (false, false) => Change::compare(id, title, now, "open and proprietary, which can't be")
            .breaks()
            .why(format!(
                "{} need the open modules and {} the proprietary ones: one node can't serve both",
                listed(open),
                listed(proprietary)
            )),
        (false, true) => {
            Change::compare(id, title, now, "open").why(format!("{} need the open modules", listed(open)))
        }
        (true, false) => Change::compare(id, title, now, "proprietary")
            .why(format!("{} need the proprietary modules", listed(proprietary))),
        (true, true) => Change::compare(
            id,
            title,
            now,
            if now == "none" { "open or proprietary" } else { now },
        )
        .why("these cards run on both; take the packages of the flavour that is there"),
    }
}

fn cuda(node: &Node<'_>, target: &DriverTarget) -> Change {
    let (id, title) = ("cuda", "newest CUDA");
    let asked = node
        .gpus
        .ok()
        .and_then(|inventory| inventory.driver.cuda.value().copied());
    let version = node.host.driver.kernel_version.value();
    let by_branch = || {
        let (major, minor) = releases::cuda_of_branch(node::branch(version?)?)?;
        Some(CudaVersion { major, minor })
    };
    let now = asked.or_else(by_branch);
    let shown = match (&now, version) {
        (Some(now), _) => now.to_string(),
        (None, Some(_)) => "unknown".to_owned(),
        (None, None) => "none".to_owned(),
    };
    let Some((major, minor)) = releases::cuda_of_branch(target.branch) else {
        return Change::unknown(id, title, shown, unknown_branch(target));
    };
    let then = CudaVersion { major, minor };
    let change = Change::compare(id, title, shown, then.to_string());
    match now {
        Some(now) if now > then => change
            .breaks()
            .why("images built for a newer CUDA than this driver runs will not start"),
        Some(now) if now.major < then.major => {
            change.why("images built for older CUDA versions keep running")
        }
        _ => change,
    }
}

fn fabric_manager(node: &Node<'_>, target: &DriverTarget) -> Option<Change> {
    let switches = node.host.nvswitches.value().copied().filter(|count| *count > 0)?;
    let now = match node.host.services.fabric_manager {
        Service::Absent => "absent",
        Service::Installed => "installed",
        Service::Enabled => "enabled",
        Service::Running => "runs",
    };
    Some(
        Change::compare(
            "fabric-manager",
            "Fabric Manager",
            now,
            format!("version {} too", target.version),
        )
        .why(format!(
            "{switches} NVSwitches are set up only by a Fabric Manager of the driver's very version: upgrade both at once"
        )),
    )
}

fn secure_boot(node: &Node<'_>) -> Option<Change> {
    node.host.system.secure_boot.value().filter(|on| **on)?;
    Some(
        Change::compare("secure-boot", "Secure Boot", "on", "on")
            .why("the new modules must be signed by a key that this machine knows, or they are not loaded"),
    )
}

/// CDI specifications that name libraries of today's version.
fn specifications(node: &Node<'_>) -> Option<Change> {
    let named: Vec<_> = node
        .host
        .cdi
        .iter()
        .filter(|file| {
            file.spec
                .value()
                .is_some_and(|spec| spec.driver_version.is_some())
        })
        .map(|file| file.path.display())
        .collect();
    if named.is_empty() {
        return None;
    }
    Some(
        Change::compare(
            "cdi-specifications",
            "CDI specifications",
            listed(named),
            "to be written anew",
        )
        .why("they name the libraries by version: containers that start in between fail"),
    )
}

/// Who holds the driver; nobody where none is loaded.
fn pods(node: &Node<'_>) -> Option<Change> {
    let (id, title) = ("pods", "pods to restart");
    if matches!(node.host.driver.kernel_version, Reading::NotSupported) {
        return None;
    }
    let holders = node.gpus.ok().map(|inventory| {
        let gpus = inventory.gpus.iter();
        gpus.filter_map(|gpu| match &gpu.readings.processes {
            Reading::Value(processes) => Some(processes.len()),
            Reading::NotSupported | Reading::Failed(_) => None,
        })
        .sum::<usize>()
    });
    let now = match holders {
        Some(0) => "no process holds a GPU now".to_owned(),
        Some(1) => "1 process holds a GPU now".to_owned(),
        Some(count) => format!("{count} processes hold GPUs now"),
        None => "unknown".to_owned(),
    };
    let change = Change {
        effect: Effect::Changes,
        ..Change::compare(
            id,
            title,
            now,
            "every pod with a GPU; device plugin, exporter and agent",
        )
    };
    let change = change.why(
        "all of them have the old libraries mapped, and the module can't be exchanged while one holds it: drain the \
         node, or reboot it",
    );
    Some(change.next(format!(
        "{} drain $(hostname) --ignore-daemonsets --delete-emptydir-data",
        node.advice.kubectl()
    )))
}

#[cfg(test)]
mod tests {
    use pitcrew_core::Inventory;
    use pitcrew_core::ports::InventorySource;
    use pitcrew_scenario::{Machine, Scenario};

    use super::super::{Plan, Target, plan};
    use super::*;
    use crate::sample::{self, Sample, gpu};

    fn inventory(name: &str) -> Inventory {
        Machine::new(Scenario::builtin(name).unwrap())
            .inventory()
            .unwrap()
    }

    fn to(host: Sample, gpus: &Inventory, target: &str) -> Plan {
        plan(&host.build(), Ok(gpus), &Target::parse(&[target]).unwrap())
    }

    #[test]
    fn a_branch_that_dropped_the_card_breaks() {
        let v100 = sample::host()
            .gpus(vec![gpu("0000:01:00.0", 0x1db6), gpu("0000:02:00.0", 0x1db6)])
            .driver("580.159.04", false);
        let plan = to(v100, &inventory("rtx3060"), "driver=595.58");
        let change = plan.change("cards").unwrap();
        assert_eq!(change.then, "2x Tesla V100 PCIe 32GB was dropped after R580");
        assert_eq!((change.effect, plan.effect), (Effect::Breaks, Effect::Breaks));
        assert_eq!(plan.change("kernel-modules").unwrap().then, "proprietary");
    }

    #[test]
    fn cuda_follows_the_branch_and_an_unknown_branch_is_not_guessed() {
        let rtx = inventory("rtx3060");
        let newer = to(sample::host(), &rtx, "driver=595.58");
        let change = newer.change("cuda").unwrap();
        assert_eq!((change.now.as_str(), change.then.as_str()), ("13.0", "13.2"));
        let unknown = to(sample::host(), &rtx, "driver=610.1");
        for id in ["cuda", "cards"] {
            assert_eq!(unknown.change(id).unwrap().effect, Effect::Unknown, "{id}");
        }
        let older = to(sample::host(), &rtx, "driver=550.54");
        assert_eq!(older.change("cuda").unwrap().effect, Effect::Breaks);
    }

    #[test]
    fn where_nothing_uses_a_driver_nothing_hangs_on_it() {
        let ids = |host: Sample| {
            let plan = to(host.no_driver(), &inventory("rtx3060"), "driver=595.58");
            plan.changes.iter().map(|it| it.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(sample::host().gpus(Vec::new())), ["driver", "cards"]);
        assert_eq!(ids(sample::host()), ["driver", "cards", "kernel-modules", "cuda"]);
        let unreadable = sample::host().with(|host| host.gpus = Reading::Failed("denied".to_owned()));
        let plan = to(unreadable, &inventory("rtx3060"), "driver=595.58");
        assert_eq!(plan.effect, Effect::Unknown);
    }

    #[test]
    fn blackwell_on_proprietary_modules_changes_its_flavour() {
        let host = sample::host()
            .gpus(vec![gpu("0000:01:00.0", 0x2901)])
            .driver("570.133.20", false);
        let plan = to(host, &inventory("rtx3060"), "driver=595.58");
        let change = plan.change("kernel-modules").unwrap();
        assert_eq!(
            (change.now.as_str(), change.then.as_str()),
            ("proprietary", "open")
        );
    }

    #[test]
    fn volta_beside_blackwell_cannot_be_served_by_one_driver() {
        let host = sample::host().gpus(vec![gpu("0000:01:00.0", 0x2901), gpu("0000:02:00.0", 0x1db6)]);
        let plan = to(host, &inventory("rtx3060"), "driver=580.159.04");
        assert_eq!(plan.change("kernel-modules").unwrap().effect, Effect::Breaks);
    }

    #[test]
    fn nvswitches_take_their_fabric_manager_along() {
        let host = sample::host().with(|host| {
            host.nvswitches = Reading::Value(4);
            host.services.fabric_manager = Service::Running;
        });
        let plan = to(host, &inventory("rtx3060"), "driver=595.58.03");
        assert_eq!(
            plan.change("fabric-manager").unwrap().then,
            "version 595.58.03 too"
        );
    }
}
