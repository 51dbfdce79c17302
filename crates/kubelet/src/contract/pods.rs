//! What pods get.

use std::collections::BTreeMap;

use super::{Subject, held, wait_for, wait_until};
use crate::device_plugin::DevicePluginOptions;
use crate::fake::plugin::{CALL, Call, DEVICES, Plugin, device};

/// A plugin that prefers devices from the end of the list, which it says when it is asked and not when it registers.
async fn plugin(subject: &impl Subject, endpoint: &str) -> Plugin {
    let options = DevicePluginOptions {
        get_preferred_allocation_available: true,
        pre_start_required: true,
    };
    let devices = vec![
        device("a", true, &[]),
        device("b", true, &[]),
        device("c", true, &[]),
        device("d", false, &[]),
    ];
    Plugin::serve(subject.dir(), endpoint, options, devices)
        .await
        .expect("the plugin's socket can be made")
}

/// Waits until pod-resources shows just these pods and what they hold.
async fn wait_for_held(subject: &impl Subject, resource: &str, holders: &[(&str, &[&str])]) {
    let owned = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
    let expected = holders.iter().map(|&(pod, ids)| (pod.to_owned(), owned(ids)));
    let expected: BTreeMap<_, _> = expected.collect();
    wait_until(&format!("holders of {resource}"), expected, async || {
        held(subject, resource).await
    })
    .await;
}

/// A pod gets healthy devices only, those that the plugin prefers. The plugin is asked for a preference where there is a
/// choice, then to allocate, then before the container starts.
pub async fn a_pod_gets_healthy_devices_as_the_plugin_prefers(subject: &impl Subject) {
    const RESOURCE: &str = "pitcrew.test/prefers";
    let plugin = plugin(subject, "prefers.sock").await;
    plugin.register(RESOURCE).await.expect("it is taken");
    wait_for(subject, RESOURCE, &["a", "b", "c"]).await;
    let env = subject.run_pod("prefers", RESOURCE, 2).await;
    assert_eq!(env.get(DEVICES).map(String::as_str), Some("b,c"));
    wait_for_held(subject, RESOURCE, &[("prefers", &["b", "c"])]).await;
    let ids = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
    let preferred = Call::Preferred {
        available: ids(&["a", "b", "c"]),
        must_include: Vec::new(),
        size: 2,
    };
    let expected = [
        preferred,
        Call::Allocate(ids(&["b", "c"])),
        Call::PreStart(ids(&["b", "c"])),
    ];
    assert_eq!(plugin.calls(), expected);
    subject.remove_pod("prefers").await;
    wait_for_held(subject, RESOURCE, &[]).await;
}

/// A container that starts again does so with the answer that its pod got, also when the kubelet was restarted and the
/// plugin isn't back. The pod's devices stay its own meanwhile.
pub async fn an_answer_is_kept_for_the_life_of_the_pod(subject: &impl Subject) {
    const RESOURCE: &str = "pitcrew.test/kept";
    let first = plugin(subject, "kept.sock").await;
    first.register(RESOURCE).await.expect("it is taken");
    wait_for(subject, RESOURCE, &["a", "b", "c"]).await;
    let env = subject.run_pod("kept", RESOURCE, 1).await;
    assert_eq!(env.get(DEVICES).map(String::as_str), Some("c"));
    assert_eq!(env.get(CALL).map(String::as_str), Some("1"));
    subject.restart().await;
    first.stop().await;
    assert_eq!(subject.restart_container("kept").await, env);
    wait_for_held(subject, RESOURCE, &[("kept", &["c"])]).await;
    let second = plugin(subject, "kept.sock").await;
    second.register(RESOURCE).await.expect("it is taken again");
    wait_for(subject, RESOURCE, &["a", "b", "c"]).await;
    let other = subject.run_pod("kept-other", RESOURCE, 2).await;
    assert_eq!(other.get(DEVICES).map(String::as_str), Some("a,b"));
    wait_for_held(
        subject,
        RESOURCE,
        &[("kept", &["c"]), ("kept-other", &["a", "b"])],
    )
    .await;
    subject.remove_pod("kept").await;
    subject.remove_pod("kept-other").await;
    wait_for_held(subject, RESOURCE, &[]).await;
}
