//! Conditions: from facts to what is said of a node, with its reason and the next step. Pure.

use pitcrew_api::ConditionStatus;
use pitcrew_api::condition::kind;
use pitcrew_api::gpu_node::{Gpu, GpuHealth};
use pitcrew_core::plugin::{Device, Sharing};
use pitcrew_core::ports::GpuError;
use pitcrew_core::{Inventory, Reading};
use pitcrew_host::Host;
use pitcrew_host::facts::DistributionKind;

use super::inventory::{self, counted};
use super::proven;
use crate::plugin::sickness;
use crate::runtime::Tier;
use crate::snapshot::{Part, Problem, Snapshot};

/// What is said of one thing, before it is known since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Type of the condition: one of [`pitcrew_api::condition::kind`].
    pub kind: &'static str,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word of camel case.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// The next command or step, where there is one.
    pub hint: Option<String>,
}

/// Reason while nothing has been looked at yet.
pub const STARTING: &str = "Starting";
/// Reason while the kubelet has not yet taken what it is offered.
pub const REGISTERING: &str = "Registering";
/// Reason of a problem of the runtime that concerns only pods that name its handler.
pub const HANDLER_PENDING: &str = "HandlerPending";
/// Reason where pods name a handler that this node doesn't have and will not get; as [`HANDLER_PENDING`], it concerns them
/// alone.
pub const HANDLER_MISSING: &str = "HandlerMissing";

impl Judgement {
    pub(super) fn holds(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: ConditionStatus::True,
            reason: reason.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn fails(
        kind: &'static str,
        reason: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            status: ConditionStatus::False,
            hint: Some(hint.into()),
            ..Self::holds(kind, reason, message)
        }
    }

    pub(super) fn unknown(
        kind: &'static str,
        reason: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            status: ConditionStatus::Unknown,
            ..Self::fails(kind, reason, message, hint)
        }
    }

    fn starting(kind: &'static str) -> Self {
        Self::unknown(
            kind,
            STARTING,
            "the agent has just started and has not looked yet",
            "wait some seconds; if it stays, the driver does not answer: sudo dmesg | grep -i -e nvrm -e xid",
        )
    }

    fn problem(kind: &'static str, status: ConditionStatus, problem: &Problem) -> Self {
        Self {
            kind,
            status,
            reason: problem.reason.clone(),
            message: problem.message.clone(),
            hint: Some(problem.hint.clone()).filter(|hint| !hint.is_empty()),
        }
    }
}

/// Everything that is said of a node, in the order of [`kind::ALL`].
pub fn judge(snapshot: &Snapshot) -> Vec<Judgement> {
    let parts = [driver(snapshot), runtime(snapshot), devices(snapshot)];
    let ready = ready(&parts);
    let [driver, runtime, devices] = parts;
    vec![
        ready,
        driver,
        runtime,
        devices,
        healthy(snapshot),
        proven::proven(snapshot),
    ]
}

/// A node is ready when its driver, its runtime and its devices are; else it is what the first that isn't says.
fn ready(parts: &[Judgement]) -> Judgement {
    let worst = [ConditionStatus::False, ConditionStatus::Unknown]
        .into_iter()
        .find_map(|status| parts.iter().find(|part| part.status == status));
    match worst {
        None => Judgement::holds(kind::READY, "Ready", "pods that ask for a GPU get one"),
        Some(part) => Judgement {
            kind: kind::READY,
            message: format!("{}: {}", part.kind, part.message),
            ..part.clone()
        },
    }
}

fn driver(snapshot: &Snapshot) -> Judgement {
    let kind = kind::DRIVER_READY;
    if let Some(problem) = snapshot.problems.get(&Part::Driver) {
        return Judgement::problem(kind, ConditionStatus::False, problem);
    }
    let Some(gpus) = &snapshot.gpus else {
        return Judgement::starting(kind);
    };
    let host = snapshot.host.as_deref();
    match gpus {
        Ok(inventory) if inventory.gpus.iter().any(inventory::answers) => {
            // CUDA fails on every GPU until they are registered at the fabric, however well the driver answers.
            host.and_then(|host| explained(host, Ok(inventory), &["driver.fabric-manager"]))
                .unwrap_or_else(|| running(inventory))
        }
        answer => {
            let answer = answer.as_deref();
            host.and_then(|host| explained(host, answer, &CAUSES))
                .unwrap_or_else(|| unexplained(host, answer))
        }
    }
}

