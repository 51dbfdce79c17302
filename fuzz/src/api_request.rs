//! Requests to the in-memory API: paths, selectors, bodies, patches. Whatever comes, it answers, and what it stores stays
//! readable.
//!
//! The input is lines: `METHOD CONTENT-TYPE PATH` and the body's line after it, again and again.
#![no_main]

use http::Request;
use libfuzzer_sys::fuzz_target;
use pitcrew_apiserver::ApiServer;
use pitcrew_apiserver::selector::{FieldSelector, LabelSelector};

/// What the requests find: a definition and an object of each way to merge.
const SEEDS: [(&str, &str); 3] = [
    (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        r#"{"metadata":{"name":"ws.x.dev"},"spec":{"group":"x.dev","scope":"Cluster","names":{"plural":"ws","kind":"W"},"versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}},"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{"n":{"type":"integer","minimum":1,"default":2},"l":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":{"type":"object","properties":{"k":{"type":"string","default":"d"}}}}}},"status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}]}}"#,
    ),
    (
        "/api/v1/namespaces/default/pods",
        r#"{"metadata":{"name":"p","labels":{"a":"b"}},"spec":{"containers":[{"name":"m","env":[{"name":"E","value":"1"}]}]}}"#,
    ),
    ("/apis/x.dev/v1/ws", r#"{"apiVersion":"x.dev/v1","kind":"W","metadata":{"name":"w"},"spec":{"l":[{"k":"a"}]}}"#),
];

fuzz_target!(|text: &str| {
    if let Ok(selector) = text.parse::<LabelSelector>() {
        assert_eq!(selector.to_string().parse(), Ok(selector));
    }
    if let Ok(selector) = text.parse::<FieldSelector>() {
        assert_eq!(selector.to_string().parse(), Ok(selector));
    }
    let server = ApiServer::new();
    for (path, body) in SEEDS {
        let request = Request::post(path).body(bytes::Bytes::from_static(body.as_bytes()));
        let response = server.respond(&request.expect("the seed is a request"));
        assert_eq!(response.status(), 201);
    }
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut words = line.splitn(3, ' ');
        let (method, media, path) = (words.next(), words.next(), words.next());
        let body = lines.next().unwrap_or_default().to_owned();
        let request = Request::builder()
            .method(method.unwrap_or_default())
            .header("content-type", media.unwrap_or_default())
            .uri(path.unwrap_or_default())
            .body(bytes::Bytes::from(body));
        if let Ok(request) = request {
            server.respond(&request);
        }
    }
    for path in ["/api/v1/pods", "/apis/x.dev/v1/ws", "/apis/events.k8s.io/v1/events"] {
        let request = Request::get(path).body(bytes::Bytes::new()).expect("it is a request");
        let code = server.respond(&request).status().as_u16();
        assert!(code == 200 || path.contains("x.dev"), "{path}: {code}");
    }
});
