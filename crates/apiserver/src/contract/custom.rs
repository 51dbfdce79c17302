//! Custom resources.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Cluster, eventually, json_of, refused, typed};

/// Makes a definition for one case: `kind`s of a group that is named after its namespace.
pub(super) async fn define(cluster: &Cluster) -> (Api<CustomResourceDefinition>, String, Api<DynamicObject>) {
    let group = format!("{}.pitcrew.dev", cluster.namespace);
    let conditions = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object", "required": ["type", "status"],
            "properties": {"type": {"type": "string"}, "status": {"type": "string"}, "reason": {"type": "string"}},
        },
    });
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object", "required": ["mode"],
                "properties": {
                    "mode": {"type": "string", "enum": ["on", "off"]},
                    "slices": {"type": "integer", "minimum": 1, "maximum": 7, "default": 2},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                },
            },
            "status": {"type": "object", "properties": {"conditions": conditions, "seen": {"type": "integer"}}},
        },
    });
    let name = format!("widgets.{group}");
    let crd: CustomResourceDefinition = typed(json!({
        "metadata": {"name": name},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wi"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Mode", "type": "string", "jsonPath": ".spec.mode"}],
            }],
        },
    }));
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    crds.create(&PostParams::default(), &crd).await.expect("defined");
    let widgets = cluster.dynamic(&format!("{group}/v1"), "Widget", "widgets", true);
    let (found, all) = (&crds, &widgets);
    eventually("the definition to be served", || async {
        let crd = json_of(&found.get(&name).await.ok()?);
        let conditions = crd["status"]["conditions"].as_array()?.clone();
        let established = conditions
            .iter()
            .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
        let is_listed = all.list(&ListParams::default()).await.is_ok();
        (established && is_listed).then_some(())
    })
    .await;
    (crds, name, widgets)
}

fn widget(widgets: &Api<DynamicObject>, rest: &Value) -> DynamicObject {
    let group = widgets
        .resource_url()
        .split('/')
        .nth(2)
        .unwrap_or_default()
        .to_owned();
    let mut object =
        json!({"apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": {"name": "w"}});
    for (field, value) in rest.as_object().into_iter().flatten() {
        object[field] = value.clone();
    }
    typed(object)
}

/// Defaults, required fields, enumerations, limits; unknown fields are dropped where they are not asked for.
pub async fn a_custom_resource_has_defaults_and_rules(cluster: Cluster) {
    let (crds, name, widgets) = define(&cluster).await;
    let params = PostParams::default();
    let good = widget(
        &widgets,
        &json!({"spec": {"mode": "on", "extra": 1, "free": {"any": {"thing": 1}}}}),
    );
    let made = json_of(&widgets.create(&params, &good).await.expect("created"));
    assert_eq!(
        made["spec"],
        json!({"mode": "on", "slices": 2, "free": {"any": {"thing": 1}}})
    );
    for (spec, field) in [
        (json!({"slices": 1}), "spec.mode"),
        (json!({"mode": "maybe"}), "spec.mode"),
        (json!({"mode": "on", "slices": 8}), "spec.slices"),
        (json!({"mode": "on", "slices": "two"}), "spec.slices"),
    ] {
        let mut bad = widget(&widgets, &json!({"spec": spec}));
        bad.metadata.name = Some("bad".to_owned());
        let status = refused(widgets.create(&params, &bad).await);
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{spec}");
        let causes = status.details.expect("details").causes;
        assert!(causes.iter().any(|cause| cause.field == field), "{causes:?}");
    }
    // A strategic merge patch needs a type that custom resources have not.
    let patch = Patch::Strategic(json!({"spec": {"mode": "off"}}));
    assert_eq!(
        refused(widgets.patch("w", &PatchParams::default(), &patch).await).code,
        415
    );
    crds.delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    cluster.end().await;
}

