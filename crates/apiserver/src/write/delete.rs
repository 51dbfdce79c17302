//! Deletion of one object, and of all that match.

use serde_json::{Value, json};

use super::{Answer, Outcome, Write, parse, success};
use crate::gc::{self, Deletion, Propagation, Times};
use crate::object;
use crate::read::Selection;
use crate::status::ApiError;
use crate::store::{Id, Object, Store};

impl Write<'_> {
    /// What a `DeleteOptions` says; the query says the same where there is none.
    pub(super) fn deletion(&self, body: &Value) -> Deletion {
        let text = body.get("propagationPolicy").and_then(Value::as_str);
        let policy = text.unwrap_or(&self.options.propagation);
        let orphans = body.get("orphanDependents") == Some(&Value::Bool(true));
        Deletion {
            propagation: match policy {
                "Orphan" => Propagation::Orphan,
                "Foreground" => Propagation::Foreground,
                _ if orphans => Propagation::Orphan,
                _ => Propagation::Background,
            },
            grace: body
                .get("gracePeriodSeconds")
                .and_then(Value::as_i64)
                .or(self.options.grace),
        }
    }

    fn delete_options(body: &[u8]) -> Result<Value, ApiError> {
        if body.is_empty() {
            Ok(json!({}))
        } else {
            parse(body)
        }
    }

    pub(super) fn delete(&mut self, body: &[u8]) -> Result<Answer, ApiError> {
        let body = Self::delete_options(body)?;
        let old = self.current()?;
        for (field, what, found) in [
            ("uid", "UID", object::uid(&old)),
            (
                "resourceVersion",
                "ResourceVersion",
                object::resource_version(&old),
            ),
        ] {
            let wanted = body
                .pointer(&format!("/preconditions/{field}"))
                .and_then(Value::as_str);
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                let why = format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
                );
                return Err(ApiError::conflict(&self.resource, &self.target.name, &why));
            }
        }
        let dry = self.options.dry_run || body.pointer("/dryRun/0").is_some();
        let (last, is_gone) = if dry {
            let stays = object::finalizers(&old).next().is_some();
            (old, !stays)
        } else {
            self.delete_id(&self.id(&self.target.name), self.deletion(&body))?
        };
        if is_gone && self.resource.qualified() != "pods" {
            let mut details = json!({
                "name": self.target.name,
                "kind": self.resource.plural,
                "uid": object::uid(&last),
            });
            if !self.resource.group.is_empty() {
                details["group"] = json!(self.resource.group);
            }
            return Ok((200, Outcome::Other(success(&details))));
        }
        Ok((200, Outcome::Object(last)))
    }

    pub(super) fn delete_id(&mut self, id: &Id, how: Deletion) -> Result<(Object, bool), ApiError> {
        let times = Times {
            now: &self.now,
            after: self.after,
        };
        let gone = gc::delete(self.store, id, how, &times);
        gone.ok_or_else(|| ApiError::not_found(&self.resource, &id.key))
    }

    pub(super) fn delete_collection(&mut self, body: &[u8]) -> Result<Answer, ApiError> {
        let body = Self::delete_options(body)?;
        let selection = Selection::new(&self.resource, &self.version, self.target, self.options)?;
        let kind = Store::id_of(&self.resource);
        let mut all = Vec::new();
        if let Some(kind) = self.store.kind(&kind) {
            let matching = kind
                .under(selection.prefix())
                .filter(|(key, stored)| selection.matches(key, stored));
            all.extend(matching.map(|(key, stored)| (key.clone(), stored.clone())));
        }
        let how = self.deletion(&body);
        let mut out = Vec::new();
        for (key, stored) in all {
            if !self.options.dry_run {
                let id = Id {
                    kind: kind.clone(),
                    key,
                };
                // It may have gone with another one.
                let _ = self.delete_id(&id, how);
            }
            out.push(stored);
        }
        Ok((200, Outcome::List(out)))
    }
}
