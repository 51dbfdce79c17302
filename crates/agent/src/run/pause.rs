//! Whether somebody wants the driver for themselves: NVIDIA's operator says so by labels of the Node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_all};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;

use crate::Deps;

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

/// Watches the Node's labels, for ever.
///
/// An API server that is away changes nothing: what was known last holds.
pub(super) async fn watch(deps: Arc<Deps>, wanted_by: watch::Sender<Option<String>>) {
    let Some(client) = deps.client.clone() else {
        return std::future::pending().await;
    };
    let api: Api<PartialObjectMeta<Node>> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", deps.settings.node));
    let mut events = std::pin::pin!(watch_all(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let node = match event {
            Ok(Event::Apply(node) | Event::InitApply(node)) => node,
            Ok(_) => continue,
            // It has waited already, and tries again.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let new = wanted(node.labels());
        wanted_by.send_if_modified(|old| {
            let differs = *old != new;
            *old = new;
            differs
        });
    }
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
