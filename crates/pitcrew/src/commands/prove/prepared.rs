//! What a proof runs on, made ready: a driver that does not start is given up, and so is one that is not waited for any
//! more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use pitcrew_cli::{GlobalArgs, ProveRunArgs};
use pitcrew_core::Inventory;
use pitcrew_core::proof::{Driver, SetupError, SetupErrorCode, Unread};
use pitcrew_host::{HostRoots, Roots};

use super::holders;
use super::imaginary;
use super::rack::{Rack, Target, choose, choose_unseen, own};
use super::real::{self, Machine};
use super::watcher::{Seen, Watcher};
use crate::driver;
use crate::error::Error;
use crate::view::report::Source;

/// How often it is asked whether the driver is there, or the run shall end.
const LOOK: Duration = Duration::from_millis(20);
/// A driver has all of its time but for this to start: who waits for a proof hears within ten seconds that it does not.
const MARGIN: Duration = Duration::from_millis(1500);
/// The part of that time in which the management library must answer: without it a proof is a poorer one.
const MANAGEMENT: f64 = 0.6;

/// What a proof runs on.
pub(super) struct Prepared {
    pub(super) rack: Arc<dyn Rack>,
    pub(super) targets: Vec<Target>,
    pub(super) driver: Driver,
    pub(super) scenario: Option<String>,
    /// It watches as long as it is there.
    pub(super) _watcher: Option<Watcher>,
}

/// What became of it.
pub(super) enum Start {
    /// There is something to prove.
    Ready(Box<Prepared>),
    /// There is nothing, for this reason.
    Failed(SetupError),
    /// It was stopped before that was known.
    Stopped,
}

/// Makes ready what is to be proved, by `begin` on its way already.
pub(super) fn prepare(
    args: &ProveRunArgs,
    global: &GlobalArgs,
    begin: Instant,
    stop: &AtomicBool,
) -> Result<Start, Error> {
    if let Some(name) = &args.scenario {
        return ready(of_scenario(name, args)?, args, global);
    }
    let patience = driver::deadline(global, None).saturating_sub(MARGIN);
    let (sender, answer) = mpsc::channel();
    let work = {
        let (gpus, share, ptx, global) = (args.gpus.clone(), args.share, args.ptx, global.clone());
        move || {
            let _ = sender.send(of_machine(&gpus, share, ptx, &global, begin, patience));
        }
    };
    let thread = thread::Builder::new().name("proof-start".to_owned()).spawn(work);
    thread.map(drop).map_err(Error::NoThread)?;
    loop {
        match answer.recv_timeout(LOOK) {
            Ok(result) => {
                return match result? {
                    Ok(prepared) => ready(prepared, args, global),
                    Err(error) => Ok(Start::Failed(error)),
                };
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Start::Failed(SetupError {
                    code: SetupErrorCode::Other,
                    message: "the thread that starts the driver has failed: this is a mistake in pitcrew"
                        .to_owned(),
                    fix: None,
                    cuda_error: None,
                }));
            }
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => return Ok(Start::Stopped),
            Err(RecvTimeoutError::Timeout) if begin.elapsed() > patience => {
                return Ok(Start::Failed(SetupError {
                    code: SetupErrorCode::Hang,
                    message: format!(
                        "the driver hangs: it did not start within {:.1} s",
                        patience.as_secs_f64()
                    ),
                    fix: Some(
                        "`dmesg | grep -i -e nvrm -e xid` tells why; where it is only slow, `nvidia-smi -pm 1` keeps it \
                         started"
                            .to_owned(),
                    ),
                    cuda_error: None,
                }));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// What a pod holds is not touched.
fn ready(mut prepared: Prepared, args: &ProveRunArgs, global: &GlobalArgs) -> Result<Start, Error> {
    prepared.targets = holders::refuse(prepared.targets, args, global)?;
    Ok(Start::Ready(Box::new(prepared)))
}

fn of_scenario(name: &str, args: &ProveRunArgs) -> Result<Prepared, Error> {
    let (imaginary, scenario) = imaginary::open(name)?;
    let targets = choose(imaginary.inventory(), &args.gpus, args.share)?;
    let inventory = imaginary.inventory();
    let driver = Driver {
        version: inventory.driver.version.value().cloned(),
        cuda: inventory.driver.cuda.value().map(ToString::to_string),
    };
    Ok(Prepared {
        targets,
        driver,
        scenario: Some(scenario),
        rack: Arc::new(imaginary),
        _watcher: None,
    })
}

fn of_machine(
    gpus: &[String],
    share: bool,
    ptx: bool,
    global: &GlobalArgs,
    begin: Instant,
    patience: Duration,
) -> Result<Result<Prepared, SetupError>, Error> {
    // Both libraries start at the same time.
    let root = global.root.clone();
    let load = thread::Builder::new()
        .name("proof-cuda".to_owned())
        .spawn(move || Machine::load(&root, ptx, begin))
        .map_err(Error::NoThread)?;
    let opened = Arc::new(driver::open(global, None)?);
    let seen = Seen::new(begin);
    opened.tell(Arc::<Seen>::clone(&seen));
    let look = match opened.look_within(patience.mul_f64(MANAGEMENT)) {
        Ok(Ok(driver::Seen { source, inventory })) => {
            let host = HostRoots::new(Roots::under(&global.root));
            let bus_only = match &source {
                Source::Driver { bus_only, .. } => bus_only.as_slice(),
                Source::Scenario { .. } | Source::Pci { .. } => &[],
            };
            Ok(own(inventory, bus_only, &host))
        }
        Ok(Err(error)) => Err(with_causes(&error)),
        Err(stuck) => Err(with_causes(&stuck)),
    };
    let (inventory, why): (Option<Inventory>, Option<String>) = match look {
        Ok(inventory) => (Some(inventory), None),
        Err(why) => (None, Some(why)),
    };
    let machine = match load.join() {
        Ok(Ok(machine)) => machine,
        Ok(Err(error)) => return Ok(Err(real::explain(&error, inventory.as_ref()))),
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let (machine, targets) = if let Some(inventory) = &inventory {
        seen.look(inventory, &BTreeMap::new());
        let machine = machine.watched(Arc::clone(&seen), inventory);
        let targets = machine.shown(choose(inventory, gpus, share)?);
        (machine, targets)
    } else {
        let targets = choose_unseen(machine.targets(), gpus, share)?;
        (machine, targets)
    };
    let targets = targets.into_iter().map(|mut target| {
        target.unread.extend(why.iter().map(|why| Unread {
            field: "all readings of the driver".to_owned(),
            reason: why.clone(),
        }));
        target
    });
    Ok(Ok(Prepared {
        targets: targets.collect(),
        driver: machine.driver(inventory.as_ref()),
        scenario: None,
        rack: Arc::new(machine),
        _watcher: inventory.and_then(|_| Watcher::start(opened, seen)),
    }))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
