//! What of a GPU waits for a reset or a reload of the driver: its firmware, and ECC.

use super::Rule;
use crate::node::Node;
use crate::report::{Finding, Topic, listed, question};

pub(crate) const RULES: &[Rule] = &[gsp, ecc];

/// Does the GPU's own processor run the firmware of the module's version? Says something only where it doesn't.
fn gsp(node: &Node<'_>) -> Vec<Finding> {
    let (Ok(inventory), Some(module)) = (node.gpus, node.host.driver.kernel_version.value()) else {
        return Vec::new();
    };
    let other: Vec<_> = inventory
        .gpus
        .iter()
        .filter_map(|gpu| Some((gpu.index, gpu.readings.gsp_firmware.value()?)))
        .filter(|(_, firmware)| *firmware != module)
        .collect();
    let Some((_, firmware)) = other.first() else {
        return Vec::new();
    };
    let ask = question(
        Topic::Driver,
        "driver.gsp-firmware",
        "GSP firmware",
        "NVML, /proc/driver/nvidia/version",
    );
    let gpus = listed(other.iter().map(|(index, _)| index));
    let finding = ask.warning(
        format!("{firmware} on GPU {gpus}, the module is {module}"),
        "firmware and module come in one package: of an upgrade only half is in use",
    );
    vec![
        finding
            .next("sudo reboot".to_owned())
            .care(node.advice.before_reboot()),
    ]
}

/// Does a change of ECC wait for a reset? Says something only where it does.
fn ecc(node: &Node<'_>) -> Vec<Finding> {
    let Ok(inventory) = node.gpus else {
        return Vec::new();
    };
    let waiting: Vec<_> = inventory
        .gpus
        .iter()
        .filter_map(|gpu| {
            let (now, then) = (gpu.readings.ecc.value()?, gpu.readings.ecc_pending.value()?);
            (now != then).then_some((gpu.index, *then))
        })
        .collect();
    if waiting.is_empty() {
        return Vec::new();
    }
    let ask = question(Topic::Driver, "driver.ecc", "ECC", "NVML");
    let of = |then| -> Vec<u32> {
        let gpus = waiting.iter().filter(|(_, wanted)| *wanted == then);
        gpus.map(|(index, _)| *index).collect()
    };
    let parts = [(of(true), "on"), (of(false), "off")]
        .into_iter()
        .filter(|(gpus, _)| !gpus.is_empty())
        .map(|(gpus, word)| format!("{word} only after a reset of GPU {}", listed(gpus)));
    let indices: Vec<_> = waiting.iter().map(|(index, _)| index.to_string()).collect();
    let finding = ask.warning(
        listed(parts),
        "until then memory errors are handled as before; a reset needs the GPU idle",
    );
    vec![finding.next(format!("sudo nvidia-smi --gpu-reset -i {}", indices.join(",")))]
}

#[cfg(test)]
mod tests {
    use pitcrew_core::ports::InventorySource;
    use pitcrew_scenario::{Machine, Scenario};

    use crate::report::{Report, Verdict};
    use crate::{check, sample};

    fn report(readings: &str) -> Report {
        let text = format!(
            "description: x\ndriver: {{version: 580.159.04, cuda: \"13.0\", open_kernel_modules: true}}\n\
             gpus: [{{card: H100 SXM5 80GB, readings: {{{readings}}}}}, {{card: H100 SXM5 80GB}}]\n"
        );
        let scenario = Scenario::parse(&text, "firmware").unwrap();
        let inventory = Machine::new(scenario).inventory().unwrap();
        check(&sample::host().build(), Ok(&inventory))
    }

    #[test]
    fn firmware_of_another_version_is_half_an_upgrade() {
        let report = report("gsp_firmware: 570.1.2");
        let finding = report.finding("driver.gsp-firmware").unwrap();
        assert_eq!(finding.verdict, Verdict::Warning);
        assert_eq!(finding.found, "570.1.2 on GPU 0, the module is 580.159.04");
        assert_eq!(finding.next.as_deref(), Some("sudo reboot"));
        assert!(finding.care.is_some());
    }

    #[test]
    fn a_change_of_ecc_that_waits_is_told_with_the_reset_that_it_waits_for() {
        let report = report("ecc: true, ecc_pending: false");
        let finding = report.finding("driver.ecc").unwrap();
        assert_eq!(finding.verdict, Verdict::Warning);
        assert_eq!(finding.found, "off only after a reset of GPU 0");
        assert_eq!(finding.next.as_deref(), Some("sudo nvidia-smi --gpu-reset -i 0"));
    }

    #[test]
    fn what_is_as_it_should_be_is_not_told() {
        let report = report("ecc: false");
        assert!(report.finding("driver.gsp-firmware").is_none());
        assert!(report.finding("driver.ecc").is_none());
    }
}
