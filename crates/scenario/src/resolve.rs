//! From the YAML as written to a checked [`Scenario`]: every refusal names its place and the way on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pitcrew_core::Reading;
use pitcrew_core::catalog::{self, Architecture, Card};
use pitcrew_core::gpu::{Fabric, FabricState, MigMode};
use pitcrew_core::inventory::{CudaVersion, Link};
use pitcrew_core::mig::{self as core_mig, Layout, Placement, Profile};
use pitcrew_core::pci::{NVIDIA_VENDOR_ID, PciAddress, PciFunction};
use serde_saphyr::{Location, Spanned};

use crate::calls::Latencies;
use crate::change::known_call;
use crate::error::{Problem, ScenarioError, nearest};
use crate::format::{Document, Driver, Fault, Group, Links, MigDocument};
use crate::mig::find_place;
use crate::scenario::{DriverSpec, GpuSpec, Scenario};
use crate::state::{GpuState, Override};
use crate::value::known_field;
use crate::{defaults, topology, value};

/// GPUs of one node, at most; NVML's device nodes and NVIDIA's own tools go no further.
const MOST_GPUS: usize = 64;

/// A MIG device to create at the start.
#[derive(Debug, Clone)]
pub(crate) struct WantedDevice {
    pub(crate) profile: Profile,
    pub(crate) placement: Option<Placement>,
}

/// A problem and where it is.
type Placed<T> = Result<T, (Location, Problem)>;

/// Reads and checks a scenario.
pub(crate) fn scenario(text: &str, source_name: &str) -> Result<Scenario, ScenarioError> {
    let invalid = |line, column, problem| ScenarioError::Invalid {
        source_name: source_name.to_owned(),
        line,
        column,
        problem,
    };
    let document: Document = serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        invalid(
            line,
            column,
            Problem::Syntax(without_place(&error.without_snippet().to_string())),
        )
    })?;
    resolve(document, source_name).map_err(|(at, problem)| invalid(at.line(), at.column(), problem))
}

/// The parser's message without the place that it names itself, which ours begins with.
pub(crate) fn without_place(message: &str) -> String {
    let mut message = message.lines().next().unwrap_or_default();
    if let Some(rest) = message.strip_prefix("error: ") {
        message = rest;
    }
    if let Some((_, rest)) = message
        .split_once(": ")
        .filter(|(place, _)| place.starts_with("line "))
    {
        message = rest;
    }
    message
        .split_once(" at line ")
        .map_or(message, |(what, _)| what)
        .to_owned()
}

fn resolve(document: Document, name: &str) -> Placed<Scenario> {
    let driver = driver(&document.driver.value)?;
    let mut gpus = Vec::new();
    let mut taken = BTreeSet::new();
    let groups_at = document.gpus.referenced;
    if document.gpus.value.is_empty() {
        return Err((groups_at, Problem::NoGpus));
    }
    for group in &document.gpus.value {
        let count = count(group)?;
        if gpus.len() + count > MOST_GPUS {
            return Err((group.card.referenced, Problem::TooManyGpus(gpus.len() + count)));
        }
        add_group(group, count, &driver, &mut gpus, &mut taken)?;
    }
    only_once(&gpus).map_err(|problem| (groups_at, problem))?;
    spread_over_numa(&document.gpus.value, &mut gpus);
    let nvswitch = document
        .links
        .as_ref()
        .is_some_and(|links| matches!(links.value, Links::Nvswitch(_)));
    let links = links(document.links.as_ref(), &mut gpus)?;
    for call in &document.hang {
        known_call(&call.value).map_err(|problem| (call.referenced, problem))?;
    }
    Ok(Scenario {
        name: name.to_owned(),
        description: document.description,
        driver,
        gpus,
        links,
        nvswitch,
        hangs: document.hang.into_iter().map(|call| call.value).collect(),
    })
}

