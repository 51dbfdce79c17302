//! Get and list.

use serde_json::{Value, json};

use crate::events;
use crate::object;
use crate::resource::{Resource, Version};
use crate::route::{Options, Target};
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::ApiError;
use crate::store::{Id, Kind, Object, Store};

/// Which objects of a kind a list or a watch is about.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// `NAMESPACE/`, or empty for all.
    prefix: String,
    labels: LabelSelector,
    fields: FieldSelector,
    /// Of a watch of one object by its path.
    name: String,
}

impl Selection {
    pub(crate) fn new(
        resource: &Resource,
        version: &Version,
        target: &Target,
        options: &Options,
    ) -> Result<Self, ApiError> {
        let mut selectable = resource.selectable(version);
        selectable.push("metadata.name".to_owned());
        if resource.traits.namespaced {
            selectable.push("metadata.namespace".to_owned());
        }
        for field in options.fields.fields() {
            if !selectable.iter().any(|known| known == field) {
                return Err(ApiError::bad_request(format!(
                    "field label not supported: {field}"
                )));
            }
        }
        let mut fields = options.fields.clone();
        if resource.group == "events.k8s.io" {
            fields.rename(events::stored_field);
        }
        if resource.plural == "events" {
            fields.rename(|field| (field == "source").then(|| "source.component".to_owned()));
        }
        let prefix = if target.namespace.is_empty() {
            String::new()
        } else {
            format!("{}/", target.namespace)
        };
        Ok(Self {
            prefix,
            labels: options.labels.clone(),
            fields,
            name: target.name.clone(),
        })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn matches(&self, key: &str, stored: &Value) -> bool {
        key.starts_with(&self.prefix)
            && (self.name.is_empty() || object::name(stored) == self.name)
            && self.labels.matches(object::labels(stored))
            && self.fields.matches(stored)
    }

    fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

/// The key of an object in its kind.
pub(crate) fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

/// One object.
pub(crate) fn get(
    store: &Store,
    resource: &Resource,
    target: &Target,
    options: &Options,
) -> Result<Object, ApiError> {
    not_in_future(store, options)?;
    let id = Id {
        kind: Store::id_of(resource),
        key: key(&target.namespace, &target.name),
    };
    let found = store.get(&id).cloned();
    found.ok_or_else(|| ApiError::not_found(resource, &target.name))
}

/// A page of a list, and the list's metadata.
pub(crate) fn list(
    store: &Store,
    kind: &Kind,
    selection: &Selection,
    options: &Options,
) -> Result<(Vec<Object>, Value), ApiError> {
    not_in_future(store, options)?;
    let now = store.revision();
    let (revision, after) = if options.continue_token.is_empty() {
        let exact = options.version_match == "Exact";
        let wanted = options.resource_version.filter(|_| exact);
        (wanted.unwrap_or(now), None)
    } else {
        let token = options.continue_token.split_once('.');
        let token = token.and_then(|(revision, key)| Some((revision.parse::<u64>().ok()?, key)));
        let (revision, key) = token
            .ok_or_else(|| ApiError::bad_request("continue key is not valid: it is none of this server's"))?;
        (revision, Some(key.to_owned()))
    };
    let past = if revision < now {
        let past = kind.at(revision);
        Some(past.ok_or_else(|| {
            let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.";
            if after.is_some() {
                ApiError::new(410, message)
            } else {
                ApiError::too_old(revision, kind.floor())
            }
        })?)
    } else {
        None
    };
    let all: Box<dyn Iterator<Item = (&String, &Object)>> = match &past {
        Some(past) => Box::new(past.iter()),
        None => Box::new(kind.under(selection.prefix())),
    };
    let mut matching = all
        .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
        .filter(|(key, stored)| selection.matches(key, stored))
        .peekable();
    let mut page = Vec::new();
    let mut last = String::new();
    while options.limit.is_none_or(|limit| page.len() < limit) {
        let Some((key, stored)) = matching.next() else {
            break;
        };
        last.clone_from(key);
        page.push(stored.clone());
    }
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if matching.peek().is_some() {
        metadata["continue"] = json!(format!("{revision}.{last}"));
        if selection.is_everything() {
            metadata["remainingItemCount"] = json!(matching.count());
        }
    }
    Ok((page, metadata))
}

/// A read that is to be no older than a revision that is not there yet.
fn not_in_future(store: &Store, options: &Options) -> Result<(), ApiError> {
    let now = store.revision();
    let asked = options.resource_version.unwrap_or(0);
    if asked <= now {
        return Ok(());
    }
    let message = format!("Too large resource version: {asked}, current: {now}");
    let mut error = ApiError::new(504, format!("Timeout: {message}"));
    error.details = Some(json!({
        "retryAfterSeconds": 1,
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
    }));
    Err(error)
}
