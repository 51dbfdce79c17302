//! Notices of the device plugin.

use tokio::sync::mpsc::UnboundedSender;

use crate::notice::{Level, Notice, Topic};

/// Says what the device plugin does. Whether anybody listens is not its business.
#[derive(Debug, Clone)]
pub(crate) struct Tell(pub(crate) UnboundedSender<Notice>);

impl Tell {
    /// One line.
    pub(crate) fn say(&self, level: Level, text: String) {
        let notice = Notice {
            topic: Topic::Plugin,
            level,
            text,
        };
        let _ = self.0.send(notice);
    }
}
