//! The end of the agent on a node: its condition goes, since nobody keeps it true any more.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::NODE_CONDITION;

/// The Node's condition could not be taken away.
#[derive(Debug, thiserror::Error)]
#[error(
    "the condition {NODE_CONDITION} of node `{node}` can't be taken away: try again when the API server answers"
)]
pub struct RemoveError {
    node: String,
    source: Box<kube::Error>,
}

/// Takes the agent's condition off its Node. A Node that isn't there has none.
///
/// # Errors
/// Where the API server can't be asked, or refuses.
pub async fn remove(client: Client, node: &str) -> Result<(), RemoveError> {
    let nodes: Api<Node> = Api::all(client);
    let patch = json!({"status": {"conditions": [{"$patch": "delete", "type": NODE_CONDITION}]}});
    let params = PatchParams::default();
    match nodes.patch_status(node, &params, &Patch::Strategic(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(RemoveError {
            node: node.to_owned(),
            source: Box::new(source),
        }),
        Ok(_) => Ok(()),
    }
}