fn driver(driver: &Driver) -> Placed<DriverSpec> {
    let bad = |spanned: &Spanned<String>, field: &str, expected: &str| {
        let (field, expected) = (field.to_owned(), expected.to_owned());
        (
            spanned.referenced,
            Problem::BadValue {
                field,
                expected,
                found: format!("`{}`", spanned.value),
            },
        )
    };
    let numbers = |text: &str| {
        text.split('.')
            .map(|part| part.parse::<u32>().ok())
            .collect::<Option<Vec<_>>>()
    };
    let version = &driver.version;
    if !numbers(&version.value).is_some_and(|parts| (2..=3).contains(&parts.len())) {
        return Err(bad(version, "version", "a driver version such as 580.159.04"));
    }
    let cuda = match numbers(&driver.cuda.value).as_deref() {
        Some(&[major, minor]) => CudaVersion { major, minor },
        _ => {
            return Err(bad(
                &driver.cuda,
                "cuda",
                "a CUDA version in quotes such as \"13.0\"",
            ));
        }
    };
    Ok(DriverSpec {
        version: version.value.clone(),
        cuda,
        open_kernel_modules: driver.open_kernel_modules,
        fault: driver.fault.clone(),
    })
}

fn count(group: &Group) -> Placed<usize> {
    let Some(count) = &group.count else { return Ok(1) };
    let fits = usize::try_from(count.value)
        .ok()
        .filter(|count| (1..=MOST_GPUS).contains(count));
    fits.ok_or((count.referenced, Problem::BadCount(count.value)))
}

fn add_group(
    group: &Group,
    count: usize,
    driver: &DriverSpec,
    gpus: &mut Vec<GpuSpec>,
    taken: &mut BTreeSet<PciAddress>,
) -> Placed<()> {
    let at = group.card.referenced;
    let card = catalog::find(&group.card.value).map_err(|_| {
        let card = group.card.value.clone();
        let near = nearest(&card, catalog::all().iter().map(|card| card.name.as_str()));
        (at, Problem::UnknownCard { card, near })
    })?;
    let addresses = addresses(group, count, taken)?;
    let (subsystem_vendor_id, subsystem_device_id) = subsystem(group)?;
    let branch = driver.version.split('.').next().unwrap_or_default();
    let branch = branch.parse().unwrap_or(0);
    let mut spec = GpuSpec {
        card,
        pci: PciFunction {
            address: PciAddress {
                domain: 0,
                bus: 0,
                device: 0,
                function: 0,
            },
            vendor_id: NVIDIA_VENDOR_ID,
            device_id: card.pci_device_id,
            subsystem_vendor_id,
            subsystem_device_id,
        },
        numa_node: group.numa_node.unwrap_or(0),
        readings: defaults::readings(card, branch),
        overrides: BTreeMap::new(),
        mig: Vec::new(),
        lost: group.fault == Some(Fault::FallenOffBus),
        fields: group.fields.clone(),
        gpm: group.gpm.clone(),
        latencies: Latencies::default(),
    };
    if driver.open_kernel_modules {
        // They run on the GPU's own processor only, with firmware of their version; of the others nobody says.
        spec.readings.gsp_firmware = Reading::Value(driver.version.clone());
    }
    fill_readings(group, &mut spec)?;
    for (call, time) in &group.latency_us {
        known_call(call).map_err(|problem| (time.referenced, problem))?;
        spec.latencies
            .0
            .insert(call.clone(), Duration::from_micros(time.value));
    }
    if let Some(mig) = &group.mig {
        spec.mig = mig_devices(card, mig)?;
        let enabled = mig.value.enabled;
        spec.readings.mig_mode = Reading::Value(MigMode {
            current: enabled,
            pending: enabled,
        });
    }
    start_processes(group, &mut spec)?;
    gpus.extend(addresses.into_iter().map(|address| {
        let mut spec = spec.clone();
        spec.pci.address = address;
        spec
    }));
    Ok(())
}

fn fill_readings(group: &Group, spec: &mut GpuSpec) -> Placed<()> {
    if let Some(name) = &group.name {
        spec.readings.name = Reading::Value(name.clone());
    }
    for (field, given) in &group.readings {
        value::set(&mut spec.readings, field, &given.value).map_err(|problem| (given.referenced, problem))?;
    }
    let total = group.readings.contains_key("memory_total_bytes");
    if total && !group.readings.contains_key("memory_free_bytes") {
        let used = spec.readings.memory_used_bytes.clone();
        spec.readings.memory_free_bytes = spec
            .readings
            .memory_total_bytes
            .clone()
            .zip(used)
            .map(|(total, used)| total.saturating_sub(used));
    }
    defaults::follow(&mut spec.readings);
    spec.readings.xids = Reading::Value(group.xids.clone());
    for (field, reason) in &group.fail {
        let field = known_field(field).map_err(|problem| (reason.referenced, problem))?;
        spec.overrides
            .insert(field, Override::Failed(reason.value.clone()));
    }
    for field in &group.unsupported {
        let known = known_field(&field.value).map_err(|problem| (field.referenced, problem))?;
        spec.overrides.insert(known, Override::NotSupported);
    }
    Ok(())
}

