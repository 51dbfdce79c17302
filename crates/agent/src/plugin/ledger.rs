//! What was answered to the kubelet lately.
//!
//! The kubelet writes down who holds a device only after it has the answer, so for a moment pod-resources shows a
//! device as free that was just handed out. Whoever changes the sharing in that moment must know better.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How long an answer counts as a holder of its own where nobody looks.
const KEEP: Duration = Duration::from_secs(10);
/// How long the kubelet may take to write down who holds what it was answered. It does so at once; this is for one that
/// hardly gets a processor.
const WRITTEN: Duration = Duration::from_secs(3);

/// What was answered lately, for all resources.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Mutex<BTreeMap<(String, String), Instant>>,
    noted: Notify,
}

impl Ledger {
    /// Notes ids of a resource.
    pub(crate) fn note<'a>(&self, resource: &str, ids: impl Iterator<Item = &'a String>) {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, at| now.duration_since(*at) < KEEP);
        for id in ids {
            entries.insert((resource.to_owned(), id.clone()), now);
        }
        self.noted.notify_one();
    }

    /// Waits until something was noted.
    pub(crate) async fn noted(&self) {
        self.noted.notified().await;
    }

    /// Takes ids back that were noted and then refused.
    pub(crate) fn forget<'a>(&self, resource: &str, ids: impl Iterator<Item = &'a String>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            entries.remove(&(resource.to_owned(), id.clone()));
        }
    }

    /// Drops what the kubelet's books tell by themselves, as of a look that began at a moment: what they have, and what
    /// they should have by then if it were still held.
    pub(crate) fn compare(&self, held: &BTreeSet<(&str, &str)>, began: Instant) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(resource, id), at| {
            let is_written = *at <= began && held.contains(&(resource.as_str(), id.as_str()));
            !is_written && began.saturating_duration_since(*at) < WRITTEN
        });
    }

    /// Resource and id of what was answered lately.
    pub(crate) fn recent(&self) -> Vec<(String, String)> {
        let now = Instant::now();
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
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
        let held = BTreeSet::from([("nvidia.com/gpu", "GPU-1")]);
        let before = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        ledger.note("nvidia.com/gpu", ["GPU-1".to_owned(), "GPU-2".to_owned()].iter());
        // That was an earlier holder.
        ledger.compare(&held, before);
        assert_eq!(ledger.recent().len(), 2);
        ledger.compare(&held, Instant::now());
        let other = [("nvidia.com/gpu".to_owned(), "GPU-2".to_owned())];
        assert_eq!(ledger.recent(), other);
        // Nobody holds it by now.
        tokio::time::advance(Duration::from_secs(2)).await;
        ledger.compare(&held, Instant::now());
        assert_eq!(ledger.recent(), other);
        tokio::time::advance(Duration::from_secs(1)).await;
        ledger.compare(&held, Instant::now());
        assert_eq!(ledger.recent(), []);
        ledger.note("nvidia.com/gpu", ["GPU-2".to_owned()].iter());
        ledger.forget("nvidia.com/gpu", ["GPU-2".to_owned()].iter());
        assert_eq!(ledger.recent(), []);
    }
}
