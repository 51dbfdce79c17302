//! Where the configuration of the device plugin comes from, and its reload while the agent runs.
//!
//! From nowhere (defaults), a file, a directory of named configurations (a mounted `ConfigMap`), or a `ConfigMap` that is
//! watched through the API server. Of several, the node's label [`LABEL`] names the one that counts, else the node's
//! `GpuNode`, else a default, else fallbacks in order, as with NVIDIA's config-manager (fact sheet `devices`, section
//! 1.2). Unlike there, a change of what is in a configuration counts as much as a change of the label.
//!
//! The `GpuNode` may also hold a configuration itself. It counts unless the label names one of several: what a person
//! says of one node by hand stands above what is wanted of it, and that above what holds for all nodes.
//!
//! What can't be read, chosen or parsed leaves the last good configuration in force, and is told with the reason. Where
//! there never was a good one, nothing is offered: other devices than those that were asked for would be worse. For the
//! same reason it waits for the label as long as the API server doesn't answer, and some seconds for the `GpuNode`, which
//! on most nodes wants nothing.

mod files;
mod select;
mod spec;
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
use pitcrew_api::GpuNodeSpec;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::deps::Deps;
use crate::node::{Known, Told, why};
use crate::notice::{Level, Topic};
use crate::snapshot::Problem;

pub use select::{By, Choice, Fallback, Unselected, select};

/// Label of a Node that names its configuration.
pub const LABEL: &str = "nvidia.com/device-plugin.config";

/// How often files are looked at. No inotify: its instances run out on busy nodes, and it follows no link that a mounted
/// `ConfigMap` swaps.
const LOOK: Duration = Duration::from_secs(2);
/// How long the Node may be unknown before it is told that this is what is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the `GpuNode` may be unknown before it is gone on without.
const SPEC_PATIENCE: Duration = Duration::from_secs(3);

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
    /// Its name; `None` for the only file, that of the `GpuNode`, and the defaults.
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

/// What [`keep`] reads and tells.
#[derive(Debug, Clone)]
pub struct Channels<C> {
    /// The Node object, from [`crate::node::follow`].
    pub node: watch::Receiver<Known>,
    /// What is wanted of the node, from [`crate::status::keep()`]; `None` before that is known.
    pub wanted: watch::Receiver<Option<GpuNodeSpec>>,
    /// Where the configuration is told.
    pub chosen: watch::Sender<Option<Arc<Chosen<C>>>>,
    /// Where it is told why another one isn't in force.
    pub problem: watch::Sender<Option<Problem>>,
}

/// Follows the configuration for ever, and sends each that is good. Sends nothing before the first is known, and the
/// defaults where none was asked for.
///
/// `parse` is given the text of one configuration, an empty one for the defaults. Without a client there is no label, and
/// nothing is wanted of the node.
pub async fn keep<C, E: fmt::Display>(
    deps: &Deps,
    sources: &Sources,
    parse: impl Fn(&str) -> Result<C, E>,
    channels: Channels<C>,
) {
    let Channels {
        mut node,
        mut wanted,
        chosen,
        problem,
    } = channels;
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
    let spec_patience = Instant::now() + SPEC_PATIENCE;
    let mut is_followed = deps.client.is_some();
    let mut is_wanted = deps.client.is_some();
    loop {
        let now = Instant::now();
        let spec = wanted.borrow_and_update().clone();
        let is_late = deps.client.is_none() || now >= spec_patience;
        let spec = spec.or_else(|| is_late.then(GpuNodeSpec::default));
        if let (Some(found), Some(spec)) = (&found, &spec) {
            let label = match (&*node.borrow_and_update(), &deps.client) {
                (Some(node), _) => Label::of(node),
                (None, None) => Label::None,
                (None, Some(_)) => Label::Unknown(now >= patience),
            };
            keeper.consider(found, &label, spec, &parse);
        }
        let waits_for_spec = spec.is_none();
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
            changed = wanted.changed(), if is_wanted => is_wanted = changed.is_ok(),
            () = tokio::time::sleep_until(patience), if waits => {}
            () = tokio::time::sleep_until(spec_patience), if waits_for_spec => {}
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
    /// What is in force, and its text.
    in_force: Option<(Origin, String)>,
}

/// Which of all configurations one is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// The defaults, or the only one of the source.
    Only,
    /// The one of this name.
    Named(String),
    /// That of the `GpuNode`.
    Inline,
}

