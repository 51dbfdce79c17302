//! The agent's own Node object, followed by one watch for all parts that read it.

use std::error::Error;
use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::core::{PartialObjectMeta, Status};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::watch;

use crate::deps::Deps;
use crate::notice::{Level, Notice, Topic};

/// Metadata of the Node; `None` before it was seen, and while there is no such Node.
pub type Known = Option<Arc<PartialObjectMeta<Node>>>;

/// Follows the Node for ever, and sends its metadata whenever they change. What was last seen stays while the API server
/// doesn't answer, which is told once. Does nothing without a client.
pub async fn follow(deps: &Deps, to: watch::Sender<Known>) {
    let Some(client) = deps.client.clone() else {
        return std::future::pending().await;
    };
    let api: Api<PartialObjectMeta<Node>> = Api::all(client);
    let mut told = Told::default();
    let stream = watcher::watch_object(api, &deps.settings.node).default_backoff();
    let mut stream = std::pin::pin!(stream);
    while let Some(seen) = stream.next().await {
        match seen {
            Ok(node) => {
                if told.ok() {
                    deps.tell(Topic::Node, Level::Info, "the API server answers again");
                }
                to.send_if_modified(|known| {
                    let version = |node: &PartialObjectMeta<Node>| node.metadata.resource_version.clone();
                    let same = known.as_deref().map(version) == node.as_ref().map(version);
                    *known = node.map(Arc::new);
                    !same
                });
            }
            Err(error) => {
                if told.failed() {
                    let text = format!(
                        "Node `{}` can't be read: {}; it is tried again until it can",
                        deps.settings.node,
                        why(&error)
                    );
                    deps.tell(Topic::Node, Level::Warning, text);
                }
            }
        }
    }
}

/// Says whether failures, and their end, are news. One by itself is none: API servers restart, watches expire.
#[derive(Debug, Default)]
pub(crate) struct Told(u32);

impl Told {
    /// So many failures in a row are news.
    const NEWS: u32 = 3;

    /// It failed: true once, when it has failed often enough.
    pub(crate) fn failed(&mut self) -> bool {
        self.0 = self.0.saturating_add(1);
        self.0 == Self::NEWS
    }

    /// It worked: true where failures were told before.
    pub(crate) fn ok(&mut self) -> bool {
        std::mem::take(&mut self.0) >= Self::NEWS
    }
}

/// What the API server answered to a request that it refused, if that is what happened.
pub(crate) fn refusal<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Status> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let boxed = error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref);
        if let Some(kube::Error::Api(status)) = boxed.or_else(|| error.downcast_ref()) {
            return Some(status);
        }
        if let Some(watcher::Error::WatchError(status)) = error.downcast_ref() {
            return Some(status);
        }
        cause = error.source();
    }
    None
}

/// Why a request failed, in one line: the API server's words, or the error and its causes without what a cause repeats.
pub(crate) fn why(error: &(dyn Error + 'static)) -> String {
    if let Some(status) = refusal(error).filter(|status| !status.message.is_empty()) {
        return format!("{} ({})", status.message, status.code);
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

impl Deps {
    /// Tells what happened. Nobody may be listening any more, which is no reason to stop.
    pub(crate) fn tell(&self, topic: Topic, level: Level, text: impl Into<String>) {
        let text = text.into();
        let _ = self.notices.send(Notice { topic, level, text });
    }
}
