//! Server-side apply: who owns which field, and how an applied configuration merges.
//!
//! The rules are those of Kubernetes' structured-merge-diff: an applier owns what it applied, an updater what it changed;
//! what an applier no longer applies goes, unless another manager owns it; a change of what another manager owns is a
//! conflict, or takes the field from it where forced.

mod fieldset;
mod managed;
mod merge;

pub(crate) use fieldset::FieldSet;
pub(crate) use managed::{Manager, Operation, Owners};
pub(crate) use merge::{Comparison, compare, fields_of, merge, remove};

use serde_json::Value;

use crate::schema::Schema;

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) manager: Manager,
    /// `.spec.containers[name="main"].image`
    pub(crate) path: String,
}

/// Why an applied configuration was not merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApplyError {
    /// A list's items can't be told apart: the path, and why.
    Items(String),
    /// Other managers own what would change.
    Conflicts(Vec<Conflict>),
}

/// What `manager` wants `live` to be, and who owns what then.
pub(crate) fn apply(
    live: &Value,
    wanted: &Value,
    owners: &Owners,
    manager: &Manager,
    force: bool,
    schema: &Schema,
) -> Result<(Value, Owners), ApplyError> {
    let fields = fields_of(wanted, schema).map_err(ApplyError::Items)?;
    let merged = merge(live, wanted, schema).map_err(ApplyError::Items)?;
    let before = owners.get(manager).cloned().unwrap_or_default();
    let mut after = owners.clone();
    after.set(manager, fields);

    // What it applied before, and nobody wants any more. A parent goes with the last of its fields.
    let kept = after.union().with_parents();
    let merged = remove(&merged, &before.with_parents().difference(&kept), schema);

    let changes = compare(live, &merged, schema);
    let conflicts = take(&mut after, manager, &changes);
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    let own = after
        .get(manager)
        .map(FieldSet::without_identity)
        .unwrap_or_default();
    after.set(manager, own);
    Ok((merged, after))
}

/// Who owns what after `manager` turned `live` into `new`.
pub(crate) fn update(
    live: &Value,
    new: &Value,
    owners: &Owners,
    manager: &Manager,
    schema: &Schema,
) -> Owners {
    let changes = compare(live, new, schema);
    let mut after = owners.clone();
    take(&mut after, manager, &changes);
    let own = after.get(manager).cloned().unwrap_or_default();
    let own = own
        .difference(&changes.removed)
        .union(&changes.modified)
        .union(&changes.added);
    after.set(manager, own.without_identity());
    after
}

/// Takes from all other managers what changed; says what of it was theirs.
fn take(owners: &mut Owners, manager: &Manager, changes: &Comparison) -> Vec<Conflict> {
    let written = changes.modified.union(&changes.added);
    let mut conflicts = Vec::new();
    let others: Vec<Manager> = owners
        .managers()
        .filter(|other| *other != manager)
        .cloned()
        .collect();
    for other in others {
        let Some(own) = owners.get(&other) else {
            continue;
        };
        let lost = own.intersection(&written);
        conflicts.extend(lost.paths().into_iter().map(|path| Conflict {
            manager: other.clone(),
            path,
        }));
        let left = own.difference(&lost).difference(&changes.removed);
        owners.set(&other, left);
    }
    conflicts
}

#[cfg(test)]
mod tests;