impl<C> Keeper<'_, C> {
    fn consider<E: fmt::Display>(
        &mut self,
        found: &Result<Found, Problem>,
        label: &Label,
        spec: &GpuNodeSpec,
        parse: &impl Fn(&str) -> Result<C, E>,
    ) {
        // A label says something only where there is something to choose from.
        let chooses = !matches!(found, Ok(Found::Nothing | Found::One(_)));
        let node = &self.deps.settings.node;
        let problem = match (found, &spec.inline_config, &spec.config) {
            (_, Some(text), _) if !chooses || *label == Label::None => {
                self.adopt_text(Origin::Inline, &Ok(text.clone()), parse)
            }
            (Err(problem), _, _) => Some(problem.clone()),
            (Ok(Found::Several(texts)), _, _) => self.choose(texts, label, spec, parse),
            (Ok(_), _, Some(name)) => Some(spec::nothing_to_choose(name, &what(&self.sources.source), node)),
            (Ok(Found::Nothing), _, None) => self.adopt_text(Origin::Only, &Ok(String::new()), parse),
            (Ok(Found::One(text)), _, None) => self.adopt_text(Origin::Only, text, parse),
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
        spec: &GpuNodeSpec,
        parse: &impl Fn(&str) -> Result<C, E>,
    ) -> Option<Problem> {
        let node = &self.deps.settings.node;
        let by = match label {
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
            Label::None => spec.config.as_deref().map(By::Spec),
            Label::Name(name) => Some(By::Label(name)),
        };
        let names = texts.keys().map(String::as_str).collect();
        let default = self.sources.default.as_deref();
        match select(&names, by, default, &self.sources.fallbacks) {
            Ok(Choice::Empty) => self.adopt_text(Origin::Only, &Ok(String::new()), parse),
            Ok(Choice::Named(name)) => {
                let text = texts.get(name)?;
                self.adopt_text(Origin::Named(name.to_owned()), text, parse)
            }
            Err(unselected) => Some(unselected.problem(&what(&self.sources.source), node)),
        }
    }

    fn adopt_text<E: fmt::Display>(
        &mut self,
        origin: Origin,
        text: &Text,
        parse: impl Fn(&str) -> Result<C, E>,
    ) -> Option<Problem> {
        let what = self.words(&origin);
        let hint = match &origin {
            Origin::Inline => spec::correct(&self.deps.settings.node),
            Origin::Only | Origin::Named(_) => {
                "correct it: it is read again as soon as it changes".to_owned()
            }
        };
        match text {
            Ok(text) => self.adopt(origin, text, parse).map(|error| Problem {
                reason: "ConfigInvalid".to_owned(),
                message: format!("{what} is wrong: {error}"),
                hint,
            }),
            Err(why) => {
                let text = format!("{what} can't be read: {why}");
                Some(unreadable(text, &self.sources.source))
            }
        }
    }

    /// A configuration in words.
    fn words(&self, origin: &Origin) -> String {
        let source = what(&self.sources.source);
        match origin {
            Origin::Named(name) => format!("configuration `{name}` of {source}"),
            Origin::Only => format!("configuration {source}"),
            Origin::Inline => format!("the configuration in GpuNode `{}`", self.deps.settings.node),
        }
    }

    /// Puts a configuration in force where it isn't yet; what is wrong with it if it can't be.
    fn adopt<E: fmt::Display>(
        &mut self,
        origin: Origin,
        text: &str,
        parse: impl Fn(&str) -> Result<C, E>,
    ) -> Option<String> {
        let same = |(in_force, of): &(Origin, String)| *in_force == origin && of == text;
        if self.in_force.as_ref().is_some_and(same) {
            return None;
        }
        let config = match parse(text) {
            Ok(config) => config,
            Err(error) => return Some(error.to_string()),
        };
        let is_first = self.in_force.is_none();
        let told = match &origin {
            // That nothing was asked for is no news.
            Origin::Only if is_first && self.sources.source == Source::Defaults => None,
            Origin::Only if text.is_empty() => Some("the default configuration is in force".to_owned()),
            origin => Some(format!("{} is in force", self.words(origin))),
        };
        if let Some(told) = told {
            self.deps.tell(Topic::Plugin, Level::Info, told);
        }
        let name = match &origin {
            Origin::Named(name) => Some(name.clone()),
            Origin::Only | Origin::Inline => None,
        };
        self.in_force = Some((origin, text.to_owned()));
        self.chosen.send_replace(Some(Arc::new(Chosen { name, config })));
        None
    }

    /// What is done without a good one.
    fn stays(&self) -> String {
        match &self.in_force {
            None => "nothing is offered until there is a good one".to_owned(),
            Some((Origin::Named(name), _)) => format!("the last good one, `{name}`, stays in force"),
            Some((Origin::Only | Origin::Inline, _)) => "the last good one stays in force".to_owned(),
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
