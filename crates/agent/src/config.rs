//! Where the configuration of the device plugin comes from, and its reload while the agent runs.
//!
//! From nowhere (defaults), a file, a directory of named configurations (a mounted `ConfigMap`), or a `ConfigMap` that is
//! watched through the API server. Of several, the node's label [`LABEL`] names the one that counts, else a default,
//! else fallbacks in order, as with NVIDIA's config-manager (fact sheet `devices`, section 1.2). Unlike there, a change
//! of what is in a configuration counts as much as a change of the label.
//!
//! What can't be read, chosen or parsed leaves the last good configuration in force, and is told with the reason. Where
//! there never was a good one, nothing is offered: other devices than those that were asked for would be worse. For the
//! same reason it waits for the label as long as the API server doesn't answer.

mod files;
mod select;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::deps::Deps;
use crate::node::{Known, Told, why};
use crate::notice::{Level, Topic};
use crate::snapshot::Problem;

pub use select::{Choice, Fallback, Unselected, select};

/// Label of a Node that names its configuration.
pub const LABEL: &str = "nvidia.com/device-plugin.config";

/// How often files are looked at. No inotify: its instances run out on busy nodes, and it follows no link that a mounted
/// `ConfigMap` swaps.
const LOOK: Duration = Duration::from_secs(2);
/// How long the Node may be unknown before it is told that this is what is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where configurations come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Source {
    /// Nowhere: the defaults.
    #[default]
    Defaults,
    /// A file of the agent's own file system, or a directory of them, each named as its file.
    Path(PathBuf),
    /// The entries of a `ConfigMap`.
    ConfigMap {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Where configurations come from.
    pub source: Source,
    /// The configuration for a node without a label.
    pub default: Option<String>,
    /// What to take without a label and a default, in order.
    pub fallbacks: Vec<Fallback>,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            source: Source::default(),
            default: None,
            fallbacks: vec![Fallback::Named, Fallback::Single, Fallback::Empty],
        }
    }
}

/// The configuration that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen<C> {
    /// Its name; `None` for the only file, and for the defaults.
    pub name: Option<String>,
    /// The configuration.
    pub config: C,
}

/// What there is to choose from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// Nothing was asked for.
    Nothing,
    /// One configuration.
    One(Text),
    /// Several, by name.
    Several(BTreeMap<String, Text>),
}

/// The text of a configuration, or why it can't be read.
type Text = Result<String, String>;

/// Follows the configuration for ever, and sends each that is good. Sends nothing before the first is known, and the
/// defaults where none was asked for.
///
/// `parse` is given the text of one configuration, an empty one for the defaults. `node` comes from [`crate::node::follow`]; without a client there is no
/// label.
pub async fn keep<C, E: fmt::Display>(
    deps: &Deps,
    sources: &Sources,
    parse: impl Fn(&str) -> Result<C, E>,
    mut node: watch::Receiver<Known>,
    chosen: watch::Sender<Option<Arc<Chosen<C>>>>,
    problem: watch::Sender<Option<Problem>>,
) {
    let mut keeper = Keeper {
        deps,
        sources,
        chosen,
        problem,
        in_force: None,
    };
    let (mut found, mut map) = begin(deps, &sources.source);
    let mut told = Told::default();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut files = files::Files::default();
    let patience = Instant::now() + PATIENCE;
    let mut is_followed = deps.client.is_some();
    loop {
        if let Some(found) = &found {
            let label = match (&*node.borrow_and_update(), &deps.client) {
                (Some(node), _) => Label::of(node),
                (None, None) => Label::None,
                (None, Some(_)) => Label::Unknown(Instant::now() >= patience),
            };
            keeper.consider(found, &label, &parse);
        }
        let waits = node.borrow().is_none() && Instant::now() < patience;
        tokio::select! {
            // Where nobody follows the Node any more, its last label counts.
            changed = node.changed(), if is_followed => is_followed = changed.is_ok(),
            _ = look.tick() => if let Source::Path(path) = &sources.source
                && let Some(now) = files.look(path)
            {
                found = Some(now);
            },
            Some(now) = map.next() => match now {
                Ok(map) => {
                    let _ = told.ok();
                    found = Some(of_map(map, &sources.source));
                }
                Err(error) => {
                    let text = format!("{} can't be read: {}", what(&sources.source), why(&error));
                    let is_news = told.failed();
                    if is_news {
                        let text = format!("{text}; it is tried again until it can");
                        deps.tell(Topic::Node, Level::Warning, text);
                    }
                    if is_news && found.is_none() {
                        found = Some(Err(unreadable(text, &sources.source)));
                    }
                }
            },
            () = tokio::time::sleep_until(patience), if waits => {}
        }
    }
}

