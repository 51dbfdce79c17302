//! A small in-memory Kubernetes API: one tower service over a store, for tests and simulated clusters.
//!
//! [`ApiServer`] is a `tower::Service`, so that a `kube::Client` speaks to it without a socket:
//!
//! ```
//! # use pitcrew_apiserver::ApiServer;
//! # use k8s_openapi::api::core::v1::Node;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), kube::Error> {
//! let server = ApiServer::new();
//! let client = kube::Client::new(server.clone(), "default");
//! let nodes: kube::Api<Node> = kube::Api::all(client);
//! assert!(nodes.list(&Default::default()).await?.items.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! It has no threads, tasks, statics or environment of its own, and works in paused time: a thousand of them run in one
//! process. [`Faults`] makes it late, wrong, deaf or forgetful on demand; [`Audit`] tells what was asked of it. With the
//! feature `tcp` it also listens, and unmodified kubectl works on it (`--validate=false` where it applies or creates: there
//! is no `OpenAPI` document to validate with).
//!
//! What it claims to do is the module `contract` (a feature of that name): functions that ring 2 runs on it, and
//! ring 4 on a real kube-apiserver, with the same assertions.
//!
//! # What it does
//! - Nodes, pods, events of both groups, config maps, secrets, namespaces, service accounts, services; workloads, leases,
//!   runtime and priority classes, disruption budgets, RBAC objects, validating admission policies; and whatever a
//!   `CustomResourceDefinition` defines, with its defaults, required fields, types, enumerations and limits.
//! - Create, read, replace, delete, delete many; dry runs; `generateName`, uids, generations, one revision for all, optimistic
//!   concurrency; the status subresource; `pods/binding`, `pods/eviction`.
//! - Lists with label and field selectors, in pages of one moment; as tables and as metadata only. Watches from a revision,
//!   with bookmarks, streamed lists, and 410 for what is forgotten.
//! - JSON patch, merge patch, strategic merge patch, and server-side apply with field ownership, by the list types and keys
//!   of Kubernetes' types or of a definition's schema. `Node.spec.taints` is an atomic list there, so it is one here.
//! - Finalizers, graceful deletion of pods that are on a node, owner references in all three policies, namespaces that take
//!   their content along. All of it happens within the request; a real cluster's controllers do it later.
//!
//! # What it does not do
//! - Authentication, authorisation, admission: RBAC objects and admission policies are stored and do nothing.
//! - Validation of built-in kinds beyond names, labels, owner references and a pod having containers; of their defaults, only
//!   those that something relies on. Quantities and times are kept as written.
//! - CEL rules, `pattern`, `format`, `allOf` and its kin in schemas; strict field validation (unknown fields are dropped, or
//!   kept in built-in kinds); conversion of versions but for the version's name; the scale subresource.
//! - Objects that controllers make: default service accounts, endpoints, pods of workloads. Disruption budgets hold no
//!   eviction. An object whose owner never existed stays.
//! - Events don't expire. Watches are not throttled, clients neither.
//! - Bodies other than JSON: no protobuf, CBOR or YAML (an apply patch in JSON is YAML too). No `OpenAPI` documents, no
//!   aggregated discovery; exec, logs, proxies and token requests need a kubelet or a signer.
#![forbid(unsafe_code)]

mod admission;
mod audit;
mod builtin;
#[cfg(feature = "contract")]
pub mod contract;
mod crd;
mod discovery;
mod events;
mod faults;
mod gc;
mod names;
mod object;
mod patch;
mod read;
mod resource;
mod route;
mod schema;
pub mod selector;
mod server;
mod ssa;
mod status;
mod store;
#[cfg(feature = "tcp")]
pub mod tcp;
mod validate;
mod view;
mod watch;
mod write;

pub use audit::{Audit, Entry};
pub use faults::{Fault, Faults, Match};
pub use route::Verb;
pub use server::{ApiServer, Builder, Clock, ResponseBody, Unanswered};
pub use status::ApiError;
