//! Registration, lists, ends and restarts.

use tonic::Code;

use super::{Subject, allocatable, wait_for, wait_until};
use crate::device_plugin::{self, Device, DevicePluginOptions};
use crate::fake::plugin::{Plugin, device, register};

async fn serve(subject: &impl Subject, endpoint: &str, devices: Vec<Device>) -> Plugin {
    Plugin::serve(subject.dir(), endpoint, DevicePluginOptions::default(), devices)
        .await
        .expect("the plugin's socket can be made")
}

/// Healthy devices are allocatable, with the NUMA nodes that they are near to; others are not.
pub async fn healthy_devices_are_allocatable(subject: &impl Subject) {
    const RESOURCE: &str = "pitcrew.test/healthy";
    let devices = vec![
        device("a", true, &[]),
        device("b", true, &[0, 1]),
        device("c", false, &[0]),
    ];
    let plugin = serve(subject, "healthy.sock", devices).await;
    plugin.register(RESOURCE).await.expect("it is taken");
    wait_for(subject, RESOURCE, &["a", "b"]).await;
    let found = allocatable(subject, RESOURCE)
        .await
        .expect("pod-resources answers");
    assert_eq!(found.into_values().collect::<Vec<_>>(), [vec![], vec![0, 1]]);
}

/// What a plugin tells takes the place of what it told before.
pub async fn the_newest_list_counts(subject: &impl Subject) {
    const RESOURCE: &str = "pitcrew.test/newest";
    let plugin = serve(
        subject,
        "newest.sock",
        vec![device("a", true, &[]), device("b", true, &[])],
    )
    .await;
    plugin.register(RESOURCE).await.expect("it is taken");
    wait_for(subject, RESOURCE, &["a", "b"]).await;
    plugin.set(vec![
        device("a", false, &[]),
        device("b", true, &[]),
        device("c", true, &[]),
    ]);
    wait_for(subject, RESOURCE, &["b", "c"]).await;
    plugin.set(vec![device("a", true, &[])]);
    wait_for(subject, RESOURCE, &["a"]).await;
    plugin.set(Vec::new());
    wait_for(subject, RESOURCE, &[]).await;
}

/// Of a plugin that ends nothing is allocatable, and its socket may be served again.
pub async fn a_plugin_that_ends_leaves_nothing_allocatable(subject: &impl Subject) {
    const RESOURCE: &str = "pitcrew.test/ends";
    let plugin = serve(subject, "ends.sock", vec![device("a", true, &[])]).await;
    plugin.register(RESOURCE).await.expect("it is taken");
    wait_for(subject, RESOURCE, &["a"]).await;
    plugin.stop().await;
    wait_for(subject, RESOURCE, &[]).await;
    let plugin = serve(subject, "ends.sock", vec![device("b", true, &[])]).await;
    plugin.register(RESOURCE).await.expect("it is taken again");
    wait_for(subject, RESOURCE, &["b"]).await;
}

/// A kubelet that starts removes the sockets of plugins, and has none of their devices until they register.
pub async fn a_restart_takes_sockets_and_devices_away_until_plugins_register_again(subject: &impl Subject) {
    const RESOURCE: &str = "pitcrew.test/restart";
    let plugin = serve(subject, "restart.sock", vec![device("a", true, &[])]).await;
    let dir = subject.dir().join(device_plugin::DIR);
    std::fs::write(dir.join("not-a-socket"), "").expect("a file can be written");
    plugin.register(RESOURCE).await.expect("it is taken");
    wait_for(subject, RESOURCE, &["a"]).await;
    subject.restart().await;
    wait_for(subject, RESOURCE, &[]).await;
    assert!(
        !dir.join("restart.sock").exists(),
        "the plugin's socket is there still"
    );
    assert!(dir.join("not-a-socket").exists(), "more than sockets was removed");
    // What is bound still has no name any more: it can't be registered.
    plugin.stop().await;
    let plugin = serve(subject, "restart.sock", vec![device("a", true, &[])]).await;
    plugin.register(RESOURCE).await.expect("it is taken again");
    wait_for(subject, RESOURCE, &["a"]).await;
}

