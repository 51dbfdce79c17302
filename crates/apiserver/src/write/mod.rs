//! Create, update, patch, apply, delete.

mod apply;
mod delete;
mod pods;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::admission::{admit, isolate};
use crate::gc::{self, Deletion, Times};
use crate::read;
use crate::resource::{Resource, Version};
use crate::route::{Options, Target, Verb};
use crate::ssa::{self, Manager, Operation, Owners};
use crate::status::{ApiError, Problem};
use crate::store::{Id, Object, Store};
use crate::{crd, object, view};

pub(crate) use crate::admission::default_namespace;

/// A request that changes something.
pub(crate) struct Write<'a> {
    pub(crate) store: &'a mut Store,
    pub(crate) resource: Arc<Resource>,
    pub(crate) version: Version,
    pub(crate) target: &'a Target,
    pub(crate) options: &'a Options,
    pub(crate) now: String,
    /// The time so many seconds from now.
    pub(crate) after: &'a dyn Fn(i64) -> String,
    pub(crate) user_agent: &'a str,
    pub(crate) content_type: &'a str,
}

/// What a write answers with.
pub(crate) enum Outcome {
    /// An object, as stored.
    Object(Object),
    List(Vec<Object>),
    Other(Value),
}

type Answer = (u16, Outcome);

/// Does what is asked.
pub(crate) fn perform(mut write: Write<'_>, verb: Verb, body: &[u8]) -> Result<Answer, ApiError> {
    match verb {
        Verb::Create => match write.target.subresource.as_str() {
            "binding" => write.bind(&parse(body)?),
            "eviction" => write.evict(&parse(body)?),
            _ => {
                write.check_media(&["application/json"])?;
                let object = write.read_object(parse(body)?)?;
                write
                    .create(object, None)
                    .map(|object| (201, Outcome::Object(object)))
            }
        },
        Verb::Update => {
            write.check_media(&["application/json"])?;
            let object = write.read_object(parse(body)?)?;
            write.update(object)
        }
        Verb::Patch => write.patch(parse(body)?),
        Verb::Delete => write.delete(body),
        Verb::DeleteCollection => write.delete_collection(body),
        Verb::Get | Verb::List | Verb::Watch => Err(ApiError::method_not_allowed()),
    }
}

fn parse(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the body of the request is not JSON: {error}")))
}

