//! What a cluster holds before the agent comes: our definitions, the node's own object.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use pitcrew_apiserver::ApiServer;
use pitcrew_kubelet::fake::Kubelet;
use serde_json::json;

/// Installs our custom resources, as the manifests do. Those that are there stay.
pub(crate) async fn define(client: &kube::Client) -> Result<(), kube::Error> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (_, definition) in pitcrew_api::definitions().map_err(kube::Error::SerdeError)? {
        let definition = serde_json::from_value(definition).map_err(kube::Error::SerdeError)?;
        match definitions.create(&PostParams::default(), &definition).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            result => drop(result?),
        }
    }
    Ok(())
}

/// Registers a node as its kubelet does.
pub(crate) async fn register(
    client: &kube::Client,
    name: &str,
    kubelet_version: Option<&str>,
) -> Result<(), kube::Error> {
    let node: Node = serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
            },
        },
        "status": {
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
            }],
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": "",
                "kernelVersion": "",
                "kubeProxyVersion": "",
                "kubeletVersion": kubelet_version.unwrap_or_default(),
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "",
                "systemUUID": "",
            },
        },
    }))
    .map_err(kube::Error::SerdeError)?;
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &node).await?;
    Ok(())
}

/// Namespace of the configuration.
pub(crate) const NAMESPACE: &str = "pitcrew";
/// Name of the `ConfigMap` with the configuration.
pub(crate) const CONFIGURATION: &str = "device-plugin";

/// Writes the configuration of the device plugin, whatever faults the server has.
pub(crate) fn configure(server: &ApiServer, text: &str) -> Result<(), kube::Error> {
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIGURATION, "namespace": NAMESPACE},
        "data": {"default": text},
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    // It is there from the second time on.
    ask(server, Method::POST, "/api/v1/namespaces", &namespace)?;
    let status = ask(server, Method::PUT, &format!("{maps}/{CONFIGURATION}"), &map)?;
    let status = if status == StatusCode::NOT_FOUND {
        ask(server, Method::POST, &maps, &map)?
    } else {
        status
    };
    if status.is_success() {
        Ok(())
    } else {
        let text = format!("the API server refused the configuration: {status}");
        Err(kube::Error::Service(text.into()))
    }
}

/// Where pods of a namespace are.
fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

/// Shows a pod that runs on a node and asks for these resources, whatever faults the server has.
pub(crate) fn show_pod(
    server: &ApiServer,
    node: &str,
    (namespace, name): (&str, &str),
    limits: &[(&str, usize)],
) -> Result<(), kube::Error> {
    let limits: serde_json::Map<String, serde_json::Value> = limits
        .iter()
        .map(|(resource, count)| ((*resource).to_owned(), json!(count.to_string())))
        .collect();
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "main", "image": "imaginary", "resources": {"limits": limits, "requests": limits}}],
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "main", "image": "imaginary", "imageID": "", "ready": true, "restartCount": 0, "started": true,
                "state": {"running": {}},
            }],
        },
    });
    ask(server, Method::POST, &pods(namespace), &pod)?;
    let status = format!("{}/{name}/status", pods(namespace));
    ask(server, Method::PUT, &status, &pod)?;
    Ok(())
}

/// Takes a pod away.
pub(crate) fn hide_pod(server: &ApiServer, namespace: &str, name: &str) -> Result<(), kube::Error> {
    let path = format!("{}/{name}?gracePeriodSeconds=0", pods(namespace));
    ask(server, Method::DELETE, &path, &json!({}))?;
    Ok(())
}

/// Asks the server itself, past its faults.
fn ask(
    server: &ApiServer,
    method: Method,
    path: &str,
    body: &serde_json::Value,
) -> Result<StatusCode, kube::Error> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(CONTENT_TYPE, "application/json")
        .body(Bytes::from(body.to_string()))
        .map_err(kube::Error::HttpError)?;
    Ok(server.respond(&request).status())
}

/// How often capacity is looked at. The real kubelet: every 10 s.
const STATUS_PERIOD: Duration = Duration::from_millis(200);

/// Keeps capacity and allocatable of the Node as the kubelet knows them, for ever.
pub(crate) async fn report(client: &kube::Client, name: &str, kubelet: &Kubelet) {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut reported = BTreeMap::new();
    loop {
        let capacity = kubelet.capacity();
        if capacity != reported {
            let gone = reported.keys().filter(|name| !capacity.contains_key(*name));
            let gone: Vec<String> = gone.cloned().collect();
            let quantities = |pick: fn(&(usize, usize)) -> usize| -> serde_json::Value {
                let known = capacity
                    .iter()
                    .map(|(name, counts)| (name.clone(), json!(pick(counts).to_string())));
                let gone = gone.iter().map(|name| (name.clone(), serde_json::Value::Null));
                known.chain(gone).collect::<serde_json::Map<_, _>>().into()
            };
            let patch = json!({"status": {
                "capacity": quantities(|counts| counts.0),
                "allocatable": quantities(|counts| counts.1),
            }});
            let params = PatchParams::default();
            // What doesn't arrive is sent again with the next look.
            if nodes
                .patch_status(name, &params, &Patch::Merge(&patch))
                .await
                .is_ok()
            {
                reported = capacity;
            }
        }
        tokio::time::sleep(STATUS_PERIOD).await;
    }
}
