//! One proof, from the moment that GPUs are withheld until they are given back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use pitcrew_core::Inventory;
use pitcrew_core::plugin::Resource;
use pitcrew_core::plugin::holders::Holding;
use pitcrew_core::proof::Profile;
use tokio::sync::watch;

use super::withhold::{held, is_told};
use crate::deps::{Deps, ProofOrder, Proving};
use crate::plugin::{Ledger, Status};

/// How long the kubelet may take to be told that devices must not be handed out.
const TOLD: Duration = Duration::from_secs(10);

/// Who asks the kubelet what pods hold; `None` where it doesn't say.
pub(crate) type Books = Arc<dyn Fn() -> BoxFuture<'static, Option<Vec<Holding>>> + Send + Sync>;

/// What an attempt does to the node at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hands {
    /// GPUs that the kubelet must not hand out, by UUID, with the reason.
    pub(super) withheld: BTreeMap<String, String>,
    /// Those of them on which a proof runs.
    pub(super) running: BTreeSet<String>,
}

/// What a proof needs.
pub(super) struct Attempt {
    pub(super) deps: Arc<Deps>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) books: Books,
    pub(super) plugin: watch::Receiver<Status>,
    /// What is offered, and what there is.
    pub(super) resources: Vec<Resource>,
    pub(super) inventory: Arc<Inventory>,
    /// The GPUs, and what is proved of each.
    pub(super) gpus: BTreeMap<String, Vec<String>>,
    pub(super) profile: Profile,
    pub(super) hands: watch::Sender<Hands>,
    /// True when the agent is to end.
    pub(super) stop: watch::Receiver<bool>,
}

/// How it went.
#[derive(Default)]
pub(super) struct Outcome {
    /// GPUs on which a proof was begun.
    pub(super) begun: BTreeSet<String>,
    /// Why none was begun, or how it ended.
    pub(super) words: String,
    /// True where it was ended because the agent ends.
    pub(super) cut_short: bool,
    /// What can't be ended.
    pub(super) stuck: Vec<Box<dyn Proving>>,
}

impl Attempt {
    /// Withholds the GPUs, looks once more that nobody has one, and proves those that are free.
    ///
    /// What is withheld when it ends is given back by whoever takes the outcome in.
    pub(super) async fn run(self) -> Outcome {
        let mut stop = self.stop.clone();
        let free = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {
                return Outcome {
                    words: "it was called off".to_owned(),
                    cut_short: true,
                    ..Outcome::default()
                };
            }
            free = self.free() => free,
        };
        match free {
            Ok(gpus) => {
                self.hold(&gpus, true);
                self.prove(gpus).await
            }
            Err(words) => Outcome {
                words,
                ..Outcome::default()
            },
        }
    }

    /// Withholds the GPUs, and gives those that nobody has then; the reason where there is none.
    async fn free(&self) -> Result<BTreeSet<String>, String> {
        let mut gpus: BTreeSet<String> = self.gpus.keys().cloned().collect();
        self.hold(&gpus, false);
        let mut plugin = self.plugin.clone();
        let told = plugin.wait_for(|status| is_told(&gpus, &self.resources, status));
        if !matches!(tokio::time::timeout(TOLD, told).await, Ok(Ok(_))) {
            return Err(format!(
                "the kubelet was not told within {} s that its GPUs are withheld",
                TOLD.as_secs()
            ));
        }
        // From here on every answer is refused. What was answered before is in the ledger until it is in the books.
        let lately = self.ledger.recent();
        let Some(books) = (self.books)().await else {
            return Err("the kubelet does not say who holds its GPUs".to_owned());
        };
        let ids = books.iter().map(|holding| holding.id.as_str());
        let ids = ids.chain(lately.iter().map(|(_, id)| id.as_str()));
        let taken = held(&gpus, &self.inventory, ids);
        gpus.retain(|gpu| !taken.contains(gpu));
        if gpus.is_empty() {
            return Err("a pod has taken it meanwhile".to_owned());
        }
        Ok(gpus)
    }

    /// Tells the kubelet and everybody what is withheld from now on.
    fn hold(&self, gpus: &BTreeSet<String>, runs: bool) {
        let why = format!("it is being proved (profile {})", self.profile);
        self.hands.send_replace(Hands {
            withheld: gpus.iter().map(|gpu| (gpu.clone(), why.clone())).collect(),
            running: if runs { gpus.clone() } else { BTreeSet::new() },
        });
    }

    async fn prove(&self, gpus: BTreeSet<String>) -> Outcome {
        let mut outcome = Outcome {
            begun: gpus,
            ..Outcome::default()
        };
        let mut running: Vec<Box<dyn Proving>> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for order in self.orders(&outcome.begun) {
            match self.deps.prover.start(&order).await {
                Ok(proving) => running.push(proving),
                Err(error) => words.push(format!("it could not be started: {error}")),
            }
        }
        let longest = self.deps.prover.longest(self.profile);
        let mut stop = self.stop.clone();
        let ended = {
            let all = join_all(running.iter_mut().map(|proving| proving.wait()));
            tokio::select! {
                ended = all => Some(ended),
                () = tokio::time::sleep(longest) => None,
                _ = stop.wait_for(|stop| *stop) => {
                    outcome.cut_short = true;
                    None
                }
            }
        };
        if let Some(ended) = ended {
            words.extend(ended);
        } else {
            if !outcome.cut_short {
                words.push(format!(
                    "it was ended, as it took longer than {} s",
                    longest.as_secs()
                ));
            }
            let gone = join_all(running.iter_mut().map(|proving| proving.end())).await;
            let stuck = running.into_iter().zip(gone).filter(|(_, gone)| !gone);
            outcome.stuck = stuck.map(|(proving, _)| proving).collect();
        }
        outcome.words = words.join("; ");
        outcome
    }

    /// Whole GPUs in one process, so that all work at once and copy to each other; each MIG device in one of its own.
    fn orders(&self, gpus: &BTreeSet<String>) -> Vec<ProofOrder> {
        let order = |devices: Vec<String>| ProofOrder {
            devices,
            profile: self.profile,
            node: self.deps.settings.node.clone(),
        };
        let (mut whole, mut orders) = (Vec::new(), Vec::new());
        for gpu in gpus {
            for device in self.gpus.get(gpu).into_iter().flatten() {
                if device == gpu {
                    whole.push(device.clone());
                } else {
                    orders.push(order(vec![device.clone()]));
                }
            }
        }
        if !whole.is_empty() {
            orders.insert(0, order(whole));
        }
        orders
    }
}
