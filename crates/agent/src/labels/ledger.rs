//! What to write over what is there, without a fight.
//!
//! A label that somebody else wrote is taken over: GPU Feature Discovery and Node Feature Discovery leave theirs behind
//! when they are removed. One who is still alive writes it again, and so would we, for ever. So each time that a label
//! that we wrote is found changed or gone is a loss, and after [`LOSSES`] of them within [`MEMORY`] the other one has it:
//! the label is left to them, which is told, until an hour has passed or they say the same as we.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pitcrew_core::labels::is_ours;
use tokio::time::Instant;

use super::seen::Seen;

/// So often a label is written over somebody else's within [`MEMORY`].
pub(super) const LOSSES: usize = 3;
/// How long a loss counts.
pub(super) const MEMORY: Duration = Duration::from_hours(1);

/// What we wrote, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// What we wrote last, as long as it was seen to be there.
    wrote: Option<Wrote>,
    /// When that was found changed, oldest first.
    losses: Vec<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Wrote {
    Value(String),
    /// It was taken away.
    Nothing,
}

impl Wrote {
    fn is(&self, value: Option<&String>) -> bool {
        match self {
            Self::Value(wrote) => Some(wrote) == value,
            Self::Nothing => value.is_none(),
        }
    }
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// All labels that we want to own. Those that we own and that are not in here go.
    pub(super) apply: BTreeMap<String, String>,
    /// Labels of others to take away: of a kind that only we should write, and no longer true.
    pub(super) remove: BTreeSet<String>,
    /// Others whose labels are written over, and how many.
    pub(super) taken: BTreeMap<String, usize>,
    /// Labels that are left to others, with what those say and who they are.
    pub(super) left: BTreeMap<String, Left>,
    /// True where anything has to be written.
    pub(super) write: bool,
    /// When to look again though nothing changed.
    pub(super) again: Option<Instant>,
}

/// A label that is left to somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    /// What it says; `None` where they took it away.
    pub(super) says: Option<String>,
    /// What we would say; `None` where we would take it away.
    pub(super) should: Option<String>,
    /// Who they are, as their field managers are called.
    pub(super) who: BTreeSet<String>,
}

impl Ledger {
    pub(super) fn plan(&mut self, wish: &BTreeMap<String, String>, seen: &Seen, now: Instant) -> Plan {
        let mut plan = Plan::default();
        for (key, value) in wish {
            let says = seen.labels.get(key);
            if self.is_left(key, Some(value), seen, now) && says != Some(value) {
                plan.leave(key, Some(value), seen);
                continue;
            }
            plan.apply.insert(key.clone(), value.clone());
            if says.is_some_and(|says| says != value) {
                plan.take(key, seen);
            }
        }
        for key in seen.labels.keys().filter(|key| !wish.contains_key(*key)) {
            // What nobody else wrote goes with our own part of it.
            if !is_ours(key) || seen.writers(key).next().is_none() {
                continue;
            }
            if self.is_left(key, None, seen, now) {
                plan.leave(key, None, seen);
            } else {
                plan.remove.insert(key.clone());
                plan.take(key, seen);
            }
        }
        let wanted: BTreeSet<&String> = plan.apply.keys().collect();
        let said = plan
            .apply
            .iter()
            .all(|(key, value)| seen.labels.get(key) == Some(value));
        plan.write = !said || seen.ours.iter().collect::<BTreeSet<_>>() != wanted || !plan.remove.is_empty();
        plan.again = self.until(plan.left.keys());
        plan
    }

    /// Remembers what was written.
    pub(super) fn wrote(&mut self, plan: &Plan) {
        for (key, value) in &plan.apply {
            self.entries.entry(key.clone()).or_default().wrote = Some(Wrote::Value(value.clone()));
        }
        for key in &plan.remove {
            self.entries.entry(key.clone()).or_default().wrote = Some(Wrote::Nothing);
        }
        let kept = |key: &String| plan.apply.contains_key(key) || plan.remove.contains(key);
        for (key, entry) in &mut self.entries {
            if !kept(key) {
                entry.wrote = None;
            }
        }
        self.entries
            .retain(|_, entry| entry.wrote.is_some() || !entry.losses.is_empty());
    }

    /// Whether somebody else has a label. Counts a loss where what we wrote isn't there any more.
    fn is_left(&mut self, key: &str, value: Option<&String>, seen: &Seen, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        // What we no longer want to say is no loss, nor is one change two.
        if let Some(wrote) = entry.wrote.take_if(|wrote| !wrote.is(seen.labels.get(key)))
            && wrote.is(value)
        {
            entry.losses.push(now);
        }
        entry.losses.retain(|loss| now.duration_since(*loss) < MEMORY);
        entry.losses.len() >= LOSSES
    }

    /// When the first of these labels is worth another try.
    fn until<'a>(&self, left: impl Iterator<Item = &'a String>) -> Option<Instant> {
        let losses = left.filter_map(|key| {
            let losses = &self.entries.get(key)?.losses;
            // When so many are left that one more try is allowed.
            losses.get(losses.len().checked_sub(LOSSES)?)
        });
        losses.min().map(|loss| *loss + MEMORY)
    }
}

impl Plan {
    fn take(&mut self, key: &str, seen: &Seen) {
        for who in seen.writers(key) {
            *self.taken.entry(who.to_owned()).or_default() += 1;
        }
    }

    fn leave(&mut self, key: &str, should: Option<&String>, seen: &Seen) {
        let left = Left {
            says: seen.labels.get(key).cloned(),
            should: should.cloned(),
            who: seen.writers(key).map(str::to_owned).collect(),
        };
        self.left.insert(key.to_owned(), left);
    }
}
