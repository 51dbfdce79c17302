//! Faults on demand: late answers, errors, lost connections, dropped and expired watches, a server that hangs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::route::{Target, Verb};
use crate::status::ApiError;

/// Which requests a fault is for. [`Match::default`] is every one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    verb: Option<Verb>,
    resource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
}

impl Match {
    /// Only of this verb.
    #[must_use]
    pub fn verb(mut self, verb: Verb) -> Self {
        self.verb = Some(verb);
        self
    }

    /// Only of this kind: `nodes`, or `leases.coordination.k8s.io` to name its group too.
    #[must_use]
    pub fn resource(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// Only in this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Only of the object of this name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Only of this subresource; the empty one is the object itself.
    #[must_use]
    pub fn subresource(mut self, subresource: &str) -> Self {
        self.subresource = Some(subresource.to_owned());
        self
    }

    fn is(&self, verb: Verb, target: &Target) -> bool {
        let says =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let qualified = format!("{}.{}", target.plural, target.group);
        self.verb.is_none_or(|wanted| wanted == verb)
            && (says(&self.resource, &target.plural) || says(&self.resource, &qualified))
            && says(&self.namespace, &target.namespace)
            && says(&self.name, &target.name)
            && says(&self.subresource, &target.subresource)
    }
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The server answers with this error and does nothing: `ApiError::new(503, "etcd has no leader")`.
    Error(ApiError),
    /// The connection breaks before the server did anything.
    Refused,
    /// The server does it, and the connection breaks before the answer: the client can't know.
    LostAnswer,
}

/// What ends a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The stream ends.
    Drop,
    /// It ends with the error 410.
    Expire,
}

#[derive(Debug, Default)]
struct State {
    latencies: Vec<(Match, Duration)>,
    errors: Vec<(Match, Fault, usize)>,
    cuts: Vec<(Match, Cut)>,
}

/// What goes wrong with a server. Clones are the same.
#[derive(Debug, Clone)]
pub struct Faults {
    state: Arc<Mutex<State>>,
    frozen: watch::Sender<bool>,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            frozen: watch::Sender::new(false),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers to these requests come this much later, from now on; latencies add up. Of a watch, its beginning does.
    pub fn delay(&self, requests: Match, by: Duration) {
        self.state().latencies.push((requests, by));
    }

    /// The next `times` of these requests go wrong so. The fault that was set first comes first.
    pub fn fail(&self, requests: Match, fault: Fault, times: usize) {
        if times > 0 {
            self.state().errors.push((requests, fault, times));
        }
    }

    /// Ends these watches now, as a load balancer does; what matches is what a watch was opened with.
    pub fn drop_watches(&self, watches: Match) {
        self.cut(watches, Cut::Drop);
    }

    /// Ends these watches now with 410 Gone, in the stream: the client has to list again.
    pub fn expire_watches(&self, watches: Match) {
        self.cut(watches, Cut::Expire);
    }

    fn cut(&self, watches: Match, cut: Cut) {
        self.state().cuts.push((watches, cut));
        // Whoever waits looks again.
        self.frozen.send_modify(|_| {});
    }

    /// The server hangs: requests are taken and not answered, watches send nothing, until [`Faults::thaw`].
    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    /// What hung goes on.
    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }

    /// Nothing goes wrong any more.
    pub fn clear(&self) {
        {
            let mut state = self.state();
            state.latencies.clear();
            state.errors.clear();
        }
        self.thaw();
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.frozen.subscribe()
    }

    pub(crate) fn latency(&self, verb: Verb, target: &Target) -> Duration {
        let state = self.state();
        let matching = state
            .latencies
            .iter()
            .filter(|(requests, _)| requests.is(verb, target));
        matching.map(|(_, by)| *by).sum()
    }

    /// The fault of a request that is made now.
    pub(crate) fn next(&self, verb: Verb, target: &Target) -> Option<Fault> {
        let mut state = self.state();
        let index = state
            .errors
            .iter()
            .position(|(requests, ..)| requests.is(verb, target))?;
        let (_, fault, left) = state.errors.get_mut(index)?;
        let fault = fault.clone();
        *left = left.saturating_sub(1);
        if *left == 0 {
            state.errors.remove(index);
        }
        Some(fault)
    }

    /// How many cuts there were: a watch that begins now is meant by later ones only.
    pub(crate) fn cuts(&self) -> usize {
        self.state().cuts.len()
    }

    /// What ends a watch that began after so many cuts.
    pub(crate) fn cut_since(&self, since: usize, target: &Target) -> Option<Cut> {
        let state = self.state();
        let mut later = state.cuts.iter().skip(since);
        let cut = later.find(|(watches, _)| watches.is(Verb::Watch, target));
        cut.map(|(_, cut)| *cut)
    }
}
