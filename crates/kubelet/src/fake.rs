//! A kubelet for tests and simulations, on real unix sockets: its device manager and its pod-resources, and nothing
//! else of it.
//!
//! It behaves as the device manager of Kubernetes 1.36 does, also where that surprises; a test of ring 4 holds both to
//! the same. Worth knowing for the author of a plugin:
//!
//! - A kubelet that starts removes every socket in its directory. The plugin's connections are gone, its socket has no
//!   name any more, and it has to begin anew.
//! - Options count as `GetDevicePluginOptions` says them, not as in the registration.
//! - A registration doesn't close the connection before it. Only when the older stream ends, the kubelet closes the
//!   connection that was made *last* for the resource: the new one. A plugin that registers again while its old stream
//!   is open is cut off right after, and has to register once more.
//! - A registration that fails leaves an older plugin connected, whose end is then not noticed any more.
//! - The devices of a plugin that is gone stay known and are unhealthy. After five minutes they are forgotten, and
//!   containers that have some can't be started again until the plugin is back.
//! - A plugin has to serve before it registers: its socket is dialled at once, for ten seconds.
//! - Answers of `Allocate` are kept, and containers start with them for as long as their pod lives.

mod audit;
mod lister;
mod name;
pub mod plugin;
mod pod;
mod run;
mod state;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub use audit::{Form, Held, conflicts};
pub use pod::{AdmitError, Pod, Started};

use crate::SocketError;
use pod::{Kind, PodKey};
use run::Run;
use state::{Ids, State};

/// How a fake kubelet behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How long devices stay known after their plugin went. The real one's: 5 minutes.
    pub grace: Duration,
    /// How long a plugin's socket is dialled. The real one's: 10 s.
    pub dial: Duration,
    /// How long a plugin may take for `PreStartContainer`. The real one's: 30 s.
    pub pre_start: Duration,
    /// False for a kubelet without pod-resources.
    pub pod_resources: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            grace: Duration::from_mins(5),
            dial: Duration::from_secs(10),
            pre_start: Duration::from_secs(30),
            pod_resources: true,
        }
    }
}

/// A device as the kubelet knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// True when it may be handed out.
    pub healthy: bool,
    /// NUMA nodes that it is near to.
    pub numa: Vec<i64>,
    /// Who has it.
    pub held_by: Vec<Held>,
}

/// What was waited for and didn't come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("waited {waited:?} for {what}; there is {found}")]
pub struct Late {
    /// How long.
    pub waited: Duration,
    /// For what.
    pub what: String,
    /// What there was instead.
    pub found: String,
}

/// A fake kubelet. Dropping it ends it as a kill does.
#[derive(Debug)]
pub struct Kubelet {
    dir: PathBuf,
    options: Options,
    run: Mutex<Arc<Run>>,
    /// What a run that is stopped left for the next one.
    left: Mutex<Option<State>>,
    changed: watch::Sender<u64>,
    /// Pods are admitted one after the other, and none while the kubelet starts or stops.
    turn: tokio::sync::Mutex<()>,
}

impl Kubelet {
    /// Starts one with its sockets under `dir`: `device-plugins/kubelet.sock` and `pod-resources/kubelet.sock`.
    pub async fn start(dir: impl AsRef<Path>) -> Result<Self, SocketError> {
        Self::with(dir, Options::default()).await
    }