/// A `ConfigMap` as it changes; `None` for one that isn't there.
type Maps = BoxStream<'static, Result<Option<ConfigMap>, watcher::Error>>;

/// What is known before anything was looked at, and what tells of changes.
fn begin(deps: &Deps, source: &Source) -> (Option<Result<Found, Problem>>, Maps) {
    let pending = || futures_util::stream::pending().boxed();
    match (source, &deps.client) {
        (Source::Defaults, _) => (Some(Ok(Found::Nothing)), pending()),
        (Source::Path(_), _) => (None, pending()),
        (Source::ConfigMap { namespace, name }, Some(client)) => {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let maps = watcher::watch_object(api, name).default_backoff();
            (None, maps.boxed())
        }
        (Source::ConfigMap { .. }, None) => {
            let text = format!("{} can't be read: this node knows no API server", what(source));
            (Some(Err(unreadable(text, source))), pending())
        }
    }
}

fn of_map(map: Option<ConfigMap>, source: &Source) -> Result<Found, Problem> {
    let Some(map) = map else {
        let text = format!("{} isn't there", what(source));
        return Err(unreadable(text, source));
    };
    let entries = map.data.unwrap_or_default();
    Ok(Found::Several(
        entries.into_iter().map(|(name, text)| (name, Ok(text))).collect(),
    ))
}

/// A source in words.
fn what(source: &Source) -> String {
    match source {
        Source::Defaults => "the defaults".to_owned(),
        Source::Path(path) => format!("`{}`", path.display()),
        Source::ConfigMap { namespace, name } => format!("ConfigMap `{name}` in namespace `{namespace}`"),
    }
}

fn unreadable(message: String, source: &Source) -> Problem {
    let hint = match source {
        Source::ConfigMap { namespace, name } => format!(
            "see whether it is there and the agent may read it: `kubectl -n {namespace} get configmap {name}`"
        ),
        _ => "see whether it is there, and is mounted into the agent's pod".to_owned(),
    };
    Problem {
        reason: "ConfigUnreadable".to_owned(),
        message,
        hint,
    }
}

/// What the Node's label says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Label {
    /// The Node isn't known; true when that has lasted.
    Unknown(bool),
    /// There is none, or it is empty.
    None,
    /// This name.
    Name(String),
}

impl Label {
    fn of(node: &PartialObjectMeta<Node>) -> Self {
        let labels = node.metadata.labels.as_ref();
        match labels.and_then(|labels| labels.get(LABEL)) {
            Some(name) if !name.is_empty() => Self::Name(name.clone()),
            _ => Self::None,
        }
    }
}

struct Keeper<'a, C> {
    deps: &'a Deps,
    sources: &'a Sources,
    chosen: watch::Sender<Option<Arc<Chosen<C>>>>,
    problem: watch::Sender<Option<Problem>>,
    /// Name and text of what is in force.
    in_force: Option<(Option<String>, String)>,
}

