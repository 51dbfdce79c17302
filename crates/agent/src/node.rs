//! The agent's own Node object, followed by one watch for all parts that read it.

use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::core::PartialObjectMeta;
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
                        chain(&error)
                    );
                    deps.tell(Topic::Node, Level::Warning, text);
                }
            }
        }
    }
}

/// Says whether a failure, and its end, are news.
#[derive(Debug, Default)]
pub(crate) struct Told(bool);

impl Told {
    /// It failed: true for the first time since it last worked.
    pub(crate) fn failed(&mut self) -> bool {
        !std::mem::replace(&mut self.0, true)
    }

    /// It worked: true for the first time since it failed.
    pub(crate) fn ok(&mut self) -> bool {
        std::mem::replace(&mut self.0, false)
    }
}

/// An error and its causes in one line, without what a cause repeats.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
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
