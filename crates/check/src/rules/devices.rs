//! Device nodes.

use std::path::Path;

use pitcrew_core::Reading;

use super::Rule;
use super::driver::without_gpu;
use crate::node::Node;
use crate::report::{Finding, Topic, listed, question};

pub(crate) const RULES: &[Rule] = &[nodes, uvm, majors];

/// Makes control and unified-memory nodes, and loads the module; it is part of every driver.
const MAKE_NODES: &str = "sudo nvidia-modprobe -u -c 0";

fn has(node: &Node<'_>, path: &str) -> bool {
    node.host
        .devices
        .nodes
        .iter()
        .any(|known| known.path.as_os_str() == path)
}

/// Are there nodes for the driver and for each card?
fn nodes(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Devices,
        "devices.nodes",
        "nodes of the GPUs",
        "/dev/nvidia*",
    );
    let gpus = match node.usable() {
        Ok(gpus) => gpus,
        Err(no_gpu) => return without_gpu(ask, &no_gpu),
    };
    if node.host.driver.kernel_version.is_absent() {
        return vec![ask.not_applicable("no driver is loaded")];
    }
    if node.host.devices.nodes.is_empty() {
        return vec![
            ask.failure(
                "none at all",
                "the kernel module makes no nodes by itself: udev or the first client does, and none did (headless \
                 machine, or /dev is not the host's)",
            )
            .next("sudo nvidia-smi -L && sudo nvidia-modprobe -u -c 0".to_owned()),
        ];
    }
    // Without the driver's answer the minors are 0 to n-1, as on every machine that was seen.
    let wanted: Vec<String> = ["/dev/nvidiactl".to_owned()]
        .into_iter()
        .chain(gpus.iter().zip(0_u32..).map(|(gpu, position)| {
            let minor = node
                .reading(gpu)
                .and_then(|it| it.readings.minor.value().copied());
            format!("/dev/nvidia{}", minor.unwrap_or(position))
        }))
        .collect();
    let missing: Vec<&String> = wanted.iter().filter(|path| !has(node, path)).collect();
    vec![if missing.is_empty() {
        ask.ok(match gpus.len() {
            1 => listed(&wanted),
            count => format!("/dev/nvidiactl and those of {count} GPUs"),
        })
    } else {
        ask.failure(
            format!("missing: {}", listed(missing)),
            "a container gets the host's nodes, and there is nothing to give",
        )
        .next("sudo nvidia-modprobe -c 0 && sudo nvidia-smi -L".to_owned())
    }]
}

/// Is there the node of unified memory, without which CUDA does not start?
fn uvm(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Devices,
        "devices.uvm",
        "unified memory",
        "/dev/nvidia-uvm, module nvidia_uvm",
    );
    if let Err(no_gpu) = node.usable() {
        return without_gpu(ask, &no_gpu);
    }
    if node.host.driver.kernel_version.is_absent() {
        return vec![ask.not_applicable("no driver is loaded")];
    }
    let missing: Vec<&str> = ["/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
        .into_iter()
        .filter(|path| !has(node, path))
        .collect();
    let is_loaded = node.is_loaded("nvidia_uvm");
    vec![match (missing.first(), is_loaded) {
        (Some(&"/dev/nvidia-uvm"), Some(false)) => ask
            .failure(
                "no /dev/nvidia-uvm; nvidia_uvm is not loaded",
                "nothing loads nvidia-uvm on a headless machine until a program asks, and CUDA does not start without it",
            )
            .next(MAKE_NODES.to_owned()),
        (Some(&"/dev/nvidia-uvm"), _) => ask
            .failure("no /dev/nvidia-uvm", "CUDA does not start in a container that lacks it")
            .next(MAKE_NODES.to_owned()),
        (Some(tools), _) => ask
            .note(format!("no {tools}"), "only profilers of unified memory need it")
            .next(MAKE_NODES.to_owned()),
        (None, Some(false)) => ask
            .failure(
                "/dev/nvidia-uvm is there; nvidia_uvm is not loaded",
                "the node leads nowhere until the module is loaded",
            )
            .next(MAKE_NODES.to_owned()),
        (None, _) => ask.ok("/dev/nvidia-uvm"),
    }]
}

