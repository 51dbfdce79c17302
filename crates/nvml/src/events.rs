//! What happens on GPUs, as the driver tells it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nvml_wrapper_sys::bindings as sys;
use pitcrew_core::ports::{Events, GpuError, GpuEvent, GpuEventKind};

use crate::call::{self, Handle, Plain as _};
use crate::code::{Answer, Code};
use crate::device::Device;
use crate::library::Library;
use crate::progress;

/// What is asked for, as far as a GPU has it.
const WANTED: u64 = (sys::nvmlEventTypeXidCriticalError
    | sys::nvmlEventTypeSingleBitEccError
    | sys::nvmlEventTypeDoubleBitEccError) as u64;
/// How many XIDs of one GPU are remembered.
const REMEMBERED: usize = 32;
/// No GPU instance or compute instance.
const NONE: u32 = u32::MAX;

/// The last XIDs of each GPU that somebody listens to.
#[derive(Debug, Default)]
pub(crate) struct XidLog(Mutex<BTreeMap<String, Heard>>);

/// What was heard of one GPU.
#[derive(Debug, Default)]
struct Heard {
    listeners: usize,
    xids: VecDeque<u32>,
}

impl XidLog {
    /// From now on its XIDs are known.
    fn listen(&self, uuid: &str) {
        self.lock().entry(uuid.to_owned()).or_default().listeners += 1;
    }

    /// One listener less; from the last one on, what happens to the GPU is not known any more.
    fn leave(&self, uuid: &str) {
        let mut log = self.lock();
        if let Some(heard) = log.get_mut(uuid) {
            heard.listeners = heard.listeners.saturating_sub(1);
            if heard.listeners == 0 {
                log.remove(uuid);
            }
        }
    }

    fn push(&self, uuid: &str, xid: u32) {
        let mut log = self.lock();
        let Some(heard) = log.get_mut(uuid) else { return };
        if heard.xids.len() == REMEMBERED {
            heard.xids.pop_front();
        }
        heard.xids.push_back(xid);
    }

