//! What a deletion brings about: finalizers, graceful ends, dependents, the content of a namespace, the objects of a
//! definition. All of it happens within the request.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::crd;
use crate::object;
use crate::store::{Id, Object, Store};

/// What becomes of dependents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    #[default]
    Background,
    Foreground,
    Orphan,
}

const FOREGROUND: &str = "foregroundDeletion";
const CRD_CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// How an object is to be deleted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deletion {
    pub(crate) propagation: Propagation,
    /// Seconds that a pod has to end; none means what its spec says.
    pub(crate) grace: Option<i64>,
}

/// Deletes an object, and what goes with it. Returns the object as it stays, or as it last was and that it is gone.
pub(crate) fn delete(store: &mut Store, id: &Id, how: Deletion, now: &Times<'_>) -> Option<(Object, bool)> {
    let mut queue = VecDeque::from([(id.clone(), how)]);
    let mut answer = None;
    while let Some((next, how)) = queue.pop_front() {
        let done = delete_one(store, &next, how, now, &mut queue);
        if answer.is_none() {
            answer = Some(done);
        }
    }
    // It stayed because of what went after it.
    match answer.flatten() {
        Some((object, false)) => match store.get(id) {
            Some(current) if object::uid(current) == object::uid(&object) => Some((current.clone(), false)),
            _ => Some((object, true)),
        },
        gone => gone,
    }
}

/// When it is, and when a pod that has so many seconds is to be gone.
pub(crate) struct Times<'a> {
    pub(crate) now: &'a str,
    pub(crate) after: &'a dyn Fn(i64) -> String,
}

fn delete_one(
    store: &mut Store,
    id: &Id,
    how: Deletion,
    now: &Times<'_>,
    queue: &mut VecDeque<(Id, Deletion)>,
) -> Option<(Object, bool)> {
    let old = store.get(id)?.clone();
    let mut object = (*old).clone();
    let uid = object::uid(&old).to_owned();
    match how.propagation {
        Propagation::Foreground if !store.dependents(&uid).is_empty() => {
            object::set_finalizer(&mut object, FOREGROUND, true);
            let all = store.dependents(&uid).into_iter();
            queue.extend(all.map(|dependent| (dependent, how)));
        }
        Propagation::Orphan => {
            for dependent in store.dependents(&uid) {
                disown(store, &dependent, &uid);
            }
        }
        Propagation::Foreground | Propagation::Background => {}
    }
    let content = content(store, id, &old);
    if id.kind == CRDS && !content.is_empty() {
        object::set_finalizer(&mut object, CRD_CLEANUP, true);
    }
    let waits = !content.is_empty();
    queue.extend(content.into_iter().map(|inner| (inner, Deletion::default())));

    let grace = grace(id, &old, how);
    if object::finalizers(&object).next().is_none() && grace == 0 && !waits {
        let last = finish(store, id, now, queue)?;
        return Some((last, true));
    }
    if !object::is_deleting(&object) || grace < seconds(&object) {
        if !object::is_deleting(&object) {
            let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
            if let Some(generation) = generation {
                object::set(&mut object, "generation", json!(generation + 1));
            }
        }
        let end = if grace == 0 {
            now.now.to_owned()
        } else {
            (now.after)(grace)
        };
        object::set(&mut object, "deletionTimestamp", json!(end));
        object::set(&mut object, "deletionGracePeriodSeconds", json!(grace));
    }
    if id.kind == NAMESPACES {
        object["status"]["phase"] = json!("Terminating");
    }
    if object == *old {
        return Some((old, false));
    }
    Some((store.put(id, object), false))
}

const NAMESPACES: &str = "namespaces";
const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

fn seconds(object: &Value) -> i64 {
    let seconds = object.pointer("/metadata/deletionGracePeriodSeconds");
    seconds.and_then(Value::as_i64).unwrap_or(0)
}

