//! The contract: what this server and a real API server both do, as functions over a client.
//!
//! Each function takes a [`Cluster`], works in a namespace of its own, and asserts. Ring 2 runs all of them on the
//! in-memory server, ring 4 the same ones on the test bed's kube-apiserver. [`for_each_case!`](crate::for_each_case)
//! lists them, so that neither ring can forget one.
//!
//! Where a real cluster's controllers act later than the request (garbage collection, the end of a namespace), the
//! contract is that it happens, not when.
#![expect(
    clippy::missing_panics_doc,
    reason = "every case asserts: that is what it is for"
)]

mod apply;
mod basics;
mod custom;
mod deletion;
mod events;
mod lists;
mod patches;
mod watches;

pub use apply::*;
pub use basics::*;
pub use custom::*;
pub use deletion::*;
pub use events::*;
pub use lists::*;
pub use patches::*;
pub use watches::*;

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind, Status};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Calls a macro with the name of every case.
#[macro_export]
macro_rules! for_each_case {
    ($callback:ident) => {
        $callback! {
            what_is_created_can_be_read_replaced_and_deleted
            a_name_can_be_had_once
            a_stale_replacement_is_refused
            a_name_is_made_from_a_prefix
            what_is_not_there_is_not_found
            nothing_is_made_in_a_namespace_that_is_not_there
            a_name_or_label_that_is_none_is_invalid
            a_dry_run_changes_nothing
            the_body_must_be_of_the_kind_and_the_name_of_the_path
            a_lease_is_taken_by_one_of_two
            secrets_are_encoded
            what_an_object_is_can_not_be_changed
            a_workload_counts_changes_of_its_spec
            discovery_tells_what_there_is
            selectors_select
            a_paged_list_is_one_moment
            a_list_goes_on_only_from_where_one_ended
            metadata_can_be_read_alone
            a_table_can_be_asked_for
            a_watch_tells_every_change_in_order
            a_watch_of_a_selection_tells_what_enters_and_leaves
            a_watch_of_a_forgotten_revision_ends_with_410
            a_watch_can_begin_with_a_list
            the_watcher_of_kube_follows
            a_watch_ends_when_its_time_is_over
            a_json_patch_tests_before_it_changes
            a_merge_patch_takes_away_what_is_null
            a_strategic_patch_merges_by_key
            a_patch_that_changes_nothing_writes_nothing
            a_node_status_is_apart_from_its_spec
            an_apply_makes_and_keeps
            a_conflict_tells_who_owns_what
            what_is_no_longer_applied_goes
            two_appliers_share_lists_by_key
            an_applied_list_takes_its_order
            an_update_takes_what_it_changes_from_an_applier
            an_apply_of_status_owns_status_only
            taints_are_owned_as_one
            labels_of_a_node_are_applied_through_its_metadata
            managed_fields_can_be_reset
            a_custom_resource_has_defaults_and_rules
            a_custom_resource_has_a_generation_and_a_status
            a_custom_resource_is_served_until_its_definition_goes
            a_finalizer_holds_what_is_deleted
            a_deletion_can_ask_for_a_uid
            dependents_go_with_their_owner
            dependents_go_before_an_owner_that_waits
            orphans_stay
            a_collection_is_deleted_by_selector
            a_namespace_takes_its_content_along
            an_event_has_two_faces
            the_recorder_of_kube_publishes
        }
    };
}

/// A cluster under contract, and a namespace of one case's own.
#[derive(Clone)]
pub struct Cluster {
    /// Who speaks to it.
    pub client: Client,
    /// The case's namespace. Its name also serves for objects without one.
    pub namespace: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Makes a namespace for a case.
    ///
    /// # Panics
    /// Where it can't be made.
    pub async fn new(client: Client) -> Self {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let wanted = typed(json!({"metadata": {"generateName": "contract-"}}));
        let made = namespaces.create(&PostParams::default(), &wanted).await;
        let made = made.expect("a namespace can be made");
        Self {
            namespace: made.metadata.name.expect("it has a name"),
            client,
        }
    }

    /// Deletes the namespace.
    ///
    /// # Panics
    /// Where that is refused.
    pub async fn end(self) {
        let namespaces: Api<Namespace> = Api::all(self.client);
        let deleted = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        if let Err(error) = deleted {
            assert_eq!(code(&error), 404, "{error}");
        }
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects of any kind in the case's namespace, or of a kind without one.
    fn dynamic(&self, api_version: &str, kind: &str, plural: &str, namespaced: bool) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = GroupVersionKind::gvk(group, version, kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        if namespaced {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        }
    }
}

/// An object from JSON.
fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the case's own JSON is right")
}

/// An object as JSON.
fn json_of<T: serde::Serialize>(object: &T) -> Value {
    serde_json::to_value(object).expect("an object can be written")
}

fn config_map(name: &str, data: &Value) -> ConfigMap {
    typed(json!({"metadata": {"name": name}, "data": data}))
}

/// The status of an error of the API.
#[track_caller]
fn status(error: &kube::Error) -> Status {
    match error {
        kube::Error::Api(status) => (**status).clone(),
        other => unreachable!("it is no error of the API: {other:?}"),
    }
}

#[track_caller]
fn code(error: &kube::Error) -> u16 {
    status(error).code
}

/// The error of what must be refused.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> Status {
    status(&result.expect_err("it is refused"))
}

/// Looks again, for at most a minute, until `look` gives something.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    for _ in 0..600 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!("waited a minute for {what}")
}
