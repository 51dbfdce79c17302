//! What the agent has told, kept.

use std::sync::{Arc, Mutex, PoisonError};

use pitcrew_agent::Notice;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;

/// Everything that the agents of one node have told, in order. Clones are the same.
#[derive(Debug, Clone)]
pub struct Notices {
    all: Arc<Mutex<Vec<Notice>>>,
    count: watch::Receiver<usize>,
}

impl Notices {
    /// Collects what is sent, until nobody can send any more.
    pub(crate) fn collect() -> (UnboundedSender<Notice>, Self) {
        let (sender, mut receiver) = unbounded_channel();
        let all: Arc<Mutex<Vec<Notice>>> = Arc::default();
        let (counter, count) = watch::channel(0);
        let kept = Arc::clone(&all);
        tokio::spawn(async move {
            while let Some(notice) = receiver.recv().await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push(notice);
                counter.send_replace(kept.len());
            }
        });
        (sender, Self { all, count })
    }

    /// All so far.
    pub fn all(&self) -> Vec<Notice> {
        self.since(0)
    }

    /// Those after the first `seen`.
    pub fn since(&self, seen: usize) -> Vec<Notice> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(seen..).unwrap_or_default().to_vec()
    }

    /// Waits until there are more than `seen`; false where nobody can send any more.
    pub async fn more_than(&mut self, seen: usize) -> bool {
        self.count.wait_for(|count| *count > seen).await.is_ok()
    }
}