/// Another version, a name that is no extended resource's, and a socket that nobody serves.
pub async fn what_is_registered_wrongly_is_refused(subject: &impl Subject) {
    let dir = subject.dir().join(device_plugin::DIR);
    let _plugin = serve(subject, "wrong.sock", vec![device("a", true, &[])]).await;
    let (right, name) = (device_plugin::VERSION, "pitcrew.test/wrong");
    let wrong = [
        ("v1alpha", "wrong.sock", name),
        (right, "wrong.sock", "gpu"),
        (right, "wrong.sock", "kubernetes.io/gpu"),
        (right, "nobody.sock", name),
    ];
    for (version, endpoint, resource) in wrong {
        let refused = register(&dir, version, endpoint, resource).await;
        let code = refused.as_ref().map_err(tonic::Status::code);
        assert_eq!(
            code,
            Err(Code::Unknown),
            "{version} {endpoint} {resource}: {refused:?}"
        );
    }
    assert_eq!(
        allocatable(subject, name).await.map(|devices| devices.len()),
        Ok(0)
    );
}

/// A plugin that registers while its older stream is open is connected, and cut off when the older one ends. It notices
/// by the end of its own stream, and has to register again.
pub async fn the_end_of_an_old_stream_cuts_off_the_new_plugin(subject: &impl Subject) {
    const RESOURCE: &str = "pitcrew.test/cut-off";
    let old = serve(subject, "cut-off-1.sock", vec![device("old", true, &[])]).await;
    old.register(RESOURCE).await.expect("it is taken");
    wait_for(subject, RESOURCE, &["old"]).await;
    let new = serve(subject, "cut-off-2.sock", vec![device("new", true, &[])]).await;
    new.register(RESOURCE).await.expect("it is taken");
    wait_for(subject, RESOURCE, &["new"]).await;
    // The older one is listened to still, whoever is right.
    old.set(vec![device("older", true, &[])]);
    wait_for(subject, RESOURCE, &["older"]).await;
    new.set(vec![device("newer", true, &[])]);
    wait_for(subject, RESOURCE, &["newer"]).await;
    old.stop().await;
    wait_for(subject, RESOURCE, &[]).await;
    wait_until("listeners to the new plugin", 0, async || Ok(new.listeners())).await;
    new.register(RESOURCE).await.expect("it is taken again");
    wait_for(subject, RESOURCE, &["newer"]).await;
}

/// A plugin that waits for the end of its older stream before it registers again stays.
pub async fn a_registration_after_the_end_of_the_old_stream_holds(subject: &impl Subject) {
    const RESOURCE: &str = "pitcrew.test/after";
    let old = serve(subject, "after-1.sock", vec![device("old", true, &[])]).await;
    old.register(RESOURCE).await.expect("it is taken");
    wait_for(subject, RESOURCE, &["old"]).await;
    old.stop().await;
    wait_for(subject, RESOURCE, &[]).await;
    let new = serve(subject, "after-2.sock", vec![device("new", true, &[])]).await;
    new.register(RESOURCE).await.expect("it is taken");
    wait_for(subject, RESOURCE, &["new"]).await;
    assert_eq!(new.listeners(), 1);
}

/// A registration that fails leaves an older plugin as it is, and its end is not noticed then.
pub async fn a_failed_registration_hides_the_end_of_the_plugin_before_it(subject: &impl Subject) {
    const RESOURCE: &str = "pitcrew.test/hidden";
    let plugin = serve(subject, "hidden.sock", vec![device("a", true, &[])]).await;
    plugin.register(RESOURCE).await.expect("it is taken");
    wait_for(subject, RESOURCE, &["a"]).await;
    let dir = subject.dir().join(device_plugin::DIR);
    let refused = register(&dir, device_plugin::VERSION, "nobody.sock", RESOURCE).await;
    assert!(refused.is_err(), "{refused:?}");
    plugin.set(vec![device("b", true, &[])]);
    wait_for(subject, RESOURCE, &["b"]).await;
    plugin.stop().await;
    // A later event that the kubelet must have seen: what came before it was seen, too.
    let other = serve(subject, "hidden-other.sock", vec![device("x", true, &[])]).await;
    other
        .register("pitcrew.test/hidden-other")
        .await
        .expect("it is taken");
    wait_for(subject, "pitcrew.test/hidden-other", &["x"]).await;
    other.stop().await;
    wait_for(subject, "pitcrew.test/hidden-other", &[]).await;
    let left = allocatable(subject, RESOURCE)
        .await
        .expect("pod-resources answers");
    assert_eq!(left.into_keys().collect::<Vec<_>>(), ["b"]);
}
