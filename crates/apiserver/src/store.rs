//! The store: objects by kind, one revision for all of them, and what changed lately.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::names::Generator;
use crate::object;
use crate::resource::Resource;

/// A stored object, shared with whoever reads it.
pub(crate) type Object = Arc<Value>;

/// Which object: the id of its kind and its key there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) kind: String,
    pub(crate) key: String,
}

/// One write.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: String,
    pub(crate) before: Option<Object>,
    /// What it is now; for a removal, what it last was, with the revision of the removal.
    pub(crate) object: Object,
    pub(crate) removed: bool,
}

/// The objects of one kind.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) resource: Arc<Resource>,
    objects: BTreeMap<String, Object>,
    history: VecDeque<Change>,
    /// Changes up to this revision are forgotten.
    floor: u64,
    changed: watch::Sender<()>,
}

impl Kind {
    /// Changes after a revision; none where some of them are forgotten.
    pub(crate) fn since(&self, revision: u64) -> Option<impl Iterator<Item = &Change>> {
        let start = self.history.partition_point(|change| change.revision <= revision);
        (revision >= self.floor).then(|| self.history.range(start..))
    }

    /// The oldest revision that a watch can start from.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (&String, &Object)> {
        self.objects.iter()
    }

    /// Objects whose key begins so.
    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Object)> {
        self.objects
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// All objects as they were at a revision; none where that is forgotten.
    pub(crate) fn at(&self, revision: u64) -> Option<BTreeMap<String, Object>> {
        let changes: Vec<&Change> = self.since(revision)?.collect();
        let mut objects = self.objects.clone();
        for change in changes.into_iter().rev() {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), before.clone()),
                None => objects.remove(&change.key),
            };
        }
        Some(objects)
    }

    /// Hears of every change, and of the kind's end.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// Everything that is stored.
#[derive(Debug)]
pub(crate) struct Store {
    revision: u64,
    history: usize,
    pub(crate) generator: Generator,
    kinds: BTreeMap<String, Kind>,
    /// Who refers to a uid as its owner.
    dependents: HashMap<String, BTreeSet<Id>>,
    /// Every uid, and what has it.
    uids: HashMap<String, Id>,
}

impl Store {
    pub(crate) fn new(revision: u64, history: usize, seed: u64) -> Self {
        Self {
            revision,
            history,
            generator: Generator::new(seed),
            kinds: BTreeMap::new(),
            dependents: HashMap::new(),
            uids: HashMap::new(),
        }
    }

    /// The revision of the last write.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Under which id a resource is stored: both groups of `Event` are one.
    pub(crate) fn id_of(resource: &Resource) -> String {
        if resource.group == "events.k8s.io" {
            "events".to_owned()
        } else {
            resource.qualified()
        }
    }

    /// Makes a kind known, or replaces what is known of it.
    pub(crate) fn register(&mut self, resource: Resource) {
        let id = resource.qualified();
        if let Some(kind) = self.kinds.get_mut(&id) {
            kind.resource = Arc::new(resource);
            return;
        }
        let kind = Kind {
            resource: Arc::new(resource),
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            floor: self.revision,
            changed: watch::Sender::new(()),
        };
        self.kinds.insert(id, kind);
    }

    /// Forgets a kind; its watches end.
    pub(crate) fn unregister(&mut self, id: &str) {
        self.kinds.remove(id);
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&String, &Kind)> {
        self.kinds.iter()
    }

    pub(crate) fn kind(&self, id: &str) -> Option<&Kind> {
        self.kinds.get(id)
    }

    /// The kind that a path names.
    pub(crate) fn resource(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        let id = if group.is_empty() {
            plural.to_owned()
        } else {
            format!("{plural}.{group}")
        };
        let resource = &self.kinds.get(&id)?.resource;
        // `plural` may hold dots.
        (resource.group == group).then(|| resource.clone())
    }

    pub(crate) fn get(&self, id: &Id) -> Option<&Object> {
        self.kinds.get(&id.kind)?.objects.get(&id.key)
    }

    pub(crate) fn by_uid(&self, uid: &str) -> Option<&Id> {
        self.uids.get(uid)
    }