/// The spec counts generations, the status does not; each is written by its own path.
pub async fn a_custom_resource_has_a_generation_and_a_status(cluster: Cluster) {
    let (crds, name, widgets) = define(&cluster).await;
    let body = widget(&widgets, &json!({"spec": {"mode": "on"}, "status": {"seen": 9}}));
    let made = widgets
        .create(&PostParams::default(), &body)
        .await
        .expect("created");
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(json_of(&made).get("status"), None);
    let params = PatchParams::default();
    let both = Patch::Merge(
        json!({"spec": {"mode": "off"}, "status": {"seen": 1}, "metadata": {"labels": {"a": "b"}}}),
    );
    let status = widgets.patch_status("w", &params, &both).await.expect("patched");
    assert_eq!(status.metadata.generation, Some(1));
    let read = json_of(&status);
    assert_eq!(
        (&read["spec"]["mode"], &read["status"]["seen"]),
        (&json!("on"), &json!(1))
    );
    assert_eq!(read["metadata"].get("labels"), None);
    let spec = widgets.patch("w", &params, &both).await.expect("patched");
    assert_eq!(spec.metadata.generation, Some(2));
    let other = Patch::Merge(
        json!({"spec": {"mode": "off"}, "status": {"seen": 3}, "metadata": {"labels": {"c": "d"}}}),
    );
    let labelled = widgets.patch("w", &params, &other).await.expect("patched");
    assert_eq!(labelled.metadata.generation, Some(2));
    assert_eq!(json_of(&labelled)["status"]["seen"], 1);
    // A status that breaks its schema.
    let bad = Patch::Merge(json!({"status": {"conditions": [{"type": "A"}]}}));
    assert_eq!(refused(widgets.patch_status("w", &params, &bad).await).code, 422);
    // Conditions by their type, from two writers.
    for writer in ["A", "B"] {
        let status = json!({"status": {"conditions": [{"type": writer, "status": "True"}]}});
        let patch = Patch::Apply(widget(&widgets, &status));
        widgets
            .patch_status("w", &PatchParams::apply(writer), &patch)
            .await
            .expect("applied");
    }
    let read = json_of(&widgets.get("w").await.expect("read"));
    assert_eq!(read["status"]["conditions"].as_array().map(Vec::len), Some(2));
    // It is never replaced blindly.
    let blind = widget(&widgets, &json!({"spec": {"mode": "on"}}));
    assert_eq!(
        refused(widgets.replace("w", &PostParams::default(), &blind).await).code,
        422
    );
    crds.delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    cluster.end().await;
}

/// Its objects go with it.
pub async fn a_custom_resource_is_served_until_its_definition_goes(cluster: Cluster) {
    let (crds, name, widgets) = define(&cluster).await;
    let body = widget(&widgets, &json!({"spec": {"mode": "on"}}));
    widgets
        .create(&PostParams::default(), &body)
        .await
        .expect("created");
    let groups = cluster.client.list_api_groups().await.expect("groups");
    let group = name.split_once('.').map(|(_, group)| group.to_owned());
    assert!(
        groups
            .groups
            .iter()
            .any(|known| Some(&known.name) == group.as_ref())
    );
    let resources = cluster
        .client
        .list_api_group_resources(&format!("{}/v1", group.unwrap_or_default()))
        .await
        .expect("resources");
    assert!(
        resources
            .resources
            .iter()
            .any(|resource| resource.name == "widgets/status")
    );
    crds.delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    let (crds, widgets) = (&crds, &widgets);
    eventually("the definition to go", || async {
        let gone = crds.get_opt(&name).await.is_ok_and(|crd| crd.is_none());
        (gone && widgets.list(&ListParams::default()).await.is_err()).then_some(())
    })
    .await;
    let group_less = cluster.dynamic("v1", "Widget", "widgets", true);
    assert_eq!(refused(group_less.list(&ListParams::default()).await).code, 404);
    cluster.end().await;
}