    /// XIDs of this GPU, oldest first; `None` where nobody listens: NVML has no memory of them.
    pub(crate) fn of(&self, uuid: &str) -> Option<Vec<u32>> {
        self.lock()
            .get(uuid)
            .map(|heard| heard.xids.iter().copied().collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A set of events, given back when dropped.
#[derive(Debug)]
struct EventSet {
    library: Arc<Library>,
    raw: sys::nvmlEventSet_t,
}

#[expect(unsafe_code, reason = "a handle of C goes from thread to thread")]
// SAFETY: the set belongs to the library, which keeps no state of threads and may be called from any.
unsafe impl Send for EventSet {}

/// The set as an argument of a call.
#[derive(Clone, Copy)]
struct SetHandle(sys::nvmlEventSet_t);

impl Handle for SetHandle {
    type Raw = sys::nvmlEventSet_t;
    fn raw(self) -> Self::Raw {
        self.0
    }
}

impl EventSet {
    fn new(library: &Arc<Library>) -> Answer<Self> {
        let raw = call::get(&library.functions.nvmlEventSetCreate)?;
        Ok(Self {
            library: Arc::clone(library),
            raw,
        })
    }

    fn register(&self, device: Device<'_>, events: u64) -> Answer<()> {
        register(&self.library, device, events, SetHandle(self.raw))
    }

    fn wait(&self, milliseconds: u32) -> Answer<sys::nvmlEventData_t> {
        let functions = &self.library.functions;
        let set = SetHandle(self.raw);
        wait(&functions.nvmlEventSetWait_v2, set, milliseconds).or_else(|code| {
            // Before R450: without the numbers of instances.
            if code.wants_older_call() {
                wait(&functions.nvmlEventSetWait, set, milliseconds)
            } else {
                Err(code)
            }
        })
    }
}

impl Drop for EventSet {
    fn drop(&mut self) {
        // Nothing could be done about a library that will not take it back.
        let _: Answer<()> = call::act(&self.library.functions.nvmlEventSetFree, SetHandle(self.raw));
    }
}

/// `nvmlDeviceRegisterEvents`: the one call with a mask of 64 bits by value.
#[derive(Clone, Copy)]
struct Mask(u64);

impl Handle for Mask {
    type Raw = u64;
    fn raw(self) -> u64 {
        self.0
    }
}

fn register(library: &Library, device: Device<'_>, events: u64, set: SetHandle) -> Answer<()> {
    call::act_on_three(
        &library.functions.nvmlDeviceRegisterEvents,
        device,
        Mask(events),
        set,
    )
}

fn wait(
    symbol: &call::Symbol<
        unsafe extern "C" fn(sys::nvmlEventSet_t, *mut sys::nvmlEventData_t, u32) -> sys::nvmlReturn_t,
    >,
    set: SetHandle,
    milliseconds: u32,
) -> Answer<sys::nvmlEventData_t> {
    let data = sys::nvmlEventData_t {
        gpuInstanceId: NONE,
        computeInstanceId: NONE,
        ..sys::nvmlEventData_t::zeroed()
    };
    call::get_then(symbol, set, data, milliseconds)
}

/// The events of all GPUs that were there when it was made; made by [`crate::Nvml::events`].
///
/// It holds the library as [`crate::Nvml`] does: both must be dropped before the driver can be replaced.
#[derive(Debug)]
pub struct NvmlEvents {
    library: Arc<Library>,
    log: Arc<XidLog>,
    set: EventSet,
    /// UUIDs by the address of the handle, which events bring.
    gpus: BTreeMap<usize, String>,
    /// UUIDs of GPUs that were lost: a driver that still takes a subscription to one would end every wait by it.
    lost: BTreeSet<String>,
    /// GPUs that a call hangs at, by the driver's number: they are not even asked who they are.
    silent: BTreeSet<u32>,
}

impl Drop for NvmlEvents {
    fn drop(&mut self) {
        for uuid in self.gpus.values() {
            self.log.leave(uuid);
        }
    }
}

impl NvmlEvents {
    pub(crate) fn new(
        library: &Arc<Library>,
        log: &Arc<XidLog>,
        silent: BTreeSet<u32>,
    ) -> Result<Self, GpuError> {
        let (set, gpus) = subscribe(library, &BTreeSet::new(), &silent)?;
        for uuid in gpus.values() {
            log.listen(uuid);
        }
        Ok(Self {
            library: Arc::clone(library),
            log: Arc::clone(log),
            set,
            gpus,
            lost: BTreeSet::new(),
            silent,
        })
    }

    /// The UUIDs of the GPUs whose events are waited for.
    pub fn gpus(&self) -> impl Iterator<Item = &str> {
        self.gpus.values().map(String::as_str)
    }

    /// Finds the GPU that is lost, and goes on without it: it would end every wait at once from now on.
    fn lost(&mut self) -> GpuError {
        let is_lost = |uuid: &String| match self.library.device_by_uuid(uuid) {
            Ok(device) => device.temperature() == Err(Code::GPU_IS_LOST),
            Err(_) => true,
        };
        let Some(uuid) = self.gpus.values().find(|uuid| is_lost(uuid)).cloned() else {
            return GpuError::DriverFailed(format!("waiting for events: {}", Code::GPU_IS_LOST));
        };
        self.lost.insert(uuid.clone());
        let mut left = self.gpus.clone();
        left.retain(|_, known| *known != uuid);
        // Where none is left, or none can be subscribed to, the next wait says so.
        if let Ok((set, gpus)) = subscribe(&self.library, &self.lost, &self.silent) {
            self.set = set;
            left = gpus;
        }
        for uuid in left.values() {
            self.log.listen(uuid);
        }
        for uuid in std::mem::replace(&mut self.gpus, left).values() {
            self.log.leave(uuid);
        }
        GpuError::GpuLost(uuid)
    }
}

/// A new set with the events of every GPU that has some.
fn subscribe(
    library: &Arc<Library>,
    without: &BTreeSet<String>,
    silent: &BTreeSet<u32>,
) -> Result<(EventSet, BTreeMap<usize, String>), GpuError> {
    let failed = |code: Code| GpuError::DriverFailed(format!("subscribing to events: {code}"));
    let set = EventSet::new(library).map_err(failed)?;
    let mut gpus = BTreeMap::new();
    let mut last = Code::NOT_SUPPORTED;
    for index in 0..library.count().map_err(failed)? {
        if silent.contains(&index) {
            continue;
        }
        progress::about(Some(index));
        let subscribed = library.device(index).and_then(|device| {
            let uuid = device.uuid()?;
            if without.contains(&uuid) {
                return Err(Code::GPU_IS_LOST);
            }
            let events = device.supported_events()? & WANTED;
            if events == 0 {
                return Err(Code::NOT_SUPPORTED);
            }
            set.register(device, events)?;
            Ok((device.address(), uuid))
        });
        match subscribed {
            Ok((address, uuid)) => {
                gpus.insert(address, uuid);
            }
            // One GPU without events, or lost, leaves the others theirs.
            Err(code) => last = code,
        }
    }
    progress::about(None);
    if gpus.is_empty() {
        return Err(GpuError::DriverFailed(format!("no GPU tells of events: {last}")));
    }
    Ok((set, gpus))
}

impl Events for NvmlEvents {
    fn wait(&mut self, timeout: Duration) -> Result<Option<GpuEvent>, GpuError> {
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        if self.gpus.is_empty() {
            return Err(GpuError::DriverFailed(
                "no GPU is left that tells of events".to_owned(),
            ));
        }
        let data = match self.set.wait(milliseconds) {
            Ok(data) => data,
            Err(Code::TIMEOUT) => return Ok(None),
            Err(Code::GPU_IS_LOST) => return Err(self.lost()),
            Err(code) => return Err(GpuError::DriverFailed(format!("waiting for events: {code}"))),
        };
        let Some(uuid) = self.gpus.get(&data.device.addr()) else {
            return Err(GpuError::DriverFailed(
                "it tells of an event on an unknown GPU".to_owned(),
            ));
        };
        let Some(kind) = kind(data.eventType, data.eventData) else {
            // Not asked for; some drivers tell all the same.
            return Ok(None);
        };
        if let GpuEventKind::Xid(xid) = kind {
            self.log.push(uuid, xid);
        }
        Ok(Some(GpuEvent {
            uuid: uuid.clone(),
            kind,
            gpu_instance: Some(data.gpuInstanceId).filter(|id| *id != NONE),
            compute_instance: Some(data.computeInstanceId).filter(|id| *id != NONE),
        }))
    }
}

fn kind(event: u64, data: u64) -> Option<GpuEventKind> {
    match u32::try_from(event).ok()? {
        sys::nvmlEventTypeXidCriticalError => {
            Some(GpuEventKind::Xid(u32::try_from(data).unwrap_or(u32::MAX)))
        }
        sys::nvmlEventTypeSingleBitEccError => Some(GpuEventKind::EccCorrected),
        sys::nvmlEventTypeDoubleBitEccError => Some(GpuEventKind::EccUncorrected),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart_by_their_bit() {
        assert_eq!(kind(8, 79), Some(GpuEventKind::Xid(79)));
        assert_eq!(kind(1, 0), Some(GpuEventKind::EccCorrected));
        assert_eq!(kind(2, 0), Some(GpuEventKind::EccUncorrected));
        assert_eq!(kind(16, 0), None);
        assert_eq!(kind(u64::MAX, 0), None);
    }

    #[test]
    fn the_last_xids_are_remembered_once_somebody_listens() {
        let log = XidLog::default();
        assert_eq!(log.of("GPU-1"), None);
        log.listen("GPU-1");
        assert_eq!(log.of("GPU-1"), Some(Vec::new()));
        for xid in 0..40 {
            log.push("GPU-1", xid);
        }
        let seen = log.of("GPU-1").unwrap();
        assert_eq!((seen.len(), seen[0], seen[31]), (REMEMBERED, 8, 39));
        log.listen("GPU-1");
        log.leave("GPU-1");
        assert!(log.of("GPU-1").is_some(), "one still listens");
        log.leave("GPU-1");
        log.push("GPU-1", 79);
        assert_eq!(log.of("GPU-1"), None, "nobody does");
    }
}
