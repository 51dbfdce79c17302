//! The story of a node, from nothing to pods with GPUs: what was observed, told as it happens.
//!
//! Every line is something that was seen from outside, at the API server, the kubelet, in files, or was told by the agent.
//! What doesn't come true within its deadline ends the story.

use std::time::{Duration, Instant};

use pitcrew_agent::Topic;
use pitcrew_agent::notice::Level;

use crate::node::Node;

mod health;
mod pods;
mod start;

/// How long each step may take.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Between two looks at whether something has come true.
const PAUSE: Duration = Duration::from_millis(5);

/// One thing that is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Since the story began.
    pub at: Duration,
    /// What kind of thing it is.
    pub mark: Mark,
    /// What it is about, in a word or two.
    pub topic: String,
    /// What happened.
    pub text: String,
    /// More of it, a line each.
    pub details: Vec<String>,
}

/// What kind of thing is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A new chapter.
    Chapter,
    /// Something was seen to be as it should.
    Seen,
    /// Something is done to the node from outside.
    Done,
    /// It doesn't apply here, and why.
    Skipped,
    /// The agent warns, or says that something doesn't work.
    Warning,
    /// A step did not come true.
    Failed,
}

/// What did not come true, and what was seen instead.
#[derive(Debug, thiserror::Error)]
#[error("{what} did not happen{}: {instead}", within(.deadline.as_ref()))]
pub struct Failure {
    /// What should have happened.
    pub what: String,
    /// Within this time; `None` where it failed at once.
    pub deadline: Option<Duration>,
    /// What was seen instead.
    pub instead: String,
}

fn within(deadline: Option<&Duration>) -> String {
    deadline.map_or_else(String::new, |deadline| {
        format!(" within {} s", deadline.as_secs_f32())
    })
}

/// A story that is told.
pub struct Story<'a> {
    node: &'a mut Node,
    begun: Instant,
    deadline: Duration,
    tell: &'a mut dyn FnMut(Line),
    /// Notices that were looked at.
    heard: usize,
}

impl std::fmt::Debug for Story<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Story")
            .field("node", &self.node)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl<'a> Story<'a> {
    /// A story of this node, on which no agent runs yet.
    pub fn new(node: &'a mut Node, deadline: Duration, tell: &'a mut dyn FnMut(Line)) -> Self {
        Self {
            node,
            begun: Instant::now(),
            deadline,
            tell,
            heard: 0,
        }
    }

    /// Tells all of it.
    ///
    /// # Errors
    /// The step that did not come true, which was told too.
    pub async fn tell(mut self) -> Result<(), Failure> {
        let result = self.chapters().await;
        if let Err(failure) = &result {
            self.line(Mark::Failed, "failed", failure.to_string(), Vec::new());
        }
        result
    }

    async fn chapters(&mut self) -> Result<(), Failure> {
        self.start().await?;
        self.pods().await?;
        self.health().await
    }

    fn line(&mut self, mark: Mark, topic: &str, text: impl Into<String>, details: Vec<String>) {
        (self.tell)(Line {
            at: self.begun.elapsed(),
            mark,
            topic: topic.to_owned(),
            text: text.into(),
            details,
        });
    }

    fn chapter(&mut self, title: &str) {
        self.line(Mark::Chapter, "", title, Vec::new());
    }

    fn seen(&mut self, topic: &str, text: impl Into<String>, details: Vec<String>) {
        self.line(Mark::Seen, topic, text, details);
    }

    fn done(&mut self, topic: &str, text: impl Into<String>) {
        self.line(Mark::Done, topic, text, Vec::new());
    }

    /// What the agent has told since the last time that is not as expected. What it warns of resources and conditions is
    /// left out: that is looked at from outside, and is as it should be once it has come true.
    fn hear(&mut self) {
        let notices = self.node.notices().since(self.heard);
        self.heard += notices.len();
        for notice in notices {
            let is_seen = matches!(notice.topic, Topic::Plugin | Topic::Status);
            if notice.level > Level::Info && !is_seen {
                self.line(Mark::Warning, &notice.topic.to_string(), notice.text, Vec::new());
            }
        }
    }

    /// Waits until something has come true. `check` gives what was seen instead while it hasn't.
    async fn until<T>(
        &mut self,
        what: &str,
        mut check: impl AsyncFnMut(&mut Node) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let until = Instant::now() + self.deadline;
        loop {
            let result = check(self.node).await;
            self.hear();
            match result {
                Ok(seen) => return Ok(seen),
                Err(instead) if Instant::now() >= until => {
                    return Err(Failure {
                        what: what.to_owned(),
                        deadline: Some(self.deadline),
                        instead,
                    });
                }
                Err(_) if !self.node.agent_runs() => {
                    return Err(Failure {
                        what: what.to_owned(),
                        deadline: None,
                        instead: "the agent has ended".to_owned(),
                    });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// A failure at once.
    fn failed(what: &str, instead: impl std::fmt::Display) -> Failure {
        Failure {
            what: what.to_owned(),
            deadline: None,
            instead: instead.to_string(),
        }
    }
}
