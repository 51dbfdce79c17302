//! Other software that configures GPUs: nothing of it is touched.

use super::Rule;
use crate::node::Node;
use crate::report::{Finding, Topic, listed, question};

pub(crate) const RULES: &[Rule] = &[device_plugin, operator, host_toolkit];

const RESOURCE: &str = "nvidia.com/gpu";

fn device_plugin(node: &Node<'_>) -> Vec<Finding> {
    let kubelet = &node.host.kubelet;
    let ask = question(
        Topic::Others,
        "others.device-plugin",
        "device plugin",
        format!("{}/device-plugins", kubelet.root.display()),
    );
    let sockets = &node.host.foreign.device_plugin;
    let resources: Vec<&String> = kubelet
        .registered_resources
        .value()
        .into_iter()
        .flatten()
        .filter(|name| *name == RESOURCE || name.starts_with("nvidia.com/"))
        .collect();
    let look = format!(
        "{} get pods -A -o wide | grep device-plugin",
        node.advice.kubectl()
    );
    vec![if !sockets.is_empty() {
        ask.warning(
            format!("another one is here: {}", listed(sockets)),
            format!("two plugins for {RESOURCE} hand out one GPU twice: pitcrew does not register while it is there"),
        )
        .next(look)
    } else if !resources.is_empty() {
        ask.note(
            format!("the kubelet remembers {}", listed(resources)),
            "a plugin registered them once; none of NVIDIA's listens now",
        )
    } else {
        match kubelet.registered_resources.failure() {
            Some(reason) => ask.unknown(reason).minor(),
            None => ask.ok(format!("none serves {RESOURCE} yet")),
        }
    }]
}

fn operator(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Others,
        "others.operator",
        "NVIDIA's operator",
        "/usr/local/nvidia/toolkit, /run/nvidia",
    );
    let foreign = &node.host.foreign;
    let mut traces = Vec::new();
    if let Some(toolkit) = &foreign.toolkit {
        traces.push(format!("its toolkit in {}", toolkit.display()));
    }
    if !foreign.validations.is_empty() {
        traces.push(format!(
            "its validator's marks ({})",
            listed(&foreign.validations)
        ));
    }
    if let Some(root) = &node.host.driver.container_root {
        traces.push(format!("its driver in {}", root.display()));
    }
    if traces.is_empty() {
        return vec![ask.ok("no trace of it")];
    }
    let why = if foreign.validations.is_empty() {
        "left behind by an uninstall, or not running now; the toolkit's binary still makes the handler `nvidia`"
    } else {
        "it rules the GPUs of this node; pitcrew touches none of its files, and does not take over by itself"
    };
    vec![ask.note(listed(traces), why).next(format!(
        "{} get clusterpolicies.nvidia.com",
        node.advice.kubectl()
    ))]
}

fn host_toolkit(node: &Node<'_>) -> Vec<Finding> {
    let Some(path) = &node.host.foreign.host_toolkit else {
        return Vec::new();
    };
    let ask = question(
        Topic::Others,
        "others.host-toolkit",
        "host's toolkit",
        path.display().to_string(),
    );
    vec![ask.note(
        format!("{} is installed", path.display()),
        "RKE2 and K3s make the handler `nvidia` of its runtime where none lies in /usr/local/nvidia/toolkit",
    )]
}

#[cfg(test)]
mod tests {
    use pitcrew_core::Reading;

    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample;

    #[test]
    fn a_running_plugin_is_a_warning_and_a_remembered_one_a_note() {
        let running = sample::host().with(|host| {
            host.foreign.device_plugin = vec!["nvidia-gpu.sock".to_owned()];
        });
        let finding = one(&running.build(), "others.device-plugin");
        assert_eq!(finding.verdict, Verdict::Warning);
        assert_eq!(finding.found, "another one is here: nvidia-gpu.sock");
        let remembered = sample::host().with(|host| {
            host.kubelet.registered_resources = Reading::Value(vec!["nvidia.com/gpu".to_owned()]);
        });
        assert_eq!(
            one(&remembered.build(), "others.device-plugin").verdict,
            Verdict::Note
        );
    }

    #[test]
    fn traces_of_the_operator_are_listed_and_a_left_over_toolkit_is_told_apart() {
        let left = sample::host().with(|host| {
            host.foreign.toolkit = Some("/usr/local/nvidia/toolkit".into());
        });
        assert!(
            one(&left.build(), "others.operator")
                .why
                .unwrap()
                .starts_with("left behind")
        );
        let ruling = sample::host().with(|host| {
            host.foreign.toolkit = Some("/usr/local/nvidia/toolkit".into());
            host.foreign.validations = vec!["driver-ready".to_owned(), "toolkit-ready".to_owned()];
        });
        let finding = one(&ruling.build(), "others.operator");
        assert_eq!(
            finding.found,
            "its toolkit in /usr/local/nvidia/toolkit and its validator's marks (driver-ready and toolkit-ready)"
        );
        assert!(finding.why.unwrap().starts_with("it rules"));
    }
}
