//! Operating system, kernel and machine.

use pitcrew_core::Reading;
use pitcrew_host::facts::{CgroupVersion, OsFamily};

use super::Rule;
use crate::node::Node;
use crate::report::{Finding, Topic, question};

pub(crate) const RULES: &[Rule] = &[system, cgroup, machine, iommu, read_only];

fn system(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::System,
        "system.os",
        "operating system",
        "/etc/os-release, uname",
    );
    let system = &node.host.system;
    let kernel = match &system.kernel {
        Reading::Value(kernel) => format!(", kernel {kernel}"),
        _ => String::new(),
    };
    vec![match &system.os {
        Reading::Value(os) if node.advice.family() == OsFamily::Other => ask.note(
            format!("{}{kernel}", os.pretty_name),
            "not one of the systems that pitcrew has commands for: advice stays general",
        ),
        Reading::Value(os) => ask.ok(format!("{}{kernel}", os.pretty_name)),
        Reading::NotSupported => ask
            .note(
                format!("unnamed{kernel}"),
                "without /etc/os-release advice stays general",
            )
            .minor(),
        Reading::Failed(reason) => ask.unknown(reason).minor(),
    }]
}

fn cgroup(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(Topic::System, "system.cgroup", "control groups", "/sys/fs/cgroup");
    let why = "GPUs work; the kubelet of 1.35 and later wants version 2, and so do the driver's memory limits of containers";
    vec![match &node.host.system.cgroup {
        Reading::Value(CgroupVersion::V2) => ask.ok("version 2"),
        Reading::Value(CgroupVersion::V1) => ask.note("version 1", why),
        Reading::Value(CgroupVersion::Hybrid) => ask.note("version 1 with 2 beside it", why),
        Reading::NotSupported => ask.not_applicable("no control groups are mounted"),
        Reading::Failed(reason) => ask.unknown(reason).minor(),
    }]
}

fn machine(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::System,
        "system.hypervisor",
        "machine",
        "/sys/class/dmi/id, /sys/hypervisor",
    );
    vec![match &node.host.system.hypervisor {
        Reading::Value(name) => ask.ok(format!("virtual ({name}); a passed-through GPU is normal")),
        Reading::NotSupported => ask.ok("bare metal"),
        Reading::Failed(reason) => ask.unknown(reason).minor(),
    }]
}

fn iommu(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(Topic::System, "system.iommu", "IOMMU", "/sys/kernel/iommu_groups");
    vec![match &node.host.system.iommu_groups {
        Reading::Value(0) | Reading::NotSupported => ask.ok("not in use; containers need none"),
        Reading::Value(groups) => {
            // Translation costs bandwidth between GPUs; the kernel argument says whether host devices are spared it.
            let passes = node
                .host
                .system
                .command_line
                .value()
                .is_some_and(|words| words.iter().any(|word| word == "iommu=pt"));
            let is_joined = node.cards().iter().map(|(.., count)| count).sum::<usize>() > 1;
            if is_joined && !passes && node.host.system.hypervisor.value().is_none() {
                ask.note(
                    format!("{groups} groups, translation on"),
                    "containers work; copies between GPUs over PCIe are faster with iommu=pt",
                )
            } else {
                ask.ok(format!("{groups} groups"))
            }
        }
        Reading::Failed(reason) => ask.unknown(reason).minor(),
    }]
}

fn read_only(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::System,
        "system.read-only",
        "/usr",
        "mount options of / and /usr",
    );
    vec![match &node.host.system.usr_read_only {
        Reading::Value(true) => ask.note(
            "read-only",
            if node.advice.family() == OsFamily::SuseTransactional {
                "packages are installed by transactional-update and are there after a reboot; pitcrew writes to the \
                 data directory only"
            } else {
                "packages come with the image; pitcrew writes to the data directory only"
            },
        ),
        Reading::Value(false) => ask.ok("writable"),
        Reading::NotSupported => ask.not_applicable("no mounts to look at"),
        Reading::Failed(reason) => ask.unknown(reason).minor(),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample::{self, gpu, text};

    #[test]
    fn a_virtual_machine_is_normal() {
        let host = sample::host().with(|host| host.system.hypervisor = text("kvm"));
        let finding = one(&host.build(), "system.hypervisor");
        assert_eq!(
            (finding.verdict, finding.found.as_str()),
            (Verdict::Ok, "virtual (kvm); a passed-through GPU is normal")
        );
    }

    #[test]
    fn translation_is_noted_where_gpus_copy_to_each_other_past_it() {
        let of = |gpus: usize, argument: &str, hypervisor| {
            let host = sample::host().with(|host| {
                host.gpus = Reading::Value(
                    (1..=gpus)
                        .map(|bus| gpu(&format!("0000:0{bus}:00.0"), 0x20b2))
                        .collect(),
                );
                host.system.iommu_groups = Reading::Value(40);
                host.system.command_line = Reading::Value(vec![argument.to_owned()]);
                host.system.hypervisor = hypervisor;
            });
            one(&host.build(), "system.iommu").verdict
        };
        assert_eq!(of(2, "quiet", Reading::NotSupported), Verdict::Note);
        assert_eq!(of(2, "iommu=pt", Reading::NotSupported), Verdict::Ok);
        assert_eq!(of(1, "quiet", Reading::NotSupported), Verdict::Ok);
        assert_eq!(of(2, "quiet", text("kvm")), Verdict::Ok);
    }

    #[test]
    fn the_first_control_groups_are_noted_and_no_failure() {
        let host = sample::host().with(|host| host.system.cgroup = Reading::Value(CgroupVersion::V1));
        assert_eq!(one(&host.build(), "system.cgroup").verdict, Verdict::Note);
    }

    #[test]
    fn a_read_only_system_is_told_how_packages_come() {
        let host = sample::host()
            .os("sle-micro", "6.0")
            .with(|host| host.system.usr_read_only = Reading::Value(true));
        let finding = one(&host.build(), "system.read-only");
        assert!(finding.why.unwrap().contains("transactional-update"));
    }
}
