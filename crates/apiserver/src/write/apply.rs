//! Patches, server-side apply among them.

use serde_json::{Value, json};

use super::{Answer, Outcome, Write};
use crate::patch::{self, JsonPatchError};
use crate::ssa::{self, ApplyError, Manager, Operation, Owners};
use crate::status::{ApiError, Problem};
use crate::{object, validate, view};

impl Write<'_> {
    pub(super) fn patch(&mut self, body: Value) -> Result<Answer, ApiError> {
        const APPLY: &str = "application/apply-patch+yaml";
        const STRATEGIC: &str = "application/strategic-merge-patch+json";
        const MERGE: &str = "application/merge-patch+json";
        const JSON: &str = "application/json-patch+json";
        let known: &[&str] = if self.resource.traits.custom {
            &[JSON, MERGE, APPLY]
        } else {
            &[JSON, MERGE, STRATEGIC, APPLY]
        };
        self.check_media(known)?;
        let media = self.content_type.split(';').next().unwrap_or_default().trim();
        if media == APPLY {
            return self.apply(body);
        }
        if self.options.force {
            return Err(ApiError::new(
                422,
                "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
            ));
        }
        let old = self.current()?;
        let shown = view::in_version(&old, &self.resource, &self.version);
        let mut new = shown.clone();
        match media {
            JSON => patch::json(&mut new, &body).map_err(|error| match error {
                JsonPatchError::Malformed(why) => ApiError::bad_request(why),
                JsonPatchError::Failed(why) => {
                    // The real one doesn't say what; the details do no harm.
                    let message = "the server rejected our request due to an error in our request";
                    let mut error = ApiError::new(422, message);
                    error.details = Some(json!({"causes": [{"message": why}]}));
                    error
                }
            })?,
            MERGE => patch::merge(&mut new, &body),
            STRATEGIC => {
                new =
                    patch::strategic(&shown, &body, &self.version.topology).map_err(ApiError::bad_request)?;
            }
            _ => return Err(ApiError::new(415, "the patch has no content type")),
        }
        let new = self.read_object(new)?;
        self.check_uid(object::uid(&new), object::uid(&old))?;
        self.replace(&old, new, None)
            .map(|object| (200, Outcome::Object(object)))
    }

    fn apply(&mut self, body: Value) -> Result<Answer, ApiError> {
        if self.options.field_manager.is_empty() {
            return Err(ApiError::new(
                422,
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        let mut wanted = self.read_object(body)?;
        object::strip_nulls(&mut wanted);
        if wanted.pointer("/metadata/managedFields").is_some() {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        object::set(&mut wanted, "name", json!(self.target.name));
        self.cut(&mut wanted);
        let old = self.store.get(&self.id(&self.target.name)).cloned();
        let asked_version = object::resource_version(&wanted).to_owned();
        let asked_uid = object::uid(&wanted).to_owned();
        for field in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "generation",
            "selfLink",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            object::set(&mut wanted, field, Value::Null);
        }
        let shown = match &old {
            Some(old) => {
                self.check_uid(&asked_uid, object::uid(old))?;
                view::in_version(old, &self.resource, &self.version)
            }
            None if !asked_uid.is_empty() => {
                let why = format!(
                    "uid mismatch: the provided object specified uid {asked_uid}, and no existing object was found"
                );
                return Err(ApiError::conflict(&self.resource, &self.target.name, &why));
            }
            None if !self.target.subresource.is_empty() || !asked_version.is_empty() => {
                return Err(ApiError::not_found(&self.resource, &self.target.name));
            }
            None => json!({}),
        };
        let mut owners = Owners::read(&shown);
        if owners.is_empty() && old.is_some() {
            // What was there before anybody applied is owned by this one.
            let before = Manager {
                name: "before-first-apply".to_owned(),
                subresource: String::new(),
                ..self.manager(Operation::Update)
            };
            let blank = json!({"metadata": {}});
            owners = ssa::update(&blank, &shown, &owners, &before, &self.version.topology);
        }
        let manager = self.manager(Operation::Apply);
        let (force, topology) = (self.options.force, &self.version.topology);
        let applied = ssa::apply(&shown, &wanted, &owners, &manager, force, topology);
        let (mut merged, owners) = applied.map_err(|error| self.apply_error(&error))?;
        match old {
            None => self
                .create(merged, Some(owners))
                .map(|object| (201, Outcome::Object(object))),
            Some(old) => {
                object::set(&mut merged, "resourceVersion", json!(asked_version));
                object::set(&mut merged, "uid", json!(asked_uid));
                object::set(&mut merged, "managedFields", Value::Null);
                self.replace(&old, merged, Some(owners))
                    .map(|object| (200, Outcome::Object(object)))
            }
        }
    }

    /// A patch may name the uid, not change it.
    fn check_uid(&self, asked: &str, old: &str) -> Result<(), ApiError> {
        if asked.is_empty() || asked == old {
            return Ok(());
        }
        let problem = Problem::invalid("metadata.uid", &json!(asked), "field is immutable");
        Err(ApiError::invalid(&self.resource, &self.target.name, &[problem]))
    }

    /// Takes from a configuration what its path does not write.
    fn cut(&self, wanted: &mut Value) {
        if let Some(openapi) = &self.version.openapi {
            validate::prune(wanted, openapi);
        }
        if self.target.subresource.is_empty() {
            if self.version.status {
                object::copy_field(wanted, None, "status");
            }
            return;
        }
        if let Some(fields) = wanted.as_object_mut() {
            fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
        }
        if self.resource.traits.custom {
            for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                object::set(wanted, field, Value::Null);
            }
        } else {
            object::set(wanted, "ownerReferences", Value::Null);
        }
    }

    fn apply_error(&self, error: &ApplyError) -> ApiError {
        let conflicts = match error {
            ApplyError::Items(why) => {
                let object = format!(
                    "{}/{}; {}",
                    self.target.namespace,
                    self.target.name,
                    self.api_version()
                );
                return ApiError::new(
                    500,
                    format!(
                        "failed to create typed patch object ({object}, Kind={}): {why}",
                        self.resource.kind
                    ),
                );
            }
            ApplyError::Conflicts(conflicts) => conflicts,
        };
        let described = Manager::described;
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|conflict| {
                json!({
                    "reason": "FieldManagerConflict",
                    "message": format!("conflict with {}", described(&conflict.manager)),
                    "field": conflict.path,
                })
            })
            .collect();
        let message = if let [one] = conflicts.as_slice() {
            format!(
                "Apply failed with 1 conflict: conflict with {}: {}",
                described(&one.manager),
                one.path
            )
        } else {
            let mut lines: Vec<String> = Vec::new();
            let mut managers: Vec<String> = conflicts.iter().map(|one| described(&one.manager)).collect();
            managers.sort();
            managers.dedup();
            for manager in managers {
                lines.push(format!("conflicts with {manager}:"));
                let own = conflicts.iter().filter(|one| described(&one.manager) == manager);
                lines.extend(own.map(|one| format!("- {}", one.path)));
            }
            format!(
                "Apply failed with {} conflicts: {}",
                conflicts.len(),
                lines.join("\n")
            )
        };
        let mut error = ApiError::new(409, message);
        error.details = Some(json!({"causes": causes}));
        error
    }
}
