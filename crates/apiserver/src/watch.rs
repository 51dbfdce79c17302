//! Watches: the changes of a kind as a stream of lines.
//!
//! A watch keeps its place in the kind's history and reads on from there when it is woken, so that it costs the store
//! nothing; one that falls behind what is remembered ends with 410, as a real one does.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::faults::Cut;
use crate::object;
use crate::read::Selection;
use crate::route::{Options, Target};
use crate::server::Inner;
use crate::status::ApiError;
use crate::store::{Change, Kind, Store};
use crate::view::View;

/// What tells that a list that was streamed is complete.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One watch.
pub(crate) struct Watch {
    server: Arc<Inner>,
    kind: String,
    target: Target,
    view: View,
    selection: Selection,
    /// Everything up to this revision has been told.
    cursor: u64,
    lines: VecDeque<Bytes>,
    has_ended: bool,
    told_columns: bool,
    changed: watch::Receiver<()>,
    faults: watch::Receiver<bool>,
    cuts: usize,
    end: Option<Instant>,
    bookmark: Option<(Instant, Duration)>,
}

impl Watch {
    /// Begins a watch: what it tells first is what was there, or what changed since the revision that it names.
    pub(crate) fn new(
        server: Arc<Inner>,
        store: &Store,
        kind: &Kind,
        target: Target,
        view: View,
        selection: Selection,
        options: &Options,
    ) -> Result<Self, ApiError> {
        if options.initial_events && options.version_match != "NotOlderThan" {
            return Err(ApiError::new(
                422,
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        let now = Instant::now();
        let period = server.bookmark_period;
        let mut watch = Self {
            kind: Store::id_of(&view.resource),
            target,
            view,
            selection,
            cursor: store.revision(),
            lines: VecDeque::new(),
            has_ended: false,
            told_columns: false,
            changed: kind.subscribe(),
            faults: server.faults.subscribe(),
            cuts: server.faults.cuts(),
            end: options.timeout.map(|timeout| now + timeout),
            bookmark: options.bookmarks.then_some((now + period, period)),
            server,
        };
        let since = options.resource_version.filter(|since| *since > 0);
        match since {
            Some(since) if !options.initial_events => {
                watch.cursor = since;
                watch.read_from(kind);
            }
            _ => {
                let selection = watch.selection.clone();
                for (key, stored) in kind.under(selection.prefix()) {
                    if selection.matches(key, stored) {
                        watch.tell("ADDED", stored);
                    }
                }
                if options.initial_events && options.bookmarks {
                    watch.tell_bookmark(true);
                }
            }
        }
        Ok(watch)
    }

    /// The next line; none when the watch has ended.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            let frozen = *self.faults.borrow_and_update();
            if !frozen {
                if let Some(line) = self.lines.pop_front() {
                    return Some(line);
                }
                if self.has_ended {
                    return None;
                }
                self.read();
                if self.has_ended || !self.lines.is_empty() {
                    continue;
                }
            }
            self.wait(frozen).await;
        }
    }

    /// Waits until there may be something to tell.
    async fn wait(&mut self, frozen: bool) {
        if frozen {
            // The server owns the other end: it is there as long as this.
            let _ = self.faults.changed().await;
            return;
        }
        let wake = [self.end, self.bookmark.map(|(at, _)| at)]
            .into_iter()
            .flatten()
            .min();
        let changed = pin!(self.changed.changed());
        let faults = pin!(self.faults.changed());
        let woken = async {
            match select(changed, faults).await {
                Either::Left((alive, _)) => alive.is_ok(),
                Either::Right(_) => true,
            }
        };
        let alive = match wake {
            Some(wake) => tokio::time::timeout_at(wake, woken).await.unwrap_or(true),
            None => woken.await,
        };
        // The kind is gone, and what changed last has been told.
        self.has_ended |= !alive;
    }

    /// Looks at what changed, and at the time.
    fn read(&mut self) {
        match self.server.faults.cut_since(self.cuts, &self.target) {
            Some(Cut::Drop) => {
                self.has_ended = true;
                return;
            }
            Some(Cut::Expire) => {
                self.expire(self.cursor.saturating_add(1));
                return;
            }
            None => {}
        }
        self.changed.borrow_and_update();
        let server = self.server.clone();
        let store = server.store();
        if let Some(kind) = store.kind(&self.kind) {
            self.read_from(kind);
        }
        if self.has_ended || !self.lines.is_empty() {
            return;
        }
        self.cursor = store.revision();
        drop(store);
        let now = Instant::now();
        if let Some((at, period)) = self.bookmark
            && now >= at
        {
            self.bookmark = Some((now + period, period));
            self.tell_bookmark(false);
        }
        self.has_ended |= self.end.is_some_and(|end| now >= end);
    }

    fn read_from(&mut self, kind: &Kind) {
        let Some(changes) = kind.since(self.cursor) else {
            self.expire(kind.floor());
            return;
        };
        for change in changes {
            self.cursor = change.revision;
            self.tell_change(change);
        }
    }

    fn tell_change(&mut self, change: &Change) {
        let matches = |stored: &Value| self.selection.matches(&change.key, stored);
        let before = change.before.as_deref().is_some_and(matches);
        let after = !change.removed && matches(&change.object);
        let kind = match (before, after) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return,
        };
        match &change.before {
            // What the client knew of it, at the revision at which it stopped matching.
            Some(known) if kind == "DELETED" && !change.removed => {
                let mut last = (**known).clone();
                let revision = json!(object::resource_version(&change.object));
                object::set(&mut last, "resourceVersion", revision);
                self.tell(kind, &last);
            }
            _ => self.tell(kind, &change.object),
        }
    }

    fn tell(&mut self, kind: &str, stored: &Value) {
        let now = self.server.now();
        let shown = self.view.event(stored, now, !self.told_columns);
        self.told_columns = true;
        self.line(kind, &shown);
    }

    fn tell_bookmark(&mut self, is_end_of_list: bool) {
        let mut stored =
            json!({"metadata": {"resourceVersion": self.cursor.to_string(), "creationTimestamp": null}});
        if is_end_of_list {
            stored["metadata"]["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let shown = self.view.event(&stored, self.server.now(), false);
        self.line("BOOKMARK", &shown);
    }

    fn expire(&mut self, oldest: u64) {
        let status = ApiError::too_old(self.cursor, oldest).to_status();
        self.line("ERROR", &status);
        self.has_ended = true;
    }

    fn line(&mut self, kind: &str, object: &Value) {
        let mut line = json!({"type": kind, "object": object}).to_string();
        line.push('\n');
        self.lines.push_back(Bytes::from(line));
    }
}