fn running(inventory: &Inventory) -> Judgement {
    let count = inventory
        .gpus
        .iter()
        .filter(|gpu| inventory::answers(gpu))
        .count();
    let driver = &inventory.driver;
    let version = driver.version.value().map_or("the driver", String::as_str);
    let cuda = driver
        .cuda
        .value()
        .map_or_else(String::new, |cuda| format!(" (CUDA {cuda})"));
    Judgement::holds(
        kind::DRIVER_READY,
        "DriverRunning",
        format!("{version}{cuda} answers for {}", counted(count, "GPU")),
    )
}

/// Findings of a check that explain why the driver doesn't answer, the cause before what comes of it.
const CAUSES: [&str; 9] = [
    "pci.gpus",
    "driver.nouveau",
    "driver.secure-boot",
    "driver.module",
    "pci.bars",
    "driver.libraries",
    "driver.answers",
    "driver.bound",
    "driver.fabric-manager",
];

/// The reason of a condition, for a failed check.
fn reason(id: &str, host: &Host) -> &'static str {
    match id {
        "pci.gpus" => "NoGpu",
        "driver.nouveau" => "NouveauHoldsGpu",
        "driver.secure-boot" => "ModuleNotSigned",
        "driver.module" if matches!(host.driver.module_on_disk, Reading::NotSupported) => {
            "DriverNotInstalled"
        }
        "driver.module" => "ModuleNotLoaded",
        "pci.bars" => "NoPciAddressSpace",
        "driver.libraries" => "LibrariesDoNotFit",
        "driver.bound" => "DriverRefusedGpu",
        "driver.fabric-manager" => "FabricManagerMissing",
        _ => "DriverDoesNotAnswer",
    }
}

/// The first of these findings that failed.
fn explained(host: &Host, gpus: Result<&Inventory, &GpuError>, ids: &[&str]) -> Option<Judgement> {
    let report = pitcrew_check::check(host, gpus);
    let failed = |id: &&str| {
        report
            .finding(id)
            .filter(|finding| finding.verdict == pitcrew_check::Verdict::Failure)
    };
    let finding = ids.iter().find_map(failed)?;
    let message = match &finding.why {
        Some(why) => format!("{}: {}: {why}", finding.title, finding.found),
        None => format!("{}: {}", finding.title, finding.found),
    };
    let hint = match (&finding.next, &finding.care) {
        (Some(next), Some(care)) => format!("{next} ({care})"),
        (Some(next), None) => next.clone(),
        (None, _) => "pitcrew check".to_owned(),
    };
    Some(Judgement::fails(
        kind::DRIVER_READY,
        reason(finding.id, host),
        message,
        hint,
    ))
}

/// What is left to say where no check of the host found a cause.
fn unexplained(host: Option<&Host>, gpus: Result<&Inventory, &GpuError>) -> Judgement {
    let kind = kind::DRIVER_READY;
    let passed = host
        .and_then(|host| host.gpus.value())
        .is_some_and(|gpus| !gpus.is_empty() && gpus.iter().all(inventory::is_passed_through));
    if passed {
        return Judgement::fails(
            kind,
            "PassedThrough",
            "every GPU of this node is bound to vfio-pci, for virtual machines",
            "nothing, if that is wanted; else bind a GPU to the driver `nvidia` again and look at `pitcrew check`",
        );
    }
    match gpus {
        Ok(inventory) if inventory.gpus.is_empty() => {
            Judgement::fails(kind, "NoGpu", "the driver knows no GPU", "lspci -d 10de:")
        }
        Ok(inventory) => Judgement::fails(
            kind,
            "DriverDoesNotAnswer",
            format!(
                "the driver reaches none of {}",
                counted(inventory.gpus.len(), "GPU")
            ),
            "sudo dmesg | grep -i -e nvrm -e xid",
        ),
        Err(GpuError::NoDriver(_)) => Judgement::fails(
            kind,
            "LibrariesMissing",
            gpus.err().map(ToString::to_string).unwrap_or_default(),
            "pitcrew check",
        ),
        Err(error) => Judgement::fails(
            kind,
            "DriverDoesNotAnswer",
            error.to_string(),
            "sudo dmesg | grep -i -e nvrm -e xid",
        ),
    }
}