/// How long a pod has to end: one that runs on a node, until its kubelet deletes it with no time left.
fn grace(id: &Id, object: &Value, how: Deletion) -> i64 {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let ended = matches!(text("/status/phase"), "Succeeded" | "Failed");
    if id.kind != "pods" || text("/spec/nodeName").is_empty() || ended {
        return 0;
    }
    let spec = object.pointer("/spec/terminationGracePeriodSeconds");
    let spec = spec.and_then(Value::as_i64).unwrap_or(30);
    how.grace.unwrap_or(spec).max(0)
}

/// What lives in it: objects of a namespace, objects that a definition defines.
fn content(store: &Store, id: &Id, object: &Value) -> Vec<Id> {
    let ids = |kind: &String, key: &String| Id {
        kind: kind.clone(),
        key: key.clone(),
    };
    match id.kind.as_str() {
        NAMESPACES => {
            let prefix = format!("{}/", object::name(object));
            let kinds = store.kinds().filter(|(_, kind)| kind.resource.traits.namespaced);
            kinds
                .flat_map(|(name, kind)| {
                    kind.under(&prefix)
                        .map(move |(key, _)| ids(name, key))
                        .collect::<Vec<_>>()
                })
                .collect()
        }
        CRDS => {
            let name = object::name(object).to_owned();
            let kind = store.kind(&name).filter(|kind| kind.resource.traits.custom);
            kind.into_iter()
                .flat_map(|kind| kind.objects().map(|(key, _)| ids(&name, key)).collect::<Vec<_>>())
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Takes an owner out of an object's references.
fn disown(store: &mut Store, id: &Id, owner: &str) {
    let Some(object) = store.get(id) else {
        return;
    };
    let left: Vec<Value> = object::owner_references(object)
        .filter(|reference| reference.get("uid").and_then(Value::as_str) != Some(owner))
        .cloned()
        .collect();
    let mut object = (**object).clone();
    let left = if left.is_empty() {
        Value::Null
    } else {
        Value::Array(left)
    };
    object::set(&mut object, "ownerReferences", left);
    store.put(id, object);
}

fn finish(
    store: &mut Store,
    id: &Id,
    now: &Times<'_>,
    queue: &mut VecDeque<(Id, Deletion)>,
) -> Option<Object> {
    let last = store.remove(id)?;
    let uid = object::uid(&last).to_owned();
    if id.kind == CRDS {
        crd::forget(store, &last);
    }
    for dependent in store.dependents(&uid) {
        let others = store.get(&dependent).is_some_and(|object| {
            let mut owners = object::owners(object);
            owners.any(|owner| owner != uid && store.by_uid(owner).is_some())
        });
        if others {
            disown(store, &dependent, &uid);
        } else {
            queue.push_back((dependent, Deletion::default()));
        }
    }
    let mut waiting: Vec<Id> = object::owners(&last)
        .filter_map(|owner| store.by_uid(owner).cloned())
        .collect();
    let namespace = object::namespace(&last);
    if !namespace.is_empty() {
        waiting.push(Id {
            kind: NAMESPACES.to_owned(),
            key: namespace.to_owned(),
        });
    }
    waiting.push(Id {
        kind: CRDS.to_owned(),
        key: id.kind.clone(),
    });
    for waiter in waiting {
        release(store, &waiter, now, queue);
    }
    Some(last)
}

/// Lets go what is being deleted and waited for what is gone now.
fn release(store: &mut Store, id: &Id, now: &Times<'_>, queue: &mut VecDeque<(Id, Deletion)>) {
    let Some(old) = store
        .get(id)
        .filter(|object| object::is_deleting(object))
        .cloned()
    else {
        return;
    };
    if !content(store, id, &old).is_empty() {
        return;
    }
    let mut object = (*old).clone();
    if store.dependents(object::uid(&old)).is_empty() {
        object::set_finalizer(&mut object, FOREGROUND, false);
    }
    object::set_finalizer(&mut object, CRD_CLEANUP, false);
    if object::finalizers(&object).next().is_none() && grace(id, &object, Deletion::default()) == 0 {
        finish(store, id, now, queue);
    } else if object != *old {
        store.put(id, object);
    }
}
