//! Proofs of imaginary GPUs: no work is done, and a report is handed over as a real one.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_agent::deps::{ProofOrder, Prover as Interface, Proving};
use pitcrew_core::Inventory;
use pitcrew_core::ports::{Clock as _, InventorySource as _};
use pitcrew_core::proof::{
    Device, DeviceEvidence, Driver, Evidence, Format, Node, Outcome, Phase, PhaseKind, Profile, Report, Run,
    SetupError, SetupErrorCode, Thresholds, Timestamp, Tool, judge,
};
use pitcrew_scenario::Machine;
use tokio::sync::watch;

/// How long an imaginary proof takes, unless it is held.
const QUICK: Duration = Duration::from_millis(50);

/// The prover of an imaginary node. A handle: clones are the same. What it started runs on when its agent is killed, as a
/// process would.
#[derive(Clone)]
pub struct Prover {
    root: PathBuf,
    machine: Machine,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    orders: Vec<ProofOrder>,
    /// By number: what it proves, and who waits for it.
    running: BTreeMap<usize, (ProofOrder, watch::Sender<Option<String>>)>,
    is_held: bool,
    error: Option<String>,
    corrupt: Vec<String>,
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Prover {
    pub(crate) fn new(root: &Path, machine: Machine) -> Self {
        Self {
            root: root.to_owned(),
            machine,
            state: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was ordered so far.
    pub fn orders(&self) -> Vec<ProofOrder> {
        self.lock().orders.clone()
    }

    /// What is being proved, by UUID.
    pub fn proving(&self) -> Vec<String> {
        let running = &self.lock().running;
        running
            .values()
            .flat_map(|(order, _)| order.devices.clone())
            .collect()
    }

    /// Proofs that begin from now on end only when they are let go of, or ended.
    pub fn hold(&self) {
        self.lock().is_held = true;
    }

    /// All proofs end, with their reports.
    pub fn let_go(&self) {
        self.lock().is_held = false;
        let numbers: Vec<usize> = self.lock().running.keys().copied().collect();
        for number in numbers {
            self.finish(number);
        }
    }

    /// From now on no GPU can be tested, for this reason.
    pub fn fail(&self, error: Option<&str>) {
        self.lock().error = error.map(str::to_owned);
    }

    /// This device returns wrong results from now on.
    pub fn corrupt(&self, uuid: &str) {
        self.lock().corrupt.push(uuid.to_owned());
    }

    /// A report of what is ordered, as of now.
    ///
    /// # Errors
    /// Where the imaginary driver doesn't answer.
    pub fn report(&self, order: &ProofOrder) -> io::Result<Report> {
        let inventory = self.machine.clone().inventory().map_err(io::Error::other)?;
        let now = Timestamp::of(self.machine.now());
        let (error, corrupt) = {
            let state = self.lock();
            (state.error.clone(), state.corrupt.clone())
        };
        let mut evidence = evidence(order, &inventory, now);
        if let Some(message) = error {
            evidence.setup_error = Some(SetupError {
                code: SetupErrorCode::Other,
                message,
                fix: None,
                cuda_error: None,
            });
        } else {
            let devices = order.devices.iter().filter_map(|uuid| {
                let device = found(&inventory, uuid)?;
                Some(tested(device, corrupt.contains(uuid)))
            });
            evidence.devices = devices.collect();
        }
        Ok(judge(evidence, &Thresholds::default()))
    }

    fn finish(&self, number: usize) {
        let Some((order, waits)) = self.lock().running.remove(&number) else {
            return;
        };
        let handed = self
            .report(&order)
            .and_then(|report| pitcrew_agent::proof::hand_over(&self.root, &report));
        let words = match handed {
            Ok(_) => "it ended with exit status: 0".to_owned(),
            Err(error) => format!("it ended with exit status: 1: {error}"),
        };
        waits.send_replace(Some(words));
    }
}

impl Interface for Prover {
    fn start<'a>(&'a self, order: &'a ProofOrder) -> BoxFuture<'a, io::Result<Box<dyn Proving>>> {
        let (number, is_held, ended) = {
            let mut state = self.lock();
            let number = state.orders.len();
            state.orders.push(order.clone());
            let (waits, ended) = watch::channel(None);
            state.running.insert(number, (order.clone(), waits));
            (number, state.is_held, ended)
        };
        if !is_held {
            let prover = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(QUICK).await;
                prover.finish(number);
            });
        }
        let running = Running {
            prover: self.clone(),
            number,
            devices: order.devices.clone(),
            ended,
        };
        std::future::ready(Ok(Box::new(running) as Box<dyn Proving>)).boxed()
    }

    fn left(&self) -> BoxFuture<'_, io::Result<Vec<Box<dyn Proving>>>> {
        let state = self.lock();
        let running = state.running.iter().map(|(number, (order, waits))| {
            Box::new(Running {
                prover: self.clone(),
                number: *number,
                devices: order.devices.clone(),
                ended: waits.subscribe(),
            }) as Box<dyn Proving>
        });
        let running = running.collect();
        std::future::ready(Ok(running)).boxed()
    }

