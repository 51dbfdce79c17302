//! What was answered to the kubelet lately.
//!
//! The kubelet writes down who holds a device only after it has the answer, so for a moment pod-resources shows a
//! device as free that was just handed out. Whoever changes the sharing in that moment must know better.
//!
//! And the other way round: whoever takes away what answers name, such as a device's CDI specification, first withdraws
//! the device here. No answer names it from then on, and what was answered before is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pitcrew_core::plugin::uuid_of;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long an answer counts as a holder of its own where nobody looks.
const KEEP: Duration = Duration::from_secs(10);
/// How long the kubelet may take to write down who holds what it was answered. It does so at once; this is for one that
/// hardly gets a processor.
const WRITTEN: Duration = Duration::from_secs(3);
/// How long a withdrawn device is refused here: by then the offers of all resources leave it out.
const WITHDRAWN: Duration = Duration::from_mins(1);

/// What was answered lately, for all resources.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    books: Mutex<Books>,
    noted: Notify,
}

#[derive(Debug, Default)]
struct Books {
    /// Resource and id of each answer, and when it was given.
    answered: BTreeMap<(String, String), Instant>,
    /// Devices that no answer may name any more, by UUID, and since when.
    withdrawn: BTreeMap<String, Instant>,
}

/// An id that can't be answered for: its device was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Withdrawn(pub(crate) String);

impl Ledger {
    /// Notes ids of a resource: all, or none where one of them is of a device that was withdrawn.
    pub(crate) fn note<'a>(
        &self,
        resource: &str,
        ids: impl Iterator<Item = &'a String> + Clone,
    ) -> Result<(), Withdrawn> {
        let now = Instant::now();
        let mut books = self.lock();
        books.answered.retain(|_, at| now.duration_since(*at) < KEEP);
        books
            .withdrawn
            .retain(|_, at| now.duration_since(*at) < WITHDRAWN);
        if let Some(id) = ids.clone().find(|id| books.withdrawn.contains_key(uuid_of(id))) {
            return Err(Withdrawn(id.clone()));
        }
        for id in ids {
            books.answered.insert((resource.to_owned(), id.clone()), now);
        }
        drop(books);
        self.noted.notify_one();
        Ok(())
    }

    /// No answer names these devices from now on, until [`Self::restore`]. Gives those of them that were answered so
    /// lately that the kubelet may not have written it down yet: whoever asks it after this call knows all.
    pub(crate) fn withdraw<'a>(&self, devices: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
        let now = Instant::now();
        let mut books = self.lock();
        let devices: BTreeSet<&str> = devices.collect();
        books
            .withdrawn
            .extend(devices.iter().map(|device| ((*device).to_owned(), now)));
        let lately = books
            .answered
            .iter()
            .filter(|(_, at)| now.duration_since(**at) < KEEP);
        let lately = lately.map(|((_, id), _)| uuid_of(id));
        lately
            .filter(|device| devices.contains(device))
            .map(ToOwned::to_owned)
            .collect()
    }

    /// Answers may name these devices again.
    pub(crate) fn restore<'a>(&self, devices: impl Iterator<Item = &'a str>) {
        let mut books = self.lock();
        for device in devices {
            books.withdrawn.remove(device);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something was noted.
    pub(crate) async fn noted(&self) {
        self.noted.notified().await;
    }

    /// Takes ids back that were noted and then refused.
    pub(crate) fn forget<'a>(&self, resource: &str, ids: impl Iterator<Item = &'a String>) {
        let mut books = self.lock();
        for id in ids {
            books.answered.remove(&(resource.to_owned(), id.clone()));
        }
    }

    /// Drops what the kubelet's books tell by themselves, as of a look that began at a moment: what they have, and what
    /// they should have by then if it were still held.
    pub(crate) fn compare(&self, held: &BTreeSet<(&str, &str)>, began: Instant) {
        let mut books = self.lock();
        books.answered.retain(|(resource, id), at| {
            let is_written = *at <= began && held.contains(&(resource.as_str(), id.as_str()));
            !is_written && began.saturating_duration_since(*at) < WRITTEN
        });
    }

    /// Resource and id of what was answered lately.
    pub(crate) fn recent(&self) -> Vec<(String, String)> {
        let now = Instant::now();
        let books = self.lock();
        let recent = books
            .answered
            .iter()
            .filter(|(_, at)| now.duration_since(**at) < KEEP);
        recent.map(|(entry, _)| entry.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_ten_seconds() {
        let ledger = Ledger::default();
        ledger
            .note("nvidia.com/gpu", ["GPU-1".to_owned()].iter())
            .unwrap();
        tokio::time::advance(Duration::from_secs(9)).await;
        ledger
            .note("nvidia.com/gpu", ["GPU-2".to_owned()].iter())
            .unwrap();
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
        ledger
            .note("nvidia.com/gpu", ["GPU-1".to_owned(), "GPU-2".to_owned()].iter())
            .unwrap();
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
        ledger
            .note("nvidia.com/gpu", ["GPU-2".to_owned()].iter())
            .unwrap();
        ledger.forget("nvidia.com/gpu", ["GPU-2".to_owned()].iter());
        assert_eq!(ledger.recent(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_was_withdrawn_is_answered_no_more_and_who_withdraws_it_knows_what_was() {
        let ledger = Ledger::default();
        let ids = ["GPU-1::0".to_owned(), "GPU-2".to_owned()];
        ledger.note("nvidia.com/gpu", ids[..1].iter()).unwrap();
        let lately = ledger.withdraw(["GPU-1", "GPU-2"].into_iter());
        assert_eq!(lately, BTreeSet::from(["GPU-1".to_owned()]));
        let refused = ledger.note("nvidia.com/gpu", ids.iter());
        assert_eq!(refused, Err(Withdrawn("GPU-1::0".to_owned())));
        assert_eq!(ledger.recent().len(), 1, "of a refused request nothing is noted");
        ledger.restore(["GPU-2"].into_iter());
        ledger.note("nvidia.com/gpu", ids[1..].iter()).unwrap();
        tokio::time::advance(WITHDRAWN).await;
        assert_eq!(ledger.withdraw(["GPU-1"].into_iter()), BTreeSet::new());
    }
}
