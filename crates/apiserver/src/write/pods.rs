//! What is done to pods by subresources of theirs.

use serde_json::{Value, json};

use super::{Answer, Outcome, Write, success};
use crate::status::ApiError;

impl Write<'_> {
    /// `pods/binding`: what a scheduler says.
    pub(super) fn bind(&mut self, body: &Value) -> Result<Answer, ApiError> {
        let node = body
            .pointer("/target/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if node.is_empty() {
            return Err(ApiError::bad_request("the binding names no node"));
        }
        let old = self.current()?;
        if old.pointer("/spec/nodeName").is_some_and(|name| name != "") {
            let why = format!("pod {} is already assigned to node", self.target.name);
            return Err(ApiError::conflict(&self.resource, &self.target.name, &why));
        }
        let mut pod = (*old).clone();
        pod["spec"]["nodeName"] = json!(node);
        let condition = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": self.now});
        match pod
            .pointer_mut("/status/conditions")
            .and_then(Value::as_array_mut)
        {
            Some(conditions) => {
                conditions.retain(|other| other.get("type") != condition.get("type"));
                conditions.push(condition);
            }
            None => pod["status"]["conditions"] = json!([condition]),
        }
        if !self.options.dry_run {
            let id = self.id(&self.target.name);
            self.store.put(&id, pod);
        }
        Ok((201, Outcome::Other(success(&json!({})))))
    }

    /// `pods/eviction`: a deletion. No disruption budget is looked at.
    pub(super) fn evict(&mut self, body: &Value) -> Result<Answer, ApiError> {
        self.current()?;
        let options = body.get("deleteOptions").cloned().unwrap_or_default();
        if !self.options.dry_run {
            self.delete_id(&self.id(&self.target.name), self.deletion(&options))?;
        }
        Ok((201, Outcome::Other(success(&json!({})))))
    }
}