    /// Like [`Self::start`], with options.
    pub async fn with(dir: impl AsRef<Path>, options: Options) -> Result<Self, SocketError> {
        let (changed, _) = watch::channel(0);
        let dir = dir.as_ref().to_owned();
        let run = Run::start(&dir, options, State::default(), changed.clone()).await?;
        Ok(Self {
            dir,
            options,
            run: Mutex::new(run),
            left: Mutex::new(None),
            changed,
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends it as a kill does: connections break, its sockets stay behind and nobody serves them, pods run on.
    pub async fn stop(&self) {
        let _turn = self.turn.lock().await;
        self.stop_now().await;
    }

    /// Starts it again with what it had written down: pods and their devices. Resources have no devices until their
    /// plugins register again. Does nothing where it runs.
    pub async fn resume(&self) -> Result<(), SocketError> {
        let _turn = self.turn.lock().await;
        self.resume_now().await
    }

    /// Stops and resumes it.
    pub async fn restart(&self) -> Result<(), SocketError> {
        let _turn = self.turn.lock().await;
        self.stop_now().await;
        self.resume_now().await
    }

    async fn stop_now(&self) {
        let run = self.run();
        if !run.is_running() {
            return;
        }
        let state = run.stop().await;
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        let stopped = Run::stopped(&self.dir, self.options, self.changed.clone());
        *self.run.lock().unwrap_or_else(PoisonError::into_inner) = stopped;
    }

    async fn resume_now(&self) -> Result<(), SocketError> {
        if self.run().is_running() {
            return Ok(());
        }
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).take();
        let state = left.unwrap_or_default();
        let run = Run::start(&self.dir, self.options, state, self.changed.clone()).await?;
        *self.run.lock().unwrap_or_else(PoisonError::into_inner) = run;
        Ok(())
    }

    fn run(&self) -> Arc<Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn running(&self) -> Result<Arc<Run>, AdmitError> {
        let run = self.run();
        if run.is_running() {
            Ok(run)
        } else {
            Err(AdmitError::Stopped)
        }
    }

    /// Admits a pod and starts its containers: what each of them starts with, by its name.
    ///
    /// A pod that was admitted before keeps its devices where they are healthy. One that is refused has none.
    pub async fn admit(&self, pod: &Pod) -> Result<BTreeMap<String, Started>, AdmitError> {
        let _turn = self.turn.lock().await;
        let run = self.running()?;
        let key = pod.key();
        run.state().pods.insert(key.clone(), pod.clone());
        let admitted = admit(&run, pod).await;
        if admitted.is_err() {
            run.state().remove(&key);
        }
        run.tell();
        admitted?;
        let mut started = BTreeMap::new();
        for container in pod.in_order() {
            let start = start(&run, &key, &container.name).await?;
            started.insert(container.name.clone(), start);
        }
        Ok(started)
    }

    /// Starts a container of an admitted pod again: with what it had.
    pub async fn restart_container(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<Started, AdmitError> {
        let run = self.running()?;
        let key = (namespace.to_owned(), pod.to_owned());
        let is_known = run
            .state()
            .pods
            .get(&key)
            .is_some_and(|pod| pod.containers.iter().any(|known| known.name == container));
        if !is_known {
            return Err(AdmitError::Unknown {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                container: container.to_owned(),
            });
        }
        start(&run, &key, container).await
    }

    /// Ends a pod and frees its devices, also while the kubelet is stopped. False where there is none.
    pub fn remove_pod(&self, namespace: &str, pod: &str) -> bool {
        let key = (namespace.to_owned(), pod.to_owned());
        let removed = self.with_state(|state| state.remove(&key));
        self.run().tell();
        removed
    }

    /// What runs, or what the last run left.
    fn with_state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let run = self.run();
        if run.is_running() {
            return look(&mut run.state());
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        look(left.get_or_insert_default())
    }

    /// Capacity and allocatable by resource, as they are put into the Node's status. As in the real one it is this
    /// look that forgets resources whose plugins are long gone. Empty while it is stopped.
    pub fn capacity(&self) -> BTreeMap<String, (usize, usize)> {
        let run = self.run();
        let capacity = run.state().capacity(self.options.grace);
        run.tell();
        capacity
    }

    /// How many devices of a resource may be handed out or are; `None` where it isn't known.
    pub fn allocatable(&self, resource: &str) -> Option<usize> {
        self.run().state().healthy(resource)
    }

    /// The devices of a resource, in the order of their ids.
    pub fn devices(&self, resource: &str) -> Vec<Known> {
        let held = self.held();
        let devices = self.run().state().devices(resource);
        let known = devices.into_iter().map(|(id, healthy, numa)| {
            let mine = |held: &&Held| held.resource == resource && held.id == id;
            Known {
                held_by: held.iter().filter(mine).cloned().collect(),
                id,
                healthy,
                numa,
            }
        });
        known.collect()
    }

    /// The socket of the plugin that a resource has; `None` where it has none.
    pub fn plugin(&self, resource: &str) -> Option<PathBuf> {
        let run = self.run();
        let state = run.state();
        let endpoint = state.endpoints.get(resource)?;
        endpoint.plugin.is_some().then(|| endpoint.socket.clone())
    }

    /// Names of the resources that have a plugin.
    pub fn registered(&self) -> Vec<String> {
        let run = self.run();
        let state = run.state();
        let served = state
            .endpoints
            .iter()
            .filter(|(_, endpoint)| endpoint.plugin.is_some());
        served.map(|(name, _)| name.clone()).collect()
    }

    /// Everything that pods hold, also while it is stopped. See [`conflicts`].
    pub fn held(&self) -> Vec<Held> {
        self.with_state(|state| {
            let mut all = Vec::new();
            for (key, containers) in &state.held {
                for (container, resources) in containers {
                    let passes_on = state.pods.get(key).is_some_and(|pod| {
                        let init =
                            |known: &pod::Container| known.name == *container && known.kind == Kind::Init;
                        pod.containers.iter().any(init)
                    });
                    for (resource, holding) in resources {
                        all.extend(holding.devices.keys().map(|id| Held {
                            namespace: key.0.clone(),
                            pod: key.1.clone(),
                            container: container.clone(),
                            resource: resource.clone(),
                            id: id.clone(),
                            passes_on,
                        }));
                    }
                }
            }
            all
        })
    }

    /// Waits until exactly `count` devices of a resource are allocatable.
    pub async fn wait_for(&self, resource: &str, count: usize, deadline: Duration) -> Result<(), Late> {
        let what = format!("{count} allocatable {resource}");
        self.wait_until(&what, deadline, |kubelet| {
            kubelet.allocatable(resource).unwrap_or_default() == count
        })
        .await
    }

    /// Waits until something is so. `what` names it, for the error.
    pub async fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        mut is_so: impl FnMut(&Self) -> bool,
    ) -> Result<(), Late> {
        let mut changed = self.changed.subscribe();
        let end = Instant::now() + deadline;
        loop {
            changed.mark_unchanged();
            if is_so(self) {
                return Ok(());
            }
            if tokio::time::timeout_at(end, changed.changed()).await.is_err() {
                break;
            }
        }
        // Once more: what is looked at may not be the kubelet's alone.
        if is_so(self) {
            return Ok(());
        }
        Err(Late {
            waited: deadline,
            what: what.to_owned(),
            found: self.in_words(),
        })
    }

    fn in_words(&self) -> String {
        let run = self.run();
        if !run.is_running() {
            return "a kubelet that is stopped".to_owned();
        }
        let state = run.state();
        let mut words = Vec::new();
        for (name, endpoint) in &state.endpoints {
            let plugin = if endpoint.plugin.is_some() {
                "served"
            } else {
                "not served"
            };
            let healthy = state.healthy(name).unwrap_or_default();
            words.push(format!(
                "{name}: {healthy} of {}, {plugin}",
                state.devices(name).len()
            ));
        }
        if words.is_empty() {
            "no resource".to_owned()
        } else {
            words.join("; ")
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.run().abandon();
    }
}

/// Hands out devices to all containers of a pod.
async fn admit(run: &Run, pod: &Pod) -> Result<(), AdmitError> {
    let key = pod.key();
    let mut reusable: BTreeMap<String, Ids> = BTreeMap::new();
    for container in pod.in_order() {
        for (resource, &wanted) in &container.limits {
            let reuse = reusable.get(resource).cloned().unwrap_or_default();
            let given = allocate(run, pod, &container.name, resource, wanted, &reuse).await;
            if given.is_err() {
                run.state().count_again();
            }
            given?;
        }
        run.state().pass_on(&key, container, &mut reusable);
    }
    Ok(())
}

/// Hands out devices of one resource to one container.
async fn allocate(
    run: &Run,
    pod: &Pod,
    container: &str,
    resource: &str,
    wanted: usize,
    reusable: &Ids,
) -> Result<(), AdmitError> {
    let key = pod.key();
    let named = || resource.to_owned();
    if !run.state().is_known(resource) {
        return Err(AdmitError::Unregistered { resource: named() });
    }
    let mut needed = run.state().needed(&key, container, resource, wanted)?;
    if needed == 0 {
        return Ok(());
    }
    let mut taken = Ids::new();
    if !run.state().take(resource, reusable, &mut taken, &mut needed) {
        let free = run.state().free(resource);
        if free.len() < needed {
            return Err(AdmitError::Insufficient {
                resource: named(),
                wanted: needed,
                free: free.len(),
            });
        }
        let affinity = run.state().affinity(resource, &free, pod.near.as_ref());
        // The plugin is asked about the near ones where they are more than enough. Else all of them are taken, and it
        // is asked about the rest.
        let asked = if needed < affinity.aligned.len() {
            &affinity.aligned
        } else {
            run.state()
                .take(resource, &affinity.aligned, &mut taken, &mut needed);
            &free
        };
        if needed > 0 {
            let available = asked.union(&taken).cloned().collect();
            let preferred = run.preferred(resource, &available, &taken, wanted).await?;
            let preferred: Ids = preferred.intersection(asked).cloned().collect();
            let mut state = run.state();
            for ids in [
                &preferred,
                &affinity.aligned,
                &affinity.unaligned,
                &affinity.nowhere,
            ] {
                state.take(resource, ids, &mut taken, &mut needed);
            }
        }
    }
    let answer = run.allocate(resource, &taken).await?;
    run.state().hold(&key, container, resource, &taken, answer);
    run.tell();
    Ok(())
}

/// What a container starts with.
async fn start(run: &Run, pod: &PodKey, container: &str) -> Result<Started, AdmitError> {
    let started = run.state().started(pod, container);
    for (resource, ids) in &started.devices {
        run.pre_start(resource, ids.clone()).await?;
    }
    Ok(started)
}
