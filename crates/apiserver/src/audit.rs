//! What was asked of the server, for tests that assert on it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::route::Verb;

/// One request that was answered, or began to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it did.
    pub verb: Verb,
    /// The group of the kind; empty for the core group.
    pub group: String,
    /// The kind, as in the path: `nodes`.
    pub resource: String,
    /// Empty where it named none.
    pub namespace: String,
    /// Empty where it named none.
    pub name: String,
    /// As `status`; empty for the object itself.
    pub subresource: String,
    /// Its query, as sent.
    pub query: String,
    /// The content type of its body; empty without one. It tells what kind of patch it was.
    pub content_type: String,
    /// Who asked, as it calls itself.
    pub user_agent: String,
    /// The HTTP status of the answer.
    pub code: u16,
}

/// The log of requests. Clones are the same log.
#[derive(Debug, Clone)]
pub struct Audit {
    entries: Arc<Mutex<VecDeque<Entry>>>,
    limit: usize,
}

impl Audit {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            entries: Arc::default(),
            limit,
        }
    }

    pub(crate) fn record(&self, entry: Entry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push_back(entry);
        while entries.len() > self.limit {
            entries.pop_front();
        }
    }

    /// The requests so far, the oldest first. Only the latest are kept, as many as the builder was told.
    pub fn entries(&self) -> Vec<Entry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().cloned().collect()
    }

    /// The requests so far, and forgets them.
    pub fn take(&self) -> Vec<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.drain(..).collect()
    }
}
