//! What the API does to an object on its way in: defaults, checks, and what a request may not change.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::object;
use crate::resource::{Resource, Version};
use crate::selector::is_label_part;
use crate::status::{ApiError, Problem};
use crate::{crd, names, validate};

/// Prunes, defaults and checks an object, in the version that the client speaks.
pub(crate) fn admit(object: &mut Value, resource: &Resource, version: &Version) -> Result<(), ApiError> {
    default(object, resource);
    let mut problems = metadata_problems(object, resource);
    if let Some(openapi) = &version.openapi {
        validate::prune(object, openapi);
        validate::default(object, openapi);
        problems.extend(validate::problems(object, openapi));
    }
    if resource.kind == "CustomResourceDefinition" {
        problems.extend(crd::problems(object));
    }
    if resource.group.is_empty() && resource.kind == "Pod" {
        let containers = object.pointer("/spec/containers").and_then(Value::as_array);
        if containers.is_none_or(Vec::is_empty) {
            problems.push(Problem::required("spec.containers"));
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(resource, object::name(object), &problems))
    }
}

/// The defaults of built-in kinds that something here or in a client relies on.
fn default(object: &mut Value, resource: &Resource) {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => default_pod_spec(object.get_mut("spec")),
        ("apps", _) | ("batch", "Job") => default_pod_spec(object.pointer_mut("/spec/template/spec")),
        ("", "Secret") => default_secret(object),
        ("apiextensions.k8s.io", _) => crd::default(object),
        _ => {}
    }
    if (resource.group.as_str(), resource.kind.as_str()) == ("apps", "Deployment")
        && let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.entry("replicas").or_insert_with(|| json!(1));
    }
}

fn default_pod_spec(spec: Option<&mut Value>) {
    let Some(spec) = spec.and_then(Value::as_object_mut) else {
        return;
    };
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("securityContext", json!({})),
    ] {
        spec.entry(field).or_insert(value);
    }
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let Some(container) = container.as_object_mut() else {
                continue;
            };
            container.entry("resources").or_insert_with(|| json!({}));
            let ports = container.get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                port.entry("protocol").or_insert_with(|| json!("TCP"));
            }
        }
    }
}

fn default_secret(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    fields.entry("type").or_insert_with(|| json!("Opaque"));
    let Some(Value::Object(plain)) = fields.remove("stringData") else {
        return;
    };
    let data = fields.entry("data").or_insert_with(|| json!({}));
    if let Some(data) = data.as_object_mut() {
        for (key, value) in plain {
            let text = value.as_str().unwrap_or_default();
            data.insert(key, json!(STANDARD.encode(text)));
        }
    }
}

/// The label by which a namespace can be selected, its phase and its finalizer.
pub(crate) fn default_namespace(object: &mut Value) {
    let name = json!(object::name(object));
    if let Some(metadata) = object::metadata(object) {
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert("kubernetes.io/metadata.name".to_owned(), name);
        }
    }
    if let Some(object) = object.as_object_mut() {
        object.insert("spec".to_owned(), json!({"finalizers": ["kubernetes"]}));
        object.insert("status".to_owned(), json!({"phase": "Active"}));
    }
}

fn metadata_problems(object: &Value, resource: &Resource) -> Vec<Problem> {
    let mut out = Vec::new();
    let name = object::name(object);
    let fits = if resource.traits.free_names {
        names::is_path_segment(name)
    } else {
        names::is_dns_subdomain(name)
    };
    if !fits {
        let why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        out.push(Problem::invalid("metadata.name", &json!(name), why));
    }
    for (key, value) in object::labels(object).into_iter().flatten() {
        let (prefix, part) = key
            .rsplit_once('/')
            .map_or((None, key.as_str()), |(prefix, part)| (Some(prefix), part));
        if !is_label_part(part) || prefix.is_some_and(|prefix| !names::is_dns_subdomain(prefix)) {
            let why = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
            out.push(Problem::invalid("metadata.labels", &json!(key), why));
        }
        let text = value.as_str();
        if text.is_none_or(|text| !text.is_empty() && !is_label_part(text)) {
            let why = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
            out.push(Problem::invalid("metadata.labels", value, why));
        }
    }
    for (index, owner) in object::owner_references(object).enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            let text = owner.get(field).and_then(Value::as_str).unwrap_or_default();
            if text.is_empty() {
                let path = format!("metadata.ownerReferences[{index}].{field}");
                out.push(Problem::invalid(path, &json!(""), "must not be empty"));
            }
        }
    }
    out
}

/// Gives back to `new` what a request of this subresource may not change.
pub(crate) fn isolate(
    new: &mut Value,
    old: &Value,
    resource: &Resource,
    version: &Version,
    subresource: &str,
) {
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
        "resourceVersion",
    ] {
        object::copy_metadata(new, Some(old), field);
    }
    match subresource {
        "status" => {
            let shown = new
                .as_object()
                .map(|object| object.keys().cloned().collect::<Vec<_>>());
            let known = old
                .as_object()
                .map(|object| object.keys().cloned().collect::<Vec<_>>());
            let fields = shown.into_iter().chain(known).flatten();
            let kept =
                |field: &String| matches!(field.as_str(), "metadata" | "status" | "apiVersion" | "kind");
            for field in fields.filter(|field| !kept(field)) {
                object::copy_field(new, Some(old), &field);
            }
            if resource.traits.custom {
                for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                    object::copy_metadata(new, Some(old), field);
                }
            } else {
                object::copy_metadata(new, Some(old), "ownerReferences");
            }
        }
        _ if version.status => object::copy_field(new, Some(old), "status"),
        _ => {}
    }
}