/// Lets the processes of a group start on a GPU that is made up for it, so that the same rules hold as later.
fn start_processes(group: &Group, spec: &mut GpuSpec) -> Placed<()> {
    if group.processes.is_empty() {
        return Ok(());
    }
    let mut gpu = GpuState::new(spec.clone(), 0, "", &mut 0);
    for process in &group.processes {
        gpu.start(process)
            .map_err(|reason| (group.card.referenced, Problem::Process(reason)))?;
    }
    spec.readings.processes = gpu.base.processes;
    Ok(())
}

/// What tells GPUs apart may be given, but not to two of them.
fn only_once(gpus: &[GpuSpec]) -> Result<(), Problem> {
    let (mut uuids, mut minors) = (BTreeSet::new(), BTreeSet::new());
    for GpuSpec { readings, .. } in gpus {
        if let Some(uuid) = readings.uuid.value().filter(|uuid| !uuids.insert(uuid.as_str())) {
            return Err(Problem::Duplicate {
                what: "uuid",
                value: uuid.clone(),
            });
        }
        if let Some(minor) = readings.minor.value().filter(|minor| !minors.insert(**minor)) {
            return Err(Problem::Duplicate {
                what: "minor",
                value: minor.to_string(),
            });
        }
    }
    Ok(())
}