    /// Who refers to this uid as its owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Id> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Writes an object; what is returned has its new revision.
    pub(crate) fn put(&mut self, id: &Id, mut value: Value) -> Object {
        let revision = self.revision + 1;
        value["metadata"]["resourceVersion"] = json!(revision.to_string());
        let object: Object = Arc::new(value);
        let Some(kind) = self.kinds.get_mut(&id.kind) else {
            return object;
        };
        self.revision = revision;
        let before = kind.objects.insert(id.key.clone(), object.clone());
        self.index(id, before.as_ref(), Some(&object));
        self.record(
            id,
            Change {
                revision,
                key: id.key.clone(),
                before,
                object: object.clone(),
                removed: false,
            },
        );
        object
    }

    /// Removes an object; what is returned is its last state, with the revision of the removal.
    pub(crate) fn remove(&mut self, id: &Id) -> Option<Object> {
        let before = self.kinds.get_mut(&id.kind)?.objects.remove(&id.key)?;
        self.revision += 1;
        let mut last = (*before).clone();
        last["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object: Object = Arc::new(last);
        self.index(id, Some(&before), None);
        self.record(
            id,
            Change {
                revision: self.revision,
                key: id.key.clone(),
                before: Some(before),
                object: object.clone(),
                removed: true,
            },
        );
        Some(object)
    }

    fn record(&mut self, id: &Id, change: Change) {
        let Some(kind) = self.kinds.get_mut(&id.kind) else {
            return;
        };
        kind.history.push_back(change);
        while kind.history.len() > self.history {
            if let Some(forgotten) = kind.history.pop_front() {
                kind.floor = forgotten.revision;
            }
        }
        kind.changed.send_replace(());
    }

    fn index(&mut self, id: &Id, before: Option<&Object>, after: Option<&Object>) {
        if let Some(object) = before {
            for owner in object::owners(object) {
                if let Some(set) = self.dependents.get_mut(owner) {
                    set.remove(id);
                    if set.is_empty() {
                        self.dependents.remove(owner);
                    }
                }
            }
            self.uids.remove(object::uid(object));
        }
        if let Some(object) = after {
            for owner in object::owners(object) {
                self.dependents
                    .entry(owner.to_owned())
                    .or_default()
                    .insert(id.clone());
            }
            self.uids.insert(object::uid(object).to_owned(), id.clone());
        }
    }

    /// Forgets all but the present, as a compaction does: every older revision is gone.
    pub(crate) fn compact(&mut self) {
        for kind in self.kinds.values_mut() {
            kind.history.clear();
            kind.floor = self.revision;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(history: usize) -> Store {
        let mut store = Store::new(100, history, 0);
        for resource in crate::builtin::resources() {
            store.register(resource);
        }
        store
    }

    fn id(key: &str) -> Id {
        Id {
            kind: "configmaps".to_owned(),
            key: key.to_owned(),
        }
    }

    #[test]
    fn a_past_revision_is_rebuilt_until_it_is_forgotten() {
        let mut store = store(3);
        store.put(&id("ns/a"), json!({"metadata": {"uid": "a"}, "data": {"n": "1"}}));
        let past = store.revision();
        store.put(&id("ns/a"), json!({"metadata": {"uid": "a"}, "data": {"n": "2"}}));
        store.put(&id("ns/b"), json!({"metadata": {"uid": "b"}}));
        store.remove(&id("ns/a"));
        let kind = store.kind("configmaps").unwrap();
        let then = kind.at(past).unwrap();
        assert_eq!(then.keys().collect::<Vec<_>>(), ["ns/a"]);
        assert_eq!(then["ns/a"]["data"]["n"], "1");
        assert!(kind.at(past - 1).is_none());
        assert_eq!(kind.since(past).unwrap().count(), 3);
    }

    #[test]
    fn owners_are_found_by_uid_until_they_go() {
        let mut store = store(10);
        let owned = json!({"metadata": {"uid": "b", "ownerReferences": [{"uid": "a"}]}});
        store.put(&id("ns/b"), owned);
        assert_eq!(store.dependents("a"), [id("ns/b")]);
        assert_eq!(store.by_uid("b"), Some(&id("ns/b")));
        store.remove(&id("ns/b"));
        assert!(store.dependents("a").is_empty());
        assert_eq!(store.by_uid("b"), None);
    }
}