/// Do the nodes lead to the drivers that the kernel registered?
fn majors(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Devices,
        "devices.majors",
        "device numbers",
        "/proc/devices",
    );
    let devices = &node.host.devices;
    if let Err(no_gpu) = node.usable() {
        return without_gpu(ask, &no_gpu);
    }
    if devices.nodes.is_empty() || node.host.driver.kernel_version.is_absent() {
        return vec![ask.not_applicable("no device nodes to compare")];
    }
    let registered = match &devices.majors {
        Reading::Value(registered) => registered,
        Reading::NotSupported => return vec![ask.not_applicable("/proc/devices lists none")],
        Reading::Failed(reason) => return vec![ask.unknown(reason).minor()],
    };
    let major_of = |names: &[&str]| {
        let mut found = registered
            .iter()
            .filter(|(name, _)| names.contains(&name.as_str()));
        found.next().map(|(_, major)| *major)
    };
    let wrong: Vec<(&Path, String)> = devices
        .nodes
        .iter()
        .filter_map(|it| {
            let name = it.path.file_name()?.to_str()?;
            let expected = if name.starts_with("nvidia-uvm") {
                major_of(&["nvidia-uvm"])
            } else if name.starts_with("nvidia-cap") {
                major_of(&["nvidia-caps"])
            } else if name == "nvidiactl" || name.strip_prefix("nvidia")?.parse::<u32>().is_ok() {
                // Older drivers register the one name for all of them.
                major_of(&["nvidia", "nvidia-frontend", "nvidiactl"])
            } else {
                None
            }?;
            let path = it.path.as_path();
            let what = || format!("{} has major {}, not {expected}", path.display(), it.major);
            (it.major != expected).then(|| (path, what()))
        })
        .collect();
    let paths: Vec<String> = wrong.iter().map(|(path, _)| path.display().to_string()).collect();
    vec![if wrong.is_empty() {
        ask.ok("as the kernel registered them")
    } else {
        ask.failure(
            listed(wrong.into_iter().map(|(_, what)| what)),
            "the node was made for an earlier load of the module, whose number has changed: it leads nowhere",
        )
        .next(format!(
            "sudo rm {} && sudo nvidia-modprobe -u -c 0 && sudo nvidia-smi -L",
            paths.join(" ")
        ))
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample::{self, gpu};

    fn without(paths: &[&str]) -> pitcrew_host::Host {
        let host = sample::host().with(|host| {
            host.devices
                .nodes
                .retain(|it| !paths.iter().any(|path| it.path.as_os_str() == *path));
        });
        host.build()
    }

    #[test]
    fn a_headless_machine_without_uvm_is_told_how_to_make_it() {
        let finding = one(
            &without(&["/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]),
            "devices.uvm",
        );
        assert_eq!(finding.verdict, Verdict::Failure);
        assert_eq!(finding.next.as_deref(), Some(MAKE_NODES));
        let tools = one(&without(&["/dev/nvidia-uvm-tools"]), "devices.uvm");
        assert_eq!(tools.verdict, Verdict::Note);
    }

    #[test]
    fn a_node_for_each_card_is_wanted() {
        assert_eq!(
            one(&without(&["/dev/nvidia0"]), "devices.nodes").found,
            "missing: /dev/nvidia0"
        );
        let two = sample::host().gpus(vec![gpu("0000:01:00.0", 0x2503), gpu("0000:02:00.0", 0x2503)]);
        assert_eq!(one(&two.build(), "devices.nodes").found, "missing: /dev/nvidia1");
        let ok = one(&sample::host().build(), "devices.nodes");
        assert_eq!(ok.found, "/dev/nvidiactl and /dev/nvidia0");
    }

    #[test]
    fn an_empty_dev_is_one_failure_and_not_a_list() {
        let host = sample::host().with(|host| host.devices.nodes.clear()).build();
        assert_eq!(one(&host, "devices.nodes").found, "none at all");
        assert_eq!(one(&host, "devices.majors").verdict, Verdict::NotApplicable);
    }

    #[test]
    fn a_node_with_yesterdays_number_leads_nowhere() {
        let host = sample::host().with(|host| {
            host.devices.majors =
                Reading::Value(vec![("nvidia".to_owned(), 195), ("nvidia-uvm".to_owned(), 511)]);
        });
        let finding = one(&host.build(), "devices.majors");
        assert_eq!(finding.verdict, Verdict::Failure);
        assert!(
            finding
                .found
                .starts_with("/dev/nvidia-uvm has major 238, not 511")
        );
        assert!(
            finding
                .next
                .unwrap()
                .starts_with("sudo rm /dev/nvidia-uvm /dev/nvidia-uvm-tools && "),
            "what is right stays"
        );
    }
}