    fn longest(&self, _: Profile) -> Duration {
        Duration::from_mins(1)
    }
}

/// An imaginary proof.
struct Running {
    prover: Prover,
    number: usize,
    devices: Vec<String>,
    ended: watch::Receiver<Option<String>>,
}

impl Proving for Running {
    fn devices(&self) -> Vec<String> {
        self.devices.clone()
    }

    fn wait(&mut self) -> BoxFuture<'_, String> {
        async {
            let ended = self.ended.wait_for(Option::is_some).await;
            let words = ended.ok().and_then(|words| words.clone());
            words.unwrap_or_else(|| "it is not there any more".to_owned())
        }
        .boxed()
    }

    fn end(&mut self) -> BoxFuture<'_, bool> {
        let running = self.prover.lock().running.remove(&self.number);
        if let Some((_, waits)) = running {
            waits.send_replace(Some("it was ended by signal 15".to_owned()));
        }
        std::future::ready(true).boxed()
    }
}

fn found(inventory: &Inventory, uuid: &str) -> Option<Device> {
    inventory.gpus.iter().find_map(|gpu| {
        if gpu.readings.uuid.value().is_some_and(|its| its == uuid) {
            return Some(Device::of(gpu));
        }
        let devices = gpu.readings.mig_devices.value()?;
        devices
            .iter()
            .find(|device| device.uuid == uuid)
            .map(|device| Device::of_mig(gpu, device))
    })
}

fn evidence(order: &ProofOrder, inventory: &Inventory, now: Timestamp) -> Evidence {
    Evidence {
        tool: Tool {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernels: None,
        },
        run: Run {
            profile: order.profile,
            started: now,
            seconds: 5.0,
            interrupted: None,
            scenario: Some("simulated".to_owned()),
            injected: Vec::new(),
            share: false,
        },
        node: Node {
            name: order.node.clone(),
            pod: None,
            kernel: None,
            environment: BTreeMap::new(),
        },
        driver: Driver {
            version: inventory.driver.version.value().cloned(),
            cuda: None,
        },
        setup_error: None,
        devices: Vec::new(),
        peers: Vec::new(),
    }
}

/// Every phase ran, and everything was compared.
fn tested(device: Device, corrupt: bool) -> DeviceEvidence {
    let phases = [
        PhaseKind::March,
        PhaseKind::Copy,
        PhaseKind::HostToDevice,
        PhaseKind::DeviceToHost,
        PhaseKind::MmaLoop,
        PhaseKind::Gemm,
        PhaseKind::Power,
    ];
    let phase = |kind: PhaseKind| {
        let computes = matches!(kind, PhaseKind::MmaLoop | PhaseKind::Gemm | PhaseKind::Power);
        Phase {
            verified_outputs: if computes { 1_000_000 } else { 0 },
            verified_bytes: if computes { 0 } else { 1 << 30 },
            corruption_count: u64::from(corrupt && kind == PhaseKind::Gemm),
            ..Phase::new(kind, computes.then_some(Format::Bf16), Outcome::Ran)
        }
    };
    DeviceEvidence {
        phases: phases.into_iter().map(phase).collect(),
        ..DeviceEvidence::new(device)
    }
}