fn runtime(snapshot: &Snapshot) -> Judgement {
    let kind = kind::RUNTIME_READY;
    let Some(host) = snapshot.host.as_deref() else {
        return Judgement::starting(kind);
    };
    if let Some(problem) = snapshot.problems.get(&Part::Runtime) {
        // Only pods that name the handler wait for it; all others get their GPUs without.
        let direct = matches!(snapshot.tier, Tier::Native | Tier::Mounts);
        let concerns_few = [HANDLER_PENDING, HANDLER_MISSING].contains(&problem.reason.as_str());
        let status = if direct && concerns_few {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        return Judgement::problem(kind, status, problem);
    }
    if snapshot.tier != Tier::Mounts
        && let Some(problem) = snapshot.problems.get(&Part::Specs)
    {
        return Judgement::problem(kind, ConditionStatus::False, problem);
    }
    let version = match &host.containerd {
        Reading::Value(containerd) => match containerd.version.value() {
            Some(version) => format!("containerd {version}"),
            None => "containerd".to_owned(),
        },
        Reading::NotSupported | Reading::Failed(_) => "the container runtime".to_owned(),
    };
    match snapshot.tier {
        Tier::Native => Judgement::holds(
            kind,
            "NativeCdi",
            format!("{version} takes CDI devices by itself"),
        ),
        Tier::Mounts => Judgement::holds(
            kind,
            "DeviceMounts",
            format!("{version} gets device nodes and libraries with every container"),
        ),
        Tier::Handler => Judgement::holds(kind, "Handler", format!("{version} has the handler for GPUs")),
        Tier::Unknown => match &host.containerd {
            Reading::Failed(why) => Judgement::unknown(
                kind,
                "RuntimeUnreadable",
                format!("the container runtime can't be looked at: {why}"),
                "pitcrew check",
            ),
            Reading::NotSupported => Judgement::fails(
                kind,
                "NoRuntime",
                "no containerd was found on this node",
                "pitcrew check",
            ),
            Reading::Value(_) => Judgement::unknown(
                kind,
                "RuntimeUnknown",
                format!("how {version} takes GPUs is not known yet"),
                "wait some seconds; if it stays: pitcrew check",
            ),
        },
    }
}

fn devices(snapshot: &Snapshot) -> Judgement {
    let kind = kind::DEVICES_ADVERTISED;
    let Some(gpus) = &snapshot.gpus else {
        return Judgement::starting(kind);
    };
    if let Some(problem) = snapshot.problems.get(&Part::Plugin) {
        return Judgement::problem(kind, ConditionStatus::False, problem);
    }
    let is_shared = |resource: &pitcrew_core::plugin::Resource| resource.sharing == Sharing::Mps;
    if let Some(problem) = snapshot.problems.get(&Part::Mps)
        && snapshot.resources.iter().any(is_shared)
    {
        return Judgement::problem(kind, ConditionStatus::False, problem);
    }
    let config = snapshot.problems.get(&Part::Config);
    if snapshot
        .resources
        .iter()
        .all(|resource| resource.devices.is_empty())
    {
        return match (gpus, config) {
            (Ok(_), Some(problem)) => Judgement::problem(kind, ConditionStatus::False, problem),
            (Ok(inventory), None) => nothing_to_advertise(inventory),
            (Err(_), _) => Judgement::fails(
                kind,
                "DriverNotReady",
                "without a driver there is no device to tell the kubelet of",
                "see the hint of DriverReady",
            ),
        };
    }
    let waiting: Vec<&str> = snapshot
        .resources
        .iter()
        .map(|resource| resource.name.as_str())
        .filter(|name| !snapshot.registered.contains(*name))
        .collect();
    if !waiting.is_empty() {
        return Judgement::fails(
            kind,
            REGISTERING,
            format!("the kubelet has not taken {} yet", waiting.join(", ")),
            format!(
                "wait some seconds; if it stays: {}",
                kubelet_log(snapshot.host.as_deref())
            ),
        );
    }
    let resources = inventory::resources(snapshot);
    let told: Vec<String> = resources
        .iter()
        .map(|it| format!("{}: {} of {}", it.name, it.allocatable, it.capacity))
        .collect();
    let told = match held_back(snapshot) {
        Some(why) => format!("{}; {why}", told.join(", ")),
        None => told.join(", "),
    };
    if resources.iter().all(|resource| resource.allocatable == 0) {
        if let Some(withheld) = proven::withheld(snapshot, &told) {
            return withheld;
        }
        return Judgement::fails(
            kind,
            "NoHealthyDevice",
            format!("the kubelet knows the devices, and none is well ({told})"),
            "see the hint of Healthy",
        );
    }
    let remark = snapshot.remarks.get(&Part::Mps);
    let remark = remark.filter(|_| snapshot.resources.iter().any(is_shared));
    match (config, remark) {
        // What was good before is still in force.
        (Some(problem), _) => Judgement::problem(kind, ConditionStatus::True, problem),
        (None, Some(remark)) => {
            let message = format!("{told}; {}", remark.message);
            let remark = Problem {
                message,
                ..remark.clone()
            };
            Judgement::problem(kind, ConditionStatus::True, &remark)
        }
        (None, None) => Judgement::holds(kind, "Advertised", told),
    }
}

/// Which device the kubelet is told to be unhealthy, and why, and how many more; sick ones are told of by `Healthy`.
fn held_back(snapshot: &Snapshot) -> Option<String> {
    let devices = snapshot.resources.iter().flat_map(|resource| {
        let is_well = |device: &&Device| sickness(&snapshot.sick, device).is_none();
        let devices = resource.devices.iter().filter(is_well);
        devices.filter_map(|device| Some((device, inventory::unhealthy(snapshot, resource, device)?)))
    });
    let mut devices = devices;
    let (first, why) = devices.next()?;
    Some(match devices.count() {
        0 => format!("{} is held back: {why}", first.id),
        more => format!("{} and {more} more are held back: {why}", first.id),
    })
}

fn nothing_to_advertise(inventory: &Inventory) -> Judgement {
    let kind = kind::DEVICES_ADVERTISED;
    let without_slices = inventory.gpus.iter().any(|gpu| {
        let on = gpu.readings.mig_mode.value().is_some_and(|mode| mode.current);
        on && gpu.readings.mig_devices.value().is_none_or(Vec::is_empty)
    });
    if without_slices {
        Judgement::fails(
            kind,
            "NoMigDevices",
            "MIG is on, and no MIG device has been made",
            "make some (`nvidia-smi mig -cgi PROFILE -C`), or turn MIG off (`nvidia-smi -mig 0`)",
        )
    } else if inventory.gpus.is_empty() {
        Judgement::fails(
            kind,
            "NoGpu",
            "there is no GPU to tell the kubelet of",
            "lspci -d 10de:",
        )
    } else {
        Judgement::fails(
            kind,
            "NoDevices",
            "no resource has a device: the configuration leaves every GPU out, or none can be used",
            "kubectl get gpunode -o yaml, and the configuration of the device plugin",
        )
    }
}

/// How to see what the kubelet says.
fn kubelet_log(host: Option<&Host>) -> String {
    let distribution = host.and_then(|host| host.distribution.value());
    match distribution {
        Some(it) if it.kind == DistributionKind::Rke2 => {
            let log = it.data_dir.join("agent/logs/kubelet.log");
            format!("sudo grep -i device {}", log.display())
        }
        Some(it) => {
            let unit = it.unit.value().map_or("kubelet", String::as_str);
            format!("sudo journalctl -u {unit} | grep -i device")
        }
        None => "sudo journalctl -u kubelet | grep -i device".to_owned(),
    }
}

fn healthy(snapshot: &Snapshot) -> Judgement {
    let kind = kind::HEALTHY;
    match &snapshot.gpus {
        None => return Judgement::starting(kind),
        Some(Err(_)) => {
            return Judgement::unknown(
                kind,
                "DriverNotReady",
                "without a driver nothing is known of the GPUs",
                "see the hint of DriverReady",
            );
        }
        Some(Ok(_)) => {}
    }
    let mut gpus = inventory::gpus(snapshot);
    gpus.retain(|gpu| gpu.reason.as_deref() != Some(inventory::PASSED_THROUGH));
    if gpus.is_empty() {
        return Judgement::unknown(
            kind,
            "NoGpu",
            "there is no GPU to judge",
            "see the hint of DriverReady",
        );
    }
    let told = |health: GpuHealth| {
        let those: Vec<&Gpu> = gpus.iter().filter(|gpu| gpu.health == health).collect();
        let messages: Vec<String> = those
            .iter()
            .map(|gpu| {
                let name = gpu.uuid.as_deref().unwrap_or(&gpu.pci);
                let why = gpu.reason.as_deref().unwrap_or("no reason is known");
                format!("GPU {} ({name}): {why}", gpu.index)
            })
            .collect();
        let hint = those.iter().find_map(|gpu| gpu.hint.clone());
        let hint = hint.unwrap_or_else(|| "pitcrew gpus".to_owned());
        (!those.is_empty()).then(|| (messages.join("; "), hint))
    };
    if let Some((message, hint)) = told(GpuHealth::Unhealthy) {
        return Judgement::fails(kind, "GpuUnhealthy", message, hint);
    }
    if let Some((message, hint)) = told(GpuHealth::Unknown) {
        return Judgement::unknown(kind, "GpuUnreadable", message, hint);
    }
    if let Some((message, hint)) = told(GpuHealth::Degraded) {
        return Judgement {
            hint: Some(hint),
            ..Judgement::holds(kind, "GpuDegraded", message)
        };
    }
    Judgement::holds(
        kind,
        "AllHealthy",
        format!("nothing is wrong with {}", counted(gpus.len(), "GPU")),
    )
}
