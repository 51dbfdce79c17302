//! Whether somebody wants the driver for themselves: NVIDIA's operator says so by labels of the Node.

use std::collections::BTreeMap;

/// Labels that say what may run on the node begin so.
const DEPLOY: &str = "nvidia.com/gpu.deploy.";
/// And their values begin so while it may not: `paused-for-driver-upgrade`, `paused-for-mig-change`.
const PAUSED: &str = "paused-";

/// Why the driver must be let go of, by the labels of the Node.
pub(super) fn wanted(labels: &BTreeMap<String, String>) -> Option<String> {
    let paused = |(key, value): &(&String, &String)| key.starts_with(DEPLOY) && value.starts_with(PAUSED);
    let (key, value) = labels.iter().find(paused)?;
    Some(format!("the node's label `{key}` is `{value}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_nvidias_operator_that_pauses_is_heeded_and_no_other() {
        let labels = |pairs: &[(&str, &str)]| {
            let owned = pairs
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()));
            wanted(&owned.collect())
        };
        assert_eq!(labels(&[("nvidia.com/gpu.deploy.device-plugin", "true")]), None);
        assert_eq!(labels(&[("nvidia.com/gpu.present", "paused-for-fun")]), None);
        let why = labels(&[
            ("nvidia.com/gpu.deploy.dcgm", "true"),
            ("nvidia.com/gpu.deploy.device-plugin", "paused-for-driver-upgrade"),
        ]);
        assert_eq!(
            why.unwrap(),
            "the node's label `nvidia.com/gpu.deploy.device-plugin` is `paused-for-driver-upgrade`"
        );
    }
}