impl Write<'_> {
    fn id(&self, name: &str) -> Id {
        Id {
            kind: Store::id_of(&self.resource),
            key: read::key(&self.target.namespace, name),
        }
    }

    fn current(&self) -> Result<Object, ApiError> {
        let found = self.store.get(&self.id(&self.target.name)).cloned();
        found.ok_or_else(|| ApiError::not_found(&self.resource, &self.target.name))
    }

    fn api_version(&self) -> String {
        self.resource.api_version(&self.version.name)
    }

    fn manager(&self, operation: Operation) -> Manager {
        let name = if self.options.field_manager.is_empty() {
            if self.user_agent.is_empty() {
                "unknown"
            } else {
                self.user_agent
            }
        } else {
            &self.options.field_manager
        };
        Manager {
            operation,
            name: name.to_owned(),
            subresource: self.target.subresource.clone(),
            api_version: self.api_version(),
        }
    }

    fn check_media(&self, known: &[&str]) -> Result<(), ApiError> {
        let media = self.content_type.split(';').next().unwrap_or_default().trim();
        if media.is_empty() || known.contains(&media) {
            return Ok(());
        }
        Err(ApiError::new(
            415,
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                known.join(", ")
            ),
        ))
    }

    /// An object of the request's kind, as a body tells it; the metadata is there afterwards.
    fn read_object(&self, mut body: Value) -> Result<Value, ApiError> {
        let Some(fields) = body.as_object_mut() else {
            return Err(ApiError::bad_request("the body of the request is no object"));
        };
        for (field, wanted) in [
            ("apiVersion", self.api_version()),
            ("kind", self.resource.kind.clone()),
        ] {
            match fields.get(field).and_then(Value::as_str) {
                None | Some("") if !self.resource.traits.custom => {
                    fields.insert(field.to_owned(), json!(wanted));
                }
                Some(found) if found == wanted => {}
                found => {
                    let found = found.unwrap_or_default();
                    return Err(ApiError::bad_request(format!(
                        "the {field} of the object ({found:?}) does not match the one of the request ({wanted:?})"
                    )));
                }
            }
        }
        if fields
            .get("metadata")
            .is_some_and(|metadata| !metadata.is_object())
        {
            return Err(ApiError::bad_request("the metadata of the object is no object"));
        }
        object::metadata(&mut body);
        if !self.resource.traits.custom {
            object::strip_nulls(&mut body);
        }
        self.place(&mut body)?;
        Ok(body)
    }

    /// Checks the namespace and the name against the path, and fills in the namespace.
    fn place(&self, body: &mut Value) -> Result<(), ApiError> {
        let namespace = object::namespace(body);
        if !namespace.is_empty() && namespace != self.target.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let name = object::name(body);
        if !self.target.name.is_empty() && !name.is_empty() && name != self.target.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                self.target.name
            )));
        }
        let namespace = &self.target.namespace;
        let value = if namespace.is_empty() {
            Value::Null
        } else {
            json!(namespace)
        };
        object::set(body, "namespace", value);
        Ok(())
    }

    /// Makes an object, which is in the request's version. Who owns what of it is found out unless it is known.
    fn create(&mut self, mut object: Value, owners: Option<Owners>) -> Result<Object, ApiError> {
        if !self.target.name.is_empty() {
            object::set(&mut object, "name", json!(self.target.name));
        }
        let prefix = object::text(&object, "generateName").to_owned();
        if object::name(&object).is_empty() {
            if prefix.is_empty() {
                let problem = Problem::new(
                    "metadata.name",
                    "FieldValueRequired",
                    "Required value: name or generateName is required",
                );
                return Err(ApiError::invalid(&self.resource, "", &[problem]));
            }
            let name = loop {
                let name = self.store.generator.name(&prefix);
                if self.store.get(&self.id(&name)).is_none() {
                    break name;
                }
            };
            object::set(&mut object, "name", json!(name));
        }
        let name = object::name(&object).to_owned();
        if !object::resource_version(&object).is_empty() {
            // The real one calls it its own error too.
            return Err(ApiError::new(
                500,
                "resourceVersion should not be set on objects to be created",
            ));
        }
        self.check_namespace(&name)?;
        if self.store.get(&self.id(&name)).is_some() {
            return Err(ApiError::already_exists(&self.resource, &name));
        }
        let uid = self.store.generator.uid();
        for (field, value) in [
            ("uid", json!(uid)),
            ("creationTimestamp", json!(self.now)),
            ("deletionTimestamp", Value::Null),
            ("deletionGracePeriodSeconds", Value::Null),
            ("selfLink", Value::Null),
            ("managedFields", Value::Null),
        ] {
            object::set(&mut object, field, value);
        }
        let generation = if self.resource.traits.generation {
            json!(1)
        } else {
            Value::Null
        };
        object::set(&mut object, "generation", generation);
        if self.version.status && !self.resource.traits.status_on_create {
            object::copy_field(&mut object, None, "status");
        }
        self.tidy(&mut object);
        let asked = object.clone();
        admit(&mut object, &self.resource, &self.version)?;
        match self.resource.qualified().as_str() {
            "namespaces" => default_namespace(&mut object),
            "pods" => object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"}),
            "customresourcedefinitions.apiextensions.k8s.io" => crd::status(&mut object, &self.now),
            _ => {}
        }
        let owners = owners.unwrap_or_else(|| {
            // A built-in type has its parts from the start.
            let blank = if self.resource.traits.custom {
                json!({"metadata": {}})
            } else {
                json!({"metadata": {}, "spec": {}, "status": {}})
            };
            // Defaults belong to whoever made the object; what the server writes by itself to nobody.
            let mut owned = object.clone();
            object::copy_field(&mut owned, Some(&asked), "status");
            let manager = self.manager(Operation::Update);
            ssa::update(
                &blank,
                &owned,
                &Owners::default(),
                &manager,
                &self.version.topology,
            )
        });
        owners.write(&Owners::default(), &self.now, &mut object);
        let stored = view::to_stored(&object, &self.resource);
        if self.options.dry_run {
            return Ok(Arc::new(stored));
        }
        let id = self.id(&name);
        let stored = self.store.put(&id, stored);
        self.after_write(&stored);
        Ok(stored)
    }

    fn check_namespace(&self, name: &str) -> Result<(), ApiError> {
        let namespace = &self.target.namespace;
        if namespace.is_empty() {
            return Ok(());
        }
        let id = Id {
            kind: "namespaces".to_owned(),
            key: namespace.clone(),
        };
        match self.store.get(&id) {
            None => {
                let namespaces = self.store.resource("", "namespaces");
                Err(namespaces.map_or_else(ApiError::no_such_path, |resource| {
                    ApiError::not_found(&resource, namespace)
                }))
            }
            Some(found) if object::is_deleting(found) => {
                let why = format!(
                    "unable to create new content in namespace {namespace} because it is being terminated"
                );
                let mut error = ApiError::forbidden(&self.resource, name, &why);
                if let Some(details) = &mut error.details {
                    details["causes"] = json!([{
                        "reason": "NamespaceTerminating",
                        "message": format!("namespace {namespace} is being terminated"),
                        "field": "metadata.namespace",
                    }]);
                }
                Err(error)
            }
            Some(_) => Ok(()),
        }
    }

    /// Leaves out what the API's own encoding does.
    fn tidy(&self, object: &mut Value) {
        let free = self.resource.traits.custom || self.resource.group == "apiextensions.k8s.io";
        object::strip_empty(object, free);
    }

    /// What follows from an object being there.
    fn after_write(&mut self, stored: &Object) {
        if self.resource.kind == "CustomResourceDefinition" && !object::is_deleting(stored) {
            crd::register(self.store, stored);
        }
    }

    fn update(&mut self, object: Value) -> Result<Answer, ApiError> {
        if object::name(&object).is_empty() {
            return Err(ApiError::bad_request("the name of the object is missing"));
        }
        let old = match self.current() {
            Ok(old) => old,
            Err(_) if self.resource.traits.put_creates && object::resource_version(&object).is_empty() => {
                return self
                    .create(object, None)
                    .map(|object| (201, Outcome::Object(object)));
            }
            Err(error) => return Err(error),
        };
        if self.resource.traits.needs_version && object::resource_version(&object).is_empty() {
            let problem = Problem::new(
                "metadata.resourceVersion",
                "FieldValueInvalid",
                "Invalid value: 0: must be specified for an update",
            );
            return Err(ApiError::invalid(&self.resource, &self.target.name, &[problem]));
        }
        self.replace(&old, object, None)
            .map(|object| (200, Outcome::Object(object)))
    }

    /// Turns `old`, as stored, into `new`, in the request's version.
    fn replace(&mut self, old: &Object, mut new: Value, owners: Option<Owners>) -> Result<Object, ApiError> {
        let (resource, name) = (self.resource.clone(), self.target.name.clone());
        let version = object::resource_version(&new);
        if !version.is_empty() && version != object::resource_version(old) {
            return Err(ApiError::modified(&resource, &name));
        }
        let uid = object::uid(&new);
        if !uid.is_empty() && uid != object::uid(old) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object::uid(old)
            );
            return Err(ApiError::conflict(&resource, &name, &why));
        }
        let shown = view::in_version(old, &resource, &self.version);
        let before = Owners::read(&shown);
        let told = new
            .pointer("/metadata/managedFields")
            .is_some_and(Value::is_array);
        let base = if told { Owners::read(&new) } else { before.clone() };
        isolate(
            &mut new,
            &shown,
            &resource,
            &self.version,
            &self.target.subresource,
        );
        if object::is_deleting(old)
            && object::finalizers(&new).any(|finalizer| object::finalizers(old).all(|had| had != finalizer))
        {
            let problem = Problem::new(
                "metadata.finalizers",
                "FieldValueForbidden",
                "Forbidden: no new finalizers can be added if the object is being deleted",
            );
            return Err(ApiError::invalid(&resource, &name, &[problem]));
        }
        self.tidy(&mut new);
        admit(&mut new, &resource, &self.version)?;
        if resource.traits.generation && object::spec_differs(&shown, &new) {
            let generation = old.pointer("/metadata/generation").and_then(Value::as_i64);
            object::set(&mut new, "generation", json!(generation.unwrap_or(0) + 1));
        }
        if resource.kind == "CustomResourceDefinition" {
            crd::status(&mut new, &self.now);
        }
        object::copy_metadata(&mut new, Some(&shown), "managedFields");
        let is_reset = told && base.is_empty() && !before.is_empty();
        if new == shown && owners.as_ref().is_none_or(|owners| !owners.differ(&before)) && !is_reset {
            return Ok(old.clone());
        }
        let owners = match owners {
            Some(owners) => owners,
            // Who owns what is told from the first apply on where it was forgotten.
            None if base.is_empty() => Owners::default(),
            None => {
                let manager = self.manager(Operation::Update);
                ssa::update(&shown, &new, &base, &manager, &self.version.topology)
            }
        };
        owners.write(&before, &self.now, &mut new);
        let stored = view::to_stored(&new, &resource);
        if self.options.dry_run {
            return Ok(Arc::new(stored));
        }
        let id = self.id(&name);
        let stored = self.store.put(&id, stored);
        self.after_write(&stored);
        self.finish_deletion(&id, &stored);
        Ok(stored)
    }

    /// An object that is being deleted goes with its last finalizer, unless it has time left to end.
    fn finish_deletion(&mut self, id: &Id, stored: &Object) {
        let waits = stored.pointer("/metadata/deletionGracePeriodSeconds") != Some(&json!(0));
        if object::is_deleting(stored) && object::finalizers(stored).next().is_none() && !waits {
            // A namespace goes with its last object.
            let how = Deletion {
                grace: Some(0),
                ..Deletion::default()
            };
            let times = Times {
                now: &self.now,
                after: self.after,
            };
            gc::delete(self.store, id, how, &times);
        }
    }
}

fn success(details: &Value) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