impl<C> Keeper<'_, C> {
    fn consider<E: fmt::Display>(
        &mut self,
        found: &Result<Found, Problem>,
        label: &Label,
        parse: &impl Fn(&str) -> Result<C, E>,
    ) {
        let problem = match found {
            Err(problem) => Some(problem.clone()),
            Ok(Found::Nothing) => self.adopt_text(None, &Ok(String::new()), parse),
            Ok(Found::One(text)) => self.adopt_text(None, text, parse),
            Ok(Found::Several(texts)) => self.choose(texts, label, parse),
        };
        self.tell(problem.map(|problem| Problem {
            message: format!("{}; {}", problem.message, self.stays()),
            ..problem
        }));
    }

    fn choose<E: fmt::Display>(
        &mut self,
        texts: &BTreeMap<String, Text>,
        label: &Label,
        parse: &impl Fn(&str) -> Result<C, E>,
    ) -> Option<Problem> {
        let node = &self.deps.settings.node;
        let label = match label {
            Label::Unknown(false) => return None,
            Label::Unknown(true) => {
                return Some(Problem {
                    reason: "NodeUnknown".to_owned(),
                    message: format!(
                        "label {LABEL} of node `{node}` decides which configuration counts, and the Node can't be read"
                    ),
                    hint: format!("see whether the API server answers: `kubectl get node {node}`"),
                });
            }
            Label::None => None,
            Label::Name(name) => Some(name.as_str()),
        };
        let names = texts.keys().map(String::as_str).collect();
        let default = self.sources.default.as_deref();
        match select(&names, label, default, &self.sources.fallbacks) {
            Ok(Choice::Empty) => self.adopt_text(None, &Ok(String::new()), parse),
            Ok(Choice::Named(name)) => {
                let text = texts.get(name)?;
                self.adopt_text(Some(name), text, parse)
            }
            Err(unselected) => Some(unselected.problem(&what(&self.sources.source), node)),
        }
    }

    fn adopt_text<E: fmt::Display>(
        &mut self,
        name: Option<&str>,
        text: &Text,
        parse: impl Fn(&str) -> Result<C, E>,
    ) -> Option<Problem> {
        let what = match name {
            Some(name) => format!("configuration `{name}` of {}", what(&self.sources.source)),
            None => format!("configuration {}", what(&self.sources.source)),
        };
        match text {
            Ok(text) => self.adopt(name, text, parse).map(|error| Problem {
                reason: "ConfigInvalid".to_owned(),
                message: format!("{what} is wrong: {error}"),
                hint: "correct it: it is read again as soon as it changes".to_owned(),
            }),
            Err(why) => {
                let text = format!("{what} can't be read: {why}");
                Some(unreadable(text, &self.sources.source))
            }
        }
    }

    /// Puts a configuration in force where it isn't yet; what is wrong with it if it can't be.
    fn adopt<E: fmt::Display>(
        &mut self,
        name: Option<&str>,
        text: &str,
        parse: impl Fn(&str) -> Result<C, E>,
    ) -> Option<String> {
        let same = |(in_force, of): &(Option<String>, String)| in_force.as_deref() == name && of == text;
        if self.in_force.as_ref().is_some_and(same) {
            return None;
        }
        let config = match parse(text) {
            Ok(config) => config,
            Err(error) => return Some(error.to_string()),
        };
        let is_first = self.in_force.is_none();
        self.in_force = Some((name.map(str::to_owned), text.to_owned()));
        let text = match name {
            Some(name) => format!(
                "configuration `{name}` of {} is in force",
                what(&self.sources.source)
            ),
            // That nothing was asked for is no news.
            None if is_first && self.sources.source == Source::Defaults => String::new(),
            None if text.is_empty() => "the default configuration is in force".to_owned(),
            None => format!("configuration {} is in force", what(&self.sources.source)),
        };
        if !text.is_empty() {
            self.deps.tell(Topic::Plugin, Level::Info, text);
        }
        let name = name.map(str::to_owned);
        self.chosen.send_replace(Some(Arc::new(Chosen { name, config })));
        None
    }

    /// What is done without a good one.
    fn stays(&self) -> String {
        match &self.in_force {
            None => "nothing is offered until there is a good one".to_owned(),
            Some((Some(name), _)) => format!("the last good one, `{name}`, stays in force"),
            Some((None, _)) => "the last good one stays in force".to_owned(),
        }
    }

    fn tell(&self, problem: Option<Problem>) {
        let is_news = self.problem.send_if_modified(|told| {
            let is_news = *told != problem;
            told.clone_from(&problem);
            is_news
        });
        if let Some(problem) = problem.filter(|_| is_news) {
            let text = format!("{}; {}", problem.message, problem.hint);
            self.deps.tell(Topic::Plugin, Level::Error, text);
        }
    }
}
