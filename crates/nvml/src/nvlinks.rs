//! The `NVLinks` of a GPU one by one: state, speed and counters of errors.

use nvml_wrapper_sys::bindings as sys;
use pitcrew_core::Reading;
use pitcrew_core::nvlink::NvLink;

use crate::call;
use crate::code::{Answer, Code, reading};
use crate::device::Device;
use crate::fields;

/// Links whose speed has a field of its own (`NVML_FI_DEV_NVLINK_SPEED_MBPS_L0` and on), in drivers and GPUs of old.
const WITH_OWN_FIELD: u32 = 12;

/// Every link that the driver knows. Fails for a GPU without, and for one that can't be asked at all.
pub(crate) fn read(device: Device<'_>) -> Answer<Vec<NvLink>> {
    let mut links = device
        .nvlink_states()?
        .into_iter()
        .map(|(index, is_up)| NvLink::new(index, is_up))
        .collect::<Vec<_>>();
    for link in &mut links {
        count(device, link)?;
        if link.is_up {
            link.speed_mbs = speed(device, link.index)?;
        }
    }
    by_fields(device, &mut links)?;
    Ok(links)
}

/// The counters that each link has had since Pascal.
fn count(device: Device<'_>, link: &mut NvLink) -> Answer<()> {
    let index = link.index;
    let counter = |kind: u32| -> Answer<Reading<u64>> {
        let function = &device.library.functions.nvmlDeviceGetNvLinkErrorCounter;
        match call::get_of_three::<_, _, _, u64>(function, device, index, kind) {
            Err(Code::GPU_IS_LOST) => Err(Code::GPU_IS_LOST),
            // A link that is down, or that isn't wired.
            Err(Code::INVALID_ARGUMENT) => Ok(Reading::NotSupported),
            answer => Ok(reading(answer)),
        }
    };
    link.crc_flit = counter(sys::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_FLIT)?;
    link.crc_data = counter(sys::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_DATA)?;
    link.replays = counter(sys::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY)?;
    link.recoveries = counter(sys::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_RECOVERY)?;
    Ok(())
}

/// The speed of a link, asked for by itself: among other fields an H100's driver (580.159) calls it not supported.
fn speed(device: Device<'_>, link: u32) -> Answer<Reading<u64>> {
    let found = match fields::read_scoped(device, &[("NVML_FI_DEV_NVLINK_GET_SPEED", link)]) {
        Err(Code::GPU_IS_LOST) => return Err(Code::GPU_IS_LOST),
        found => found.unwrap_or_default(),
    };
    // No link is up at no speed: nobody has filled it in.
    let mut found = found.into_iter().filter(|speed| *speed != Reading::Value(0));
    Ok(found.next().unwrap_or(Reading::NotSupported))
}

/// A field of one link, and where its value goes if nothing is there yet.
struct Wanted {
    name: String,
    scope: u32,
    link: usize,
    place: fn(&mut NvLink) -> &mut Reading<u64>,
}

/// Speeds of drivers of old, and counters of GPUs that have them as fields only (Blackwell); all in few calls.
fn by_fields(device: Device<'_>, links: &mut [NvLink]) -> Answer<()> {
    let mut wanted = Vec::new();
    for (at, link) in links.iter().enumerate() {
        let mut want = |name: &str, scope, place| {
            wanted.push(Wanted {
                name: format!("NVML_FI_DEV_NVLINK_{name}"),
                scope,
                link: at,
                place,
            });
        };
        if link.is_up && link.speed_mbs == Reading::NotSupported {
            if link.index < WITH_OWN_FIELD {
                let own = format!("SPEED_MBPS_L{}", link.index);
                want(&own, 0, |link| &mut link.speed_mbs);
            }
            // What all links that are up have in common, where none is asked for by itself.
            want("SPEED_MBPS_COMMON", 0, |link| &mut link.speed_mbs);
        }
        if link.replays == Reading::NotSupported {
            want("ERROR_DL_REPLAY", link.index, |link| &mut link.replays);
        }
        if link.recoveries == Reading::NotSupported {
            want("ERROR_DL_RECOVERY", link.index, |link| &mut link.recoveries);
            want("COUNT_LINK_RECOVERY_EVENTS", link.index, |link| {
                &mut link.recoveries
            });
        }
        if link.crc_flit == Reading::NotSupported && link.crc_data == Reading::NotSupported {
            want("ERROR_DL_CRC", link.index, |link| &mut link.crc_data);
        }
    }
    let names: Vec<(&str, u32)> = wanted.iter().map(|field| (&*field.name, field.scope)).collect();
    let found = match fields::read_scoped(device, &names) {
        Ok(found) => found,
        Err(Code::GPU_IS_LOST) => return Err(Code::GPU_IS_LOST),
        // A driver of a time before fields.
        Err(_) => return Ok(()),
    };
    for (field, value) in wanted.iter().zip(found) {
        let is_speed = field.name.contains("SPEED");
        let place = (field.place)(&mut links[field.link]);
        if *place == Reading::NotSupported && !(is_speed && value == Reading::Value(0)) {
            *place = value;
        }
    }
    Ok(())
}
