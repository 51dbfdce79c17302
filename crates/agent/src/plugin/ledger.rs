//! What was answered to the kubelet lately.
//!
//! The kubelet writes down who holds a device only after it has the answer, so for a moment pod-resources shows a
//! device as free that was just handed out. Whoever changes the sharing in that moment must know better.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long an answer counts as a holder of its own; by then pod-resources shows it, or the pod was given up.
const KEEP: Duration = Duration::from_secs(10);

/// What was answered lately, for all resources.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<BTreeMap<(String, String), Instant>>);

impl Ledger {
    /// Notes ids of a resource.
    pub(crate) fn note<'a>(&self, resource: &str, ids: impl Iterator<Item = &'a String>) {
        let now = Instant::now();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, at| now.duration_since(*at) < KEEP);
        for id in ids {
            entries.insert((resource.to_owned(), id.clone()), now);
        }
    }

    /// Takes ids back that were noted and then refused.
    pub(crate) fn forget<'a>(&self, resource: &str, ids: impl Iterator<Item = &'a String>) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            entries.remove(&(resource.to_owned(), id.clone()));
        }
    }

    /// Drops what the kubelet's books have, as of a look that began at a moment: from then on they tell when it ends.
    pub(crate) fn confirm<'a>(&self, held: impl Iterator<Item = (&'a str, &'a str)>, began: Instant) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (resource, id) in held {
            let key = (resource.to_owned(), id.to_owned());
            if entries.get(&key).is_some_and(|at| *at <= began) {
                entries.remove(&key);
            }
        }
    }

    /// Resource and id of what was answered lately.
    pub(crate) fn recent(&self) -> Vec<(String, String)> {
        let now = Instant::now();
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = entries.iter().filter(|(_, at)| now.duration_since(**at) < KEEP);
        recent.map(|(entry, _)| entry.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_ten_seconds() {
        let ledger = Ledger::default();
        ledger.note("nvidia.com/gpu", ["GPU-1".to_owned()].iter());
        tokio::time::advance(Duration::from_secs(9)).await;
        ledger.note("nvidia.com/gpu", ["GPU-2".to_owned()].iter());
        assert_eq!(ledger.recent().len(), 2);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            ledger.recent(),
            [("nvidia.com/gpu".to_owned(), "GPU-2".to_owned())]
        );
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(ledger.recent(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_kubelet_has_written_down_is_its_to_tell() {
        let ledger = Ledger::default();
        let held = || [("nvidia.com/gpu", "GPU-1")].into_iter();
        let before = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        ledger.note("nvidia.com/gpu", ["GPU-1".to_owned(), "GPU-2".to_owned()].iter());
        // That was an earlier holder.
        ledger.confirm(held(), before);
        assert_eq!(ledger.recent().len(), 2);
        ledger.confirm(held(), Instant::now());
        assert_eq!(
            ledger.recent(),
            [("nvidia.com/gpu".to_owned(), "GPU-2".to_owned())]
        );
        ledger.forget("nvidia.com/gpu", ["GPU-2".to_owned()].iter());
        assert_eq!(ledger.recent(), []);
    }
}
