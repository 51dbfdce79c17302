//! What the other nodes of a cluster say of themselves.

use k8s_openapi::api::core::v1::Node;

/// Annotation of a Node whose supervisor waits to be restarted.
pub const WANTED: &str = "pitcrew.dev/restart-wanted";
/// Labels of nodes that run a part of the control plane.
const SERVER: [&str; 3] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
    "node-role.kubernetes.io/etcd",
];

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// True where it runs a part of the control plane.
    pub is_server: bool,
    /// True where its kubelet says that it is ready.
    pub is_ready: bool,
    /// True where it waits to be restarted.
    pub wants: bool,
}

/// All of them.
pub fn peers(nodes: &[Node]) -> Vec<Peer> {
    nodes.iter().map(peer).collect()
}

fn peer(node: &Node) -> Peer {
    let labels = node.metadata.labels.as_ref();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let annotations = node.metadata.annotations.as_ref();
    Peer {
        name: node.metadata.name.clone().unwrap_or_default(),
        is_server: labels.is_some_and(|labels| SERVER.iter().any(|key| labels.contains_key(*key))),
        is_ready: conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        wants: annotations.is_some_and(|annotations| annotations.contains_key(WANTED)),
    }
}
