//! Events: sets of GPUs and kinds that a client waits for.

use std::ffi::{c_uint, c_ulonglong};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::{
    self as nvml, nvmlDevice_t, nvmlEventData_t, nvmlEventSet_st, nvmlEventSet_t,
};
use pitcrew_core::ports::{GpuEvent, GpuEventKind};
use pitcrew_scenario::EventQueue;

use crate::abi::{Answer, Out, code};
use crate::handles::Object;
use crate::world::{Call, LOOK_AGAIN, lock};

/// What a client wants to hear of.
pub(crate) struct EventSet {
    queue: EventQueue,
    /// UUID of each GPU, and the kinds of events.
    registered: Vec<(String, c_ulonglong)>,
}

exports! {
    fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) |call| {
        set.present()?;
        call.driver()?;
        let new = EventSet { queue: call.machine().events(), registered: Vec::new() };
        let handle = call.handles().add_set(new);
        set.set(handle)
    }

    fn nvmlDeviceRegisterEvents(device: nvmlDevice_t, eventTypes: c_ulonglong, set: nvmlEventSet_t) |call| {
        let gpu = call.gpu(&device)?;
        if eventTypes & !c_ulonglong::from(nvml::nvmlEventTypeAll) != 0 {
            return Err(code::NOT_SUPPORTED);
        }
        let set = call.handles().set(set.address())?;
        lock(&set).registered.push((gpu.uuid, eventTypes));
        Ok(())
    }

    fn nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, eventTypes: *mut c_ulonglong) |call| {
        call.gpu(&device)?;
        eventTypes.set(nvml::nvmlEventTypeAll.into())
    }

    fn nvmlEventSetWait(set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeoutms: c_uint) |call| {
        wait(call, &set, &data, timeoutms)
    }

    fn nvmlEventSetWait_v2(set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeoutms: c_uint) |call| {
        wait(call, &set, &data, timeoutms)
    }

    fn nvmlEventSetFree(set: nvmlEventSet_t) |call| {
        call.handles().free_set(set.address())
    }
}

fn wait(call: &Call, set: &Out<nvmlEventSet_st>, data: &Out<nvmlEventData_t>, timeout: c_uint) -> Answer {
    data.present()?;
    let set = call.handles().set(set.address())?;
    let end = Instant::now() + Duration::from_millis(timeout.into());
    loop {
        // Hangs where it must, and keeps no deadline then.
        call.driver()?;
        if let Some((event, kind)) = next(&mut lock(&set)) {
            return data.set(told(call, &event, kind)?);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(code::TIMEOUT);
        }
        std::thread::sleep(left.min(LOOK_AGAIN));
        call.catch_up();
    }
}

/// The next event that the set was registered for.
fn next(set: &mut EventSet) -> Option<(GpuEvent, c_ulonglong)> {
    while let Some(event) = set.queue.take() {
        let kind = c_ulonglong::from(match event.kind {
            GpuEventKind::Xid(_) => nvml::nvmlEventTypeXidCriticalError,
            GpuEventKind::EccCorrected => nvml::nvmlEventTypeSingleBitEccError,
            GpuEventKind::EccUncorrected => nvml::nvmlEventTypeDoubleBitEccError,
        });
        let wanted = set
            .registered
            .iter()
            .any(|(uuid, kinds)| *uuid == event.uuid && kinds & kind != 0);
        if wanted {
            return Some((event, kind));
        }
    }
    None
}

fn told(call: &Call, event: &GpuEvent, kind: c_ulonglong) -> Answer<nvmlEventData_t> {
    let index = call.machine().uuids().iter().position(|uuid| *uuid == event.uuid);
    let index = index
        .and_then(|index| u32::try_from(index).ok())
        .ok_or(code::UNKNOWN)?;
    let none = c_uint::MAX;
    let device = call.handles().of(Object::Gpu(index));
    Ok(nvmlEventData_t {
        device,
        eventType: kind,
        eventData: match event.kind {
            GpuEventKind::Xid(xid) => xid.into(),
            GpuEventKind::EccCorrected | GpuEventKind::EccUncorrected => 0,
        },
        gpuInstanceId: event.gpu_instance.unwrap_or(none),
        computeInstanceId: event.compute_instance.unwrap_or(none),
    })
}