/// The addresses given, or the next free buses.
fn addresses(group: &Group, count: usize, taken: &mut BTreeSet<PciAddress>) -> Placed<Vec<PciAddress>> {
    if group.pci.is_empty() {
        let free = (1..=u8::MAX).map(|bus| PciAddress {
            domain: 0,
            bus,
            device: 0,
            function: 0,
        });
        let free: Vec<_> = free
            .filter(|address| !taken.contains(address))
            .take(count)
            .collect();
        taken.extend(free.iter().copied());
        return Ok(free);
    }
    if group.pci.len() != count {
        return Err((
            group.pci[0].referenced,
            Problem::AddressCount {
                given: group.pci.len(),
                count,
            },
        ));
    }
    let mut addresses = Vec::with_capacity(count);
    for text in &group.pci {
        let address: PciAddress = text.value.parse().map_err(|_| {
            let (field, expected) = ("pci".to_owned(), "an address such as `0000:3b:00.0`".to_owned());
            (
                text.referenced,
                Problem::BadValue {
                    field,
                    expected,
                    found: format!("`{}`", text.value),
                },
            )
        })?;
        if !taken.insert(address) {
            return Err((text.referenced, Problem::DuplicateAddress(address.to_string())));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn subsystem(group: &Group) -> Placed<(u16, u16)> {
    let Some(text) = &group.subsystem else {
        return Ok((NVIDIA_VENDOR_ID, 0));
    };
    let hex = |part: &str| {
        (part.len() == 4)
            .then(|| u16::from_str_radix(part, 16).ok())
            .flatten()
    };
    text.value
        .split_once(':')
        .and_then(|(vendor, device)| Some((hex(vendor)?, hex(device)?)))
        .ok_or_else(|| {
            let (field, expected) = (
                "subsystem".to_owned(),
                "two PCI ids such as `10de:16c1`".to_owned(),
            );
            (
                text.referenced,
                Problem::BadValue {
                    field,
                    expected,
                    found: format!("`{}`", text.value),
                },
            )
        })
}

/// The devices wanted, each of which has a place: tried out on an empty GPU, in this order.
fn mig_devices(card: &Card, mig: &Spanned<MigDocument>) -> Placed<Vec<WantedDevice>> {
    let problem = |at: Location, what: String| (at, Problem::Mig(what));
    let geometry = core_mig::geometry(card)
        .ok_or_else(|| problem(mig.referenced, format!("the card `{}` has none", card.name)))?;
    if let (false, Some(device)) = (mig.value.enabled, mig.value.devices.first()) {
        return Err(problem(
            device.referenced,
            "devices need `enabled: true`".to_owned(),
        ));
    }
    let mut layout: Vec<(Profile, Placement)> = Vec::new();
    let mut wanted = Vec::new();
    for device in &mig.value.devices {
        let at = device.referenced;
        let (profile, start) = match device.value.split_once('@') {
            Some((profile, start)) => (profile, Some(start)),
            None => (device.value.as_str(), None),
        };
        let profile: Profile = profile
            .parse()
            .map_err(|error: core_mig::ParseProfileError| problem(at, error.to_string()))?;
        let placement = start
            .map(|start| placement(&geometry, &profile, start))
            .transpose();
        let placement = placement.map_err(|what| problem(at, what))?;
        let standing: Layout = layout.iter().cloned().collect();
        let (_, placement) =
            find_place(&geometry, &standing, &profile, placement).map_err(|what| problem(at, what))?;
        layout.push((profile.clone(), placement));
        wanted.push(WantedDevice {
            profile,
            placement: Some(placement),
        });
    }
    Ok(wanted)
}

/// The placement of this profile that starts there.
fn placement(geometry: &core_mig::Geometry, profile: &Profile, start: &str) -> Result<Placement, String> {
    let known = geometry.profiles.iter().find(|known| known.profile == *profile);
    let placements = known.map_or(&[][..], |known| &known.placements);
    let wanted = start.parse().ok();
    placements
        .iter()
        .find(|placement| Some(placement.start) == wanted)
        .copied()
        .ok_or_else(|| {
            let starts: Vec<_> = placements
                .iter()
                .map(|placement| placement.start.to_string())
                .collect();
            format!(
                "`{profile}` can't start at `{start}`; it can at {}",
                starts.join(", ")
            )
        })
}

/// Nodes of four and more GPUs have two sockets, as such machines do: the first half is on node 0.
fn spread_over_numa(groups: &[Group], gpus: &mut [GpuSpec]) {
    if gpus.len() < 4 || groups.iter().any(|group| group.numa_node.is_some()) {
        return;
    }
    let half = gpus.len() / 2;
    for gpu in &mut gpus[half..] {
        gpu.numa_node = 1;
    }
}

/// From Hopper on GPUs register with the fabric; one board alone is its own cluster, of one clique.
fn registered() -> Fabric {
    Fabric {
        state: FabricState::Completed,
        status: Some(Fabric::SUCCESS.to_owned()),
        clique: Some(0),
        cluster_uuid: Some("00000000-0000-0000-0000-000000000000".to_owned()),
    }
}

fn links(links: Option<&Spanned<Links>>, gpus: &mut [GpuSpec]) -> Placed<Vec<Link>> {
    let numa: Vec<u32> = gpus.iter().map(|gpu| gpu.numa_node).collect();
    let links_of = links.map(|links| &links.value);
    let (links, each) = match links_of {
        None | Some(Links::Pcie) => (topology::uniform(&numa, None), None),
        Some(Links::Nvswitch(count)) => (topology::uniform(&numa, Some(*count)), Some(*count)),
        Some(Links::Matrix(rows)) => {
            let texts: Vec<_> = rows.iter().map(|row| row.value.as_str()).collect();
            let at = |row: usize| rows.get(row).map_or(Location::UNKNOWN, |row| row.referenced);
            (
                topology::matrix(&numa, &texts).map_err(|(row, problem)| (at(row), problem))?,
                None,
            )
        }
    };
    for (index, gpu) in gpus.iter_mut().enumerate() {
        if let Some(count) = each.or_else(|| topology::nvlinks_of(&links, index))
            && gpu.readings.nvlinks_active.is_absent()
        {
            gpu.readings.nvlinks_active = Reading::Value(count);
        }
        let has_switches = matches!(links_of, Some(Links::Nvswitch(_)));
        if has_switches && gpu.card.architecture >= Architecture::Hopper && gpu.readings.fabric.is_absent() {
            gpu.readings.fabric = Reading::Value(registered());
        }
    }
    Ok(links)
}
